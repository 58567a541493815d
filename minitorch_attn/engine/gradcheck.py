r"""The gradient checker: a derivative computed by hand against one measured by small steps.

For a function y = f(x) and a random cotangent dy, the rule under test gives
dx_i = sum_j dy_j (dy_j/dx_i). The same number is measured by central differences,

.. math:: dx_i \approx \sum_j dy_j \frac{f_j(x + h e_i) - f_j(x - h e_i)}{2h},

in float64, for every element of every input. A random dy is used because a sum of the outputs
can have a gradient of zero by symmetry (softmax), which every wrong rule passes.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .backend import to_device
from .diagnosis import diagnose
from .errors import DTypeError
from .graph import sum_to_shape
from .tensor import Tensor, enable_grad, grad, no_grad

STEP = 1e-6  # error of central differences: about h^2 from curvature, 1e-16 / h from rounding


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
        verdict = "ok" if self.ok else "WRONG"
        line = f"{self.name} {self.numeric.shape}: {verdict}"
        if not self.ok and self.analytic.shape == self.numeric.shape:
            worst = np.unravel_index(np.nanargmax(self.error), self.error.shape)
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
        An element passes if |analytic - numeric| <= atol + rtol * max |numeric|.
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
        If a parameter of the module is not float64.
    """
    tensors = [_float64_tensor(x) for x in inputs]
    variables = {
        f"input {i}": t for i, t in enumerate(tensors) if t.dtype.kind == "f"
    } | _parameters(f)

    def evaluate() -> np.ndarray:
        with no_grad():
            return to_device(f(*tensors)._data, "cpu").copy()

    def pull_back(name: str, dy: np.ndarray) -> np.ndarray:
        return _backward(f, tensors, variables, name, dy)

    arrays = {name: t._data for name, t in variables.items()}
    report = _compare_all(_name_of(f), arrays, evaluate, pull_back, rtol, atol, seed)
    return _finish(report, raise_on_failure)


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
    """
    function = inspect.unwrap(f)
    given = [_float64_array(x) for x in inputs]
    names = _argument_names(function, len(given))
    _, rules = function(*given, **settings)
    rules = rules if isinstance(rules, (tuple, list)) else (rules,)
    if len(rules) != len(given):
        raise TypeError(f"{_name_of(f)} returned {len(rules)} rules for {len(given)} inputs")
    checked = [i for i, rule in enumerate(rules) if rule is not None and given[i].dtype.kind == "f"]

    def evaluate() -> np.ndarray:
        return np.array(function(*given, **settings)[0], dtype=np.float64)

    def pull_back(name: str, dy: np.ndarray) -> np.ndarray:
        _, rules = function(*given, **settings)
        index = names.index(name)
        dx = np.asarray((rules if isinstance(rules, (tuple, list)) else (rules,))[index](dy))
        return _undo_broadcast(dx, given[index].shape) if function is not f else dx

    arrays = {names[i]: given[i] for i in checked}
    report = _compare_all(_name_of(f), arrays, evaluate, pull_back, rtol, atol, seed)
    return _finish(report, raise_on_failure)


def _compare_all(
    function: str,
    arrays: dict[str, np.ndarray],
    evaluate: Callable[[], np.ndarray],
    pull_back: Callable[[str, np.ndarray], np.ndarray],
    rtol: float,
    atol: float,
    seed: int,
) -> GradcheckReport:
    y = evaluate()
    if not np.array_equal(y, evaluate(), equal_nan=True):
        raise ValueError(
            f"{function} gives another result on a second call with the same inputs: fix its "
            "random numbers (generator=np.random.default_rng(0) made inside), or call .eval()"
        )
    dy = np.random.default_rng(seed).standard_normal(y.shape)
    report = GradcheckReport(function)
    for name, x in arrays.items():
        numeric, on_kink = _measure(evaluate, x, y, dy)
        analytic = np.array(to_device(pull_back(name, dy), "cpu"), dtype=np.float64)
        report.inputs.append(_judge(name, analytic, numeric, on_kink, y.shape, rtol, atol))
    if not arrays:
        raise ValueError(f"{function} has no floating-point input to check")
    return report


def _judge(
    name: str,
    analytic: np.ndarray,
    numeric: np.ndarray,
    on_kink: np.ndarray,
    output_shape: tuple[int, ...],
    rtol: float,
    atol: float,
) -> InputReport:
    compared = InputReport(name, analytic, numeric, on_kink, ok=False)
    tolerance = atol + rtol * np.abs(numeric[~on_kink]).max(initial=0.0)
    compared.ok = bool((compared.error <= tolerance).all())  # NaN compares as false
    if not compared.ok:
        same_shape = analytic.shape == numeric.shape
        shown = np.where(on_kink, numeric, analytic) if same_shape else analytic
        compared.diagnosis = diagnose(shown, numeric, output_shape)
    if numeric.size and on_kink.all():
        compared.ok = False
        compared.warning = "every element sits on a kink: nothing was compared, move the input"
    elif numeric.size and np.abs(numeric[~on_kink]).max(initial=0.0) < 1e-8:
        compared.warning = (
            "the gradient is zero here, so a rule that does nothing passes as well: check at "
            "other values (is a scale or gate initialised to zero, or a unit dead?)"
        )
    return compared


def _measure(
    evaluate: Callable[[], np.ndarray], x: np.ndarray, y: np.ndarray, dy: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Central differences of sum(dy * f) in every element of x, and where f has a kink."""
    numeric, on_kink = np.zeros(x.shape), np.zeros(x.shape, dtype=bool)
    for index in np.ndindex(x.shape):
        ahead, behind = _one_sided_slopes(evaluate, x, index, y, STEP)
        numeric[index] = ((ahead + behind) / 2 * dy).sum()
        on_kink[index] = _is_kink(evaluate, x, index, y, np.abs(ahead - behind))
    return numeric, on_kink


def _one_sided_slopes(
    evaluate: Callable[[], np.ndarray], x: np.ndarray, index: tuple, y: np.ndarray, step: float
) -> tuple[np.ndarray, np.ndarray]:
    value = x[index].copy()
    x[index] = value + step
    ahead = (evaluate() - y) / step
    x[index] = value - step
    behind = (y - evaluate()) / step
    x[index] = value
    return ahead, behind


def _is_kink(
    evaluate: Callable[[], np.ndarray], x: np.ndarray, index: tuple, y: np.ndarray, gap: np.ndarray
) -> bool:
    """Whether the slopes ahead and behind differ, and still do with a smaller step.

    In a smooth function their gap is h f'' and shrinks with the step h; at a kink it stays, at
    a jump it grows.
    """
    if not (gap > 1e-4 * (1 + np.abs(y))).any():
        return False
    ahead, behind = _one_sided_slopes(evaluate, x, index, y, STEP / 4)
    return bool((np.abs(ahead - behind) > 0.6 * gap)[gap > 1e-4 * (1 + np.abs(y))].any())


def _backward(
    f: Callable[..., Tensor],
    tensors: Sequence[Tensor],
    variables: dict[str, Tensor],
    name: str,
    dy: np.ndarray,
) -> np.ndarray:
    """The gradient of one variable alone, all others held constant."""
    wanted = variables[name]
    before = {key: t.requires_grad for key, t in variables.items()}
    for t in variables.values():
        t.requires_grad = t is wanted
    try:
        with enable_grad():
            y = f(*tensors)
            return grad(y, wanted, dy)[0]._data if y.requires_grad else np.zeros(wanted.shape)
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


def _float64_tensor(x: Any) -> Tensor:
    return Tensor(_float64_array(x))


def _float64_array(x: Any) -> np.ndarray:
    array = np.array(x._data if isinstance(x, Tensor) else x)
    return array.astype(np.float64) if array.dtype.kind == "f" else array


def _undo_broadcast(dx: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    return dx if dx.shape == shape else sum_to_shape(dx, shape)


def _argument_names(f: Callable, count: int) -> list[str]:
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    names = [n for n, p in inspect.signature(f).parameters.items() if p.kind in kinds][:count]
    return names + [f"input {i}" for i in range(len(names), count)]


def _name_of(f: Any) -> str:
    return getattr(f, "__name__", type(f).__name__)


def _finish(report: GradcheckReport, raise_on_failure: bool) -> GradcheckReport:
    if raise_on_failure and not report.ok:
        raise GradcheckError(report)
    return report
