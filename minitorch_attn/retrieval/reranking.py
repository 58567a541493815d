"""Re-ranking: put those first that name the query among their own neighbours."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..ops.arguments import integer
from .index import Index
from .normalization import l2_normalized


def reciprocal_distances(
    index: Index, queries: Any, k1: int = 20, k2: int = 6, original: float = 0.3
) -> np.ndarray:
    r"""Distances by k-reciprocal encoding: alike are those that have the same friends.

    Queries and gallery are one set of M = Q + G images. With :math:`N(i, k)` the image i and its k
    nearest, and :math:`d_{ij} = |\hat x_i - \hat x_j|^2 / \max_m |\hat x_i - \hat x_m|^2`,

    .. math::

        R(i, k) &= \{ j \in N(i, k) : i \in N(j, k) \} && \text{each among the other's nearest} \\
        R^*(i) &= R(i, k_1) \cup \bigcup_j R(j, \tfrac{k_1}{2}) && \text{over } j \in R(i, k_1)
            \text{ with } |R(j, \tfrac{k_1}{2}) \cap R(i, k_1)|
            > \tfrac{2}{3} |R(j, \tfrac{k_1}{2})| \\
        V_{ij} &= e^{-d_{ij}} / \textstyle\sum_{m \in R^*(i)} e^{-d_{im}}
            && \text{for } j \in R^*(i) \text{, else } 0 \\
        \bar V_i &= \text{the mean of } V_j && \text{over the } k_2 \text{ nearest } j,
            \ i \text{ among them} \\
        J_{ij} &= 1 - \frac{\sum_m \min(\bar V_{im}, \bar V_{jm})}
            {\sum_m \max(\bar V_{im}, \bar V_{jm})} \\
        d^*_{ij} &= \lambda\, d_{ij} + (1 - \lambda)\, J_{ij}

    Parameters
    ----------
    index : Index
        The gallery.
    queries : (Q, D) array_like
    k1, k2 : int
        Neighbours that may be friends; images over which V is averaged.
    original : float
        :math:`\lambda`, the share of the distance as it was, from 0 to 1.

    Returns
    -------
    (Q, G) array
        :math:`d^*`, in the gallery's dtype: small is alike.

    Raises
    ------
    ShapeError
        If the queries are not (Q, D), with the gallery's D.
    ValueError
        If k1 or k2 is not an integer from 1 to M - 1, original is not from 0 to 1, or queries are
        nan or infinite.

    Notes
    -----
    This is the authors' program. The paper looks for neighbours in the gallery alone, takes
    :math:`\ge` for :math:`>`, and does not divide d by its maximum nor V by its sum. As queries
    count as images here, the answers to one depend on which others are asked with it; ask one at a
    time where that must not be. Some arrays of M x M numbers are made: good for some thousand
    images; of a larger gallery, re-rank the first answers.

    References
    ----------
    Zhong, Zheng, Cao and Li, "Re-ranking Person Re-identification with k-reciprocal Encoding"
    (CVPR 2017), sections 3.2 to 3.5.
    """
    cosines = index.similarities(queries)
    Q, M = len(cosines), len(cosines) + len(index)
    for name, k in (("k1", k1), ("k2", k2)):
        if not 1 <= integer("reciprocal_distances", name, k) < M:
            raise ValueError(
                f"reciprocal_distances: {name} must be between 1 and {M - 1}, one less than there "
                f"are queries and gallery images together, not {k}"
            )
    if not 0 <= original <= 1:
        raise ValueError(f"reciprocal_distances: original must be from 0 to 1, not {original}")
    x = np.concatenate([l2_normalized(queries), index.descriptors])
    d = np.maximum(2 - 2 * x @ x.T, 0)
    np.fill_diagonal(d, -1)  # of images that are the same, each is its own nearest
    order = np.argsort(d, axis=1, kind="stable")
    np.fill_diagonal(d, 0)
    d /= np.maximum(d.max(axis=1, keepdims=True), np.finfo(d.dtype).tiny)

    friends = _with_their_friends(
        _mutual_neighbours(order, k1), _mutual_neighbours(order, round(k1 / 2))
    )
    V = np.where(friends, np.exp(-d), 0)
    V /= V.sum(axis=1, keepdims=True)
    V = np.mean([V[order[:, place]] for place in range(k2)], axis=0)
    shared = np.stack([np.minimum(v[v > 0], V[Q:, v > 0]).sum(axis=1) for v in V[:Q]])
    jaccard = 1 - shared / (2 - shared)  # rows of V have the sum 1: max + min = 2
    return (original * d[:Q, Q:] + (1 - original) * jaccard).astype(index.descriptors.dtype)


def rerank(
    index: Index, queries: Any, k1: int = 20, k2: int = 6, original: float = 0.3
) -> np.ndarray:
    """The gallery by `reciprocal_distances`: numbers (Q, G) of its images, the best first.

    Parameters, errors and the source are those of `reciprocal_distances`.
    """
    distances = reciprocal_distances(index, queries, k1, k2, original)
    return np.argsort(distances, axis=1, kind="stable")


def _mutual_neighbours(order: np.ndarray, k: int) -> np.ndarray:
    """R as a table (M, M): whether each of two images is the other, or among its k nearest."""
    near = np.zeros(order.shape, bool)
    np.put_along_axis(near, order[:, : k + 1], True, axis=1)
    return near & near.T


def _with_their_friends(friends: np.ndarray, close_friends: np.ndarray) -> np.ndarray:
    """R* as a table (M, M), from R of k1 and R of half as many."""
    # Counts of images: products in float32 are quick, and exact below 2^24.
    R, half = friends.astype(np.float32), close_friends.astype(np.float32)
    are_shared = 3 * (R @ half.T) > 2 * half.sum(axis=1)
    return friends | ((friends & are_shared).astype(np.float32) @ half > 0)
