"""How good a ranking is: average precision with junk left out, and precision at k."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np


def average_precision(
    ranking: Sequence[int],
    positives: Iterable[int],
    junk: Iterable[int] = (),
    interpolation: str = "trapezoid",
) -> float:
    r"""Area under the curve of precision over recall, for one query.

    Junk (of the query's object, but too small or too hidden to count either way) is taken out of
    the ranking first. With P positives, the j-th of them (j = 1 ... P) at place :math:`r_j` = 0, 1,
    ... of what is left,

    .. math::

        AP = \frac{1}{P} \sum_j \frac{1}{2} \left(\frac{j - 1}{r_j} + \frac{j}{r_j + 1}\right)
        \qquad\text{or}\qquad
        AP = \frac{1}{P} \sum_j \frac{j}{r_j + 1}

    The first is the trapezoid of the Oxford and Paris protocols (its first term is 1 at
    :math:`r_j = 0`); the second, "step", is that of information retrieval and of scikit-learn, and
    is never lower. A positive that is not in the ranking counts as never found.

    Parameters
    ----------
    ranking : sequence of int
        Numbers of the gallery's images, the best first, each once.
    positives, junk : iterable of int
        Images that should be found; images that are not looked at.
    interpolation : str
        "trapezoid" or "step".

    Returns
    -------
    float
        From 0 to 1.

    Raises
    ------
    ValueError
        If there are no positives, an image is both positive and junk, the ranking repeats an
        image, or the interpolation is unknown.

    References
    ----------
    Philbin, Chum, Isard, Sivic and Zisserman, "Object Retrieval with Large Vocabularies and Fast
    Spatial Matching" (CVPR 2007), section 3.1; Radenović et al., "Revisiting Oxford and Paris"
    (CVPR 2018).
    """
    wanted, ignored = set(map(int, positives)), set(map(int, junk))
    order = np.asarray(ranking, dtype=np.int64)
    if not wanted:
        raise ValueError(
            "average_precision: there are no positives, so nothing can be found: leave the query "
            "out of the mean"
        )
    if wanted & ignored:
        raise ValueError(
            f"average_precision: {sorted(wanted & ignored)} are both positive and junk"
        )
    if len(np.unique(order)) < len(order):
        raise ValueError("average_precision: the ranking names an image more than once")
    if interpolation not in ("trapezoid", "step"):
        raise ValueError(
            f"average_precision: interpolation must be trapezoid or step, not {interpolation!r}"
        )
    order = order[~np.isin(order, list(ignored))]
    r = np.flatnonzero(np.isin(order, list(wanted)))
    j = np.arange(1, len(r) + 1)
    at_it = j / (r + 1)
    if interpolation == "step":
        return float(at_it.sum() / len(wanted))
    before_it = np.where(r == 0, 1, (j - 1) / np.maximum(r, 1))
    return float((before_it + at_it).sum() / 2 / len(wanted))


def mean_average_precision(
    rankings: Sequence[Sequence[int]],
    positives: Sequence[Iterable[int]],
    junk: Sequence[Iterable[int]] | None = None,
    interpolation: str = "trapezoid",
) -> float:
    """Mean of `average_precision` over the queries that have a positive.

    Parameters
    ----------
    rankings : (queries, images) of int
        For each query the gallery's images, the best first.
    positives, junk : sequence
        For each query.
    interpolation : str
        As `average_precision`.

    Returns
    -------
    float
        nan if no query has a positive.

    Raises
    ------
    ValueError
        If the numbers of queries differ, and as `average_precision`.
    """
    positives = [list(p) for p in positives]
    junk = [()] * len(positives) if junk is None else list(junk)
    if not len(rankings) == len(positives) == len(junk):
        raise ValueError(
            "mean_average_precision: needs rankings, positives and junk for the same queries, got "
            f"{len(rankings)}, {len(positives)} and {len(junk)}"
        )
    found = [
        average_precision(ranking, p, j, interpolation)
        for ranking, p, j in zip(rankings, positives, junk)
        if p
    ]
    return float(np.mean(found)) if found else float("nan")


def precision_at_k(
    ranking: Sequence[int], positives: Iterable[int], k: int, junk: Iterable[int] = ()
) -> float:
    r"""Share of positives among the first places, for one query.

    .. math:: P@k = \frac{1}{k'} \#\{\text{positives among the first } k'\}, \qquad k' = \min(k, P)

    Parameters
    ----------
    ranking, positives, junk
        As `average_precision`.
    k : int
        At most so many places are looked at; no more than there are positives, so that 1 can be
        reached.

    Returns
    -------
    float

    Raises
    ------
    ValueError
        If there are no positives, or k is less than 1.
    """
    wanted, ignored = set(map(int, positives)), set(map(int, junk))
    if not wanted or k < 1:
        raise ValueError(
            f"precision_at_k: needs a positive and k >= 1, got {len(wanted)} positives and k = {k}"
        )
    places = min(k, len(wanted))
    seen = [image for image in map(int, ranking) if image not in ignored][:places]
    return sum(image in wanted for image in seen) / places
