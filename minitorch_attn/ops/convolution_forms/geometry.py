"""The shapes of a convolution: what its forms, and the choice between them, need to know."""

from __future__ import annotations

from dataclasses import dataclass

from ..windows import Border, Sizes


@dataclass(frozen=True, slots=True)
class Geometry:
    """Shapes and options of one convolution, in one, two or three dimensions of space.

    Attributes
    ----------
    N, C, O, G : int
        Images, channels, output channels, groups.
    size, kernel, places : tuple of int
        (H, W) of the input, (R, S) of the kernels, (P, Q) of the output.
    stride, dilation : tuple of int
        Steps between places, and between the taps of a kernel.
    border : tuple of (int, int)
        Zeros before and after, along each axis of space.
    """

    N: int
    C: int
    O: int
    G: int
    size: Sizes
    kernel: Sizes
    places: Sizes
    stride: Sizes
    dilation: Sizes
    border: Border

    @property
    def padded_size(self) -> Sizes:
        """(H, W) with the border."""
        return tuple(before + n + after for n, (before, after) in zip(self.size, self.border))

    @property
    def x_shape(self) -> tuple[int, ...]:
        """(N, C, H, W)."""
        return (self.N, self.C, *self.size)

    @property
    def weight_shape(self) -> tuple[int, ...]:
        """(O, C / G, R, S)."""
        return (self.O, self.C // self.G, *self.kernel)

    @property
    def y_shape(self) -> tuple[int, ...]:
        """(N, O, P, Q)."""
        return (self.N, self.O, *self.places)
