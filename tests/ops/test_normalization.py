import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import minitorch_attn as mt
import minitorch_attn.functional as F

from .parity import check_gradients, compare, normal, positive

SHAPES = [(4, 3), (4, 3, 5), (2, 3, 4, 5), (1, 3, 2, 2), (2, 3, 2, 2, 2), (0, 3, 2, 2)]
WIDE = {"float32": 1e-4, "float64": 1e-10}  # dividing by a small deviation enlarges rounding

FAR_FROM_ZERO = pytest.mark.no_shadow(
    "how a large mean is rounded shows in all results: tests/gpu compares them with exact ones"
)


def pytorch(name):
    def call(*args, **options):
        import torch

        return getattr(torch.nn.functional, name)(*args, **options)

    return call


def in_training(function, **options):
    """batch_norm as a function of input, weight and bias."""
    return lambda x, *affine: function(x, None, None, *affine, training=True, **options)


@pytest.mark.parametrize("shape", SHAPES)
def test_batch_norm_in_training_agrees_with_pytorch(shape):
    ours, theirs = in_training(F.batch_norm), in_training(pytorch("batch_norm"))
    x = 3 * normal(*shape) + 2
    compare(ours, theirs, x, normal(3, seed=1), normal(3, seed=2), tolerance=WIDE)
    compare(ours, theirs, x, tolerance=WIDE)
    compare(ours, theirs, x, normal(3, seed=1), tolerance=WIDE)


@pytest.mark.parametrize("shape", SHAPES)
def test_batch_norm_without_training_agrees_with_pytorch(shape):
    def with_statistics(function, tensor):
        mean, variance = normal(3, seed=3), positive(3, seed=4)
        return lambda x, *affine: function(
            x, tensor(mean, x.dtype), tensor(variance, x.dtype), *affine, eps=1e-3
        )

    def torch_tensor(array, dtype):
        import torch

        return torch.tensor(array, dtype=dtype)

    ours = with_statistics(F.batch_norm, mt.tensor)
    theirs = with_statistics(pytorch("batch_norm"), torch_tensor)
    compare(ours, theirs, normal(*shape), normal(3, seed=1), normal(3, seed=2))
    compare(ours, theirs, normal(*shape))


@settings(max_examples=40, deadline=None)
@given(
    N=st.integers(2, 4),
    C=st.integers(1, 4),
    rest=st.lists(st.integers(1, 4), max_size=2),
    eps=st.sampled_from([1e-5, 1e-2]),
)
def test_batch_norm_agrees_with_pytorch_at_any_shape(N, C, rest, eps):
    x = normal(N, C, *rest) + np.arange(N * C).reshape(N, C, *(1,) * len(rest))
    compare(
        in_training(F.batch_norm, eps=eps),
        in_training(pytorch("batch_norm"), eps=eps),
        x,
        normal(C, seed=1),
        normal(C, seed=2),
        tolerance=WIDE,
    )


@pytest.mark.parametrize("momentum", [0.1, 1.0, 0.0])
@pytest.mark.parametrize("shape", SHAPES)
def test_running_statistics_move_as_in_pytorch(shape, momentum):
    torch = pytest.importorskip("torch")
    x, mean, variance = normal(*shape), normal(3, seed=1), positive(3, seed=2)
    ours = mt.tensor(mean), mt.tensor(variance)
    theirs = torch.tensor(mean), torch.tensor(variance)
    F.batch_norm(mt.tensor(x, requires_grad=True), *ours, training=True, momentum=momentum)
    torch.nn.functional.batch_norm(torch.tensor(x), *theirs, training=True, momentum=momentum)
    for a, b in zip(ours, theirs):
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-12)


def test_the_running_variance_is_unbiased_and_the_normalising_one_biased():
    x = np.array([[0.0], [2.0]])
    mean, variance = mt.tensor([0.0], dtype="float64"), mt.tensor([0.0], dtype="float64")
    y = F.batch_norm(x, mean, variance, training=True, momentum=1.0, eps=0.0)
    assert (mean.item(), variance.item()) == (1.0, 2.0)
    np.testing.assert_allclose(y.numpy(), [[-1], [1]])  # divided by the deviation of variance 1


def test_running_statistics_stay_without_training_and_keep_their_dtype():
    mean, variance = mt.zeros(3), mt.ones(3)
    F.batch_norm(normal(4, 3), mean, variance)
    assert not mean.numpy().any() and (variance.numpy() == 1).all()
    F.batch_norm(normal(4, 3), mean, variance, training=True)
    assert mean.dtype == variance.dtype == np.float32 and mean.numpy().all()


def test_only_one_of_the_running_statistics_may_be_kept():
    mean = mt.zeros(3)
    F.batch_norm(normal(4, 3), mean, None, training=True, momentum=1.0)
    np.testing.assert_allclose(mean.numpy(), normal(4, 3).mean(axis=0), rtol=1e-6)


@pytest.mark.parametrize("shape", [(5, 3), (3, 3, 4), (2, 3, 3, 2)])
def test_batch_norm_gradients_are_those_measured(shape):
    x, w, b = normal(*shape), normal(3, seed=1), normal(3, seed=2)
    check_gradients(in_training(F.batch_norm), x, w, b)
    check_gradients(in_training(F.batch_norm), x)
    mean, variance = mt.tensor(normal(3, seed=3)), mt.tensor(positive(3))
    check_gradients(lambda x, w, b: F.batch_norm(x, mean, variance, w, b), x, w, b)


def test_each_channel_of_a_batch_has_mean_0_and_variance_1():
    x = 100 + 5 * normal(8, 3, 6, 6)
    y = F.batch_norm(x, None, None, training=True, eps=0.0).numpy()
    np.testing.assert_allclose(y.mean(axis=(0, 2, 3)), 0, atol=1e-12)
    np.testing.assert_allclose(y.var(axis=(0, 2, 3)), 1, rtol=1e-12)


@FAR_FROM_ZERO
def test_a_large_mean_does_not_swamp_the_variance_in_float32():
    x = (1000 + 0.1 * normal(64, 1)).astype("float32")
    y = F.batch_norm(x, None, None, training=True, eps=0.0)
    assert y.dtype == np.float32
    np.testing.assert_allclose(y.numpy().var(), 1, rtol=1e-3)


@pytest.mark.parametrize("normalized", [1, 2, 3])
@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (3, 2, 6), (0, 3, 4, 5)])
def test_layer_norm_agrees_with_pytorch(shape, normalized):
    last = shape[-normalized:]

    def given(function, eps):
        return lambda x, *affine: function(x, last, *affine, eps=eps)

    for eps in (1e-5, 1e-1):
        ours, theirs = given(F.layer_norm, eps), given(pytorch("layer_norm"), eps)
        x, w, b = 3 * normal(*shape) + 2, normal(*last, seed=1), normal(*last, seed=2)
        compare(ours, theirs, x, w, b, tolerance=WIDE)
        compare(ours, theirs, x, tolerance=WIDE)
        compare(ours, theirs, x, w, tolerance=WIDE)


def test_layer_norm_gradients_are_those_measured():
    check_gradients(
        lambda x, w, b: F.layer_norm(x, 4, w, b), normal(2, 3, 4), normal(4), normal(4, seed=1)
    )
    check_gradients(lambda x, w: F.layer_norm(x, (3, 4), w), normal(2, 3, 4), normal(3, 4))
    check_gradients(lambda x: F.layer_norm(x, (3, 4)), normal(2, 3, 4))


@pytest.mark.parametrize("groups", [1, 2, 3, 6])
@pytest.mark.parametrize("shape", [(2, 6), (2, 6, 5), (3, 6, 4, 2), (0, 6, 4), (2, 6, 2, 2, 2)])
def test_group_norm_agrees_with_pytorch(shape, groups):
    if shape == (2, 6) and groups == 6:  # one value each, always 0: PyTorch's rounding only
        return

    def given(function):
        return lambda x, *affine: function(x, groups, *affine, eps=1e-3)

    ours, theirs = given(F.group_norm), given(pytorch("group_norm"))
    x, w, b = 3 * normal(*shape) + 2, normal(6, seed=1), normal(6, seed=2)
    compare(ours, theirs, x, w, b, tolerance=WIDE)
    compare(ours, theirs, x, tolerance=WIDE)
    compare(ours, theirs, x, w, tolerance=WIDE)


@pytest.mark.parametrize("shape", [(2, 3, 5), (3, 3, 4, 2), (1, 3, 2, 2), (2, 3, 2, 2, 2)])
def test_instance_norm_agrees_with_pytorch(shape):
    def given(function):
        return lambda x, *affine: function(x, None, None, *affine, eps=1e-3)

    ours, theirs = given(F.instance_norm), given(pytorch("instance_norm"))
    x, w, b = 3 * normal(*shape) + 2, normal(3, seed=1), normal(3, seed=2)
    compare(ours, theirs, x, w, b, tolerance=WIDE)
    compare(ours, theirs, x, tolerance=WIDE)


@pytest.mark.parametrize("use_input_stats", [True, False])
@pytest.mark.parametrize("momentum", [0.1, 1.0])
def test_running_statistics_of_instance_norm_move_as_in_pytorch(use_input_stats, momentum):
    torch = pytest.importorskip("torch")
    x, mean, variance = normal(4, 3, 5), normal(3, seed=1), positive(3, seed=2)
    w, b = normal(3, seed=3), normal(3, seed=4)
    ours = mt.tensor(mean), mt.tensor(variance)
    theirs = torch.tensor(mean), torch.tensor(variance)
    options = {"use_input_stats": use_input_stats, "momentum": momentum}
    compare(
        lambda x, w, b: F.instance_norm(x, *ours, w, b, **options),
        lambda x, w, b: pytorch("instance_norm")(x, *theirs, w, b, **options),
        x,
        w,
        b,
        dtypes=("float64",),
    )
    for a, b in zip(ours, theirs):
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-12)


def test_instance_norm_of_no_examples_leaves_the_statistics_alone():
    mean, variance = mt.zeros(3), mt.ones(3)
    assert F.instance_norm(mt.ones(0, 3, 4), mean, variance).shape == (0, 3, 4)
    assert not mean.numpy().any() and (variance.numpy() == 1).all()


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 9])
@pytest.mark.parametrize("shape", [(2, 6, 3), (2, 4, 3, 2), (1, 3, 2, 2, 2), (2, 1, 3), (0, 3, 2)])
def test_local_response_norm_agrees_with_pytorch(shape, size):
    ours, theirs = F.local_response_norm, pytorch("local_response_norm")
    compare(ours, theirs, normal(*shape), size)
    compare(ours, theirs, normal(*shape), size, alpha=0.5, beta=0.6, k=2.0)


def test_gradients_of_the_other_norms_are_those_measured():
    x, w, b = normal(2, 4, 3, 2), normal(4, seed=1), normal(4, seed=2)
    check_gradients(lambda x, w, b: F.group_norm(x, 2, w, b), x, w, b)
    check_gradients(lambda x, w, b: F.instance_norm(x, None, None, w, b), x, w, b)
    check_gradients(lambda x, b: F.instance_norm(x, bias=b), x, b)
    check_gradients(F.local_response_norm, x, 3, 0.7, 0.6, 1.5)
    check_gradients(F.local_response_norm, x, 2, 0.7)


def channels_last(array):
    """The same values in memory whose last axis is that of the channels."""
    return np.moveaxis(np.ascontiguousarray(np.moveaxis(array, 1, -1)), -1, 1)


@pytest.mark.parametrize("shape", [(4, 3, 5), (2, 3, 4, 5), (2, 3, 2, 3, 2), (0, 3, 2, 2)])
@pytest.mark.parametrize("training", [True, False])
def test_channels_last_memory_gives_the_same_and_stays_channels_last(shape, training):
    statistics = mt.tensor(normal(3)), mt.tensor(positive(3))
    results = []
    for layout, of_dy in [(np.copy, np.copy), (channels_last, channels_last)] + [
        (channels_last, np.copy),
        (np.copy, channels_last),
    ]:
        x = mt.as_tensor(layout(normal(*shape))).requires_grad_()
        w, b = (mt.tensor(normal(3, seed=i), requires_grad=True) for i in (1, 2))
        y = F.batch_norm(x, *(t.clone() for t in statistics), w, b, training=training)
        y.backward(of_dy(normal(*shape, seed=5)))
        assert y.numpy().strides == x.numpy().strides or y.numpy().size == 0
        results.append([t.numpy() for t in (y, x.grad, w.grad, b.grad)])
    for other in results[1:]:
        for a, b in zip(results[0], other):
            np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-13)


def test_every_input_alone_gets_the_gradient_it_gets_with_the_others():
    arrays = normal(4, 3, 2), normal(3, seed=1), normal(3, seed=2)
    dy = normal(4, 3, 2, seed=3)
    for norm in (
        lambda x, w, b: F.batch_norm(x, None, None, w, b, training=True),
        lambda x, w, b: F.layer_norm(x.permute(0, 2, 1), 3, w, b).permute(0, 2, 1),
        lambda x, w, b: F.group_norm(x, 1, w, b),
        lambda x, w, b: F.instance_norm(x, None, None, w, b),
    ):
        together = [mt.tensor(a, requires_grad=True) for a in arrays]
        norm(*together).backward(dy)
        for i in range(3):
            alone = [mt.tensor(a, requires_grad=i == j) for j, a in enumerate(arrays)]
            norm(*alone).backward(dy)
            np.testing.assert_allclose(
                alone[i].grad.numpy(), together[i].grad.numpy(), rtol=1e-12, atol=1e-13
            )


@pytest.mark.parametrize("trained", ["all", "weight alone"])
def test_a_gradient_that_was_overwritten_between_two_passes_counts_anew(trained):
    x = mt.tensor(normal(4, 3), requires_grad=trained == "all")
    w = mt.tensor(normal(3, seed=1), requires_grad=True)
    y = F.batch_norm(x, None, None, w, training=True)
    dy = mt.tensor(normal(4, 3, seed=2))
    y.backward(dy, retain_graph=True)
    first, w.grad = w.grad.numpy().copy(), None
    dy[...] = 2 * dy
    y.backward(dy)
    np.testing.assert_allclose(w.grad.numpy(), 2 * first)


@FAR_FROM_ZERO
@pytest.mark.parametrize("shape", [(64, 3, 7, 7), (5000, 3), (2, 3, 100, 100)])
def test_values_far_from_zero_are_normalised_as_well_as_by_pytorch(shape):
    torch = pytest.importorskip("torch")
    x, dy = (1000 + normal(*shape)).astype("f"), normal(*shape, seed=1).astype("f")

    def results(batch_norm, tensor, dtype):
        given = [tensor(a.astype(dtype), requires_grad=True) for a in (x, np.ones(3))]
        y = batch_norm(given[0], None, None, given[1], training=True)
        y.backward(tensor(dy.astype(dtype)))
        return [y.detach().numpy(), *(t.grad.numpy() for t in given)]

    exact = results(torch.nn.functional.batch_norm, torch.tensor, "d")
    theirs = results(torch.nn.functional.batch_norm, torch.tensor, "f")
    ours = results(F.batch_norm, mt.tensor, "f")
    for e, t, o in zip(exact, theirs, ours):
        rounding = 1e-4 * np.abs(e).max()  # x itself is known to 3e-5 of its deviation
        assert np.abs(o - e).max() <= 2 * np.abs(t - e).max() + rounding


def test_inputs_that_are_not_contiguous():
    weight, bias = normal(3), normal(3, seed=1)
    compare(
        lambda x: F.batch_norm(x.permute(3, 0, 2, 1), None, None, training=True),
        lambda x: pytorch("batch_norm")(x.permute(3, 0, 2, 1), None, None, training=True),
        normal(3, 5, 4, 2),
        tolerance=WIDE,
    )
    x = normal(3, 5, 4).T
    assert not x.flags.c_contiguous
    np.testing.assert_allclose(
        F.layer_norm(x, 3, weight, bias).numpy(), F.layer_norm(x.copy(), 3, weight, bias).numpy()
    )


@pytest.mark.parametrize("shape", [(1, 3), (1, 3, 1, 1)])
def test_training_refuses_one_value_per_channel_and_leaves_the_statistics_alone(shape):
    mean, variance = mt.zeros(3), mt.ones(3)
    with pytest.raises(ValueError, match="^batch_norm: training needs more than one value"):
        F.batch_norm(normal(*shape), mean, variance, training=True)
    assert not mean.numpy().any()
    assert F.batch_norm(normal(*shape), mean, variance).shape == shape


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda x: F.batch_norm(x, None, None), ValueError, "needs running_mean and running_var"),
        (lambda x: F.batch_norm(x, mt.zeros(3), None), ValueError, "needs running_mean and"),
        (
            lambda x: F.batch_norm(x, mt.zeros(4), mt.ones(4)),
            mt.ShapeError,
            r"running_mean needs one number for each of the 3 channels.*not \(4,\)",
        ),
        (
            lambda x: F.batch_norm(x, None, None, np.ones(2), training=True),
            mt.ShapeError,
            r"batch_norm: weight needs one number .*shape \(3,\), not \(2,\)",
        ),
        (
            lambda x: F.batch_norm(x[0], None, None, training=True),
            mt.ShapeError,
            r"input of shape \(N, C, ...\), not \(3,\)",
        ),
        (lambda x: F.layer_norm(x, 5), mt.ShapeError, r"\(4, 3\) must be normalized_shape=\(5,\)"),
        (lambda x: F.layer_norm(x, (2, 4, 3)), mt.ShapeError, "last axes of the input"),
        (lambda x: F.layer_norm(x, ()), mt.ShapeError, "last axes of the input"),
        (
            lambda x: F.group_norm(x, 2),
            mt.ShapeError,
            "num_groups=2 does not divide the 3 channels",
        ),
        (
            lambda x: F.group_norm(x, 0),
            ValueError,
            "^group_norm: num_groups must be an integer of at least 1, not 0",
        ),
        (
            lambda x: F.group_norm(x, 3.0),
            ValueError,
            "^group_norm: num_groups must be an integer of at least 1, not 3.0",
        ),
        (
            lambda x: F.layer_norm(x, "3"),
            ValueError,
            "^layer_norm: normalized_shape must be an integer or a tuple of integers, not '3'",
        ),
        (
            lambda x: F.layer_norm(x, None),
            ValueError,
            "^layer_norm: normalized_shape must be an integer or a tuple of integers, not None",
        ),
        (
            lambda x: F.group_norm(x, 3, np.ones(2)),
            mt.ShapeError,
            r"group_norm: weight needs one number .* not \(2,\)",
        ),
        (
            lambda x: F.instance_norm(x[..., None], use_input_stats=False),
            ValueError,
            "with use_input_stats=False it needs running_mean and running_var",
        ),
        (
            lambda x: F.instance_norm(x[..., None]),
            ValueError,
            r"instance_norm: needs more than one value per channel .* \(4, 3, 1\) has one",
        ),
        (lambda x: F.local_response_norm(x, 2), mt.ShapeError, r"\(N, C, L, ...\), not \(4, 3\)"),
        (lambda x: F.local_response_norm(x[None], 0), ValueError, "of at least 1, not 0"),
        (lambda x: F.local_response_norm(x[None], 2.5), ValueError, "an integer .* not 2.5"),
        (
            lambda x: F.layer_norm(x, 3, np.ones(4)),
            mt.ShapeError,
            r"layer_norm: the weight must have the shape \(3,\).*not \(4,\)",
        ),
    ],
)
def test_what_does_not_fit_is_explained(call, error, message):
    with pytest.raises(error, match=message):
        call(mt.tensor(normal(4, 3)))


@pytest.mark.parametrize("sizes", [3, np.int64(3), [3], np.array([3])])
def test_the_normalized_shape_may_be_any_integers(sizes):
    x = normal(4, 3)
    np.testing.assert_array_equal(F.layer_norm(x, sizes).numpy(), F.layer_norm(x, (3,)).numpy())


@FAR_FROM_ZERO
def test_groups_far_from_zero_are_normalised_as_well_as_by_pytorch():
    torch = pytest.importorskip("torch")
    x = (1000 + normal(2, 4, 50, 50)).astype("f")
    w, b = np.ones(4, "f"), np.zeros(4, "f")
    exact = torch.group_norm(torch.tensor(x.astype("d")), 2).numpy()
    theirs = torch.group_norm(torch.tensor(x), 2, torch.tensor(w), torch.tensor(b)).numpy()
    ours = F.group_norm(x, 2, w, b).numpy()
    assert np.abs(ours - exact).max() <= 2 * np.abs(theirs - exact).max() + 1e-4


def test_layer_norm_of_no_features():
    x, w, b = (mt.ones(s, requires_grad=True) for s in ((3, 0), (0,), (0,)))
    F.layer_norm(x, 0, w, b).sum().backward()
    assert (x.grad.shape, w.grad.shape, b.grad.shape) == ((3, 0), (0,), (0,))


def test_running_statistics_are_tensors():
    with pytest.raises(TypeError, match="batch_norm: training updates running_mean, so it must be"):
        F.batch_norm(mt.ones(2, 3), np.zeros(3), np.ones(3), training=True)


def test_integers_are_normalised_as_floats():
    x = np.array([[0, 255], [10, 20]], np.uint8)
    for norm in (
        lambda x: F.layer_norm(x, 2),
        lambda x: F.batch_norm(x, None, None, None, None, True),
    ):
        y = norm(mt.tensor(x))
        np.testing.assert_array_equal(y.numpy(), norm(mt.tensor(x.astype("f"))).numpy())
