"""Stored notebooks: what nbval, which runs them, does not see; and that they are in step.

The notebooks themselves are run by nbval: python -m pytest notebooks solutions
"""

from pathlib import Path

import pytest
from nbformat import v4

from minitorch_attn.course import build
from minitorch_attn.course.notebook_run import SAME_EVERYWHERE, VOLATILE

from . import notebook_rules as rules

ROOT = Path(__file__).resolve().parents[1]
STORED = sorted(ROOT.glob("notebooks/*.ipynb")) + sorted(ROOT.glob("solutions/*.ipynb"))


def name(path):
    return f"{path.parent.name}/{path.stem}"


stored = pytest.mark.parametrize("path", STORED, ids=name)


def test_there_are_lessons_and_solutions():
    assert {path.parent.name for path in STORED} == {"notebooks", "solutions"}


@stored
@pytest.mark.parametrize(
    "rule",
    [
        rules.unrun,
        rules.wrong_errors,
        rules.warnings,
        rules.comments_for_nbval,
        rules.unproved_pictures,
    ],
    ids=lambda rule: rule.__name__,
)
def test_stored_notebook_keeps_the_rules(path, rule):
    assert rule(build.read(path)) == []


@stored
def test_stored_notebook_shows_no_folder_of_its_author(path):
    assert rules.personal_paths(build.read(path), [ROOT, Path.home()]) == []


@pytest.mark.parametrize("target", build.targets(ROOT), ids=str)
def test_notebook_is_in_step_with_its_source(target):
    """A learner's own answers in exercises/ are no fault; `build --check` is stricter."""
    state = build.state(target)
    answers = target.folder == "exercises" and state in (build.State.EDITED, build.State.OTHER_FORM)
    in_step = state is build.State.IN_STEP or answers
    assert in_step, f"{target} {state.value}. {build.mending(target, state)}"


def test_every_notebook_has_a_source():
    assert build.strangers(ROOT) == []


def test_nbval_passes_over_what_the_builder_takes_out():
    settings = (ROOT / "tests" / "nbval_sanitize.cfg").read_text(encoding="utf-8")
    for pattern, replacement in VOLATILE.items():
        assert f"regex: {pattern}\nreplace: {replacement}\n" in settings


def test_kernels_of_nbval_run_under_the_builders_settings(monkeypatch):
    import os

    assert set(SAME_EVERYWHERE) <= set(os.environ)


# ---------------------------------------------------------------- the rules themselves


def notebook(*cells):
    return v4.new_notebook(cells=list(cells))


def code(source, *outputs, count=1, tags=()):
    metadata = {"tags": list(tags)} if tags else {}
    return v4.new_code_cell(source, outputs=list(outputs), execution_count=count, metadata=metadata)


PICTURE = v4.new_output("display_data", data={"image/png": "iVBO"})
ERROR = v4.new_output("error", ename="E", evalue="v", traceback=[])


def test_rule_finds_a_cell_that_was_not_run():
    assert rules.unrun(notebook(code("1"), code("2", count=None))) == ["cell 2 was not run"]


def test_rule_passes_a_cell_that_is_marked_as_not_to_be_run():
    assert rules.unrun(notebook(code("1", count=None, tags=["nbval-skip"]))) == []


def test_rule_finds_an_error_that_was_not_meant():
    assert rules.wrong_errors(notebook(code("1 / 0", ERROR))) == ["cell 1 raised"]


def test_rule_finds_a_cell_that_was_to_raise_and_did_not():
    cell = code("1", tags=["raises-exception"])
    assert rules.wrong_errors(notebook(cell)) == ["cell 1 was to raise and did not"]


def test_rule_passes_an_error_that_was_meant():
    assert rules.wrong_errors(notebook(code("1 / 0", ERROR, tags=["raises-exception"]))) == []


def test_rule_finds_a_warning():
    warning = v4.new_output("stream", name="stderr", text="UserWarning: hm\n")
    assert rules.warnings(notebook(code("f()", warning))) != []


def test_rule_finds_a_comment_for_nbval():
    assert rules.comments_for_nbval(notebook(code("# NBVAL_IGNORE_OUTPUT\n1"))) != []


def test_rule_finds_a_folder_of_the_author():
    output = v4.new_output("stream", name="stdout", text="saved in /home/ada/x\n")
    assert rules.personal_paths(notebook(code("f()", output)), ["/home/ada"]) != []


def test_rule_finds_a_picture_that_nothing_vouches_for():
    far = [code("assert True"), code("x = 1"), code("plot(x)", PICTURE), code("y = 1")]
    assert rules.unproved_pictures(notebook(*far)) == [
        "cell 3 draws, and neither it nor its neighbours assert anything"
    ]


@pytest.mark.parametrize("proof", ["assert x", "np.testing.assert_allclose(x, y)", "check('1', f)"])
def test_rule_passes_a_picture_with_an_assertion_beside_it(proof):
    drawing = code("%time plot(x)", PICTURE)
    assert rules.unproved_pictures(notebook(code("x = 1"), code(proof), drawing)) == []
    assert rules.unproved_pictures(notebook(code("x = 1"), drawing, code(proof))) == []
