"""How an exercise's checks are written down.

An exercise set is a file `checks/NN_topic.py` that defines some `Exercise` objects. Each says what
is asked for (a reference), where it is looked at (cases), which wrong answers are known (mutants)
and what helps (hints). A complete one::

    import numpy as np

    from minitorch_attn.course.exercise import Case, Exercise


    def squeeze(x):
        return x.mean(axis=(2, 3))


    exercise = Exercise(
        "13.squeeze",
        reference=squeeze,
        cases=[
            Case("one image of one channel", np.array([[[[1.0, 3.0], [5.0, 7.0]]]])),
            Case("two images of three channels", np.arange(24.0).reshape(2, 3, 2, 2)),
        ],
        more=lambda rng: Case("any shape", rng.normal(size=rng.integers(1, 5, size=4))),
        hints=[
            "Every channel becomes one number. Which axes does it lose?",
            "`mean` takes several axes at once: `axis=(2, 3)`.",
        ],
    )


    @exercise.mutant("You added the positions up; a mean also divides by how many there are.")
    def sum_for_mean(x):
        return x.sum(axis=(2, 3))

`check("13.squeeze", squeeze)` in a notebook then calls the learner's `squeeze` on each case and on
a few that `more` makes from a seed; the grader does so on many more. The answers are compared with
the reference's. If they differ, and one of the mutants gives the very answers that the learner's
code gave, its sentence is what the learner reads as the likely cause. A mutant whose mistake raises
an exception says so, `mutant("...", raises=True)`: the proofs take no other exception for a catch.

What is looked at is decided by an *observer*, `observe=`:

==========  ====================================================================================
`values`    a function of arrays: what it returns (the default)
`rules`     a function in primitive form, `return y, vjp_x` or `return y, (vjp_a, vjp_b)`: the
            output, and the gradient that each rule makes of a random dy
`tensors`   a function of Tensors: its output and, by the engine's reverse pass, the gradient of
            each input
`module`    an `nn.Module` class: a case's settings build it (`Case("...", x, channels=8)`); its
            parameters' names and shapes, then, with the same random parameters given to the
            reference's, output and all gradients in training, buffers, and output in evaluation
==========  ====================================================================================

or a generator function of the author's own, which drives the subject and yields what it sees, in
the order in which a learner should hear of it::

    def three_steps(subject, case):
        weights = case.inputs[0]
        step = subject(lr=0.1)              # a closure on the learner's side
        for number in 1, 2, 3:
            weights = step(weights, 2 * weights)
            yield f"the weights after step {number}", weights

The subject and all that comes from it are reached through the seam (subject.py): call it, read and
set attributes, pass arrays, plain data, `Code("lambda x: ...")` for a function, or a handle it
returned. `there(subject, "mt.tensor")` evaluates an expression on its side, where operators work
too: ``there(subject, "lambda Node: Node(2.0) * Node(3.0)")(subject)``. An array passed to the
subject is a copy; `keep(subject, array)` puts one there to be written to, `fetch` reads it back.

A yield may add a dict of further things to print with the case: ``yield "the gradient of x", dx,
{"dy": dy}``. Where the answer is not even of the right kind, ``raise Mistake("a sentence")``; where
an exception is the right answer, ``yield "the output", outcome(lambda: subject(x), "ValueError")``.

Writing an exercise, then: the solution and its text in `solutions/source/NN_topic.py`, the checks
here, and `pytest tests/course/test_exercises.py -k NN`, which proves that the stub fails cleanly,
the solution passes, every mutant is caught and named, and nothing of a later lesson is used.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import zlib
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from types import ModuleType
from typing import Any

import numpy as np

from . import plan
from .comparison import NO_GRADIENT, describe
from .subject import Code, Handle, SubjectError, fetch, keep, there

__all__ = [
    "Case",
    "Code",
    "Exercise",
    "Mistake",
    "Mutant",
    "array_of",
    "fetch",
    "keep",
    "module",
    "outcome",
    "rules",
    "tensors",
    "there",
    "values",
]

Observer = Callable[[Any, "Case"], Iterator[tuple]]


class Mistake(Exception):
    """Raised by an observer: the answer is not of the kind that is needed.

    Parameters
    ----------
    sentence : str
        What is wrong and how to mend it, for the learner.
    name : str
        The same in a few words, for the grader's table.
    """

    def __init__(self, sentence: str, name: str = "wrong kind of answer"):
        super().__init__(sentence)
        self.sentence, self.name = sentence, name


class Case:
    """One input on which an answer is looked at.

    Parameters
    ----------
    label : str
        What is special about it, in words that a learner understands.
    *inputs
        Positional arguments: arrays, numbers, lists of these, or `Code`.
    **settings
        Keyword arguments; for `module`, those of the constructor.

    Attributes
    ----------
    names : list of str
        The inputs' names, from the reference's signature.
    seed : int
        What the case's random numbers start from.
    """

    def __init__(self, label: str, *inputs: Any, **settings: Any):
        self.label, self.inputs, self.settings = label, inputs, settings
        self.names = [f"input {i + 1}" for i in range(len(inputs))]
        self.seed = zlib.crc32(label.encode())

    def rng(self, *key: str) -> np.random.Generator:
        """Random numbers that are the same for the reference, the learner and every mutant."""
        return np.random.default_rng([self.seed, *(zlib.crc32(part.encode()) for part in key)])

    def cotangent(self, output: Any) -> np.ndarray:
        """A random dy of an output's shape and dtype, with few digits so that it reads well."""
        output = np.asarray(output)
        dy = self.rng("dy").integers(1, 9, size=output.shape) / 2.0
        sign = self.rng("sign").choice([-1.0, 1.0], size=output.shape)
        return np.asarray(dy * sign, output.dtype if output.dtype.kind == "f" else float)


class Mutant:
    """A wrong answer that people really give.

    Attributes
    ----------
    name : str
        The mistake in a few words, for a table: the function's name with spaces.
    sentence : str
        The mistake, told to the one who made it.
    answer : function or class
        The wrong answer; it runs.
    like : tuple of str
        Names of mutants that no input can tell from this one.
    raises : bool
        Whether the mistake is one that raises an exception or takes too long.
    """

    def __init__(self, sentence: str, answer: Any, like: tuple[str, ...], raises: bool):
        self.name = answer.__name__.replace("_", " ")
        self.sentence, self.answer, self.like, self.raises = sentence, answer, like, raises


class Exercise:
    """An exercise as its check sees it.

    Parameters
    ----------
    id : str
        ``"13.squeeze"``: number of the lesson, and the name of what the learner writes.
    reference : function or class
        The right answer.
    cases : sequence of Case
        What is always looked at, smallest first: the first that fails is shown to the learner.
    more : callable, optional
        Makes a further case from a `numpy.random.Generator`.
    observe : generator function
        What is looked at: `values`, `rules`, `tensors`, `module`, or the author's own.
    hints : sequence of str
        From a nudge to nearly the solution.
    tolerance : float
        Largest allowed error relative to the largest element (float32 answers: at least 1e-4).
    seconds : float
        Time that the learner's code may take for all cases of a check in the notebook.
    may_change_inputs : bool
        Whether the answer is allowed to write into the arrays it is given.

    Attributes
    ----------
    mutants : list of Mutant
        The bug museum, filled by the `mutant` decorator.
    """

    def __init__(
        self,
        id: str,
        *,
        reference: Any,
        cases: Sequence[Case],
        more: Callable[[np.random.Generator], Case] | None = None,
        observe: Observer | None = None,
        hints: Sequence[str],
        tolerance: float = 1e-7,
        seconds: float = 10.0,
        may_change_inputs: bool = False,
    ):
        self.id, self.reference, self.more = id, reference, more
        self.number, self.name = int(id.partition(".")[0]), id.partition(".")[2]
        self.observe = observe or values
        self.hints, self.tolerance, self.seconds = tuple(hints), tolerance, seconds
        self.may_change_inputs = may_change_inputs
        self.fixed_cases = [self._named(case) for case in cases]
        self.mutants: list[Mutant] = []

    def mutant(
        self, sentence: str, *, like: Sequence[str] = (), raises: bool = False
    ) -> Callable[[Any], Any]:
        """Decorate a wrong answer with the sentence that tells a learner of the mistake.

        Parameters
        ----------
        sentence : str
            The mistake, told to the one who made it.
        like : sequence of str
            Function names of other mutants of this exercise that no input can tell from this one.
        raises : bool
            Whether the mistake is one that raises an exception or takes too long. Said of no other
            mutant: one that raises for a slip in its own code would seem to be caught.
        """

        def register(answer: Any) -> Any:
            names = tuple(name.replace("_", " ") for name in like)
            self.mutants.append(Mutant(sentence, answer, names, raises))
            return answer

        return register

    def cases(self, more: int, seed: int = 0) -> list[Case]:
        """The fixed cases and some made from a seed.

        Parameters
        ----------
        more : int
            How many to make, where the exercise can make any.
        seed : int
            The same seed makes the same cases.
        """
        made = []
        for i in range(more if self.more else 0):
            rng = np.random.default_rng([seed, i, zlib.crc32(self.id.encode())])
            case = self._named(self.more(rng))  # type: ignore[misc]
            case.seed = int(rng.integers(2**31))
            made.append(case)
        return self.fixed_cases + made

    def _named(self, case: Case) -> Case:
        function = self.reference
        if inspect.isclass(function):
            function = getattr(function, "forward", function)
        parameters = [
            parameter.name
            for parameter in inspect.signature(function).parameters.values()
            if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
            and parameter.name != "self"
        ]
        case.names[: len(parameters)] = parameters[: len(case.inputs)]
        return case


# -- observers ------------------------------------------------------------------------------

#: What `module` looks at before any input.
PARAMETERS = "the parameters' shapes"


def outcome(ask: Callable[[], Any], *kinds: str) -> Any:
    """What comes back from the learner's side; an exception of these kinds is an answer too.

    ``yield "the output", outcome(lambda: subject(x), "ValueError")`` compares the text
    ``"a ValueError"`` where one is raised, and any other exception ends the observation.

    Parameters
    ----------
    ask : callable
        Calls the subject.
    *kinds : str
        Names of exceptions.
    """
    try:
        return ask()
    except SubjectError as error:
        if error.kind not in kinds:
            raise
        return f"{'an' if error.kind[0] in 'AEIOU' else 'a'} {error.kind}"


def values(subject: Any, case: Case) -> Iterator[tuple]:
    """A function of arrays: what it returns."""
    yield "the output", subject(*case.inputs, **case.settings)


def rules(subject: Any, case: Case) -> Iterator[tuple]:
    """A function in primitive form: its output, and the gradient that each rule gives."""
    result = subject(*case.inputs, **case.settings)
    if result is not None and not (isinstance(result, tuple) and len(result) == 2):
        raise Mistake(
            "A function in primitive form returns its output and its rules, "
            f"`return y, {_rules_wanted(case)}`; this returned {describe(result)}.",
            "not in primitive form",
        )
    output, given = result if result is not None else (None, None)
    yield "the output", output
    given = given if isinstance(given, (tuple, list)) else (given,)
    if len(given) != len(case.inputs):
        raise Mistake(
            f"There should be one rule for each of the inputs {', '.join(case.names)}; "
            f"{len(given)} came: `return y, {_rules_wanted(case)}`.",
            "wrong number of rules",
        )
    dy = case.cotangent(output)
    for name, rule in zip(case.names, given, strict=True):
        if rule is None:
            yield f"the gradient of {name}", NO_GRADIENT
        elif isinstance(rule, Handle):
            yield f"the gradient of {name}", rule(dy), {"dy": dy}
        else:
            raise Mistake(
                f"The rule of {name} should be a function of dy; it is {describe(rule)}. "
                "Return the inner function itself, without calling it.",
                "rule is no function",
            )


def _rules_wanted(case: Case) -> str:
    wanted = [f"vjp_{name}" for name in case.names]
    return wanted[0] if len(wanted) == 1 else f"({', '.join(wanted)})"


def tensors(subject: Any, case: Case) -> Iterator[tuple]:
    """A function of Tensors: its output, and the gradient of each input that can have one."""
    inputs = [_tensor(subject, value) for value in case.inputs]
    y = subject(*inputs, **case.settings)
    output = array_of(y)
    yield "the output", output
    dy = _reverse_pass(y, output, case)
    yield from _gradients(case.names, inputs, dy)


def module(subject: Any, case: Case) -> Iterator[tuple]:
    """An nn.Module class: parameters, output and gradients in training, buffers, evaluation."""
    default = there(subject, "mt.get_default_dtype")()
    there(subject, "mt.set_default_dtype")("float64")
    try:
        model = subject(**case.settings)
        if not (isinstance(model, Handle) and there(subject, _IS_MODULE)(model)):
            raise Mistake(
                "The class should be a module: `class ...(nn.Module)`, with `super().__init__()` "
                "as the first line of its `__init__`.",
                "not a module",
            )
        parameters = _in_one_order(there(subject, "lambda m: dict(m.named_parameters())")(model))
        shapes = {name: parameter.shape for name, parameter in parameters.items()}
        yield PARAMETERS, shapes
        for name, parameter in parameters.items():
            parameter.data = case.rng(name).normal(scale=0.5, size=shapes[name]).round(2)

        model.train()
        there(subject, "mt.manual_seed")(case.seed)
        inputs = [_tensor(subject, value) for value in case.inputs]
        y = model(*inputs)
        output = array_of(y)
        yield "the output in training", output
        dy = _reverse_pass(y, output, case)
        yield from _gradients(case.names, inputs, dy)
        yield from _gradients(parameters, parameters.values(), dy)
        buffers = there(subject, "lambda m: {k: b.numpy() for k, b in m.named_buffers()}")(model)
        yield "the buffers after one training step", buffers

        model.eval()
        yield "the output in evaluation", array_of(model(*inputs))
    finally:
        there(subject, "mt.set_default_dtype")(default)


def _in_one_order(parameters: dict[str, Any]) -> dict[str, Any]:
    """Whatever order `__init__` makes them in: module by module, a weight before its bias."""
    names = sorted(parameters, reverse=True)
    return {name: parameters[name] for name in sorted(names, key=lambda n: n.rpartition(".")[0])}


_IS_TENSOR = "lambda value: isinstance(value, mt.Tensor)"
_IS_MODULE = "lambda value: isinstance(value, mt.nn.Module)"


def array_of(value: Any) -> np.ndarray | None:
    """The array in a Tensor that the learner's code returned.

    Raises
    ------
    Mistake
        If it is anything else (None passes: a missing `return` has a message of its own).
    """
    if value is None:
        return None
    if isinstance(value, Handle) and there(value, _IS_TENSOR)(value):
        return value.detach().numpy()
    raise Mistake(
        f"A Tensor should come back; it is {describe(value)}. Compute with operations on Tensors "
        "all the way: `.numpy()`, `.data` and NumPy's functions leave the graph.",
        "not a Tensor",
    )


def _tensor(subject: Any, value: Any) -> Any:
    """A Tensor with a gradient where the input is an array of floats, else the input itself."""
    if isinstance(value, np.ndarray):
        return there(subject, "mt.tensor")(value, requires_grad=value.dtype.kind == "f")
    return value


def _reverse_pass(y: Any, output: Any, case: Case) -> np.ndarray:
    if not y.requires_grad:
        raise Mistake(
            "The output is right, but the graph does not lead back from it: `.data`, `.numpy()` or "
            "`no_grad()` was used on the way.",
            "cut off from the graph",
        )
    dy = case.cotangent(output)
    y.backward(dy)
    return dy


def _gradients(names: Any, tensors: Any, dy: np.ndarray) -> Iterator[tuple]:
    for name, tensor in zip(names, tensors, strict=True):
        if isinstance(tensor, Handle) and tensor.requires_grad:
            gradient = tensor.grad
            dx = NO_GRADIENT if gradient is None else gradient.numpy()
            yield f"the gradient of {name}", dx, {"dy": dy}


# -- finding exercises ----------------------------------------------------------------------


class UnknownExercise(KeyError):
    """There is no exercise of that name; the message names those that are near."""

    def __str__(self) -> str:
        return str(self.args[0])


@cache
def load(name: str) -> ModuleType:
    """Import the check file of a lesson: ``load("13_squeeze_and_excitation")``."""
    return importlib.import_module(f"minitorch_attn.course.checks.{name}")


def exercises(number: int) -> list[Exercise]:
    """The exercises of a lesson, in the order of its check file; none if it has no checks yet."""
    lesson = plan.lesson(number)
    if not lesson.has_exercises:
        return []
    found = vars(load(lesson.name)).values()
    return [exercise for exercise in found if isinstance(exercise, Exercise)]


def find(id: Any) -> Exercise:
    """The exercise of an id such as ``"13.squeeze"``.

    Raises
    ------
    UnknownExercise
        If there is none; its message suggests names that are near.
    """
    number, _, _ = str(id).partition(".")
    sets = [lesson.number for lesson in plan.LESSONS if lesson.has_exercises]
    if number.isdecimal() and int(number) in sets:
        for exercise in exercises(int(number)):
            if exercise.id == id:
                return exercise
    known = [exercise.id for each in sets for exercise in exercises(each)]
    near = difflib.get_close_matches(str(id), known, n=3, cutoff=0.5)
    if near:
        suggestion = f"Did you mean {_either(near)}?"
    elif number.isdecimal() and int(number) in sets:
        its = [f'"{exercise.id}"' for exercise in exercises(int(number))]
        suggestion = f"This set has {', '.join(its)}."
    else:
        suggestion = 'An exercise is named by its lesson and itself, as in "00.relu".'
    raise UnknownExercise(f"There is no exercise {id!r}. {suggestion}")


def _either(names: list[str]) -> str:
    quoted = [f'"{name}"' for name in names]
    return quoted[0] if len(quoted) == 1 else ", ".join(quoted[:-1]) + f" or {quoted[-1]}"
