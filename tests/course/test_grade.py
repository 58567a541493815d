"""The grader on notebooks that are right, wrong, unfinished, broken, or end their own process."""

import csv
import io
import json
import os
import signal
import subprocess
import sys
import time

import pytest

from minitorch_attn.__main__ import main
from minitorch_attn.course import grade as grading
from minitorch_attn.course import solution_source
from minitorch_attn.course.exercise import exercises
from minitorch_attn.course.grade import Limits, as_csv, as_json, as_table, grade

IMPORTS = "import numpy as np\nfrom minitorch_attn.course import check, hint, progress, solution"
RELU = "def relu(x):\n    return np.maximum(x, 0)"
SOFTMAX = (
    "def softmax(x):\n"
    "    e = np.exp(x - x.max(axis=-1, keepdims=True))\n"
    "    return e / e.sum(axis=-1, keepdims=True)"
)
OVERFLOWING = SOFTMAX.replace(" - x.max(axis=-1, keepdims=True)", "")
QUICK = Limits(cell=10.0, notebook=30.0, check=5.0)


def write_notebook(path, *sources):
    cells = [
        {
            "cell_type": "code",
            "source": source,
            "metadata": {},
            "outputs": [],
            "execution_count": None,
        }
        for source in sources
    ]
    cells.insert(
        0, {"cell_type": "markdown", "source": ["# Text\n", "is passed over"], "metadata": {}}
    )
    path.write_text(
        json.dumps({"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5})
    )
    return path


@pytest.fixture
def graded(tmp_path):
    """Grade cells as a notebook; gives the rows by exercise."""

    def run(*sources, limits=QUICK, more=3, **settings):
        path = write_notebook(tmp_path / "00_start_here.ipynb", IMPORTS, *sources)
        rows = grade(path, limits=limits, more=more, **settings)
        assert all(row.notebook == str(path) for row in rows)
        return {row.exercise: row for row in rows}

    return run


def verdicts(rows):
    return {id.partition(".")[2]: row.verdict for id, row in rows.items()}


def exercise_cells(solved):
    for exercise in exercises(0):
        yield solution_source.solution(exercise) if solved else solution_source.stub(exercise)
        yield f'check("{exercise.id}", {exercise.name})'


def test_a_solved_notebook_has_every_point(graded):
    rows = graded(*exercise_cells(solved=True))
    assert verdicts(rows) == {"relu": "right", "relu_rule": "right", "softmax": "right"}
    assert sum(row.points for row in rows.values()) == sum(row.out_of for row in rows.values()) == 5
    assert all(row.passed == row.cases and row.cause == "" for row in rows.values())


def test_an_unsolved_notebook_has_none(graded):
    rows = graded(*exercise_cells(solved=False))
    assert set(verdicts(rows).values()) == {"not written"}
    assert sum(row.points for row in rows.values()) == 0


def test_a_half_solved_one_has_its_part_and_the_causes(graded):
    rows = graded(RELU, solution_source.stub(exercises(0)[1]), OVERFLOWING)
    assert verdicts(rows) == {"relu": "right", "relu_rule": "not written", "softmax": "wrong"}
    assert rows["00.softmax"].cause == "overflow"
    assert 0 < rows["00.softmax"].passed < rows["00.softmax"].cases
    assert "exp overflows for large numbers" in rows["00.softmax"].message


def test_the_learner_and_the_grader_are_told_the_same(graded):
    from minitorch_attn.course.checking import examine
    from minitorch_attn.course.subject import here

    names = {}
    exec(IMPORTS + "\n" + OVERFLOWING, names)
    local = examine(exercises(0)[2], here(names["softmax"]), more=3)
    assert graded(OVERFLOWING)["00.softmax"].message == str(local.page)


def test_more_cases_are_looked_at_than_in_the_notebook(graded):
    picky = "def relu(x):\n    return np.maximum(x, 0) if x.ndim < 3 or x.shape[0] < 4 else x"
    assert graded(picky, more=40)["00.relu"].verdict == "wrong"


def test_the_same_seed_gives_the_same_grade(graded):
    assert graded(OVERFLOWING, seed=5) == graded(OVERFLOWING, seed=5)


def test_errors_in_cells_do_not_stop_the_rest(graded):
    rows = graded("1 / 0", "def softmax(x)\n    return x", RELU, "undefined_name")
    assert rows["00.relu"].verdict == "right"
    assert rows["00.relu_rule"].verdict == "missing"
    assert rows["00.relu_rule"].cause == "no relu_rule in the notebook"
    assert rows["00.softmax"].cause.startswith("code cell 3 raised SyntaxError")
    assert "code cell 2 raised ZeroDivisionError: division by zero" in rows["00.softmax"].message


def test_a_name_that_is_no_function_is_told(graded):
    rows = graded("relu = 3", "relu_rule = relu", "softmax = np.zeros(3)")
    assert set(verdicts(rows).values()) == {"unusable"}


def test_endless_loops_cost_only_their_own_points(graded):
    limits = Limits(cell=1.0, notebook=20.0, check=1.0)
    forever = "def relu_rule(x):\n    while True:\n        pass"
    rows = graded("while True:\n    pass", RELU, forever, SOFTMAX, limits=limits)
    assert verdicts(rows) == {"relu": "right", "relu_rule": "too slow", "softmax": "right"}


def test_a_function_that_ends_its_process_costs_only_its_own_points(graded):
    leaving = "import os\ndef relu(x):\n    os._exit(0)"
    rows = graded(leaving, SOFTMAX)
    assert verdicts(rows) == {"relu": "stopped", "relu_rule": "missing", "softmax": "right"}
    assert rows["00.relu"].cause == "process ended"


def test_a_function_that_ends_its_process_later_does_so_too(graded):
    leaving = (
        "import os\ncalls = []\n"
        "def relu(x):\n"
        "    calls.append(1)\n"
        "    return x if len(calls) < 8 else os._exit(0)"
    )
    rows = graded(leaving, solution_source.solution(exercises(0)[1]), more=3)
    assert rows["00.relu"].points == 0 and rows["00.relu_rule"].verdict == "right"


def test_a_cell_that_ends_its_process_is_named(graded):
    rows = graded(RELU, "import os\nos._exit(0)")
    assert set(verdicts(rows).values()) == {"stopped"}
    assert rows["00.relu"].cause == "code cell 3: its process ended"


def test_a_notebook_that_takes_too_long_altogether_is_stopped(graded):
    limits = Limits(cell=10.0, notebook=0.5, check=1.0)
    rows = graded("import time\ntime.sleep(0.4)", "time.sleep(0.4)", RELU, "3", limits=limits)
    assert set(verdicts(rows).values()) == {"stopped"}
    assert "longer than 0.5 s" in rows["00.relu"].cause


@pytest.mark.parametrize("error", ["SystemExit", "KeyboardInterrupt", "GeneratorExit"])
def test_no_exception_of_a_submission_gets_out(graded, error):
    rows = graded(f"def relu(x):\n    raise {error}", f"raise {error}", SOFTMAX)
    assert verdicts(rows)["relu"] == "raised" and verdicts(rows)["softmax"] == "right"


def test_a_taken_solution_earns_nothing_but_helps_on(graded):
    rows = graded(
        'relu = solution("00.relu")', "def softmax(x):\n    return relu(x)", "relu(np.ones(1))"
    )
    assert rows["00.relu"].verdict == "solution taken" and rows["00.relu"].points == 0
    assert "take that call out" in rows["00.relu"].message
    assert rows["00.softmax"].verdict == "wrong"


def test_checks_in_a_graded_notebook_are_silent_and_keep_no_progress(graded, tmp_path, monkeypatch):
    monkeypatch.setenv("MINITORCH_ATTN_PROGRESS", str(tmp_path / "mine.json"))
    graded(RELU, 'check("00.relu", relu)', "progress()", 'hint("00.relu")')
    assert not (tmp_path / "mine.json").exists()


def test_a_notebook_runs_beside_a_copy_of_itself_and_writes_there(graded, tmp_path):
    reading = "open('00_start_here.ipynb').close()\nopen('result.txt', 'w').write('x')\n"
    assert graded(reading + RELU)["00.relu"].verdict == "right"
    assert [path.name for path in tmp_path.iterdir()] == ["00_start_here.ipynb"]


# -- what is no notebook --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        (b"{", "is not a notebook (format 4)"),
        (b"[]", "is not a notebook (format 4)"),
        (b"\xff\xfe{}", "is not a notebook (format 4)"),
        (b'{"cells": [3]}', "is not a notebook (format 4)"),
        (b'{"cells": [{"cell_type": "code", "source": 3}]}', "is not a notebook (format 4)"),
        (b'{"worksheets": []}', "is not a notebook (format 4)"),
        (b"[" * 100_000, "is not a notebook (format 4)"),
    ],
    ids=["cut", "list", "encoding", "cell", "source", "old", "deep"],
)
def test_a_broken_notebook_is_its_own_error_row(tmp_path, content, cause):
    path = tmp_path / "00_start_here.ipynb"
    path.write_bytes(content)
    (row,) = grade(path)
    assert (row.verdict, row.cause, row.points) == ("error", cause, 0)


def test_a_fault_of_the_grader_is_that_notebooks_error_row(tmp_path, monkeypatch):
    def broken(path):
        raise ZeroDivisionError("oh")

    monkeypatch.setattr(grading, "read_notebook", broken)
    (row,) = grade(tmp_path / "00.ipynb")
    assert (row.verdict, row.points) == ("error", 0)
    assert row.cause == "the grader failed on it: ZeroDivisionError: oh"


def test_a_missing_file_and_a_folder_are_error_rows(tmp_path):
    for path in (tmp_path / "00_none.ipynb", tmp_path):
        (row,) = grade(path)
        assert row.verdict == "error" and row.cause.startswith("cannot be read: ")


def test_the_set_is_known_by_its_checks_or_its_name(tmp_path):
    sources = [IMPORTS, 'check("00.relu", relu)']
    renamed = write_notebook(tmp_path / "my homework.ipynb", *sources)
    assert grading.read_notebook(renamed)[0] == 0
    named = write_notebook(tmp_path / "team_7_00_start_here (1).ipynb", IMPORTS)
    assert grading.read_notebook(named)[0] == 0
    other = write_notebook(tmp_path / "diary.ipynb", "x = 1")
    with pytest.raises(grading.BadNotebook, match="belongs to no exercise set"):
        grading.read_notebook(other)


# -- table, files, command ------------------------------------------------------------------

ROWS = [
    grading.Row("a.ipynb", "00.relu", 1, 1, "right", "", 8, 8, "fine"),
    grading.Row("a.ipynb", "00.softmax", 0, 2.5, "wrong", "overflow, mostly", 3, 8, "no\nno"),
    grading.Row("b.ipynb", "", 0, 0, "error", "is not a notebook (format 4)"),
]


def test_the_table_lists_exercises_and_sums():
    assert as_table(ROWS) == (
        "notebook  exercise    points    verdict  likely cause\n"
        "-----------------------------------------------------\n"
        "a.ipynb   00.relu     1 of 1    right\n"
        "a.ipynb   00.softmax  0 of 2.5  wrong    overflow, mostly\n"
        "a.ipynb   all         1 of 3.5\n"
        "b.ipynb                         error    is not a notebook (format 4)"
    )


def test_csv_and_json_hold_every_row():
    lines = list(csv.DictReader(io.StringIO(as_csv(ROWS))))
    assert [line["verdict"] for line in lines] == ["right", "wrong", "error"]
    assert lines[1]["cause"] == "overflow, mostly" and lines[1]["out_of"] == "2.5"
    content = json.loads(as_json(ROWS, {"seed": 3}))
    assert content["settings"] == {"seed": 3} and content["rows"][1]["message"] == "no\nno"


def command(*args):
    return [sys.executable, "-m", "minitorch_attn", "grade", *map(str, args)]


def test_the_command_grades_prints_and_writes(tmp_path):
    write_notebook(tmp_path / "00_good.ipynb", IMPORTS, *exercise_cells(solved=True))
    (tmp_path / "00_bad.ipynb").write_text("{")
    args = command(
        tmp_path / "00_*.ipynb", "--csv", tmp_path / "g.csv", "--json", tmp_path / "g.json"
    )
    done = subprocess.run(args, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "5 of 5" in done.stdout and "is not a notebook" in done.stdout
    assert len((tmp_path / "g.csv").read_text().splitlines()) == 5
    assert len(json.loads((tmp_path / "g.json").read_text())["rows"]) == 4


def test_files_that_cannot_be_written_are_told_before_anything_is_run(tmp_path):
    args = command("x.ipynb", "--csv", tmp_path / "none" / "g.csv")
    done = subprocess.run(args, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "cannot be written" in done.stderr and done.stdout == ""


@pytest.mark.parametrize(
    ("outputs", "words"),
    [
        (["--csv", "a.ipynb", "b.ipynb"], "a.ipynb is a notebook: grades go to a file"),
        (["b.ipynb", "--json", "none.ipynb"], "none.ipynb is a notebook: grades go to a file"),
        (["b.ipynb", "old", "--csv", "old"], "old is one of the notebooks to grade"),
        (["b.ipynb", "--csv", "g", "--json", "../here/g"], "g is named for two outputs"),
        (["b.ipynb", "--csv", "."], ". cannot be written: it is a folder"),
    ],
    ids=["forgotten", "suffix", "input", "same", "folder"],
)
def test_an_output_that_would_overwrite_is_refused(tmp_path, monkeypatch, capsys, outputs, words):
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    for name in ("a.ipynb", "b.ipynb", "old"):
        (folder / name).write_text(name)
    assert main(["grade", *outputs]) == 2
    told = capsys.readouterr()
    assert words in told.err and told.out == ""
    assert {path.name: path.read_text() for path in folder.iterdir()} == {
        name: name for name in ("a.ipynb", "b.ipynb", "old")
    }


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        (["--cases", "-1"], "argument --cases: -1 is less than 0"),
        (["--cases", "many"], "argument --cases: 'many' is not a whole number"),
        (["--cell-limit", "0"], "argument --cell-limit: 0 s: it must be more than 0"),
        (["--check-limit", "nan"], "argument --check-limit: nan s: it must be more than 0"),
        (["--notebook-limit", "1h"], "argument --notebook-limit: '1h' is not a number of seconds"),
        (["--seed", "-3"], "argument --seed: -3 is less than 0"),
    ],
)
def test_settings_that_mean_nothing_are_refused(capsys, setting, words):
    with pytest.raises(SystemExit) as ended:
        main(["grade", "x.ipynb", *setting])
    assert ended.value.code == 2 and words in capsys.readouterr().err


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
def test_an_interrupted_run_leaves_the_old_grades(tmp_path):
    slow = write_notebook(tmp_path / "00_slow.ipynb", IMPORTS, "import time\ntime.sleep(60)")
    scores = tmp_path / "scores.csv"
    scores.write_text("old")
    args = command(slow, "--csv", scores)
    process = subprocess.Popen(
        args,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # tests may run with none
    )
    time.sleep(3)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=30) != 0
    assert scores.read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["00_slow.ipynb", "scores.csv"]
