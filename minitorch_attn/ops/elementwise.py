"""Elementwise functions on a GPU: a formula becomes a kernel that reads and writes memory once.

As NumPy-style code every operation of a formula would be a kernel of its own, which reads and
writes the whole array.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from ..engine import array_module
from ..engine.backend import Array
from ..engine.kernels import FLOATS, Kernel

# What formulas may use beside CUDA's functions; none overflows. A number with a decimal point is
# a double and would make the arithmetic around it so: acc_t(0.5).
FUNCTIONS = r"""
__device__ acc_t logistic(acc_t x) { return 1 / (1 + exp(-x)); }

// log(1 + exp(x))
__device__ acc_t softplus(acc_t x) { return (x < 0 ? 0 : x) + log1p(exp(-fabs(x))); }

// The share of a normal distribution that lies below x.
__device__ acc_t normal_share(acc_t x) { return acc_t(0.5) * erfc(x * acc_t(-0.7071067811865476)); }

// It is about logistic(b(x)) = (1 + tanh(b(x) / 2)) / 2; and the slope of b.
__device__ acc_t gelu_b(acc_t x) {
    return acc_t(1.5957691216057308) * x * (1 + acc_t(0.044715) * x * x);
}
__device__ acc_t gelu_b_slope(acc_t x) {
    return acc_t(1.5957691216057308) * (1 + acc_t(0.134145) * x * x);
}

__device__ acc_t clip(acc_t x, acc_t low, acc_t high) {
    return x < low ? low : x > high ? high : x;
}
"""

_KERNEL = r"""
extern "C" __global__ void {name}({parameters}, T* result, {numbers}long long n) {{
    FOR_EACH(i, n) {{
        const acc_t {values};
        result[i] = T({formula});
    }}
}}
"""


class Elementwise:
    """The kernel of a formula: y = formula, for each element of arrays of one shape and dtype.

    Parameters
    ----------
    name : str
    formula : str
        An expression of CUDA C++ of the arrays' values and the numbers, which all have the type
        that T is computed in.
    arrays, numbers : sequence of str
        Their names in the formula.
    """

    def __init__(
        self, name: str, formula: str, arrays: Sequence[str] = ("x",), numbers: Sequence[str] = ()
    ):
        self._numbers = tuple(numbers)
        source = _KERNEL.format(
            name=name,
            parameters=", ".join(f"const T* {a}_of" for a in arrays),
            numbers="".join(f"double {k}_of, " for k in numbers),
            values=", ".join(
                [f"{a} = acc_t({a}_of[i])" for a in arrays]
                + [f"{k} = acc_t({k}_of)" for k in numbers]
            ),
            formula=formula,
        )
        self.kernel = Kernel(name, FUNCTIONS + source, [{"T": t} for t in FLOATS])

    def __call__(self, *arrays: Array, **numbers: float) -> Array:
        """The formula's values, of the shape and dtype of the first array."""
        x = arrays[0]
        xp = array_module(x)
        y = xp.empty(x.shape, x.dtype)
        given = [xp.ascontiguousarray(a, dtype=x.dtype) for a in arrays]
        settings = [float(numbers[k]) for k in self._numbers]
        self.kernel.over(y.size, *given, y, *settings, y.size, T=x.dtype)
        return y


class Activation:
    """A function of one array and its rule on a GPU, one kernel each.

    Called, it returns what a primitive returns: y and the rule that carries dy back.

    Parameters
    ----------
    name : str
    y, dx : str
        Formulas: y of x; dx of dy and of x or y. Only what dx names is kept for it.
    numbers : sequence of str
        Names of the settings in either formula.
    """

    def __init__(self, name: str, y: str, dx: str, numbers: Sequence[str] = ()):
        self._kept = [array for array in ("x", "y") if re.search(rf"\b{array}\b", dx)]
        self.forward = Elementwise(f"{name}_forward", y, ("x",), numbers)
        self.backward = Elementwise(f"{name}_backward", dx, (*self._kept, "dy"), numbers)

    def __call__(self, x: Array, **numbers: Any) -> tuple[Array, Callable[[Array], Array]]:
        y = self.forward(x, **numbers)
        kept = [x if array == "x" else y for array in self._kept]
        backward = self.backward

        def vjp_x(dy):
            return backward(*kept, dy, **numbers)

        return y, vjp_x
