"""Digits turned, moved, seen in perspective, bent or in clutter, as in Jaderberg et al. (2015)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .. import functional as F
from ..attention.spatial_transformer import ProjectiveGrid, ThinPlateSplineGrid, control_points
from ..data.transforms import RandomTransform
from ..engine import tensor

SIZE = 28  # of the images that are distorted; lengths in pixels are meant for these
FRAMES = {"RTS": 42, "TC": 60}  # of the images that come out, where that is another

PATCHES, PATCH = 6, 6  # how many fragments clutter an image of "TC", and their size in pixels


class Distort(RandomTransform):
    """Distort each image anew, by one of the paper's protocols (appendix A.4).

    ======== ===========================================================================
    "R"      turned by -90 to 90 degrees
    "RTS"    turned by -45 to 45 degrees, scaled by 0.7 to 1.2, anywhere in 42 x 42 pixels
    "P"      scaled by 0.75 to 1, then each corner moved by N(0, 5 pixels) in x and in y
    "E"      scaled by 0.75 to 1, then 16 control points moved by N(0, 1.5 pixels)
    "TC"     anywhere in 60 x 60 pixels, among six fragments of other digits, 6 x 6 each
    ======== ===========================================================================

    The scales of "P" and "E", the 5 pixels of "P" and the size of the fragments of "TC" were not
    compared with the paper's text: take them for this project's own. The fragments are cut from
    anywhere in other images of the batch, so that some hold nothing; where they fall on the digit
    or on each other, they add up to no more than white.

    Parameters
    ----------
    protocol : str
        One of these.

    Raises
    ------
    ValueError
        If there is no such protocol.
    """

    def __init__(self, protocol: str):
        if protocol not in PROTOCOLS:
            raise ValueError(
                f"Distort: protocol must be one of {', '.join(PROTOCOLS)}, not {protocol!r}"
            )
        self.protocol = protocol
        self.size = FRAMES.get(protocol, SIZE)

    def __call__(self, images: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """Images (N, 1, 28, 28) as (N, 1, S, S): S = 42 for "RTS", 60 for "TC", else 28."""
        grid = PROTOCOLS[self.protocol](len(images), generator).astype(images.dtype)
        distorted = F.grid_sample(images, grid).numpy()
        if self.protocol == "TC":
            distorted = np.minimum(distorted + _clutter(images, self.size, generator), 1)
        return distorted


def _turned(N: int, rng: np.random.Generator) -> np.ndarray:
    angle = rng.uniform(-np.pi / 2, np.pi / 2, N)
    return _similar(angle, np.ones(N), np.zeros((N, 2)), SIZE)


def _placed(N: int, rng: np.random.Generator) -> np.ndarray:
    frame = FRAMES["RTS"]
    angle, scale = rng.uniform(-np.pi / 4, np.pi / 4, N), rng.uniform(0.7, 1.2, N)
    room = 1 - SIZE / frame  # as far as the image's own frame stays inside
    return _similar(angle, scale, rng.uniform(-room, room, (N, 2)), frame)


def _moved(N: int, rng: np.random.Generator) -> np.ndarray:
    frame = FRAMES["TC"]
    corner = rng.integers(0, frame - SIZE, (N, 2), endpoint=True)  # the image's own, in pixels
    middle = (2 * corner + SIZE) / frame - 1
    return _similar(np.zeros(N), np.ones(N), middle, frame)


def _clutter(images: np.ndarray, frame: int, rng: np.random.Generator) -> np.ndarray:
    """Fragments of other images, added up in a frame: (N, 1, frame, frame)."""
    N = len(images)
    this = np.arange(N).reshape(N, 1, 1)
    down, right = np.mgrid[:PATCH, :PATCH]
    cluttered = np.zeros((N, 1, frame, frame), images.dtype)
    for _ in range(PATCHES):
        other = (this + rng.integers(1, max(N, 2), this.shape)) % N
        i, j = rng.integers(0, SIZE - PATCH, (2, N, 1, 1), endpoint=True)  # cut out there
        p, q = rng.integers(0, frame - PATCH, (2, N, 1, 1), endpoint=True)  # and put here
        cluttered[this, 0, p + down, q + right] += images[other, 0, i + down, j + right]
    return cluttered


def _similar(angle: np.ndarray, scale: np.ndarray, middle: np.ndarray, frame: int) -> np.ndarray:
    """Grids that show an image turned and scaled, with its middle (N, 2) in a frame."""
    shrink = frame / SIZE / scale
    c, s = shrink * np.cos(angle), shrink * np.sin(angle)
    linear = np.stack([np.stack([c, s], axis=1), np.stack([-s, c], axis=1)], axis=1)  # (N, 2, 2)
    maps = np.concatenate([linear, -linear @ middle[:, :, None]], axis=2)
    return F.affine_grid(maps, size=(len(maps), 1, frame, frame)).numpy()


def _projected(N: int, rng: np.random.Generator) -> np.ndarray:
    corners = control_points(2)
    scale = rng.uniform(0.75, 1, (N, 1, 1))
    shown_at = corners * scale + rng.normal(0, 5 * 2 / SIZE, (N, 4, 2))
    return ProjectiveGrid()(tensor(projective_map(shown_at, corners)), (SIZE, SIZE)).numpy()


def projective_map(points: np.ndarray, places: np.ndarray) -> np.ndarray:
    """The eight numbers of the projective maps that take four points (N, 4, 2) to places (4, 2).

    Of each point, :math:`u w = m_1` and :math:`v w = m_2` are linear in the numbers.
    """
    one, none = np.ones((*points.shape[:2], 1)), np.zeros((*points.shape[:2], 3))
    p = np.concatenate([points, one], axis=2)  # (N, 4, 3)
    for_u = np.concatenate([p, none, -places[:, :1] * points], axis=2)
    for_v = np.concatenate([none, p, -places[:, 1:] * points], axis=2)
    system = np.concatenate([for_u, for_v], axis=1)  # (N, 8, 8)
    return np.linalg.solve(system, places.T.reshape(8, 1))[..., 0]


def _bent(N: int, rng: np.random.Generator) -> np.ndarray:
    scale = rng.uniform(0.75, 1, (N, 1, 1))
    places = control_points(4) / scale + rng.normal(0, 1.5 * 2 / SIZE, (N, 16, 2))
    return ThinPlateSplineGrid()(tensor(places.reshape(N, 32)), (SIZE, SIZE)).numpy()


PROTOCOLS: dict[str, Callable[[int, np.random.Generator], np.ndarray]] = {
    "R": _turned,
    "RTS": _placed,
    "P": _projected,
    "E": _bent,
    "TC": _moved,
}
