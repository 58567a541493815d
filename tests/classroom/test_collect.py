"""Submissions come in from folders and archives, to whom they belong, and none is ever lost."""

import os
import zipfile

import pytest

from minitorch_attn.classroom.collect import collect, safe_name
from minitorch_attn.classroom.folder import ClassFolder
from minitorch_attn.course.submission import MOST_BYTES

from .submissions import notebook

FIRST, SECOND = notebook(), notebook("1 + 1")


@pytest.fixture
def room(tmp_path):
    folder = ClassFolder.create(tmp_path / "class", "A class")
    folder.release(0)
    return folder


def archive(path, files):
    with zipfile.ZipFile(path, "w") as target:
        for name, content in files.items():
            target.writestr(name, content)
    return path


def brought(room, source, **settings):
    """What became of each notebook: (verdict, learner)."""
    outcomes = list(collect(room, source, **settings))
    return sorted((one.verdict, one.learner) for one in outcomes)


def test_a_folder_with_a_folder_a_learner(room, tmp_path):
    for learner, content in (("ada", FIRST), ("bob", SECOND)):
        path = tmp_path / "in" / learner / "deep" / "00_start_here.ipynb"
        path.parent.mkdir(parents=True)
        path.write_bytes(content)
    assert brought(room, tmp_path / "in") == [("new", "ada"), ("new", "bob")]
    assert room.submissions(0)["bob"].read_bytes() == SECOND


def test_moodles_archive_by_name_and_by_roster(room, tmp_path):
    (room.root / "roster.csv").write_text("learner,name,id\nada,Ada Lovelace,\nbob,,22\n")
    source = archive(
        tmp_path / "moodle.zip",
        {
            "Ada Lovelace_11_assignsubmission_file_/00_start_here.ipynb": FIRST,
            "Robert_22_assignsubmission_file_mine.ipynb": SECOND,
            "Zoë Ångström_33_assignsubmission_file_/00 start (1).ipynb": FIRST,
            "Ada Lovelace_11_assignsubmission_file_/notes.txt": b"hello",
        },
    )
    assert brought(room, source) == [("new", "Zoë_Ångström_33"), ("new", "ada"), ("new", "bob")]


def test_canvas_archive(room, tmp_path):
    (room.root / "roster.csv").write_text("learner,name,id\nada,Ada Lovelace,11\n")
    source = archive(
        tmp_path / "canvas.zip",
        {
            "lovelaceada_11_901_00_start_here.ipynb": FIRST,
            "hopper_LATE_12_902_00_start_here-3.ipynb": FIRST,
        },
    )
    assert brought(room, source) == [("new", "ada"), ("new", "hopper_12")]


def test_a_later_version_takes_the_place_of_the_earlier_which_is_kept(room, tmp_path):
    name = "ada/00_start_here.ipynb"
    contents = [FIRST, FIRST, SECOND, FIRST]
    verdicts = [
        brought(room, archive(tmp_path / f"{number}.zip", {name: content}))
        for number, content in enumerate(contents)
    ]
    assert [one[0][0] for one in verdicts] == ["new", "same", "changed", "changed"]
    assert room.submissions(0)["ada"].read_bytes() == FIRST
    earlier = sorted((room.root / "submitted" / "ada" / "earlier").iterdir())
    assert [path.read_bytes() for path in earlier] == [FIRST, SECOND]


def test_names_cannot_lead_out_of_the_class(room, tmp_path):
    source = archive(
        tmp_path / "evil.zip",
        {
            "../../evil/00_start_here.ipynb": FIRST,
            "/etc/00_start_here.ipynb": FIRST,
            "..\\evil\\00_start_here.ipynb": FIRST,
            "00_start_here.ipynb": FIRST,
            "con\x1b[2J/00_start_here.ipynb": FIRST,
        },
    )
    list(collect(room, source))
    outside = {path for path in tmp_path.rglob("*.ipynb") if room.root not in path.parents}
    assert outside == set()
    assert not (tmp_path.parent / "evil").exists()
    for path in (room.root / "submitted").iterdir():
        assert path.name == safe_name(path.name)


def test_two_names_that_look_alike_are_two_learners(room, tmp_path):
    source = archive(
        tmp_path / "in.zip",
        {"a b/00_start_here.ipynb": FIRST, "a_b/00_start_here.ipynb": SECOND},
    )
    assert len(brought(room, source)) == len(room.learners) == 2


def test_links_are_passed_over(room, tmp_path):
    secret = tmp_path / "elsewhere" / "00_start_here.ipynb"
    secret.parent.mkdir()
    secret.write_bytes(FIRST)
    (tmp_path / "in" / "eve").mkdir(parents=True)
    os.symlink(secret, tmp_path / "in" / "eve" / "00_start_here.ipynb")
    assert brought(room, tmp_path / "in") == [("left out", "")]


def test_what_is_too_large_is_left_out_also_where_the_archive_lies(room, tmp_path):
    path = tmp_path / "bomb.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as target:
        target.writestr("eve/00_start_here.ipynb", bytes(MOST_BYTES + 1))
        target.writestr("ada/00_start_here.ipynb", FIRST)
    assert brought(room, path) == [("left out", ""), ("new", "ada")]


def test_a_broken_notebook_of_a_known_set_is_taken_so_that_its_grade_can_say_so(room, tmp_path):
    source = archive(tmp_path / "in.zip", {"eve/00_start_here.ipynb": FIRST[:99]})
    assert brought(room, source) == [("new", "eve")]


def test_a_notebook_of_no_set_or_another_is_left_out(room, tmp_path):
    source = archive(
        tmp_path / "in.zip", {"eve/mine.ipynb": b"{}", "ada/00_start_here.ipynb": FIRST}
    )
    assert brought(room, source, number=13) == [("left out", "ada"), ("left out", "eve")]
    assert brought(room, source) == [("left out", "eve"), ("new", "ada")]


def test_what_is_no_archive_is_said_to_be_none(room, tmp_path):
    path = tmp_path / "in.zip"
    path.write_bytes(b"no archive")
    with pytest.raises(zipfile.BadZipFile):
        list(collect(room, path))
