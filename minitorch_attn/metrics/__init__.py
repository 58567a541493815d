"""Measures of how well a model does its task."""

from .segmentation import confusion_matrix, intersection_over_union, mean_iou, pixel_accuracy
from .text import bleu, exact_match

__all__ = [
    "bleu",
    "confusion_matrix",
    "exact_match",
    "intersection_over_union",
    "mean_iou",
    "pixel_accuracy",
]
