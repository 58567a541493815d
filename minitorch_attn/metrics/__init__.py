"""Measures of how well a model does its task."""

from .re_identification import ReIdentification, re_identification
from .segmentation import confusion_matrix, intersection_over_union, mean_iou, pixel_accuracy
from .text import bleu, cider, exact_match

__all__ = [
    "ReIdentification",
    "bleu",
    "cider",
    "confusion_matrix",
    "exact_match",
    "intersection_over_union",
    "mean_iou",
    "pixel_accuracy",
    "re_identification",
]
