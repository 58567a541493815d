"""The builder: the same text gives the same bytes, and no edit of anyone is lost."""

import json
import re
import shutil
import time

import nbformat
import pytest

from minitorch_attn.__main__ import main
from minitorch_attn.course import build, exercise_cells, notebook_run
from minitorch_attn.course.build import State

LESSON = """\
# %% [markdown]
# # A lesson
#
# With $y = x^2$ and *prose*.

# %%
import os

print(os.path.basename(os.getcwd()))

# %%
6 * 7
"""

EXERCISES = '''\
# %% [markdown]
# # Exercises

# %% exercise="squeeze"
def squeeze(x):
    """Mean over space."""
    shape = x.shape
    ### BEGIN SOLUTION
    if len(shape) == 4:
        return x.mean((2, 3))
    return x
    ### END SOLUTION


# %% check="squeeze" points=2
import numpy as np

assert squeeze(np.ones((1, 2, 3, 3))).shape == (1, 2)
### BEGIN HIDDEN TESTS
assert squeeze(np.ones(3)).shape == (3,)
### END HIDDEN TESTS
'''


@pytest.fixture
def course(tmp_path):
    """A small course: one lesson, one exercise set."""
    return write_course(tmp_path / "course")


@pytest.fixture(scope="module")
def built_once(tmp_path_factory):
    root = write_course(tmp_path_factory.mktemp("built") / "course")
    assert command(root) == 0
    return root


@pytest.fixture
def built(built_once, tmp_path):
    """The same course with its notebooks built and run."""
    return shutil.copytree(built_once, tmp_path / "built")


def write_course(root):
    for folder, text in (("notebooks", LESSON), ("solutions", EXERCISES)):
        source = root / folder / "source" / "01_topic.py"
        source.parent.mkdir(parents=True)
        source.write_text(text, encoding="utf-8")
    return root


def command(root, *arguments):
    return main(["build", "--root", str(root), *arguments])


def only_target(root, folder):
    return next(t for t in build.targets(root) if t.folder == folder)


def edit_source(root, folder, old, new):
    path = root / folder / "source" / "01_topic.py"
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")
    return path


def edit_notebook(root, folder, old, new):
    """Edit a notebook's cells as a person does in JupyterLab, which also writes its own version."""
    path = root / folder / "01_topic.ipynb"
    notebook = nbformat.read(path, as_version=4)
    assert any(old in cell.source for cell in notebook.cells)
    for cell in notebook.cells:
        cell.source = cell.source.replace(old, new)
    notebook.metadata.language_info["version"] = "3.99.0"
    nbformat.write(notebook, path)
    return path


def files(root):
    return {path: path.read_bytes() for path in sorted(root.glob("*/*.ipynb"))}


# ---------------------------------------------------------------- what is built


def test_lesson_is_run_in_its_own_folder_and_keeps_its_outputs(built):
    lesson = build.read(built / "notebooks" / "01_topic.ipynb")
    first, second = (cell for cell in lesson.cells if cell.cell_type == "code")
    assert first.outputs[0].text == "notebooks\n"
    assert second.outputs[0].data == {"text/plain": "42"}
    assert (first.execution_count, second.execution_count) == (1, 2)


def test_text_of_a_lesson_is_unchanged_in_its_notebook(built):
    lesson = build.read(built / "notebooks" / "01_topic.ipynb")
    assert lesson.cells[0].source == "# A lesson\n\nWith $y = x^2$ and *prose*."


def test_building_again_gives_the_same_bytes(built):
    before = files(built)
    assert command(built, "--force") == 0
    assert files(built) == before


def test_notebooks_hold_no_version_and_no_time(built):
    for content in files(built).values():
        text = content.decode()
        assert text.endswith("}\n")
        assert not re.search(r'"version"|T\d\d:\d\d:\d\d|"execution"', text)
        assert json.loads(text)["metadata"]["kernelspec"]["name"] == "python3"


def test_cell_keeps_its_id_when_another_is_put_before_it(course):
    target = only_target(course, "notebooks")
    before = [cell.id for cell in build.generate(target).cells]
    edit_source(course, "notebooks", "# %%\nimport", "# %%\nx = 1\n\n# %%\nimport")
    after = [cell.id for cell in build.generate(target).cells]
    assert [i for i in after if i in before] == before and len(after) == 4


def test_named_cell_keeps_its_id_when_its_text_changes(course):
    target = only_target(course, "solutions")
    before = [cell.id for cell in build.generate(target).cells]
    edit_source(course, "solutions", "Mean over space", "The mean over space")
    assert [cell.id for cell in build.generate(target).cells] == before


def test_cells_with_the_same_text_have_different_ids(course):
    edit_source(course, "notebooks", "6 * 7", "6 * 7\n\n# %%\n6 * 7")
    target = only_target(course, "notebooks")
    ids = [cell.id for cell in build.generate(target).cells]
    assert len(set(ids)) == len(ids)
    # nbformat gives a cell whose id is taken a random one.
    assert ids == [cell.id for cell in build.generate(target).cells]


def test_outputs_that_a_reader_is_to_predict_are_folded(course):
    edit_source(
        course,
        "notebooks",
        "# %%\n6 * 7",
        "# %% [markdown]\n# ## Predict before you run\n#\n# How much is it?\n\n# %%\n6 * 7\n\n"
        "# %% [markdown]\n# ### An answer\n\n# %%\n6 * 8\n\n"
        "# %% [markdown]\n# ## Exercises\n\n# %%\n6 * 9",
    )
    assert command(course) == 0 and command(course, "--check") == 0
    cells = build.read(course / "notebooks" / "01_topic.ipynb").cells
    folded = [c.source for c in cells if c.metadata.get("jupyter") == {"outputs_hidden": True}]
    assert folded == ["6 * 7", "6 * 8"]
    assert all(cell.outputs for cell in cells if cell.cell_type == "code")


def test_outputs_that_were_opened_again_are_no_edit(course):
    edit_source(course, "notebooks", "# # A lesson", "# # Predict before you run")
    assert command(course) == 0
    path = course / "notebooks" / "01_topic.ipynb"
    before = path.read_bytes()
    notebook = build.read(path)
    del notebook.cells[1].metadata["jupyter"]
    nbformat.write(notebook, path)
    assert build.state(only_target(course, "notebooks")) is State.OTHER_FORM
    assert command(course) == 0
    assert path.read_bytes() == before


# ---------------------------------------------------------------- exercises


def cell_named(notebook, grade_id):
    cells = (
        c for c in notebook.cells if c.metadata.get("nbgrader", {}).get("grade_id") == grade_id
    )
    return next(cells)


def test_stub_stands_where_the_solution_stood(built):
    exercises = build.read(built / "exercises" / "01_topic.ipynb")
    assert cell_named(exercises, "squeeze").source == (
        "def squeeze(x):\n"
        '    """Mean over space."""\n'
        "    shape = x.shape\n"
        "    # YOUR CODE HERE\n"
        '    raise NotImplementedError("squeeze: not written yet")'
    )


def test_exercises_are_handed_out_without_outputs_solutions_and_hidden_tests(built):
    exercises = build.read(built / "exercises" / "01_topic.ipynb")
    text = "\n".join(cell.source for cell in exercises.cells)
    assert "mean((2, 3))" not in text and "SOLUTION" not in text
    assert "np.ones(3)" not in text and "HIDDEN" not in text
    for cell in exercises.cells:
        assert cell.get("outputs", []) == [] and cell.get("execution_count") is None


def test_solution_keeps_what_nbgrader_looks_for(built):
    solution = build.read(built / "solutions" / "01_topic.ipynb")
    assert "### BEGIN SOLUTION" in cell_named(solution, "squeeze").source
    assert "### BEGIN HIDDEN TESTS" in cell_named(solution, "check-squeeze").source


def test_cells_carry_nbgraders_settings(built):
    solution = build.read(built / "solutions" / "01_topic.ipynb")
    assert cell_named(solution, "squeeze").metadata == {
        "nbgrader": {
            "grade": False,
            "grade_id": "squeeze",
            "locked": False,
            "schema_version": 3,
            "solution": True,
            "task": False,
        }
    }
    exercises = build.read(built / "exercises" / "01_topic.ipynb")
    assert cell_named(exercises, "check-squeeze").metadata == {
        "nbgrader": {
            "cell_type": "code",
            "grade": True,
            "grade_id": "check-squeeze",
            "locked": True,
            "points": 2,
            "schema_version": 3,
            "solution": False,
            "task": False,
        }
    }


@pytest.mark.parametrize("folder", ["solutions", "exercises"])
def test_nbgrader_accepts_the_cells(built, folder):
    nbgraderformat = pytest.importorskip("nbgrader.nbgraderformat")
    notebook = nbgraderformat.read(built / folder / "01_topic.ipynb", as_version=4)
    nbgraderformat.MetadataValidator().validate_nb(notebook)


def test_nbgrader_makes_the_same_stubs(built):
    """From our solved notebook nbgrader's own release gives our exercise, but for its words."""
    preprocessors = pytest.importorskip("nbgrader.preprocessors")
    notebook = build.read(built / "solutions" / "01_topic.ipynb")
    words = '# YOUR CODE HERE\nraise NotImplementedError("squeeze: not written yet")'
    clear = preprocessors.ClearSolutions(code_stub={"python": words})
    notebook, resources = clear.preprocess(notebook, {})
    notebook, _ = preprocessors.ClearHiddenTests().preprocess(notebook, resources)
    exercises = build.read(built / "exercises" / "01_topic.ipynb")
    assert [c.source for c in notebook.cells] == [c.source for c in exercises.cells]


def test_each_region_of_a_class_gets_its_own_stub():
    source = (
        "class Gate:\n"
        "    def forward(self, x):\n"
        "        ### BEGIN SOLUTION\n"
        "        return x\n"
        "        ### END SOLUTION\n"
        "\n"
        "    def backward(self, dy):\n"
        "        ### BEGIN SOLUTION\n"
        "        return dy\n"
        "        ### END SOLUTION"
    )
    cell = nbformat.v4.new_code_cell(source, metadata={"exercise": "gate"})
    assert exercise_cells.stub(cell) == (
        "class Gate:\n"
        "    def forward(self, x):\n"
        "        # YOUR CODE HERE\n"
        '        raise NotImplementedError("gate: not written yet")\n'
        "\n"
        "    def backward(self, dy):\n"
        "        # YOUR CODE HERE\n"
        '        raise NotImplementedError("gate: not written yet")'
    )


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('exercise="squeeze"', 'excercise="squeeze"', "no setting 'excercise'"),
        ('exercise="squeeze"', 'exercise="sq ueeze"', "letters, digits, - and _"),
        (" points=2", "", "check and points go together"),
        ("    ### END SOLUTION\n", "", "needs its ### END SOLUTION"),
        ('exercise="squeeze"', "", "not marked exercise="),
        ('check="squeeze" points=2', "", "not marked check="),
        ("### BEGIN SOLUTION", "### BEGIN", "has no ### BEGIN SOLUTION"),
        ('check="squeeze" points=2', 'exercise="squeeze"', "'squeeze' already"),
        ("# %% [markdown]", "# %% [raw]", "a cell is code or [markdown]"),
        ("import numpy as np\n", "from ipywidgets import interact\n\ninteract(f)\n", "can hang"),
    ],
)
def test_mistake_in_an_exercise_set_is_told_with_its_place(course, capsys, old, new, words):
    edit_source(course, "solutions", old, new)
    assert command(course, "--check") == 1
    told = capsys.readouterr().err
    assert words in told
    assert re.search(r"01_topic\.py, line \d+ \(cell \d\)", told)


def test_lesson_with_an_exercise_is_refused(course, capsys):
    edit_source(course, "notebooks", "# %%\n6", '# %% check="x" points=1\n6')
    assert command(course, "--check") == 1
    assert "solutions/source" in capsys.readouterr().err


# ---------------------------------------------------------------- running


def test_failing_cell_is_named_and_nothing_is_written(course, capsys):
    edit_source(course, "notebooks", "6 * 7", "6 / 0")
    assert command(course, "01_topic") == 1
    told = capsys.readouterr().err
    assert "notebooks/source/01_topic.py, line 11 (cell 3)" in told.replace("\\", "/")
    assert "ZeroDivisionError: division by zero" in told
    assert not (course / "notebooks" / "01_topic.ipynb").exists()
    assert (course / "solutions" / "01_topic.ipynb").exists()


def test_endless_cell_is_stopped_and_named(course, capsys):
    edit_source(course, "notebooks", "6 * 7", "while True:\n    pass")
    started = time.monotonic()
    assert command(course, "--limit", "3") == 1
    assert time.monotonic() - started < 30
    assert "(cell 3): the limit of 3 s is over" in capsys.readouterr().err


def test_run_leaves_the_learners_progress_alone(course, monkeypatch):
    monkeypatch.setenv("MINITORCH_ATTN_PROGRESS", "own_progress")
    edit_source(course, "notebooks", "6 * 7", 'os.environ["MINITORCH_ATTN_PROGRESS"][-12:]')
    assert command(course) == 0
    lesson = build.read(course / "notebooks" / "01_topic.ipynb")
    assert "own_progress" not in str(lesson.cells[-1].outputs)


def test_figures_are_stored_whatever_the_authors_backend(course, monkeypatch):
    monkeypatch.setenv("MPLBACKEND", "Agg")
    draw = "import matplotlib.pyplot as plt\n\nplt.plot([1, 2])\nplt.show()"
    edit_source(course, "notebooks", "6 * 7", draw)
    assert command(course) == 0
    lesson = build.read(course / "notebooks" / "01_topic.ipynb")
    assert "image/png" in lesson.cells[-1].outputs[0].data


def test_cell_marked_to_be_skipped_is_not_run(course):
    edit_source(
        course, "notebooks", "# %%\n6 * 7", '# %% tags=["nbval-skip"]\n1 / 0\n\n# %%\n6 * 7'
    )
    assert command(course) == 0 and command(course, "--check") == 0
    skipped, last = build.read(course / "notebooks" / "01_topic.ipynb").cells[-2:]
    assert skipped.execution_count is None and last.execution_count == 2


def test_outputs_lose_what_differs_from_run_to_run():
    told = (
        "/tmp/ipykernel_17/123.py:5: UserWarning\n"
        "<object at 0x7f0a1b2c3d4e> /tmp/tmpabc/x.npz\n"
        "100%|####| 3/3 [00:00<00:00, 5000.00it/s]\n"
    )
    cell = nbformat.v4.new_code_cell(outputs=[nbformat.v4.new_output("stream", text=told)])
    notebook = nbformat.v4.new_notebook(cells=[cell])
    notebook_run.normalise(notebook)
    settled = "<cell>:5: UserWarning\n<object at 0x0> <temporary>\n100%|####| 3/3 [time]\n"
    assert cell.outputs[0].text == settled
    notebook_run.normalise(notebook)
    assert cell.outputs[0].text == settled


def test_change_of_prose_keeps_the_outputs(built, capsys):
    edit_source(built, "notebooks", "*prose*", "*better prose*")
    capsys.readouterr()
    assert command(built) == 0
    assert "notebooks/01_topic.ipynb written, outputs kept" in capsys.readouterr().out
    assert "42" in str(build.read(built / "notebooks" / "01_topic.ipynb").cells[2].outputs)


def test_change_of_the_checks_runs_the_solved_set_again(built, capsys):
    checks = built / "minitorch_attn" / "course" / "checks" / "01_topic.py"
    checks.parent.mkdir(parents=True)
    for text in ("first", "second"):
        checks.write_text(text, encoding="utf-8")
        assert build.state(only_target(built, "solutions")) is State.NOT_RUN
        assert build.state(only_target(built, "notebooks")) is State.IN_STEP
        capsys.readouterr()
        assert command(built) == 0
        assert "solutions/01_topic.ipynb run in" in capsys.readouterr().out
        assert command(built, "--check") == 0


@pytest.mark.parametrize(("folder", "status"), [("solutions", 1), ("notebooks", 0)])
def test_solved_set_whose_check_fails_is_not_built_a_lesson_may_show_one(
    course, capsys, folder, status
):
    wrong = 'from minitorch_attn.course import check\n\ncheck("00.relu", abs)\n'
    old = {"solutions": "import numpy as np\n", "notebooks": "6 * 7\n"}[folder]
    edit_source(course, folder, old, old + wrong)
    assert command(course) == status
    told = capsys.readouterr().err
    assert ("CheckFailed" in told) == ("cell 3" in told) == bool(status)
    assert (course / folder / "01_topic.ipynb").exists() == (not status)


def test_change_of_code_runs_the_notebook_again(built):
    edit_source(built, "notebooks", "6 * 7", "6 * 8")
    assert command(built) == 0
    assert "48" in str(build.read(built / "notebooks" / "01_topic.ipynb").cells[2].outputs)


# ---------------------------------------------------------------- in step


def test_check_is_content_with_what_was_built(built, capsys):
    assert command(built, "--check") == 0
    assert "3 notebooks are in step" in capsys.readouterr().out


def test_check_names_what_was_never_built(course, capsys):
    assert command(course, "--check") == 1
    told = capsys.readouterr().err
    for folder in ("notebooks", "solutions", "exercises"):
        assert f"{folder}/01_topic.ipynb has not been built" in told
    assert "python -m minitorch_attn build 01_topic" in told


def test_check_names_a_source_that_changed(built, capsys):
    edit_source(built, "solutions", "Mean over space", "Average over space")
    assert command(built, "--check") == 1
    told = capsys.readouterr().err
    assert "exercises/01_topic.ipynb its source changed since it was built" in told
    assert "line 4 (cell 2)" in told
    assert "notebooks/" not in told


def test_check_names_a_cell_that_was_not_run(built):
    path = built / "notebooks" / "01_topic.ipynb"
    notebook = build.read(path)
    notebook.cells[2].execution_count, notebook.cells[2].outputs = None, []
    path.write_text(build.text_of(notebook), encoding="utf-8")
    assert build.state(only_target(built, "notebooks")) is State.NOT_RUN
    assert command(built, "--check") == 1


def test_check_names_a_notebook_saved_by_another_program(built):
    edit_notebook(built, "notebooks", "6 * 7", "6 * 7")
    assert build.state(only_target(built, "notebooks")) is State.OTHER_FORM
    assert command(built) == 0
    assert command(built, "--check") == 0


def test_check_names_a_notebook_without_a_source(built, capsys):
    (built / "notebooks" / "02_lost.ipynb").write_bytes(
        (built / "notebooks" / "01_topic.ipynb").read_bytes()
    )
    assert command(built, "--check") == 1
    assert "notebooks/02_lost.ipynb has no source" in capsys.readouterr().err


def test_check_names_a_file_that_is_no_notebook(built, capsys):
    path = built / "notebooks" / "01_topic.ipynb"
    path.write_text("<<<<<<< HEAD\n" + path.read_text(encoding="utf-8"), encoding="utf-8")
    assert command(built, "--check") == 1
    assert "01_topic.ipynb is not a notebook" in capsys.readouterr().err


# ---------------------------------------------------------------- edits made in a notebook


@pytest.mark.parametrize("folder", ["notebooks", "solutions", "exercises"])
def test_edit_made_in_a_notebook_is_never_overwritten_unasked(built, folder, capsys):
    old = {"notebooks": "6 * 7", "solutions": "return x\n", "exercises": "# YOUR CODE HERE"}[folder]
    path = edit_notebook(built, folder, old, old.replace("\n", "  # mine\n") + "  # mine")
    edited = path.read_bytes()
    assert command(built, "--force") == 1
    assert path.read_bytes() == edited
    assert f"{folder}/01_topic.ipynb was edited since it was built" in capsys.readouterr().err


def test_edit_made_in_a_notebook_is_dropped_when_asked(built):
    before = files(built)
    edit_notebook(built, "exercises", "# YOUR CODE HERE", "# mine")
    assert command(built, "--overwrite") == 0
    assert files(built) == before


def test_edit_made_in_a_lesson_is_taken_into_its_source(built):
    edit_notebook(built, "notebooks", "6 * 7", "6 * 8")
    assert command(built, "--sync") == 0
    source = (built / "notebooks" / "source" / "01_topic.py").read_text(encoding="utf-8")
    assert source == LESSON.replace("6 * 7", "6 * 8")
    assert "48" in str(build.read(built / "notebooks" / "01_topic.ipynb").cells[2].outputs)
    assert command(built, "--check") == 0


def test_edit_made_in_a_solution_reaches_the_exercise_and_keeps_its_settings(built):
    edit_notebook(built, "solutions", "Mean over space", "Average over space")
    assert command(built, "--sync") == 0
    source = (built / "solutions" / "source" / "01_topic.py").read_text(encoding="utf-8")
    assert source == EXERCISES.replace("Mean over space", "Average over space")
    exercises = build.read(built / "exercises" / "01_topic.ipynb")
    assert "Average over space" in cell_named(exercises, "squeeze").source


def test_edits_on_both_sides_are_told(built, capsys):
    edit_notebook(built, "notebooks", "6 * 7", "6 * 8")
    edit_source(built, "notebooks", "*prose*", "*better prose*")
    assert command(built) == 1
    told = capsys.readouterr().err
    assert "and so was its source" in told and "the source's own edits are lost" in told


# ---------------------------------------------------------------- which are meant


@pytest.mark.parametrize("wanted", ["01", "01_topic", "notebooks/source/01_topic.py"])
def test_notebooks_are_named_by_number_by_name_or_by_path(course, wanted):
    assert len(build.targets(course, [wanted])) == 3


def test_unknown_name_is_told_with_those_that_there_are(course, capsys):
    assert command(course, "02") == 1
    assert "No source is called '02'. There are: 01_topic." in capsys.readouterr().err


def test_folder_without_sources_is_told(tmp_path, capsys):
    assert command(tmp_path) == 1
    assert "No notebooks/source/*.py" in capsys.readouterr().err
