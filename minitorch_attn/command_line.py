"""Numbers that commands are given: types for argparse, whose messages say what is needed."""

from __future__ import annotations

import argparse


def count(text: str, least: int = 1) -> int:
    """A whole number of at least 1, or another."""
    number = int(text) if text.isdecimal() else -1
    if number < least:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least {least}, not {text}")
    return number


def count_or_0(text: str) -> int:
    """A whole number of at least 0."""
    return count(text, least=0)


def rate(text: str) -> float:
    """A positive, finite number."""
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"must be a positive number, not {text}")
    return number
