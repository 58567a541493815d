"""nbgrader itself grades an exercise set: an untouched stub earns nothing, solved work all."""

import os
import shutil
import sysconfig
from pathlib import Path

import pytest

from minitorch_attn.course import build

apps = pytest.importorskip("nbgrader.apps")
traitlets = pytest.importorskip("traitlets.config")

pytestmark = pytest.mark.filterwarnings("ignore:Object of type")  # its database layer's

ROOT = Path(__file__).resolve().parents[2]
SET = "00_start_here.ipynb"


@pytest.fixture(scope="module")
def api(tmp_path_factory):
    """A course of nbgrader's whose one assignment is the exercise set of lesson 00, released."""
    root = tmp_path_factory.mktemp("nbgrader")
    config = traitlets.Config()
    config.CourseDirectory.root = str(root)
    config.CourseDirectory.db_url = f"sqlite:///{root / 'gradebook.db'}"
    source = root / "source" / "attention"
    source.mkdir(parents=True)
    shutil.copy(ROOT / "solutions" / SET, source / SET)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        # nbgrader starts alembic by its name
        patch.setenv("PATH", sysconfig.get_path("scripts"), prepend=os.pathsep)
        patch.setenv("JUPYTER_CONFIG_DIR", str(root / "config"))
        patch.delenv("MINITORCH_ATTN_CHECK", raising=False)
        patch.setenv("MINITORCH_ATTN_PROGRESS", str(root / "progress.json"))
        made = apps.NbGraderAPI(config=config)
        assert made.generate_assignment("attention")["success"]
        yield made


def autograde(api, student, folder, **answers):
    """What `nbgrader autograde` gives for a notebook, and what there was to earn."""
    notebook = build.read(ROOT / folder / SET)
    for cell in notebook.cells:
        grade_id = cell.metadata.get("nbgrader", {}).get("grade_id")
        cell.source = answers.get(grade_id, cell.source)
    submitted = Path(api.coursedir.root) / "submitted" / student / "attention" / SET
    submitted.parent.mkdir(parents=True)
    submitted.write_text(build.text_of(notebook), encoding="utf-8")
    assert api.autograde("attention", student)["success"]
    with api.gradebook as gradebook:
        found = gradebook.find_submission("attention", student)
        return found.score, found.max_score


def test_untouched_stubs_earn_nothing(api):
    score, most = autograde(api, "ada", "exercises")
    assert score == 0 < most


def test_solved_work_earns_everything(api):
    score, most = autograde(api, "bob", "solutions")
    assert score == most > 0


def test_the_courses_own_solution_earns_nothing(api):
    taken = (
        "from minitorch_attn.course import solution\n"
        "relu = solution('00.relu', show=True)\n"
        "assert relu is not None"
    )
    score, most = autograde(api, "cy", "solutions", relu=taken)
    assert 0 < score < most
