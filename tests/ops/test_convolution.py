from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import minitorch_attn as mt
import minitorch_attn.functional as F
from minitorch_attn.ops.windows import BLOCK_BYTES

from .parity import check_gradients, compare, normal


def loops(x, w, b, stride, padding, dilation, groups):
    """Cross-correlation, one product at a time; `padding` is (above, below), (left, right)."""
    x = np.pad(x, ((0, 0), (0, 0), *padding))
    N, C, H, W = x.shape
    O, each, R, S = w.shape
    P = (H - dilation[0] * (R - 1) - 1) // stride[0] + 1
    Q = (W - dilation[1] * (S - 1) - 1) // stride[1] + 1
    y = np.zeros((N, O, P, Q))
    for n, o, p, q in product(range(N), range(O), range(P), range(Q)):
        first = o // (O // groups) * each  # the first input channel of o's group
        for c, r, s in product(range(each), range(R), range(S)):
            row, column = p * stride[0] + r * dilation[0], q * stride[1] + s * dilation[1]
            y[n, o, p, q] += x[n, first + c, row, column] * w[o, c, r, s]
        y[n, o, p, q] += b[o]
    return y


SETTINGS = [
    {},
    {"stride": 2},
    {"stride": (2, 3), "padding": (1, 0)},
    {"padding": 2},
    {"dilation": 2, "padding": (0, 3)},
    {"dilation": (1, 2), "stride": (3, 1)},
    {"padding": "same"},
    {"padding": "same", "dilation": (2, 1)},
    {"padding": "valid"},
]


def theirs(**options):
    def conv(*tensors):
        import torch

        return torch.nn.functional.conv2d(*tensors, **options)

    return conv


@pytest.mark.parametrize("options", SETTINGS)
@pytest.mark.parametrize(("R", "S"), [(3, 3), (2, 3), (1, 4)])
@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
def test_conv2d_agrees_with_pytorch(options, R, S, groups):
    x, w, b = normal(2, 4, 7, 9), normal(8, 4 // groups, R, S), normal(8)
    options = {**options, "groups": groups}
    compare(lambda *t: F.conv2d(*t, **options), theirs(**options), x, w, b)


@pytest.mark.parametrize("options", SETTINGS)
def test_conv2d_without_bias_agrees_with_pytorch(options):
    compare(
        lambda *t: F.conv2d(*t, **options),
        theirs(**options),
        normal(2, 3, 6, 5),
        normal(2, 3, 3, 3),
    )


@settings(max_examples=80, deadline=None)
@given(
    N=st.integers(0, 3),
    groups=st.integers(1, 3),
    C=st.integers(1, 3),
    O=st.integers(1, 3),
    size=st.tuples(st.integers(1, 8), st.integers(1, 8)),
    kernel=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    stride=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    padding=st.tuples(st.integers(0, 3), st.integers(0, 3)),
    dilation=st.tuples(st.integers(1, 3), st.integers(1, 3)),
)
def test_conv2d_agrees_with_pytorch_at_any_shape(
    N, groups, C, O, size, kernel, stride, padding, dilation
):
    x, w, b = normal(N, C * groups, *size), normal(O * groups, C, *kernel), normal(O * groups)
    options = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    reach = [d * (k - 1) + 1 for k, d in zip(kernel, dilation)]
    if any(r > n + 2 * p for r, n, p in zip(reach, size, padding)):
        with pytest.raises(mt.ShapeError, match="does not fit into an image"):
            F.conv2d(x, w, b, **options)
    else:
        compare(lambda *t: F.conv2d(*t, **options), theirs(**options), x, w, b)


@pytest.mark.parametrize(
    ("options", "border"),
    [
        ({}, ((0, 0), (0, 0))),
        ({"stride": (2, 1), "padding": (1, 2)}, ((1, 1), (2, 2))),
        ({"dilation": (1, 2), "groups": 2}, ((0, 0), (0, 0))),
        ({"padding": "same"}, ((1, 1), (0, 1))),  # an odd one goes to the right
        ({"padding": "same", "dilation": (1, 3), "groups": 4}, ((1, 1), (1, 2))),
    ],
)
def test_conv2d_is_the_sum_of_products_under_the_kernel(options, border):
    groups = options.get("groups", 1)
    x, w, b = normal(2, 4, 5, 6), normal(4, 4 // groups, 3, 2), normal(4)
    stride, dilation = options.get("stride", (1, 1)), options.get("dilation", (1, 1))
    expected = loops(x, w, b, stride, border, dilation, groups)
    np.testing.assert_allclose(F.conv2d(x, w, b, **options).numpy(), expected, atol=1e-12)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"stride": (2, 1), "padding": (1, 2)},
        {"dilation": (1, 2), "groups": 2},
        {"padding": "same", "groups": 4},
        {"stride": 3, "dilation": 2, "padding": 2},
    ],
)
def test_conv2d_gradients_are_those_measured(options):
    x, w, b = normal(2, 4, 5, 6), normal(4, 4 // options.get("groups", 1), 3, 2), normal(4)
    check_gradients(F.conv2d, x, w, b, **options)
    check_gradients(F.conv2d, x, w, **options)


@pytest.mark.parametrize("options", [*SETTINGS[:6], {"padding": "same", "groups": 2}])
def test_backward_to_the_input_is_the_transposed_map(options):
    """<conv(x), y> = <x, conv^T(y)> for any x and y, and so for the weight."""
    x = mt.tensor(normal(2, 4, 8, 7, seed=1), requires_grad=True)
    w = mt.tensor(normal(6, 4 // options.get("groups", 1), 3, 2, seed=2), requires_grad=True)
    y = F.conv2d(x, w, **options)
    other = normal(*y.shape, seed=3)
    y.backward(other)
    product = (y.numpy() * other).sum()
    assert (x.grad.numpy() * x.numpy()).sum() == pytest.approx(product)
    assert (w.grad.numpy() * w.numpy()).sum() == pytest.approx(product)


def test_many_images_give_what_each_gives_alone():
    """The batch is worked through in blocks: none is left out, none mixed with another."""
    images, kernels = normal(21, 8, 40, 40), normal(4, 8, 3, 3)
    assert images.nbytes * 9 > 4 * BLOCK_BYTES
    dy = normal(21, 4, 40, 40, seed=1)

    def run(chosen):
        x, w = mt.tensor(images[chosen], requires_grad=True), mt.tensor(kernels, requires_grad=True)
        y = F.conv2d(x, w, padding=1)
        y.backward(dy[chosen])
        return y.numpy(), x.grad.numpy(), w.grad.numpy()

    together = run(slice(None))
    alone = [run(slice(n, n + 1)) for n in range(21)]
    for i in (0, 1):
        expected = np.concatenate([a[i] for a in alone])
        np.testing.assert_allclose(together[i], expected, atol=1e-11)
    np.testing.assert_allclose(together[2], sum(a[2] for a in alone), atol=1e-10)


def test_one_image_without_a_batch_axis():
    compare(
        lambda *t: F.conv2d(*t, stride=2, padding=1),
        theirs(stride=2, padding=1),
        normal(3, 6, 5),
        normal(4, 3, 3, 3),
        normal(4),
    )


def test_an_empty_batch_gives_an_empty_result_and_zero_gradients():
    x = mt.tensor(np.zeros((0, 3, 5, 5)), requires_grad=True)
    w, b = (mt.tensor(normal(*s), requires_grad=True) for s in [(4, 3, 3, 3), (4,)])
    y = F.conv2d(x, w, b)
    assert y.shape == (0, 4, 3, 3)
    y.backward(np.zeros(y.shape))
    assert x.grad.shape == x.shape
    assert not w.grad.numpy().any() and not b.grad.numpy().any()


def test_inputs_that_are_not_contiguous():
    x, w = normal(5, 6, 2, 8).transpose(2, 0, 1, 3)[:, ::2, :, ::-1], normal(3, 3, 2, 4).T
    x, w = x[:, :3], w.transpose(0, 3, 1, 2)
    assert not x.flags.c_contiguous and not w.flags.c_contiguous

    def ours(x, w):
        return F.conv2d(x.permute(1, 0, 2, 3)[:, ::2], w[::-1], padding=1)

    def pytorch(x, w):
        import torch

        return torch.nn.functional.conv2d(x.permute(1, 0, 2, 3)[:, ::2], w.flip(0), padding=1)

    compare(ours, pytorch, normal(6, 2, 5, 7), normal(4, 3, 3, 2))
    expected = F.conv2d(x.copy(), w.copy()).numpy()
    np.testing.assert_array_equal(F.conv2d(x, w).numpy(), expected)


def test_a_convolution_of_the_whole_image_is_a_linear_map():
    x, w, b = normal(3, 2, 4, 5), normal(6, 2, 4, 5), normal(6)
    expected = x.reshape(3, -1) @ w.reshape(6, -1).T + b
    np.testing.assert_allclose(F.conv2d(x, w, b).numpy()[:, :, 0, 0], expected, atol=1e-12)


def test_only_the_weight_rule_keeps_the_image():
    """An input that needs no gradient spares the weight's array, and the other way round."""
    from minitorch_attn.ops.convolution import _CONVOLUTIONS

    options = {"stride": (1, 1), "padding": (1, 1), "dilation": (1, 1), "groups": 1}
    x, w = normal(2, 3, 5, 5), normal(4, 3, 3, 3)
    _, (vjp_x, vjp_weight, vjp_bias) = _CONVOLUTIONS[2].__wrapped__(x, w, normal(4), **options)
    assert not keeps(vjp_x, x) and not keeps(vjp_weight, w)
    assert not keeps(vjp_bias, x) and not keeps(vjp_bias, w)


def keeps(rule, array):
    cells = [c.cell_contents for c in rule.__closure__ or ()]
    inner = any(keeps(c, array) for c in cells if hasattr(c, "__closure__"))
    return inner or any(isinstance(c, np.ndarray) and np.shares_memory(c, array) for c in cells)


@pytest.mark.parametrize(
    ("x", "w", "b", "options", "message"),
    [
        (
            (2, 3, 5, 5),
            (4, 2, 3, 3),
            None,
            {},
            r"3 channels.*see 2.*weight of shape \(4, 3, 3, 3\)",
        ),
        ((2, 3, 5, 5), (4, 3, 3, 3), None, {"groups": 2}, "groups=2 must divide the 3 channels"),
        ((2, 4, 5, 5), (3, 2, 3, 3), None, {"groups": 2}, "and the 3 kernels"),
        ((2, 4, 5, 5), (4, 4, 3, 3), None, {"groups": 2}, "weight of shape .4, 2, 3, 3."),
        ((2, 4, 5, 5), (4, 4, 3, 3), None, {"groups": 0}, "groups=0"),
        ((2, 3, 5, 5), (4, 3, 7, 7), None, {"padding": (1, 0)}, "7x7 does not fit .* 7x5"),
        ((2, 3, 5, 5), (4, 3, 3, 3), None, {"dilation": 3}, "3x3, 7x7 with its dilation"),
        ((2, 3, 5, 5), (4, 3, 3, 3), (3,), {}, r"4 kernels, shape \(4,\), not \(3,\)"),
        ((3, 5), (4, 3, 3, 3), None, {}, r"\(N, C, H, W\).*not \(3, 5\)"),
        ((2, 3, 5, 5), (4, 3, 3), None, {}, r"weight needs shape .*not \(4, 3, 3\)"),
    ],
)
def test_shapes_that_do_not_fit_are_explained(x, w, b, options, message):
    with pytest.raises(mt.ShapeError, match="^conv2d: .*" + message):
        F.conv2d(np.zeros(x), np.zeros(w), None if b is None else np.zeros(b), **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stride": 0}, "stride must be an integer of at least 1.*not 0"),
        ({"stride": (1, -1)}, "stride must be"),
        ({"stride": (1, 1, 1)}, "stride must be"),
        ({"stride": 1.5}, "stride must be.*not 1.5"),
        ({"dilation": 0}, "dilation must be"),
        ({"padding": -1}, "padding must be an integer of at least 0"),
        ({"padding": "full"}, "padding is integers, 'same' or 'valid', not 'full'"),
        ({"padding": "same", "stride": 2}, "padding='same' needs stride 1"),
    ],
)
def test_options_out_of_range_are_explained(options, message):
    with pytest.raises(ValueError, match="^conv2d: " + message):
        F.conv2d(np.zeros((1, 1, 5, 5)), np.zeros((1, 1, 3, 3)), **options)
