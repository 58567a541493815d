# %% [markdown]
# # Exercises 03: gradient checking
#
# Five exercises, from one slope to a checker's finer points. They follow lesson
# [03](../notebooks/03_gradient_checking.ipynb). `hint("03.central_difference")` gives one hint at a
# time.

# %%
import numpy as np

import minitorch_attn as mt
from minitorch_attn.course import check

# %% [markdown]
# ## 1. The slope of a function of one number
#
# $$f'(x) \approx \frac{f(x + h) - f(x - h)}{2h}$$


# %% exercise="central_difference"
def central_difference(f, x, h=1e-5):
    """The slope of f at the number x, by a central difference with step h.

    >>> central_difference(lambda x: x**2, 3.0, h=0.5)
    6.0
    """
    ### BEGIN SOLUTION
    return (f(x + h) - f(x - h)) / (2 * h)
    ### END SOLUTION


# %% check="central_difference" points=1
check("03.central_difference", central_difference)

# %% [markdown]
# ## 2. The gradient of a function of arrays
#
# For a fixed `dy` of the shape of $f(x)$,
#
# $$dx_i \approx \sum_j dy_j \, \frac{f_j(x + h e_i) - f_j(x - h e_i)}{2h}$$
#
# where $e_i$ is 1 at place $i$ and 0 elsewhere. $x$ and $f(x)$ may have any shape; `np.ndindex(x.shape)`
# goes through all places. The array `x` belongs to the caller: leave it as it is. And mind that $f$ may
# return the very memory that it was given, as `lambda x: x.T` does: what you write into its input then
# changes the output that you already have.


# %% exercise="numerical_vjp"
def numerical_vjp(f, x, dy, h=1e-5):
    """sum_j dy[j] * ∂y[j]/∂x[i] for each element of x: an array of x's shape.

    f takes an array like x and returns an array y; dy has the shape of y.

    >>> numerical_vjp(lambda x: 3 * x, np.array([1.0, 2.0]), np.array([1.0, 10.0])).round(6)
    array([ 3., 30.])
    """
    ### BEGIN SOLUTION
    dx = np.zeros_like(x)
    for i in np.ndindex(x.shape):
        step = np.zeros_like(x)
        step[i] = h
        dx[i] = (dy * (f(x + step) - f(x - step))).sum() / (2 * h)
    return dx
    ### END SOLUTION


# %% check="numerical_vjp" points=2
check("03.numerical_vjp", numerical_vjp)

# %% [markdown]
# ## 3. Do two gradients agree?
#
# They do if they have the same shape, and for every element
#
# $$|a - n| \;\le\; \texttt{atol} + \texttt{rtol} \cdot |n|$$
#
# where $a$ (`analytic`) comes from the rule and $n$ (`numeric`) was measured. The absolute part is there
# for elements where $n$ is zero. A rule that gives NaN does not agree with anything. Return `True` or
# `False`.


# %% exercise="agree"
def agree(analytic, numeric, rtol=1e-5, atol=1e-7):
    """Whether a gradient agrees with the measured one: same shape, and each element close enough.

    >>> agree(np.array([1.0, 0.0]), np.array([1.000001, 1e-9]))
    True
    >>> agree(np.array([1.0, 0.0]), np.array([1.0, 1e-3]))
    False
    """
    ### BEGIN SOLUTION
    if analytic.shape != numeric.shape:
        return False
    return bool((np.abs(analytic - numeric) <= atol + rtol * np.abs(numeric)).all())
    ### END SOLUTION


# %% check="agree" points=2
check("03.agree", agree)

# %% [markdown]
# ## 4. Find the mistakes, and mend them
#
# A layer with a threshold, $y = \tanh(x w - b)$, where the derivative of $\tanh(a)$ is
# $1 - \tanh(a)^2$. Its output is right. Each of its three rules has one mistake. Read the report.


# %%
def layer(x, w, b):
    """x (N, D), w (D, D), b (D,) -> y (N, D), and a rule for each, all wrong."""
    N = len(x)
    y = np.tanh(x @ w - b)

    def vjp_x(dy):
        da = dy * (1 - y**2)
        return da @ w.T / N

    def vjp_w(dy):
        da = dy * (1 - y**2)
        return da.T @ x

    def vjp_b(dy):
        da = dy * (1 - y**2)
        return da.sum(axis=0)

    return y, (vjp_x, vjp_w, vjp_b)


rng = np.random.default_rng(0)
example = rng.normal(size=(4, 3)), rng.normal(size=(3, 3)), rng.normal(size=3)
print(mt.check_vjp(layer, *example, raise_on_failure=False))

# %% [markdown]
# Write the layer with right rules. `mt.check_vjp(mended, *example)` is yours to use.


# %% exercise="mended"
def mended(x, w, b):
    """The layer with right rules: x (N, D), w (D, D), b (D,) -> y (N, D), (vjp_x, vjp_w, vjp_b).

    >>> y, (vjp_x, vjp_w, vjp_b) = mended(np.array([[0.5]]), np.array([[2.0]]), np.array([1.0]))
    >>> y, vjp_x(np.array([[1.0]])), vjp_w(np.array([[1.0]])), vjp_b(np.array([[1.0]]))
    (array([[0.]]), array([[2.]]), array([[0.5]]), array([-1.]))
    """
    ### BEGIN SOLUTION
    y = np.tanh(x @ w - b)

    def vjp_x(dy):
        da = dy * (1 - y**2)
        return da @ w.T

    def vjp_w(dy):
        da = dy * (1 - y**2)
        return x.T @ da

    def vjp_b(dy):
        da = dy * (1 - y**2)
        return -da.sum(axis=0)

    return y, (vjp_x, vjp_w, vjp_b)
    ### END SOLUTION


# %% check="mended" points=3
check("03.mended", mended)

# %% [markdown]
# ## 5. Kink, or only a strong curve?
#
# Let $g(h)$ be the gap between the slope ahead and the slope behind,
#
# $$g(h) = \left| \frac{f(x + h) - f(x)}{h} - \frac{f(x) - f(x - h)}{h} \right|$$
#
# Where $f$ is smooth the gap shrinks with the step; at a kink it stays, at a jump it grows. Say that $f$
# has a kink (or a jump) at $x$ if both hold:
#
# - the gap is more than rounding: $g(h) > 10^{-6}$;
# - with a step four times smaller, it is not much smaller: $g(h/4) > 0.6\, g(h)$.


# %% exercise="is_kink"
def is_kink(f, x, h=1e-4):
    """Whether f has a kink or a jump at the number x: True or False.

    >>> is_kink(abs, 0.0), is_kink(lambda x: 1000 * x**2, 1.0)
    (True, False)
    """

    ### BEGIN SOLUTION
    def gap(h):
        ahead = (f(x + h) - f(x)) / h
        behind = (f(x) - f(x - h)) / h
        return abs(ahead - behind)

    return bool(gap(h) > 1e-6 and gap(h / 4) > 0.6 * gap(h))
    ### END SOLUTION


# %% check="is_kink" points=2
check("03.is_kink", is_kink)
