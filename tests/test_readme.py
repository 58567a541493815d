"""The README says what is there: its plan of the course, its links, its example."""

import re
from pathlib import Path

import pytest

from minitorch_attn.course.plan import LESSONS, PARTS

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")


def plan_rows():
    previous = None
    for lesson in LESSONS:
        part = f"{lesson.part}. {PARTS[lesson.part]}" if lesson.part != previous else ""
        previous = lesson.part
        title = f"{lesson.number:02d} {lesson.title}"
        exercises = ""
        if lesson.is_written:
            title = f"[{title}](notebooks/{lesson.name}.ipynb)"
        if lesson.has_exercises:
            exercises = f"[exercises](exercises/{lesson.name}.ipynb)"
        yield f"| {part} | {title} | {exercises} |".replace("|  |", "| |").replace("|  |", "| |")


def test_plan_is_the_course_plan():
    written = TEXT.partition("| --- | --- | --- |\n")[2].partition("\n\n")[0]
    wanted = "\n".join(plan_rows())
    assert written == wanted, f"the README's table of lessons should read:\n{wanted}"


@pytest.mark.parametrize("target", sorted(set(re.findall(r"\]\(([^)#]+)\)", TEXT))))
def test_link_leads_somewhere(target):
    assert target.startswith("https://") or (ROOT / target).exists()


def test_library_example_runs(capsys):
    code = next(
        block for block in re.findall(r"```python\n(.*?)```", TEXT, re.S) if "fit(" in block
    )
    exec(code.replace("epochs=5", "epochs=1"), {})
    assert "accuracy" in capsys.readouterr().out
