import numpy as np
import pytest

import minitorch_attn as mt
import minitorch_attn.functional as F
from minitorch_attn import nn
from minitorch_attn.models import Seq2Seq
from minitorch_attn.models.seq2seq import Decoder, Encoder

K, E, H = 7, 3, 4
D = 2 * H
SOURCE = np.array([[3, 4, 5, 6, 3], [6, 5, 0, 0, 0], [4, 4, 3, 0, 0]])
LENGTHS = [5, 2, 3]
TARGET = np.array([[1, 4, 5, 6], [1, 3, 2, 0], [1, 6, 6, 2]])


class Average(nn.Module):
    """The least attention: all tokens count the same, whoever asks; the query is added."""

    def forward(self, query, memory, mask=None):
        weights = mt.tensor(mask.numpy() / mask.numpy().sum(axis=1, keepdims=True))
        context = F.matmul(weights.unsqueeze(1), memory).squeeze(1)
        return context + F.cat([query, query], 1), weights


def model(attention=None, **settings):
    mt.manual_seed(0)
    decoder = Decoder(K, E, H, D, attention, **settings)
    return Seq2Seq(Encoder(K, E, H), decoder).double()


KINDS = {
    "summary": lambda: model(),
    "previous": lambda: model(Average()),
    "current": lambda: model(Average(), attend="current"),
}
kinds = pytest.mark.parametrize("kind", KINDS)


@kinds
def test_step_by_step_and_at_once_are_the_same(kind):
    seq2seq = KINDS[kind]()
    logits = seq2seq(SOURCE, TARGET, LENGTHS).numpy()
    assert logits.shape == (3, 4, K)
    state = seq2seq.start(SOURCE, LENGTHS)
    for t in range(4):
        scores, state = seq2seq.step(TARGET[:, t], state)
        np.testing.assert_allclose(scores.numpy(), logits[:, t], atol=1e-13)


@kinds
def test_padding_is_not_read(kind):
    seq2seq = KINDS[kind]()
    logits = seq2seq(SOURCE, TARGET, LENGTHS).numpy()
    for n, length in enumerate(LENGTHS):
        alone = seq2seq(SOURCE[n : n + 1, :length], TARGET[n : n + 1]).numpy()
        np.testing.assert_allclose(logits[n], alone[0], atol=1e-13)


@kinds
def test_lengths_left_out_are_those_up_to_the_padding(kind):
    seq2seq = KINDS[kind]()
    np.testing.assert_array_equal(
        seq2seq(SOURCE, TARGET).numpy(), seq2seq(SOURCE, TARGET, LENGTHS).numpy()
    )


@kinds
def test_a_score_does_not_depend_on_later_tokens(kind):
    seq2seq = KINDS[kind]()
    before = seq2seq(SOURCE, TARGET).numpy()
    changed = TARGET.copy()
    changed[:, 2:] = 5
    after = seq2seq(SOURCE, changed).numpy()
    np.testing.assert_array_equal(after[:, :2], before[:, :2])
    assert (after[:, 2:] != before[:, 2:]).any()


@kinds
def test_a_state_is_tensors_that_can_be_reordered_by_their_first_axis(kind):
    seq2seq = KINDS[kind]()
    _, state = seq2seq.step([1, 1, 1], seq2seq.start(SOURCE))
    order = [2, 0, 0]
    reordered = {name: tensor[order] for name, tensor in state.items()}
    scores, _ = seq2seq.step([4, 5, 5], reordered)
    expected, _ = seq2seq.step([5, 5, 4], state)
    np.testing.assert_allclose(scores.numpy(), expected.numpy()[order], atol=1e-13)


@kinds
def test_all_parameters_learn(kind):
    seq2seq = KINDS[kind]()
    F.cross_entropy(seq2seq(SOURCE, TARGET).reshape(-1, K), TARGET.reshape(-1)).backward()
    for name, p in seq2seq.named_parameters():
        assert np.abs(p.grad.numpy()).max() > 0, name
    assert not seq2seq.encoder.embedding.weight.grad.numpy()[0].any()


def linear(module, x):
    return x @ module.weight.numpy().T + module.bias.numpy()


def gru(layer, x, h, suffix="_l0"):
    """One step in NumPy, as its equations say it."""
    p = {name: t.numpy() for name, t in layer.named_parameters()}
    a = x @ p["weight_ih" + suffix].T + p["bias_ih" + suffix]
    u = h @ p["weight_hh" + suffix].T + p["bias_hh" + suffix]
    r, z = (1 / (1 + np.exp(-(a + u)[:, k * H : (k + 1) * H])) for k in (0, 1))
    n = np.tanh(a[:, 2 * H :] + r * u[:, 2 * H :])
    return (1 - z) * n + z * h


def test_the_encoder_is_its_equations():
    encoder = model().encoder
    x = encoder.embedding.weight.numpy()[SOURCE[:1]]
    forward, backward = [np.zeros((1, H))], [np.zeros((1, H))]
    for j in range(5):
        forward.append(gru(encoder.rnn, x[:, j], forward[-1]))
        backward.append(gru(encoder.rnn, x[:, 4 - j], backward[-1], "_l0_reverse"))
    memory, summary = encoder(SOURCE[:1])
    expected = np.concatenate([np.stack(forward[1:], 1), np.stack(backward[:0:-1], 1)], 2)
    np.testing.assert_allclose(memory.numpy(), expected, atol=1e-13)
    ends = np.concatenate([forward[-1], backward[-1]], 1)
    np.testing.assert_allclose(summary.numpy(), ends, atol=1e-13)
    padded, _ = encoder(SOURCE)
    assert not padded.numpy()[1, 2:].any()


@kinds
def test_the_decoder_is_its_equations(kind):
    seq2seq = KINDS[kind]()
    decoder, mask = seq2seq.decoder, SOURCE != 0
    memory, summary = (t.numpy() for t in seq2seq.encoder(SOURCE))

    def look(query):
        return (memory.sum(1) / mask.sum(1, keepdims=True)) + np.concatenate([query, query], 1)

    s, c = np.tanh(linear(decoder.bridge, summary)), summary
    logits = seq2seq(SOURCE, TARGET).numpy()
    for t in range(4):
        e = decoder.embedding.weight.numpy()[TARGET[:, t]]
        c = look(s) if kind == "previous" else c
        s = gru(decoder.rnn, np.concatenate([e, c], 1), s)
        c = look(s) if kind == "current" else c
        hidden = np.tanh(linear(decoder.readout[0], np.concatenate([s, c, e], 1)))
        np.testing.assert_allclose(logits[:, t], linear(decoder.readout[2], hidden), atol=1e-13)


def test_a_hook_on_the_attention_sees_the_weights_of_every_step():
    seq2seq, seen = model(Average()), []
    seq2seq.decoder.attention.register_forward_hook(lambda m, i, output: seen.append(output[1]))
    seq2seq(SOURCE, TARGET)
    assert [w.shape for w in seen] == [(3, 5)] * 4
    assert not seen[0].numpy()[SOURCE == 0].any()


def test_parameters():
    seq2seq = model()
    assert sum(p.numel() for p in seq2seq.encoder.parameters()) == K * E + 2 * 3 * H * (E + H + 2)
    assert sum(p.numel() for p in seq2seq.decoder.parameters()) == (
        K * E + (D * H + H) + 3 * H * (E + D + H + 2) + ((H + D + E) * H + H) + (H * K + K)
    )


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: Decoder(K, E, H, D, attend="next"), ValueError, "must be 'previous' or 'current'"),
        (lambda: model()([3, 4], TARGET), mt.ShapeError, r"needs tokens \(N, L\) .* got \(2,\)"),
        (
            lambda: model()(SOURCE.astype(float), TARGET),
            mt.ShapeError,
            r"needs tokens \(N, L\) of integers, got \(3, 5\) of float64",
        ),
        (lambda: model()(SOURCE, TARGET[0]), mt.ShapeError, r"Decoder: needs tokens \(N, T\)"),
        (
            lambda: model().step(TARGET, model().start(SOURCE)),
            mt.ShapeError,
            r"Decoder.step: needs tokens \(N,\)",
        ),
        (lambda: model()(0 * SOURCE, TARGET), mt.ShapeError, "lengths must be from 1 to L = 5"),
        (lambda: model()(SOURCE[:, :0], TARGET), mt.ShapeError, r"\(3, 0\) hold no token"),
        (lambda: model()(SOURCE, TARGET[:, :0]), mt.ShapeError, r"Decoder: .* hold no token"),
        (lambda: model()(SOURCE, TARGET[:2]), mt.ShapeError, "of 2 sequences, .* state is of 3"),
        (lambda: model()(SOURCE, TARGET, [5, 2]), mt.ShapeError, "needs as many lengths"),
    ],
)
def test_what_does_not_fit(call, error, message):
    with pytest.raises(error, match=message):
        call()
