"""The journal keeps every grade from the moment it is written, whatever becomes of the writer."""

import pytest

from minitorch_attn.classroom.journal import Busy, Journal
from minitorch_attn.classroom.records import BadRoster, Graded, Person, read_roster
from minitorch_attn.course.grade import Row


def record(learner, points=1.0, message="ünïcode\nand \ud800"):
    row = Row("00_start_here.ipynb", "00.relu", points, 1.0, "right", "cause", 3, 3, message)
    return Graded(learner, 0, "00_start_here.ipynb", "d" * 64, "t" * 64, (row,), 1.5)


def test_a_record_comes_back_from_its_line_as_it_was():
    graded = record("ada")
    assert Graded.from_line(graded.as_line()) == graded
    assert graded.points == graded.out_of == 1 and graded.is_graded


@pytest.mark.parametrize("line", ["", "{", "[]", "3", "{}", '{"rows": 3}', '{"rows": [{}]}'])
def test_a_line_that_is_none_is_refused(line):
    with pytest.raises(ValueError):
        Graded.from_line(line)


def test_what_was_added_is_read_and_the_last_counts(tmp_path):
    journal = Journal(tmp_path / "grades" / "00.jsonl")
    assert journal.read() == []
    with journal.writing() as writer:
        for graded in (record("ada", 0), record("bob"), record("ada")):
            writer.add(graded)
    assert [one.learner for one in journal.read()] == ["ada", "bob", "ada"]
    assert journal.latest()["ada"].points == 1


def test_a_line_that_was_cut_off_costs_neither_those_before_nor_those_after(tmp_path):
    journal = Journal(tmp_path / "00.jsonl")
    with journal.writing() as writer:
        writer.add(record("ada"))
        writer.add(record("bob"))
    whole = journal.path.read_bytes()
    for length in range(len(whole) // 2 + 1, len(whole)):
        journal.path.write_bytes(whole[:length])
        with journal.writing() as writer:
            writer.add(record("cy"))
        learners = [one.learner for one in journal.read()]
        assert learners in (["ada", "cy"], ["ada", "bob", "cy"])


def test_two_graders_do_not_write_at_once(tmp_path):
    pytest.importorskip("fcntl")
    journal = Journal(tmp_path / "00.jsonl")
    with journal.writing(), pytest.raises(Busy, match="under way"), journal.writing():
        pass
    with journal.writing():
        pass


def test_a_roster_is_read_whatever_a_spreadsheet_made_of_it(tmp_path):
    path = tmp_path / "roster.csv"
    path.write_text("\ufeffName;Learner;E-mail;id\nAda L.;ada;;7\n;;;\n", encoding="utf-8")
    assert read_roster(path) == [Person("ada", "Ada L.", "7", "")]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"name,id\nAda,1\n", "no column learner"),
        (b"learner\nada\nada\n", "ada twice"),
        (b"learner\n\xff\n", "UTF-8"),
        (b"learner\nada/bob\n", "'ada/bob' cannot be the name of a learner's folder"),
        (b"learner\n..\n", "cannot be the name"),
    ],
)
def test_a_roster_that_cannot_be_used_is_refused(tmp_path, text, words):
    path = tmp_path / "roster.csv"
    path.write_bytes(text)
    with pytest.raises(BadRoster, match=words):
        read_roster(path)
