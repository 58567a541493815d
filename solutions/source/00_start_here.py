# %% [markdown]
# # Exercises 00: start here
#
# Three short functions, to see how exercises work. For each one: write it in its cell, run that
# cell, then run the check in the cell below. A check that fails says which input it looked at, what
# was expected, what came, and what the cause may be. `hint("00.relu")` gives one hint at a time.

# %%
import numpy as np

from minitorch_attn.course import check

# %% [markdown]
# ## 1. ReLU
#
# The rectified linear unit keeps what is positive and replaces what is negative by 0:
#
# $$\operatorname{relu}(x) = \max(x, 0)$$
#
# `x` is a NumPy array of any shape, and every element is treated on its own. Write it without a
# loop.


# %% exercise="relu"
def relu(x):
    """The larger of x and 0, for each element: (*) -> (*)."""
    ### BEGIN SOLUTION
    return np.maximum(x, 0)
    ### END SOLUTION


# %% check="relu" points=1
check("00.relu", relu)

# %% [markdown]
# ## 2. ReLU with the rule for its gradient
#
# Everything in this course is built of *primitives*: functions that return their output and, for
# each input, the rule that carries a gradient back. Let $L$ be a number computed from $y =
# \operatorname{relu}(x)$, in whatever way. `dy` holds for each element of $y$ how fast $L$ changes with
# it, the derivative $dL/dy$. Then by the chain rule, for each element,
#
# $$\frac{dL}{dx} = \frac{dL}{dy} \cdot \begin{cases} 1 & x > 0 \\ 0 & x < 0 \end{cases}$$
#
# Write relu once more, now with its rule `vjp_x`, which takes `dy` and returns these derivatives of $L$
# by $x$. Return both: `return y, vjp_x`.


# %% exercise="relu_rule"
def relu_rule(x):
    """Relu in primitive form: returns y and the rule dy -> dx."""
    ### BEGIN SOLUTION
    y = np.maximum(x, 0)

    def vjp_x(dy):
        return np.where(x > 0, dy, 0)

    return y, vjp_x
    ### END SOLUTION


# %% check="relu_rule" points=2
check("00.relu_rule", relu_rule)

# %% [markdown]
# ## 3. Softmax
#
# Softmax turns any numbers into positive ones that add up to 1. Here it works along the last axis:
#
# $$\operatorname{softmax}(x)_i = \frac{e^{x_i}}{\sum_j e^{x_j}}$$
#
# It must also hold for large numbers, where $e^{x}$ is too large for a float.


# %% exercise="softmax"
def softmax(x):
    """Exponentials that add up to 1 along the last axis: (..., L) -> (..., L)."""
    ### BEGIN SOLUTION
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)
    ### END SOLUTION


# %% check="softmax" points=2
check("00.softmax", softmax)
