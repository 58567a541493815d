"""The shapes of a convolution: what its forms, and the choice between them, need to know."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

from ...engine.backend import Array
from ..windows import Border, Sizes


@dataclass(frozen=True, slots=True)
class Geometry:
    """Shapes and options of one convolution, in one, two or three dimensions of space.

    Attributes
    ----------
    N, C, O, G : int
        Images, channels, output channels, groups.
    size, kernel, places : tuple of int
        (H, W) of the input, (R, S) of the kernels, (P, Q) of the output. P and Q may be smaller
        than what fits: a transposed convolution's output padding can leave room for more.
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
    def multiply_adds(self) -> int:
        """By the definition: N O P Q (C / G) R S."""
        return math.prod(self.y_shape) * math.prod(self.weight_shape[1:])

    @property
    def y_shape(self) -> tuple[int, ...]:
        """(N, O, P, Q)."""
        return (self.N, self.O, *self.places)

    @property
    def is_reversible(self) -> bool:
        """Whether the gradient of the images is such a convolution too: see `back`."""
        return max(self.stride) == 1 and all(min(b) >= 0 for b in self.back().border)

    def back(self) -> Geometry:
        """The way of a gradient: dx is the convolution of dy with the kernels `rotated`.

        A pixel i that met tap r at place i - r gets dy[i - r] * w[r]: the tap that the window of
        dy around i sees at r' = R - 1 - r. Its border is as wide as a tap can stick out.
        """
        border = tuple(
            (d * (k - 1) - before, n - places + before)
            for d, k, n, places, (before, _) in zip(
                self.dilation, self.kernel, self.size, self.places, self.border
            )
        )
        return dataclasses.replace(
            self, C=self.O, O=self.C, size=self.places, places=self.size, border=border
        )

    def rotated(self, weight: Array) -> Array:
        """Kernels by half a turn, inputs and outputs of a group exchanged: (C, O / G, R, S)."""
        weight = weight.reshape(self.G, self.O // self.G, self.C // self.G, *self.kernel)
        weight = weight[(..., *(slice(None, None, -1),) * len(self.kernel))].swapaxes(1, 2)
        return weight.reshape(self.C, self.O // self.G, *self.kernel)
