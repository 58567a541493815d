"""Elementwise arithmetic: sums, products, powers, and the choice between two values."""

from __future__ import annotations

import numpy as np

from ..engine import primitive


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
def negative(x):
    """Negation -x, elementwise. (*) -> (*)."""

    def vjp_x(dy):
        return -dy

    return -x, vjp_x


@primitive
def power(a, b):
    """Power a ** b, elementwise with broadcasting; at a = 0 the gradient to b is 0."""
    y = a**b

    def vjp_a(dy):
        return dy * b * a ** (b - 1)

    def vjp_b(dy):
        positive = a > 0
        return dy * y * np.log(np.where(positive, a, 1))

    return y, (vjp_a, vjp_b)
