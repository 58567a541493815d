"""How good a ranking is: average precision with junk left out, and precision at k."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from ..ops.arguments import integer


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
        image, images are named by anything but integers, or the interpolation is unknown.

    References
    ----------
    Philbin, Chum, Isard, Sivic and Zisserman, "Object Retrieval with Large Vocabularies and Fast
    Spatial Matching" (CVPR 2007), section 3.1; Radenović et al., "Revisiting Oxford and Paris"
    (CVPR 2018).
    """
    if interpolation not in ("trapezoid", "step"):
        raise ValueError(
            f"average_precision: interpolation must be trapezoid or step, not {interpolation!r}"
        )
    r, count = _places("average_precision", ranking, positives, junk)
    j = np.arange(1, len(r) + 1)
    at_it = j / (r + 1)
    if interpolation == "step":
        return float(at_it.sum() / count)
    before_it = np.where(r == 0, 1, (j - 1) / np.maximum(r, 1))
    return float((before_it + at_it).sum() / 2 / count)


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
    wanted = [_images("mean_average_precision", "positives", p) for p in positives]
    junk = [()] * len(wanted) if junk is None else list(junk)
    if not len(rankings) == len(wanted) == len(junk):
        raise ValueError(
            "mean_average_precision: needs rankings, positives and junk for the same queries, got "
            f"{len(rankings)}, {len(wanted)} and {len(junk)}"
        )
    found = [
        average_precision(ranking, p, j, interpolation)
        for ranking, p, j in zip(rankings, wanted, junk)
        if len(p)
    ]
    return float(np.mean(found)) if found else float("nan")


def precision_at_k(
    ranking: Sequence[int], positives: Iterable[int], k: int, junk: Iterable[int] = ()
) -> float:
    r"""Share of positives among the first places, for one query.

    .. math::

        P@k = \frac{1}{k'} \#\{\text{positives among the first } k'\}, \qquad
        k' = \min(k,\ \text{places up to the last positive})

    as in the evaluation of the revisited Oxford and Paris: a query with fewer than k positives can
    reach 1. A positive that is not in the ranking counts as never found, so that k' = k.

    Parameters
    ----------
    ranking, positives, junk
        As `average_precision`.
    k : int
        At most so many places are looked at.

    Returns
    -------
    float
        From 0 to 1.

    Raises
    ------
    ValueError
        If k is not an integer of at least 1, and as `average_precision`.

    References
    ----------
    Radenović et al., "Revisiting Oxford and Paris" (CVPR 2018), and its evaluation program.
    """
    k = integer("precision_at_k", "k", k, least=1)
    r, count = _places("precision_at_k", ranking, positives, junk)
    looked_at = min(k, int(r[-1]) + 1) if len(r) == count else k
    return int((r < looked_at).sum()) / looked_at


def _places(
    name: str, ranking: Iterable[int], positives: Iterable[int], junk: Iterable[int]
) -> tuple[np.ndarray, int]:
    """Where the positives stand once the junk is gone, from 0; and how many positives there are."""
    order = _images(name, "ranking", ranking)
    wanted = np.unique(_images(name, "positives", positives))
    ignored = _images(name, "junk", junk)
    if not len(wanted):
        raise ValueError(
            f"{name}: there are no positives, so nothing can be found: leave the query out of the "
            "mean"
        )
    both = np.intersect1d(wanted, ignored)
    if len(both):
        raise ValueError(f"{name}: {both.tolist()} are both positive and junk")
    if len(np.unique(order)) < len(order):
        raise ValueError(f"{name}: the ranking names an image more than once")
    order = order[~np.isin(order, ignored)]
    return np.flatnonzero(np.isin(order, wanted)), len(wanted)


def _images(name: str, what: str, images: Iterable[int]) -> np.ndarray:
    """Images' numbers (images,), of anything that gives integers."""
    array = np.asarray(list(images) if isinstance(images, Iterable) else images)
    if array.ndim == 1 and not array.size:
        return array.astype(np.int64)
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise ValueError(
            f"{name}: {what} must be images' numbers, a sequence of integers, not {array.dtype} "
            f"of shape {array.shape}: np.flatnonzero(mask) gives those of a mask"
        )
    return array.astype(np.int64)
