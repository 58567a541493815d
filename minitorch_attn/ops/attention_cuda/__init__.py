"""Softmax attention on a GPU: what launches the kernels that stand beside this file.

`tiles.cuh` has the products, `scores.cuh` the derivation and what becomes of scores, and each `.cu`
file a kernel. Scores stay in registers: nothing of the size L x S is written, except for the
gradient of a bias of that size.
"""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from ...engine import array_module
from ...engine.backend import Array, get_float32_matmul_precision, has_matrix_units
from ...engine.kernels import FLOATS, Kernel
from ..attention_tiles import Mask, Noise

HERE = Path(__file__).parent
MOST_FEATURES, MOST_BYTES = 128, 512  # of a token: more do not fit into registers
STEP = 16  # the kernels' features are multiples of it


def fits(dtype: np.dtype, *features: int) -> bool:
    """Whether the kernels take tokens of so many features."""
    widest = max(map(_padded, features))
    return widest <= MOST_FEATURES and widest * dtype.itemsize <= MOST_BYTES


class Attention(NamedTuple):
    """Attention of N queries (L, D) to as many keys (S, D) and values (S, Dv)."""

    query: Array  # (N, L, D)
    key: Array  # (N, S, D)
    value: Array  # (N, S, Dv)
    scale: float
    mask: Mask | None  # of booleans, or of numbers to add to the scores
    is_causal: bool
    noise: Noise

    def forward(self) -> tuple[Array, Array]:
        """Output (N, L, Dv), and the base-2 logarithm of each query's sum of powers (N, L)."""
        xp, (N, L, _), Dv = array_module(self.value), self.query.shape, self.value.shape[2]
        y = xp.empty((N, L, _padded(Dv)), self.value.dtype)
        log_sum = xp.empty((N, L), _accumulator(y.dtype))
        tiling = self._tiling(backward=False)
        blocks = N * -(-L // tiling.rows)
        self._launch(FORWARD, tiling, blocks, *self._padded_inputs(), y, log_sum)
        return _cut(y, Dv), log_sum

    def backward(self, y: Array, log_sum: Array, dy: Array) -> tuple[Array, Array, Array]:
        """Gradients of the queries, the keys and the values."""
        xp, D, Dv = array_module(y), self.query.shape[2], self.value.shape[2]
        inputs = *self._padded_inputs(), _with_zeros(dy)
        dq, dk, dv = map(xp.empty_like, inputs[:3])
        along = self._along(y, dy)
        tiling = self._tiling(backward=True)
        N, L, S = len(dq), dq.shape[1], dk.shape[1]
        self._launch(DQ, tiling, N * -(-L // tiling.rows), *inputs, log_sum, along, dq)
        self._launch(DK_DV, tiling, N * -(-S // tiling.rows), *inputs, log_sum, along, dk, dv)
        return _cut(dq, D), _cut(dk, D), _cut(dv, Dv)

    def backward_to_bias(self, y: Array, log_sum: Array, dy: Array) -> Array:
        """Gradient of the numbers that were added to the scores: (M, L or 1, S or 1)."""
        assert self.mask is not None
        xp, (N, L, _), S = array_module(y), self.query.shape, self.key.shape[1]
        M = len(self.mask.values)
        dbias = xp.empty((M, L, S), log_sum.dtype)
        tiling = self._tiling(backward=True)
        blocks = M * -(-L // tiling.rows) * -(-S // tiling.columns)
        inputs = *self._padded_inputs(), _with_zeros(dy)
        self._launch(DBIAS, tiling, blocks, *inputs, log_sum, self._along(y, dy), dbias, N)
        stretched = tuple(axis for axis, n in enumerate(self.mask.values.shape) if axis and n == 1)
        return dbias.sum(axis=stretched, keepdims=True)

    def _padded_inputs(self) -> tuple[Array, Array, Array]:
        return _with_zeros(self.query), _with_zeros(self.key), _with_zeros(self.value)

    def _along(self, y: Array, dy: Array) -> Array:
        """dy_i . y_i of each query."""
        xp, (N, L, Dv) = array_module(y), y.shape
        along = xp.empty((N, L), _accumulator(y.dtype))
        dy, y = xp.ascontiguousarray(dy), xp.ascontiguousarray(y)
        ALONG(-(-N * L // 8), 256, dy, y, along, N * L, Dv, T=y.dtype)
        return along

    def _tiling(self, backward: bool) -> Tiling:
        dtype, D, Dv = self.value.dtype, self.query.shape[2], self.value.shape[2]
        return Tiling.of(_unit(array_module(self.value), dtype), dtype, D, Dv, backward)

    def _launch(self, kernel: Kernel, tiling: Tiling, blocks: int, *arguments: Any) -> None:
        kernel(
            blocks,
            32 * tiling.warps,
            *arguments,
            self.query.shape[1],
            self.key.shape[1],
            float(self.scale),
            *self._mask_arguments(),
            self.noise.kept,
            self.noise.dropped,
            self.noise.seed,
            shared=tiling.shared(twice=kernel is not FORWARD),
            **tiling.constants(),
            **_settings(self.mask, self.is_causal, self.noise.p),
        )

    def _mask_arguments(self) -> tuple[Array, Array, int, int, int]:
        """The mask, which each item has, and the strides of item, row and column (0: the same)."""
        xp = array_module(self.value)
        if self.mask is None:
            return xp.empty(1, bool), xp.empty(1, np.int64), 0, 0, 0
        _, L, S = self.mask.values.shape
        values, which = map(xp.ascontiguousarray, self.mask)
        return values, which, L * S, S if L > 1 else 0, 1 if S > 1 else 0


class Tiling(NamedTuple):
    """How a kernel divides its work, and with what it multiplies."""

    unit: int  # 16: matrix units, of 16-bit numbers; 32: of floats as TF32; 0: none
    dtype: np.dtype
    features: tuple[int, int]  # of keys and values, padded
    warps: int
    slabs: int
    columns: int

    @classmethod
    def of(cls, unit: int, dtype: np.dtype, D: int, Dv: int, backward: bool) -> Tiling:
        """The tiling for tokens of so many features: its sums fit into the registers.

        The tiles in shared memory take at most 99 KiB, and those of plain arithmetic 64 KiB: what
        a block is given on the smallest cards that have matrix units, and that have none.
        """
        features = _padded(D), _padded(Dv)
        if unit == 16:
            slabs = 1 if backward and max(features) > 64 else 2
            return cls(unit, dtype, features, 4, slabs, 32)
        is_wide = max(features) * dtype.itemsize > 256
        if unit == 32:
            return cls(unit, dtype, features, 4, 1, 16 if is_wide else 32)
        return cls(unit, dtype, features, 2 if is_wide else 4, 1, 8 if is_wide else 16)

    @property
    def rows(self) -> int:
        """Of a block's tile."""
        return self.warps * 16 * self.slabs

    def shared(self, twice: bool) -> int:
        """Bytes of the rows that a block owns, of one matrix or two, and of two tiles of others."""
        first, second = (n * self.dtype.itemsize + 16 for n in self.features)
        owned = self.rows * (first + second * twice)
        return owned + 2 * self.columns * (first + second)

    def constants(self) -> dict[str, Any]:
        """Macros of the kernels."""
        D, DV = self.features
        mma = "mma_f16" if self.dtype == np.float16 else "mma_bf16"
        unit = {"UNIT": self.unit, "MMA": mma if self.unit == 16 else "none"}
        sizes = {"WARPS": self.warps, "SLABS": self.slabs, "COLUMNS": self.columns}
        return {"T": self.dtype, "D": D, "DV": DV, **unit, **sizes}


def _unit(xp: ModuleType, dtype: np.dtype) -> int:
    """Which matrix units multiply arrays of a dtype."""
    if dtype.itemsize == 2:
        return 16 if has_matrix_units(xp) else 0
    in_tf32 = dtype == np.float32 and get_float32_matmul_precision() == "high"
    return 32 if in_tf32 and has_matrix_units(xp) else 0


def _settings(mask: Mask | None, is_causal: bool, dropout_p: float) -> dict[str, Any]:
    """Macros for what becomes of the scores."""
    kind = 0 if mask is None else 1 if mask.values.dtype == bool else 2
    of_mask = {"MASK": kind, "MASK_T": bool if mask is None else mask.values.dtype}
    return {**of_mask, "CAUSAL": is_causal, "DROPOUT": dropout_p > 0}


def _padded(features: int) -> int:
    return max(STEP, -(-features // STEP) * STEP)


def _with_zeros(x: Array) -> Array:
    """Tokens with zeros behind their features, up to a multiple of the kernels' step.

    They begin at a multiple of 16 bytes, as copies past the registers need it: a part of an array
    may begin anywhere.
    """
    xp, features = array_module(x), x.shape[2]
    if features == _padded(features):
        x = xp.ascontiguousarray(x)
        return x if x.data.ptr % 16 == 0 else x.copy()
    wider = xp.zeros((*x.shape[:2], _padded(features)), x.dtype)
    wider[..., :features] = x
    return wider


def _cut(x: Array, features: int) -> Array:
    """Tokens without those zeros."""
    return x if x.shape[2] == features else array_module(x).ascontiguousarray(x[..., :features])


def _accumulator(dtype: np.dtype) -> np.dtype:
    """What the kernels compute in."""
    return np.dtype(np.float64 if dtype == np.float64 else np.float32)


def _variants(backward: bool) -> list[dict[str, Any]]:
    """For each type and unit the constants of some launch; between them every kind of mask."""
    half, single, double = map(np.dtype, (np.float16, np.float32, np.float64))

    def tiling(unit: int, dtype: np.dtype, features: int) -> dict[str, Any]:
        return Tiling.of(unit, dtype, features, features, backward).constants()

    chosen: list[tuple[dict, dict]] = [
        (tiling(16, half, 64), {"CAUSAL": 1, "DROPOUT": 1}),
        (tiling(16, half, 128), {"MASK": 2, "MASK_T": single}),
        ({**tiling(16, half, 64), "T": "bfloat_t", "MMA": "mma_bf16"}, {"MASK": 1}),
        (tiling(32, single, 64), {}),
        (tiling(0, single, 64), {"MASK": 2, "MASK_T": single}),
        (tiling(0, half, 32), {"CAUSAL": 1}),
        (tiling(0, double, 64), {"MASK": 1, "CAUSAL": 1, "DROPOUT": 1}),
    ]
    rest = {"MASK": 0, "MASK_T": "bool", "CAUSAL": 0, "DROPOUT": 0}
    return [{**constants, **rest, **settings} for constants, settings in chosen]


def _kernel(name: str, variants: list[dict[str, Any]]) -> Kernel:
    files = (HERE / "tiles.cuh", HERE / "scores.cuh", HERE / f"{name}.cu")
    return Kernel(f"attention_{name}", files, variants)


FORWARD = _kernel("forward", _variants(backward=False))
DQ, DK_DV, DBIAS = (_kernel(name, _variants(backward=True)) for name in ("dq", "dk_dv", "dbias"))
ALONG = Kernel("attention_along", HERE / "along.cu", [{"T": t} for t in FLOATS])
