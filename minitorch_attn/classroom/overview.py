"""How a class did in an exercise set, as a picture for its teacher."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from ..course import plan
from ..course.grade import Row
from ..viz.style import BLUE, GREY, VERMILION, WIDTH, new_figure, styled
from .feedback import plain
from .records import Graded

#: So many mistakes are shown, those that were met most.
MOST_MISTAKES = 12

#: What became of an exercise: its verdicts (None: all others), colour and hatching.
OUTCOMES = {
    "right": (("right",), BLUE, ""),
    "not right": (None, VERMILION, "///"),
    "no answer of their own": (
        ("missing", "not written", "imported", "solution taken"),
        "#CFCFCF",
        "...",
    ),
}

_LONGEST_NAME, _LONGEST_MISTAKE = 30, 80


@styled
def overview(grades: Sequence[Graded], lesson: int) -> Any:
    """Draw how many had each exercise right, and which mistakes were met most.

    A mistake is the likely cause that a check named: mostly one of the exercise's known wrong
    answers; of an exception its kind alone counts.

    Parameters
    ----------
    grades : sequence of Graded
        One a learner; those of other sets are passed over.
    lesson : int
        The exercise set.

    Returns
    -------
    Figure
        To show in a notebook or to `savefig`.
    """
    own = [graded for graded in grades if graded.lesson == lesson]
    readable = [graded for graded in own if graded.is_graded]
    rows = [row for graded in readable for row in graded.rows]
    names = list(dict.fromkeys(row.exercise for row in rows))
    mistakes = mistakes_of(rows).most_common(MOST_MISTAKES)

    heights = [1.3 + 0.38 * len(names), 0.8 + 0.46 * len(mistakes)]
    heights = heights if mistakes else heights[:1]
    figure = new_figure(WIDTH, sum(heights))
    figure.suptitle(_title(lesson, len(own), len(readable)), x=0.01, ha="left")
    # Parts of their own, for the names beside the upper bars should not push the lower ones aside.
    parts = figure.subfigures(len(heights), 1, squeeze=False, height_ratios=heights)[:, 0]
    _draw_exercises(parts[0].subplots(), names, rows)
    if mistakes:
        _draw_mistakes(parts[1].subplots(), mistakes)
    return figure


def mistakes_of(rows: Iterable[Row]) -> Counter[tuple[str, str]]:
    """How many met each mistake, by the exercise and the mistake's name."""
    wrong = [row for row in rows if row.cause and _outcome(row) == "not right"]
    return Counter((row.exercise, _mistake(row)) for row in wrong)


def _mistake(row: Row) -> str:
    """The cause; of an exception its kind, for its message differs from learner to learner."""
    return row.cause.partition(":")[0] if row.verdict in ("raised", "stopped") else row.cause


def _outcome(row: Row) -> str:
    known = (name for name, (verdicts, _, _) in OUTCOMES.items() if row.verdict in (verdicts or ()))
    return next(known, "not right")


def _title(lesson: int, total: int, readable: int) -> str:
    title = f"Exercises {lesson:02d}: {plan.lesson(lesson).title}\n"
    if total == 0:
        return f"{title}nothing is graded yet"
    title += f"{total} submission{'s' if total > 1 else ''}"
    return title if total == readable else f"{title}, {total - readable} could not be graded"


def _draw_exercises(ax: Any, names: Sequence[str], rows: Sequence[Row]) -> None:
    """A bar an exercise, in parts that add up to all learners."""
    if not names:
        ax.set_axis_off()
        return
    counts = Counter((row.exercise, _outcome(row)) for row in rows)
    total = max(sum(counts[name, one] for one in OUTCOMES) for name in names)
    places = range(len(names))
    starts = [0] * len(names)
    for outcome, (_, colour, hatch) in OUTCOMES.items():
        widths = [counts[name, outcome] for name in names]
        bars = ax.barh(
            places,
            widths,
            left=starts,
            height=0.7,
            color=colour,
            hatch=hatch,
            edgecolor="white",
            linewidth=1,
            label=outcome,
        )
        # A number that its part has no room for would lie on its neighbour's.
        numbers = [str(n) if n > 0.015 * total * (1 + len(str(n))) else "" for n in widths]
        for text in ax.bar_label(bars, numbers, label_type="center", color="black", fontsize=9):
            text.set_bbox({"boxstyle": "round,pad=0.15", "color": "white", "linewidth": 0})
        starts = [start + width for start, width in zip(starts, widths)]
    ax.set_yticks(places, [_label(name.partition(".")[2], _LONGEST_NAME) for name in names])
    ax.invert_yaxis()
    ax.set_xlim(0, total)
    ax.set_xlabel("learners")
    ax.xaxis.get_major_locator().set_params(integer=True)
    ax.tick_params(axis="y", length=0)
    ax.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3, frameon=False, borderpad=0)


def _draw_mistakes(ax: Any, mistakes: Sequence[tuple[tuple[str, str], int]]) -> None:
    """A bar a mistake, its name above the bar, where there is room for a long one."""
    counts = [count for _, count in mistakes]
    places = range(len(mistakes))
    ax.barh(places, counts, height=0.28, color=VERMILION)
    for place, ((exercise, mistake), count) in enumerate(mistakes):
        name = _label(f"{exercise.partition('.')[2]}: {mistake}", _LONGEST_MISTAKE)
        ax.annotate(name, (0, place - 0.2), xytext=(1, 1), textcoords="offset points", fontsize=9)
        ax.annotate(
            str(count), (count, place), xytext=(3, 0), textcoords="offset points", va="center"
        )
    ax.set_ylim(len(mistakes) - 0.6, -0.9)
    ax.set_yticks([])
    ax.set_xlim(0, 1.06 * max(counts))
    ax.set_xlabel("learners who met it")
    ax.xaxis.get_major_locator().set_params(integer=True)
    ax.spines["left"].set_color(GREY)
    ax.set_title("Mistakes that were met most", loc="left")


def _label(text: str, letters: int) -> str:
    """Text as a picture can show it: in its font's letters, on one line, not as a formula."""
    shown = plain(text[:1000].replace("\n", " "), 1000)
    shown = shown.encode("ascii", "backslashreplace").decode("ascii")
    shown = shown if len(shown) <= letters else f"{shown[: letters - 3]}..."
    return shown.replace("$", r"\$")
