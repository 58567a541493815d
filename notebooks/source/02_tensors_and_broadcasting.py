# %% [markdown]
# # 02 · Tensors and broadcasting
#
# An array is a block of memory and a way of reading it; broadcasting reads the same number in several places, and the gradient of a number that is read in several places is a sum.
#
# **You will be able to**
#
# - say of any two shapes whether they broadcast, to what, and over which axes the gradient is then summed;
# - derive with indices the rules of sums, maxima, matrix products, transposes and indexing, and test each in one line;
# - standardise images, fit a classifier to them without a loop over images, and say what standardising bought.
#
# **You need** lesson [01](01_computational_graphs.ipynb). **Time** about 45 minutes.

# %%
import itertools

import numpy as np

import minitorch_attn as mt
import minitorch_attn.functional as F
from minitorch_attn import viz
from minitorch_attn.data import digits

mt.set_default_dtype("float64")
rng = np.random.default_rng(0)

# %% [markdown]
# ## The idea in one picture
#
# A batch of images is one array with four axes, and in this course they always stand in this order: **N** images, **C** channels (1 for grey, 3 for colour), **H** rows, **W** columns. Here are four handwritten digits, and the mean $m$ of all the training images.

# %%
images, labels = digits()[:]  # (N, C, H, W)
images = images.astype(np.float64)
x = images[[0, 1, 2, 3]]
m = images.mean(axis=0)  # over N: (C, H, W)
print("images", images.shape, "  x", x.shape, "  m", m.shape)

y = x - m  # (4, 1, 8, 8) - (1, 8, 8)

with viz.use_style():
    figure, axes = viz.panels(3, 4, width=6.4, height=5.0)
    copies = np.broadcast_to(m, x.shape)
    rows = [("$x_{%d}$", x, "gray"), ("$m$", copies, "gray"), ("$y_{%d}$", y, "RdBu_r")]
    for (name, row, colours), line in zip(rows, axes):
        for n, ax in enumerate(line):
            copied = name == "$m$" and n > 0
            low = -1 if colours == "RdBu_r" else 0
            ax.imshow(row[n, 0], cmap=colours, vmin=low, vmax=1, alpha=0.35 if copied else 1)
            ax.set(xticks=[], yticks=[])
            ax.set_title("copy" if copied else name % n if "%" in name else name)
    for line, sign in zip(axes[1:], ("−", "=")):
        line[0].set_ylabel(sign, rotation=0, size=22, labelpad=14, va="center")

assert np.array_equal(y, np.stack([one - m for one in x]))
figure

# %% [markdown]
# *Figure 1. `y = x - m` for four images and one mean. The mean is there once; it is read four times, once for each image. That is broadcasting: no copy is made, and no loop is written. (In $y$, red is more ink than the mean has, blue is less.)*
#
# Now backwards. Each of the four places where $m$ is read is a path from $m$ to the loss, and lesson 01 says what a gradient is: the **sum over paths**. With the loss $L = \tfrac12 \sum y^2$ the gradient of $y$ is $dy = y$, and each reading of $m$ sends back $-dy$.

# %%
mean_image = mt.tensor(m, requires_grad=True)
difference = x - mean_image
((difference * difference).sum() / 2).backward()

dy = y
dm = mean_image.grad.data
assert dm.shape == m.shape and np.allclose(dm, -(dy[0] + dy[1] + dy[2] + dy[3]))

viz.show_feature_maps(
    np.stack([*-dy[:, 0], dm[0]]), [*(f"$-$dy$_{n}$" for n in range(4)), "dm, their sum"], columns=5
)

# %% [markdown]
# *Figure 2. What each reading of the mean image sends back, and their sum, which is what the library gives as the gradient of `m`. It has the shape of `m`, one image, and not that of the batch.*
#
# Copying forward, adding up backward: that pair is most of this lesson. The other pairs (a sum and its broadcast, a transpose and its inverse, taking rows and putting them back) work in the same way.

# %% [markdown]
# ## The equations
#
# ### An array is memory and a way of reading it
#
# The numbers of an array lie in memory one after the other. The **shape** says how many there are along each axis, and the **strides** say how far to go in memory for one step along each axis. For the batch $x$ with strides $s_N, s_C, s_H, s_W$, the element $x_{nchw}$ lies at the place
#
# $$\text{place}(n, c, h, w) = \text{start} + n\,s_N + c\,s_C + h\,s_H + w\,s_W$$
#
# In a fresh array the last axis lies densely: $s_W = 1$, $s_H = W$, $s_C = HW$, $s_N = CHW$. (NumPy counts strides in bytes; we divide by the size of an element.)


# %%
def strides(array):
    """Strides in elements."""
    return tuple(step // array.itemsize for step in array.strides)


print("x: shape", x.shape, " strides", strides(x))
assert strides(x) == (64, 64, 8, 1)

# %% [markdown]
# Another shape with other strides reads the same memory in another way. That is a **view**: it costs nothing, and what is written through one view is seen in all. In the picture the memory holds its own place numbers, so each table shows from where it reads.

# %%
memory = np.arange(12)
a = memory.reshape(3, 4)
views = {
    "memory": memory,
    "a = memory.reshape(3, 4)": a,
    "a.T": a.T,
    "a[:, ::2]": a[:, ::2],
    "a[::-1]": a[::-1],
    "broadcast_to(a[0], (3, 4))": np.broadcast_to(a[0], (3, 4)),
}
assert all(np.shares_memory(view, memory) for view in views.values())
assert strides(views["a.T"]) == (1, 4)
assert strides(views["broadcast_to(a[0], (3, 4))"]) == (0, 1)


def draw_table(ax, table, title, largest, copied=None):
    """Draw numbers in shades of blue that go up to `largest`; copies are white, in grey."""
    table = np.atleast_2d(table)
    pale = np.zeros(table.shape, bool) if copied is None else copied
    rows, columns = table.shape
    ax.imshow(np.where(pale, np.nan, table), cmap="Blues", vmin=0, vmax=2 * largest)
    ax.hlines(np.arange(rows + 1) - 0.5, -0.5, columns - 0.5, color="0.6", linewidth=0.8)
    ax.vlines(np.arange(columns + 1) - 0.5, -0.5, rows - 0.5, color="0.6", linewidth=0.8)
    for (i, j), number in np.ndenumerate(table):
        ink = "0.6" if pale[i, j] else "black"
        ax.text(j, i, f"{number:g}", ha="center", va="center", size=9, color=ink)
    ax.set_title(title, size=10)
    ax.axis("off")


with viz.use_style():
    figure, axes = viz.panels(2, 3, width=8.0, height=4.0)
    for ax, (name, view) in zip(axes.flat, views.items()):
        title = f"{name}\nshape {view.shape}, strides {strides(view)}"
        draw_table(ax, view, title, largest=memory.max())
figure

# %% [markdown]
# *Figure 3. One block of memory and five ways of reading it; the shade follows the place in memory, in all six alike. A transpose exchanges the strides. A slice with a step takes a larger stride, a reversed axis a negative one. And an axis with stride **0** reads the same number again and again: that is how broadcasting copies without copying.*
#
# Not everything can be a view. Rows chosen by a list of numbers, `a[[2, 0, 0]]`, have no constant stride, so they are a **copy**; so is a reshape whose order no strides can give.

# %%
answers = {
    "a.T": a.T,
    "a[:, ::2]": a[:, ::2],
    "a[[2, 0, 0]]": a[[2, 0, 0]],
    "a.T.reshape(12)": a.T.reshape(12),
}
for name, array in answers.items():
    print(f"{name:16} {'a view' if np.shares_memory(array, a) else 'a copy'}")
assert [np.shares_memory(array, a) for array in answers.values()] == [True, True, False, False]

# %% [markdown]
# ### Broadcasting
#
# Two arrays of different shapes are brought to one shape by three rules:
#
# 1. Line the shapes up at their **last** axis. The shorter one gets ones in front.
# 2. Axis by axis, the two sizes must be equal, or one of them must be 1. Otherwise it is an error.
# 3. An axis of size 1 is stretched to the size of the other: it is read with stride 0.
#
# | shapes | common shape | what for |
# |---|---|---|
# | $(N, D)$ and $(D)$ | $(N, D)$ | one number for each feature: a bias |
# | $(N, C, H, W)$ and $(C, 1, 1)$ | $(N, C, H, W)$ | one number for each channel |
# | $(N, 1, D)$ and $(1, M, D)$ | $(N, M, D)$ | every one of $N$ with every one of $M$ |
# | $(N, D)$ and $(N)$ | error unless $D = N$ or one is 1 | wanted was $(N, 1)$: the ones come in front, never behind |
#
# An operation on two arrays, such as $y = a + b$, is then two steps: stretch each operand, then add element by element. Lesson 01 knows the rule of the second step. What is missing is the rule of the first.

# %% [markdown]
# ### Backward: the sum over the copies
#
# Let $x$ of shape $(J)$ be stretched to $y$ of shape $(I, J)$ by adding an axis in front: $y_{ij} = x_j$. We want `dx`, given `dy`. We write $\delta_{jk}$ for the number that is 1 if $j = k$ and 0 otherwise; a sum over $j$ with $\delta_{jk}$ in it keeps the one term with $j = k$.
#
# $$\begin{aligned}
# dx_k &= \sum_{i,j} dy_{ij}\,\frac{\partial y_{ij}}{\partial x_k} && \text{equation (reverse) of lesson 01: one edge from } x_k \text{ to each } y_{ij} \\
# &= \sum_{i,j} dy_{ij}\,\delta_{jk} && y_{ij} = x_j \text{ changes with } x_k \text{ only if } j = k \\
# &= \sum_i dy_{ik} && \delta_{jk} \text{ keeps one term of the sum over } j
# \end{aligned}$$
#
# The axis that was added, $i$, is summed over. For a stretched axis of size 1, $(1, J) \to (I, J)$, the steps are the same, and the sum keeps its axis with size 1. Hence the whole rule:
#
# $$\boxed{\;\text{undo a broadcast: sum over the axes that were added, and over those that were 1}\;}$$
#
# In code this is the function `sum_to_shape`. For $y = a\,b$ with broadcasting, `da = sum_to_shape(dy * b, a.shape)`: first the rule of the product, in the common shape, then back to the shape of $a$.

# %%
column, row = np.array([[0.0], [10.0], [20.0]]), np.array([[1.0, 2.0, 3.0, 4.0]])
common = column + row
dy = np.array([[1.0, 0, 2, 1], [0, 3, 0, 0], [1, 1, 2, 2]])
d_column, d_row = dy.sum(axis=1, keepdims=True), dy.sum(axis=0, keepdims=True)

copied_columns, copied_rows = np.ones((2, 3, 4), bool)
copied_columns[:, 0], copied_rows[0] = False, False
with viz.use_style():
    figure, axes = viz.panels(2, 3, width=8.0, height=3.6)
    stretched = np.broadcast_to(column, (3, 4)), np.broadcast_to(row, (3, 4))
    top, bottom = common.max(), max(d_column.max(), d_row.max())
    draw_table(axes[0, 0], stretched[0], "a (3, 1), stretched", top, copied=copied_columns)
    draw_table(axes[0, 1], stretched[1], "b (1, 4), stretched", top, copied=copied_rows)
    draw_table(axes[0, 2], common, "y = a + b (3, 4)", top)
    draw_table(axes[1, 0], d_column, "da (3, 1): sums of the rows", bottom)
    draw_table(axes[1, 1], d_row, "db (1, 4): sums of the columns", bottom)
    draw_table(axes[1, 2], dy, "dy (3, 4)", bottom)

ta, tb = mt.tensor(column, requires_grad=True), mt.tensor(row, requires_grad=True)
(ta + tb).backward(dy)
assert np.array_equal(ta.grad.data, d_column) and np.array_equal(tb.grad.data, d_row)
figure

# %% [markdown]
# *Figure 4. Above, from left to right: two operands and their sum; grey numbers are copies. Below, from right to left: a gradient of the sum, and what comes back. Along the axis where an operand was copied, its gradient is added up.*

# %% [markdown]
# ### Reductions, the mirror
#
# A **sum** over an axis, $y_i = \sum_j x_{ij}$, goes the other way, and so does its rule:
#
# $$dx_{kl} = \sum_i dy_i\,\frac{\partial y_i}{\partial x_{kl}} = \sum_i dy_i\,\delta_{ik} = dy_k$$
#
# (the second step: $x_{kl}$ is a term of $y_i$ only if $i = k$, with the factor 1). The right side does not depend on $l$: each $x_{kl}$ gets the `dy` of its own sum. **A broadcast is undone by a sum; the rule of a sum is a broadcast.**
#
# A **mean** of $n$ numbers is a sum divided by $n$, and its rule is that broadcast divided by $n$.
#
# A **maximum**, $y_i = \max_j x_{ij}$, equals its largest element. A small change of another element changes nothing. So the rule gives $dy_i$ to the place of the maximum, and 0 to the others. If two places are equal the derivative does not exist; we share `dy` evenly among them, as the library does.

# %% [markdown]
# ### Linear operations, and a test for their rules
#
# Stretching, summing, transposing, slicing are **linear**: each output is a sum of inputs with fixed factors, $y_i = \sum_j A_{ij} x_j$. Here $\partial y_i / \partial x_j = A_{ij}$, so that $dx_j = \sum_i dy_i A_{ij}$: the rule applies $A^\top$. The matrix $A$ itself is never written down (for a transpose of $1000 \times 1000$ pixels it would have $10^{12}$ entries). But one equation tells whether two functions belong together as $A$ and $A^\top$. With $\langle u, v \rangle = \sum_i u_i v_i$, the sum of all products of two arrays of one shape,
#
# $$\begin{aligned}
# \langle A x, v \rangle &= \sum_i \Big(\sum_j A_{ij} x_j\Big) v_i && \text{definition} \\
# &= \sum_j x_j \Big(\sum_i A_{ij} v_i\Big) && \text{finite sums may change places} \\
# &= \langle x, A^\top v \rangle
# \end{aligned}$$
#
# $A^\top$ is called the **adjoint** of $A$. To test a rule, draw $x$ and $v$ at random and compare the two numbers. It takes no small step $h$, and it is exact but for rounding.
#
# | operation $A$ | its rule, the adjoint $A^\top$ |
# |---|---|
# | stretch along an axis | sum over that axis |
# | sum over an axis | stretch along that axis |
# | reshape | reshape back |
# | permute the axes | permute them back |
# | take a slice | put it into zeros |
# | take rows, also repeatedly | add them to zeros, also repeatedly |
# | multiply by a fixed matrix from the right, $x B$ | $v B^\top$ |

# %% [markdown]
# ### Matrix products
#
# $y = a\,b$ with shapes $(N, M), (M, K) \to (N, K)$ means $y_{nk} = \sum_m a_{nm} b_{mk}$. One element $a_{nm}$ takes part in a whole row of $y$. To keep the letters apart we call the indices of $y$ in the sum $i$ and $j$, and the summed index $l$:
#
# $$\begin{aligned}
# da_{nm} &= \sum_{i,j} dy_{ij}\,\frac{\partial y_{ij}}{\partial a_{nm}} && \text{(reverse)} \\
# &= \sum_{i,j} dy_{ij} \sum_l \delta_{in}\,\delta_{lm}\, b_{lj} && a_{il} \text{ is } a_{nm} \text{ only if } i = n \text{ and } l = m \\
# &= \sum_j dy_{nj}\, b_{mj} && \text{each } \delta \text{ keeps one term} \\
# &= \sum_j dy_{nj}\, (b^\top)_{jm} && \text{definition of the transpose}
# \end{aligned}$$
#
# which is a matrix product again. By the same steps for $b$:
#
# $$\boxed{\;da = dy\;b^\top \qquad db = a^\top\,dy\;}$$
#
# The shapes help to remember it: $(N, K)\,(K, M)$ gives $(N, M)$, and no other order fits.
#
# With a **batch** in front, $y_{*nk} = \sum_m a_{*nm} b_{*mk}$, each pair of matrices has this rule, where "transpose" exchanges the last two axes only. (The star stands for the indices of the batch.) If the batch axes were broadcast, say one $b$ for a whole batch of matrices $a$, then $b$ was copied once for each of them, and its gradient is summed over the copies: $db_{mk} = \sum_* (a^\top dy)_{*mk}$. Again `sum_to_shape`.

# %% [markdown]
# ### Choosing elements
#
# Let $r_1, \dots, r_M$ be numbers of rows, and $y_m = x_{r_m}$ the rows that they choose. Then
#
# $$dx_i = \sum_m dy_m\,\delta_{i\,r_m} = \sum_{m\,:\,r_m = i} dy_m$$
#
# A row that was never chosen has no path and the gradient 0. A row chosen $k$ times has $k$ paths, and their gradients are added up. A slice is the case where every row is chosen at most once.

# %% [markdown]
# ### One notation for all of it
#
# Many of these formulas are of one kind: products of elements, summed over some indices. *Einstein's summation* writes only the indices, a letter for each axis, and the result's behind an arrow. Letters that are missing there are summed over.
#
# | | |
# |---|---|
# | `"nm,mk->nk"` | matrix product, $\sum_m a_{nm} b_{mk}$ |
# | `"bnm,bmk->bnk"` | a batch of them |
# | `"nd->d"` | sum over the images |
# | `"nd->dn"` | transpose |
# | `"i,j->ij"` | every product of two vectors |
# | `"nchw,nc->nchw"` | one factor for each channel of each image |
#
# Its gradient has the same form. In $y_{nk} = \sum_m a_{nm} b_{mk}$, the rule $da_{nm} = \sum_k dy_{nk} b_{mk}$ reads `"nk,mk->nm"`: **exchange the letters of the operand and of the result**, and put `dy` in the operand's place. The derivation is the one above with other letters. (It holds if each letter of the operand occurs elsewhere too. A letter that does not was summed over alone, and its axis has to be stretched again.)

# %% [markdown]
# ## The code
#
# ### Broadcasting, in loops and in one line
#
# First as the rules say it: for each index of the result, read each operand at the same index, or at 0 where its size is 1.


# %%
def read_index(index, shape):
    """Where an operand of a shape is read for an index of the broadcast result."""
    index = index[len(index) - len(shape) :]
    return tuple(0 if n == 1 else i for i, n in zip(index, shape))


def add_loops(a, b):
    """a + b with broadcasting, one element at a time."""
    y = np.zeros(np.broadcast_shapes(a.shape, b.shape))
    for index in np.ndindex(y.shape):
        y[index] = a[read_index(index, a.shape)] + b[read_index(index, b.shape)]
    return y


def sum_to_shape_loops(dy, shape):
    """Carry each element of dy back to where it was read."""
    dx = np.zeros(shape)
    for index in np.ndindex(dy.shape):
        dx[read_index(index, shape)] += dy[index]
    return dx


# %% [markdown]
# The two functions are mirror images: where one reads, the other adds. The fast form of the second is one call of `sum`:


# %%
def sum_to_shape(dy, shape):
    """Undo a broadcast: sum over the axes that were added, and over those that were 1."""
    added = dy.ndim - len(shape)
    stretched = [added + i for i, n in enumerate(shape) if n == 1]
    return dy.sum(axis=(*range(added), *stretched)).reshape(shape)


for shape in [(5,), (3, 1), (2, 1, 1), (1, 3, 5), (2, 3, 5), ()]:
    part, whole = rng.normal(size=shape), rng.normal(size=(2, 3, 5))
    assert np.allclose(add_loops(part, whole), part + whole)
    by_loops = sum_to_shape_loops(whole, shape)
    assert np.allclose(sum_to_shape(whole, shape), by_loops)
    assert np.allclose(mt.engine.sum_to_shape(whole, shape), by_loops)
    print(f"{whole.shape} summed to {shape}: loops, sum and the library agree")

# %% [markdown]
# ### Primitives with broadcasting
#
# In primitive form, as in lesson 01: the output, and a rule for each input.


# %%
def multiply(a, b):
    """a * b with broadcasting."""

    def vjp_a(dy):
        return sum_to_shape(dy * b, a.shape)

    def vjp_b(dy):
        return sum_to_shape(dy * a, b.shape)

    return a * b, (vjp_a, vjp_b)


def total(x, *, axis):
    """The sum over one axis or several; the axes stay, with size 1."""
    shape = x.shape

    def vjp_x(dy):
        return np.broadcast_to(dy, shape)

    return x.sum(axis=axis, keepdims=True), vjp_x


def largest(x, *, axis):
    """The maximum over one axis or several; equal maxima share the gradient."""
    y = x.max(axis=axis, keepdims=True)

    def vjp_x(dy):
        chosen = x == y
        return dy * chosen / chosen.sum(axis=axis, keepdims=True)

    return y, vjp_x


numbers = np.array([[3.0, 7.0, 1.0], [5.0, 2.0, 5.0]])
for operation in (total, largest):
    y, vjp_x = operation(numbers, axis=1)
    print(f"{operation.__name__:8} y = {y.ravel()}  dx = {vjp_x(np.ones((2, 1))).tolist()}")

# %% [markdown]
# The sum gives every element its `dy`. The maximum gives it to the 7 alone, and half each to the two fives.
#
# ### A matrix product
#
# First three loops, which say the formula; then NumPy's `@`, which does the same in blocks that fit the processor.


# %%
def matmul_loops(a, b):
    """The matrix product, (N, M), (M, K) -> (N, K)."""
    N, M, K = *a.shape, b.shape[1]
    y = np.zeros((N, K))
    for n, k, m in itertools.product(range(N), range(K), range(M)):
        y[n, k] += a[n, m] * b[m, k]
    return y


def matmul(a, b):
    """The matrix product in primitive form, (N, M), (M, K) -> (N, K)."""

    def vjp_a(dy):
        return dy @ b.T

    def vjp_b(dy):
        return a.T @ dy

    return a @ b, (vjp_a, vjp_b)


a, b = rng.normal(size=(4, 3)), rng.normal(size=(3, 5))
print("loops and @ agree:", np.allclose(matmul_loops(a, b), matmul(a, b)[0]))
assert np.allclose(matmul_loops(a, b), a @ b)

# %% [markdown]
# (Batches of matrices are an exercise.)
#
# ### Rearranging, and taking rows
#
# `rows` may hold a number several times. NumPy's `dx[rows] += dy` looks right and is not: it reads `dx[rows]` once, adds, and writes back, so that a row which is named several times gets one share only. `np.add.at` adds for every number, as a loop does.


# %%
def reshape(x, *, shape):
    """The same numbers in another shape."""
    before = x.shape

    def vjp_x(dy):
        return dy.reshape(before)

    return x.reshape(shape), vjp_x


def permute(x, *, axes):
    """The axes in another order: axis i of y is axis axes[i] of x."""
    back = np.argsort(axes)

    def vjp_x(dy):
        return dy.transpose(back)

    return x.transpose(axes), vjp_x


def cut(x, *, index):
    """x[index] for slices: no element is taken twice."""
    shape = x.shape

    def vjp_x(dy):
        dx = np.zeros(shape)
        dx[index] = dy
        return dx

    return x[index], vjp_x


def take(x, *, rows):
    """Rows of x by their numbers, also repeatedly."""
    shape = x.shape

    def vjp_x(dy):
        dx = np.zeros(shape)
        np.add.at(dx, rows, dy)
        return dx

    return x[rows], vjp_x


rows = np.array([2, 0, 2, 2])
y, vjp_x = take(np.zeros((4, 1)), rows=rows)
by_plus = np.zeros((4, 1))
by_plus[rows] += np.ones((4, 1))
print("np.add.at:      ", vjp_x(np.ones((4, 1))).ravel())
print("dx[rows] += dy: ", by_plus.ravel())
assert vjp_x(np.ones((4, 1))).ravel().tolist() == [1, 0, 3, 0]

# %% [markdown]
# ### The adjoint test
#
# One function tests every linear rule: $\langle A x, v \rangle$ against $\langle x, A^\top v \rangle$.


# %%
def are_adjoint(operation, shape_of_x, **settings):
    """Whether <A x, v> = <x, A^T v>, for a linear primitive A of one input and its rule."""
    x = rng.normal(size=shape_of_x)
    y, rule = operation(x, **settings)
    v = rng.normal(size=y.shape)
    return bool(np.isclose(np.sum(y * v), np.sum(x * rule(v))))


def stretch(x, *, shape):
    """Broadcast to a shape."""
    before = x.shape

    def vjp_x(dy):
        return sum_to_shape(dy, before)

    return np.broadcast_to(x, shape), vjp_x


fixed = rng.normal(size=(5, 2))


def times_fixed(x):
    y, (vjp_x, _) = matmul(x, fixed)
    return y, vjp_x


tests = {
    "stretch": are_adjoint(stretch, (3, 1), shape=(4, 3, 5)),
    "total": are_adjoint(total, (4, 3, 5), axis=(0, 2)),
    "reshape": are_adjoint(reshape, (4, 6), shape=(3, 8)),
    "permute": are_adjoint(permute, (2, 3, 4), axes=(2, 0, 1)),
    "cut": are_adjoint(cut, (6, 5), index=(slice(1, None, 2), slice(None, None, -1))),
    "take": are_adjoint(take, (4, 3), rows=rows),
    "times_fixed": are_adjoint(times_fixed, (4, 5)),
}
print(tests)
assert all(tests.values())

# %% [markdown]
# ### Einsum, with its rule
#
# For two operands the rule needs no new thought: exchange letters.


# %%
def contract(a, b, *, letters):
    """einsum of two operands whose letters all occur twice or more: contract(..., "nm,mk->nk")."""
    (in_a, in_b), out = letters.split("->")[0].split(","), letters.split("->")[1]

    def vjp_a(dy):
        return np.einsum(f"{out},{in_b}->{in_a}", dy, b)

    def vjp_b(dy):
        return np.einsum(f"{in_a},{out}->{in_b}", a, dy)

    return np.einsum(letters, a, b), (vjp_a, vjp_b)


dy = rng.normal(size=(4, 5))
a, b = rng.normal(size=(4, 3)), rng.normal(size=(3, 5))
for ours, theirs in zip(contract(a, b, letters="nm,mk->nk")[1], matmul(a, b)[1]):
    assert np.allclose(ours(dy), theirs(dy))

maps, gates = rng.normal(size=(2, 3, 4, 4)), rng.normal(size=(2, 3))
scaled, (_, vjp_gates) = contract(maps, gates, letters="nchw,nc->nchw")
assert np.allclose(scaled, maps * gates[:, :, None, None])
assert np.allclose(vjp_gates(scaled), (maps * scaled).sum(axis=(2, 3)))
print("matmul's rules and broadcasting's, from letters alone")

# %% [markdown]
# ### The library's Tensor
#
# Everything above is there as operations on `Tensor`, under PyTorch's names (`dim` for axis, `keepdim`). The sums over broadcast axes are done in one place, by the engine: the rule of a primitive may return a gradient in the common shape. A small program with a broadcast bias, a matrix product, a maximum, a permutation and repeated rows, once by our rules, once by the library:

# %%
X, W, bias = rng.normal(size=(6, 3)), rng.normal(size=(3, 4)), rng.normal(size=4)
chosen = np.array([5, 1, 1, 0])

product, (vjp_X, vjp_W) = matmul(X, W)  # (6, 4)
picked, vjp_product = take(product, rows=chosen)  # (4, 4)
biased, (vjp_picked, vjp_bias) = multiply(picked, bias)  # (4, 4), bias (4)
turned, vjp_biased = permute(biased, axes=(1, 0))
best, vjp_turned = largest(turned, axis=1)  # (4, 1)

dy = rng.normal(size=best.shape)
d_biased = vjp_biased(vjp_turned(dy))
d_product = vjp_product(vjp_picked(d_biased))
ours = vjp_X(d_product), vjp_W(d_product), vjp_bias(d_biased)

tX, tW, tb = (mt.tensor(array, requires_grad=True) for array in (X, W, bias))
t_best = F.amax(((tX @ tW)[chosen] * tb).permute(1, 0), dim=1, keepdim=True)
t_best.backward(dy)

assert np.allclose(best, t_best.data)
for name, gradient, tensor in zip(["X", "W", "bias"], ours, [tX, tW, tb]):
    print(f"gradient of {name:4} {gradient.shape}: equal {np.allclose(gradient, tensor.grad.data)}")
    assert np.allclose(gradient, tensor.grad.data)

# %% [markdown]
# A Tensor keeps three things: the array (`.data`), the gradient when there is one (`.grad`), and the node of the graph where it was made. Rules hold arrays until the walk back, so a number that changes behind the engine's back would give a wrong gradient without a word. Therefore `.data` is read-only, and writing goes through the tensor, which the engine sees:


# %%
def complaint(action):
    """The error that an action raises."""
    try:
        action()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    raise AssertionError("no error came")


w = mt.tensor([1.0, 2.0, 3.0], requires_grad=True)


def write_into_data():
    w.data[0] = 5.0


def write_into_a_leaf():
    w[0] = 5.0


def write_into_what_a_rule_holds():
    h = w * 2
    loss = (h * h).sum()  # the rule of the product holds h
    with mt.no_grad():
        h += 1
    loss.backward()


for action in (write_into_data, write_into_a_leaf, write_into_what_a_rule_holds):
    print(complaint(action), end="\n\n")

with mt.no_grad():  # where nothing is recorded, writing is fine: this is how weights are updated
    w -= 0.5
assert w.tolist() == [0.5, 1.5, 2.5]
print(w)

# %% [markdown]
# And views stay views: a Tensor made by a reshape or a slice shares memory with the one it came from, and the engine knows that as well.

# %%
whole = mt.tensor(np.arange(6.0), requires_grad=False)
table = whole.reshape(2, 3)
table[0] = -1.0
print(whole.tolist())
assert np.shares_memory(whole.data, table.data) and whole.tolist() == [-1, -1, -1, 3, 4, 5]

# %% [markdown]
# ### float32 stays float32
#
# A `float32` takes 4 bytes and holds about 7 digits, a `float64` takes 8 and holds about 16. Networks are trained in `float32` or less: half the memory, and less time. One careless operand can undo that, since NumPy's rule is that the larger type wins between arrays. A plain Python number is weak: it takes the type of the array.

# %%
single, double = np.ones(3, dtype=np.float32), np.ones(3)
print(
    "NumPy:   array * 2.0 ->", (single * 2.0).dtype, "  array * array ->", (single * double).dtype
)

t = mt.tensor(single, requires_grad=True)
result = F.mean((t * 2.0 + np.float64(1)) / 3)
result.backward()
print("Tensor: ", result.dtype, "  its gradient", t.grad.dtype)
assert result.dtype == t.grad.dtype == np.float32
assert (t * mt.tensor(double)).dtype == np.float64

# %% [markdown]
# The library also treats NumPy's single numbers (`np.float64(1)`) as weak, and a gradient always has the type of its input. Python floats become `float32` by default; the lessons choose `float64` at their top: computers may differ in the last digits of a sum, and there those are far behind the ones that we print.

# %% [markdown]
# ## The gradient check
#
# The adjoint test needs a linear operation. For all others there are the central differences of lesson 01.


# %%
def measured(f, x, h=1e-6):
    """The derivatives of a number f(x) by each element of an array x, by central differences."""
    dx = np.zeros_like(x)
    for i in np.ndindex(x.shape):
        step = np.zeros_like(x)
        step[i] = h
        dx[i] = (f(x + step) - f(x - step)) / (2 * h)
    return dx


def by_rule_and_measured(operation, *arrays, **settings):
    """For each input the gradient by its rule and the measured one, for a random dy."""
    y, rules = operation(*arrays, **settings)
    dy = rng.normal(size=y.shape)
    pairs = []
    for i, rule in enumerate(rules if isinstance(rules, tuple) else (rules,)):

        def f(x, i=i):
            return np.sum(dy * operation(*arrays[:i], x, *arrays[i + 1 :], **settings)[0])

        pairs.append((rule(dy), measured(f, arrays[i])))
    return pairs


def is_right(operation, *arrays, **settings):
    pairs = by_rule_and_measured(operation, *arrays, **settings)
    return all(a.shape == b.shape and np.allclose(a, b, atol=1e-7) for a, b in pairs)


def normal(*shape):
    return rng.normal(size=shape)


verdicts = {
    "multiply (4, 1, 3), (5, 1)": is_right(multiply, normal(4, 1, 3), normal(5, 1)),
    "total, axes 0 and 2": is_right(total, normal(4, 3, 5), axis=(0, 2)),
    "largest, axis 1": is_right(largest, normal(4, 3, 5), axis=1),
    "matmul (4, 3), (3, 5)": is_right(matmul, normal(4, 3), normal(3, 5)),
    "take, a row three times": is_right(take, normal(4, 3), rows=rows),
    "contract bnm,bmk->bnk": is_right(
        contract, normal(2, 4, 3), normal(2, 3, 5), letters="bnm,bmk->bnk"
    ),
}
for name, verdict in verdicts.items():
    print(f"{name:28} {'right' if verdict else 'WRONG'}")
assert all(verdicts.values())

# %% [markdown]
# And two mistakes that raise no error. The first takes the **mean** over the copies of a broadcast array instead of the sum, since "it is used three times, so divide". The second writes `dx[rows] += dy`.


# %%
def stretch_with_mean(x, *, shape):
    """Broadcast with a wrong rule."""
    before = x.shape

    def vjp_x(dy):
        return sum_to_shape(dy, before) * x.size / dy.size

    return np.broadcast_to(x, shape), vjp_x


def take_with_plus(x, *, rows):
    """Rows with a wrong rule."""

    def vjp_x(dy):
        dx = np.zeros_like(x)
        dx[rows] += dy
        return dx

    return x[rows], vjp_x


x, some = normal(4, 6), np.array([0, 2, 2, 3, 2])
[(by_mean, truth_stretch)] = by_rule_and_measured(stretch_with_mean, x, shape=(3, 4, 6))
[(by_plus, truth_take)] = by_rule_and_measured(take_with_plus, x, rows=some)

pictures, titles = [], []
for name, by_rule, truth in [
    ("mean", by_mean, truth_stretch),
    ("+=", by_plus, truth_take),
]:
    pictures += [by_rule, truth, by_rule - truth]
    titles += [f"{name}: by the rule", "measured", "difference"]
viz.show_feature_maps(np.array(pictures), titles, columns=3, signed=True)

# %% [markdown]
# *Figure 5. Above, the mean in place of the sum: the rule has the pattern of the truth, but is too pale everywhere. Below, `+=` in place of `np.add.at`: the difference is blank except in row 2, the one that was taken three times. Row 1 was never taken, and its gradient is 0.*
#
# The numbers say the same: in one case a constant factor, in the other an error in one row only. (Lesson 03 makes a tool that finds such patterns.) The adjoint test notices both, too.

# %%
print("rule / measured, mean:", np.unique((by_mean / truth_stretch).round(3)))
wrong_rows = np.flatnonzero(np.abs(by_plus - truth_take).max(axis=1) > 1e-6)
print("rows that are wrong with +=:", wrong_rows)
assert np.allclose(by_mean / truth_stretch, 1 / 3) and wrong_rows.tolist() == [2]
assert not are_adjoint(stretch_with_mean, (4, 6), shape=(3, 4, 6))
assert not are_adjoint(take_with_plus, (4, 6), rows=some)

# %% [markdown]
# ## At work
#
# Which digit is it? The plainest classifier is linear: each image $x_n$, its 64 pixels in a row, gives ten scores $z_n = W x_n + b$, with $W: (10, 64)$ and $b: (10)$, and the digit with the largest score wins. We fit $W$ and $b$ to targets $o_{nk}$ that are 1 for the right digit $k$ and 0 for the others (each row $o_n$ is called *one-hot*), by the mean squared error
#
# $$L = \frac{1}{2N} \sum_{n=1}^{N} \sum_{k=1}^{10} (z_{nk} - o_{nk})^2 \qquad z = X W^\top + b : (N, 64)\,(64, 10) + (10)$$
#
# There is no loop over images or digits: a matrix product, a broadcast, a sum.

# %%
test_images, test_labels = digits(train=False)[:]
X, X_test = images.reshape(-1, 64), test_images.reshape(-1, 64).astype(np.float64)
o = (labels[:, None] == np.arange(10)) * 1.0  # (N, 1) == (10) -> (N, 10)
print("X", X.shape, "  o", o.shape, "  X_test", X_test.shape)

# %% [markdown]
# ### Standardise each pixel
#
# The pixels are not alike: some are always empty, others vary from 0 to 1. **Standardising** moves and scales each pixel so that over the training images it has mean 0 and standard deviation 1. That is two broadcasts, $(N, 64)$ with $(64)$. The test images are moved and scaled by the numbers of the *training* images; the classifier has to treat all alike.

# %%
mean, std = X.mean(axis=0), X.std(axis=0)
constant = std == 0
print("pixels that are the same in all training images:", int(constant.sum()))
scale = np.where(constant, 1, std)  # nothing to scale there, and no division by 0

prepared = {
    "as they are": (X, X_test),
    "centred": (X - mean, X_test - mean),
    "standardised": ((X - mean) / scale, (X_test - mean) / scale),
}
Z = prepared["standardised"][0]
assert np.allclose(Z.mean(axis=0), 0) and np.allclose(Z.std(axis=0)[~constant], 1)

with viz.use_style():
    figure, axes = viz.panels(1, 4, width=8.0, height=2.4)
    panels = [
        ("mean of each pixel", mean, "viridis", 0, 1),
        ("its deviation", std, "viridis", 0, 1),
    ]
    panels += [("a digit as it is", X[0], "viridis", 0, 1), ("standardised", Z[0], "RdBu_r", -3, 3)]
    for ax, (title, picture, colours, low, high) in zip(axes, panels):
        shown = ax.imshow(picture.reshape(8, 8), cmap=colours, vmin=low, vmax=high)
        ax.set(xticks=[], yticks=[])
        ax.set_title(title)
        figure.colorbar(shown, ax=ax, shrink=0.6)
figure

# %% [markdown]
# *Figure 6. The mean and the standard deviation of each pixel over the training images, and one digit before and after. The columns at the edges hardly ever have ink.*
#
# Some of those edge pixels are a trap: four of them have ink in only one or two of the training images, so their deviation is tiny, and dividing by so small a number makes a faint grey very large.

# %%
extreme = np.abs(prepared["standardised"][1]).max()
with_ink = (X > 0).sum(axis=0)  # (64): in how many training images a pixel has ink
rare = (with_ink == 1) | (with_ink == 2)
print(f"{rare.sum()} pixels have ink in one or two of {len(X)} images")
print(f"their deviations: at most {std[rare].max():.4f}; of a typical pixel: {np.median(std):.1f}")
print(f"largest standardised test pixel: {extreme:.0f}")
assert rare.sum() == 4 and std[rare].max() < 0.01 and extreme > 10

# %% [markdown]
# ### Does it help?
#
# Moving and scaling the pixels does not change what a linear classifier can say: $W$ and $b$ can undo both. All three arms therefore have the *same* least possible loss $L^*$, which linear algebra gives directly (`lstsq`). What may differ is how fast gradient descent gets there.
#
# It would be unfair to give all arms one learning rate $\eta$. How large may it be? Take one weight $w$ and the loss $L = \tfrac12 \lambda w^2$, lowest at 0, where $\lambda$ says how strongly it bends: its *curvature*. The gradient is $\lambda w$, so that a step makes
#
# $$w \leftarrow w - \eta\,\lambda w = (1 - \eta\lambda)\,w$$
#
# The weight shrinks if $|1 - \eta\lambda| < 1$, that is for $\eta < 2/\lambda$; with a larger step it grows without end. With many weights the loss bends differently in different directions, and the **largest** curvature sets the limit. For our loss NumPy finds the curvatures from the matrix $A^\top A / N$, where $A$ is $X$ with a column of ones for the bias: they are its *eigenvalues*, which `eigvalsh` returns. Each arm gets $\eta = 1/\lambda$ with its own largest curvature $\lambda$, half of the limit.


# %%
def curvatures(X):
    """How strongly the loss bends in each direction, in ascending order."""
    A = np.column_stack([X, np.ones(len(X))])
    return np.linalg.eigvalsh(A.T @ A / len(X))


def squared_error(X, W, b):
    z = X @ W.T + b
    return ((z - o) ** 2).sum() / (2 * len(X))


def train(X, X_test, steps=2000):
    """Gradient descent from 0; the loss before each step, and the final accuracy in %."""
    W = mt.tensor(np.zeros((10, 64)), requires_grad=True)
    b = mt.tensor(np.zeros(10), requires_grad=True)
    learning_rate = 1 / curvatures(X)[-1]
    losses = []
    for _ in range(steps):
        loss = squared_error(X, W, b)
        losses.append(loss.item())
        loss.backward()
        with mt.no_grad():
            for weight in (W, b):
                weight -= learning_rate * weight.grad
                weight.zero_grad()
    right = (X_test @ W.data.T + b.data).argmax(axis=1) == test_labels
    return np.array(losses), 100 * right.mean()


def least_loss(X):
    A = np.column_stack([X, np.ones(len(X))])
    best, *_ = np.linalg.lstsq(A, o)
    return squared_error(X, best[:64].T, best[64])


least = {arm: least_loss(X) for arm, (X, _) in prepared.items()}
assert np.allclose(list(least.values()), least["as they are"])

# %%
runs = {arm: train(*arrays) for arm, arrays in prepared.items()}
above = {arm: losses / least[arm] - 1 for arm, (losses, _) in runs.items()}  # 0.1: 10 % above


def steps_until(arm, share):
    """The number of steps until the loss is at most a share above the least possible one."""
    reached = np.flatnonzero(above[arm] <= share)
    return int(reached[0]) if len(reached) else None


print(
    "steps until the loss is this near to the least possible one, and what is right on unseen digits"
)
print(f"{'':13}{'50 %':>8}{'10 %':>8}{'1 %':>8}{'right':>10}")
for arm, (_, accuracy) in runs.items():
    reached = [steps_until(arm, share) or "> 2000" for share in (0.5, 0.1, 0.01)]
    print(f"{arm:13}", *(f"{steps:>7}" for steps in reached), f"{accuracy:7.1f} %")

# %%
with viz.use_style():
    figure, ax = viz.panels(width=6.4, height=3.6)
    for (arm, curve), colour in zip(above.items(), viz.COLOURS):
        ax.loglog(np.arange(1, len(curve) + 1), 100 * curve, color=colour, label=arm)
    ax.set(xlabel="step", ylabel="loss above the least possible, %", ylim=(0.01, 400))
    ax.grid(axis="y")
    ax.legend(frameon=False)
figure

# %% [markdown]
# *Figure 7. How far the loss is above the least possible one, against steps; both axes are logarithmic, and each arm has its own learning rate. Centring moves the whole beginning of the curve to the left, about ten times fewer steps. Dividing by the deviation hardly shows at the beginning, and decides the end.*

# %%
for arm, (arrays, _) in prepared.items():
    bends = curvatures(arrays)
    bends = bends[bends > 1e-9]  # a pixel that never varies bends nothing
    power = np.log10(bends[-1] / bends[0])
    print(f"{arm:13} largest curvature {bends[-1]:4.1f}, about 10^{power:.0f} times the smallest")

assert steps_until("as they are", 0.01) is None
assert steps_until("as they are", 0.1) > 8 * steps_until("centred", 0.1)
assert steps_until("centred", 0.1) < 3 * steps_until("standardised", 0.1)
assert steps_until("centred", 0.01) > 8 * steps_until("standardised", 0.01)
accuracies = [accuracy for _, accuracy in runs.values()]
assert max(accuracies) - min(accuracies) < 0.5

# %% [markdown]
# What came out:
#
# - To come within 1 % of the least loss takes tens of steps with standardised pixels, hundreds with centred ones, and more than the 2000 that we took with pixels as they are.
# - The two broadcasts do different things. No pixel is below 0, so raw images share one large direction, their mean; the loss is steep along it and forces small steps on all others. Subtracting the mean removes it. What remains are pixels that vary little, along which the loss is almost flat; dividing by the deviation bends it there.
# - The accuracy on unseen digits is **the same** within one or two images. Standardising is not a better classifier, it is a shorter way to the same one. Nor do the last percents of the loss matter for it.
#
# Nothing here is random, so there are no seeds to compare. And the pixels that became very large did no harm on these test images; on others they might, which is why many programs put a floor under the deviation.

# %% [markdown]
# ## Paper and code
#
# Strides, views and broadcasting are older than deep learning: they are NumPy's idea of an array (van der Walt et al., 2011; Harris et al., 2020), which PyTorch took over together with its rule. What differs:
#
# | | NumPy | PyTorch | this library |
# |---|---|---|---|
# | names | `axis`, `keepdims` | `dim`, `keepdim` (mostly takes NumPy's names too) | `dim`, `keepdim` on tensors; NumPy's inside primitives |
# | strides are counted in | bytes | elements | NumPy's, as the arrays are NumPy's |
# | a step below 0, `x[::-1]` | a view | an error, use `flip` | a view |
# | `x.max` over an axis | the values | the pair of values and indices | as PyTorch; `amax` gives the values |
# | equal maxima | no gradients there | `amax` shares evenly, `max(dim)` picks one | the same |
# | float32 array with a float64 array | float64 | float64 | float64 |
# | the default for Python floats | float64 | float32 | float32, can be set |
#
# **Who undoes a broadcast.** In PyTorch as here the engine does it, in one place: a rule may return a gradient that is too large, and before it is passed on it is compared with the shape of the input and summed (`validate_outputs` in PyTorch's `engine.cpp`, `_fit` in `minitorch_attn/engine/graph.py`). In this lesson each rule called `sum_to_shape` itself, so that nothing is hidden.
#
# **Matrix products.** The rules in the box are in every textbook; Giles (2008) derives them together with those of inverses and determinants. The library's `matmul` also takes vectors, and where one $b$ serves a whole batch it does not make a gradient for each matrix and add them up, but one product over all rows: the sum over the batch is already in the sum of a matrix product.
#
# **The adjoint test** is known to geophysicists as the *dot-product test* (Claerbout, 2008); they check in this way that the program which makes data of a model and the one which goes back are a pair.

# %% [markdown]
# ## Predict before you run
#
# **1.** A model gives its scores as a column, $(N, 1)$; the targets are $(N)$. Someone computes the mean of `(scores - targets) ** 2`. The scores are all right, equal to the targets. Is the loss 0?

# %%
wanted = np.array([0.0, 1.0, 2.0, 3.0])
scores = wanted[:, None]
print("shape:", (scores - wanted).shape, "  loss:", np.mean((scores - wanted) ** 2))

# %% [markdown]
# <details><summary>Answer</summary>
#
# No. $(N, 1)$ and $(N)$ line up at the last axis: $(N, 1)$ and $(1, N)$, which gives $(N, N)$, every score minus every target. No error is raised, and training goes on, towards the mean of the targets. Broadcasting is silent; print shapes.
#
# </details>

# %% [markdown]
# **2.** The squared distance of each of the 355 test images to each of the 1442 training images, $\sum_d (u_{nd} - v_{md})^2$. With broadcasting it is one line, `((U[:, None] - V[None]) ** 2).sum(axis=2)`. How many numbers does that make on the way, and how many if the square is multiplied out first, $|u|^2 + |v|^2 - 2\,u v^\top$?

# %%
U, V = X_test, X
print(f"differences:    {len(U) * len(V) * 64:10,}")
print(f"multiplied out: {len(U) * len(V):10,}")

by_broadcast = ((U[:20, None] - V[None]) ** 2).sum(axis=2)  # 20 images are enough to compare
by_product = (U[:20] ** 2).sum(axis=1)[:, None] + (V**2).sum(axis=1) - 2 * U[:20] @ V.T
print("equal:", np.allclose(by_broadcast, by_product))

# %% [markdown]
# <details><summary>Answer</summary>
#
# 33 million against half a million, $D = 64$ times fewer. A stretched operand costs nothing, but the *result* of an operation on it is a full array. If a sum follows, look for a matrix product: it multiplies and adds without storing the products. (Multiplied out, small distances are differences of large numbers and lose digits.)
#
# </details>

# %% [markdown]
# **3.** One number $x = 2$ is broadcast to $(1000, 1000)$, and the mean of the result is taken. What is the gradient of $x$? And if it is the sum?

# %%
for reduce in (F.mean, F.sum):
    number = mt.tensor(2.0, requires_grad=True)
    reduce(F.broadcast_to(number, shape=(1000, 1000))).backward()
    print(f"{reduce.__name__:5} gradient {number.grad.item():,.0f}")

# %% [markdown]
# <details><summary>Answer</summary>
#
# 1 and 1,000,000. A million copies are a million paths. The mean weighs each with a millionth; the sum weighs each with 1. That is why losses are means: with sums, the size of a gradient, and with it the right learning rate, would depend on the size of the batch.
#
# </details>

# %% [markdown]
# ## Exercises
#
# In [exercises/02_tensors_and_broadcasting.ipynb](../exercises/02_tensors_and_broadcasting.ipynb):
#
# 1. `broadcast_shape`: the common shape of two shapes, or a clear error.
# 2. `sum_to_shape`: undo a broadcast.
# 3. `mean`: over any axes, in primitive form.
# 4. `matmul`: batches of matrices, broadcast, in primitive form.
# 5. `take_rows`: rows of a table by their numbers, also repeatedly, in primitive form.

# %% [markdown]
# ## What to remember
#
# - An array is memory, a shape and strides. Views cost nothing; broadcasting is a stride of 0.
# - Shapes line up at the last axis; sizes are equal, or one is 1. It is silent when it is not what you meant.
# - Copied forward, added up backward; added up forward, copied backward. A linear operation's rule is its adjoint, and $\langle Ax, v\rangle = \langle x, A^\top v\rangle$ tests it.
# - $da = dy\,b^\top$, $db = a^\top dy$; in a batch the last two axes, and a sum over what was broadcast.
# - What is taken several times is added up several times: `np.add.at`, not `+=`.

# %% [markdown]
# ## Sources
#
# - S. van der Walt, S. C. Colbert, G. Varoquaux, *The NumPy array: a structure for efficient numerical computation*, Computing in Science & Engineering 13(2), 2011.
# - C. R. Harris et al., *Array programming with NumPy*, Nature 585, 2020; and the page *Broadcasting* of NumPy's documentation.
# - M. B. Giles, *Collected matrix derivative results for forward and reverse mode algorithmic differentiation*, in Advances in Automatic Differentiation, Springer, 2008.
# - J. F. Claerbout, *Image Estimation by Example: Geophysical Soundings Image Construction*, Stanford University, 2008, chapter 1: adjoint operators and the dot-product test.
# - A. Einstein, *Die Grundlage der allgemeinen Relativitätstheorie*, Annalen der Physik 49, 1916, section 5: the summation convention.
# - PyTorch's source, `torch/csrc/autograd/engine.cpp` and `input_metadata.cpp`.
# - The images: E. Alpaydin, C. Kaynak, *Optical Recognition of Handwritten Digits*, UCI Machine Learning Repository, 1998, as they come with scikit-learn.
