import numpy as np
import pytest

import minitorch_attn as mt
from minitorch_attn.attention import MultiplicativeAttention

from ..nn.parity import compare_modules, normal
from .test_additive import MASK, Both

N, L, Dm = 3, 5, 6
MEMORY = normal(N, L, Dm)
SIZES = {"dot": 6, "general": 4}  # of the query
scores = pytest.mark.parametrize("score", SIZES)


def make(score):
    mt.manual_seed(0)
    return MultiplicativeAttention(SIZES[score], Dm, score).double()


def query(score):
    return normal(N, SIZES[score])


def paper_module(torch, score):
    """Luong's global attention, written out with PyTorch, one place after the other."""

    class Paper(torch.nn.Module):
        def __init__(self):
            super().__init__()
            if score == "general":
                self.query = torch.nn.Linear(SIZES[score], Dm, bias=False)

        def forward(self, s, m, mask=None):
            # s^T W_a m_j, where the layer keeps W_a^T
            left = s @ self.query.weight.T if score == "general" else s
            e = torch.stack([(left * m[:, j]).sum(dim=1) for j in range(L)], dim=1)
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


@scores
@pytest.mark.parametrize("masks", [(), (MASK,)])
def test_outputs_and_all_gradients_are_those_of_the_papers_equations(score, masks):
    torch = pytest.importorskip("torch")
    compare_modules(Both(make(score)), paper_module(torch, score), query(score), MEMORY, *masks)


@scores
@pytest.mark.parametrize("mask", [None, MASK])
def test_the_gradient_check_passes(score, mask):
    both = Both(make(score))
    report = mt.gradcheck(lambda s, m: both(s, m, mask), query(score), MEMORY)
    assert not any(i.warning for i in report.inputs), str(report)
    report = mt.gradcheck(both, query(score), MEMORY)
    assert len(report.inputs) == (3 if score == "general" else 2)


@scores
def test_what_is_masked_changes_nothing_and_gets_no_gradient(score):
    attention = make(score)
    memory = mt.tensor(MEMORY, requires_grad=True)
    context, weights = attention(query(score), memory, MASK)
    np.testing.assert_allclose(weights.numpy().sum(axis=1), 1)
    assert not weights.numpy()[~MASK].any()
    other = np.where(MASK[..., None], MEMORY, 1e3)
    for ours, theirs in zip((context, weights), attention(query(score), other, MASK)):
        np.testing.assert_array_equal(ours.numpy(), theirs.numpy())
    context.sum().backward()
    assert not memory.grad.numpy()[~MASK].any() and memory.grad.numpy()[MASK].all()


def test_general_with_the_identity_is_dot():
    general = MultiplicativeAttention(6, 6).double()
    general.load_state_dict({"query.weight": mt.tensor(np.eye(6))})
    for ours, theirs in zip(general(query("dot"), MEMORY), make("dot")(query("dot"), MEMORY)):
        np.testing.assert_allclose(ours.numpy(), theirs.numpy())


@scores
def test_a_hook_on_the_softmax_sees_the_weights(score):
    attention, seen = make(score), []
    attention.softmax.register_forward_hook(lambda m, inputs, weights: seen.append(weights))
    _, weights = attention(query(score), MEMORY, MASK)
    assert seen[0] is weights and weights.shape == (N, L)


def test_parameters():
    assert sum(p.numel() for p in make("general").parameters()) == 4 * 6
    assert not list(make("dot").parameters())


def test_a_dot_needs_equal_sizes():
    with pytest.raises(mt.ShapeError) as caught:
        MultiplicativeAttention(4, 6, score="dot")
    assert str(caught.value) == (
        "MultiplicativeAttention: a query of 4 features has no inner product with a memory of 6: "
        'take score="general", or equal sizes'
    )


def test_an_unknown_score_is_refused_by_name():
    with pytest.raises(ValueError, match="score must be one of dot, general, not 'cosine'"):
        MultiplicativeAttention(4, 6, score="cosine")


@pytest.mark.parametrize("sizes", [(0, 6), (4, 6.0)])
def test_sizes_are_integers_of_at_least_one(sizes):
    with pytest.raises(ValueError, match="_size must be an integer of at least 1"):
        MultiplicativeAttention(*sizes)


def test_what_does_not_fit():
    with pytest.raises(mt.ShapeError, match=r"MultiplicativeAttention: needs a query \(N, 4\)"):
        make("general")(query("dot"), MEMORY)
    with pytest.raises(mt.ShapeError, match=r"MultiplicativeAttention: needs a mask \(N, L\)"):
        make("dot")(query("dot"), MEMORY, MASK[0])


def test_it_prints_its_parts():
    assert repr(MultiplicativeAttention(4, 6)).splitlines()[0] == (
        'MultiplicativeAttention(4, 6, score="general")  24 parameters'
    )
