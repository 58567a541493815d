"""Channels exchanged with positions, or with one another: every value stays, none is computed.

Each shuffle is a permutation, so its gradient is the inverse permutation. The result is a copy,
also where every value stays in place: writing into it leaves the input alone.
"""

from __future__ import annotations

from ..engine import ShapeError, primitive
from .arguments import integer


@primitive
def pixel_shuffle(x, *, upscale_factor):
    r"""Groups of r^2 channels spread into squares of r x r pixels.

    .. math:: y_{c,\; hr + i,\; wr + j} = x_{cr^2 + ir + j,\; h,\; w}

    Parameters
    ----------
    x : (*, C r^2, H, W)
    upscale_factor : int
        r.

    Returns
    -------
    (*, C, H r, W r)

    Raises
    ------
    ShapeError
        If r^2 does not divide the channels.
    ValueError
        If r is below 1.

    References
    ----------
    Shi et al., "Real-Time Single Image and Video Super-Resolution Using an Efficient Sub-Pixel
    Convolutional Neural Network" (2016), equation 4.
    """
    r = _factor("pixel_shuffle", "upscale_factor", upscale_factor, x)
    if x.shape[-3] % r**2:
        raise ShapeError(
            f"pixel_shuffle: upscale_factor={r} needs channels that {r**2} divides, and the input "
            f"{x.shape} has {x.shape[-3]}"
        )

    def vjp_x(dy):
        return _squares_to_channels(dy, r)

    return _channels_to_squares(x, r), vjp_x


@primitive
def pixel_unshuffle(x, *, downscale_factor):
    """Squares of r x r pixels gathered into r^2 channels: the inverse of `pixel_shuffle`.

    Parameters
    ----------
    x : (*, C, H r, W r)
    downscale_factor : int
        r.

    Returns
    -------
    (*, C r^2, H, W)

    Raises
    ------
    ShapeError
        If r does not divide height and width.
    ValueError
        If r is below 1.
    """
    r = _factor("pixel_unshuffle", "downscale_factor", downscale_factor, x)
    if x.shape[-2] % r or x.shape[-1] % r:
        raise ShapeError(
            f"pixel_unshuffle: downscale_factor={r} does not divide the height and the width of "
            f"the input {x.shape}"
        )

    def vjp_x(dy):
        return _channels_to_squares(dy, r)

    return _squares_to_channels(x, r), vjp_x


@primitive
def channel_shuffle(x, *, groups):
    """Channels dealt out over the groups: G groups of C / G become C / G groups of G.

    Channel g C / G + i goes to place i G + g.

    Parameters
    ----------
    x : (N, C, ...)
    groups : int
        G.

    Returns
    -------
    (N, C, ...)

    Raises
    ------
    ShapeError
        If G does not divide the channels.
    ValueError
        If G is below 1.

    References
    ----------
    Zhang et al., "ShuffleNet" (2018), section 3.1.
    """
    if x.ndim < 3:
        raise ShapeError(f"channel_shuffle: needs an input (N, C, L, ...), not {x.shape}")
    C, groups = x.shape[1], integer("channel_shuffle", "groups", groups, least=1)
    if C % groups:
        raise ShapeError(
            f"channel_shuffle: groups={groups} does not divide the {C} channels of the input "
            f"{x.shape}"
        )

    def vjp_x(dy):
        return _deal(dy, C // groups)

    return _deal(x, groups), vjp_x


def _channels_to_squares(x, r):
    *batch, C, H, W = x.shape
    n = len(batch)
    x = x.reshape(*batch, C // r**2, r, r, H, W)
    x = x.transpose(*range(n), n, n + 3, n + 1, n + 4, n + 2)  # ..., C, H, r, W, r
    return x.copy().reshape(*batch, C // r**2, H * r, W * r)


def _squares_to_channels(x, r):
    *batch, C, H, W = x.shape
    n = len(batch)
    x = x.reshape(*batch, C, H // r, r, W // r, r)
    x = x.transpose(*range(n), n, n + 2, n + 4, n + 1, n + 3)  # ..., C, r, r, H, W
    return x.copy().reshape(*batch, C * r**2, H // r, W // r)


def _deal(x, groups):
    N, C, *positions = x.shape
    x = x.reshape(N, groups, C // groups, *positions)
    return x.swapaxes(1, 2).copy().reshape(N, C, *positions)


def _factor(op, name, r, x):
    if x.ndim < 3:
        raise ShapeError(f"{op}: needs an input (*, C, H, W), not {x.shape}")
    return integer(op, name, r, least=1)
