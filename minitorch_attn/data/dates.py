"""Dates as people write them, to be written as 1979-05-03: a small task of translation."""

from __future__ import annotations

import datetime

import numpy as np

from ..ops.arguments import integer
from .dataset import Seed, as_generator
from .sequences import SequencePairs, Vocabulary

FIRST_YEAR, LAST_YEAR = 1950, 2049
MONTHS = (
    *("January", "February", "March", "April", "May", "June", "July", "August"),
    *("September", "October", "November", "December"),
)
WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
# Day before month with dots, month before day with slashes: each has one meaning.
FORMATS = (
    "{day} {month} {year}",
    "{day} {mon} {year}",
    "{month} {day}, {year}",
    "{mon} {day} {year}",
    "{weekday}, {month} {day}, {year}",
    "the {day}{th} of {month} {year}",
    "{day:02}.{number:02}.{year}",
    "{number}/{day}/{year}",
)
SOURCE_SYMBOLS = " ,./0123456789abcdefghijklmnopqrstuvwxyz"
TARGET_SYMBOLS = "-0123456789"


def date_pairs(count: int, train: bool = True, generator: Seed = None) -> SequencePairs:
    """Pairs such as ("the 3rd of may 1979", "1979-05-03").

    The days are those from 1950 to 2049, each written in one of eight ways, in small letters. One
    day in ten is kept for testing: it is in no pair for training.

    Parameters
    ----------
    count : int
        How many pairs.
    train : bool
        Whether they are of the days for training, or of those for testing.
    generator : numpy.random.Generator or int, optional
        A generator or a seed; the default generator if left out.

    Raises
    ------
    ValueError
        If `count` is no number of pairs.
    """
    count = integer("date_pairs", "count", count, least=0)
    random = as_generator(generator)
    days = np.arange(
        datetime.date(FIRST_YEAR, 1, 1).toordinal(), datetime.date(LAST_YEAR + 1, 1, 1).toordinal()
    )
    is_for_testing = np.random.default_rng(0).random(len(days)) < 0.1
    chosen = random.choice(days[is_for_testing != train], count)
    ways = random.integers(len(FORMATS), size=count)
    pairs = []
    for number, way in zip(chosen.tolist(), ways):
        day = datetime.date.fromordinal(number)
        pairs.append((written(day, FORMATS[way]), day.isoformat()))
    return SequencePairs(pairs, Vocabulary(SOURCE_SYMBOLS), Vocabulary(TARGET_SYMBOLS))


def written(day: datetime.date, form: str) -> str:
    """A day in one of `FORMATS`: "thursday, may 3, 1979"."""
    month = MONTHS[day.month - 1]
    text = form.format(
        day=day.day,
        th=_ordinal_ending(day.day),
        month=month,
        mon=month[:3],
        number=day.month,
        year=day.year,
        weekday=WEEKDAYS[day.weekday()],
    )
    return text.lower()


def _ordinal_ending(day: int) -> str:
    if day in (11, 12, 13):
        return "th"
    return {1: "st", 2: "nd", 3: "rd"}.get(day % 10, "th")
