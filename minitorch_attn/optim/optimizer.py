from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from ..engine import GraphError, Tensor, array_module, as_tensor, no_grad
from ..engine.backend import Array, device_of, is_array, on_gpu, to_device
from ..engine.dtypes import FLOAT32, accumulator, is_half
from ..engine.many_arrays import writable


class Optimizer:
    """What every optimiser does: it goes over parameters and moves each against its gradient.

    A subclass says in `update` how one parameter is moved, and in `check_settings` which settings
    make sense. It may also say in `launch` how a kernel moves all parameters of a group at once:
    on a GPU that takes the place of `update`.

    What is remembered of a parameter is in float32 at least. Of a parameter in half precision
    that includes its value: most steps are too small to change 8 or 11 bits of it, but add up.

    Parameters
    ----------
    params : iterable of Tensor, or of dict
        What `model.parameters()` gives; or groups, dicts with "params" and settings of their own.
    defaults : dict
        Settings of groups that do not give them.

    Attributes
    ----------
    param_groups : list of dict
        Each with its "params" and its settings, which may be changed between steps.
    state : dict
        What the optimiser remembers of each parameter.

    Raises
    ------
    TypeError
        If `params` holds something that cannot be trained.
    ValueError
        If there are no parameters, one comes twice, or a setting of a group is out of its range.
    """

    launch: Callable[..., None] | None = None

    def __init_subclass__(cls) -> None:
        if "update" in vars(cls) and "launch" not in vars(cls):
            cls.launch = None  # the parent's kernel knows nothing of the new update

    def __init__(self, params: Iterable[Any], defaults: dict[str, Any]):
        if isinstance(params, Tensor) or not isinstance(params, Iterable):
            raise TypeError(
                f"{type(self).__name__} needs several parameters, as model.parameters() gives "
                f"them, not a {type(params).__name__}"
            )
        self.defaults = {name: _plain(value) for name, value in defaults.items()}
        self.state: dict[Tensor, dict[str, Any]] = {}
        self.param_groups: list[dict[str, Any]] = []
        groups = list(params)
        if not groups:
            raise ValueError(
                f"{type(self).__name__} got no parameters: was model.parameters() used up before, "
                "or does the model have none (layers kept in a plain list are not found: use "
                "nn.ModuleList)?"
            )
        for group in groups if isinstance(groups[0], Mapping) else [{"params": groups}]:
            self.add_param_group(group)

    def add_param_group(self, group: Mapping[str, Any]) -> None:
        """Train further parameters, with settings of their own: `{"params": ..., "lr": 0.01}`."""
        params = group["params"]
        params = [params] if isinstance(params, Tensor) else list(params)
        for p in params:
            if not isinstance(p, Tensor):
                raise TypeError(f"an optimiser trains tensors, not a {type(p).__name__}: {p!r}")
            if not p.is_leaf:
                raise TypeError("an optimiser trains parameters, not tensors computed from others")
        known = [p for g in self.param_groups for p in g["params"]]
        if len(set(known + params)) < len(known) + len(params):
            raise ValueError("a parameter must not come twice: it would be moved twice a step")
        if unknown := group.keys() - self.defaults.keys() - {"params", "initial_lr"}:
            raise ValueError(
                f"{type(self).__name__} has no setting {', '.join(map(repr, sorted(unknown)))}, "
                f"only {', '.join(self.defaults)}"
            )
        settings = {**self.defaults, **group}
        settings = {name: _plain(value) for name, value in settings.items() if name != "params"}
        self.check_settings(settings)
        self.param_groups.append({**settings, "params": params})

    def check_settings(self, settings: Mapping[str, Any]) -> None:
        """Raise a ValueError if a setting of a group is out of its range; a subclass says which."""

    def zero_grad(self) -> None:
        """Forget the gradients of all parameters."""
        for group in self.param_groups:
            for p in group["params"]:
                p.zero_grad()

    def step(self) -> None:
        """Move every parameter that has a gradient.

        Raises
        ------
        GraphError
            If none has one.
        """
        moved = 0
        with no_grad():
            for group in self.param_groups:
                params = [p for p in group["params"] if p.grad is not None]
                moved += len(params)
                if self.launch is not None:
                    params = self._launch(params, group)
                for p in params:
                    self._update(p, group)
        if not moved:
            raise GraphError(
                f"{type(self).__name__}.step() found no gradient in any parameter: call "
                "loss.backward() first (and zero_grad() before that, not after)"
            )

    def _state_of(self, p: Tensor) -> dict[str, Any]:
        """What is remembered of a parameter, which may have moved to another device or dtype."""
        state = self.state.setdefault(p, {})
        kept = accumulator(p.dtype)
        for name, value in state.items():
            if is_array(value) and (value.dtype != kept or device_of(value) != p.device):
                state[name] = _restored(value, p, name)
        return state

    def _update(self, p: Tensor, group: Mapping[str, Any]) -> None:
        """Move one parameter; one in half precision by way of its value in float32."""
        state, g = self._state_of(p), p.grad.data  # type: ignore[union-attr]
        if not is_half(p.dtype):
            self.update(p, g, state, group)
            return
        master = _master(p, state)
        rounding = master.astype(p.dtype)
        # Where a parameter is not the rounding any more, somebody has written to it since.
        master[...] = array_module(master).where(rounding == p.data, master, p.data)
        self.update(Tensor(master), g.astype(FLOAT32), state, group)
        p.copy_(master)

    def _launch(self, params: Sequence[Tensor], group: Mapping[str, Any]) -> list[Tensor]:
        """Move the parameters that lie on a GPU, by one kernel for each dtype; return the others.

        The host waits for nothing.
        """
        others: list[Tensor] = []
        by_dtype: dict[np.dtype, list[Tensor]] = {}
        for p in params:
            (others if p.device == "cpu" else by_dtype.setdefault(p.dtype, [])).append(p)
        for dtype, together in by_dtype.items():
            states = [self._state_of(p) for p in together]
            arrays = masters = [writable(p) for p in together]
            if is_half(dtype):
                masters = [_master(p, state) for p, state in zip(together, states)]
            contiguous = array_module(arrays[0]).ascontiguousarray
            gradients = [contiguous(p.grad._data) for p in together]  # type: ignore[union-attr]
            self.launch(arrays, masters, gradients, states, group)  # type: ignore[misc]
        return others

    def update(self, p: Tensor, g: Array, state: dict[str, Any], group: Mapping[str, Any]) -> None:
        """Move one parameter, in place.

        Parameters
        ----------
        p : Tensor
            The parameter.
        g : array
            Its gradient; it must not be written to.
        state : dict
            What to remember of it until the next step. At first it has at most a "master", the
            value of a parameter in half precision; `p` and `g` are in float32 then.
        group : dict
            The settings of its group.
        """
        raise NotImplementedError(f"{type(self).__name__} has no update()")

    def state_dict(self) -> dict[str, Any]:
        """A snapshot: NumPy arrays and plain data only, as `minitorch_attn.save` takes them.

        Returns
        -------
        dict
            "state": what is remembered of each parameter, in the order of the groups.
            "param_groups": the settings of each group, with the numbers of its parameters.
        """
        params = [p for group in self.param_groups for p in group["params"]]
        number = {p: i for i, p in enumerate(params)}
        return {
            "state": [
                {name: _copied(value) for name, value in self.state.get(p, {}).items()}
                for p in params
            ],
            "param_groups": [
                {**group, "params": [number[p] for p in group["params"]]}
                for group in self.param_groups
            ],
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on from a snapshot of an optimiser of the same parameters.

        Raises
        ------
        ValueError
            If groups, settings, parameters or their shapes differ; nothing is loaded then.
        """
        groups = [
            {name: _plain(value) for name, value in group.items() if name != "params"}
            for group in state_dict["param_groups"]
        ]
        for settings in groups:
            if different := (settings.keys() ^ self.defaults.keys()) - {"initial_lr"}:
                raise ValueError(
                    f"the state is of another kind of optimiser than {type(self).__name__}: only "
                    f"one of the two has the setting {', '.join(map(repr, sorted(different)))}"
                )
            self.check_settings(settings)
        sizes = [len(group["params"]) for group in self.param_groups]
        given = [len(group["params"]) for group in state_dict["param_groups"]]
        if sizes != given:
            raise ValueError(
                f"the state is of an optimiser with {given} parameters in its groups, this one "
                f"has {sizes}"
            )
        params = [p for group in self.param_groups for p in group["params"]]
        state = {
            p: {name: _restored(value, p, name) for name, value in remembered.items()}
            for p, remembered in zip(params, state_dict["state"])
            if remembered
        }
        self.state = state
        for group, saved in zip(self.param_groups, groups):
            group.update(saved)

    def __repr__(self) -> str:
        groups = [
            f"{len(group['params'])} parameters, "
            + ", ".join(f"{name}={group[name]}" for name in self.defaults)
            for group in self.param_groups
        ]
        return f"{type(self).__name__}({'; '.join(groups)})"


def _plain(value: Any) -> Any:
    """NumPy's numbers as Python's, which leave float32 arrays float32; a pair as a tuple."""
    value = value.tolist() if isinstance(value, (np.generic, np.ndarray, Tensor)) else value
    return tuple(map(_plain, value)) if isinstance(value, (tuple, list)) else value


def _copied(value: Any) -> Any:
    """A remembered value as it is now, on the CPU."""
    if not is_array(value):
        return value
    return to_device(value, "cpu") if on_gpu(value) else value.copy()


def _master(p: Tensor, state: dict[str, Any]) -> Array:
    """What is remembered of the value of a parameter in half precision, in float32."""
    if "master" not in state:
        state["master"] = p.data.astype(FLOAT32)
    return state["master"]


def _restored(value: Any, p: Tensor, name: str) -> Any:
    """A remembered value, an array of it in float32 or float64 on the device of its parameter."""
    if not isinstance(value, Tensor) and not is_array(value):
        return value
    array = as_tensor(value).data
    if array.shape != p.shape:
        raise ValueError(f"{name!r} of shape {array.shape} is no state of a parameter {p.shape}")
    return to_device(array, p.device).astype(accumulator(p.dtype), order="C", copy=True)


# What the kernels of optimisers share: a parameter in the precision in which it is moved.
PARAMETER = r"""
__device__ acc_t value_of(const T* p, const acc_t* master, long long i) {
    // A half that is not its master's rounding any more has been written to since.
    bool stands_for_master = sizeof(T) == 2 && acc_t(T(master[i])) == acc_t(p[i]);
    return stands_for_master ? master[i] : acc_t(p[i]);
}

__device__ void move_to(acc_t value, T* p, acc_t* master, long long i) {
    p[i] = T(value);
    if (sizeof(T) == 2) master[i] = value;
}
"""


def check_not_negative(settings: Mapping[str, Any], *names: str) -> None:
    """Refuse a setting that is negative, or not a number, by its name."""
    for name in names:
        if not np.isfinite(settings[name]) or settings[name] < 0:
            raise ValueError(f"{name} must be a number of at least 0, not {settings[name]}")
