"""Measures of how well a model does its task."""

from .segmentation import confusion_matrix, intersection_over_union, mean_iou, pixel_accuracy

__all__ = [
    "confusion_matrix",
    "intersection_over_union",
    "mean_iou",
    "pixel_accuracy",
]
