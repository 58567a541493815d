"""The course around the library: exercises that check themselves, progress, and the grader."""

from .checking import check, hint, progress, solution

__all__ = ["check", "hint", "progress", "solution"]
