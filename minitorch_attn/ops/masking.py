"""Gradients that pass only where a mask lets them."""

from __future__ import annotations


def masked(dy, mask):
    """The gradient where the mask holds, else 0; also where it is infinite or NaN.

    A product `dy * mask` is NaN where an infinite gradient meets False. So the bits are
    multiplied, as integers: as quick as that product, and a tenth of the time of `where`.
    """
    bits = dy.view(f"i{dy.itemsize}")
    return (bits * mask).view(dy.dtype)


def split(dy, mask):
    """The gradient where the mask holds, and the gradient where it does not, with 0 elsewhere."""
    bits = dy.view(f"i{dy.itemsize}")
    kept = bits * mask
    return kept.view(dy.dtype), (bits ^ kept).view(dy.dtype)
