"""Elements of sequences of several lengths: out of a padded array into rows, and back."""

from __future__ import annotations

from ..engine import array_module, primitive


@primitive
def pack(x, *, places):
    """The elements at some places, as rows: y[b] = x[i[b], j[b]]. (n, m, *) -> (B, *).

    Parameters
    ----------
    x : (n, m, *)
    places : (i, j), integers (B,) each
        No place may come twice.
    """
    places, shape = _on_device(places, x), x.shape

    def vjp_x(dy):
        dx = array_module(dy).zeros(shape, dy.dtype)
        dx[places] = dy
        return dx

    return x[places], vjp_x


@primitive
def unpack(x, *, places, size, value=0.0):
    """Rows put back to their places: y[i[b], j[b]] = x[b], elsewhere `value`. (B, *) -> (n, m, *).

    Parameters
    ----------
    x : (B, *)
    places : (i, j), integers (B,) each
        No place may come twice.
    size : (n, m)
    value : number
    """
    places = _on_device(places, x)
    y = array_module(x).full((*size, *x.shape[1:]), value, x.dtype)
    y[places] = x

    def vjp_x(dy):
        return dy[places]

    return y, vjp_x


def _on_device(places, x):
    return tuple(map(array_module(x).asarray, places))
