"""The picture of a class: its parts add up, all of it can be read, and it leaves nothing behind."""

import io
import warnings

import pytest

from minitorch_attn.classroom.overview import MOST_MISTAKES, mistakes_of, overview
from minitorch_attn.classroom.records import Graded
from minitorch_attn.course.exercise import exercises
from minitorch_attn.course.grade import Row

matplotlib = pytest.importorskip("matplotlib")


def graded(*rows, lesson=13, learner="ada"):
    return Graded(learner, lesson, "n.ipynb", "d", "t", rows, 1.0)


def row(verdict, cause="", exercise="13.squeeze"):
    return Row("n", exercise, 0, 1, verdict, cause)


def broken():
    return graded(Row("n", "", 0, 0, "error", "is cut off"))


def parts(ax):
    """Widths of the bars of an axes, by the name of their part."""
    return {bars.get_label(): [bar.get_width() for bar in bars] for bars in ax.containers}


def words(ax):
    return [text.get_text() for text in ax.texts]


def drawn(figure):
    """The picture as it is saved; a letter that the font lacks, or a crowded layout, would warn."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        file = io.BytesIO()
        figure.savefig(file, format="png", dpi=100)
    return file.getvalue()


def test_the_parts_of_an_exercise_add_up_to_all_who_could_be_graded():
    verdicts = ["right", "right", "wrong", "raised", "too slow", "stopped", "unusable"]
    verdicts += ["missing", "not written", "imported", "solution taken"]
    grades = [graded(row(one), row("right", exercise="13.excite")) for one in verdicts]
    figure = overview([*grades, broken(), graded(row("right"), lesson=14)], 13)
    assert parts(figure.axes[0]) == {
        "right": [2, 11],
        "not right": [5, 0],
        "no answer of their own": [4, 0],
    }
    assert figure.axes[0].get_xlim() == (0, 11)
    assert [tick.get_text() for tick in figure.axes[0].get_yticklabels()] == ["squeeze", "excite"]
    assert "12 submissions, 1 could not be graded" in figure.get_suptitle()


def test_mistakes_are_counted_by_exercise_and_exceptions_by_kind():
    rows = [
        row("wrong", "overflow"),
        row("wrong", "overflow"),
        row("wrong", "overflow", "13.excite"),
        row("raised", "NameError: name 'a' is not defined"),
        row("raised", "NameError: name 'b' is not defined"),
        row("right"),
        row("missing", "no squeeze in the notebook"),
        row("wrong"),
    ]
    assert mistakes_of(rows) == {
        ("13.squeeze", "overflow"): 2,
        ("13.excite", "overflow"): 1,
        ("13.squeeze", "NameError"): 2,
    }


def test_the_mistakes_that_most_met_come_first():
    grades = [graded(row("wrong", f"mistake {n}")) for n in range(20) for _ in range(20 - n)]
    figure = overview(grades, 13)
    shown = [text for text in words(figure.axes[1]) if "mistake" in text]
    assert shown == [f"squeeze: mistake {n}" for n in range(MOST_MISTAKES)]
    assert [bar.get_width() for bar in figure.axes[1].containers[0]] == list(range(20, 8, -1))


def test_a_class_of_two_hundred_with_long_names_can_be_read():
    museum = [(one.id, wrong.name) for one in exercises(13) for wrong in one.mutants]
    names = ["13." + "a_name_that_has_no_end_" * 4, "13.SqueezeExcitation"]
    grades = [
        graded(row("wrong", cause), row("wrong", "a mistake told at length " * 9, names[n % 2]))
        for n, (_, cause) in enumerate(museum * 9)
    ][:200]
    figure = overview(grades, 13)
    drawn(figure)
    canvas = figure.bbox
    for ax in figure.axes:
        texts = [*ax.texts, *ax.get_yticklabels(), ax.xaxis.label, ax.title]
        boxes = [text.get_window_extent() for text in texts if text.get_text()]
        for box in boxes:
            assert canvas.x0 <= box.x0 and box.x1 <= canvas.x1
            assert canvas.y0 <= box.y0 and box.y1 <= canvas.y1
        lines = [text for text in ax.texts if ":" in text.get_text()]
        lines = [text.get_window_extent() for text in lines]
        assert all(above.y0 >= below.y1 for above, below in zip(lines, lines[1:]))


def test_what_is_in_a_name_is_only_drawn():
    hostile = [
        "$\\frac{$",
        "$x$",
        "\\$",
        "$" * 99,
        "李",
        "\x1b[2J\x00",
        "\u202egnp",
        "a\nb",
        "\udcff",
    ]
    rows = [row("wrong", text, f"13.{text}") for text in hostile]
    figure = overview([graded(*rows)], 13)
    assert drawn(figure).startswith(b"\x89PNG")
    assert all(text.isascii() and "\n" not in text for text in words(figure.axes[1]))


def test_classes_without_mistakes_or_without_grades_have_a_picture():
    for grades, told in (
        ([], "nothing is graded yet"),
        ([broken()], "1 submission, 1 could not be graded"),
        ([graded(row("right"))], "1 submission"),
    ):
        figure = overview(grades, 13)
        assert told in figure.get_suptitle() and len(figure.axes) == 1
        assert drawn(figure).startswith(b"\x89PNG")


def test_the_picture_leaves_matplotlib_as_it_was():
    pyplot = pytest.importorskip("matplotlib.pyplot")
    before = pyplot.get_fignums(), dict(matplotlib.rcParams)
    drawn(overview([graded(row("wrong", "overflow"))], 13))
    assert (pyplot.get_fignums(), dict(matplotlib.rcParams)) == before
