import itertools

import numpy as np
import pytest

import minitorch_attn as mt
from minitorch_attn.attention import AdditiveAttention
from minitorch_attn.models import Seq2Seq, Seq2SeqTransformer, beam_search, greedy_decode
from minitorch_attn.models.seq2seq import Decoder, Encoder

K, END = 5, 2
SOURCE = np.array([[3, 4, 3, 4], [4, 3, 0, 0], [3, 3, 4, 0]])


def recurrent(attention=None):
    return Seq2Seq(Encoder(K, 6, 4), Decoder(K, 6, 7, memory_size=8, attention=attention))


MODELS = {
    "summary": recurrent,
    "attention": lambda: recurrent(AdditiveAttention(7, 8, 5)),
    "transformer": lambda: Seq2SeqTransformer(K, K, 8, 2, 1, 1, 16, dropout=0.0),
}
models = pytest.mark.parametrize("name", MODELS)


def make(name, seed=0, scale=2.0):
    """A model with large random weights, so that its probabilities are not even."""
    mt.manual_seed(seed)
    model = MODELS[name]().double()
    with mt.no_grad():
        for p in model.parameters():
            p *= scale
    return model


class Table:
    """A model of one step, whose scores follow from the last token alone (and from its source)."""

    def __init__(self, probabilities):
        self.log_p = np.log(np.array(probabilities))  # (sources, K, K)

    def start(self, source, source_lengths=None):
        return {"row": [(mt.tensor(np.asarray(source)[:, 0]),)]}

    def step(self, tokens, state):
        return mt.tensor(self.log_p[state["row"][0][0].numpy(), np.asarray(tokens)]), state


def log_p(model, source, sequence):
    """Log-probability of a sequence of tokens, from the model's forward."""
    target = np.array([[1, *sequence]])
    scores = model(source[None], target[:, :-1]).numpy()[0]
    scores = scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))
    return scores[np.arange(len(sequence)), sequence].sum()


def written(row):
    """A row of tokens up to its end."""
    row = row.tolist()
    return row[: row.index(END) + 1] if END in row else row


def penalty(length, alpha):
    return ((5 + length) / 6) ** alpha


@models
def test_greedy_takes_the_likeliest_token_at_every_step(name):
    model = make(name, seed=1)
    tokens = greedy_decode(model, SOURCE, max_length=6)
    assert tokens.shape[0] == 3 and tokens.shape[1] <= 6
    for source, row in zip(SOURCE, tokens):
        so_far = [1]
        for token in written(row):
            scores = model(source[None], np.array([so_far])).numpy()[0, -1]
            assert token == scores.argmax()
            so_far.append(token)


def test_behind_the_end_there_is_padding_and_the_last_to_end_ends_the_work():
    goes_on, ends = [0.0, 0.0, 0.0, 1.0, 0.0], [0.0, 0.0, 1.0, 0.0, 0.0]
    with np.errstate(divide="ignore"):
        short = Table([[ends] * 5, [goes_on, goes_on, goes_on, ends, goes_on]])
    np.testing.assert_array_equal(greedy_decode(short, [[0], [1]]), [[2, 0], [3, 2]])
    with np.errstate(divide="ignore"):
        endless = Table([[goes_on] * 5])
    np.testing.assert_array_equal(greedy_decode(endless, [[0]], max_length=3), [[3, 3, 3]])


@models
def test_one_beam_is_greedy(name):
    for seed in range(3):
        model = make(name, seed)
        tokens, scores = beam_search(model, SOURCE, beam_size=1, max_length=5)
        np.testing.assert_array_equal(tokens[:, 0], greedy_decode(model, SOURCE, max_length=5))
        assert scores.shape == (3, 1)


def test_greedy_is_led_astray_where_two_beams_are_not():
    # From the start 3 is likelier than 4; but then nothing is sure, and after 4 the end is.
    rows = np.full((5, 5), 0.2)
    rows[1], rows[4] = [0.0, 0.0, 0.0, 0.6, 0.4], [0.0, 0.0, 1.0, 0.0, 0.0]
    with np.errstate(divide="ignore"):
        model = Table([rows])
    assert greedy_decode(model, [[0]])[0, 0] == 3
    tokens, scores = beam_search(model, [[0]], beam_size=2, length_penalty=0.0)
    np.testing.assert_array_equal(written(tokens[0, 0]), [4, 2])
    np.testing.assert_allclose(scores[0, 0], np.log(0.4))


@models
@pytest.mark.parametrize("alpha", [0.0, 0.6, 2.0])
def test_with_enough_beams_it_finds_the_best_of_all_sequences(name, alpha):
    model, longest = make(name), 3
    tokens, scores = beam_search(
        model, SOURCE, beam_size=K**longest, max_length=longest, length_penalty=alpha
    )
    sequences = {
        tuple(written(np.array(sequence)))
        for sequence in itertools.product(range(K), repeat=longest)
    }
    for n, source in enumerate(SOURCE):
        expected = {s: log_p(model, source, s) / penalty(len(s), alpha) for s in sequences}
        best = sorted(sequences, key=expected.get, reverse=True)
        assert [tuple(written(row)) for row in tokens[n, :10]] == best[:10]
        np.testing.assert_allclose(scores[n, :10], [expected[s] for s in best[:10]])
        # There is no more than all of them, each once.
        assert np.isfinite(scores[n]).sum() == len(sequences)


@models
def test_sequences_of_a_batch_do_not_meet(name):
    model = make(name, seed=2)
    tokens, scores = beam_search(model, SOURCE, beam_size=3, max_length=6)
    for n, source in enumerate(SOURCE):
        alone, alone_scores = beam_search(model, source[None], beam_size=3, max_length=6)
        for row, other in zip(tokens[n], alone[0]):
            assert written(row) == written(other)
        np.testing.assert_allclose(scores[n], alone_scores[0])


@models
def test_scores_fall_and_are_those_of_the_tokens(name):
    model = make(name, seed=2)
    tokens, scores = beam_search(model, SOURCE, beam_size=4, max_length=6, length_penalty=1.0)
    assert (np.diff(scores, axis=1) <= 0).all()
    for n, source in enumerate(SOURCE):
        for row, score in zip(tokens[n], scores[n]):
            sequence = written(row)
            expected = log_p(model, source, sequence) / penalty(len(sequence), 1.0)
            np.testing.assert_allclose(score, expected)


def test_the_penalty_decides_between_short_and_long():
    # Ending at once has probability 0.5; otherwise three sure tokens and the end: 0.45 in all.
    rows = np.eye(7)
    rows[1] = [0, 0, 0.5, 0.45, 0, 0, 0.05]
    rows[3:6] = rows[[4, 5, 2]]
    with np.errstate(divide="ignore"):
        model = Table([rows])
    short, _ = beam_search(model, [[0]], beam_size=3, length_penalty=0.0, max_length=9)
    long, scores = beam_search(model, [[0]], beam_size=3, length_penalty=1.0, max_length=9)
    assert written(short[0, 0]) == [2] and written(long[0, 0]) == [3, 4, 5, 2]
    np.testing.assert_allclose(scores[0, 0], np.log(0.45) / (9 / 6))


def test_lengths_of_sources_reach_the_model():
    model = make("attention")
    longer = np.concatenate([SOURCE, np.full((3, 2), 4)], axis=1)
    lengths = [4, 2, 3]
    np.testing.assert_array_equal(
        greedy_decode(model, longer, lengths, max_length=5),
        greedy_decode(model, SOURCE, max_length=5),
    )
    np.testing.assert_array_equal(
        beam_search(model, longer, lengths, max_length=5).tokens,
        beam_search(model, SOURCE, max_length=5).tokens,
    )


def test_no_gradient_is_tracked():
    tracked = []

    class Watched(Table):
        def step(self, tokens, state):
            tracked.append(mt.is_grad_enabled())
            return super().step(tokens, state)

    model = Watched(np.full((1, 5, 5), 0.2))
    greedy_decode(model, [[0]], max_length=2)
    beam_search(model, [[0]], max_length=2)
    assert tracked and not any(tracked) and mt.is_grad_enabled()


@pytest.mark.parametrize("wrong", [0, 2.5])
def test_counts_are_integers_of_at_least_one(wrong):
    model = Table(np.full((1, 5, 5), 0.2))
    with pytest.raises(ValueError, match="greedy_decode: max_length must be an integer"):
        greedy_decode(model, [[0]], max_length=wrong)
    with pytest.raises(ValueError, match="beam_search: max_length must be an integer"):
        beam_search(model, [[0]], max_length=wrong)
    with pytest.raises(ValueError, match="beam_search: beam_size must be an integer"):
        beam_search(model, [[0]], beam_size=wrong)
