import math

import numpy as np
import pytest

import minitorch_attn as mt
import minitorch_attn.functional as F
from minitorch_attn import nn, optim
from minitorch_attn.models import Seq2SeqTransformer
from minitorch_attn.models.decoding import beam_search

from ..nn.parity import close
from .networks import count

SMALL = {
    "source_tokens": 11,
    "target_tokens": 13,
    "d_model": 8,
    "nhead": 2,
    "num_encoder_layers": 2,
    "num_decoder_layers": 2,
    "dim_feedforward": 12,
    "dropout": 0.0,
}
RNG = np.random.default_rng(0)
LENGTHS = np.array([6, 4, 2])
SOURCE = np.where(np.arange(6) < LENGTHS[:, None], RNG.integers(3, 11, size=(3, 6)), 0)
TARGET = RNG.integers(3, 13, size=(3, 5))


def small(**settings):
    mt.manual_seed(0)
    return Seq2SeqTransformer(**SMALL | settings).double().eval()


def torch_model(torch, norm_first):
    """Embeddings and places around PyTorch's own stacks; names are ours."""

    class Reference(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.source_embedding = torch.nn.Embedding(11, 8)
            self.target_embedding = torch.nn.Embedding(13, 8)
            options = {"batch_first": True, "norm_first": norm_first}
            norms = [torch.nn.LayerNorm(8) if norm_first else None for _ in range(2)]
            self.encoder = torch.nn.TransformerEncoder(
                torch.nn.TransformerEncoderLayer(8, 2, 12, 0.0, **options), 2, norms[0]
            )
            self.decoder = torch.nn.TransformerDecoder(
                torch.nn.TransformerDecoderLayer(8, 2, 12, 0.0, **options), 2, norms[1]
            )
            self.generator = torch.nn.Linear(8, 13)

        def embed(self, embedding, tokens):
            t = torch.arange(tokens.shape[1], dtype=torch.float64)[:, None]
            i = torch.arange(4, dtype=torch.float64)
            angles = t / 10000 ** (2 * i / 8)
            places = torch.stack([angles.sin(), angles.cos()], dim=-1).reshape(-1, 8)
            return embedding(tokens) * math.sqrt(8) + places

        def forward(self, source, target):
            padding = source == 0
            memory = self.encoder(
                self.embed(self.source_embedding, source), src_key_padding_mask=padding
            )
            causal = torch.ones(5, 5, dtype=torch.bool).triu(1)
            y = self.decoder(
                self.embed(self.target_embedding, target),
                memory,
                tgt_mask=causal,
                memory_key_padding_mask=padding,
            )
            return self.generator(y)

    return Reference().double().train()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("norm_first", [False, True])
def test_scores_and_all_gradients_are_those_of_pytorchs_stacks(norm_first):
    torch = pytest.importorskip("torch")
    mt.set_default_dtype("float64")
    try:
        ours = small(norm_first=norm_first)
    finally:
        mt.set_default_dtype("float32")
    theirs = torch_model(torch, norm_first)
    theirs.load_state_dict({k: torch.tensor(v.numpy()) for k, v in ours.state_dict().items()})
    y, t = ours(SOURCE, TARGET), theirs(torch.tensor(SOURCE), torch.tensor(TARGET))
    close(y, t, "float64", "scores")
    dy = RNG.standard_normal(y.shape)
    y.backward(dy)
    t.backward(torch.tensor(dy))
    for (name, p), (_, tp) in zip(ours.named_parameters(), theirs.named_parameters(), strict=True):
        close(p.grad, tp.grad, "float64", f"gradient of {name}")


def test_parameter_counts_of_the_base_model():
    base = Seq2SeqTransformer(37000, 37000, share_embeddings=True)
    assert count(base) == 44_138_496 + 37_000 * 512 == 63_082_496
    separate = Seq2SeqTransformer(37000, 37000, norm_first=True)
    assert count(separate) == 101_009_544


def test_embeddings_come_in_at_the_size_of_the_places():
    mt.manual_seed(0)
    model = Seq2SeqTransformer(1000, 1000, 64, 4, 1, 1, 64)
    for embedding in (model.source_embedding, model.target_embedding):
        assert math.sqrt(64) * embedding.weight.numpy().std() == pytest.approx(1, rel=0.02)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"norm_first": True},
        {"positions": "learned"},
        {"positions": None},
        {"share_embeddings": True, "source_tokens": 13},
    ],
    ids=str,
)
@pytest.mark.parametrize("lengths", [None, LENGTHS])
def test_decoding_with_the_cache_gives_the_scores_of_the_whole_prefix(settings, lengths):
    model = small(**settings)
    with mt.no_grad():
        whole = model(SOURCE, TARGET, lengths).numpy()
        state = model.start(SOURCE, lengths)
        for t in range(TARGET.shape[1]):
            scores, state = model.step(TARGET[:, t], state)
            assert scores.shape == (3, 13)
            np.testing.assert_allclose(scores.numpy(), whole[:, t], atol=1e-12)


def reordered(state, index):
    if isinstance(state, dict):
        return {key: reordered(value, index) for key, value in state.items()}
    if isinstance(state, list):
        return [reordered(value, index) for value in state]
    return state[index]


def test_a_state_may_be_reordered_by_its_first_axis():
    model, index = small(), np.array([2, 2, 0])
    with mt.no_grad():
        _, state = model.step(TARGET[:, 0], model.start(SOURCE))
        expected = model(SOURCE[index], TARGET[index][:, :2]).numpy()[:, 1]
        scores, _ = model.step(TARGET[index, 1], reordered(state, index))
    np.testing.assert_allclose(scores.numpy(), expected, atol=1e-12)


def test_a_step_leaves_the_state_before_as_it_was():
    model = small()
    with mt.no_grad():
        start = model.start(SOURCE)
        first, _ = model.step(TARGET[:, 0], start)
        again, _ = model.step(TARGET[:, 0], start)
    np.testing.assert_array_equal(first.numpy(), again.numpy())


def test_no_score_depends_on_a_later_target():
    model = small()
    before = model(SOURCE, TARGET).numpy()
    for t in range(5):
        changed = TARGET.copy()
        changed[:, t] = (changed[:, t] + 1) % 13
        after = model(SOURCE, changed).numpy()
        np.testing.assert_array_equal(after[:, :t], before[:, :t])
        assert np.abs(after[:, t] - before[:, t]).max() > 1e-6


@pytest.mark.parametrize("norm_first", [False, True])
def test_padding_the_source_further_changes_no_score(norm_first):
    model = small(norm_first=norm_first)
    padded = np.pad(SOURCE, ((0, 0), (0, 4)))
    expected = model(SOURCE, TARGET).numpy()
    np.testing.assert_allclose(model(padded, TARGET).numpy(), expected, atol=1e-12)
    padded[:, 6:] = 5  # what stands there is nothing, if the lengths say so
    np.testing.assert_allclose(model(padded, TARGET, LENGTHS).numpy(), expected, atol=1e-12)


def test_without_places_the_source_has_no_order():
    order = np.array([3, 1, 0, 2, 4, 5])
    source = RNG.integers(3, 11, size=(3, 6))
    unordered, ordered = small(positions=None), small()
    a, b = (unordered(s, TARGET).numpy() for s in (source, source[:, order]))
    np.testing.assert_allclose(a, b, atol=1e-12)
    a, b = (ordered(s, TARGET).numpy() for s in (source, source[:, order]))
    assert np.abs(a - b).max() > 1e-3


def test_a_hook_sees_the_alignment_in_training_and_in_decoding():
    model, seen = small(), []
    softmax = model.get_submodule("decoder.layers.1.multihead_attn.softmax")
    with mt.no_grad(), softmax.register_forward_hook(lambda m, i, p: seen.append(p.numpy())):
        model(SOURCE, TARGET)
        state = model.start(SOURCE)
        for t in range(5):
            _, state = model.step(TARGET[:, t], state)
    whole, *steps = seen
    assert whole.shape == (3, 2, 5, 6)
    np.testing.assert_allclose(np.concatenate(steps, axis=2), whole, atol=1e-12)
    assert (whole.transpose(0, 3, 1, 2)[SOURCE == 0] == 0).all()


def test_settings_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="11 source and 13 target tokens cannot be shared"):
        small(share_embeddings=True)
    with pytest.raises(ValueError, match="positions must be sinusoidal, learned or None, not 'rot"):
        small(positions="rotary")
    with pytest.raises(mt.ShapeError, match=r"a source \(N, L\) and a target \(N, T\), got"):
        small()(SOURCE, TARGET[:2])
    with pytest.raises(mt.ShapeError, match="make it with max_len=6"):
        small(max_len=5)(SOURCE, TARGET)


def test_a_batch_that_does_not_fit_its_lengths_or_its_state_is_refused():
    model, N = small(), len(SOURCE)
    with pytest.raises(mt.ShapeError, match=r"needs a source \(N, L\), not \(4,\)"):
        model.start(np.ones(4, int))
    with pytest.raises(mt.ShapeError, match=rf"{N} sources need as many lengths, .* not \(1,\)"):
        model(SOURCE, TARGET, [3])
    state = model.start(SOURCE)
    for shape in [(N, 1), (N + 1,)]:
        with pytest.raises(mt.ShapeError, match=rf"one token for each of the {N} sequences"):
            model.step(np.ones(shape, int), state)


@pytest.mark.parametrize("norm_first", [False, True])
def test_it_learns_to_copy_a_batch(norm_first):
    mt.manual_seed(0)
    model = Seq2SeqTransformer(11, 11, 16, 2, 1, 1, 32, 0.0, norm_first=norm_first)
    target = np.concatenate([np.ones((3, 1), int), SOURCE[:, :5]], axis=1)
    optimizer = optim.Adam(model.parameters(), lr=0.01)
    for _ in range(80):
        scores = model(SOURCE, target)
        loss = F.cross_entropy(scores.reshape(-1, 11), SOURCE.reshape(-1), ignore_index=0)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.1


def test_its_stacks_are_those_of_nn():
    model = small()
    assert isinstance(model.encoder, nn.TransformerEncoder)
    assert isinstance(model.decoder, nn.TransformerDecoder)


def test_beam_search_keeps_the_caches_of_the_sequences_that_it_keeps():
    model = small()
    beams = beam_search(model, SOURCE, LENGTHS, beam_size=3, max_length=6, length_penalty=0.0)
    assert beams.tokens.shape[:2] == (3, 3)
    for b in range(3):
        written = beams.tokens[:, b]
        before = np.concatenate([np.ones((3, 1), int), written[:, :-1]], axis=1)
        log_p = F.log_softmax(model(SOURCE, before, LENGTHS), dim=-1).numpy()
        of_written = np.take_along_axis(log_p, written[..., None], axis=2)[..., 0]
        has_ended = np.cumsum(written == 2, axis=1) - (written == 2) > 0
        np.testing.assert_allclose(beams.scores[:, b], (of_written * ~has_ended).sum(axis=1))
