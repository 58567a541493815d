"""How well pictures of one identity find each other, from one camera to another."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ..engine import ShapeError, as_tensor
from ..ops.arguments import integer


class ReIdentification(NamedTuple):
    """What `re_identification` measures.

    Attributes
    ----------
    cmc : ndarray (max_rank,)
        At k - 1 the share of queries whose first match is among the first k.
    mean_average_precision : float
        Mean over the queries.
    average_precisions : ndarray (Q,)
        Of each query; nan where there was nothing to find.
    """

    cmc: np.ndarray
    mean_average_precision: float
    average_precisions: np.ndarray


def re_identification(
    distances: Any,
    query_identities: Any,
    gallery_identities: Any,
    query_cameras: Any = None,
    gallery_cameras: Any = None,
    max_rank: int = 50,
) -> ReIdentification:
    r"""CMC curve and mean average precision of a search for identities across cameras.

    For each query the gallery is sorted by distance. Pictures of the query's identity *by the
    query's camera* are then left out: to find the next frame of the same film proves nothing. What
    is left holds P matches, at places :math:`r_1 < r_2 < ... < r_P`, counted from 1.

    .. math::

        CMC(k) = \text{share of queries with } r_1 \le k, \qquad
        AP = \frac{1}{P} \sum_j \frac{j}{r_j}

    Queries without a match in the gallery are left out of both means. This is the evaluation of
    Market-1501 as in torchreid.

    Parameters
    ----------
    distances : (Q, G) array_like
        Of each query from each picture of the gallery; of equals the first in the gallery comes
        first.
    query_identities, query_cameras : (Q,) array_like
    gallery_identities, gallery_cameras : (G,) array_like
        Cameras of both, or of neither: then nothing is left out.
    max_rank : int
        Length of the curve. (Where fewer pictures are left, its end goes on.)

    Returns
    -------
    ReIdentification
        `cmc` (max_rank,), `mean_average_precision`, and `average_precisions` (Q,).

    Raises
    ------
    ShapeError
        If the shapes do not fit.
    ValueError
        If a distance is nan, cameras are given for one side alone, max_rank is not a positive
        integer, or no query has a match.

    References
    ----------
    Zheng, Shen, Tian, Wang, Wang and Tian, "Scalable Person Re-identification: A Benchmark" (ICCV
    2015), section 3.3.
    """
    who = "re_identification"
    max_rank = integer(who, "max_rank", max_rank, least=1)
    d = as_tensor(distances).numpy()
    if d.ndim != 2:
        raise ShapeError(f"{who}: needs distances (queries, gallery), got shape {d.shape}")
    if np.isnan(d).any():
        raise ValueError(f"{who}: {np.isnan(d).sum()} of the distances are nan, which has no order")
    if (query_cameras is None) != (gallery_cameras is None):
        raise ValueError(f"{who}: give the cameras of queries and gallery, or of neither")
    q = _one_each("query_identities", query_identities, len(d))
    g = _one_each("gallery_identities", gallery_identities, d.shape[1])
    same = q[:, None] == g  # (Q, G)
    left_out = np.zeros_like(same)
    if query_cameras is not None:
        q_camera = _one_each("query_cameras", query_cameras, len(d))
        g_camera = _one_each("gallery_cameras", gallery_cameras, d.shape[1])
        left_out = same & (q_camera[:, None] == g_camera)

    precisions, found = np.full(len(d), np.nan), np.zeros((len(d), max_rank), bool)
    for i, order in enumerate(np.argsort(d, axis=1, kind="stable")):
        order = order[~left_out[i, order]]
        places = np.flatnonzero(same[i, order]) + 1  # r_1, r_2, ...
        if len(places):
            precisions[i] = (np.arange(1, len(places) + 1) / places).mean()
            found[i, places[0] - 1 :] = True
    can_match = ~np.isnan(precisions)
    if not can_match.any():
        across = "" if query_cameras is None else " by another camera"
        raise ValueError(f"{who}: no query has a picture of its identity{across} in the gallery")
    cmc = found[can_match].mean(axis=0)
    return ReIdentification(cmc, float(precisions[can_match].mean()), precisions)


def _one_each(what: str, values: Any, count: int) -> np.ndarray:
    array = as_tensor(values).numpy() if not isinstance(values, np.ndarray) else values
    if array.shape != (count,):
        raise ShapeError(
            f"re_identification: the distances need {what} of shape ({count},), not {array.shape}"
        )
    return array
