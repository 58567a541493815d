"""The four proofs of every exercise.

Its stub fails cleanly, its solution passes, every mutant is caught and named, and its set runs
with only what earlier lessons built.
"""

import pytest

from minitorch_attn.course import plan, solution_source
from minitorch_attn.course.checking import MORE_CASES, examine
from minitorch_attn.course.exercise import exercises
from minitorch_attn.course.subject import here

LESSONS = [lesson for lesson in plan.LESSONS if lesson.has_exercises]
EXERCISES = [exercise for lesson in LESSONS for exercise in exercises(lesson.number)]
MUTANTS = [(exercise, mutant) for exercise in EXERCISES for mutant in exercise.mutants]

each_exercise = pytest.mark.parametrize("exercise", EXERCISES, ids=[one.id for one in EXERCISES])
each_lesson = pytest.mark.parametrize("lesson", LESSONS, ids=[one.name for one in LESSONS])


@each_exercise
def test_the_stub_fails_cleanly(exercise):
    stub = solution_source.define(exercise, stubbed=True)
    report = examine(exercise, here(stub, exercise.seconds))
    assert report.verdict == "not written", report.page


@each_exercise
@pytest.mark.parametrize("more", [MORE_CASES, 20], ids=["check", "grade"])
def test_the_solution_passes(exercise, more):
    solved = solution_source.define(exercise)
    report = examine(exercise, here(solved, exercise.seconds), more=more, seed=more)
    assert report.verdict == "right", report.page


@pytest.mark.parametrize(
    ("exercise", "mutant"),
    MUTANTS,
    ids=[f"{exercise.id}-{mutant.name.replace(' ', '_')}" for exercise, mutant in MUTANTS],
)
def test_every_mutant_is_caught_and_named(exercise, mutant):
    report = examine(exercise, here(mutant.answer, exercise.seconds))
    assert report.verdict != "right", "the cases do not notice it"
    raised = report.verdict != "wrong"
    assert raised == mutant.raises, f"say raises={raised}, or mend it: {report.page}"
    assert report.cause.name in (mutant.name, *mutant.like), report.page
    assert mutant.like or mutant.sentence in str(report.page)


@each_lesson
def test_the_set_runs_with_only_what_earlier_lessons_built(lesson):
    source = solution_source.source_path(lesson.number).read_text(encoding="utf-8")
    assert plan.built_later(source, lesson.number) == []


# -- what an exercise must have -------------------------------------------------------------


@each_exercise
def test_at_least_three_mistakes_are_known(exercise):
    assert len(exercise.mutants) >= 3
    names = [mutant.name for mutant in exercise.mutants]
    assert len(set(names)) == len(names)
    assert len({mutant.sentence for mutant in exercise.mutants}) == len(names)


@each_exercise
def test_mutants_that_are_alike_say_so_of_each_other(exercise):
    like = {mutant.name: mutant.like for mutant in exercise.mutants}
    for name, others in like.items():
        assert all(name in like[other] for other in others)


@each_exercise
def test_there_are_hints_points_and_cases_with_names(exercise):
    assert len(exercise.hints) >= 2
    assert solution_source.points(exercise) > 0
    labels = [case.label for case in exercise.fixed_cases]
    assert labels and len(set(labels)) == len(labels)
    assert exercise.more is not None, "the grader needs further cases"


@each_lesson
def test_exercises_and_their_source_go_together(lesson):
    cells = solution_source.cells_of(solution_source.source_path(lesson.number))
    named = [one.name for one in exercises(lesson.number)]
    for mark in ("exercise", "check"):
        assert [one.metadata[mark] for one in cells if mark in one.metadata] == named
    assert all(one.id == f"{lesson.number:02d}.{one.name}" for one in exercises(lesson.number))


@each_lesson
def test_the_builder_reads_the_same_cells(lesson):
    pytest.importorskip("jupytext")
    from minitorch_attn.course.notebook_source import read_source

    path = solution_source.source_path(lesson.number)
    code = [one for one in solution_source.cells_of(path) if one.cell_type == "code"]
    theirs = [one for one in read_source(path) if one.cell_type == "code"]
    assert [one.source.strip() for one in code] == [one.source.strip() for one in theirs]
    settings = [{k: v for k, v in one.metadata.items() if k != "tags"} for one in theirs]
    assert [{k: v for k, v in one.metadata.items() if k != "tags"} for one in code] == settings
