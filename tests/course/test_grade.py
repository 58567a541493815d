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
from minitorch_attn.course.grade import Limits, grade
from minitorch_attn.course.grade_tables import as_csv, as_json, as_summary, as_table
from minitorch_attn.course.submission import BadNotebook, read_submission

IMPORTS = "import numpy as np\nfrom minitorch_attn.course import check, hint, progress, solution"
RELU = "def relu(x):\n    return np.maximum(x, 0)"
SOFTMAX = (
    "def softmax(x):\n"
    "    e = np.exp(x - x.max(axis=-1, keepdims=True))\n"
    "    return e / e.sum(axis=-1, keepdims=True)"
)
OVERFLOWING = SOFTMAX.replace(" - x.max(axis=-1, keepdims=True)", "")
QUICK = Limits(cell=10.0, notebook=30.0, check=5.0)


def marked(name, source):
    """A cell as it is handed out, with nbgrader's mark."""
    marks = {"grade_id": name, "solution": True, "grade": False, "schema_version": 3}
    return {"source": source, "metadata": {"nbgrader": marks}}


def write_notebook(path, *sources):
    cells = [
        {"cell_type": "code", "metadata": {}, "outputs": [], "execution_count": None}
        | (source if isinstance(source, dict) else {"source": source})
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
    assert rows["00.softmax"].cause == "line 1: expected ':'"


def test_a_missing_name_is_told_its_own_cells_error_and_no_other_exercises(graded):
    broken = "def softmax(x):\n    return np.exp(x"
    checks = 'check("00.softmax", softmax)', marked("check-relu", "check(relu)")
    rows = graded("import none_such", broken, "def relu(x)", "relu_rule = 1 / 0\n", *checks)
    assert rows["00.softmax"].message == (
        "00.softmax: line 2: '(' was never closed\n"
        "Code cell 2: line 1: ModuleNotFoundError: No module named 'none_such'"
    )
    assert rows["00.relu_rule"].cause == "line 1: ZeroDivisionError: division by zero"


def test_a_marked_cell_is_its_exercises_whatever_became_of_it(graded):
    rows = graded(
        marked("relu", "def my_relu(x):\n    return x"),
        marked("relu_rule", "x = [\n3"),
        marked("softmax", "def\n"),
    )
    assert {row.verdict for row in rows.values()} == {"missing"}
    assert rows["00.relu"].cause == "no relu in the notebook; its cell defines my_relu"
    assert rows["00.relu_rule"].cause == "line 1: '[' was never closed"
    assert rows["00.softmax"].cause == "line 1: invalid syntax"


def test_the_cause_of_an_exception_is_the_exception(graded):
    rows = graded(
        "def relu(x):\n    raise ValueError('one\\n\\x1b[31mtwo')",
        "def relu_rule(y):\n    exit()",
        "def softmax(z, scale):\n    return z",
    )
    assert {row.verdict for row in rows.values()} == {"raised"}
    assert rows["00.relu"].cause == "ValueError: one [31mtwo"
    assert rows["00.relu_rule"].cause == "calls exit()"
    assert rows["00.softmax"].cause == (
        "TypeError: softmax() missing 1 required positional argument: 'scale'"
    )


def test_other_parameter_names_are_told_as_such(tmp_path):
    source = (
        "from minitorch_attn import nn\nclass SqueezeExcitation(nn.Module):\n"
        "    def __init__(self, c):\n        super().__init__()"
    )
    rows = grade(write_notebook(tmp_path / "13_mine.ipynb", source), more=0, limits=QUICK)
    (cause,) = (row.cause for row in rows if row.exercise == "13.SqueezeExcitation")
    assert cause.startswith(
        "parameter names differ: SqueezeExcitation.__init__() got an unexpected"
    )


@pytest.mark.parametrize("word", ["exit", "quit", "import sys; sys.exit"])
def test_a_cell_that_calls_exit_ends_alone(graded, word):
    rows = graded(f"{word}()\n{RELU}", SOFTMAX)
    assert verdicts(rows) == {"relu": "missing", "relu_rule": "missing", "softmax": "right"}
    assert rows["00.relu"].cause == "line 1: calls exit()"


@pytest.mark.parametrize(
    "source",
    [
        "from minitorch_attn.functional import relu",
        "import minitorch_attn.functional as F\nrelu = F.relu.__wrapped__",
        "from minitorch_attn import nn\nrelu = nn.ReLU()",
        "from minitorch_attn.course.exercise import find\nrelu = find('00.relu').reference",
    ],
    ids=["import", "unwrapped", "module", "reference"],
)
def test_the_librarys_own_earns_nothing(graded, source):
    row = graded(source)["00.relu"]
    assert (row.verdict, row.points) == ("imported", 0)
    assert row.cause.startswith("it is minitorch_attn.")
    assert "relu is the library's own" in row.message and "Write it in the notebook" in row.message


def test_what_is_made_with_the_library_is_the_learners(graded):
    rows = graded(
        "from minitorch_attn.engine import primitive\nkept = primitive(lambda x: (x, None))", RELU
    )
    assert rows["00.relu"].verdict == "right"


def test_a_name_that_is_no_function_is_told(graded):
    rows = graded("relu = 3", "relu_rule = relu", "softmax = np.zeros(3)")
    assert set(verdicts(rows).values()) == {"unusable"}


def test_endless_loops_cost_only_their_own_points(graded):
    limits = Limits(cell=1.0, notebook=20.0, check=1.0)
    forever = "def relu_rule(x):\n    while True:\n        pass"
    rows = graded("while True:\n    pass", RELU, forever, SOFTMAX, limits=limits)
    assert verdicts(rows) == {"relu": "right", "relu_rule": "too slow", "softmax": "right"}
    assert rows["00.relu_rule"].cause == "did not end within 1 s"
    assert (rows["00.relu_rule"].passed, rows["00.relu_rule"].cases) == (0, 1)


def test_a_cell_that_never_ends_is_told(graded):
    rows = graded("while True:\n    pass\n" + RELU, SOFTMAX, limits=Limits(1.0, 20.0, 1.0))
    assert (rows["00.relu"].verdict, rows["00.relu"].cause) == (
        "too slow",
        "did not end within 1 s",
    )
    assert rows["00.softmax"].verdict == "right"


def test_the_cases_told_are_those_looked_at(graded):
    rows = graded(RELU, solution_source.stub(exercises(0)[1]), OVERFLOWING, more=3)
    assert rows["00.relu"].cases == len(exercises(0)[0].cases(3, 0))
    assert (rows["00.relu_rule"].passed, rows["00.relu_rule"].cases) == (0, 1)
    assert rows["00.softmax"].cases == len(exercises(0)[2].cases(3, 0))


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


@pytest.mark.parametrize("end", ["os._exit(0)", "os.abort()", "os.kill(os.getpid(), 9)"])
def test_a_cell_that_ends_its_process_costs_only_its_own_points(graded, end):
    rows = graded(RELU, f"import os\n{end}\n" + SOFTMAX)
    assert verdicts(rows) == {"relu": "right", "relu_rule": "missing", "softmax": "stopped"}
    assert rows["00.softmax"].cause == "code cell 3: its process ended"


def test_a_notebook_that_ends_its_process_again_and_again_is_given_up(graded):
    rows = graded(*["import os\nos._exit(0)"] * grading.MOST_LOST, RELU)
    assert set(verdicts(rows).values()) == {"stopped"}
    assert rows["00.relu"].cause == "the process that the notebook ran in ended again and again"


def test_cells_after_the_notebooks_time_are_not_run(graded):
    limits = Limits(cell=10.0, notebook=4.0, check=5.0)
    sleeping = "import time\ntime.sleep(20)\nrelu_rule = print"
    rows = graded(RELU, sleeping, SOFTMAX, limits=limits)
    assert verdicts(rows) == {"relu": "right", "relu_rule": "too slow", "softmax": "stopped"}
    assert rows["00.relu_rule"].cause == "the notebook took longer than 4 s"
    assert rows["00.softmax"].cause == "not run: the notebook took longer than 4 s"


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
        (b" \n", "is empty: ask for it to be saved and handed in again"),
        (
            b'{"cells": [\n{"cell',
            "is cut off or damaged: its JSON breaks at line 2, column 2 (Unterminated string "
            "starting at); ask for it again",
        ),
        ("{}".encode("utf-16"), "is written in UTF-16: save it as UTF-8 in a text editor"),
        ("{}".encode("utf-16-be"), "is written in UTF-16: save it as UTF-8 in a text editor"),
        (b'"caf\xe9"', "is not text in UTF-8: save it as UTF-8 in a text editor"),
        (b"\n<!DOCTYPE html>", "is a web page: download the notebook itself (on GitHub: Raw)"),
        (
            b'{"worksheets": [], "nbformat": 3}',
            "is a notebook of format 3: open it in Jupyter and save it, or run "
            "jupyter nbconvert --to notebook --inplace on it",
        ),
        (b"[]", "is not a notebook (format 4)"),
        (b'{"cells": [3]}', "is not a notebook (format 4)"),
        (b'{"cells": [{"cell_type": "code", "source": 3}]}', "is not a notebook (format 4)"),
        (b"[" * 100_000, "is not a notebook: its JSON is too deep or too large to read"),
    ],
    ids="empty cut utf-16 utf-16-be latin web old list cell source deep".split(),
)
def test_a_broken_notebook_is_its_own_error_row_and_says_how_to_mend_it(tmp_path, content, cause):
    path = tmp_path / "00_start_here.ipynb"
    path.write_bytes(content)
    (row,) = grade(path)
    assert (row.verdict, row.cause, row.points) == ("error", cause, 0)


def test_a_byte_order_mark_is_passed_over(tmp_path):
    path = write_notebook(tmp_path / "00_start_here.ipynb", RELU)
    path.write_text("\ufeff" + path.read_text(), encoding="utf-8")
    assert read_submission(path).cells[0].source == RELU


def test_a_fault_of_the_grader_is_that_notebooks_error_row(tmp_path, monkeypatch):
    def broken(path, lesson):
        raise ZeroDivisionError("oh")

    monkeypatch.setattr(grading, "read_submission", broken)
    (row,) = grade(tmp_path / "00.ipynb")
    assert (row.verdict, row.points) == ("error", 0)
    assert row.cause == "the grader failed on it: ZeroDivisionError: oh"


def test_a_missing_file_and_a_folder_are_error_rows(tmp_path):
    for path in (tmp_path / "00_none.ipynb", tmp_path):
        (row,) = grade(path)
        assert row.verdict == "error" and row.cause.startswith("cannot be read: ")


@pytest.mark.parametrize(
    ("name", "cells", "number"),
    [
        ("homework", ['check("00.relu", relu)', marked("excite", "")], 0),
        ("homework", [marked("excite", ""), marked("check-scale", "")], 13),
        ("team_7_00_start_here (1)", ["x = 1"], 0),
        ("homework", ["def squeeze(x):\n    pass", "excite = 3"], 13),
        ("homework", [marked("excite", "def relu(x):\n    pass")], 13),
    ],
    ids=["checks", "marks", "name", "definitions", "marks-first"],
)
def test_the_set_is_known_by_checks_marks_name_or_definitions(tmp_path, name, cells, number):
    assert read_submission(write_notebook(tmp_path / f"{name}.ipynb", *cells)).number == number


def test_a_notebook_of_no_set_is_refused_unless_its_set_is_told(tmp_path):
    diary = write_notebook(tmp_path / "diary.ipynb", "x = 1")
    with pytest.raises(BadNotebook, match="belongs to no exercise set.*--lesson NN says"):
        read_submission(diary)
    assert read_submission(diary, lesson=13).number == 13


def test_a_notebook_of_another_set_is_told(tmp_path):
    path = write_notebook(tmp_path / "mine.ipynb", 'check("01.topological_order", f)')
    (row,) = grade(path, lesson=13)
    assert (row.verdict, row.cause) == ("error", "is set 01, expected 13")


# -- table, files, command ------------------------------------------------------------------

ROWS = [
    grading.Row("a.ipynb", "00.relu", 1, 1, "right", "", 8, 8, "fine"),
    grading.Row("a.ipynb", "00.softmax", 0, 2.5, "wrong", "overflow, mostly", 3, 8, "no\nno"),
    grading.Row("b.ipynb", "", 0, 0, "error", "is not a notebook (format 4)"),
]


def test_the_table_lists_exercises_below_their_notebook_and_then_the_sums():
    assert as_table(ROWS) == (
        "exercise      points    verdict  likely cause\n"
        "---------------------------------------------\n"
        "a.ipynb\n"
        "  00.relu     1 of 1    right\n"
        "  00.softmax  0 of 2.5  wrong    overflow, mostly\n"
        "b.ipynb\n"
        "                        error    is not a notebook (format 4)\n"
        "\n"
        "notebook  points\n"
        "----------------\n"
        "a.ipynb   1 of 3.5\n"
        "b.ipynb   could not be graded"
    )


def test_csv_and_json_hold_every_row():
    text = as_csv(ROWS)
    assert text.encode().startswith(b"\xef\xbb\xbfnotebook,")  # Excel knows UTF-8 by this
    lines = list(csv.DictReader(io.StringIO(text.removeprefix("\ufeff"))))
    assert [line["verdict"] for line in lines] == ["right", "wrong", "error"]
    assert lines[1]["cause"] == "overflow, mostly" and lines[1]["out_of"] == "2.5"
    content = json.loads(as_json(ROWS, {"seed": 3}))
    assert content["settings"] == {"seed": 3} and content["rows"][1]["message"] == "no\nno"


def test_the_summary_has_a_line_a_notebook():
    assert as_summary(ROWS).removeprefix("\ufeff") == (
        "notebook,lesson,points,out_of,cause\n"
        "a.ipynb,00,1,3.5,\n"
        "b.ipynb,,0,0,is not a notebook (format 4)\n"
    )
    sums = json.loads(as_json(ROWS, {}))["notebooks"]
    assert [(one["lesson"], one["points"], one["out_of"]) for one in sums] == [
        ("00", 1, 3.5),
        ("", 0, 0),
    ]


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r"])
def test_a_spreadsheet_reads_no_formula_out_of_a_submission(start):
    row = grading.Row(f"{start}a.ipynb", "00.relu", -1, 1, "raised", f"{start}1+1")
    for text in (as_csv([row]), as_summary([row])):
        (line,) = csv.DictReader(io.StringIO(text.removeprefix("\ufeff"), newline=""))
        assert line["notebook"] == f"'{start}a.ipynb".replace("\r", " ")
        assert line["points"] == "-1"
    assert f"'{start}1+1".replace("\r", " ") in as_csv([row])


def command(*args):
    return [sys.executable, "-m", "minitorch_attn", "grade", *map(str, args)]


def test_the_command_grades_prints_and_writes(tmp_path):
    write_notebook(tmp_path / "00_good.ipynb", IMPORTS, *exercise_cells(solved=True))
    (tmp_path / "00_bad.ipynb").write_text("{")
    outputs = ["--csv", "g.csv", "--json", "g.json", "--summary", "s.csv"]
    args = command("00_*.ipynb", "00_good.ipynb", *outputs)
    done = subprocess.run(args, capture_output=True, text=True, timeout=120, cwd=tmp_path)
    assert done.returncode == 1, done.stderr
    assert "5 of 5" in done.stdout
    assert done.stdout.endswith("\n1 of 2 could not be graded: 00_bad.ipynb\n")
    assert done.stderr == "1 of 2: 00_bad.ipynb\n2 of 2: 00_good.ipynb\n"
    assert len((tmp_path / "g.csv").read_text().splitlines()) == 5
    assert len((tmp_path / "s.csv").read_text().splitlines()) == 3
    content = json.loads((tmp_path / "g.json").read_text())
    assert len(content["rows"]) == 4 and content["settings"]["cases"] == 20


def test_all_graded_is_0_whatever_the_grades(tmp_path, capsys):
    path = write_notebook(tmp_path / "00_none.ipynb", "x = 1")
    assert main(["grade", str(path), "--cases", "0"]) == 0
    assert "could not be graded" not in capsys.readouterr().out


def test_old_grades_stay_where_no_notebook_could_be_read(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "g.csv").write_text("old")
    assert main(["grade", "none.ipynb", "--csv", "g.csv"]) == 1
    told = capsys.readouterr()
    assert "1 of 1 could not be graded: none.ipynb" in told.out
    assert told.err.endswith("g.csv left as it was\n")
    assert (tmp_path / "g.csv").read_text() == "old"


def test_the_lesson_is_one_that_has_exercises(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["grade", "x.ipynb", "--lesson", "99"])
    assert ended.value.code == 2
    assert "there is no exercise set '99'; there are 00, 01" in capsys.readouterr().err


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
def test_an_interrupted_run_prints_what_it_has_and_leaves_the_old_grades(tmp_path):
    write_notebook(tmp_path / "00_a.ipynb", IMPORTS, RELU)
    write_notebook(tmp_path / "00_b.ipynb", IMPORTS, "import time\ntime.sleep(60)")
    scores = tmp_path / "scores.csv"
    scores.write_text("old")
    process = subprocess.Popen(
        command("00_a.ipynb", "00_b.ipynb", "--csv", "scores.csv", "--cases", "0"),
        cwd=tmp_path,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # tests may run with none
    )
    lines = iter(process.stderr.readline, "")
    assert any(line.startswith("2 of 2") for line in lines)
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    table, told = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "1 of 5" in table and "00_b" not in table
    assert told == "interrupted: scores.csv left as it was\n"
    assert scores.read_text() == "old"
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["00_a.ipynb", "00_b.ipynb", "scores.csv"]


def test_a_submission_that_takes_too_long_altogether_is_stopped(graded):
    slow = "import time\ndef relu(x):\n    time.sleep(1)\n    return np.maximum(x, 0)"
    limits = Limits(cell=10.0, notebook=30.0, check=20.0, submission=4.0)
    rows = graded(slow, *list(exercise_cells(solved=True))[2:], limits=limits, more=20)
    assert rows["00.relu"].verdict == "too slow"
    assert "longer than 4 s" in rows["00.softmax"].cause
    assert all(row.points == 0 for row in rows.values())
