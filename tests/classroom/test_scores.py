"""The class's scores: no score is never 0, nobody gets another's, and no cell is a formula."""

import csv
import io
import json

import pytest

from minitorch_attn.classroom.records import Graded, Person
from minitorch_attn.classroom.scores import as_csv, as_json, canvas, moodle, not_on_roster
from minitorch_attn.course.grade import Row

ADA = Person("ada", "Lovelace, Ada", "0017", "ada@school.org")
BOB = Person("bob", "Bob", "0018", "bob@school.org")
EVE = Person("eve", "Eve", "0019", "eve@school.org")
ROSTER = [BOB, ADA, EVE]


def graded(learner, lesson, points, out_of=5.0):
    row = Row("n", f"{lesson:02d}.x", points, out_of, "right" if points else "wrong", "overflow")
    return Graded(learner, lesson, "n.ipynb", "d1", "t", (row,), 1.0)


def broken(learner, lesson, cause="is cut off"):
    rows = (Row("n", "", 0, 0, "error", cause, message=cause),)
    return Graded(learner, lesson, "n.ipynb", "d2", "t", rows, 1.0)


GRADES = [
    graded("ada", 0, 5.0),
    graded("ada", 13, 2.5, 15.0),
    graded("bob", 0, 0.0),
    broken("bob", 13),
]


def lines(text):
    return list(csv.reader(io.StringIO(text.removeprefix("\ufeff"), newline="")))


def by_learner(text, column=0):
    head, *rest = lines(text)
    return {line[column]: dict(zip(head, line)) for line in rest}


def test_a_learner_has_a_line_and_a_set_a_column_in_the_rosters_order():
    text = as_csv(GRADES, ROSTER)
    assert text.startswith("\ufefflearner,")  # by which Excel knows UTF-8
    head, *rest = lines(text)
    assert head == [
        "learner",
        "name",
        "id",
        "email",
        "00_start_here",
        "13_squeeze_and_excitation",
        "points",
        "out_of",
        "note",
    ]
    assert [line[0] for line in rest] == ["bob", "ada", "eve"]
    ada = by_learner(text)["ada"]
    assert ada["name"] == "Lovelace, Ada" and ada["id"] == "0017"
    assert (ada["00_start_here"], ada["points"], ada["out_of"]) == ("5.0", "7.5", "20.0")


def test_nothing_handed_in_is_no_score_and_a_wrong_answer_is_0():
    table = by_learner(as_csv(GRADES, ROSTER))
    assert table["bob"]["00_start_here"] == "0.0" and table["bob"]["points"] == "0.0"
    assert table["eve"]["00_start_here"] == table["eve"]["points"] == table["eve"]["note"] == ""


def test_what_could_not_be_graded_is_no_score_and_is_named():
    bob = by_learner(as_csv(GRADES, ROSTER))["bob"]
    assert bob["13_squeeze_and_excitation"] == ""
    assert bob["note"] == "13_squeeze_and_excitation could not be graded: is cut off"


def test_no_grade_is_named_even_if_nobody_knows_why():
    grades = [broken("ada", 0, cause="")]
    assert "could not be graded: no reason is known" in by_learner(as_csv(grades))["ada"]["note"]


def test_who_is_not_on_the_roster_comes_behind_and_is_named():
    text = as_csv([*GRADES, graded("abe", 0, 1.0)], ROSTER)
    assert [line[0] for line in lines(text)] == ["learner", "bob", "ada", "eve", "abe"]
    assert by_learner(text)["abe"]["note"] == "not on the roster"
    assert by_learner(as_csv(GRADES))["ada"]["note"] == ""  # there is no roster to be on
    assert not_on_roster([*GRADES, graded("abe", 0, 1.0)], ROSTER) == ["abe"]


def test_of_two_grades_of_one_submission_the_last_counts():
    text = as_csv([graded("ada", 0, 1.0), graded("ada", 0, 4.0)])
    assert by_learner(text)["ada"]["points"] == "4.0"


def test_a_class_without_grades_has_a_file_all_the_same():
    for write in (as_csv, canvas, moodle):
        assert len(lines(write([], ROSTER))[0]) > 0
        assert write([], [])
    assert json.loads(as_json([]))["learners"] == []


def test_json_tells_0_from_nothing_and_from_what_could_not_be_graded():
    content = json.loads(as_json(GRADES, ROSTER))
    assert [(one["lesson"], one["out_of"]) for one in content["sets"]] == [(0, 5), (13, 15)]
    bob, ada, eve = content["learners"]
    assert ada["sets"]["00_start_here"]["exercises"]["00.x"]["verdict"] == "right"
    assert bob["sets"]["00_start_here"]["points"] == 0
    broken_one = {"points": None, "note": "is cut off", "digest": "d2"}
    assert bob["sets"]["13_squeeze_and_excitation"] == broken_one
    assert eve["sets"] == {} and eve["points"] is None and eve["out_of"] == 20


def test_canvas_gets_its_columns_its_points_and_its_people():
    head, worth, *rest = lines(canvas(GRADES, ROSTER))
    assert head[:5] == ["Student", "ID", "SIS User ID", "SIS Login ID", "Section"]
    assert head[5:] == ["00 Start here", "13 Squeeze and excitation"]
    assert worth == ["    Points Possible", "", "", "", "", "5.0", "15.0"]
    assert rest[0] == ["Bob", "", "0018", "bob@school.org", "", "0.0", ""]
    assert rest[1] == ["Lovelace, Ada", "", "0017", "ada@school.org", "", "5.0", "2.5"]
    assert rest[2][5:] == ["", ""]
    assert lines(canvas(GRADES))[2][:5] == ["ada", "", "", "ada", ""]


def test_a_set_that_nobody_could_be_graded_in_is_worth_nothing_known():
    assert lines(canvas([broken("ada", 0)]))[1] == ["    Points Possible", "", "", "", "", ""]


def test_moodle_gets_a_dash_for_no_score_as_an_empty_cell_would_be_0():
    table = by_learner(moodle(GRADES, ROSTER))
    assert table["bob@school.org"]["00 Start here"] == "0.0"
    assert table["bob@school.org"]["13 Squeeze and excitation"] == "-"
    assert table["eve@school.org"]["00 Start here"] == "-"


@pytest.mark.parametrize(
    ("roster", "column", "identities"),
    [
        ([ADA, BOB], "Email address", ["ada@school.org", "bob@school.org"]),
        ([ADA, Person("bob", "Bob", "0018")], "ID number", ["0017", "0018"]),
        ([ADA, Person("bob", "Bob", "0018", ADA.email)], "ID number", ["0017", "0018"]),
        ([ADA, Person("bob", "Bob")], "Username", ["ada", "bob"]),
        ([], "Username", ["ada", "bob"]),
    ],
)
def test_moodle_finds_everybody_by_one_column_that_all_have_to_themselves(
    roster, column, identities
):
    head, *rest = lines(moodle(GRADES, roster))
    assert head[0] == column and [line[0] for line in rest] == identities


def test_moodle_is_told_of_nobody_it_could_not_know():
    text = moodle([*GRADES, graded("test submission", 0, 5.0)], ROSTER)
    assert len(lines(text)) == 4 and "test" not in text


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r", "\n"])
def test_a_spreadsheet_reads_no_formula_out_of_a_cell(start):
    text = f"{start}cmd|'/c calc'!A1"
    person = Person(text, text, text, text)
    grades = [graded(text, 0, -1.0), broken(text, 13, text)]
    for write in (as_csv, canvas, moodle):
        for roster in ([person], []):
            for line in lines(write(grades, roster)):
                formulas = [cell for cell in line if cell.startswith(("=", "+", "@", "\t", "\r"))]
                assert not formulas and not any(cell.startswith("\n") for cell in line)
                assert {cell for cell in line if cell.startswith("-")} <= {"-", "-1.0"}


def test_every_name_can_be_written_down():
    for name in ("a\udcff", "a\x00b", 'a","b', "a\nb", "x" * 100_000, "\u202egnp"):
        for write in (as_csv, as_json, canvas, moodle):
            text = write([graded(name, 0, 1.0)], [Person(name, name, name, name)])
            assert len(text.encode()) < 1_000_000
    assert lines(as_csv([graded('a","b', 0, 1.0)]))[1][0] == 'a","b'
