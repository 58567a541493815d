# %% [markdown]
# # Exercises 05: convolution
#
# From the size of the output to a whole layer in one matrix product. The letters are those of
# [lesson 05](../notebooks/05_convolution.ipynb): images `x` (N, C, H, W), kernels `w` (O, C, R, S),
# output `y` (N, O, P, Q). What is called convolution here does not flip the kernel.
#
# Run a cell, then its check. `hint("05.output_size")` gives one hint at a time, and after a try
# `solution("05.output_size")` shows a way to do it.

# %%
import numpy as np
from numpy.lib.stride_tricks import as_strided

from minitorch_attn.course import check

# %% [markdown]
# ## 1. The size of the output
#
# At how many places does a kernel fit along one axis? The axis has `size` pixels, and `padding` zeros are
# added at **both** ends. The kernel has `kernel` taps that lie `dilation` pixels apart, and moves by
# `stride` pixels. You may assume that it fits at least once.


# %% exercise="output_size"
def output_size(size, kernel, stride=1, padding=0, dilation=1):
    """How many places there are along one axis.

    >>> output_size(28, 3)
    26
    >>> output_size(28, 3, stride=2, padding=1)
    14
    """
    ### BEGIN SOLUTION
    reach = dilation * (kernel - 1) + 1
    return (size + 2 * padding - reach) // stride + 1
    ### END SOLUTION


# %% check="output_size" points=1
check("05.output_size", output_size)

# %% [markdown]
# ## 2. In loops
#
# The equation, number by number, without padding:
#
# $$y_{nopq} = \sum_{c,r,s} w_{ocrs}\, x_{n,\,c,\,pa+r,\,qa+s}$$
#
# with stride $a$. Loops are welcome here, it need not be fast. (`np.ndindex(2, 3)` runs through the
# indices of a 2 x 3 table.)


# %% exercise="conv2d_loops"
def conv2d_loops(x, w, stride=1):
    """Convolution: x (N, C, H, W), w (O, C, R, S) -> y (N, O, P, Q).

    >>> x = np.arange(9.0).reshape(1, 1, 3, 3)
    >>> conv2d_loops(x, np.array([[[[1.0, 0.0], [0.0, 10.0]]]]))
    array([[[[40., 51.],
             [73., 84.]]]])
    """
    ### BEGIN SOLUTION
    N, C, H, W = x.shape
    O, _, R, S = w.shape
    P, Q = (H - R) // stride + 1, (W - S) // stride + 1
    y = np.zeros((N, O, P, Q))
    for n, o, p, q in np.ndindex(N, O, P, Q):
        for c, r, s in np.ndindex(C, R, S):
            y[n, o, p, q] += w[o, c, r, s] * x[n, c, p * stride + r, q * stride + s]
    return y
    ### END SOLUTION


# %% check="conv2d_loops" points=3
check("05.conv2d_loops", conv2d_loops)

# %% [markdown]
# ## 3. Windows, without copying
#
# All windows of images that are padded already, as a **view**: the result has the axes
# (N, C, R, S, P, Q), its element `[n, c, r, s, p, q]` is `x[n, c, p * stride + r * dilation,
# q * stride + s * dilation]`, and it lies in the memory of `x`.
#
# `as_strided(x, shape, strides)` makes such a view. `strides` says for each axis how many *bytes* lie
# between neighbours; `x.strides` are those of `x`. Take them from there: the images may be a part of a
# larger array. In the check they are, and the rest of that array is -99: where you meet that number, a step
# was wrong.


# %% exercise="windows"
def windows(x, R, S, stride=1, dilation=1):
    """All windows of images, as a view: x (N, C, H, W) -> (N, C, R, S, P, Q).

    >>> windows(np.arange(6.0).reshape(1, 1, 2, 3), 2, 2)[0, 0, :, :, 0, 1]
    array([[1., 2.],
           [4., 5.]])
    """
    ### BEGIN SOLUTION
    N, C, H, W = x.shape
    P = (H - dilation * (R - 1) - 1) // stride + 1
    Q = (W - dilation * (S - 1) - 1) // stride + 1
    n, c, h, w = x.strides
    steps = (n, c, h * dilation, w * dilation, h * stride, w * stride)
    return as_strided(x, (N, C, R, S, P, Q), steps, writeable=False)
    ### END SOLUTION


# %% check="windows" points=3
check("05.windows", windows)

# %% [markdown]
# ## 4. Columns
#
# The windows written out as one matrix for each image, one column for each place: (N, C R S, P Q). The rows
# are in the order of $c$, then $r$, then $s$; the columns in the order of $p$, then $q$. Before that, put
# `padding` zeros around the images, on all four sides. Your `windows` may help (until you have it,
# `np.lib.stride_tricks.sliding_window_view` does).


# %% exercise="columns"
def columns(x, R, S, stride=1, padding=0, dilation=1):
    """The windows of images as columns: x (N, C, H, W) -> (N, C*R*S, P*Q).

    >>> columns(np.arange(6.0).reshape(1, 1, 2, 3), 2, 2)[0]
    array([[0., 1.],
           [1., 2.],
           [3., 4.],
           [4., 5.]])
    """
    ### BEGIN SOLUTION
    x = np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    N, C = x.shape[:2]
    return windows(x, R, S, stride, dilation).reshape(N, C * R * S, -1)
    ### END SOLUTION


# %% check="columns" points=3
check("05.columns", columns)

# %% [markdown]
# ## 5. A layer in one matrix product
#
# Kernels as rows, windows as columns, and a bias for each output channel:
#
# $$y_{(O,\;PQ)} = w_{(O,\;CRS)} \;\text{columns}_{(CRS,\;PQ)} + b$$
#
# With `groups=G`, the first $C/G$ channels are seen by the first $O/G$ kernels only, the next by the next,
# and so on: then it is $G$ smaller products, which `@` does at once if $G$ is an axis in front. Here $w$ has
# the shape (O, C/G, R, S). Start with one group; most cases have no more.


# %% exercise="conv2d"
def conv2d(x, w, b, stride=1, padding=0, dilation=1, groups=1):
    """Convolution: x (N, C, H, W), w (O, C/G, R, S), b (O,) -> y (N, O, P, Q).

    >>> x = np.arange(9.0).reshape(1, 1, 3, 3)
    >>> conv2d(x, np.array([[[[1.0, 0.0], [0.0, 10.0]]]]), np.array([0.5]))
    array([[[[40.5, 51.5],
             [73.5, 84.5]]]])
    """
    ### BEGIN SOLUTION
    N, _, H, W = x.shape
    O, each, R, S = w.shape
    seen = columns(x, R, S, stride, padding, dilation).reshape(N, groups, each * R * S, -1)
    y = w.reshape(groups, O // groups, each * R * S) @ seen
    Q = output_size(W, S, stride, padding, dilation)
    return y.reshape(N, O, -1, Q) + b[:, None, None]
    ### END SOLUTION


# %% check="conv2d" points=4
check("05.conv2d", conv2d)

# %% [markdown]
# ## 6. How far a pixel sees
#
# The width of the receptive field of a stack. Each layer is a triple (kernel, stride, dilation), the one
# next to the image first. A layer with kernel $R$, stride $a$ and dilation $d$ takes width and jump from
# $r, j$ to
#
# $$r + (R - 1)\,d\,j \qquad\text{and}\qquad a\,j$$
#
# and the image itself has $r = j = 1$.


# %% exercise="receptive_field"
def receptive_field(layers):
    """Width in pixels of what one output pixel depends on, for layers (kernel, stride, dilation).

    >>> receptive_field([(3, 1, 1), (3, 1, 1)])
    5
    >>> receptive_field([(3, 2, 1), (3, 1, 2)])
    11
    """
    ### BEGIN SOLUTION
    width, jump = 1, 1
    for kernel, stride, dilation in layers:
        width += (kernel - 1) * dilation * jump
        jump *= stride
    return width
    ### END SOLUTION


# %% check="receptive_field" points=2
check("05.receptive_field", receptive_field)
