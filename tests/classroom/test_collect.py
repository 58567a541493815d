"""Submissions come in from folders and archives, to whom they belong, and none is ever lost."""

import os
import shutil
import zipfile

import pytest

from minitorch_attn.classroom.collect import collect, safe_name
from minitorch_attn.classroom.folder import BadClass, ClassFolder
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
    assert brought(room, tmp_path / "in") == [("left out", "eve")]


def test_what_is_too_large_is_left_out_also_where_the_archive_lies(room, tmp_path):
    path = tmp_path / "bomb.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as target:
        target.writestr("eve/00_start_here.ipynb", bytes(MOST_BYTES + 1))
        target.writestr("ada/00_start_here.ipynb", FIRST)
    assert brought(room, path) == [("left out", "eve"), ("new", "ada")]


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


def test_what_is_not_there_is_said_not_to_be(room, tmp_path):
    with pytest.raises(FileNotFoundError):
        list(collect(room, tmp_path / "nowhere"))


@pytest.mark.parametrize("place", [".", "..", "submitted", "submitted/ada", "released"])
def test_the_class_itself_is_not_collected(room, place):
    (room.root / "submitted" / "ada").mkdir()
    with pytest.raises(BadClass, match="where your download lies"):
        list(collect(room, room.root / place))
    assert room.learners == ["ada"]


def test_of_two_versions_in_one_source_the_later_counts_whatever_its_name_and_however_often(
    room, tmp_path
):
    folder = tmp_path / "in" / "ada"
    folder.mkdir(parents=True)
    for hour, (name, content) in enumerate(
        [("00_start_here-Copy1.ipynb", SECOND), ("00_start_here.ipynb", FIRST), ("00_a.ipynb", b"")]
    ):
        (folder / name).write_bytes(content or notebook("2 + 2"))
        os.utime(folder / name, (3600 * (5 - hour), 3600 * (5 - hour)))
    outcomes = list(collect(room, tmp_path / "in"))
    assert [one.verdict for one in outcomes] == ["left out", "left out", "new"]
    assert "Copy1.ipynb is the later version" in outcomes[-2].why
    assert room.submissions(0)["ada"].read_bytes() == SECOND
    again = brought(room, tmp_path / "in")
    assert again == [("left out", "ada"), ("left out", "ada"), ("same", "ada")]
    assert not (room.root / "submitted" / "ada" / "earlier").exists()


def test_of_two_versions_in_an_archive_the_later_counts(room, tmp_path):
    path = tmp_path / "in.zip"
    with zipfile.ZipFile(path, "w") as target:
        for year, name, content in ((2026, "00_new.ipynb", SECOND), (2025, "00_old.ipynb", FIRST)):
            target.writestr(zipfile.ZipInfo(f"ada/{name}", (year, 1, 1, 0, 0, 0)), content)
    assert brought(room, path) == [("left out", "ada"), ("new", "ada")]
    assert room.submissions(0)["ada"].read_bytes() == SECOND


def test_who_handed_in_no_notebook_is_named(room, tmp_path):
    source = archive(
        tmp_path / "in.zip",
        {
            "Mia_7_assignsubmission_file_/00_start_here.pdf": b"",
            "Leo_8_assignsubmission_onlinetext_/onlinetext.html": b"",
            "ada/00_start_here.ipynb": FIRST,
            "ada/picture.png": b"",
            "__MACOSX/ada/._00_start_here.ipynb": b"",
            "bob/.DS_Store": b"",
        },
    )
    assert brought(room, source) == [("left out", "Leo_8"), ("left out", "Mia_7"), ("new", "ada")]


def test_a_damaged_file_in_an_archive_costs_the_others_nothing(room, tmp_path):
    path = tmp_path / "in.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as target:
        target.writestr("eve/00_start_here.ipynb", FIRST)
        target.writestr("ada/00_start_here.ipynb", SECOND)
    data = bytearray(path.read_bytes())
    start = data.index(b"00_start_here.ipynb") + len("00_start_here.ipynb")
    data[start : start + 40] = b"\xff" * 40
    path.write_bytes(data)
    assert brought(room, path) == [("left out", "eve"), ("new", "ada")]


@pytest.mark.parametrize(
    ("file", "learner"),
    [
        ("Ada Lovelace_22_assignsubmission_file_/00_start_here.ipynb", "ada"),  # 22 is bob's
        ("Anna Roth_31_assignsubmission_file_/00_start_here.ipynb", "anna1"),
        ("Anna Roth_99_assignsubmission_file_/00_start_here.ipynb", "Anna_Roth_99"),
        ("Anna Roth_22_assignsubmission_file_/00_start_here.ipynb", "Anna_Roth_22"),
        ("lovelaceada_901_77_00_start_here.ipynb", "ada"),
        ("Zoe\u0308 Roth_44_assignsubmission_file_/00_start_here.ipynb", "zoe"),  # as a Mac writes
        ("someone_22_77_00_start_here.ipynb", "bob"),
        ("bob/00_start_here.ipynb", "bob"),
        ("Anna Roth/00_start_here.ipynb", "Anna_Roth-19d46b8c"),
    ],
)
def test_the_name_says_who_it_is_and_the_number_where_the_name_does_not(
    room, tmp_path, file, learner
):
    roster = "learner,name,id\nbob,Bob,22\nada,Ada Lovelace,11\nanna1,Anna Roth,31\n"
    (room.root / "roster.csv").write_text(roster + "anna2,Anna Roth,32\nzoe,Zo\u00eb Roth,\n")
    assert brought(room, archive(tmp_path / "in.zip", {file: FIRST})) == [("new", learner)]


def test_a_disk_that_is_full_leaves_what_was_there(room, tmp_path, monkeypatch):
    name = "ada/00_start_here.ipynb"
    assert brought(room, archive(tmp_path / "1.zip", {name: FIRST})) == [("new", "ada")]

    def full(source, target):
        with open(target, "wb") as file:
            file.write(b"cut")
        raise OSError(28, "No space left on device", str(target))

    monkeypatch.setattr(shutil, "copyfile", full)
    with pytest.raises(OSError, match="No space"):
        brought(room, archive(tmp_path / "2.zip", {name: SECOND}))
    folder = room.root / "submitted" / "ada"
    assert [one.name for one in folder.iterdir()] == ["00_start_here.ipynb"]
    assert room.submissions(0)["ada"].read_bytes() == FIRST
