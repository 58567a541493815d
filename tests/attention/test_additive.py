import numpy as np
import pytest

import minitorch_attn as mt
import minitorch_attn.functional as F
from minitorch_attn import nn
from minitorch_attn.attention import AdditiveAttention
from minitorch_attn.models import Seq2Seq
from minitorch_attn.models.seq2seq import Decoder, Encoder

from ..nn.parity import compare_modules, normal

N, L, Dq, Dm, A = 3, 5, 4, 6, 7
QUERY, MEMORY = normal(N, Dq), normal(N, L, Dm)
MASK = np.arange(L) < np.array([[5], [2], [3]])


class Both(nn.Module):
    """An attention whose two outputs, context and weights, are one: (N, Dm + L)."""

    def __init__(self, attention):
        super().__init__()
        self.attention = attention

    def forward(self, *inputs):
        return F.cat(self.attention(*inputs), 1)


class WithoutKeys(nn.Module):
    """An attention that has no keys to hand over."""

    def __init__(self, attention):
        super().__init__()
        self.attention = attention

    def forward(self, query, memory, mask):
        return self.attention(query, memory, mask)


def make(bias=False):
    mt.manual_seed(0)
    return AdditiveAttention(Dq, Dm, A, bias).double()


def paper_module(torch, bias=False):
    """Bahdanau's alignment model, written out with PyTorch, one place after the other."""

    class Paper(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.query = torch.nn.Linear(Dq, A, bias=bias)
            self.key = torch.nn.Linear(Dm, A, bias=False)
            self.score = torch.nn.Linear(A, 1, bias=False)

        def forward(self, s, m, mask=None):
            e = [self.score(torch.tanh(self.query(s) + self.key(m[:, j]))) for j in range(L)]
            e = torch.cat(e, dim=1)
            if mask is not None:
                e = e.masked_fill(~mask, -torch.inf)
            alpha = torch.softmax(e, dim=1)
            context = sum(alpha[:, j : j + 1] * m[:, j] for j in range(L))
            return torch.cat([context, alpha], dim=1)

    class Wrapped(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.attention = Paper()

        def forward(self, *inputs):
            return self.attention(*inputs)

    return Wrapped()


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("inputs", [(QUERY, MEMORY), (QUERY, MEMORY, MASK)])
def test_outputs_and_all_gradients_are_those_of_the_papers_equations(bias, inputs):
    torch = pytest.importorskip("torch")
    compare_modules(Both(make(bias)), paper_module(torch, bias), *inputs)


@pytest.mark.parametrize("mask", [None, MASK])
def test_the_gradient_check_passes(mask):
    both = Both(make())
    report = mt.gradcheck(lambda s, m, *w: both(s, m, mask), QUERY, MEMORY)
    assert not any(i.warning for i in report.inputs), str(report)
    report = mt.gradcheck(both, QUERY, MEMORY)
    assert len(report.inputs) == 5


def test_weights_are_probabilities_of_the_places_that_may_be_looked_at():
    context, weights = make()(QUERY, MEMORY, MASK)
    np.testing.assert_allclose(weights.numpy().sum(axis=1), 1)
    assert (weights.numpy()[MASK] > 0).all() and not weights.numpy()[~MASK].any()
    expected = np.einsum("nl,nld->nd", weights.numpy(), MEMORY)
    np.testing.assert_allclose(context.numpy(), expected)


def test_what_is_masked_changes_nothing_and_gets_no_gradient():
    attention = make()
    memory = mt.tensor(MEMORY, requires_grad=True)
    context, weights = attention(QUERY, memory, MASK)
    other = np.where(MASK[..., None], MEMORY, 1e3)
    for ours, theirs in zip((context, weights), attention(QUERY, other, MASK)):
        np.testing.assert_array_equal(ours.numpy(), theirs.numpy())
    context.sum().backward()
    assert not memory.grad.numpy()[~MASK].any() and memory.grad.numpy()[MASK].all()


def test_where_nothing_may_be_looked_at_context_and_weights_are_zero():
    mask = MASK.copy()
    mask[1] = False
    context, weights = make()(QUERY, MEMORY, mask)
    assert not context.numpy()[1].any() and not weights.numpy()[1].any()
    np.testing.assert_allclose(weights.numpy()[[0, 2]].sum(axis=1), 1)


def test_it_knows_no_order_of_places():
    order = np.array([3, 0, 4, 2, 1])
    context, weights = make()(QUERY, MEMORY)
    shuffled_context, shuffled_weights = make()(QUERY, MEMORY[:, order])
    np.testing.assert_allclose(shuffled_context.numpy(), context.numpy())
    np.testing.assert_allclose(shuffled_weights.numpy(), weights.numpy()[:, order])


def test_luongs_concat_score_is_this_one():
    """v^T tanh(W_a [s; m]), of Luong et al., with W and U side by side."""
    attention = make()
    W, U, v = (layer.weight.numpy() for layer in (attention.query, attention.key, attention.score))
    stacked = np.concatenate([np.repeat(QUERY[:, None], L, axis=1), MEMORY], axis=2)
    e = np.tanh(stacked @ np.concatenate([W, U], axis=1).T) @ v[0]
    alpha = np.exp(e) / np.exp(e).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(attention(QUERY, MEMORY)[1].numpy(), alpha)


def test_a_hook_on_the_softmax_sees_the_weights():
    attention, seen = make(), []
    attention.softmax.register_forward_hook(lambda m, inputs, weights: seen.append(weights))
    _, weights = attention(QUERY, MEMORY, MASK)
    assert seen[0] is weights and weights.shape == (N, L)


def test_parameters():
    assert sum(p.numel() for p in make().parameters()) == A * (Dq + Dm + 1)
    assert sum(p.numel() for p in make(bias=True).parameters()) == A * (Dq + Dm + 2)


@pytest.mark.parametrize("attend", ["previous", "current"])
def test_in_a_decoder_the_keys_are_made_once_and_the_scores_are_the_same(attend):
    mt.manual_seed(0)
    attention = AdditiveAttention(4, 8, 5)
    model = Seq2Seq(Encoder(7, 3, 4), Decoder(7, 3, 4, 8, attention, attend)).double()
    source, target = np.array([[3, 4, 5, 6], [5, 3, 0, 0]]), np.array([[1, 4, 5], [1, 6, 2]])
    made = []
    attention.key.register_forward_hook(lambda *args: made.append(args))
    scores = model(source, target)
    assert len(made) == 1
    model.decoder.attention = WithoutKeys(attention)
    np.testing.assert_allclose(model(source, target).numpy(), scores.numpy(), atol=1e-13)
    assert len(made) == 4


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ((QUERY[:, 1:], MEMORY), r"a query \(N, 4\) and a memory \(N, L, 6\), got \(3, 3\)"),
        ((QUERY[1:], MEMORY), r"a query .*, got \(2, 4\) and \(3, 5, 6\)"),
        ((QUERY, MEMORY[..., 1:]), r"a query .*, got \(3, 4\) and \(3, 5, 5\)"),
        ((QUERY, MEMORY[0]), r"a query .*, got \(3, 4\) and \(5, 6\)"),
        ((QUERY, MEMORY, MASK[:, 1:]), r"a mask \(N, L\) = \(3, 5\), .* got \(3, 4\)"),
    ],
)
def test_what_does_not_fit(inputs, message):
    with pytest.raises(mt.ShapeError, match=f"AdditiveAttention: needs {message}"):
        make()(*inputs)


def test_a_mask_of_numbers_is_refused():
    with pytest.raises(mt.DTypeError, match="booleans"):
        make()(QUERY, MEMORY, MASK.astype(int))


@pytest.mark.parametrize("name", ["query_size", "memory_size", "hidden_size"])
def test_sizes_are_integers_of_at_least_one(name):
    sizes = {"query_size": 2, "memory_size": 2, "hidden_size": 2}
    for wrong in (0, 2.0):
        with pytest.raises(ValueError, match=f"AdditiveAttention: {name} must be an integer"):
            AdditiveAttention(**{**sizes, name: wrong})


def test_it_prints_its_parts():
    assert repr(AdditiveAttention(2, 3, 4)).splitlines()[0] == (
        "AdditiveAttention(2, 3, 4)           24 parameters"
    )
