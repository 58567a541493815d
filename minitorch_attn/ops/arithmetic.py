"""Elementwise arithmetic: sums, products, powers, and the choice between two values."""

from __future__ import annotations

import numpy as np

from ..engine import primitive
from .axes import check_not_enlarged
from .masking import masked

# -- two operands: elementwise with broadcasting, which the engine undoes in the gradients ---------


@primitive
def add(a, b):
    """Sum a + b, elementwise with broadcasting."""

    def vjp(dy):
        return dy

    return a + b, (vjp, vjp)


@primitive
def subtract(a, b):
    """Difference a - b, elementwise with broadcasting."""

    def vjp_a(dy):
        return dy

    def vjp_b(dy):
        return -dy

    return a - b, (vjp_a, vjp_b)


@primitive
def multiply(a, b):
    """Product a * b, elementwise with broadcasting."""

    def vjp_a(dy):
        return dy * b

    def vjp_b(dy):
        return dy * a

    return a * b, (vjp_a, vjp_b)


@primitive
def divide(a, b):
    """Quotient a / b, elementwise with broadcasting."""
    y = a / b

    def vjp_a(dy):
        return dy / b

    def vjp_b(dy):
        return -dy * y / b

    return y, (vjp_a, vjp_b)


@primitive
def floor_divide(a, b):
    """Quotient rounded down to a whole number, elementwise with broadcasting; no gradient."""
    return a // b, (None, None)


@primitive
def remainder(a, b):
    """What is left of a after taking b away as often as it goes: a - b * floor(a / b).

    Elementwise with broadcasting; the result has the sign of b.
    """

    def vjp_a(dy):
        return dy

    def vjp_b(dy):
        return -dy * (a // b)

    return a % b, (vjp_a, vjp_b)


@primitive
def pow(a, b):
    """Power a ** b, elementwise with broadcasting; a number as exponent is quick and exact.

    At a = 0 the gradient to b is 0 (for b >= 0), and 0 ** 0 is a constant 1.
    """
    y = _power(a, b)

    def vjp_a(dy):
        if isinstance(b, (int, float)):
            return dy * (b * _power(a, b - 1)) if b else np.zeros_like(dy)
        slope = b * a ** np.where(b == 0, 1, b - 1)  # 0 where b is 0, for a = 0 too
        return dy * slope

    def vjp_b(dy):
        return dy * y * np.log(np.where((a == 0) & (b >= 0), 1, a))

    return y, (vjp_a, vjp_b)


def _power(a, b):
    """Power a ** b, where a small whole exponent is done by squaring: x ** 3 in 1/100 of the time.

    NumPy itself is quick for -1, 0, 0.5, 1 and 2.
    """
    if not isinstance(b, (int, float)) or b not in range(3, 33):
        return a**b
    half = _power(a, b // 2)
    return half * half * a if b % 2 else half * half


@primitive
def maximum(a, b):
    """The larger of a and b, elementwise with broadcasting; a tie shares the gradient evenly."""

    def vjp_a(dy):
        return masked(dy, a > b) + masked(0.5 * dy, a == b)

    def vjp_b(dy):
        return masked(dy, b > a) + masked(0.5 * dy, a == b)

    return np.maximum(a, b), (vjp_a, vjp_b)


@primitive
def minimum(a, b):
    """The smaller of a and b, elementwise with broadcasting; a tie shares the gradient evenly."""

    def vjp_a(dy):
        return masked(dy, a < b) + masked(0.5 * dy, a == b)

    def vjp_b(dy):
        return masked(dy, b < a) + masked(0.5 * dy, a == b)

    return np.minimum(a, b), (vjp_a, vjp_b)


@primitive
def where(condition, a, b):
    """Take a where the condition holds, else b; elementwise with broadcasting of all three."""

    def vjp_a(dy):
        return np.where(condition, dy, 0)

    def vjp_b(dy):
        return np.where(condition, 0, dy)

    return np.where(condition, a, b), (None, vjp_a, vjp_b)


# -- one operand: (*) -> (*) -----------------------------------------------------------------------


@primitive
def negative(x):
    """Negation -x, elementwise. (*) -> (*)."""

    def vjp_x(dy):
        return -dy

    return -x, vjp_x


@primitive(floats="all")
def reciprocal(x):
    """Reciprocal 1 / x, elementwise. (*) -> (*)."""
    y = 1 / x

    def vjp_x(dy):
        return -dy * y * y

    return y, vjp_x


@primitive
def square(x):
    """Square x ** 2, elementwise. (*) -> (*)."""

    def vjp_x(dy):
        return 2 * dy * x

    return x * x, vjp_x


@primitive(floats="all")
def sqrt(x):
    """Square root, elementwise; its gradient at 0 is infinite. (*) -> (*)."""
    y = np.sqrt(x)

    def vjp_x(dy):
        return 0.5 * dy / y

    return y, vjp_x


@primitive(floats="all")
def rsqrt(x):
    """Reciprocal of the square root, 1 / sqrt(x), elementwise. (*) -> (*)."""
    y = 1 / np.sqrt(x)

    def vjp_x(dy):
        return -0.5 * dy * y * y * y

    return y, vjp_x


@primitive(floats="all")
def exp(x):
    """Exponential function, elementwise. (*) -> (*)."""
    y = np.exp(x)

    def vjp_x(dy):
        return dy * y

    return y, vjp_x


@primitive(floats="all")
def expm1(x):
    """exp(x) - 1, exact for small x too, elementwise. (*) -> (*)."""
    y = np.expm1(x)

    def vjp_x(dy):
        return dy * (y + 1)

    return y, vjp_x


@primitive(floats="all")
def log(x):
    """Natural logarithm, elementwise. (*) -> (*)."""

    def vjp_x(dy):
        return dy / x

    return np.log(x), vjp_x


@primitive(floats="all")
def log1p(x):
    """log(1 + x), exact for small x too, elementwise. (*) -> (*)."""

    def vjp_x(dy):
        return dy / (1 + x)

    return np.log1p(x), vjp_x


@primitive(floats="all")
def sin(x):
    """Sine, elementwise. (*) -> (*)."""

    def vjp_x(dy):
        return dy * np.cos(x)

    return np.sin(x), vjp_x


@primitive(floats="all")
def cos(x):
    """Cosine, elementwise. (*) -> (*)."""

    def vjp_x(dy):
        return -dy * np.sin(x)

    return np.cos(x), vjp_x


@primitive
def abs(x):
    """Absolute value, elementwise; the gradient at 0 is 0. (*) -> (*)."""

    def vjp_x(dy):
        return dy * np.sign(x)

    return np.abs(x), vjp_x


@primitive
def clamp(x, *, min=None, max=None):
    """Values below min become min, values above max become max, elementwise. (*) -> (*).

    The gradient passes where min <= x <= max, the bounds included.
    """

    def vjp_x(dy):
        inside = True if min is None else x >= min
        return masked(dy, inside if max is None else inside & (x <= max))

    if min is None and max is None:
        raise ValueError("clamp: give min, max or both")
    y = np.clip(x, min, max)
    check_not_enlarged("clamp", y, x, min=min, max=max)
    return y, vjp_x


clip = clamp  # NumPy's name


@primitive
def sign(x):
    """-1, 0 or 1, the sign of x, elementwise; no gradient. (*) -> (*)."""
    return np.sign(x), None


@primitive
def floor(x):
    """The largest whole number that is not above x, elementwise; no gradient. (*) -> (*)."""
    return np.floor(x), None


@primitive
def ceil(x):
    """The smallest whole number that is not below x, elementwise; no gradient. (*) -> (*)."""
    return np.ceil(x), None


@primitive
def round(x):
    """The nearest whole number, halves to the even one, elementwise; no gradient. (*) -> (*)."""
    return np.round(x), None
