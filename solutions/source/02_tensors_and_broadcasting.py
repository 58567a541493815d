# %% [markdown]
# # Exercises 02: tensors and broadcasting
#
# Five exercises: a rule about shapes, its mirror for gradients, and three primitives that rest on them. They follow lesson [02](../notebooks/02_tensors_and_broadcasting.ipynb). `hint("02.broadcast_shape")` gives one hint at a time.

# %%
import numpy as np

from minitorch_attn.course import check

# %% [markdown]
# ## 1. The shape of a broadcast
#
# Two shapes are lined up at their **last** axis. The shorter one gets ones in front. Then, axis by axis, the sizes must be equal, or one of them must be 1, and is stretched to the other. Return the common shape as a tuple. If a pair of sizes does not fit, raise a `ValueError` whose message names both shapes.
#
# (NumPy has this as `np.broadcast_shapes`. Write it yourself, without calling NumPy.)


# %% exercise="broadcast_shape"
def broadcast_shape(a, b):
    """The shape that two shapes broadcast to; both are tuples of sizes.

    Raises a ValueError if they do not fit.

    >>> broadcast_shape((8, 3, 5, 5), (3, 1, 1))
    (8, 3, 5, 5)
    >>> broadcast_shape((2, 3), (2,))
    Traceback (most recent call last):
    ValueError: shapes (2, 3) and (2,) do not broadcast: 3 against 2
    """
    ### BEGIN SOLUTION
    ndim = max(len(a), len(b))
    longer_a, longer_b = (1,) * (ndim - len(a)) + a, (1,) * (ndim - len(b)) + b
    shape = []
    for n, m in zip(longer_a, longer_b):
        if n != m and 1 not in (n, m):
            raise ValueError(f"shapes {a} and {b} do not broadcast: {n} against {m}")
        shape.append(m if n == 1 else n)
    return tuple(shape)
    ### END SOLUTION


# %% check="broadcast_shape" points=2
check("02.broadcast_shape", broadcast_shape)

# %% [markdown]
# ## 2. Undo a broadcast
#
# An array $x$ of a given shape was broadcast to a larger one, and `dy` is the gradient of the result. Every element of $x$ was copied to several places; its gradient is the sum over them:
#
# $$dx_{i} = \sum_{\text{copies } j \text{ of } i} dy_{j}$$
#
# Return `dx`, of exactly the shape of $x$. You may take for granted that `shape` broadcasts to `dy.shape`.


# %% exercise="sum_to_shape"
def sum_to_shape(dy, shape):
    """The gradient of an array of a shape that was broadcast to the shape of dy.

    >>> dy = np.array([[1.0, 2.0, 3.0], [10.0, 20.0, 30.0]])
    >>> sum_to_shape(dy, (3,))
    array([11., 22., 33.])
    >>> sum_to_shape(dy, (2, 1))
    array([[ 6.],
           [60.]])
    """
    ### BEGIN SOLUTION
    added = dy.ndim - len(shape)
    stretched = [added + i for i, n in enumerate(shape) if n == 1]
    return dy.sum(axis=(*range(added), *stretched)).reshape(shape)
    ### END SOLUTION


# %% check="sum_to_shape" points=2
check("02.sum_to_shape", sum_to_shape)

# %% [markdown]
# ## 3. A mean over some axes
#
# $$y = \frac1n \sum_{\text{reduced axes}} x$$
#
# in primitive form, where $n$ is how many elements go into one mean. `axis` is a number, a tuple of numbers, or `None` for all axes; negative numbers count from the back. With `keepdims=True` the reduced axes stay, with size 1; otherwise they are gone, and the rule has to put them back before it can broadcast.


# %% exercise="mean"
def mean(x, *, axis=None, keepdims=False):
    """The mean over some axes in primitive form: returns y and the rule dy -> dx.

    >>> y, vjp_x = mean(np.array([[1.0, 2.0, 6.0], [3.0, 0.0, -3.0]]), axis=1)
    >>> y
    array([3., 0.])
    >>> vjp_x(np.array([3.0, 6.0]))
    array([[1., 1., 1.],
           [2., 2., 2.]])
    """
    ### BEGIN SOLUTION
    y = x.mean(axis=axis, keepdims=keepdims)
    shape, n = x.shape, x.size // y.size

    def vjp_x(dy):
        if axis is not None and not keepdims:
            dy = np.expand_dims(dy, axis)
        return np.broadcast_to(dy / n, shape)

    return y, vjp_x
    ### END SOLUTION


# %% check="mean" points=3
check("02.mean", mean)

# %% [markdown]
# ## 4. A batch of matrix products
#
# $$y_{*nk} = \sum_m a_{*nm}\, b_{*mk}$$
#
# The star stands for any number of leading axes, the batch, which broadcast as in exercise 1; $a$ has the shape $(*, N, M)$ and $b$ the shape $(*, M, K)$. For one pair of matrices the rules are $da = dy\,b^\top$ and $db = a^\top dy$. Write the product in primitive form for batches. The gradients must have exactly the shapes of `a` and `b`, so where a batch was broadcast, something is still to do; your function from exercise 2 does it (until you have written it, `from minitorch_attn.engine import sum_to_shape` lends you the library's).


# %% exercise="matmul"
def matmul(a, b):
    """The matrix product in primitive form: (*, N, M), (*, M, K) -> (*, N, K).

    Returns y and the rules (vjp_a, vjp_b).

    >>> y, (vjp_a, vjp_b) = matmul(np.ones((8, 2, 3)), np.ones((3, 4)))
    >>> y.shape, vjp_a(y).shape, vjp_b(y).shape
    ((8, 2, 4), (8, 2, 3), (3, 4))
    """
    ### BEGIN SOLUTION

    def vjp_a(dy):
        return sum_to_shape(dy @ b.swapaxes(-1, -2), a.shape)

    def vjp_b(dy):
        return sum_to_shape(a.swapaxes(-1, -2) @ dy, b.shape)

    return a @ b, (vjp_a, vjp_b)
    ### END SOLUTION


# %% check="matmul" points=3
check("02.matmul", matmul)

# %% [markdown]
# ## 5. Take rows
#
# From a table $x$ of shape $(N, D)$ we take rows by their numbers. `rows` is an array of integers, of any shape, and $y$ has one row of $D$ numbers for each of them:
#
# $$y_{*d} = x_{\,r_*\,d}$$
#
# This is how a network looks words up in a table of vectors. A number may occur several times, and negative ones count from the back. `rows` is a setting; only $x$ has a gradient.


# %% exercise="take_rows"
def take_rows(x, *, rows):
    """Rows of a table in primitive form: (N, D) -> (*, D), rows (*) of integers.

    >>> y, vjp_x = take_rows(np.array([[1.0, 2.0], [3.0, 4.0]]), rows=np.array([1, 1, 1]))
    >>> y
    array([[3., 4.],
           [3., 4.],
           [3., 4.]])
    >>> vjp_x(np.ones((3, 2)))
    array([[0., 0.],
           [3., 3.]])
    """
    ### BEGIN SOLUTION
    shape = x.shape

    def vjp_x(dy):
        dx = np.zeros(shape, dy.dtype)
        np.add.at(dx, rows, dy)
        return dx

    return x[rows], vjp_x
    ### END SOLUTION


# %% check="take_rows" points=3
check("02.take_rows", take_rows)
