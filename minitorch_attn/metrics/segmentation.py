"""How well places were told apart: confusion, accuracy and overlap."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..engine import ShapeError, as_tensor
from ..ops.arguments import integer


def confusion_matrix(
    prediction: Any, target: Any, num_classes: int, ignore_index: int | None = None
) -> np.ndarray:
    r"""How often a place of class t was taken for class p.

    .. math:: M_{tp} = \#\{\text{places with target } t \text{ and prediction } p\}

    Matrices of several batches add up.

    Parameters
    ----------
    prediction, target : array_like of int or bool, of the same shape
        Classes from 0 to K - 1; a mask is of the classes 0 and 1.
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
        If a class is not one of the K, or a setting is no integer.
    """
    num_classes = integer("confusion_matrix", "num_classes", num_classes, least=1)
    p, t = _classes(prediction), _classes(target)
    if p.shape != t.shape:
        raise ShapeError(
            f"confusion_matrix: prediction {p.shape} and target {t.shape} must have one shape: "
            "take the argmax of scores over their axis of classes first"
        )
    if ignore_index is not None:
        ignore_index = integer("confusion_matrix", "ignore_index", ignore_index)
        p, t = p[t != ignore_index], t[t != ignore_index]
    for name, classes in (("prediction", p), ("target", t)):
        if classes.size and not 0 <= classes.min() <= classes.max() < num_classes:
            raise ValueError(
                f"confusion_matrix: the {name} holds the classes {classes.min()} to "
                f"{classes.max()}, outside of 0 to {num_classes - 1}"
            )
    pairs = num_classes * t.astype(np.int64) + p.astype(np.int64)
    counts = np.bincount(pairs.ravel(), minlength=num_classes**2)
    return counts.reshape(num_classes, num_classes)


def intersection_over_union(confusion: Any) -> np.ndarray:
    r"""Overlap of prediction and target, for each class.

    .. math:: IoU_k = \frac{M_{kk}}{\sum_p M_{kp} + \sum_t M_{tk} - M_{kk}}

    Parameters
    ----------
    confusion : (K, K) array_like
        Of `confusion_matrix`.

    Returns
    -------
    ndarray (K,)
        From 0 to 1; nan for a class that is neither in the target nor in the prediction.

    Raises
    ------
    ShapeError
        If the matrix is not square.
    """
    confusion = _matrix("intersection_over_union", confusion)
    both = np.diag(confusion)
    either = confusion.sum(axis=0) + confusion.sum(axis=1) - both
    return np.divide(both, either, out=np.full(len(both), np.nan), where=either > 0)


def mean_iou(confusion: Any) -> float:
    r"""Mean of `intersection_over_union` over the classes that occur.

    Parameters
    ----------
    confusion : (K, K) array_like
        Of `confusion_matrix`, summed over all images: the mean of single images' values is another
        number.

    Returns
    -------
    float
        nan if no class occurs.

    Raises
    ------
    ShapeError
        As `intersection_over_union`.
    """
    overlap = intersection_over_union(confusion)
    occurs = ~np.isnan(overlap)
    return float(overlap[occurs].mean()) if occurs.any() else float("nan")


def pixel_accuracy(confusion: Any) -> float:
    r"""Share of places whose class was told rightly: :math:`\sum_k M_{kk} / \sum_{tp} M_{tp}`.

    Parameters
    ----------
    confusion : (K, K) array_like
        Of `confusion_matrix`.

    Returns
    -------
    float
        nan if there are no places.

    Raises
    ------
    ShapeError
        As `intersection_over_union`.
    """
    confusion = _matrix("pixel_accuracy", confusion)
    total = confusion.sum()
    return float(np.trace(confusion) / total) if total else float("nan")


def _classes(values: Any) -> np.ndarray:
    array = as_tensor(values).numpy()
    if array.size and array.dtype.kind == "f":
        raise ValueError(
            f"confusion_matrix: classes must be integers, not {array.dtype}: take the argmax of "
            "scores over their axis of classes first"
        )
    return array


def _matrix(name: str, confusion: Any) -> np.ndarray:
    array = as_tensor(confusion).numpy()
    if array.ndim != 2 or array.shape[0] != array.shape[1]:
        raise ShapeError(f"{name}: needs a confusion matrix (K, K), got {array.shape}")
    return array
