"""A class of two hundred, graded by the command: every score as expected, also after a kill."""

import csv
import inspect
import itertools
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter

import pytest

from minitorch_attn.__main__ import main
from minitorch_attn.classroom import grading
from minitorch_attn.classroom.folder import BadClass, ClassFolder
from minitorch_attn.classroom.grading import graded_here
from minitorch_attn.classroom.journal import Journal
from minitorch_attn.classroom.records import Graded
from minitorch_attn.course.grade import Row

from .submissions import EXERCISES, POINTS, STUBS, job, notebook, terms, wall_or_none

LEARNERS = 200
ALL = sum(POINTS.values())


def run(*arguments):
    return main(["class", *map(str, arguments)])


@pytest.fixture
def room(tmp_path):
    return ClassFolder.create(tmp_path / "class", "A class")


def hand_in(room, submissions):
    for learner, content in submissions.items():
        path = room.submission(learner, 0)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


# -- two hundred ----------------------------------------------------------------------------


def kinds():
    """Submissions of every kind, with the points and the verdict on relu that each must get."""
    yield notebook(), ALL, "right"
    yield notebook(relu=STUBS["relu"]), ALL - POINTS["relu"], "not written"
    yield notebook(**STUBS), 0, "not written"
    for name, exercise in EXERCISES.items():
        for mutant in exercise.mutants:
            source = inspect.getsource(mutant.answer)
            source = source[source.index("def ") :] + f"\n{name} = {mutant.answer.__name__}\n"
            verdict = "wrong" if name == "relu" else "right"
            yield notebook(**{name: source}), ALL - POINTS[name], verdict
    yield notebook("import os\nos._exit(0)"), ALL, "right"
    yield (
        notebook(relu="def relu(x):\n    import os\n    os._exit(0)"),
        ALL - POINTS["relu"],
        "stopped",
    )
    yield notebook("np.allclose = lambda *args: True", **STUBS), 0, "not written"
    yield notebook()[:500], 0, None
    yield b"\xff\xff", 0, None


def a_class():
    """Learner -> (content, points, verdict on relu)."""
    cycle = itertools.islice(itertools.cycle(kinds()), LEARNERS)
    members = [(f"learner{number:03d}", *kind) for number, kind in enumerate(cycle)]
    random.Random(0).shuffle(members)
    return {learner: rest for learner, *rest in members}


@pytest.mark.timeout(1800)
def test_two_hundred_are_graded_as_expected_though_the_grader_is_killed(room):
    if wall_or_none() is None:
        pytest.skip("no wall holds on this machine")
    members = a_class()
    hand_in(room, {learner: content for learner, (content, _, _) in members.items()})
    journal = Journal(room.journal(0))
    command = [sys.executable, "-m", "minitorch_attn", "class", "grade", "00"]
    command += ["--folder", str(room.root), "--processes", "2"]

    grader = subprocess.Popen(command, stderr=subprocess.DEVNULL, start_new_session=True)
    while len(journal.read()) < LEARNERS // 8:
        assert grader.poll() is None, "the grader ended by itself"
        time.sleep(0.1)
    os.killpg(grader.pid, signal.SIGKILL)
    grader.wait()
    before = {one.learner: one for one in journal.read()}
    assert LEARNERS // 8 <= len(before) < LEARNERS

    finished = subprocess.run(command, capture_output=True, text=True)
    assert finished.returncode == 1, finished.stderr  # some could not be graded
    assert f"{LEARNERS - len(before)} graded now, {len(before)} before" in finished.stdout

    lines = Counter(one.learner for one in journal.read())
    assert lines == Counter(dict.fromkeys(members, 1))  # nobody twice, nobody lost
    for learner, graded in journal.latest().items():
        _, points, verdict = members[learner]
        rows = {row.exercise: row for row in graded.rows}
        assert graded.points == points, (learner, graded)
        assert graded.is_graded == (verdict is not None)
        assert verdict is None or rows["00.relu"].verdict == verdict
        assert before.get(learner, graded) == graded

    assert run("export", "--folder", room.root) == 0
    with open(room.root / "scores.csv", encoding="utf-8-sig", newline="") as file:
        table = list(csv.DictReader(file))
    assert len(table) == LEARNERS


# -- one at a time --------------------------------------------------------------------------


def test_only_what_is_new_changed_or_asked_for_is_graded_again(room, capsys):
    hand_in(room, {"ada": notebook(), "bob": notebook(**STUBS)})
    grade = ["grade", "00", "--folder", room.root, "--trust", "--processes", "1"]
    assert run(*grade) == 0
    assert "2 graded now, 0 before" in capsys.readouterr().out
    assert run(*grade) == 0
    assert "0 graded now, 2 before" in capsys.readouterr().out
    hand_in(room, {"bob": notebook()})
    assert run(*grade) == 0
    assert "1 graded now, 1 before" in capsys.readouterr().out
    assert {one.points for one in Journal(room.journal(0)).latest().values()} == {ALL}
    text = (room.root / "class.toml").read_text()
    (room.root / "class.toml").write_text(text.replace("cases = 20", "cases = 21"))
    assert run(*grade) == 0
    assert "2 graded now, 0 before" in capsys.readouterr().out
    assert run(*grade, "--again") == 0
    assert "2 graded now, 0 before" in capsys.readouterr().out


def test_a_class_from_nothing_to_scores(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run("create", "course") == 0
    assert run("create", "course") == 2
    assert "already" in capsys.readouterr().err
    monkeypatch.chdir(tmp_path / "course")
    assert run("release", "00") == 0
    handed_in = tmp_path / "in" / "ada" / "00_start_here.ipynb"
    handed_in.parent.mkdir(parents=True)
    handed_in.write_bytes(notebook(relu=STUBS["relu"]))
    assert run("collect", tmp_path / "in") == 0
    assert run("grade", "--trust", "--processes", "1") == 0
    assert run("feedback") == 0
    assert run("export") == 0
    assert run("compare") == 0
    capsys.readouterr()
    root = tmp_path / "course"
    assert "relu" in (root / "feedback" / "ada" / "00_start_here.txt").read_text()
    assert "relu" in (root / "feedback" / "ada" / "00_start_here.html").read_text()
    assert (root / "overview" / "00_start_here.png").stat().st_size > 1000
    for name in ("scores.csv", "scores.json", "canvas.csv", "moodle.csv"):
        assert (root / name).stat().st_size > 10


def test_unvetted_code_is_not_graded_without_a_wall_unless_it_is_trusted(room, capsys, monkeypatch):
    from minitorch_attn.classroom import cli
    from minitorch_attn.classroom.wall import NoWall

    def no_wall(*args):
        raise NoWall("no wall holds here")

    monkeypatch.setattr(cli, "choose", no_wall)
    hand_in(room, {"ada": notebook()})
    assert run("grade", "--folder", room.root) == 2
    assert "no wall holds here" in capsys.readouterr().err
    assert Journal(room.journal(0)).read() == []


def test_a_wall_that_is_asked_for_is_tried_too(room, capsys, monkeypatch):
    from minitorch_attn.classroom import wall

    monkeypatch.setattr(wall, "gaps_of", lambda one: ["it leaks"])
    hand_in(room, {"ada": notebook()})
    assert run("grade", "--folder", room.root, "--wall", "bubblewrap") == 2
    said = capsys.readouterr().err
    assert "bubblewrap: it leaks" in said and "in force" not in said


def test_a_step_with_nothing_to_do_names_the_step_before(room, capsys):
    for step, words in (
        ("grade", "class collect"),
        ("feedback", "class grade"),
        ("export", "class grade"),
    ):
        assert run(step, "00", "--folder", room.root) == 2
        assert words in capsys.readouterr().err
    assert not (room.root / "scores.csv").exists()


def test_scores_of_an_earlier_version_are_said_to_be_that(room, capsys):
    hand_in(room, {"ada": notebook(), "bob": notebook()})
    assert run("grade", "--folder", room.root, "--trust", "--processes", "1") == 0
    capsys.readouterr()
    assert run("export", "--folder", room.root) == 0
    assert capsys.readouterr().err == ""
    hand_in(room, {"bob": notebook("1 + 1"), "eve": notebook()})
    for step in ("export", "feedback"):
        assert run(step, "--folder", room.root) == 0
        assert "changed: bob (00), eve (00)\n" in capsys.readouterr().err


def test_collecting_names_a_source_without_notebooks_and_who_is_on_no_roster(room, capsys):
    empty, source = room.root / "empty", room.root / "in"
    empty.mkdir()
    assert run("collect", empty, "--folder", room.root) == 1
    assert "empty: there is no notebook in it" in capsys.readouterr().err
    (room.root / "roster.csv").write_text("learner\nada\n")
    for learner in ("ada", "eve"):
        (source / learner).mkdir(parents=True)
        (source / learner / "00_start_here.ipynb").write_bytes(notebook())
    assert run("collect", source, "--folder", room.root) == 0
    assert "not in roster.csv: eve\n" in capsys.readouterr().out


def test_an_interrupted_step_says_that_it_can_go_on(room, capsys, monkeypatch):
    from minitorch_attn.classroom import cli

    def interrupted(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "graded_here", interrupted)
    hand_in(room, {"ada": notebook()})
    assert run("grade", "--folder", room.root, "--trust") == 130
    assert "the same command goes on" in capsys.readouterr().err


def test_a_class_too_small_to_compare_is_said_to_be_so(room, capsys):
    hand_in(room, {"ada": notebook(), "bob": notebook()})
    assert run("compare", "--folder", room.root) == 0
    assert "2 handed in; what is usual shows from 5 on" in capsys.readouterr().out


def test_what_is_no_class_is_said_to_be_none(tmp_path, capsys):
    assert run("grade", "--folder", tmp_path) == 2
    assert "class create" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("cases = 20", "casse = 20", "no setting casse"),
        ("cases = 20", 'cases = "20"', "cases cannot be '20': it must be a whole number"),
        ("cell = 60.0", 'cell = "60"', "cell cannot be '60': it must be a number"),
        ("title = ", "title = 1 # ", "title cannot be 1: it must be text"),
        ("memory = 2.0", "memory = 0.05", "NumPy needs a memory of 0.5 or more, not 0.05"),
        ("cases = 20", "cases = -1", "from 0 on"),
        ("cell = 60.0", "cell = 0", "more than 0"),
        ("cases = 20", "cases = ", "cannot be read"),
        ("title = ", "# ", "does not say the title"),
    ],
)
def test_a_class_toml_that_cannot_be_used_is_refused_with_the_reason(room, old, new, words):
    path = room.root / "class.toml"
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(BadClass, match=words):
        ClassFolder.open(room.root)


def test_a_title_of_any_characters_is_kept(tmp_path):
    title = 'Attention "\\" for\nvision'
    ClassFolder.create(tmp_path / "class", title)
    assert ClassFolder.open(tmp_path / "class").settings.title == title.replace("\n", " ")


# -- the pool -------------------------------------------------------------------------------


def _do_or_die(job):
    """Stands in for grading: a job named so ends the process that does it."""
    if job.learner.startswith("deadly"):
        os._exit(1)
    return job.graded([Row(job.notebook, "00.relu", 1, 1, "right")], 0.0)


def test_a_job_that_ends_its_grader_costs_the_others_nothing(monkeypatch):
    monkeypatch.setattr(grading, "do", _do_or_die)
    names = [f"ada{number}" for number in range(6)]
    names[1], names[4] = "deadly1", "deadly4"
    by = terms(None)
    done: list[Graded] = []
    graded_here((job(b"", by, name) for name in names), 2, done.append)
    assert sorted(one.learner for one in done) == sorted(names)
    assert {one.learner for one in done if not one.is_graded} == {"deadly1", "deadly4"}
