"""Mixed precision: products in 16 bits, what is delicate in float32, gradients kept in range.

A training step in mixed precision::

    scaler = mt.amp.GradScaler()
    with mt.autocast("float16"):
        loss = F.cross_entropy(model(x), y)
    scaler.scale(loss).backward()
    scaler.step(optimizer)
    scaler.update()

bfloat16 has the range of float32 and needs no scaler.

References
----------
Micikevicius et al., "Mixed Precision Training" (2018).
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from .engine import DTypeError, GraphError, Tensor, array_module, as_tensor, no_grad
from .engine.autocast import Precision
from .engine.backend import Array, is_array, on_gpu
from .engine.dtypes import FLOAT32, FLOAT64, as_dtype, is_floating, is_half
from .engine.graph import mode
from .engine.kernels import FLOATS, Kernel
from .engine.many_arrays import PARTS, by_dtype, launch_over, writable
from .engine.mutation import tick, written_since
from .ops.conversion import astype
from .optim import Optimizer

__all__ = ["GradScaler", "autocast"]


@contextlib.contextmanager
def autocast(dtype: Any = "float16", enabled: bool = True) -> Iterator[None]:
    """Choose the precision of every operation inside, in this thread.

    Products (linear maps, matrix products, convolutions, attention, recurrent layers) take their
    inputs in the low precision. Operations that lose digits there (softmax, losses, logarithms,
    sums, norms and the like) take theirs in float32. All others compute in the widest type of
    their inputs. `engine/autocast.py` has the lists.

    Parameters stay in float32: each is cast where it is used, once in a block, and its gradient
    comes back in float32. Where a float64 takes part, nothing is cast.

    The backward pass and the optimiser's step belong outside of the block: a backward pass
    computes each gradient in the precision of the operation. May also decorate a function:
    ``@autocast("float16")``. It names no device (PyTorch's `device_type`): it holds on all.

    Parameters
    ----------
    dtype : "float16" or "bfloat16"
        The low precision. float16 keeps 11 bits of each number between 6e-5 and 65504, bfloat16
        8 bits in the range of float32; linear maps in bfloat16 need a card of compute capability
        8.0 or more.
    enabled : bool
        False computes in the inputs' own precision, also within another such block.

    Raises
    ------
    DTypeError
        If the dtype is neither.
    ImportError
        If bfloat16 is asked for, and the package that brings it to NumPy is not installed.
    """
    before = mode.autocast
    mode.autocast = _Casts(as_dtype(dtype)) if enabled else None
    try:
        yield
    finally:
        mode.autocast = before


class _Casts:
    """The inputs of operations as their precision asks for, with the casts of parameters kept."""

    def __init__(self, low: np.dtype):
        if not is_half(low):
            raise DTypeError(
                f"autocast computes products in 'float16' or 'bfloat16', not {low}; "
                "enabled=False computes them in their inputs' own precision"
            )
        self.low = low
        # id of a parameter's array, and whether its cast is recorded -> (array, cast, when)
        self.kept: dict[tuple[int, bool], tuple[Array, Tensor, int]] = {}

    def __call__(self, inputs: tuple, precision: Precision) -> tuple:
        dtypes = [x.dtype for x in inputs if isinstance(x, Tensor) or is_array(x)]
        if FLOAT64 in dtypes:
            return inputs
        dtype = self.low if precision == "low" else FLOAT32
        return tuple(self._cast(x, dtype) for x in inputs)

    def _cast(self, x: Any, dtype: np.dtype) -> Any:
        if not (isinstance(x, Tensor) or is_array(x)) or x.dtype == dtype:
            return x
        if not is_floating(x.dtype):
            return x
        x = as_tensor(x)
        if x.requires_grad and x.is_leaf:
            return self._cast_once(x, dtype)
        return astype(x, dtype=dtype)

    def _cast_once(self, parameter: Tensor, dtype: np.dtype) -> Tensor:
        """The cast that was made before, unless the parameter or the graph has changed since."""
        values = parameter._data
        key = id(values), mode.recording
        if key in self.kept:
            array, cast, when = self.kept[key]
            released = cast._node is not None and cast._node.edges is None
            if cast.dtype == dtype and not released and not written_since(array, when):
                return cast
        cast = astype(parameter, dtype=dtype)
        self.kept[key] = values, cast, tick()
        return cast


class GradScaler:
    """Gradients that would vanish in float16, kept in its range by scaling the loss.

    float16 has no numbers between 0 and 6e-8, and many gradients are smaller. A loss that is
    multiplied by a large number makes every gradient that much larger; before the optimiser's
    step they are divided by it, in float32. Where that overflows, the step is left out and the
    number made smaller; after many steps without overflow it is tried larger again.

    A step reads one flag from the GPU: whether all gradients were finite.

    Parameters
    ----------
    init_scale : float
        The first factor of the loss.
    growth_factor : float
        What the scale is multiplied by after `growth_interval` steps without overflow; above 1.
    backoff_factor : float
        What the scale is multiplied by after a step that was left out; below 1.
    growth_interval : int
        How many steps without overflow it takes.
    enabled : bool
        False does nothing: `scale` returns its argument, `step` takes the optimiser's step.

    Raises
    ------
    ValueError
        If a setting is out of its range.
    TypeError
        If a device is given, as PyTorch's scaler takes one.

    References
    ----------
    Micikevicius et al., "Mixed Precision Training" (2018), section 3.2; the rule by which the
    scale is moved is PyTorch's.
    """

    def __init__(
        self,
        init_scale: float = 65536.0,
        growth_factor: float = 2.0,
        backoff_factor: float = 0.5,
        growth_interval: int = 2000,
        enabled: bool = True,
    ):
        if isinstance(init_scale, str):
            raise TypeError(
                f"init_scale is the first factor of the loss, not {init_scale!r}: a GradScaler "
                "names no device, it works where the gradients lie"
            )
        if not (0 < init_scale < math.inf and growth_factor > 1 and 0 < backoff_factor < 1):
            raise ValueError(
                "GradScaler needs init_scale above 0, growth_factor above 1 and backoff_factor "
                f"between 0 and 1, not {init_scale}, {growth_factor} and {backoff_factor}"
            )
        if growth_interval < 1:
            raise ValueError(f"growth_interval must be at least 1 step, not {growth_interval}")
        self.growth_factor = growth_factor
        self.backoff_factor = backoff_factor
        self.growth_interval = growth_interval
        self.enabled = enabled
        self._scale = float(init_scale)
        self._growth_tracker = 0
        self._all_finite: dict[Optimizer, bool] = {}  # of the optimisers since the last update()

    def get_scale(self) -> float:
        """The factor of the loss now; 1 if not enabled."""
        return self._scale if self.enabled else 1.0

    def is_enabled(self) -> bool:
        """Whether it does anything."""
        return self.enabled

    def scale(self, loss: Tensor) -> Tensor:
        """The loss times the scale, in float32 at least: call `backward()` of this one."""
        if not self.enabled:
            return loss
        if is_half(loss.dtype):
            loss = astype(loss, dtype=FLOAT32)
        return loss * self._scale

    def unscale_(self, optimizer: Optimizer) -> bool:
        """Divide the gradients of an optimiser's parameters by the scale, once before its step.

        Needed only to look at them before: `clip_grad_norm_` for example. `step` does it itself.

        Returns
        -------
        bool
            Whether all of them are finite; True if not enabled, which looks at none.

        Raises
        ------
        GraphError
            If it was done since the last `update()`, or no parameter has a gradient.
        DTypeError
            If gradients are in float16: they would vanish after all.
        """
        if not self.enabled:
            return True
        if optimizer in self._all_finite:
            raise GraphError("unscale_(): the gradients of this optimiser are unscaled already")
        params = [p for group in optimizer.param_groups for p in group["params"]]
        params = [p for p in params if p.grad is not None]
        if not params:
            raise GraphError("GradScaler found no gradient: call scale(loss).backward() first")
        if any(p.dtype == np.float16 for p in params):
            raise DTypeError(
                "GradScaler: gradients in float16 would vanish when they are unscaled: keep the "
                "parameters in float32, and let mt.autocast('float16') cast them where it pays"
            )
        self._all_finite[optimizer] = scale_gradients(params, 1 / self._scale)
        return self._all_finite[optimizer]

    def step(self, optimizer: Optimizer) -> bool:
        """Take the optimiser's step, unless a gradient is infinite or not a number.

        Returns
        -------
        bool
            Whether the step was taken.
        """
        if not self.enabled:
            optimizer.step()
            return True
        if optimizer not in self._all_finite:
            self.unscale_(optimizer)
        if self._all_finite[optimizer]:
            optimizer.step()
        return self._all_finite[optimizer]

    def update(self) -> None:
        """Move the scale, after the steps of all optimisers.

        Raises
        ------
        GraphError
            If no step was tried since the last time.
        """
        if not self.enabled:
            return
        if not self._all_finite:
            raise GraphError("GradScaler.update() follows step(): no gradient was looked at yet")
        if not all(self._all_finite.values()):
            self._scale *= self.backoff_factor
            self._growth_tracker = 0
        else:
            self._growth_tracker += 1
            if self._growth_tracker == self.growth_interval:
                self._scale *= self.growth_factor
                self._growth_tracker = 0
        self._all_finite.clear()

    def state_dict(self) -> dict[str, float]:
        """What a checkpoint needs: the settings, the scale, and the steps since it was moved."""
        return {name: getattr(self, attribute) for name, attribute in _STATE.items()}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on from a checkpoint."""
        for name, attribute in _STATE.items():
            setattr(self, attribute, type(getattr(self, attribute))(state_dict[name]))


_STATE = {
    "scale": "_scale",
    "growth_factor": "growth_factor",
    "backoff_factor": "backoff_factor",
    "growth_interval": "growth_interval",
    "_growth_tracker": "_growth_tracker",
}


SCALE = Kernel(
    "scale",
    PARTS
    + r"""
// Multiply by a factor, and set a flag where a number is infinite or none.
extern "C" __global__ void scale(const long long* table, long long arrays, double factor,
                                 int* flag) {
    Part part = part_of_block(table, arrays);
    T* x = array_of<T>(table, arrays, part, 0);
    bool finite = true;
    FOR_EACH_OF(part, i) {
        acc_t value = x[i];
        finite = finite && value - value == 0;
        if (factor != 1) x[i] = T(value * acc_t(factor));
    }
    if (!finite) *flag = 1;  // whoever writes it writes the same
}
""",
    variants=[{"T": T} for T in FLOATS],
)


def scale_gradients(parameters: Sequence[Tensor], factor: float = 1.0) -> bool:
    """Multiply gradients by a number, in place, and say whether all of them were finite.

    On a GPU that is a launch for each dtype, and one flag that is waited for.
    """
    gradients = [p.grad for p in parameters if p.grad is not None]
    if not gradients or not on_gpu(gradients[0].data):
        finite = [_scale(gradient, factor) for gradient in gradients]
        return all(finite)
    flag = array_module(gradients[0].data).zeros((), np.int32)
    for arrays in by_dtype(map(writable, gradients)):
        launch_over(SCALE, [arrays], float(factor), flag, T=arrays[0].dtype)
    return not flag.item()


def _scale(gradient: Tensor, factor: float) -> bool:
    values = gradient.data
    # A sum is NaN or infinite if one of its terms is, and takes no memory. Large terms can make
    # it infinite too: only then each is looked at.
    with np.errstate(over="ignore", invalid="ignore"):
        finite = math.isfinite(float(values.sum())) or bool(np.isfinite(values).all())
    if factor != 1:
        with no_grad(), np.errstate(invalid="ignore"):
            gradient *= factor
    return finite
