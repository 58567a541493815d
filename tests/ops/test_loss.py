import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import minitorch_attn as mt
import minitorch_attn.functional as F

from .parity import check_gradients, compare, normal, positive

REDUCTIONS = ["mean", "sum", "none"]
SCORES = [(4, 3), (3,), (4, 3, 5), (2, 3, 4, 2), (1, 3), (0, 3)]
WEIGHT = positive(3, seed=5)


def pytorch(name):
    def call(*args, **options):
        import torch

        return getattr(torch.nn.functional, name)(*args, **options)

    return call


def like(x, array):
    """A constant of the library and dtype of x."""
    if array is None:
        return None
    if isinstance(x, mt.Tensor):
        return mt.tensor(array, dtype=x.dtype)
    import torch

    return torch.tensor(array, dtype=x.dtype)


def agree(name, *inputs, constants=None, **options):
    """Compare with PyTorch; `constants` are settings that are tensors."""

    def given(function):
        return lambda x, *rest: function(
            x, *rest, **options, **{k: like(x, v) for k, v in (constants or {}).items()}
        )

    compare(given(getattr(F, name)), given(pytorch(name)), *inputs)


def classes(shape, ignored=None, seed=0):
    """Random classes of 3 for scores of a shape; some of them `ignored`."""
    axis = 0 if len(shape) == 1 else 1
    rng = np.random.default_rng(seed)
    target = rng.integers(0, 3, shape[:axis] + shape[axis + 1 :])
    return target if ignored is None else np.where(rng.random(target.shape) < 0.4, ignored, target)


@pytest.mark.parametrize("weight", [None, WEIGHT], ids=["even", "weighted"])
@pytest.mark.parametrize("label_smoothing", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("shape", SCORES)
def test_cross_entropy_agrees_with_pytorch(shape, reduction, label_smoothing, weight):
    options = {"reduction": reduction, "label_smoothing": label_smoothing}
    x, weights = 3 * normal(*shape), {"weight": weight}
    agree("cross_entropy", x, classes(shape), constants=weights, **options)
    for ignored in (-100, 1):
        target = classes(shape, ignored)
        agree("cross_entropy", x, target, constants=weights, ignore_index=ignored, **options)
    agree("cross_entropy", x, positive(*shape), constants=weights, **options)


@pytest.mark.parametrize("weight", [None, WEIGHT], ids=["even", "weighted"])
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("shape", SCORES)
def test_nll_loss_agrees_with_pytorch(shape, reduction, weight):
    for ignored in (-100, 2):
        agree(
            "nll_loss",
            normal(*shape),
            classes(shape, ignored),
            constants={"weight": weight},
            ignore_index=ignored,
            reduction=reduction,
        )


@settings(max_examples=40, deadline=None)
@given(
    N=st.integers(0, 4),
    K=st.integers(1, 5),
    rest=st.lists(st.integers(1, 3), max_size=2),
    reduction=st.sampled_from(REDUCTIONS),
    smoothing=st.sampled_from([0.0, 0.3]),
    seed=st.integers(0, 9),
)
def test_cross_entropy_agrees_with_pytorch_at_any_shape(N, K, rest, reduction, smoothing, seed):
    target = np.random.default_rng(seed).integers(0, K, (N, *rest))
    options = {"reduction": reduction, "label_smoothing": smoothing}
    agree("cross_entropy", normal(N, K, *rest, seed=seed), target, **options)


@pytest.mark.parametrize("label_smoothing", [0.0, 0.2])
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_cross_entropy_gradients_are_those_measured(reduction, label_smoothing):
    x, p, classes = normal(4, 3), positive(4, 3), np.array([0, 2, -100, 1])
    for weight in (None, mt.tensor(WEIGHT)):
        options = {"weight": weight, "reduction": reduction}
        check_gradients(F.nll_loss, x, target=classes, **options)
        options["label_smoothing"] = label_smoothing
        check_gradients(F.cross_entropy, x, target=classes, **options)
        check_gradients(F.cross_entropy, x, p, **options)


def test_the_gradient_of_cross_entropy_is_p_minus_t():
    x = mt.tensor(normal(4, 3), requires_grad=True)
    F.cross_entropy(x, [0, 2, 1, 1], reduction="sum").backward()
    p = np.exp(normal(4, 3))
    p /= p.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(x.grad.numpy(), p - np.eye(3)[[0, 2, 1, 1]], atol=1e-12)


def test_cross_entropy_is_nll_of_log_softmax():
    x, t = mt.tensor(normal(4, 3, 2)), classes((4, 3, 2))
    expected = F.nll_loss(F.log_softmax(x, 1), t, WEIGHT).item()
    assert F.cross_entropy(x, t, WEIGHT).item() == pytest.approx(expected, rel=1e-12)


def test_class_indices_are_probabilities_of_one():
    x, t = normal(4, 3), np.array([0, 2, 1, 1])
    for options in ({}, {"label_smoothing": 0.2}, {"reduction": "none", "weight": WEIGHT}):
        by_index = F.cross_entropy(x, t, **options).numpy()
        np.testing.assert_allclose(by_index, F.cross_entropy(x, np.eye(3)[t], **options).numpy())


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_huge_scores_do_not_overflow(dtype):
    x = mt.tensor([[1e4, 0.0, -1e4], [-1e4, 1e4, 0.0]], dtype=dtype, requires_grad=True)
    loss = F.cross_entropy(x, [0, 2], reduction="none")
    np.testing.assert_array_equal(loss.numpy(), [0, 1e4])
    loss.sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), [[0, 0, 0], [0, 1, -1]])
    z = mt.tensor([1e4, -1e4, 1e4, -1e4], dtype=dtype, requires_grad=True)
    loss = F.binary_cross_entropy_with_logits(z, np.array([1.0, 0, 0, 1], dtype), reduction="none")
    np.testing.assert_array_equal(loss.numpy(), [0, 0, 1e4, 1e4])
    loss.sum().backward()
    np.testing.assert_array_equal(z.grad.numpy(), [0, 0, 1, -1])
    assert loss.dtype == z.grad.dtype == dtype


def test_a_class_ruled_out_by_minus_infinity_costs_nothing():
    x = mt.tensor([[0.0, 0.0, -np.inf]], requires_grad=True)
    loss = F.cross_entropy(x, [0])
    loss.backward()
    assert loss.item() == pytest.approx(np.log(2))
    np.testing.assert_allclose(x.grad.numpy(), [[-0.5, 0.5, 0]], rtol=1e-6)


@pytest.mark.filterwarnings("error")
def test_the_mean_of_nothing_is_nan_and_its_gradient_zero():
    for name in ("cross_entropy", "nll_loss"):
        x = mt.tensor(normal(2, 3), requires_grad=True)
        loss = getattr(F, name)(x, [-100, -100])
        assert np.isnan(loss.item())
        loss.backward()
        np.testing.assert_array_equal(x.grad.numpy(), np.zeros((2, 3)))
    assert np.isnan(F.mse_loss(normal(0, 3), normal(0, 3)).item())
    assert F.cross_entropy(normal(0, 3), np.zeros(0, int), reduction="sum").item() == 0


@pytest.mark.parametrize("kind", ["uint8", "int32", "int64"])
def test_classes_may_be_of_any_integer_type(kind):
    x, t = normal(4, 3), np.array([0, 2, 1, 1])
    assert F.cross_entropy(x, t.astype(kind)).item() == F.cross_entropy(x, t).item()
    assert F.cross_entropy(x[0], 2).item() == F.cross_entropy(x[:1], [2]).item()


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("shape", [(4, 3), (5,), (), (0, 2), (2, 3, 4)])
def test_losses_of_a_difference_agree_with_pytorch(shape, reduction):
    x, t = np.asarray(2 * normal(*shape)), np.asarray(normal(*shape, seed=1))
    for name in ("mse_loss", "l1_loss", "smooth_l1_loss"):
        agree(name, x, t, reduction=reduction)
    for beta in (0.0, 0.3, 2.5):
        agree("smooth_l1_loss", x, t, reduction=reduction, beta=beta)


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_gradients_of_losses_of_a_difference_are_those_measured(reduction):
    x, t = normal(3, 4), normal(3, 4, seed=1)
    for loss in (F.mse_loss, F.l1_loss, F.smooth_l1_loss):
        check_gradients(loss, x, t, reduction=reduction)
    check_gradients(F.smooth_l1_loss, x, t, reduction=reduction, beta=0.4)


def test_an_exact_answer_has_no_gradient():
    for loss in (F.mse_loss, F.l1_loss, F.smooth_l1_loss):
        x = mt.tensor([1.0, 2.0], requires_grad=True)
        loss(x, mt.tensor([1.0, 2.0])).backward()
        np.testing.assert_array_equal(x.grad.numpy(), [0, 0])


@pytest.mark.parametrize("name", ["mse_loss", "l1_loss", "smooth_l1_loss"])
def test_shapes_that_broadcast_are_broadcast_with_a_warning(name):
    with pytest.warns(UserWarning, match=rf"^{name}: the input \(4, 1\) and the target \(4,\)"):
        y = getattr(F, name)(normal(4, 1), normal(4), reduction="none")
    assert y.shape == (4, 4)


@pytest.mark.filterwarnings("ignore:mse_loss")
@pytest.mark.filterwarnings("ignore:Using a target size")
def test_the_gradient_of_a_broadcast_target_is_summed():
    agree("mse_loss", normal(4, 3), normal(3))


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize(
    "weights",
    [{}, {"weight": WEIGHT}, {"pos_weight": WEIGHT}, {"weight": WEIGHT[0], "pos_weight": WEIGHT}],
    ids=lambda w: "+".join(w) or "even",
)
def test_binary_cross_entropy_agrees_with_pytorch(weights, reduction):
    x, t = 3 * normal(4, 3), np.clip(positive(4, 3) - 0.5, 0, 1)
    name = "binary_cross_entropy_with_logits"
    agree(name, x, t, constants=weights, reduction=reduction)
    agree(name, x, np.round(t), constants=weights, reduction=reduction)
    agree(name, x[:0], t[:0], constants=weights, reduction="sum")
    constants = {key: mt.tensor(value) for key, value in weights.items()}
    check_gradients(
        lambda x, t: F.binary_cross_entropy_with_logits(x, t, reduction=reduction, **constants),
        x,
        t,
    )


def test_yes_and_no_may_be_booleans_or_integers():
    x, t = normal(4).astype("float32"), np.array([1, 0, 0, 1])
    expected = F.binary_cross_entropy_with_logits(x, t.astype("float32"))
    for kind in (bool, np.int64):
        y = F.binary_cross_entropy_with_logits(x, t.astype(kind))
        assert y.dtype == np.float32 and y.item() == expected.item()


def test_inputs_that_are_not_contiguous():
    compare(
        lambda x, p: F.cross_entropy(x.T, p.T),
        lambda x, p: pytorch("cross_entropy")(x.T, p.T),
        normal(3, 4),
        positive(3, 4),
    )


@pytest.mark.parametrize(
    ("target", "error", "message"),
    [
        ([0, 1, 2, 3], IndexError, "target 3 is not one of the 3 classes, 0 to 2"),
        ([0, 1, 2, -1], IndexError, r"target -1 .*ignore_index=-100"),
        ([0, 1, 2], mt.ShapeError, r"integers of shape \(4,\).*int64 of shape \(3,\)"),
        ([[0, 1, 2, 2]], mt.ShapeError, r"not int64 of shape \(1, 4\)"),
        (np.zeros(4), mt.DTypeError, "target is float64: class indices are integers"),
        (np.zeros(4, bool), mt.DTypeError, "target is bool"),
        (
            np.zeros((4, 2)),
            mt.ShapeError,
            r"input of shape \(4, 3\).*not float64 of shape \(4, 2\)",
        ),
    ],
)
@pytest.mark.parametrize("name", ["cross_entropy", "nll_loss"])
def test_targets_that_are_no_classes_are_explained(name, target, error, message):
    with pytest.raises(error, match=f"^{name}: .*{message}"):
        getattr(F, name)(normal(4, 3), target)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda x: F.cross_entropy(x, [0], np.ones(2)),
            mt.ShapeError,
            r"each of 3 classes.*\(2,\)",
        ),
        (
            lambda x: F.cross_entropy(x, [0], label_smoothing=1.5),
            ValueError,
            "from 0 to 1, not 1.5",
        ),
        (lambda x: F.cross_entropy(x, [0], reduction="avg"), ValueError, "'none', not 'avg'"),
        (lambda x: F.cross_entropy(x[0, 0], 0), mt.ShapeError, "needs an axis of classes"),
        (lambda x: F.nll_loss(x, normal(1, 3)), mt.ShapeError, r"integers of shape \(1,\), not"),
        (lambda x: F.mse_loss(x, x, reduction="max"), ValueError, "^mse_loss: reduction must be"),
        (lambda x: F.mse_loss(x, normal(4, 2)), mt.ShapeError, r"^mse_loss: .*\(1, 3\).*\(4, 2\)"),
        (lambda x: F.smooth_l1_loss(x, x, beta=-1), ValueError, "beta must not be negative"),
        (
            lambda x: F.binary_cross_entropy_with_logits(x, normal(3)),
            mt.ShapeError,
            r"target \(3,\) must have the shape of the input \(1, 3\)",
        ),
    ],
)
def test_other_mistakes_are_explained(call, error, message):
    with pytest.raises(error, match=message):
        call(mt.tensor(normal(1, 3)))


def test_bytes_do_not_wrap_around():
    dark, bright = np.array([0], np.uint8), np.array([20], np.uint8)
    assert F.mse_loss(mt.tensor(dark), mt.tensor(bright)).item() == 400
    assert F.l1_loss(mt.tensor(dark), mt.tensor(bright)).item() == 20
    assert F.smooth_l1_loss(mt.tensor(dark), mt.tensor(bright)).item() == 19.5


def test_half_precision_losses_are_summed_in_single():
    x = mt.tensor(np.zeros((70000, 2)), dtype="float16", requires_grad=True)
    t = np.zeros(70000, np.int64)
    losses = [F.cross_entropy(x, t), F.nll_loss(x - 1, t), F.mse_loss(x, np.ones(x.shape, "f2"))]
    for loss, expected in zip(losses, [np.log(2), 1, 1], strict=True):
        assert loss.dtype == np.float16
        np.testing.assert_allclose(loss.item(), expected, rtol=1e-3)


def test_weights_may_be_lists_and_numbers():
    x, t = mt.tensor(normal(2, 3)), np.array([0, 2])
    weighted = F.cross_entropy(x, t, weight=[1.0, 2.0, 3.0]).item()
    assert weighted == F.cross_entropy(x, t, weight=mt.tensor([1.0, 2.0, 3.0])).item()
    yes, BCE = mt.ones(2, 3), F.binary_cross_entropy_with_logits
    assert BCE(x, yes, pos_weight=2.0).item() == pytest.approx(2 * BCE(x, yes).item())
    with pytest.raises(mt.ShapeError, match=r"weight of shape \(4, 2, 3\) must broadcast"):
        BCE(x, yes, weight=mt.ones(4, 2, 3))


TRIPLET = [normal(9, 4, seed=seed) for seed in range(3)]


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("swap", [False, True])
@pytest.mark.parametrize(("margin", "p"), [(1.0, 2.0), (0.2, 1.0), (3.0, 3.0)])
def test_triplet_margin_loss_agrees_with_pytorch(margin, p, swap, reduction):
    options = {"margin": margin, "p": p, "swap": swap, "reduction": reduction}
    agree("triplet_margin_loss", *TRIPLET, **options)
    agree("triplet_margin_loss", *(x[0] for x in TRIPLET), eps=0.3, **options)
    losses = F.triplet_margin_loss(*TRIPLET, **{**options, "reduction": "none"}).numpy()
    assert (losses == 0).any() or margin == 3.0  # both pieces are looked at
    assert (losses > 0).any()


def test_gradients_of_the_triplet_loss_are_those_measured():
    for swap in (False, True):
        check_gradients(F.triplet_margin_loss, *TRIPLET, swap=swap)


def test_a_negative_beyond_the_margin_costs_nothing_and_one_at_the_margin_pulls():
    a, b, c = (mt.tensor([x], requires_grad=True) for x in ([0.0, 0], [1.0, 0], [0.0, 2]))
    F.triplet_margin_loss(a, b, c, margin=0.5).backward()
    for x in (a, b, c):
        np.testing.assert_array_equal(x.grad.numpy(), 0)
    agree("triplet_margin_loss", *(x.numpy().astype(float) for x in (a, b, c)), eps=0)


def test_swap_takes_the_negative_that_is_near_the_positive():
    a, b, c = [[0.0, 0]], [[3.0, 0]], [[4.0, 0]]
    assert F.triplet_margin_loss(a, b, c, margin=2).item() == pytest.approx(1, abs=1e-5)
    assert F.triplet_margin_loss(a, b, c, margin=2, swap=True).item() == pytest.approx(4, abs=1e-5)


def test_mistakes_with_triplets_are_explained():
    with pytest.raises(mt.ShapeError, match=r"as many axes each, got shapes \(9, 4\), \(9, 4\)"):
        F.triplet_margin_loss(TRIPLET[0], TRIPLET[1], TRIPLET[2][0])
    for margin in (0, -1):
        with pytest.raises(ValueError, match=f"margin must be greater than 0, not {margin}"):
            F.triplet_margin_loss(*TRIPLET, margin=margin)
    with pytest.raises(ValueError, match="reduction must be 'mean', 'sum' or 'none', not 'all'"):
        F.triplet_margin_loss(*TRIPLET, reduction="all")
    with pytest.raises(ValueError, match="p must be greater than 0"):
        F.triplet_margin_loss(*TRIPLET, p=-1)
