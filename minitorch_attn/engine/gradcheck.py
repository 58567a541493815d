r"""The gradient checker: a derivative computed by hand against one measured by small steps.

For a function y = f(x) and a random cotangent dy, the rule under test gives
dx_i = sum_j dy_j (dy_j/dx_i). The same number is measured by central differences,

.. math:: dx_i \approx \sum_j dy_j \frac{f_j(x + h e_i) - f_j(x - h e_i)}{2h},

in float64, for every element of every input. A random dy is used because a sum of the outputs
can have a gradient of zero by symmetry (softmax), which many a wrong rule passes.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .backend import Array, as_array
from .diagnosis import diagnose
from .errors import DTypeError, ShapeError
from .graph import sum_to_shape
from .tensor import Tensor, enable_grad, grad, no_grad

STEP = 1e-6  # h where |x| <= 1, else times |x|; rounding makes an error of about 1e-16 f / h


class GradcheckError(AssertionError):
    """A gradient that does not match the measured one; `.report` holds the numbers."""

    def __init__(self, report: GradcheckReport):
        super().__init__(str(report))
        self.report = report


@dataclass
class InputReport:
    """The comparison for one input.

    Attributes
    ----------
    name : str
    analytic, numeric : ndarray
        The gradient under test and the measured one, of the input's shape.
    on_kink : ndarray of bool
        Elements where the function has a kink or a jump, which are not compared.
    ok : bool
    diagnosis : str
        The pattern of the error in words, if a known one fits.
    warning : str
        Why the comparison proves little, if it does.
    """

    name: str
    analytic: np.ndarray
    numeric: np.ndarray
    on_kink: np.ndarray
    ok: bool
    diagnosis: str = ""
    warning: str = ""

    @property
    def error(self) -> np.ndarray:
        """Absolute error, elementwise; 0 on kinks, and NaN throughout if the shapes differ."""
        if self.analytic.shape != self.numeric.shape:
            return np.full(self.numeric.shape, np.nan)
        return np.where(self.on_kink, 0.0, np.abs(self.analytic - self.numeric))

    @property
    def max_error(self) -> float:
        """The largest absolute error."""
        return float(self.error.max(initial=0.0))

    def __str__(self) -> str:
        unknown = self.on_kink.size and self.on_kink.all()
        verdict = "ok" if self.ok else "NOT CHECKED" if unknown else "WRONG"
        line = f"{self.name} {self.numeric.shape}: {verdict}"
        if verdict == "WRONG" and self.analytic.shape == self.numeric.shape:
            worst = np.unravel_index(np.argmax(self.error), self.error.shape)
            at = "" if not worst else f" at {tuple(map(int, worst))}"
            line += (
                f", largest error {self.max_error:.2g}{at}: got {self.analytic[worst]:.6g}, "
                f"measured {self.numeric[worst]:.6g}"
            )
        if self.diagnosis:
            line += f"\n    pattern: {self.diagnosis}"
        if self.on_kink.any():
            line += f"\n    {int(self.on_kink.sum())} of {self.on_kink.size} elements on a kink"
        return line + (f"\n    warning: {self.warning}" if self.warning else "")


@dataclass
class GradcheckReport:
    """The comparison for every input of a function; true if all are right."""

    function: str
    inputs: list[InputReport] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether every input's gradient is right."""
        return all(i.ok for i in self.inputs)

    @property
    def max_error(self) -> float:
        """The largest absolute error over all inputs."""
        return max((i.max_error for i in self.inputs), default=0.0)

    def __bool__(self) -> bool:
        return self.ok

    def __str__(self) -> str:
        verdict = "passed" if self.ok else "FAILED"
        return "\n  ".join([f"gradcheck of {self.function} {verdict}", *map(str, self.inputs)])

    __repr__ = __str__


def gradcheck(
    f: Callable[..., Tensor],
    *inputs: Any,
    rtol: float = 1e-5,
    atol: float = 1e-7,
    seed: int = 0,
    raise_on_failure: bool = True,
) -> GradcheckReport:
    """Check the gradients that `backward()` gives for a function of tensors.

    Every floating-point input is checked on its own, in float64, and if `f` is a Module every
    parameter too.

    Parameters
    ----------
    f : callable
        Takes the inputs as tensors and returns one tensor. It must be deterministic.
    *inputs : array_like or Tensor
        Values to check at; floats are copied to float64, integers are passed as they are.
    rtol, atol : float
        An element passes if |analytic - numeric| <= rtol * |numeric| + atol * s, with s the
        largest of 1, |numeric| and |f|: differences cannot be measured more finely.
    seed : int
        Seed of the random cotangents.
    raise_on_failure : bool
        Raise on a wrong gradient; otherwise only report it.

    Returns
    -------
    GradcheckReport
        Numbers, patterns and warnings; true if all is right.

    Raises
    ------
    GradcheckError
        If a gradient is wrong.
    DTypeError
        If the function or a parameter of the module is not float64.
    ValueError
        If the function gives another result on a second call, is NaN or infinite at the inputs,
        or changes them.
    """
    tensors = [Tensor(_float64(x)) for x in inputs]
    variables = {
        f"input {i}": t for i, t in enumerate(tensors) if t.dtype.kind == "f"
    } | _parameters(f)

    def evaluate() -> Array:
        with no_grad():
            y = f(*tensors)
        if not isinstance(y, Tensor):
            raise TypeError(f"{_name_of(f)} must return a tensor, it returned {type(y).__name__}")
        return y._data

    def pull_back(name: str, dy: Array) -> Array:
        return _backward(f, tensors, variables, name, dy)

    arrays = {name: t._data for name, t in variables.items()}
    report = _compare_all(_name_of(f), arrays, evaluate, pull_back, rtol, atol, seed)
    return _raised_if(raise_on_failure, report)


def check_vjp(
    f: Callable[..., tuple[np.ndarray, Any]],
    *inputs: Any,
    rtol: float = 1e-5,
    atol: float = 1e-7,
    seed: int = 0,
    raise_on_failure: bool = True,
    **settings: Any,
) -> GradcheckReport:
    """Check the rules of a function of arrays in the form of a primitive.

    Parameters
    ----------
    f : callable
        ``f(*arrays, **settings) -> (y, rule)`` or ``(y, (rule, rule, ...))``; a rule of None
        (an input without gradient) is skipped. A `@primitive` is checked through the function
        it was made of, with broadcasting undone as the engine does it.
    *inputs : array_like
        Values to check at; floats are copied to float64.
    rtol, atol, seed, raise_on_failure
        As in `gradcheck`.
    **settings
        Passed on to `f`.

    Returns
    -------
    GradcheckReport
        Numbers, patterns and warnings; true if all is right.

    Raises
    ------
    GradcheckError
        If a rule is wrong.
    TypeError
        If `f` does not return an output and one rule per input.
    ValueError
        As in `gradcheck`; also if a rule changes dy.
    """
    function = inspect.unwrap(f)
    given = [_float64(x) for x in inputs]
    names = _argument_names(function, len(given))

    def call(arrays: Sequence[Array] = given) -> tuple[Array, Sequence]:
        result = function(*arrays, **settings)
        if not isinstance(result, tuple) or len(result) != 2:
            raise TypeError(f"{_name_of(f)} must return (output, rules), as @primitive describes")
        y, rules = result
        rules = rules if isinstance(rules, (tuple, list)) else (rules,)
        if len(rules) != len(given):
            raise TypeError(f"{_name_of(f)} returned {len(rules)} rules for {len(given)} inputs")
        return as_array(y, _name_of(f)), rules

    def pull_back(name: str, dy: Array) -> Array:
        index = names.index(name)
        dx = as_array(call()[1][index](dy), f"the rule for {name!r}")
        return dx if function is f else _undo_broadcast(dx, given[index].shape)

    _, rules = call([x.copy() for x in given])
    arrays = {
        name: x
        for name, x, rule in zip(names, given, rules)
        if rule is not None and x.dtype.kind == "f"
    }
    report = _compare_all(_name_of(f), arrays, lambda: call()[0], pull_back, rtol, atol, seed)
    return _raised_if(raise_on_failure, report)


# -- what both share --------------------------------------------------------------------------


def _compare_all(
    function: str,
    arrays: dict[str, Array],
    evaluate: Callable[[], Array],
    pull_back: Callable[[str, Array], Array],
    rtol: float,
    atol: float,
    seed: int,
) -> GradcheckReport:
    if not arrays:
        raise ValueError(f"{function} has no floating-point input to check")
    pristine = {name: x.copy() for name, x in arrays.items()}
    y = evaluate().copy()
    _check_unchanged(function, arrays, pristine)
    _check_measurable(function, y, evaluate())
    # Not default_rng(seed): the inputs may well be its numbers, and dy must not depend on them.
    dy = np.random.default_rng([seed, 1]).standard_normal(y.shape)
    report = GradcheckReport(function)
    for name, x in arrays.items():
        numeric, on_kink = _measure(evaluate, x, y, dy)
        given_dy = dy.copy()
        analytic = pull_back(name, given_dy)
        _check_unchanged(f"a rule of {function}", arrays | {"dy": given_dy}, pristine | {"dy": dy})
        report.inputs.append(_judge(name, analytic, numeric, on_kink, y, rtol, atol))
    return report


def _check_unchanged(who: str, arrays: dict[str, Array], before: dict[str, Array]) -> None:
    for name, x in arrays.items():
        if not np.array_equal(x, before[name]):
            raise ValueError(f"{who} changes {name} in place: compute with a copy of it")


def _check_measurable(function: str, y: Array, again: Array) -> None:
    if y.dtype != np.float64:
        raise DTypeError(
            f"{function} returned {y.dtype} for float64 inputs: small steps need float64 throughout"
        )
    if not np.isfinite(y).all():
        raise ValueError(f"{function} gives NaN or infinity at these inputs: check at others")
    if not np.array_equal(y, again):
        raise ValueError(
            f"{function} gives another result on a second call with the same inputs: fix its "
            "random numbers (generator=np.random.default_rng(0) made inside), or call .eval()"
        )


def _measure(
    evaluate: Callable[[], Array], x: Array, y: Array, dy: Array
) -> tuple[np.ndarray, np.ndarray]:
    """Central differences of sum(dy * f) in every element of x, and where f has a kink."""
    numeric, on_kink = np.zeros(x.shape), np.zeros(x.shape, dtype=bool)
    for index in np.ndindex(x.shape):
        slope, on_kink[index] = _slope(evaluate, x, index, y)
        numeric[index] = (slope * dy).sum()
    return numeric, on_kink


def _slope(
    evaluate: Callable[[], Array], x: Array, index: tuple[int, ...], y: Array
) -> tuple[Array, bool]:
    """The slope of every output in one element of x, and whether the element is on a kink.

    Where the slopes ahead and behind are far apart, the step is made smaller: at a kink the gap
    stays, at a jump it grows, from curvature it shrinks. It also shrinks when the step no longer
    reaches a kink nearby, but then the mean of the two slopes changes: on to a smaller one.
    """
    step = STEP * max(1.0, abs(x[index]))
    ahead, behind = _one_sided_slopes(evaluate, x, index, y, step)
    while True:
        slope, gap = (ahead + behind) / 2, np.abs(ahead - behind)
        wide = ~(gap <= 1e-4 * (1 + np.abs(y)))  # also where it is NaN: outside of f's domain
        if not wide.any():
            return slope, False
        step /= 4
        ahead, behind = _one_sided_slopes(evaluate, x, index, y, step)
        finer = (ahead + behind) / 2
        if not (np.abs(ahead - behind) < 0.6 * gap)[wide].all():
            return finer, True
        if (np.abs(finer - slope) <= 1e-6 * (1 + np.abs(finer))).all():
            return finer, False


def _one_sided_slopes(
    evaluate: Callable[[], Array], x: Array, index: tuple[int, ...], y: Array, step: float
) -> tuple[Array, Array]:
    value = x[index].copy()
    with np.errstate(all="ignore"):
        x[index] = value + step
        ahead = (evaluate() - y) / step
        x[index] = value - step
        behind = (y - evaluate()) / step
    x[index] = value
    return ahead, behind


def _judge(
    name: str,
    analytic: Array,
    numeric: np.ndarray,
    on_kink: np.ndarray,
    y: Array,
    rtol: float,
    atol: float,
) -> InputReport:
    compared = InputReport(name, analytic, numeric, on_kink, ok=False)
    smooth = np.where(on_kink, 0.0, numeric)
    noise = atol * max(1.0, np.abs(smooth).max(initial=0.0), np.abs(y).max(initial=0.0))
    compared.ok = bool((compared.error <= noise + rtol * np.abs(smooth)).all())  # not if NaN
    if not compared.ok:
        same_shape = analytic.shape == numeric.shape
        shown = np.where(on_kink, 0.0, analytic) if same_shape else analytic
        compared.diagnosis = diagnose(shown, smooth, y.shape)
    if not numeric.size:
        compared.warning = "empty: nothing was compared"
    elif on_kink.all():
        compared.ok = False
        compared.warning = "every element sits on a kink: nothing was compared, move the input"
    elif np.abs(smooth).max() <= noise:
        compared.warning = (
            "the gradient is zero here, so a rule that does nothing passes as well: check at "
            "other values (is a scale or gate initialised to zero, or a unit dead?)"
        )
    return compared


def _backward(
    f: Callable[..., Tensor],
    tensors: Sequence[Tensor],
    variables: dict[str, Tensor],
    name: str,
    dy: Array,
) -> Array:
    """The gradient of one variable alone, all others held constant."""
    wanted = variables[name]
    before = {key: t.requires_grad for key, t in variables.items()}
    for t in variables.values():
        t.requires_grad = t is wanted
    try:
        with enable_grad():
            y = f(*tensors)
        (dx,) = grad(y, wanted, dy, allow_unused=True) if y.requires_grad else (None,)
        return np.zeros(wanted.shape) if dx is None else dx._data
    finally:
        for key, t in variables.items():
            t.requires_grad = before[key]


def _parameters(f: Any) -> dict[str, Tensor]:
    parameters = dict(f.named_parameters()) if hasattr(f, "named_parameters") else {}
    for name, p in parameters.items():
        if p.dtype != np.float64:
            raise DTypeError(
                f"parameter {name!r} is {p.dtype}: small steps need float64, call .double() first"
            )
    return parameters


def _float64(x: Any) -> Array:
    """A copy of an input, in float64 if it is made of floats."""
    array = np.array(x.numpy() if isinstance(x, Tensor) else x)
    return array.astype(np.float64) if array.dtype.kind == "f" else array


def _undo_broadcast(dx: Array, shape: tuple[int, ...]) -> Array:
    try:
        return dx if dx.shape == shape else sum_to_shape(dx, shape)
    except ShapeError:
        return dx  # the report says that its shape is wrong


def _argument_names(f: Callable, count: int) -> list[str]:
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    names = [n for n, p in inspect.signature(f).parameters.items() if p.kind in kinds][:count]
    return names + [f"input {i}" for i in range(len(names), count)]


def _name_of(f: Any) -> str:
    return getattr(f, "__name__", type(f).__name__)


def _raised_if(wanted: bool, report: GradcheckReport) -> GradcheckReport:
    if wanted and not report.ok:
        raise GradcheckError(report)
    return report
