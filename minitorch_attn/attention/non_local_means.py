"""Non-local means: the ancestor of all attention on images, without a learned parameter."""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType

from ..engine import DTypeError, ShapeError
from ..engine.backend import Array, array_module, is_array
from ..ops.arguments import integer, integers


def non_local_means(
    image: Array,
    h: float,
    *,
    patch_size: int = 7,
    search_size: int | None = 21,
    spread: float | None = None,
    sigma: float = 0.0,
) -> Array:
    r"""Denoise an image: each pixel becomes a mean of those whose surroundings look like its own.

    .. math::

        \hat v_i = \sum_j w_{ij}\, v_j, \qquad
        w_{ij} = \frac{1}{Z_i} \exp\left(-\frac{d_{ij}^2}{h^2}\right), \qquad
        d_{ij}^2 = \max\Big(\sum_p a_p\, |v_{i+p} - v_{j+p}|^2 - 2 \sigma^2,\ 0\Big)

    :math:`Z_i` is the sum of the exponentials over all j in the search window, i among them: w is
    their softmax. p goes over the places in a patch; beyond its border the image is reflected. The
    weights :math:`a_p` of these places sum to 1, so that two patches that differ by noise alone, of
    standard deviation :math:`\sigma`, have a squared distance of :math:`2 \sigma^2` on average.

    Takes about 2 S² R H W C multiply-adds for search windows of S x S and patches of R x R.

    Parameters
    ----------
    image : array (H, W) or (C, H, W)
        Floats. The C channels share their weights; the squares are averaged over them.
    h : float
        How different patches may look, in units of the image: a small h changes nothing, a large
        one takes the mean of the whole window. About the noise's standard deviation.
    patch_size : int
        Odd.
    search_size : int, optional
        Odd; None lets j go over the whole image.
    spread : float, optional
        Standard deviation, in pixels, of the Gaussian that the weights :math:`a_p` follow; None
        weighs the places alike.
    sigma : float
        The noise's standard deviation, if it is known; 0 leaves the distances as they are, as in
        the paper.

    Returns
    -------
    array
        The denoised image, of the same shape and dtype.

    Raises
    ------
    ValueError
        If a size is even or not positive, h or `spread` is not positive, or sigma is negative.
    ShapeError
        If the image has not two or three axes, or no pixels.
    DTypeError
        If it is not of floats.

    References
    ----------
    Buades, Coll and Morel, "A non-local algorithm for image denoising" (CVPR 2005), section 3. The
    term with sigma is from their "Non-Local Means Denoising", Image Processing On Line (2011).
    """
    xp, v, a, border = _prepare(image, h, patch_size, search_size, spread, sigma)
    *_, H, W = v.shape
    padded = _reflected(xp, v, border)
    weighted, total = v.copy(), xp.ones_like(v[0])  # i itself, of weight exp(0)
    for dy, dx in _half_of_the_offsets(H, W, search_size):
        here, there = _pair(H, W, dy, dx, 0), _pair(H, W, -dy, -dx, 0)
        difference = padded[_pair(H, W, dy, dx, border)] - padded[_pair(H, W, -dy, -dx, border)]
        distance = _correlate(_correlate((difference**2).mean(axis=0), a).T, a).T
        w = _weight(xp, distance, h, sigma)
        weighted[here] += w * v[there]  # j = i + (dy, dx), and the same pair seen from j
        weighted[there] += w * v[here]
        total[here[1:]] += w
        total[there[1:]] += w
    return (weighted / total).reshape(image.shape)


def non_local_weights(
    image: Array,
    pixel: tuple[int, int],
    h: float,
    *,
    patch_size: int = 7,
    search_size: int | None = 21,
    spread: float | None = None,
    sigma: float = 0.0,
) -> Array:
    """The weights that `non_local_means` gives all pixels for one: w_ij for i = `pixel`.

    Parameters
    ----------
    image : array (H, W) or (C, H, W)
    pixel : (int, int)
        Row and column of i.
    h, patch_size, search_size, spread, sigma
        As for `non_local_means`.

    Returns
    -------
    array (H, W)
        They sum to 1, and are 0 outside the search window.

    Raises
    ------
    ValueError, ShapeError, DTypeError
        As `non_local_means`; a ValueError also if `pixel` is not in the image.
    """
    xp, v, a, border = _prepare(image, h, patch_size, search_size, spread, sigma)
    _, H, W = v.shape
    place = integers("non-local means", "pixel", pixel)
    if len(place) != 2 or not (0 <= place[0] < H and 0 <= place[1] < W):
        raise ValueError(
            f"non-local means: pixel must be a row from 0 to {H - 1} and a column from 0 to "
            f"{W - 1}, not {pixel}"
        )
    row, column = place
    padded = _reflected(xp, v, border)
    patch = padded[:, row : row + patch_size, column : column + patch_size]
    distance = sum(
        a[r]
        * a[s]
        * ((padded[:, r : r + H, s : s + W] - patch[:, r, s, None, None]) ** 2).mean(axis=0)
        for r in range(patch_size)
        for s in range(patch_size)
    )
    w = _weight(xp, distance, h, sigma)
    if search_size is not None:
        reach = search_size // 2
        rows, columns = xp.abs(xp.arange(H) - row), xp.abs(xp.arange(W) - column)
        w = w * ((rows <= reach)[:, None] & (columns <= reach))
    return w / w.sum()


def _prepare(
    image: Array,
    h: float,
    patch_size: int,
    search_size: int | None,
    spread: float | None,
    sigma: float,
) -> tuple[ModuleType, Array, Array, int]:
    """Array module, image (C, H, W), weights of the places along one axis, and half a patch."""
    if not is_array(image):
        raise DTypeError(
            f"non-local means: needs an array of floats, not {type(image).__name__}; "
            "`.numpy()` makes one of a Tensor"
        )
    if image.ndim not in (2, 3) or image.size == 0:
        raise ShapeError(
            f"non-local means: needs an image (H, W) or (C, H, W) of at least one pixel, got "
            f"{image.shape}; a batch is denoised image by image"
        )
    if image.dtype.kind != "f":
        raise DTypeError(
            f"non-local means: needs an image of floats, got {image.dtype}: whole numbers wrap "
            "round when they are subtracted; image / 255 makes floats of bytes"
        )
    for name, size in (("patch_size", patch_size), ("search_size", search_size)):
        if size is not None and integer("non-local means", name, size, least=1) % 2 == 0:
            raise ValueError(
                f"non-local means: {name} must be odd, not {size}: only then has a window a middle"
            )
    if not h > 0:
        raise ValueError(f"non-local means: h must be positive, not {h}")
    if spread is not None and not spread > 0:
        raise ValueError(f"non-local means: spread must be positive or None, not {spread}")
    if not sigma >= 0:
        raise ValueError(f"non-local means: sigma must be 0 or more, not {sigma}")
    xp = array_module(image)
    border = patch_size // 2
    places = xp.arange(-border, border + 1, dtype=image.dtype)
    a = xp.ones_like(places) if spread is None else xp.exp(-(places**2) / (2 * spread**2))
    return xp, image.reshape(-1, *image.shape[-2:]), a / a.sum(), border


def _reflected(xp: ModuleType, v: Array, border: int) -> Array:
    return xp.pad(v, ((0, 0), (border, border), (border, border)), mode="reflect")


def _half_of_the_offsets(H: int, W: int, search_size: int | None) -> Iterator[tuple[int, int]]:
    """From i to the j behind it in reading order: with each pair's other half, all but i itself."""
    reach = max(H, W) if search_size is None else search_size // 2
    for dy in range(min(reach, H - 1) + 1):
        for dx in range(-min(reach, W - 1), min(reach, W - 1) + 1):
            if (dy, dx) > (0, 0):
                yield dy, dx


def _pair(H: int, W: int, dy: int, dx: int, border: int) -> tuple[slice, slice, slice]:
    """The pixels i for which i + (dy, dx) is in the image too; with a border, their patches."""
    rows = slice(max(0, -dy), min(H, H - dy) + 2 * border)
    columns = slice(max(0, -dx), min(W, W - dx) + 2 * border)
    return slice(None), rows, columns


def _correlate(x: Array, a: Array) -> Array:
    """Sums of len(a) neighbours along the last axis, weighted by a, where all are there."""
    length = x.shape[-1] - len(a) + 1
    return sum(a[s] * x[..., s : s + length] for s in range(len(a)))


def _weight(xp: ModuleType, distance: Array, h: float, sigma: float) -> Array:
    return xp.exp(-xp.maximum(distance - 2 * sigma**2, 0) / h**2)
