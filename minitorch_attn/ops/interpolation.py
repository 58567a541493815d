"""Interpolation: images of another size, and the kernels that weigh the pixels around a place.

Along one axis, every new pixel is a weighted sum of old ones: interpolation is a product with a
matrix A of shape (P, H), a few entries in each row. Along several axes it is one such product
after the other, Y = A X Bᵀ for images, and its gradient has the same products transposed,
dX = Aᵀ dY B. On a GPU a kernel takes of each row only the band of columns that is not zero.
"""

from __future__ import annotations

import functools
import math
import numbers
from typing import Any, NamedTuple

import numpy as np

from ..engine import ShapeError, array_module, primitive
from ..engine.backend import Array, on_gpu, to_device
from ..engine.kernels import FLOATS, Kernel
from ..engine.tensor import operand
from .windows import AXES

__all__ = ["interpolate"]

# What PyTorch calls the same idea in one, two and three dimensions.
MODES = {
    "nearest": {1: "nearest", 2: "nearest", 3: "nearest"},
    "nearest-exact": {1: "nearest-exact", 2: "nearest-exact", 3: "nearest-exact"},
    "area": {1: "area", 2: "area", 3: "area"},
    "linear": {1: "linear", 2: "bilinear", 3: "trilinear"},
    "cubic": {2: "bicubic"},
}

CUBIC_SLOPE = -0.75  # the slope of the cubic kernel at distance 1: Keys' a

BAND_PRODUCT = Kernel(
    "band_product",
    r"""
// x (lines, size, behind) -> y (lines, places, behind); weights (places, width), from `first` on.
extern "C" __global__ void band_product(const T* x, const int* first, const acc_t* weights, T* y,
                                        long long n, long long size, long long places,
                                        long long width, long long behind) {
    FOR_EACH(i, n) {
        long long j = i % behind, p = i / behind % places, line = i / behind / places;
        const T* pixel = x + (line * size + first[p]) * behind + j;
        acc_t sum = 0;
        for (long long k = 0; k < width; ++k) {
            acc_t weight = weights[p * width + k];
            if (weight != 0) sum += weight * acc_t(pixel[k * behind]);
        }
        y[i] = T(sum);
    }
}
""",
    [{"T": t} for t in FLOATS],
)


class Stretch(NamedTuple):
    """How one axis changes.

    Attributes
    ----------
    size, places : int
        Pixels before (H) and after (P).
    step : float
        Old pixels per new one.
    """

    size: int
    places: int
    step: float


def interpolate(
    input: Any,
    size: int | tuple[int, ...] | None = None,
    scale_factor: float | tuple[float, ...] | None = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
    recompute_scale_factor: bool | None = None,
    antialias: bool = False,
):
    r"""Images of another size.

    New pixel p takes the old ones around the position

    .. math::
        h_p = (p + \tfrac12)\, s - \tfrac12 \qquad\text{or, with align_corners,}\qquad
        h_p = p\,\frac{H - 1}{P - 1}

    where s is the old pixels per new one: 1 / `scale_factor`, or H / P. Pixels are squares in the
    first, whose outer edges meet; they are points in the second, whose outermost meet.

    With i the integer below h_p and a = h_p - i the rest, the weights along an axis are

    - linear: :math:`1 - a` of pixel i, :math:`a` of pixel i + 1;
    - cubic: :math:`k(1 + a),\, k(a),\, k(1 - a),\, k(2 - a)` of pixels i - 1 to i + 2, with Keys'
      kernel and A = -0.75:

      .. math::
          k(d) = \begin{cases} (A + 2) d^3 - (A + 3) d^2 + 1 & d \le 1 \\
                 A d^3 - 5 A d^2 + 8 A d - 4 A & 1 < d < 2 \end{cases}

    - nearest: pixel :math:`\lfloor p s \rfloor`; nearest-exact: pixel
      :math:`\lfloor (p + \tfrac12) s \rfloor`, whose centre is the nearest;
    - area: the mean of the pixels from :math:`\lfloor pH/P \rfloor` to below
      :math:`\lceil (p+1)H/P \rceil`.

    A pixel beyond the edge is the edge's. Source: R. Keys, Cubic convolution interpolation for
    digital image processing (1981), equations 15 and 8.

    Parameters
    ----------
    input : (N, C, W), (N, C, H, W) or (N, C, D, H, W)
    size : int or ints, optional
        P, or one for each axis of space. Either this or `scale_factor`.
    scale_factor : float or floats, optional
        P / H. P is rounded down; positions keep to the factor as it was given.
    mode : str
        "nearest", "nearest-exact", "area"; "linear" (one axis of space), "bilinear" (two),
        "trilinear" (three); "bicubic" (two).
    align_corners : bool, optional
        For the linear and cubic modes, which take it as False if left out.
    recompute_scale_factor : bool, optional
        Whether positions use H / P, of the rounded P, also where `scale_factor` is given.
    antialias : bool
        Not built here: must be False.

    Returns
    -------
    (N, C, P), (N, C, P, Q) or (N, C, O, P, Q)

    Raises
    ------
    ShapeError
        If the input has no axes of space, or other ones than `mode` is for, or an empty one.
    ValueError
        If an option is not one of these, or does not fit the others.
    """
    x = operand(input)
    dims = x.ndim - 2
    kernel = _kernel(mode, dims, tuple(x.shape))
    if antialias:
        raise ValueError(
            "interpolate: antialias=True is not built here: leave it out, or shrink with "
            "mode='area'"
        )
    if align_corners is not None and kernel not in ("linear", "cubic"):
        raise ValueError(
            f"interpolate: align_corners has no meaning for mode={mode!r}, only for 'linear', "
            "'bilinear', 'trilinear' and 'bicubic': leave it out"
        )
    stretches = _stretches(x.shape[2:], size, scale_factor, kernel, recompute_scale_factor)
    return _interpolate(x, stretches=stretches, kernel=kernel, align_corners=bool(align_corners))


@primitive(floats="all", takes_half=True)
def _interpolate(x, *, stretches, kernel, align_corners):
    if on_gpu(x):
        return _interpolate_by_bands(x, stretches, kernel, align_corners)
    xp = array_module(x)
    nearest = kernel.startswith("nearest")
    matrices = [
        xp.asarray(_matrix(kernel, Stretch(*s), align_corners), dtype=x.dtype) for s in stretches
    ]
    y = x
    for axis, matrix in enumerate(matrices, start=2):
        if nearest:  # a copy, so that an infinite pixel stays where it is
            y = y.take(matrix.argmax(axis=1), axis=axis)
        else:
            y = _product(matrix, y, axis)

    def vjp_x(dy):
        for axis, matrix in enumerate(matrices, start=2):
            dy = _product(matrix.T, dy, axis)
        return dy

    return y, vjp_x


def _product(matrix: Array, x: Array, axis: int) -> Array:
    """The product of a matrix (P, H) with every line along an axis of size H."""
    if axis == x.ndim - 1:
        return x @ matrix.T
    before, behind = x.shape[:axis], x.shape[axis + 1 :]
    lines = x.reshape(*before, x.shape[axis], math.prod(behind))
    return (matrix @ lines).reshape(*before, len(matrix), *behind)


def _interpolate_by_bands(x: Array, stretches: tuple, kernel: str, align_corners: bool):
    def resized(x, transposed):
        for axis, stretch in enumerate(stretches, start=2):
            dtype = np.promote_types(x.dtype, np.float32)
            band = _band(kernel, Stretch(*stretch), align_corners, transposed, dtype)
            x = _band_product(*band, x, axis)
        return x

    def vjp_x(dy):
        return resized(dy, transposed=True)

    return resized(x, transposed=False), vjp_x


@functools.lru_cache(maxsize=128)
def _band(
    kernel: str, stretch: Stretch, align_corners: bool, transposed: bool, dtype: np.dtype
) -> tuple[Array, Array]:
    """Of each row of the matrix, or of its transpose: where what is not zero begins, and that.

    Both lie on the GPU, and stay there: for each copy the host would wait.
    """
    matrix = _matrix(kernel, stretch, align_corners)
    matrix = matrix.T if transposed else matrix
    size = matrix.shape[1]
    some = matrix != 0
    begin, end = some.argmax(axis=1), size - some[:, ::-1].argmax(axis=1)
    width = int((end - begin)[some.any(axis=1)].max())
    first = np.minimum(begin, size - width)
    weights = np.take_along_axis(matrix, first[:, None] + np.arange(width), axis=1)
    return to_device(first.astype(np.int32), "cuda"), to_device(weights.astype(dtype), "cuda")


def _band_product(first: Array, weights: Array, x: Array, axis: int) -> Array:
    """As `_product`, of a matrix that `_band` describes."""
    xp, (places, width) = array_module(x), weights.shape
    shape = x.shape
    y = xp.empty((*shape[:axis], places, *shape[axis + 1 :]), x.dtype)
    BAND_PRODUCT.over(
        y.size,
        *(xp.ascontiguousarray(x), first, weights, y),
        *(y.size, shape[axis], places, width, math.prod(shape[axis + 1 :])),
        T=x.dtype,
    )
    return y


def _matrix(kernel: str, stretch: Stretch, align_corners: bool) -> np.ndarray:
    """The matrix (P, H) that interpolates along one axis."""
    size, places, _ = stretch
    weights: tuple
    if kernel == "area":
        return _averages(size, places)
    if kernel.startswith("nearest"):
        indices, weights = [_nearest_pixels(kernel, stretch)], (1.0,)
    else:
        h = _positions(kernel, stretch, align_corners)
        below = np.floor(h)
        taps, weigh = (range(2), linear) if kernel == "linear" else (range(-1, 3), cubic)
        indices = [np.clip(below + tap, 0, size - 1).astype(int) for tap in taps]
        weights = weigh(h - below)
    matrix = np.zeros((places, size))
    for pixel, weight in zip(indices, weights):
        matrix[np.arange(places), pixel] += weight
    return matrix


def _positions(kernel: str, stretch: Stretch, align_corners: bool) -> np.ndarray:
    """Where the new pixels lie among the old ones: h_p."""
    size, places, step = stretch
    p = np.arange(places)
    if align_corners:
        return p * ((size - 1) / max(places - 1, 1))
    if kernel == "cubic":
        return (p + 0.5) * step - 0.5
    if size == places:
        return p.astype(float)  # whatever the factor: as PyTorch does
    return np.clip((p + 0.5) * step - 0.5, 0, size - 1)


def _nearest_pixels(kernel: str, stretch: Stretch) -> np.ndarray:
    """The old pixel that each new one copies."""
    size, places, step = stretch
    p = np.arange(places, dtype=np.float32)  # PyTorch's precision decides on which side p s falls
    if kernel == "nearest-exact":
        p += np.float32(0.5)
    elif places in (size, 2 * size):
        step = size / places  # whatever the factor: as PyTorch does
    return np.minimum(np.floor(p * np.float32(step)).astype(int), size - 1)


def _averages(size: int, places: int) -> np.ndarray:
    """The matrix that takes the mean of the old pixels that each new one touches."""
    p, h = np.arange(places)[:, None], np.arange(size)
    touched = (p * size // places <= h) & (h < -(-(p + 1) * size // places))
    return touched / touched.sum(axis=1, keepdims=True)


def linear(a: Array) -> tuple[Array, ...]:
    """The weights of the two pixels around a place, the first of which lies a before it."""
    return 1 - a, a


def cubic(a: Array) -> tuple[Array, ...]:
    """The weights of the four pixels around a place, the second of which lies a before it."""
    return _far(1 + a), _near(a), _near(1 - a), _far(2 - a)


def cubic_slopes(a: Array) -> tuple[Array, ...]:
    """The derivatives of the cubic weights with respect to a."""
    return _far_slope(1 + a), _near_slope(a), -_near_slope(1 - a), -_far_slope(2 - a)


def _near(d: Array) -> Array:
    """Keys' kernel up to distance 1."""
    return ((CUBIC_SLOPE + 2) * d - (CUBIC_SLOPE + 3)) * d * d + 1


def _far(d: Array) -> Array:
    """Keys' kernel from distance 1 to 2."""
    return CUBIC_SLOPE * (((d - 5) * d + 8) * d - 4)


def _near_slope(d: Array) -> Array:
    return (3 * (CUBIC_SLOPE + 2) * d - 2 * (CUBIC_SLOPE + 3)) * d


def _far_slope(d: Array) -> Array:
    return CUBIC_SLOPE * ((3 * d - 10) * d + 8)


def _kernel(mode: str, dims: int, shape: tuple[int, ...]) -> str:
    """What a mode does along one axis."""
    if dims not in AXES:
        known = ", ".join(AXES.values())
        raise ShapeError(f"interpolate: needs images of shape {known}, not {shape}")
    if 0 in shape[2:]:
        raise ShapeError(f"interpolate: images of shape {shape} have no pixels to interpolate")
    for kernel, names in MODES.items():
        if names.get(dims) == mode:
            return kernel
    fitting = ", ".join(repr(names[dims]) for names in MODES.values() if dims in names)
    for names in MODES.values():
        for its_dims, name in names.items():
            if name == mode:
                raise ShapeError(
                    f"interpolate: mode={mode!r} is for images {AXES[its_dims]}, not {shape}, "
                    f"which take {fitting}"
                )
    raise ValueError(f"interpolate: mode must be one of {fitting}, not {mode!r}")


def _stretches(
    sizes: tuple[int, ...], size: Any, scale_factor: Any, kernel: str, recompute: bool | None
) -> tuple[Stretch, ...]:
    """How each axis changes, from either `size` or `scale_factor`."""
    if (size is None) == (scale_factor is None):
        raise ValueError(
            "interpolate: give either size or scale_factor, not "
            + ("neither" if size is None else f"both (size={size}, scale_factor={scale_factor})")
        )
    if scale_factor is None:
        if recompute:
            raise ValueError("interpolate: recompute_scale_factor needs a scale_factor, not a size")
        places = _each("size", size, len(sizes), int)
        factors: tuple = (None,) * len(sizes)
    else:
        factors = _each("scale_factor", scale_factor, len(sizes), float)
        places = tuple(math.floor(n * f) for n, f in zip(sizes, factors))
    if min(places) < 1:
        given = f"size={size}" if scale_factor is None else f"scale_factor={scale_factor}"
        raise ValueError(
            f"interpolate: {given} leaves no pixel: {tuple(sizes)} would become {tuple(places)}"
        )
    keeps_factor = not recompute and kernel != "area"
    return tuple(
        Stretch(n, int(p), 1 / f if f is not None and keeps_factor else n / p)
        for n, p, f in zip(sizes, places, factors)
    )


def _each(name: str, value: Any, dims: int, kind: type) -> tuple:
    """An option for each axis of space: integers, or finite numbers."""
    values = tuple(value) if isinstance(value, (tuple, list)) else (value,) * dims
    known = numbers.Integral if kind is int else numbers.Real
    if len(values) != dims or not all(isinstance(v, known) and math.isfinite(v) for v in values):
        one = "an integer" if kind is int else "a finite number"
        raise ValueError(
            f"interpolate: {name} must be {one}, or {dims} of them, one for each axis of space, "
            f"not {value!r}"
        )
    return values
