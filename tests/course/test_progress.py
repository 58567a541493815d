"""The file that keeps a learner's progress, and the page made of it."""

import json
import multiprocessing
import os
import re
import stat
import sys
from pathlib import Path

import pytest

from minitorch_attn.course import plan
from minitorch_attn.course.exercise import find
from minitorch_attn.course.files import write_atomically
from minitorch_attn.course.progress import note, overview, progress_path, read
from minitorch_attn.course.progress_cli import add_arguments, run


@pytest.fixture(autouse=True)
def file(tmp_path, monkeypatch):
    path = tmp_path / "deep" / "progress.json"
    monkeypatch.setenv("MINITORCH_ATTN_PROGRESS", str(path))
    return path


@pytest.fixture
def relu():
    return find("00.relu")


def test_nothing_is_known_at_first(file):
    assert read() == ({}, "")
    assert not file.parent.exists()


def test_what_happened_is_remembered(relu, file):
    assert note(relu, tried=True) == ""
    assert read()[0]["00.relu"].state == "tried"
    note(relu, tried=True, passed=True)
    note(relu, tried=True)
    record = read()[0]["00.relu"]
    assert (record.tries, record.passed, record.state) == (3, True, "done")


def test_a_solution_looked_at_afterwards_is_no_matter(relu):
    note(relu, shown=True)
    assert read()[0]["00.relu"].shown
    other = find("00.softmax")
    note(other, tried=True, passed=True)
    note(other, shown=True)
    assert not read()[0]["00.softmax"].shown


def test_the_file_is_the_same_whatever_the_order(relu, file):
    note(find("00.softmax"), tried=True)
    note(relu, tried=True)
    first = file.read_text()
    file.unlink()
    note(relu, tried=True)
    note(find("00.softmax"), tried=True)
    assert file.read_text() == first


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", '{"exercises": []}', '{"exercises": {"00.relu": 3}}', "\x00\xff", "[" * 9999],
    ids=["empty", "cut", "list", "no dict", "number", "binary", "deep"],
)
def test_a_damaged_file_is_moved_aside_and_said(relu, file, content):
    file.parent.mkdir()
    file.write_bytes(content.encode("latin-1"))
    words = note(relu, tried=True)
    assert words.startswith("The progress file was damaged: it is now progress-damaged-")
    (aside,) = file.parent.glob("progress-damaged-*.json")
    assert aside.read_bytes() == content.encode("latin-1")
    assert read()[0]["00.relu"].tries == 1


def test_what_a_newer_version_added_does_no_harm(relu, file):
    file.parent.mkdir()
    file.write_text(json.dumps({"exercises": {"00.relu": {"tries": 2, "stars": 5}}}))
    assert read() == ({"00.relu": read()[0]["00.relu"]}, "")
    assert read()[0]["00.relu"].tries == 2


def write_many(id):
    for _ in range(20):
        note(find(id), tried=True)


def test_notebooks_that_write_at_the_same_time_lose_nothing():
    context = multiprocessing.get_context("spawn")
    ids = ["00.relu", "00.softmax", "00.relu"]
    processes = [context.Process(target=write_many, args=(id,)) for id in ids]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    records, words = read()
    assert words == ""
    assert {id: record.tries for id, record in records.items()} == {"00.relu": 40, "00.softmax": 20}


def test_a_place_that_cannot_be_written_stops_nothing(relu, tmp_path, monkeypatch):
    (tmp_path / "occupied").write_text("a file where a folder should be")
    monkeypatch.setenv("MINITORCH_ATTN_PROGRESS", str(tmp_path / "occupied" / "progress.json"))
    words = note(relu, tried=True)
    assert words.startswith("Progress cannot be kept (") and words.endswith("all the same.")
    assert str(tmp_path) not in words


def test_the_file_lies_where_the_system_keeps_such_data(monkeypatch):
    monkeypatch.delenv("MINITORCH_ATTN_PROGRESS")
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    if sys.platform.startswith("linux"):
        assert progress_path() == Path.home() / ".local/share/minitorch_attn/progress.json"
        monkeypatch.setenv("XDG_DATA_HOME", "/data")
        assert progress_path() == Path("/data/minitorch_attn/progress.json")
    monkeypatch.setattr(sys, "platform", "darwin")
    if os.name != "nt":
        assert progress_path().parts[-4:-1] == ("Library", "Application Support", "minitorch_attn")


def test_a_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "scores.csv"
    path.write_text("old")

    def fail(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(KeyboardInterrupt):
        write_atomically(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(os.name == "nt", reason="permissions of POSIX")
def test_a_written_file_has_the_permissions_that_others_have(tmp_path):
    path = tmp_path / "scores.csv"
    (tmp_path / "plain").write_text("")
    write_atomically(path, "new")
    modes = {stat.S_IMODE(one.stat().st_mode) for one in tmp_path.iterdir()}
    assert len(modes) == 1


# -- the page -------------------------------------------------------------------------------


def test_the_page_shows_the_whole_plan_and_what_is_next(relu):
    note(relu, tried=True, passed=True)
    note(find("00.softmax"), tried=True)
    text = str(overview())
    lines = text.splitlines()
    assert lines[0] == "Your progress"
    for lesson in plan.LESSONS:
        assert f"  {lesson.number:02d} {lesson.title}" in text
    (row,) = [line for line in lines if line.startswith("  00 ")]
    assert re.split("  +", row.strip()) == [
        "00 Start here",
        "[#.+] 1 of 3",
        "1 of 5 points",
        "done: relu; tried: softmax; open: relu_rule",
    ]
    assert lines[-1] == "Next: 00.relu_rule, in exercises/00_start_here.ipynb"


def test_the_page_holds_in_html_and_says_what_went_wrong(file):
    file.parent.mkdir()
    file.write_text("{")
    page = overview()
    assert "The progress file was damaged" in str(page)
    html = page._repr_html_()
    assert html.count("<th ") == len(plan.PARTS)
    assert html.count("<tr>") == len(plan.PARTS) + len(plan.LESSONS)


def test_the_command_prints_the_page_or_the_place(capsys, file):
    import argparse

    parser = argparse.ArgumentParser()
    add_arguments(parser)
    assert run(parser.parse_args([])) == 0
    assert capsys.readouterr().out.startswith("Your progress\n")
    assert run(parser.parse_args(["--file"])) == 0
    assert capsys.readouterr().out == f"{file}\n"


@pytest.mark.parametrize("lesson", [13, "13", "13.squeeze", "13_squeeze_and_excitation"])
def test_one_lesson_can_be_shown_alone(lesson):
    text = str(overview(lesson))
    assert "13 Squeeze and excitation" in text and "00 Start here" not in text
    assert "Here 0 of" in text and "Next: 13." in text


@pytest.mark.parametrize("lesson", ["softmax", 99, -1])
def test_a_lesson_that_there_is_not_is_told_kindly(lesson):
    assert "`progress()` the whole course" in str(overview(lesson))
