"""The course plan: complete, in order, and clear about what comes later."""

import pytest

from minitorch_attn.course.files import ROOT
from minitorch_attn.course.plan import LESSONS, PARTS, built_in, built_later, lesson


def test_numbers_rise_and_parts_follow_one_another():
    numbers = [one.number for one in LESSONS]
    assert numbers == sorted(set(numbers))
    parts = [one.part for one in LESSONS]
    assert list(dict.fromkeys(parts)) == list(PARTS)


def test_a_lesson_has_one_name_everywhere():
    assert lesson(13).name == "13_squeeze_and_excitation"
    assert lesson(0).name == "00_start_here"


@pytest.mark.parametrize(
    "folder", ["notebooks/source", "solutions/source", "minitorch_attn/course/checks"]
)
def test_every_file_of_the_course_is_a_lesson_of_the_plan(folder):
    names = {path.stem for path in (ROOT / folder).glob("[0-9]*.py")}
    assert names <= {one.name for one in LESSONS}


def test_checks_and_solutions_come_in_pairs():
    for one in LESSONS:
        assert one.has_exercises == (ROOT / "solutions" / "source" / f"{one.name}.py").is_file()


def test_the_longest_entry_decides():
    assert built_in("nn.Module") == 4
    assert built_in("nn.Conv2d") == 5
    assert built_in("functional.conv2d.__wrapped__") == 5
    assert built_in("attention.squeeze_excitation.SqueezeExcitation") == 13
    assert built_in("attention.not_entered_yet") > 30
    assert built_in("data.digits") == 0


@pytest.mark.parametrize(
    ("source", "number", "later"),
    [
        ("from minitorch_attn import nn\nnn.Conv2d(1, 2, 3)", 4, ["nn.Conv2d (lesson 5)"]),
        ("from minitorch_attn import nn\nnn.Conv2d(1, 2, 3)", 5, []),
        ("from minitorch_attn.nn import Conv2d as C", 4, ["nn.Conv2d (lesson 5)"]),
        (
            "import minitorch_attn as mt\nmt.optim.SGD",
            3,
            ["optim.SGD (lesson 4)", "optim (lesson 4)"],
        ),
        (
            "import minitorch_attn.functional as F\ndef f(x):\n    return F.conv2d(x, x)",
            2,
            ["functional.conv2d (lesson 5)"],
        ),
        ("import minitorch_attn.attention.new", 5, ["attention.new (lesson 99)"]),
        ("from minitorch_attn.course import check\nimport numpy as nn\nnn.Conv2d", 0, []),
        ("x.nn.Conv2d", 0, []),
    ],
)
def test_what_a_later_lesson_builds_is_seen(source, number, later):
    assert built_later(source, number) == later


def test_an_unknown_number_names_those_there_are():
    with pytest.raises(KeyError, match="there is no lesson 29"):
        lesson(29)
