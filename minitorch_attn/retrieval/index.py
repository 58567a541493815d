"""Search: a gallery of descriptors, ranked by likeness to a query's."""

from __future__ import annotations

import numpy as np

from ..engine import ShapeError
from .normalization import l2_normalized


class Index:
    r"""Exact search among descriptors by cosine: :math:`s_{qg} = \hat q \cdot \hat g`.

    One matrix product a batch of queries: good for some hundred thousand descriptors. Beyond that,
    a library for approximate search (such as FAISS) takes the same arrays.

    Parameters
    ----------
    descriptors : (G, D) array
        Of the gallery; they are divided by their lengths.
    """

    def __init__(self, descriptors: np.ndarray):
        descriptors = np.asarray(descriptors)
        if descriptors.ndim != 2:
            raise ShapeError(f"Index: needs descriptors (G, D), not {descriptors.shape}")
        self.descriptors = l2_normalized(descriptors)

    def __len__(self) -> int:
        return len(self.descriptors)

    def similarities(self, queries: np.ndarray) -> np.ndarray:
        """Cosines (Q, G) of queries (Q, D) with the gallery."""
        queries = np.asarray(queries)
        if queries.ndim != 2 or queries.shape[1] != self.descriptors.shape[1]:
            raise ShapeError(
                f"Index: needs queries (Q, {self.descriptors.shape[1]}), as long as the gallery's "
                f"descriptors, not {queries.shape}"
            )
        return l2_normalized(queries) @ self.descriptors.T

    def search(self, queries: np.ndarray, k: int | None = None) -> np.ndarray:
        """Numbers (Q, k) of the k most similar images of each query, the best first.

        Of equally similar images the one with the lower number comes first, on every machine.

        Parameters
        ----------
        queries : (Q, D) array
        k : int, optional
            All, if left out.
        """
        return np.argsort(-self.similarities(queries), axis=1, kind="stable")[:, :k]


def expand_queries(index: Index, queries: np.ndarray, k: int = 5, alpha: float = 0.0) -> np.ndarray:
    r"""Query expansion: ask again with the mean of a query and the first answers.

    .. math:: q' = \frac{\hat q + \sum_{g \in \text{first } k} s_{qg}^\alpha\, \hat g}{|\cdot|_2}

    With :math:`\alpha = 0` all answers weigh alike; with :math:`\alpha > 0` an answer that is less
    like the query weighs less, and one with a negative cosine nothing. It helps where most of the
    first k are right, and leads astray where they are not.

    Parameters
    ----------
    index : Index
        The gallery.
    queries : (Q, D) array
    k : int
        Answers to add.
    alpha : float
        Power of the weights.

    Returns
    -------
    (Q, D) array
        New queries of length 1.

    Raises
    ------
    ValueError
        If k is not between 1 and the size of the gallery, or alpha is negative.

    References
    ----------
    Chum et al., "Total Recall: Automatic Query Expansion with a Generative Feature Model for Object
    Retrieval" (ICCV 2007); Radenović, Tolias and Chum, "Fine-tuning CNN Image Retrieval with No
    Human Annotation" (TPAMI 2019), section 3.5, for alpha.
    """
    if not 1 <= k <= len(index):
        raise ValueError(
            f"expand_queries: k must be between 1 and the {len(index)} images of the gallery, "
            f"not {k}"
        )
    if alpha < 0:
        raise ValueError(f"expand_queries: alpha must not be negative, not {alpha}")
    similar = index.similarities(queries)
    first = np.argsort(-similar, axis=1, kind="stable")[:, :k]
    weights = np.take_along_axis(similar, first, axis=1)
    weights = np.maximum(weights, 0) ** alpha if alpha else np.ones_like(weights)
    added = np.einsum("qk,qkd->qd", weights, index.descriptors[first])
    return l2_normalized(l2_normalized(np.asarray(queries)) + added)
