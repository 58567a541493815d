"""How well places were told apart: confusion, accuracy and overlap."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..engine import ShapeError, Tensor


def confusion_matrix(
    prediction: Any, target: Any, num_classes: int, ignore_index: int | None = None
) -> np.ndarray:
    r"""How often a place of class t was taken for class p.

    .. math:: M_{tp} = \#\{\text{places with target } t \text{ and prediction } p\}

    Matrices of several batches add up.

    Parameters
    ----------
    prediction, target : array_like of int, of the same shape
        Classes from 0 to K - 1.
    num_classes : int
        K.
    ignore_index : int, optional
        Places whose target is this are left out.

    Returns
    -------
    ndarray (K, K) of int
        Rows are targets, columns predictions.

    Raises
    ------
    ShapeError
        If the shapes differ.
    ValueError
        If a class is not one of the K.
    """
    p, t = _classes(prediction), _classes(target)
    if p.shape != t.shape:
        raise ShapeError(
            f"confusion_matrix: prediction {p.shape} and target {t.shape} must have one shape: "
            "take the argmax of scores over their axis of classes first"
        )
    if ignore_index is not None:
        p, t = p[t != ignore_index], t[t != ignore_index]
    for name, classes in (("prediction", p), ("target", t)):
        if classes.size and not 0 <= classes.min() <= classes.max() < num_classes:
            raise ValueError(
                f"confusion_matrix: the {name} holds the classes {classes.min()} to "
                f"{classes.max()}, outside of 0 to {num_classes - 1}"
            )
    counts = np.bincount(num_classes * t.ravel() + p.ravel(), minlength=num_classes**2)
    return counts.reshape(num_classes, num_classes)


def intersection_over_union(confusion: np.ndarray) -> np.ndarray:
    r"""Overlap of prediction and target, for each class.

    .. math:: IoU_k = \frac{M_{kk}}{\sum_p M_{kp} + \sum_t M_{tk} - M_{kk}}

    Parameters
    ----------
    confusion : (K, K) array
        Of `confusion_matrix`.

    Returns
    -------
    ndarray (K,)
        From 0 to 1; nan for a class that is neither in the target nor in the prediction.
    """
    both = np.diag(confusion)
    either = confusion.sum(axis=0) + confusion.sum(axis=1) - both
    return np.where(either > 0, both / np.maximum(either, 1), np.nan)


def mean_iou(confusion: np.ndarray) -> float:
    r"""Mean of `intersection_over_union` over the classes that occur.

    Parameters
    ----------
    confusion : (K, K) array
        Of `confusion_matrix`, summed over all images: the mean of single images' values is another
        number.

    Returns
    -------
    float
        nan if no class occurs.
    """
    overlap = intersection_over_union(confusion)
    occurs = ~np.isnan(overlap)
    return float(overlap[occurs].mean()) if occurs.any() else float("nan")


def pixel_accuracy(confusion: np.ndarray) -> float:
    r"""Share of places whose class was told rightly: :math:`\sum_k M_{kk} / \sum_{tp} M_{tp}`.

    Parameters
    ----------
    confusion : (K, K) array
        Of `confusion_matrix`.

    Returns
    -------
    float
        nan if there are no places.
    """
    total = confusion.sum()
    return float(np.trace(confusion) / total) if total else float("nan")


def _classes(values: Any) -> np.ndarray:
    array = values.numpy() if isinstance(values, Tensor) else np.asarray(values)
    if array.dtype.kind not in "iu":
        raise ValueError(
            f"confusion_matrix: classes must be integers, not {array.dtype}: take the argmax of "
            "scores over their axis of classes first"
        )
    return array.astype(np.int64)
