"""PCA whitening: make descriptors short, and their directions equally long."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..engine import ShapeError, as_tensor
from ..ops.arguments import integer
from .normalization import check_finite, l2_normalized


class PCAWhitening:
    r"""Principal components of descriptors, each divided by its spread.

    .. math:: y = \Lambda^{-1/2} V^T (x - \mu), \qquad
              \frac{1}{M} \sum_m (x_m - \mu)(x_m - \mu)^T = V \Lambda V^T

    of the first components only, and then divided by its length. Learned on other images than
    those that are searched: the protocols learn on Paris for Oxford.

    Parameters
    ----------
    components : int, optional
        How many are kept; all that vary, if left out.
    whiten : bool
        Whether they are divided by their spread :math:`\Lambda^{1/2}`; without it, this is PCA.
    normalize : bool
        Whether the result is divided by its length.

    Attributes
    ----------
    mean : (D,) array
        :math:`\mu`. It and the others are learned, and kept, as float64.
    directions : (D, components) array
        V, the widest spread first; each with its largest element positive.
    variances : (components,) array
        :math:`\Lambda`.

    Notes
    -----
    Directions whose variance is rounding alone (less than 1e-10 of the largest) are left out:
    divided by their spread they would be nothing but noise.

    References
    ----------
    Jégou and Chum, "Negative Evidences and Co-occurences in Image Retrieval: The Benefit of PCA and
    Whitening" (ECCV 2012).
    """

    def __init__(self, components: int | None = None, whiten: bool = True, normalize: bool = True):
        if components is not None:
            components = integer("PCAWhitening", "components", components, least=1)
        self.components = components
        self.whiten = whiten
        self.normalize = normalize

    def fit(self, x: Any) -> PCAWhitening:
        """Learn from descriptors x (M, D); returns itself.

        Raises
        ------
        ShapeError
            If x is not (M, D) with two descriptors at least.
        ValueError
            If some of x are nan or infinite, or fewer directions vary than components are asked
            for.
        """
        x = as_tensor(x).numpy().astype(np.float64)
        if x.ndim != 2 or len(x) < 2 or x.shape[1] == 0:
            raise ShapeError(
                f"PCAWhitening.fit: needs descriptors (M, D), two at least, not {x.shape}"
            )
        check_finite("PCAWhitening.fit", x)
        self.mean = x.mean(axis=0)
        _, spread, rows = np.linalg.svd(x - self.mean, full_matrices=False)
        variances = spread**2 / len(x)
        varying = int((variances > 1e-10 * variances[0]).sum())
        kept = varying if self.components is None else self.components
        if kept > varying or varying == 0:
            raise ValueError(
                f"PCAWhitening.fit: {kept} components are asked for, but {len(x)} descriptors of "
                f"{x.shape[1]} numbers vary in {varying} directions alone"
            )
        largest = rows[np.arange(len(rows)), np.abs(rows).argmax(axis=1)]
        self.directions = (rows * np.sign(largest)[:, None])[:kept].T
        self.variances = variances[:kept]
        return self

    def transform(self, x: Any) -> np.ndarray:
        """Descriptors x (..., D) -> (..., components), in the dtype of x (float64 for integers).

        No gradient passes through it.

        Raises
        ------
        RuntimeError
            If nothing was learned yet.
        ShapeError
            If x has another D.
        """
        if not hasattr(self, "mean"):
            raise RuntimeError("PCAWhitening: call fit(descriptors) first, on a separate set")
        x = as_tensor(x).numpy()
        if x.shape[-1:] != self.mean.shape:
            raise ShapeError(
                f"PCAWhitening: was fitted to descriptors of {len(self.mean)} numbers, "
                f"got {x.shape}"
            )
        y = (x - self.mean) @ self.directions
        if self.whiten:
            y /= np.sqrt(self.variances)
        y = l2_normalized(y) if self.normalize else y
        return y.astype(x.dtype if x.dtype.kind == "f" else np.float64)

    def fit_transform(self, x: Any) -> np.ndarray:
        """`fit` and `transform` at once."""
        return self.fit(x).transform(x)
