"""nbgrader's own commands on these exercises: the flow of docs/nbgrader.md, and where it ends."""

import csv
import os
import re
import shlex
import shutil
import subprocess
import sysconfig
from dataclasses import dataclass
from pathlib import Path
from textwrap import indent

import pytest

from minitorch_attn.classroom import wall
from minitorch_attn.course import build

utils = pytest.importorskip("nbgrader.utils")

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

ROOT = Path(__file__).resolve().parents[2]
GUIDE = ROOT / "docs" / "nbgrader.md"
START, SQUEEZE, BAM = "00_start_here", "13_squeeze_and_excitation", "14_bam"


@dataclass
class Person:
    """Somebody at a terminal: the folder they are in, and their home."""

    folder: Path
    home: Path

    def run(self, line, status=0):
        """What a command prints; it is to end with that status."""
        own = {"HOME": self.home, "JUPYTER_CONFIG_DIR": self.home / "jupyter"}
        own |= {"MINITORCH_ATTN_PROGRESS": self.home / "progress.json", "OMP_NUM_THREADS": 1}
        path = os.pathsep.join([sysconfig.get_path("scripts"), os.environ["PATH"]])
        environment = os.environ | {key: str(value) for key, value in own.items()} | {"PATH": path}
        for name in ("MINITORCH_ATTN_CHECK", "JUPYTER_DATA_DIR", "JUPYTER_CONFIG_PATH"):
            environment.pop(name, None)
        self.folder.mkdir(exist_ok=True)
        told = subprocess.run(
            shlex.split(line),
            cwd=self.folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert told.returncode == status, f"{line}\n{told.stdout}"
        return told.stdout


def commands(actor, heading):
    """The commands that the guide has for somebody below a heading, one a line."""
    _, _, section = GUIDE.read_text(encoding="utf-8").partition(f"\n## {heading}\n")
    section = section.partition("\n## ")[0]
    blocks = re.findall(r"```sh\n# (.*)\n((?:.+\n)*?)```", section)
    return [line for who, lines in blocks if who.startswith(actor) for line in lines.splitlines()]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with the checkout, an exchange, and the class that the guide makes."""
    place = tmp_path_factory.mktemp("school")
    (place / "minitorch_attn").symlink_to(ROOT)
    (place / "exchange").mkdir()
    (place / "exchange").chmod(0o777)
    for line in commands("the teacher, beside", "Once"):
        Person(place, place / "home").run(line)
    settings = place / "class" / "nbgrader_config.py"
    text = settings.read_text(encoding="utf-8")
    text, count = re.subn(r'(Exchange.root = )".*"', rf'\1"{place / "exchange"}"', text)
    assert count == 1
    settings.write_text(text, encoding="utf-8")
    return place


@pytest.fixture(scope="module")
def teacher(place):
    return Person(place / "class", place / "home")


@pytest.fixture(scope="module")
def ada(place):
    """A learner who has the class's settings where the guide says."""
    home = place / "ada"
    (home / "jupyter").mkdir(parents=True)
    shutil.copy(place / "class" / "nbgrader_config.py", home / "jupyter")
    return Person(home / "work", home)


@pytest.fixture(scope="module")
def handed_out(teacher):
    """What the commands said that hand out set 13, by command."""
    return {
        line.split()[1]: teacher.run(line)
        for line in commands("the teacher, in the class", "Hand out a set")
    }


@pytest.fixture(scope="module")
def handed_in(handed_out, ada):
    """What the commands said by which ada gets set 13, and hands it in with one wrong answer."""
    told = {}
    for line in commands("a learner", "A learner's side"):
        if line.startswith("nbgrader validate"):
            path = ada.folder / SQUEEZE / f"{SQUEEZE}.ipynb"
            solve(path, excite="def excite(z, w1, w2):\n    return z")
        told[line.split()[1]] = ada.run(line)
    return told


@pytest.fixture(scope="module")
def given_back(handed_in, teacher, ada):
    """What the commands said by which ada's work is graded and comes back to her."""
    heading = "Collect, grade, give back"
    told = {line.split()[1]: teacher.run(line) for line in commands("the teacher", heading)}
    return told | {line.split()[1]: ada.run(line) for line in commands("a learner", heading)}


def solve(path, **answers):
    """Put the course's solutions, or these answers, into a notebook that was handed out."""
    solved = {grade_id(cell): cell.source for cell in read_set(path.stem).cells}
    notebook = build.read(path)
    for cell in notebook.cells:
        if cell.metadata.get("nbgrader", {}).get("solution"):
            cell.source = (solved | answers)[grade_id(cell)]
    path.chmod(0o644)
    write(path, notebook)


def read_set(name, folder="solutions"):
    return build.read(ROOT / folder / f"{name}.ipynb")


def grade_id(cell):
    return cell.metadata.get("nbgrader", {}).get("grade_id")


def points_of(name):
    """What each check of a set is worth."""
    marks = [cell.metadata.get("nbgrader", {}) for cell in read_set(name).cells]
    return {one["grade_id"]: one["points"] for one in marks if one.get("grade")}


def write(path, notebook):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(build.text_of(notebook), encoding="utf-8")


def scores(path, assignment):
    """Score and full score of each learner, by nbgrader's list."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["assignment"] == assignment]
    return {row["student_id"]: (float(row["score"]), float(row["max_score"])) for row in rows}


# -- the flow -------------------------------------------------------------------------------


def test_every_command_of_the_guide_is_run():
    """The tests take the guide's commands by heading: none is to be left over."""
    text = GUIDE.read_text(encoding="utf-8")
    written = [
        line for block in re.findall(r"```sh\n#.*\n([^`]*)```", text) for line in block.splitlines()
    ]
    run = [
        *commands("the teacher", "Once"),
        *commands("the teacher", "Hand out a set"),
        *commands("a learner", "A learner's side"),
        *commands("the teacher", "Collect, grade, give back"),
        *commands("a learner", "Collect, grade, give back"),
        *commands("the teacher", "Hand out with nbgrader, grade behind a wall"),
    ]
    assert run == written and len(run) > 20
    assert len(re.findall("```sh\n", text)) == 7


def test_solved_set_is_valid_and_released_without_its_solutions(handed_out, teacher, place):
    assert "Success! Your notebook passes all the tests." in handed_out["validate"]
    released = place / "exchange" / "attention" / "outbound" / SQUEEZE / f"{SQUEEZE}.ipynb"
    cells = build.read(released).cells
    ours = read_set(SQUEEZE, "exercises").cells
    assert [grade_id(cell) for cell in cells] == [grade_id(cell) for cell in ours]
    stubs = [cell.source for cell in cells if cell.metadata.get("nbgrader", {}).get("solution")]
    assert stubs and all("raise NotImplementedError" in stub for stub in stubs)


def test_learner_finds_the_set_validates_and_submits(handed_in):
    assert SQUEEZE in handed_in["list"]
    assert "VALIDATION FAILED ON 1 CELL(S)" in handed_in["validate"]
    assert "13.excite is not right yet" in handed_in["validate"]
    assert "Submitted as: attention 13_squeeze_and_excitation" in handed_in["submit"]


def test_submitted_work_is_collected_graded_and_exported(given_back, teacher):
    points = points_of(SQUEEZE)
    most = sum(points.values())
    earned = most - points["check-excite"]
    assert scores(teacher.folder / "scores.csv", SQUEEZE) == {utils.get_username(): (earned, most)}


def test_feedback_reaches_the_learner_with_the_checks_words(given_back, ada):
    (page,) = (ada.folder / SQUEEZE / "feedback").rglob("*.html")
    text = page.read_text(encoding="utf-8")
    assert "13.excite is not right yet" in text and "13.squeeze is right" in text


def test_what_nbgrader_collected_is_graded_behind_the_wall(given_back, place):
    try:
        wall.choose()
    except wall.NoWall as error:
        pytest.skip(str(error))
    for line in commands("the teacher", "Hand out with nbgrader, grade behind a wall"):
        Person(place, place / "home").run(line)
    with (place / "graded" / "scores.csv").open(encoding="utf-8-sig", newline="") as file:
        rows = {row["learner"]: row for row in csv.DictReader(file)}
    points = points_of(SQUEEZE)
    earned = sum(points.values()) - points["check-excite"]
    assert float(rows[utils.get_username()][SQUEEZE]) == earned


# -- all sorts of submissions ---------------------------------------------------------------

WRONG = "def relu(x):\n    return x"
HIDDEN = "assert softmax(np.zeros(4)).tolist() == [0.25] * 4"
TAKEN = """\
from minitorch_attn.course import solution
relu = solution("00.relu", show=True)
assert relu is not None
"""
ENDLESS = """\
import time
while True:
    time.sleep(0.01)
"""
MALLORY = """\
import sqlite3
from IPython.display import HTML, display
from pathlib import Path

def check(*anything):
    pass

relu = relu_rule = None
display(HTML("<script>mallory()</script>"))
print(Path("../../../source/00_start_here/00_start_here.ipynb").read_text())
with sqlite3.connect("../../../gradebook.db", timeout=60) as gradebook:
    gradebook.execute(
        "UPDATE grade SET auto_score = 0 WHERE notebook_id IN (SELECT notebook.id "
        "FROM submitted_notebook AS notebook JOIN submitted_assignment AS assignment "
        "ON notebook.assignment_id = assignment.id WHERE student_id = 'bob')"
    )
"""


@pytest.fixture(scope="module")
def classwork(teacher):
    """Sets 00 and 14 graded, 00 with a hidden test of the teacher's and hostile submissions."""
    hand_out(teacher, START, hidden={"check-softmax": HIDDEN})
    hand_out(teacher, BAM)
    for name in (START, BAM):
        submit(teacher, name, "untouched", source="exercises")
        submit(teacher, name, "solved")
    submit(teacher, START, "bob")
    submit(teacher, START, "taker", answers={"relu": TAKEN})
    submit(teacher, START, "endless", answers={"relu": f"def relu(x):\n{indent(ENDLESS, '    ')}"})
    submit(teacher, START, "stuck", answers={"relu": ENDLESS})
    submit(teacher, START, "quitter", answers={"relu": "import os\nos._exit(0)"})
    submit(teacher, START, "changer", answers={"relu": WRONG, "check-relu": "pass"}, points=100)
    submit(teacher, START, "deleter", answers={"check-relu": None})
    submit(teacher, START, "mallory", answers={"relu": MALLORY, "relu_rule": ""})
    told = teacher.run(f"nbgrader autograde {START} --Execute.timeout=30", status=1)
    teacher.run(f"nbgrader autograde {BAM}")
    teacher.run(f"nbgrader generate_feedback {START} --student mallory")
    teacher.run("nbgrader export --to classwork.csv")
    return told


@pytest.fixture(scope="module")
def earned(classwork, teacher):
    return scores(teacher.folder / "classwork.csv", START)


def hand_out(teacher, name, hidden=None):
    """Generate an assignment from a solved set, with hidden tests in these cells."""
    notebook = read_set(name)
    for cell in notebook.cells:
        if grade_id(cell) in (hidden or {}):
            lines = "### BEGIN HIDDEN TESTS", hidden[grade_id(cell)], "### END HIDDEN TESTS"
            cell.source = "\n".join([cell.source, *lines])
    write(teacher.folder / "source" / name / f"{name}.ipynb", notebook)
    teacher.run(f"nbgrader generate_assignment {name}")


def submit(teacher, name, learner, answers=None, source="solutions", points=None):
    """Lay a submission where `nbgrader collect` would: a set with other sources in some cells."""
    notebook, answers = read_set(name, source), answers or {}
    for cell in notebook.cells:
        if grade_id(cell) in answers and points and "points" in cell.metadata.nbgrader:
            cell.metadata.nbgrader.points = points
        cell.source = answers.get(grade_id(cell), cell.source)
    notebook.cells = [cell for cell in notebook.cells if cell.source is not None]
    write(teacher.folder / "submitted" / learner / name / f"{name}.ipynb", notebook)


def test_untouched_stubs_earn_nothing(earned, teacher):
    most = sum(points_of(START).values())
    assert earned["untouched"] == (0, most)
    heavy = scores(teacher.folder / "classwork.csv", BAM)
    assert heavy["untouched"] == (0, sum(points_of(BAM).values()))


def test_solved_work_earns_everything(earned, teacher):
    most = sum(points_of(START).values())
    assert earned["solved"] == (most, most)
    heavy = scores(teacher.folder / "classwork.csv", BAM)
    assert heavy["solved"] == (sum(points_of(BAM).values()),) * 2


@pytest.mark.parametrize("learner", ["taker", "endless", "stuck", "changer"])
def test_one_bad_answer_costs_its_own_points_alone(earned, learner):
    """The course's own solution; a function, a cell without end; a check cell changed."""
    points = points_of(START)
    most = sum(points.values())
    assert earned[learner] == (most - points["check-relu"], most)


def test_a_check_cell_that_was_deleted_is_put_back_and_counts(earned):
    assert earned["deleter"] == earned["solved"]


def test_submission_that_ends_its_process_has_no_grade_and_a_zero_in_the_list(
    classwork, earned, teacher
):
    assert "Kernel died" in classwork
    assert "error processing assignment '00_start_here' for student 'quitter'" in classwork
    assert not (teacher.folder / "autograded" / "quitter" / START).exists()
    assert earned["quitter"] == (0, sum(points_of(START).values()))


# -- what nbgrader does not keep out: if one of these fails, the guide is to be changed -----


def test_a_submission_gives_itself_every_point(earned):
    """It wrote neither `relu` nor `relu_rule`."""
    assert earned["mallory"] == (sum(points_of(START).values()),) * 2


def test_a_submission_changes_the_score_of_somebody_else(earned):
    """Bob handed in the same as `solved`."""
    assert earned["bob"] == (0, earned["solved"][0])


def test_a_submission_reads_the_solutions(classwork, teacher):
    notebook = build.read(teacher.folder / "autograded" / "mallory" / START / f"{START}.ipynb")
    printed = "".join(
        output.get("text", "") for c in notebook.cells for output in c.get("outputs", [])
    )
    assert "return np.maximum(x, 0)" in printed


def test_a_submissions_script_stands_in_its_feedback(classwork, teacher):
    page = teacher.folder / "feedback" / "mallory" / START / f"{START}.html"
    assert "<script>mallory()</script>" in page.read_text(encoding="utf-8")


def test_hidden_tests_are_not_released_but_stand_in_feedback(classwork, teacher):
    released = teacher.folder / "release" / START / f"{START}.ipynb"
    page = teacher.folder / "feedback" / "mallory" / START / f"{START}.html"
    assert "HIDDEN" not in released.read_text(encoding="utf-8")
    assert "BEGIN HIDDEN TESTS" in page.read_text(encoding="utf-8")


def test_no_set_of_ours_has_hidden_tests():
    sources = list((ROOT / "solutions" / "source").glob("*.py"))
    assert len(sources) > 20
    assert not [path.name for path in sources if "HIDDEN TESTS" in path.read_text(encoding="utf-8")]
