# %% [markdown]
# # Exercises 06: convolution, backward
#
# From single gradients to a convolution with all its rules, and to the layer that runs backward.
# The letters are those of [lesson 06](../notebooks/06_convolution_backward.ipynb): images `x` (N,
# C, H, W), kernels `w` (O, C, R, S), biases `b` (O,), output `y` (N, O, P, Q) and its gradient
# `dy`.
#
# Run a cell, then its check. `hint("06.col2im")` gives one hint at a time, and after a try
# `solution("06.col2im")` shows a way to do it.

# %%
import numpy as np

from minitorch_attn.course import check

# %% [markdown]
# Two functions of lesson 05 are given, the view of all windows and the convolution itself:
#
# $$y_{nopq} = b_o + \sum_{c,r,s} w_{ocrs} \; x_{n,\, c,\, pa + r,\, qa + s}$$


# %%
def windows(x, kernel, stride=1):
    """All windows of images, as a view: (N, C, H, W), (R, S) -> (N, C, R, S, P, Q)."""
    view = np.lib.stride_tricks.sliding_window_view(x, kernel, axis=(2, 3))  # (N, C, P, Q, R, S)
    return view[:, :, ::stride, ::stride].transpose(0, 1, 4, 5, 2, 3)


def conv2d(x, w, b=0.0, stride=1):
    """x (N, C, H, W), w (O, C, R, S), b (O,) -> y (N, O, P, Q)."""
    y = np.einsum("ocrs,ncrspq->nopq", w, windows(x, w.shape[2:], stride))
    return y + np.reshape(b, (-1, 1, 1))


# %% [markdown]
# ## 1. The weights and the bias
#
# $$dw_{ocrs} = \sum_{n,p,q} dy_{nopq} \; x_{n,\, c,\, pa + r,\, qa + s} \qquad
# db_o = \sum_{n,p,q} dy_{nopq}$$
#
# Fill in the two rules. An image `[[1, 2], [3, 4]]` and a kernel of one weight, with `dy` all ones,
# give `dw = 10` and `db = 4`. The rule of `x` comes later; until then `None` stands in its place:
# `return y, (None, vjp_w, vjp_b)`.


# %% exercise="weight_and_bias"
def weight_and_bias(x, w, b, *, stride=1):
    """The convolution x, w, b -> y (N, O, P, Q), and the rules of w and b (None for x)."""
    y = conv2d(x, w, b, stride)
    seen = windows(x, w.shape[2:], stride)  # (N, C, R, S, P, Q)

    ### BEGIN SOLUTION
    def vjp_w(dy):
        return np.einsum("nopq,ncrspq->ocrs", dy, seen)

    def vjp_b(dy):
        return dy.sum(axis=(0, 2, 3))

    return y, (None, vjp_w, vjp_b)
    ### END SOLUTION


# %% check="weight_and_bias" points=2
check("06.weight_and_bias", weight_and_bias)

# %% [markdown]
# ## 2. Windows back into the image
#
# The adjoint of `windows`, known as *col2im* or *fold*: each value goes to the pixel where its
# window had it, and a pixel that several windows hold gets the sum.
#
# $$x_{n,\, c,\, pa + r,\, qa + s} \mathrel{+}= v_{ncrspq} \qquad \text{for all } r, s, p, q$$
#
# For one row, windows of 2 at 2 places with stride 1: values `[[1, 2], [3, 4]]` (taps in rows,
# places in columns) become `[1, 2 + 3, 4]`.


# %% exercise="col2im"
def col2im(values, shape, stride=1):
    """Values of windows (N, C, R, S, P, Q), added up in images of a shape (N, C, H, W)."""
    ### BEGIN SOLUTION
    R, S, P, Q = values.shape[2:]
    x = np.zeros(shape)
    for r, s in np.ndindex(R, S):
        rows = slice(r, r + (P - 1) * stride + 1, stride)
        columns = slice(s, s + (Q - 1) * stride + 1, stride)
        x[:, :, rows, columns] += values[:, :, r, s]
    return x
    ### END SOLUTION


# %% check="col2im" points=3
check("06.col2im", col2im)

# %% [markdown]
# ## 3. The image's gradient, by gathering
#
# With stride 1 the gradient of the image is itself a convolution: of `dy` with a border of zeros,
# by the kernels flipped in both directions and with their channels swapped,
#
# $$dx_{ncij} = \sum_{o,r,s} w_{o,\, c,\, R-1-r,\, S-1-s} \; dy_{n,\, o,\, i + r - (R-1),\,
# j + s - (S-1)}$$
#
# If the forward padded its image with `padding` zeros on each side, the gradient loses that border
# again: crop it at the end. You may call `conv2d` from above. For one row: `dy = [1, 10]` and the
# kernel `[1, 2, 3]` give `[1, 12, 23, 30]`.


# %% exercise="input_by_gathering"
def input_by_gathering(dy, w, padding=0):
    """dy (N, O, P, Q), w (O, C, R, S) -> dx (N, C, H, W), for a convolution with stride 1."""
    ### BEGIN SOLUTION
    R, S = w.shape[2:]
    around = np.pad(dy, ((0, 0), (0, 0), (R - 1, R - 1), (S - 1, S - 1)))
    dx = conv2d(around, w[:, :, ::-1, ::-1].swapaxes(0, 1))
    H, W = dx.shape[2:]
    return dx[:, :, padding : H - padding, padding : W - padding]
    ### END SOLUTION


# %% check="input_by_gathering" points=3
check("06.input_by_gathering", input_by_gathering)

# %% [markdown]
# ## 4. The adjoint test
#
# `B` is the adjoint of a linear `A` if $\langle A x, v \rangle = \langle x, B v \rangle$ for all
# $x$ and $v$, where $\langle u, v \rangle$ is the sum of all products $u_i v_i$. Return the
# plain difference of the two sides, one number with its sign. For `A` that doubles and `B` that
# triples, `x = [1, 2]` and `v = [3, 4]` it is 22 - 33 = -11.


# %% exercise="adjoint_gap"
def adjoint_gap(A, B, x, v):
    """<A(x), v> - <x, B(v)>; x and what B returns have one shape, v and what A returns another."""
    ### BEGIN SOLUTION
    return (A(x) * v).sum() - (x * B(v)).sum()
    ### END SOLUTION


# %% check="adjoint_gap" points=1
check("06.adjoint_gap", adjoint_gap)

# %% [markdown]
# ## 5. A convolution with groups, and all its rules
#
# Now everything in one function: stride, padding (zeros on each side) and groups. With `groups=G`,
# the first $C/G$ channels of `x` and the first $O/G$ kernels belong together, then the next, and so
# on; `w` has shape (O, C / G, R, S). Whether `vjp_x` scatters or gathers is up to you.
#
# (A reshape to (N, G, C / G, ...) cuts channels into groups.)


# %% exercise="grouped_conv2d"
def grouped_conv2d(x, w, b, *, stride=1, padding=0, groups=1):
    """x (N, C, H, W), w (O, C / G, R, S), b (O,) -> y (N, O, P, Q), and a rule for each."""
    ### BEGIN SOLUTION
    margin = (padding, padding)
    padded = np.pad(x, ((0, 0), (0, 0), margin, margin))
    seen = windows(padded, w.shape[2:], stride)
    (N, C, R, S, P, Q), (O, each), G = seen.shape, w.shape[:2], groups
    seen = seen.reshape(N, G, each, R, S, P, Q)
    kernels = w.reshape(G, O // G, each, R, S)
    y = np.einsum("gocrs,ngcrspq->ngopq", kernels, seen).reshape(N, O, P, Q)

    def vjp_x(dy):
        dy = dy.reshape(N, G, O // G, P, Q)
        dseen = np.einsum("gocrs,ngopq->ngcrspq", kernels, dy).reshape(N, C, R, S, P, Q)
        dpadded = np.zeros(padded.shape)
        for r, s in np.ndindex(R, S):
            rows = slice(r, r + (P - 1) * stride + 1, stride)
            columns = slice(s, s + (Q - 1) * stride + 1, stride)
            dpadded[:, :, rows, columns] += dseen[:, :, r, s]
        H, W = x.shape[2:]
        return dpadded[:, :, padding : padding + H, padding : padding + W]

    def vjp_w(dy):
        dy = dy.reshape(N, G, O // G, P, Q)
        return np.einsum("ngopq,ngcrspq->gocrs", dy, seen).reshape(w.shape)

    def vjp_b(dy):
        return dy.sum(axis=(0, 2, 3))

    return y + b[:, None, None], (vjp_x, vjp_w, vjp_b)
    ### END SOLUTION


# %% check="grouped_conv2d" points=4
check("06.grouped_conv2d", grouped_conv2d)

# %% [markdown]
# ## 6. Transposed convolution
#
# Every number of `x` stamps a kernel onto a larger image, $a$ rows or columns from the next, and
# stamps that overlap add up:
#
# $$y_{n,\, o,\, ia + r,\, ja + s} \mathrel{+}= \sum_c w_{cors} \; x_{ncij}
# \qquad \text{for all } i, j, r, s$$
#
# Then `padding` rows and columns are cropped at each side. Of the end, `output_padding` rows and
# columns more are kept; where no stamp reaches as far, they are zeros. Last, the bias is added to
# all. The size is
#
# $$P = (H - 1)\,a + R - 2 \cdot \text{padding} + \text{output padding}$$
#
# The weight has shape (C, O, R, S): the channels of the *input* come first. With stride 2 and a
# kernel of `[1, 2, 3]`, the row `[1, 10]` becomes `[1, 2, 3 + 10, 20, 30]`; with `padding=1` it is
# `[2, 13, 20]`, and with `output_padding=1` on top `[2, 13, 20, 30]`.
#
# The rules are those of a convolution in new places: see *Backward as a layer* in the lesson.


# %% exercise="conv_transpose2d"
def conv_transpose2d(x, w, b, *, stride=1, padding=0, output_padding=0):
    """x (N, C, H, W), w (C, O, R, S), b (O,) -> y (N, O, P, Q), and a rule for each."""
    ### BEGIN SOLUTION
    (N, _, H, W), (_, O, R, S) = x.shape, w.shape
    rows = (H - 1) * stride + R + output_padding
    columns = (W - 1) * stride + S + output_padding
    whole = (N, O, rows, columns)
    kept = (..., slice(padding, rows - padding), slice(padding, columns - padding))

    y = np.zeros(whole)
    for i, j in np.ndindex(H, W):
        stamp = np.einsum("nc,cors->nors", x[:, :, i, j], w)
        y[:, :, i * stride : i * stride + R, j * stride : j * stride + S] += stamp

    def seen(dy):
        dwhole = np.zeros(whole)
        dwhole[kept] = dy
        return windows(dwhole, (R, S), stride)  # (N, O, R, S, H, W)

    def vjp_x(dy):
        return np.einsum("cors,norsij->ncij", w, seen(dy))

    def vjp_w(dy):
        return np.einsum("ncij,norsij->cors", x, seen(dy))

    def vjp_b(dy):
        return dy.sum(axis=(0, 2, 3))

    return y[kept] + b[:, None, None], (vjp_x, vjp_w, vjp_b)
    ### END SOLUTION


# %% check="conv_transpose2d" points=4
check("06.conv_transpose2d", conv_transpose2d)
