"""Check an answer on its cases, and tell the learner what came of it."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

import minitorch_attn as mt

from . import progress as progress_file
from . import solution_source
from .comparison import Cause, Difference, compare, describe, show
from .exercise import (
    PARAMETERS,
    Case,
    Exercise,
    Mistake,
    Mutant,
    UnknownExercise,
    find,
    module,
    rules,
    tensors,
    values,
)
from .page import Page
from .subject import Handle, SubjectError, SubjectLost, here, kind_of

#: Cases made from a seed that a check in the notebook adds to the fixed ones.
MORE_CASES = 5


class CheckFailed(AssertionError):
    """A check failed where an exception is asked for: under nbgrader, in tests."""


# -- what is observed -----------------------------------------------------------------------


@dataclass
class Step:
    """One thing that was observed, and what to print with it."""

    label: str
    value: Any
    beside: dict[str, Any]


@dataclass
class Trace:
    """What was observed of an answer on one case, up to the first difference.

    Attributes
    ----------
    steps : list of Step
        All observations made; where there is a difference, the last one is it.
    difference : Difference or None
        How the last step differs from the right one.
    error : SubjectError, Mistake or None
        What ended the observation early.
    """

    steps: list[Step] = field(default_factory=list)
    difference: Difference | None = None
    error: SubjectError | Mistake | None = None

    @property
    def is_right(self) -> bool:
        return self.difference is None and self.error is None

    def ends_at(self, count: int) -> bool:
        """Whether a difference ended the observation there: what came after is not known."""
        return self.difference is not None and count == len(self.steps)


def follow(exercise: Exercise, answer: Any, case: Case, right: Trace | None = None) -> Trace:
    """Observe an answer on a case, as far as it goes along with another trace.

    Parameters
    ----------
    exercise : Exercise
        Whose observer is used.
    answer : Handle
        The answer, behind the seam.
    case : Case
        The input.
    right : Trace, optional
        What each observation is compared with; the first difference ends the observation.
    """
    trace = Trace()
    sizes = tuple(n for x in case.inputs if isinstance(x, np.ndarray) for n in x.shape)
    observations = exercise.observe(answer, case)
    answer._side.changed.clear()
    try:
        for label, value, *beside in observations:
            step = Step(label, value, beside[0] if beside else {})
            trace.steps.append(step)
            if right is not None:
                trace.difference = _difference(step, right, len(trace.steps), exercise, sizes)
                if trace.difference is not None or right.ends_at(len(trace.steps)):
                    break
            if answer._side.changed and not exercise.may_change_inputs:
                raise _changed_its_input(answer._side.changed)
        else:  # what the learner's side says of itself must not shorten what is looked at
            if right is not None and len(trace.steps) < len(right.steps):
                trace.steps.append(Step(right.steps[len(trace.steps)].label, None, {}))
                trace.difference = Difference("Nothing came back that could be looked at.")
    except (SubjectError, Mistake) as error:
        trace.error = error
    finally:
        with contextlib.suppress(SubjectError, SubjectLost):
            observations.close()  # type: ignore[attr-defined]
    return trace


def _difference(
    step: Step, right: Trace, count: int, exercise: Exercise, sizes: tuple[int, ...]
) -> Difference | None:
    if count > len(right.steps) or right.steps[count - 1].label != step.label:
        return Difference("It went on where nothing more was to come.")
    expected = right.steps[count - 1].value
    gradient = step.label.startswith("the gradient of")
    return compare(
        step.value, expected, tolerance=exercise.tolerance, sizes=sizes, gradient=gradient
    )


def _changed_its_input(names: list[str]) -> Mistake:
    which = " and ".join(f"`{name}`" for name in names)
    return Mistake(
        f"It wrote into {which}, which belongs to the caller: others still need the old values. "
        f"Work on a copy (`{names[0].rpartition(' ')[2]}.copy()`), and avoid `+=`, `out=` and "
        "`x[...] = ...` on what you were given.",
        "changes its input",
    )


# -- which mistake it is --------------------------------------------------------------------


def _same_mistake(mutant: Mutant, exercise: Exercise, case: Case, trace: Trace) -> bool:
    """Whether a wrong answer of the museum behaves on a case just as an observed one did."""
    with _quietly():
        its = follow(exercise, here(mutant.answer, exercise.seconds), case, right=trace)
    same_steps = its.difference is None and len(its.steps) == len(trace.steps)
    return same_steps and _kind_of_error(its) == _kind_of_error(trace)


def _kind_of_error(trace: Trace) -> tuple[str, str] | None:
    match trace.error:
        case SubjectError():
            message = trace.error.message.partition(" (in layer ")[0]  # it names the class
            return trace.error.kind, re.sub(r"\d+", "N", message)
        case Mistake():
            return trace.error.name, trace.error.sentence
    return None


def _known_mistake(exercise: Exercise, cases: list[Case], traces: list[Trace]) -> Mutant | None:
    """The mutant that answers as the learner's code did: on all cases, else on the first failed."""
    first = next(i for i, trace in enumerate(traces) if not trace.is_right)
    suspects = [
        mutant
        for mutant in exercise.mutants
        if _same_mistake(mutant, exercise, cases[first], traces[first])
    ]
    others = [pair for i, pair in enumerate(zip(cases, traces)) if i != first]
    for mutant in suspects:
        if all(_same_mistake(mutant, exercise, *pair) for pair in others):
            return mutant
    return suspects[0] if suspects else None


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        yield


def _is_unstable(exercise: Exercise, answer: Handle, case: Case, trace: Trace) -> bool:
    """Whether the same input gives another answer the next time."""
    if trace.difference is None:
        return False
    try:
        return follow(exercise, answer, case, right=trace).difference is not None
    except SubjectLost:  # it answered the first time, and ended itself the second
        return True


_ARGUMENTS = "positional argument|keyword argument|required argument"

_CAUSES_OF_ERRORS = (
    (r"NameError: name '(\w+)' is not defined", "`{0}` has no value yet: run the cell that defines "
     "it, or check its spelling."),
    (r"UnboundLocalError", "The variable is used before it gets a value inside this function."),
    (r"TypeError: .*unexpected keyword argument '(?:axis|keepdims)'", "Tensors say `dim=` "
     "(`keepdim=`) where NumPy says `axis=` (`keepdims=`)."),
    (r"TypeError: .*unexpected keyword argument '(?:dim|keepdim)'", "NumPy says `axis=` "
     "(`keepdims=`) where Tensors say `dim=` (`keepdim=`)."),
    (rf"TypeError: .*(?:{_ARGUMENTS})", "The call in that line does not fit the parameters of what "
     "it calls."),
    (r"TypeError: 'NoneType' object", "Something is None: does a function called there lack its "
     "`return`?"),
    (r"AttributeError: 'NoneType' object", "Something is None: does a function called there lack "
     "its `return`?"),
    (r"AttributeError: 'numpy.ndarray' object", "That is an array, not a Tensor: it has NumPy's "
     "methods only."),
    (r"AxisError", "An array has the axes 0, 1, ... up to its number of axes less one: print its "
     "`shape` in front of that line."),
    (r"ValueError: operands could not be broadcast", "Print the two shapes in front of that line: "
     "axes are aligned from the right, and each pair must be equal or have a 1."),
    (r"ValueError: matmul|ValueError: shapes .* not aligned", "In `a @ b` the last axis of a and "
     "the last but one of b are summed over: they must be of one length."),
    (r"RecursionError", "The function calls itself without ever reaching an end."),
    (r"ZeroDivisionError", "Something is divided by 0."),
    (r"TimeLimit", "A loop that never ends, or one over single elements where an operation on "
     "whole arrays would do?"),
)  # fmt: skip


def _cause_of_error(error: SubjectError) -> Cause | None:
    text = f"{error.kind}: {error.message}"
    for pattern, sentence in _CAUSES_OF_ERRORS:
        if found := re.search(pattern, text):
            name = error.kind if error.kind != "TimeLimit" else "too slow"
            return Cause(name, sentence.format(*found.groups()))
    return None


def _cause_of_call(error: SubjectError, exercise: Exercise, case: Case, place: str) -> Cause | None:
    """The cause where the check's own call did not fit: no line of the learner's code was run."""
    if error.frames or error.kind != "TypeError" or not re.search(_ARGUMENTS, error.message):
        return None
    fits = "do the parameters of your definition fit that?"
    if exercise.observe is rules and place.startswith("the gradient of "):
        call = f"vjp_{place.removeprefix('the gradient of ')}(dy)"
        return Cause(error.kind, f"The rule is called as `{call}`: {fits}")
    if exercise.observe is module and place != PARAMETERS:
        return Cause(
            error.kind, f"`forward` is called as `forward({', '.join(case.names)})`: {fits}"
        )
    if exercise.observe in (values, rules, tensors, module):
        return Cause(error.kind, f"It is called as `{_call(exercise, case)}`: {fits}")
    return Cause(error.kind, "The check calls it as the exercise's text says: " + fits)


def _call(exercise: Exercise, case: Case) -> str:
    settings = [f"{name}=..." for name in case.settings]
    if isinstance(exercise.reference, type):
        return f"{exercise.name}({', '.join(settings)})"
    return f"{exercise.name}({', '.join([*case.names, *settings])})"


# -- the report -----------------------------------------------------------------------------


@dataclass
class Report:
    """What came of a check.

    Attributes
    ----------
    exercise : Exercise
        What was checked.
    verdict : str
        ``"right"``, ``"wrong"``, ``"raised"``, ``"too slow"``, ``"not written"``, ``"unusable"``
        (no function or class at all) or ``"stopped"`` (its process ended).
    cause : Cause or None
        What probably went wrong.
    page : Page
        The whole for the learner.
    passed, total : int
        Cases that were right, and cases that there are.
    looked_at : int
        Cases that the answer was tried on: fewer than there are where the rest was hopeless.
    error : SubjectError or Mistake, optional
        What the first case that failed ended with, if not with a wrong result.
    """

    exercise: Exercise
    verdict: str
    cause: Cause | None
    page: Page
    passed: int
    total: int
    looked_at: int = 0
    error: SubjectError | Mistake | None = None


def examine(exercise: Exercise, answer: Any, *, more: int = MORE_CASES, seed: int = 0) -> Report:
    """Check an answer behind the seam; never raises for what the learner's code does.

    Parameters
    ----------
    exercise : Exercise
        What is asked for.
    answer : Handle
        From `here(...)`, or from a worker process; anything else is told to be no answer.
    more : int
        Number of cases made from the seed, besides the fixed ones.
    seed : int
        The same seed makes the same cases.
    """
    cases = exercise.cases(more, seed)
    if not isinstance(answer, Handle) or isinstance(exercise.reference, type) != (
        kind_of(answer) == "type"
    ):
        return _unusable(exercise, answer, len(cases))
    traces: list[Trace] = []
    for case in cases:
        with _quietly():
            right = follow(exercise, here(exercise.reference), case)
        if right.error is not None:
            raise RuntimeError(f"{exercise.id}, {case.label}: {right.error}") from right.error
        answer._side.printed.clear()
        answer._side.warned.clear()
        try:
            trace = follow(exercise, answer, case, right)
        except SubjectLost as error:
            return _stopped(exercise, case, error, traces, len(cases))
        if not trace.is_right and all(one.is_right for one in traces):
            heard = list(answer._side.printed), list(answer._side.warned)
            first, wanted = len(traces), right
        traces.append(trace)
        if isinstance(trace.error, SubjectError) and trace.error.kind in _HOPELESS:
            break
    passed = sum(trace.is_right for trace in traces)
    if passed == len(cases):
        return _right(exercise, cases, right)
    return _Failure(exercise, answer, cases, traces, first, wanted, *heard).report(passed)


#: After one of these the other cases would only take time.
_HOPELESS = ("NotImplementedError", "TimeLimit")


def _right(exercise: Exercise, cases: list[Case], last: Trace) -> Report:
    page = Page(f"{exercise.id} is right.", "right")
    seen = [step.label for step in last.steps if not _is_empty(step.value)]
    made = len(cases) - len(exercise.fixed_cases)
    labels = [case.label for case in exercise.fixed_cases]
    labels += [f"{made} random ones"] if made else []
    page.text(f"Checked: {_listed(seen)}.")
    page.text(f"Cases: {'; '.join(labels)}.")
    return Report(exercise, "right", None, page, len(cases), len(cases), len(cases))


def _is_empty(value: Any) -> bool:
    return isinstance(value, dict) and not value  # as the buffers of a module that has none


def _listed(words: list[str]) -> str:
    shown = words if len(words) <= 8 else [*words[:7], f"{len(words) - 7} more"]
    return shown[0] if len(shown) == 1 else ", ".join(shown[:-1]) + " and " + shown[-1]


def _unusable(exercise: Exercise, answer: Any, total: int) -> Report:
    is_class = isinstance(exercise.reference, type)
    wanted = "class" if is_class else "function"
    page = Page(f"{exercise.id}: this is not your {wanted}.", "wrong")
    what = f"It is {describe(answer)}"
    if isinstance(answer, Handle) and is_class:
        page.text(f"{what}, not a class. Pass the class itself, without calling it:")
    elif isinstance(answer, Handle):
        page.text(f"{what}, not a function.")
    else:
        page.text(
            f"{what}: perhaps what it returned. Pass the {wanted} itself, without calling it:"
        )
    page.code(f'check("{exercise.id}", {exercise.name})')
    cause = Cause(f"not a {wanted}", f"A {wanted} is needed.")
    return Report(exercise, "unusable", cause, page, 0, total)


def _stopped(
    exercise: Exercise, case: Case, error: SubjectLost, traces: list[Trace], total: int
) -> Report:
    page = Page(f"{exercise.id} could not be checked to the end: {error}.", "wrong")
    page.text(f"That was on the case: {case.label}.")
    cause = Cause("process ended", "The code ended the process that it ran in.")
    passed = sum(trace.is_right for trace in traces)
    return Report(exercise, "stopped", cause, page, passed, total, len(traces) + 1)


@dataclass
class _Failure:
    """A wrong answer on its way to a report."""

    exercise: Exercise
    answer: Handle
    cases: list[Case]
    traces: list[Trace]
    first: int
    right: Trace
    printed: list[str]
    warned: list[str]

    @property
    def case(self) -> Case:
        return self.cases[self.first]

    @property
    def trace(self) -> Trace:
        return self.traces[self.first]

    @property
    def place(self) -> str:
        """Which observation failed: ``"the gradient of x"``."""
        done = len(self.trace.steps) - (self.trace.difference is not None)
        return self.right.steps[min(done, len(self.right.steps) - 1)].label

    def report(self, passed: int) -> Report:
        error = self.trace.error
        if isinstance(error, SubjectError) and error.kind == "NotImplementedError":
            return self._not_written(error, passed)
        mutant = _known_mistake(self.exercise, self.cases, self.traces)
        if mutant is not None:
            cause: Cause | None = Cause(mutant.name, mutant.sentence)
        elif _is_unstable(self.exercise, self.answer, self.case, self.trace):
            cause = Cause(
                "different every time",
                "The same input gives another result each time: is something random, or kept from "
                "one call to the next?",
            )
        elif isinstance(error, SubjectError):
            cause = _cause_of_call(error, self.exercise, self.case, self.place)
            cause = cause or _cause_of_error(error)
        elif isinstance(error, Mistake):
            cause = Cause(error.name, "")
        else:
            cause = self._cause_of_difference()
        page = Page(f"{self.exercise.id} is not right yet.", "wrong")
        self._tell_case(page, passed)
        verdict = self._tell_what_happened(page)
        if cause is not None and cause.sentence:
            page.text(f"Likely cause: {cause.sentence}")
        self._show_arrays(page)
        if self.printed:
            page.code("".join(self.printed).rstrip()[:1000], "Your code printed")
        if self.warned:
            page.text(f"NumPy warned: {'; '.join(self.warned[:3])}.")
        if self.exercise.hints:
            page.text(f'`hint("{self.exercise.id}")` gives a hint.')
        tried = len(self.traces)
        return Report(self.exercise, verdict, cause, page, passed, len(self.cases), tried, error)

    def _not_written(self, error: SubjectError, passed: int) -> Report:
        name = error.frames[-1].function if error.frames else self.exercise.name
        whole = name if name == self.exercise.name else f"{name}` of `{self.exercise.name}"
        begun = passed or self.trace.steps
        page = Page(f"{self.exercise.id} is not written {'to the end ' if begun else ''}yet.")
        page.text(
            f"`{whole}` still has its `raise NotImplementedError`. Put your own lines there, run "
            "that cell, then this one again."
        )
        cause = Cause("not written", "")
        tried = len(self.traces)
        return Report(
            self.exercise, "not written", cause, page, passed, len(self.cases), tried, error
        )

    def _cause_of_difference(self) -> Cause | None:
        """The cause that fits the first failed case and most of those that failed alike."""
        differences = [trace.difference for trace in self.traces if trace.difference]
        if self.trace.difference is None:
            return None
        known = [{_without_numbers(one.name) for one in each.causes} for each in differences]

        def fits(cause: Cause) -> int:
            return sum(_without_numbers(cause.name) in names for names in known)

        best = max(self.trace.difference.causes, key=fits, default=None)
        return best if best is not None and 2 * fits(best) >= len(differences) else None

    def _tell_case(self, page: Page, passed: int) -> None:
        failed, tried = len(self.traces) - passed, len(self.traces)
        which = f"Case {self.first + 1} of {len(self.cases)}: {self.case.label}"
        others = f" ({failed} of {tried} cases fail; this is the first)" if failed > 1 else ""
        page.text(f"{which}{others}")

    def _show_arrays(self, page: Page) -> None:
        """Show what went in, what was to come and what came."""
        difference = self.trace.difference or Difference("")
        # what belongs to the failed observation: the learner's, or the reference's if none came
        done = len(self.trace.steps) - (self.trace.difference is not None)
        beside = self.right.steps[done].beside if done < len(self.right.steps) else {}
        given = dict(zip(self.case.names, self.case.inputs)) | self.case.settings | beside
        if self.place == PARAMETERS:  # the inputs were not looked at yet
            given = self.case.settings
        for name, value in given.items():
            page.code(*_input(name, value, difference.place))
        if difference.expected:
            page.code(difference.expected, "expected")
            page.code(difference.got, "yours")

    def _tell_what_happened(self, page: Page) -> str:
        difference, error = self.trace.difference, self.trace.error
        place = self.place[0].upper() + self.place[1:]
        if difference is not None:
            page.text(f"{place}: {difference.statement[0].lower()}{difference.statement[1:]}")
            if self.answer._side.changed and not self.exercise.may_change_inputs:
                page.text(f"It also wrote into its input {', '.join(self.answer._side.changed)}.")
            return "wrong"
        if isinstance(error, Mistake):
            page.text(error.sentence)
            return "wrong"
        assert isinstance(error, SubjectError)
        lines = [f"{one.function}, line {one.line}:  {one.source}" for one in error.frames[-3:]]
        if error.kind == "TooMuch":
            page.text(f"What came back is too large to be looked at: {error.message}.")
            return "wrong"
        if error.kind == "TimeLimit":
            page.text(f"It did not end within {self.answer._side.seconds:g} s; it was stopped at")
            page.code("\n".join(lines))
            return "too slow"
        page.text(f"Your code raised an exception on the way to {self.place}:")
        words = f"{error.kind}: {error.message}" if error.message else error.kind
        page.code("\n".join([*lines, words]))
        return "raised"


def _without_numbers(name: str) -> str:
    """The name of a cause without the numbers that depend on the case; those of axes stay."""
    return re.sub(r"\b[\d.]+(?= times| too| of| elements)", "N", name)


def _input(name: str, value: Any, place: tuple[int, ...]) -> tuple[str, str]:
    """Text and label that show an input; of a large one the part around a place."""
    if isinstance(value, np.ndarray) and value.ndim:
        return show(value, place=place), f"{name}, {describe(value)[2:]}"
    text = getattr(value, "text", None) or show(value)
    return f"{name} = {text}", ""


# -- what the learner calls -----------------------------------------------------------------

_NOTHING = object()

#: In a worker of the grader: the exercises whose solution the notebook took. Else None.
_taken_while_graded: set[str] | None = None

_tries: set[str] = set()
_hints_given: dict[str, int] = {}
_solutions: dict[str, Any] = {}
_notes_told: set[str] = set()


def begin_grading() -> set[str]:
    """Make this process a graded one: checks and hints are silent, taken solutions are noted."""
    global _taken_while_graded
    _taken_while_graded = set()
    return _taken_while_graded


def check(id: str, answer: Any = _NOTHING) -> None:
    """Check your answer to an exercise.

    Parameters
    ----------
    id : str
        The exercise, as in ``"13.squeeze"``.
    answer : function or class
        What you wrote.

    Notes
    -----
    Never raises in a learner's notebook, whatever the answer does. Where nbgrader runs the
    notebook, or MINITORCH_ATTN_CHECK=raise is in the environment, an answer that is not right
    raises `CheckFailed` once the page is shown.
    """
    if _taken_while_graded is not None:
        return
    page, is_right = _checked(id, answer)
    page.display()
    if not is_right and (_nbgrader_does() or os.environ.get("MINITORCH_ATTN_CHECK") == "raise"):
        raise CheckFailed(str(page))


def _nbgrader_does() -> str | None:
    """What nbgrader (0.9 or newer) runs this notebook for: ``"autograde"`` or ``"validate"``."""
    return os.environ.get("NBGRADER_EXECUTION")


def _checked(id: str, answer: Any) -> tuple[Page, bool]:
    try:
        exercise = find(id)
    except UnknownExercise as error:
        return Page(str(error), "wrong"), False
    if answer is _NOTHING:
        page = Page(f"{exercise.id}: the check also needs what you wrote.", "wrong")
        page.code(f'check("{exercise.id}", {exercise.name})')
        return page, False
    if _module_of(answer).startswith("minitorch_attn."):
        page = Page(f"{exercise.id}: this is the library's own, so it does not count.", "wrong")
        page.text(
            f"It comes from `{_module_of(answer)}`. Write yours, under the name `{exercise.name}`, "
            "run that cell (after the imports, if one of them has the name too), then this one."
        )
        return page, False
    try:
        with _state_kept():
            report = examine(exercise, here(answer, exercise.seconds))
    except Exception as error:  # a mistake of the check's own must not stop a learner
        page = Page(f"{exercise.id}: the check itself failed. This is not your mistake.", "wrong")
        page.code(f"{type(error).__name__}: {error}")
        return page, False
    if any(answer is one for one in _solutions.values()):
        report.page.text("This is the course's own solution, so it does not count as done.")
        return report.page, report.verdict == "right" and not _nbgrader_does()
    tried = report.verdict not in ("not written", "unusable")
    if tried:
        _tries.add(exercise.id)
    _tell_once(
        report.page,
        progress_file.note(exercise, passed=report.verdict == "right", tried=tried),
    )
    return report.page, report.verdict == "right"


def _module_of(answer: Any) -> str:
    """Name of the module that a function or class was written in."""
    return str(getattr(answer, "__module__", ""))


def _tell_once(page: Page, note: str) -> None:
    if note and note not in _notes_told:
        _notes_told.add(note)
        page.text(note)


@contextlib.contextmanager
def _state_kept() -> Iterator[None]:
    """Leave random numbers and the default dtype as a check found them."""
    ours, numpys = mt.default_generator().bit_generator, np.random.get_state()  # noqa: NPY002
    state, dtype = ours.state, mt.get_default_dtype()
    try:
        yield
    finally:
        ours.state = state
        np.random.set_state(numpys)  # noqa: NPY002
        mt.set_default_dtype(dtype)


def hint(id: str, restart: bool = False) -> None:
    """Show the next hint of an exercise.

    Parameters
    ----------
    id : str
        The exercise, as in ``"13.squeeze"``.
    restart : bool
        Begin again at the first hint.
    """
    if _taken_while_graded is not None:
        return
    try:
        exercise = find(id)
    except UnknownExercise as error:
        Page(str(error), "wrong").display()
        return
    given = 0 if restart else _hints_given.get(id, 0)
    total = len(exercise.hints)
    if given < total:
        page = Page(f"Hint {given + 1} of {total} for {id}")
        page.text(exercise.hints[given])
        _hints_given[id] = given + 1
    else:
        page = Page(f"There are no {'more ' if total else ''}hints for {id}.")
        if total:
            page.text(f'`hint("{id}", restart=True)` begins again.')
    if given + 1 >= total:
        page.text(f'After a try of your own, `solution("{id}")` shows the solution.')
    page.display()


def solution(id: str, show: bool = False) -> Any:
    """Show the solution of an exercise, and return it.

    ``squeeze = solution("13.squeeze")`` lets you go on to the next exercise with it.

    Parameters
    ----------
    id : str
        The exercise.
    show : bool
        Show it even if you have not tried the exercise yet.

    Returns
    -------
    function, class or None
        The solution, ready to use; None if it is not shown.
    """
    if _taken_while_graded is not None:
        _taken_while_graded.add(id)
    try:
        exercise = find(id)
        if _taken_while_graded is not None:
            return solution_source.define(exercise)
    except (UnknownExercise, solution_source.NoSource) as error:
        Page(str(error), "wrong").display()
        return None
    records, _ = progress_file.read()
    tried = id in _tries or (id in records and records[id].tries > 0)
    if not (tried or show):
        page = Page(f"Try {id} once before you look at its solution.")
        page.text(
            f'Write something and run its check; `hint("{id}")` helps. To see the solution anyway: '
            f'`solution("{id}", show=True)`.'
        )
        page.display()
        return None
    try:
        source = solution_source.solution(exercise)
        if id not in _solutions:
            _solutions[id] = solution_source.define(exercise)
            _show_no_more_of(_solutions[id])
    except solution_source.NoSource as error:
        Page(str(error), "wrong").display()
        return None
    page = Page(f"Solution of {id}")
    page.code(source)
    _tell_once(page, progress_file.note(exercise, shown=True))
    page.display()
    return _solutions[id]


def _show_no_more_of(value: Any) -> None:
    """Keep a notebook from showing `<function ...>` below the page, as the cell's last value."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    if shell is not None:
        formatter = shell.display_formatter.ipython_display_formatter
        formatter.singleton_printers[id(value)] = lambda value: None


def progress(lesson: Any = None) -> None:
    """Show what is done, what was tried, what is open, and what comes next.

    Parameters
    ----------
    lesson : int or str, optional
        Show this lesson alone, as in ``progress(13)``; without it, the whole course.
    """
    if _taken_while_graded is None:
        progress_file.overview(lesson).display()
