import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import minitorch_attn as mt
import minitorch_attn.functional as F
from minitorch_attn.ops import convolution
from minitorch_attn.ops.windows import BLOCK_BYTES

from .parity import check_gradients, compare, normal


def loops(x, w, b, stride, border, dilation, groups):
    """Cross-correlation, one product at a time; `border` is (before, after) for each axis."""
    x = np.pad(x, ((0, 0), (0, 0), *border))
    O, each, *kernel = w.shape
    reach = [d * (k - 1) + 1 for k, d in zip(kernel, dilation)]
    places = [(n - r) // step + 1 for n, r, step in zip(x.shape[2:], reach, stride)]
    y = np.zeros((len(x), O, *places))
    for n, o, *place in np.ndindex(*y.shape):
        first = o // (O // groups) * each  # the first input channel of o's group
        for c, *tap in np.ndindex(each, *kernel):
            seen = [p * step + t * d for p, step, t, d in zip(place, stride, tap, dilation)]
            y[n, o, *place] += x[n, first + c, *seen] * w[o, c, *tap]
        y[n, o, *place] += b[o]
    return y


def laid_down(x, w, b, stride, padding, output_padding, dilation, groups):
    """Transposed convolution: every pixel lays its kernels down, the padding is cut off."""
    C, each, *kernel = w.shape
    reach = [d * (k - 1) + 1 for k, d in zip(kernel, dilation)]
    whole = [(n - 1) * step + r for n, step, r in zip(x.shape[2:], stride, reach)]
    y = np.zeros((len(x), each * groups, *(n + more for n, more in zip(whole, output_padding))))
    for n, c, *pixel in np.ndindex(*x.shape):
        first = c // (C // groups) * each  # the first output channel of c's group
        for o, *tap in np.ndindex(each, *kernel):
            place = [p * step + t * d for p, step, t, d in zip(pixel, stride, tap, dilation)]
            y[n, first + o, *place] += x[n, c, *pixel] * w[c, o, *tap]
    # The output padding lies behind what is cut off at the end.
    for axis, cut in enumerate(padding, start=2):
        y = np.take(y, range(cut, y.shape[axis] - cut), axis)
    return y + b.reshape(-1, *(1,) * len(kernel))


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


# The forms may round differently than PyTorch's (see `convolution_forms`).
TOLERANCE = {"float32": 1e-4, "float64": 1e-11}


def compare_op(name, *inputs, **options):
    """With PyTorch's operation of that name."""

    def theirs(*tensors):
        import torch

        return getattr(torch.nn.functional, name)(*tensors, **options)

    ours = getattr(F, name)
    compare(lambda *t: ours(*t, **options), theirs, *inputs, tolerance=TOLERANCE)


@pytest.mark.parametrize("options", SETTINGS)
@pytest.mark.parametrize(("R", "S"), [(3, 3), (2, 3), (1, 4)])
@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
def test_conv2d_agrees_with_pytorch(options, R, S, groups):
    x, w, b = normal(2, 4, 7, 9), normal(8, 4 // groups, R, S), normal(8)
    options = {**options, "groups": groups}
    compare_op("conv2d", x, w, b, **options)


@pytest.mark.parametrize("options", SETTINGS)
def test_conv2d_without_bias_agrees_with_pytorch(options):
    compare_op("conv2d", normal(2, 3, 6, 5), normal(2, 3, 3, 3), **options)


@st.composite
def calls(draw, transposed):
    """Any convolution: (dimensions, input, weight, bias, options)."""
    dims = draw(st.integers(1, 3))

    def per_axis(least, most):
        return draw(st.tuples(*[st.integers(least, most)] * dims))

    groups, C, O = (draw(st.integers(1, 3)) for _ in range(3))
    size, kernel = per_axis(1, 8 if dims < 3 else 5), per_axis(1, 4 if dims < 3 else 3)
    options = {
        "stride": per_axis(1, 3),
        "padding": per_axis(0, 3),
        "dilation": per_axis(1, 3),
        "groups": groups,
    }
    if transposed:
        steps = zip(options["stride"], options["dilation"])
        more = [draw(st.integers(0, max(step, d) - 1)) for step, d in steps]
        options["output_padding"] = tuple(more)
    x = normal(draw(st.integers(0, 3)), C * groups, *size)
    w = normal(C * groups, O, *kernel) if transposed else normal(O * groups, C, *kernel)
    return dims, x, w, normal(O * groups), options


def reach(w, options):
    return [d * (k - 1) + 1 for k, d in zip(w.shape[2:], options["dilation"])]


@settings(max_examples=120, deadline=None)
@given(calls(transposed=False))
def test_convolutions_agree_with_pytorch_at_any_shape(call):
    dims, x, w, b, options = call
    padded = [n + 2 * p for n, p in zip(x.shape[2:], options["padding"])]
    if any(r > n for r, n in zip(reach(w, options), padded)):
        with pytest.raises(mt.ShapeError, match="does not fit into an image"):
            getattr(F, f"conv{dims}d")(x, w, b, **options)
    else:
        compare_op(f"conv{dims}d", x, w, b, **options)


@settings(max_examples=120, deadline=None)
@given(calls(transposed=True))
def test_transposed_convolutions_agree_with_pytorch_at_any_shape(call):
    dims, x, w, b, options = call
    steps = zip(x.shape[2:], options["stride"], reach(w, options))
    whole = [(n - 1) * step + r for n, step, r in steps]
    cuts = zip(whole, options["padding"], options["output_padding"])
    if any(n - 2 * p + more < 1 for n, p, more in cuts):
        with pytest.raises(mt.ShapeError, match="use less padding"):
            getattr(F, f"conv_transpose{dims}d")(x, w, b, **options)
    else:
        compare_op(f"conv_transpose{dims}d", x, w, b, **options)


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize("taps", [2, 3, 4])
@pytest.mark.parametrize("dilation", [1, 2])
@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
def test_named_paddings_are_pytorchs_in_every_dimension(dims, padding, taps, dilation):
    x, w = normal(2, 2, *(8, 7, 9)[:dims]), normal(3, 2, *(taps, 3, 2)[:dims])
    compare_op(f"conv{dims}d", x, w, normal(3), padding=padding, dilation=dilation)


@pytest.mark.parametrize("name", ["conv", "conv_transpose"])
@pytest.mark.parametrize("dims", [1, 2, 3])
def test_one_image_without_a_batch_axis(name, dims):
    size, kernel = (6, 5, 4)[:dims], (3, 3, 2)[:dims]
    compare_op(
        f"{name}{dims}d", normal(4, *size), normal(4, 4, *kernel), normal(4), stride=2, padding=1
    )


@pytest.mark.parametrize("name", ["conv", "conv_transpose"])
@pytest.mark.parametrize("dims", [2, 3])
def test_a_single_number_in_a_tuple_holds_for_all_axes(name, dims):
    x, w = normal(2, 4, *(5,) * dims), normal(4, 4, *(2,) * dims)
    compare_op(f"{name}{dims}d", x, w, stride=(2,), padding=[1], dilation=(1,))


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


@pytest.mark.parametrize("dims", [1, 3])
def test_it_is_the_same_sum_in_other_dimensions(dims):
    x, w, b = normal(2, 4, *(6, 5, 4)[:dims]), normal(4, 2, *(3, 2, 2)[:dims]), normal(4)
    stride, padding, dilation = (2, 1, 1)[:dims], (1, 2, 0)[:dims], (1, 2, 3)[:dims]
    y = getattr(F, f"conv{dims}d")(x, w, b, stride, padding, dilation, 2)
    expected = loops(x, w, b, stride, [(p, p) for p in padding], dilation, 2)
    np.testing.assert_allclose(y.numpy(), expected, atol=1e-12)


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize(
    ("stride", "padding", "output_padding", "dilation", "groups"),
    [
        ((1, 1, 1), (0, 0, 0), (0, 0, 0), (1, 1, 1), 1),
        ((2, 3, 2), (1, 2, 0), (1, 0, 1), (1, 1, 2), 1),
        ((1, 2, 3), (1, 0, 1), (1, 1, 2), (2, 3, 1), 2),
        ((2, 2, 2), (0, 1, 0), (0, 1, 1), (1, 1, 1), 4),
    ],
)
def test_a_transposed_convolution_lays_kernels_down_at_every_pixel(
    dims, stride, padding, output_padding, dilation, groups
):
    options = [o[:dims] for o in (stride, padding, output_padding, dilation)]
    x, w, b = normal(2, 4, *(4, 3, 3)[:dims]), normal(4, 2, *(3, 2, 3)[:dims]), normal(2 * groups)
    y = getattr(F, f"conv_transpose{dims}d")(x, w, b, *options[:3], groups, options[3])
    np.testing.assert_allclose(y.numpy(), laid_down(x, w, b, *options, groups), atol=1e-12)


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("groups", [1, 2])
def test_a_transposed_convolution_is_the_gradient_of_a_convolution(dims, groups):
    """The same weight and options: what one sends back is what the other computes."""
    conv, transpose = getattr(F, f"conv{dims}d"), getattr(F, f"conv_transpose{dims}d")
    x = mt.tensor(normal(2, 4, *(8, 7, 6)[:dims]), requires_grad=True)
    w = normal(6, 4 // groups, *(3, 2, 3)[:dims])
    y = conv(x, w, stride=2, padding=1, groups=groups)
    dy = normal(*y.shape, seed=1)
    y.backward(dy)
    steps = zip(x.shape[2:], y.shape[2:], w.shape[2:])
    left_over = tuple(n - ((p - 1) * 2 - 2 + k) for n, p, k in steps)
    back = transpose(dy, w, stride=2, padding=1, output_padding=left_over, groups=groups)
    np.testing.assert_allclose(back.numpy(), x.grad.numpy(), atol=1e-12)


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


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"stride": 2, "padding": 1, "output_padding": 1},
        {"dilation": 2, "output_padding": 1, "groups": 2},
        {"stride": 3, "padding": 1, "groups": 4},
    ],
)
def test_transposed_gradients_are_those_measured(dims, options):
    x, w = normal(2, 4, *(3, 3, 2)[:dims]), normal(4, 2, *(3, 2, 2)[:dims])
    op, b = getattr(F, f"conv_transpose{dims}d"), normal(2 * options.get("groups", 1))
    check_gradients(op, x, w, b, **options)


@pytest.mark.parametrize("dims", [1, 3])
def test_gradients_in_other_dimensions_are_those_measured(dims):
    x, w = normal(2, 4, *(4, 3, 4)[:dims]), normal(4, 2, *(2, 2, 3)[:dims])
    options = {"stride": (2, 1, 1)[:dims], "padding": 1, "dilation": 2, "groups": 2}
    check_gradients(getattr(F, f"conv{dims}d"), x, w, normal(4), **options)
    check_gradients(getattr(F, f"conv{dims}d"), x, w, padding="same", groups=2)


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


@pytest.mark.parametrize("name", ["conv2d", "conv_transpose2d"])
def test_an_empty_batch_gives_an_empty_result_and_zero_gradients(name):
    x = mt.tensor(np.zeros((0, 4, 5, 5)), requires_grad=True)
    w, b = (mt.tensor(normal(*s), requires_grad=True) for s in [(4, 4, 3, 3), (4,)])
    y = getattr(F, name)(x, w, b)
    assert y.shape == (0, 4, *{"conv2d": (3, 3), "conv_transpose2d": (7, 7)}[name])
    y.backward(np.zeros(y.shape))
    assert x.grad.shape == x.shape
    assert not w.grad.numpy().any() and not b.grad.numpy().any()


@pytest.mark.parametrize("name", ["conv2d", "conv_transpose2d"])
def test_images_without_channels_leave_the_bias(name):
    w = {"conv2d": (3, 0, 2, 2), "conv_transpose2d": (0, 3, 2, 2)}[name]
    x, w = (mt.tensor(np.zeros(s), requires_grad=True) for s in ((2, 0, 5, 5), w))
    y = getattr(F, name)(x, w, np.array([1.0, 2.0, 3.0]))
    np.testing.assert_array_equal(y.numpy()[:, :, 0, 0], [[1, 2, 3]] * 2)
    y.sum().backward()
    assert x.grad.shape == x.shape and w.grad.shape == w.shape


@pytest.mark.parametrize("name", ["conv2d", "conv_transpose2d"])
def test_inputs_that_are_not_contiguous(name):
    op = getattr(F, name)
    x, w = normal(5, 6, 2, 8).transpose(2, 0, 1, 3)[:, ::2, :, ::-1], normal(3, 3, 2, 4).T
    x, w = x[:, :3], w.transpose(0, 3, 1, 2)
    assert not x.flags.c_contiguous and not w.flags.c_contiguous

    def ours(x, w):
        return op(x.permute(1, 0, 2, 3)[:, ::2], w[::-1], padding=1)

    def pytorch(x, w):
        import torch

        theirs = getattr(torch.nn.functional, name)
        return theirs(x.permute(1, 0, 2, 3)[:, ::2], w.flip(0), padding=1)

    compare(ours, pytorch, normal(6, 2, 5, 7), normal(3, 3, 3, 2), tolerance=TOLERANCE)
    w = w[:3]
    expected = op(x.copy(), w.copy()).numpy()
    np.testing.assert_array_equal(op(x, w).numpy(), expected)


def test_a_convolution_of_the_whole_image_is_a_linear_map():
    x, w, b = normal(3, 2, 4, 5), normal(6, 2, 4, 5), normal(6)
    expected = x.reshape(3, -1) @ w.reshape(6, -1).T + b
    np.testing.assert_allclose(F.conv2d(x, w, b).numpy()[:, :, 0, 0], expected, atol=1e-12)


@pytest.mark.parametrize("primitives", ["_CONVOLUTIONS", "_TRANSPOSED_CONVOLUTIONS"])
def test_only_the_weight_rule_keeps_the_image(primitives):
    """An input that needs no gradient spares the weight's array, and the other way round."""
    forward = getattr(convolution, primitives)[2].__wrapped__
    options = {"stride": (1, 1), "padding": (1, 1), "dilation": (1, 1), "groups": 1}
    if primitives == "_TRANSPOSED_CONVOLUTIONS":
        options["output_padding"] = (0, 0)
    x, w = normal(2, 3, 5, 5), normal(3, 3, 3, 3)
    _, (vjp_x, vjp_weight, vjp_bias) = forward(x, w, normal(3), **options)
    assert not keeps(vjp_x, x) and not keeps(vjp_weight, w)
    assert not keeps(vjp_bias, x) and not keeps(vjp_bias, w)
    assert keeps(vjp_x, w) and keeps(vjp_weight, x)


@pytest.mark.parametrize("name", ["conv", "conv_transpose"])
@pytest.mark.parametrize("dims", [1, 2, 3])
def test_the_graph_shows_the_name_of_the_operation(name, dims):
    w = mt.tensor(normal(2, 2, *(1,) * dims), requires_grad=True)
    y = getattr(F, f"{name}{dims}d")(normal(1, 2, *(3,) * dims), w)
    assert f"op=<{name}{dims}d>" in repr(y)


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
        ((2, 3, 5, 5), (4, 3, 7, 7), None, {"padding": (1, 0)}, "7x7 does not fit .* 7x5"),
        ((2, 3, 5, 5), (4, 3, 3, 3), None, {"dilation": 3}, "3x3, 7x7 with its dilation"),
        ((2, 3, 5, 5), (4, 3, 3, 3), (3,), {}, r"4 kernels, shape \(4,\), not \(3,\)"),
        ((3, 5), (4, 3, 3, 3), None, {}, r"\(N, C, H, W\).*not \(3, 5\)"),
        ((2, 3, 0, 5), (4, 3, 1, 1), None, {"padding": 1}, "an image of 0x5 has no pixels"),
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
        ({"groups": 0}, "groups must be an integer of at least 1, not 0"),
        ({"groups": "2"}, "groups must be an integer of at least 1, not '2'"),
        ({"groups": 1.0}, "groups must be an integer of at least 1, not 1.0"),
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


@pytest.mark.parametrize(
    ("x", "w", "b", "options", "message"),
    [
        (
            (2, 3, 5, 5),
            (4, 2, 3, 3),
            None,
            {},
            r"has 3 channels, but the weight \(4, 2, 3, 3\) takes 4.*shape \(3, 2, 3, 3\)",
        ),
        ((2, 3, 5, 5), (2, 4, 3, 3), None, {}, "takes 2: give an input of 2 channels"),
        ((2, 3, 5, 5), (3, 2, 3, 3), None, {"groups": 2}, "groups=2 must divide the 3 channels"),
        ((2, 4, 5, 5), (4, 2, 3, 3), (2,), {"groups": 2}, r"4 kernels, shape \(4,\), not \(2,\)"),
        (
            (2, 4, 5, 6),
            (4, 2, 3, 3),
            None,
            {"padding": 4},
            r"5x6 under a kernel of 3x3 nothing is left \(-1x0\) once padding=\(4, 4\)",
        ),
        ((3, 5), (4, 3, 3, 3), None, {}, r"\(N, C, H, W\).*not \(3, 5\)"),
        ((2, 4, 5, 0), (4, 3, 3, 3), None, {}, "an image of 5x0 has no pixels"),
        ((2, 3, 5, 5), (3, 4, 3), None, {}, r"\(in channels, out channels / groups, height, width"),
    ],
)
def test_shapes_that_do_not_fit_a_transposed_convolution_are_explained(x, w, b, options, message):
    with pytest.raises(mt.ShapeError, match="^conv_transpose2d: .*" + message):
        F.conv_transpose2d(np.zeros(x), np.zeros(w), None if b is None else np.zeros(b), **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stride": 0}, "stride must be an integer of at least 1.*not 0"),
        ({"groups": 0}, "groups must be an integer of at least 1, not 0"),
        ({"groups": "2"}, "groups must be an integer of at least 1, not '2'"),
        ({"groups": 1.0}, "groups must be an integer of at least 1, not 1.0"),
        ({"padding": "same"}, "padding must be an integer of at least 0.*not 'same'"),
        ({"output_padding": -1}, "output_padding must be"),
        (
            {"output_padding": 1},
            r"output_padding=\(1, 1\) must be smaller than the stride \(1, 1\)",
        ),
        ({"output_padding": (0, 2), "stride": (3, 2)}, ".*must be smaller than the stride"),
        ({"output_padding": 2, "dilation": 2}, r".*or the dilation \(2, 2\)"),
    ],
)
def test_options_out_of_range_of_a_transposed_convolution_are_explained(options, message):
    with pytest.raises(ValueError, match="^conv_transpose2d: " + message):
        F.conv_transpose2d(np.zeros((1, 1, 5, 5)), np.zeros((1, 1, 3, 3)), **options)


@pytest.mark.parametrize("name", ["conv1d", "conv3d", "conv_transpose1d", "conv_transpose3d"])
def test_errors_name_the_operation_of_that_dimension(name):
    dims = int(name[-2])
    shape = {1: r"\(N, C, W\)", 3: r"\(N, C, D, H, W\)"}[dims]
    axes = {1: "width", 3: "depth, height, width"}[dims]
    op, size = getattr(F, name), (4,) * dims
    with pytest.raises(mt.ShapeError, match=f"^{name}: needs images of shape {shape}"):
        op(np.zeros((4,)), np.zeros((1, 1, *size)))
    with pytest.raises(mt.ShapeError, match=f"^{name}: the weight needs shape .*groups, {axes}"):
        op(np.zeros((1, 1, *size)), np.zeros((1, 1)))
    with pytest.raises(ValueError, match=f"^{name}: stride must be .*not -1"):
        op(np.zeros((1, 1, *size)), np.zeros((1, 1, *size)), stride=-1)
