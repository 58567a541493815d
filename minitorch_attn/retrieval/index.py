"""Search: a gallery of descriptors, ranked by likeness to a query's."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..engine import ShapeError, as_tensor
from ..ops.arguments import integer
from .normalization import check_finite, l2_normalized


class Index:
    r"""Exact search among descriptors by cosine: :math:`s_{qg} = \hat q \cdot \hat g`.

    One matrix product a batch of queries: good for some hundred thousand descriptors. Where that
    is too slow, the library FAISS takes the same arrays: `faiss.IndexFlatIP(D)` is this search,
    `faiss.IndexHNSWFlat(D, 32, faiss.METRIC_INNER_PRODUCT)` finds nearly the same among millions;
    either is filled by `.add(index.descriptors)`, in float32.

    Parameters
    ----------
    descriptors : (G, D) array_like
        Of the gallery; they are divided by their lengths. One of zeros has the cosine 0 with all.

    Attributes
    ----------
    descriptors : (G, D) array
        Of length 1.

    Raises
    ------
    ShapeError
        If the descriptors, or the queries of a search, have another shape; or there are none.
    ValueError
        If some of them are nan or infinite.
    """

    def __init__(self, descriptors: Any):
        descriptors = as_tensor(descriptors).numpy()
        if descriptors.ndim != 2 or 0 in descriptors.shape:
            raise ShapeError(
                f"Index: needs descriptors (G, D), one at least, not {descriptors.shape}"
            )
        check_finite("Index", descriptors)
        self.descriptors = l2_normalized(descriptors)

    def __len__(self) -> int:
        return len(self.descriptors)

    def similarities(self, queries: Any) -> np.ndarray:
        """Cosines (Q, G) of queries (Q, D) with the gallery."""
        queries = as_tensor(queries).numpy()
        if queries.ndim != 2 or queries.shape[1] != self.descriptors.shape[1]:
            raise ShapeError(
                f"Index: needs queries (Q, {self.descriptors.shape[1]}), as long as the gallery's "
                f"descriptors, not {queries.shape}"
            )
        check_finite("Index: queries", queries)
        return l2_normalized(queries) @ self.descriptors.T

    def search(self, queries: Any, k: int | None = None) -> np.ndarray:
        """Numbers (Q, k) of the k most similar images of each query, the best first.

        Of equally similar images the one with the lower number comes first, on every machine.

        Parameters
        ----------
        queries : (Q, D) array_like
        k : int, optional
            All, if left out, or if the gallery holds no more.

        Raises
        ------
        ValueError
            If k is not an integer of at least 1.
        """
        k = len(self) if k is None else integer("Index.search", "k", k, least=1)
        return np.argsort(-self.similarities(queries), axis=1, kind="stable")[:, :k]


def expand_queries(index: Index, queries: Any, k: int = 5, alpha: float = 0.0) -> np.ndarray:
    r"""Query expansion: ask again with the mean of a query and the first answers.

    .. math:: q' = \frac{\hat q + \sum_{g \in \text{first } k} s_{qg}^\alpha\, \hat g}{|\cdot|_2}

    With :math:`\alpha = 0` all answers weigh alike; with :math:`\alpha > 0` an answer that is less
    like the query weighs less, and one with a negative cosine nothing. It helps where most of the
    first k are right, and leads astray where they are not.

    Parameters
    ----------
    index : Index
        The gallery.
    queries : (Q, D) array_like
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
        If k is not between 1 and the size of the gallery, or alpha is negative or nan.

    References
    ----------
    Chum et al., "Total Recall: Automatic Query Expansion with a Generative Feature Model for Object
    Retrieval" (ICCV 2007); Radenović, Tolias and Chum, "Fine-tuning CNN Image Retrieval with No
    Human Annotation" (TPAMI 2019), for alpha.
    """
    k = integer("expand_queries", "k", k)
    if not 1 <= k <= len(index):
        raise ValueError(
            f"expand_queries: k must be between 1 and the {len(index)} images of the gallery, "
            f"not {k}"
        )
    if not alpha >= 0:
        raise ValueError(f"expand_queries: alpha must not be negative, not {alpha}")
    answers = index.descriptors[index.search(queries, k)]  # (Q, k, D)
    queries = l2_normalized(queries)
    cosines = np.einsum("qd,qkd->qk", queries, answers)
    weights = np.maximum(cosines, 0) ** float(alpha)  # all 1 for alpha = 0
    return l2_normalized(queries + np.einsum("qk,qkd->qd", weights, answers))
