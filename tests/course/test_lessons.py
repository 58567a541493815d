"""Every lesson keeps the order that a learner can rely on, and stands on earlier lessons alone."""

import re
from pathlib import Path

import pytest

from minitorch_attn.course import plan

SOURCES = Path(__file__).parents[2] / "notebooks" / "source"
ORDER = [
    "The idea in one picture",
    "The equations",
    "The code",
    "The gradient check",
    "At work",
    "Paper and code",
    "Predict before you run",
    "Exercises",
    "What to remember",
    "Sources",
]
written = [lesson for lesson in plan.LESSONS if lesson.is_written]
derived = [lesson for lesson in written if lesson.number > 0]


def text_of(lesson):
    return (SOURCES / f"{lesson.name}.py").read_text(encoding="utf-8")


def headings(text, level):
    return re.findall(rf"^# {'#' * level} (.+)$", text, re.MULTILINE)


@pytest.mark.parametrize("lesson", derived, ids=lambda lesson: lesson.name)
def test_lesson_keeps_the_order(lesson):
    assert headings(text_of(lesson), level=2) == ORDER


@pytest.mark.parametrize("lesson", written, ids=lambda lesson: lesson.name)
def test_lesson_opens_with_what_it_gives_and_needs(lesson):
    text = text_of(lesson)
    opening = text.partition("\n# %%\n")[0]
    title = headings(opening, level=1)[0]
    assert title.startswith(f"{lesson.number:02d} · ")
    for promise in ("**You will be able to**", "**You need**", "**Time**"):
        assert promise in opening


@pytest.mark.parametrize("lesson", written, ids=lambda lesson: lesson.name)
def test_lesson_uses_nothing_that_a_later_one_builds(lesson):
    assert plan.built_later(text_of(lesson), lesson.number) == []


@pytest.mark.parametrize("lesson", written, ids=lambda lesson: lesson.name)
def test_figures_are_numbered_in_order(lesson):
    numbers = [int(n) for n in re.findall(r"\*Figure (\d+)\.", text_of(lesson))]
    assert numbers == list(range(1, len(numbers) + 1)) and numbers


@pytest.mark.parametrize("lesson", derived, ids=lambda lesson: lesson.name)
def test_lesson_leads_to_its_exercises(lesson):
    assert f"../exercises/{lesson.name}.ipynb" in text_of(lesson)
