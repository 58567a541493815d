"""Descriptors as the search takes them: arrays of finite numbers, compared by direction."""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import functional as F
from ..engine import as_tensor


def l2_normalized(x: Any) -> np.ndarray:
    r"""Divide descriptors by their length: :math:`x / |x|_2`. (..., D) -> (..., D).

    This is `functional.normalize` over the last axis, for arrays: no gradient passes through it.

    Parameters
    ----------
    x : (..., D) array_like
        Integers become floats, and float16 float32.

    Returns
    -------
    (..., D) array
        A descriptor of zeros stays zero.
    """
    array = as_tensor(x).numpy()
    wide = array.astype(np.promote_types(array.dtype, np.float32))
    return F.normalize(as_tensor(wide), dim=-1).numpy()


def check_finite(name: str, descriptors: np.ndarray) -> None:
    """A ValueError that names the rows of descriptors (M, D) that are nan or infinite."""
    finite = np.isfinite(descriptors).all(axis=-1)
    if not finite.all():
        rows = np.flatnonzero(~finite)
        more = ", ..." if len(rows) > 5 else ""
        raise ValueError(
            f"{name}: of {len(finite)} descriptors {len(rows)} hold nan or infinite numbers, in "
            f"rows {', '.join(map(str, rows[:5]))}{more}"
        )
