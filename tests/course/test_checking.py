"""What a learner reads after a check, a hint, a solution."""

import re
import subprocess
import sys

import numpy as np
import pytest

import minitorch_attn as mt
from minitorch_attn import nn
from minitorch_attn.course import checking, exercise
from minitorch_attn.course.checking import check, examine, hint, solution
from minitorch_attn.course.exercise import (
    Case,
    Code,
    Exercise,
    Mistake,
    array_of,
    fetch,
    keep,
    module,
    outcome,
    rules,
    tensors,
    there,
)
from minitorch_attn.course.subject import Side, Worker, here


@pytest.fixture(autouse=True)
def fresh(tmp_path, monkeypatch):
    """A learner who has done nothing yet."""
    monkeypatch.setenv("MINITORCH_ATTN_PROGRESS", str(tmp_path / "progress.json"))
    for name in ("MINITORCH_ATTN_CHECK", "NBGRADER_EXECUTION"):
        monkeypatch.delenv(name, raising=False)
    for memory in (checking._tries, checking._hints_given, checking._notes_told):
        memory.clear()
    checking._solutions.clear()


def squeeze_reference(x):
    return x.mean(axis=(2, 3))


@pytest.fixture
def squeeze():
    exercise = Exercise(
        "13.squeeze",
        reference=squeeze_reference,
        cases=[
            Case("two channels", np.array([[[[1.0, 3.0], [5.0, 7.0]], [[0.0, 1.0], [2.0, 1.0]]]])),
            Case("three channels", np.arange(24.0).reshape(2, 3, 2, 2)),
        ],
        more=lambda rng: Case("random", rng.normal(size=rng.integers(2, 5, size=4))),
        hints=["One number a channel."],
    )

    @exercise.mutant("You added the positions up; a mean also divides by their number.")
    def sum_for_mean(x):
        return x.sum(axis=(2, 3))

    @exercise.mutant("You took the mean over the channels.")
    def wrong_axes(x):
        return x.mean(axis=(0, 1))

    return exercise


def told(exercise, answer, seconds=10.0, **settings):
    return str(examine(exercise, here(answer, seconds), **settings).page)


# -- the whole text of a few ----------------------------------------------------------------


def test_a_right_answer_is_told_what_was_checked(squeeze):
    report = examine(squeeze, here(lambda x: x.mean(axis=3).mean(axis=2)))
    assert (report.verdict, report.passed, report.total) == ("right", 7, 7)
    assert str(report.page) == (
        "13.squeeze is right.\n"
        "Checked: the output.\n"
        "Cases: two channels; three channels; 5 random ones."
    )


def test_a_known_mistake_is_named(squeeze):
    report = examine(squeeze, here(lambda x: x.sum(axis=3).sum(axis=2)))
    assert report.verdict == "wrong"
    assert report.cause.name == "sum for mean"
    assert str(report.page) == (
        "13.squeeze is not right yet.\n"
        "Case 1 of 7: two channels (7 of 7 cases fail; this is the first)\n"
        "The output: 2 of 2 elements differ, the first at [0, 0]: it is 16 and should be 4.\n"
        "Likely cause: You added the positions up; a mean also divides by their number.\n"
        "  x, float64 array of shape (1, 2, 2, 2):\n"
        "    [[[[1 3]\n"
        "       [5 7]]\n"
        "\n"
        "      [[0 1]\n"
        "       [2 1]]]]\n"
        "  expected:\n"
        "    [[>4<  1 ]]\n"
        "  yours:\n"
        "    [[>16<   4 ]]\n"
        '`hint("13.squeeze")` gives a hint.'
    )


def test_a_stub_is_told_kindly_that_it_is_not_written(squeeze):
    def squeeze_stub(x):
        raise NotImplementedError("squeeze: not written yet")

    squeeze.name = "squeeze_stub"
    report = examine(squeeze, here(squeeze_stub))
    assert report.verdict == "not written"
    assert str(report.page) == (
        "13.squeeze is not written yet.\n"
        "`squeeze_stub` still has its `raise NotImplementedError`. Put your own lines there, run "
        "that cell, then this one again."
    )


def test_an_exception_is_shown_with_the_learners_lines_only(squeeze):
    def squeezed(x):
        return x.mean(axis=(2, 9))

    text = told(squeeze, squeezed)
    line = squeezed.__code__.co_firstlineno + 1
    assert (
        "Your code raised an exception on the way to the output:\n"
        f"    squeezed, line {line}:  return x.mean(axis=(2, 9))\n"
        "    AxisError: axis 9 is out of bounds for array of dimension 4\n"
        "Likely cause: An array has the axes 0, 1, ..."
    ) in text
    assert "numpy/" not in text and "minitorch_attn" not in text


# -- wrong in every way ---------------------------------------------------------------------


def nothing_returned(x):
    x.mean(axis=(2, 3))


def a_list(x):
    return x.mean(axis=(2, 3)).tolist()


def a_tuple(x):
    return (x.mean(axis=(2, 3)),)


def a_tensor(x):
    return mt.tensor(x.mean(axis=(2, 3)))


def a_function(x):
    return x.mean


def text(x):
    return "a mean"


def axes_kept(x):
    return x.mean(axis=(2, 3), keepdims=True)


def transposed(x):
    return x.mean(axis=(2, 3)).T


def one_axis_left(x):
    return x.mean(axis=2)


def too_far(x):
    return x.mean(axis=(1, 2, 3))


def float32(x):
    return x.mean(axis=(2, 3)).astype(np.float32)


def negated(x):
    return -x.mean(axis=(2, 3))


def not_a_number(x):
    return x.mean(axis=(2, 3)) * np.nan


def in_place(x):
    x -= x.mean(axis=(2, 3), keepdims=True)
    return -x.mean(axis=(2, 3))


def right_but_in_place(x):
    y = x.mean(axis=(2, 3))
    x[...] = 0
    return y


def different_each_time(x, calls=[]):  # noqa: B006
    calls.append(1)
    return x.mean(axis=(2, 3)) + len(calls)


def wrong_signature(x, axis):
    return x.mean(axis=axis)


def undefined(x):
    return X.mean()  # noqa: F821


def shapes_that_do_not_fit(x):
    return x + np.zeros(11)


def never_ends(x):
    while True:
        pass


def recursive(x):
    return recursive(x)


def too_large(x):
    return np.zeros(2**26)


def object_array(x):
    return np.array([object()])


SAID = [
    (nothing_returned, "is the `return` line missing?"),
    (a_list, "`np.array(...)` or `np.stack(...)` makes one of a list."),
    (a_tuple, "is there a comma too many?"),
    (a_tensor, "This exercise works on plain arrays"),
    (a_function, "is a call `(...)` missing?"),
    (text, "it is the text 'a mean'."),
    (axes_kept, "only an axis of length 1 is left over"),
    (transposed, "the axes are in another order"),
    (one_axis_left, "It is not averaged over axis 2."),
    (too_far, "It went one mean too far, over axis 1 of what is needed."),
    (float32, "Their dtype is float32 and should be float64."),
    (negated, "It is exactly negated: a minus sign is missing or too many."),
    (not_a_number, "elements are NaN"),
    (in_place, "It also wrote into its input x."),
    (right_but_in_place, "It wrote into `x`, which belongs to the caller"),
    (different_each_time, "The same input gives another result each time"),
    (wrong_signature, "It is called as `squeeze(x)`"),
    (undefined, "`X` has no value yet: run the cell that defines it"),
    (shapes_that_do_not_fit, "axes are aligned from the right"),
    (never_ends, "It did not end within 0.3 s"),
    (recursive, "The function calls itself without ever reaching an end."),
    (too_large, "too large to be looked at: an array of shape (67108864,) (512 MiB)."),
    (object_array, "It is an array, but not of numbers"),
]


@pytest.mark.parametrize(("answer", "words"), SAID, ids=[answer.__name__ for answer, _ in SAID])
def test_every_wrong_answer_is_told_what_is_wrong(squeeze, answer, words):
    squeeze.mutants.clear()
    seconds = 0.3 if answer is never_ends else 10.0
    report = examine(squeeze, here(answer, seconds))
    assert report.verdict not in ("right", "not written")
    assert words in str(report.page)
    assert '`hint("13.squeeze")` gives a hint.' in str(report.page)
    assert not re.search(r"0x[0-9a-f]{6}|/\w+/", str(report.page)), "an address or a path"


STEADY = [answer for answer, _ in SAID if answer not in (different_each_time, never_ends)]


@pytest.mark.parametrize("answer", STEADY, ids=lambda answer: answer.__name__)
def test_the_same_mistake_gets_the_same_text_each_time(squeeze, answer):
    assert told(squeeze, answer) == told(squeeze, answer)


def test_what_was_printed_and_warned_stands_in_the_message(squeeze):
    def chatty(x):
        print("x is", x.shape)
        return x.mean(axis=(2, 3)) if len(x) == 1 else np.log(-x.mean(axis=(2, 3)))

    text = told(squeeze, chatty)
    assert "Your code printed:\n    x is (2, 3, 2, 2)\n" in text, "of the failed case alone"
    assert "NumPy warned: invalid value encountered in log." in text


def test_what_a_right_answer_prints_stays_silent(squeeze, capsys):
    def chatty(x):
        print("x is", x.shape)
        return x.mean(axis=(2, 3))

    assert "right" in told(squeeze, chatty)
    assert capsys.readouterr().out == ""


def test_the_first_failing_case_is_told_and_the_others_counted(squeeze):
    text = told(squeeze, lambda x: x.mean(axis=(2, 3)) if len(x) == 1 else x.mean(axis=(0, 1)))
    assert "Case 2 of 7: three channels (6 of 7 cases fail; this is the first)" in text


def test_of_two_mistakes_alike_on_the_first_case_the_one_alike_on_all_is_named():
    exercise = Exercise(
        "99.double",
        reference=lambda x: 2 * x,
        cases=[Case("two", np.array([2.0, 2.0])), Case("three", np.array([3.0, 3.0]))],
        hints=[],
    )

    @exercise.mutant("You cubed it and halved it.")
    def halved_cube(x):
        return x**3 / 2 + 1

    @exercise.mutant("You added 3.")
    def plus_three(x):
        return x + 3

    report = examine(exercise, here(lambda x: 3 + x))
    assert report.cause.sentence == "You added 3."
    assert "hint" not in str(report.page)


def test_of_several_causes_the_one_that_fits_all_failed_cases_is_told():
    """With one image a sum that is missing looks like an axis of length 1 too many."""
    exercise = Exercise(
        "99.total",
        reference=lambda x: x.sum(axis=0),
        cases=[
            Case("one", np.array([[1.0, 2.0]])),
            Case("two", np.array([[1.0, 2.0], [4.0, 8.0]])),
        ],
        hints=[],
    )
    assert "It is not summed over axis 0." in told(exercise, lambda x: x)


def test_a_cause_that_fits_the_first_case_by_chance_is_not_told():
    exercise = Exercise(
        "99.square",
        reference=lambda x: x**2,
        cases=[Case(f"by {n}", n * np.array([1.0, -2.0, 3.0, 5.0])) for n in (2.0, 3.0, 1.5)],
        hints=[],
    )

    def by_chance(x):
        return 3 * x**2 if x[0] == 2 else np.sin(np.arange(4) + x[0])

    assert "Likely cause" not in told(exercise, by_chance)


def test_the_part_of_a_large_input_is_that_of_the_difference(squeeze):
    squeeze.reference = lambda x: 2 * x
    squeeze.fixed_cases = [squeeze._named(Case("large", np.ones((4, 5, 3, 3))))]

    def one_wrong(x):
        y = 2 * x
        y[3, 4, 0, 0] = 7
        return y

    assert told(squeeze, one_wrong, more=0).count("the part [3, 4, 0:3, 0:3]:") == 3


def test_where_the_parameters_differ_no_input_is_shown(gate):
    text = told(gate, NoBias)
    assert "  channels = 4" in text.replace("    ", "  ") and "array" not in text
    assert "expected:" not in text


def test_large_inputs_and_answers_are_shown_in_part(squeeze):
    squeeze.fixed_cases = [squeeze._named(Case("large", np.ones((8, 40, 30, 30))))]

    def one_wrong(x):
        y = x.mean(axis=(2, 3))
        y[5, 17] = 2
        return y

    text = told(squeeze, one_wrong, more=0)
    assert "1 of 320 elements differ, the first at [5, 17]: it is 2 and should be 1." in text
    assert "of a float64 array of shape (8, 40), the part [2:8, 14:20]:" in text
    assert len(text) < 2000


def test_numbers_that_look_alike_are_told_apart():
    exercise = Exercise("99.third", reference=lambda: 1 / 3, cases=[Case("it")], hints=[])
    text = told(exercise, lambda: 1 / 3 + 1e-6)
    assert "it is 0.333334 and should be 0.333333." in text
    assert "right to about 5 digits" in text


# -- what is observed -----------------------------------------------------------------------


def scale_rules(x, *, factor=2.0):
    return factor * x, lambda dy: factor * dy


def product_rules(a, b):
    return a * b, (lambda dy: dy * b, lambda dy: (dy * a).sum(axis=0))


@pytest.fixture
def product():
    return Exercise(
        "99.product",
        reference=product_rules,
        observe=rules,
        cases=[Case("a row", np.ones((2, 3)), np.array([1.0, 2.0, 3.0]))],
        hints=[],
    )


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda a, b: a * b, "`return y, (vjp_a, vjp_b)`; this returned a float64 array"),
        (lambda a, b: (a * b, lambda dy: dy * b), "one rule for each of the inputs a, b; 1 came"),
        (
            lambda a, b: (a * b, (a * b, lambda dy: dy * a)),
            "The rule of a should be a function of dy; it is a float64 array of shape (2, 3).",
        ),
        (
            lambda a, b: (a * b, (lambda dy: dy * b, lambda dy: dy * a)),
            "The gradient of b: it should have shape (3,); it has shape (2, 3).",
        ),
        (
            lambda a, b: (a * b, (lambda dy: dy * b, lambda dy: dy * a)),
            "It is not summed over axis 0. Along the axes where an input was broadcast",
        ),
        (
            lambda a, b: (a * b, (lambda dy: -dy * b, lambda dy: dy * a)),
            "The gradient of a: 6 of 6 elements differ",
        ),
        (lambda a, b: (a * b, (lambda dy: dy * b, None)), "is its rule None"),
        (lambda a, b: (a * b, (lambda dy: None, None)), "is the `return` line missing?"),
        (lambda a, b: (a * b, (lambda: 3, None)), "The rule is called as `vjp_a(dy)`: "),
        (
            lambda a, b: (a.mean(dim=0), None),
            "NumPy says `axis=` (`keepdims=`) where Tensors say `dim=`",
        ),
        (lambda a, b: None, "The output: it should be a float64 array"),
    ],
)
def test_rules_are_checked_one_by_one(product, answer, words):
    assert words in told(product, answer)


def test_dy_is_shown_with_the_gradient_it_belongs_to(product):
    wrong = told(product, lambda a, b: (a * b, (lambda dy: dy, lambda dy: dy)))
    assert re.search(r"  dy, float64 array of shape \(2, 3\):\n    \[\[", wrong)
    assert "dy" not in told(product, lambda a, b: (a, (None, None)))


def test_a_rule_that_writes_into_dy_is_told(product):
    def careless(a, b):
        def vjp_a(dy):
            dy *= b
            return dy

        return a * b, (vjp_a, lambda dy: (dy * a).sum(axis=0))

    assert "It wrote into `dy`" in told(product, careless)


def test_settings_are_passed_and_shown():
    exercise = Exercise(
        "99.scale",
        reference=scale_rules,
        observe=rules,
        cases=[Case("by 3", np.ones(2), factor=3.0)],
        hints=[],
    )
    assert "right" in told(exercise, lambda x, factor: (factor * x, lambda dy: factor * dy))
    assert "  factor = 3" in told(exercise, lambda x, factor: (x, lambda dy: dy))


@pytest.fixture
def cube():
    return Exercise(
        "99.cube",
        reference=lambda x: x * x * x,
        observe=tensors,
        cases=[Case("a row", np.array([1.0, -2.0, 3.0]))],
        hints=[],
    )


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda x: x**3, "Checked: the output and the gradient of x."),
        (lambda x: x.numpy() ** 3, "A Tensor should come back; it is a float64 array"),
        (lambda x: mt.tensor(x.numpy() ** 3), "the graph does not lead back from it"),
        (lambda x: x * x * x.detach(), "The gradient of x: 3 of 3 elements differ"),
        (lambda x: None, "is the `return` line missing?"),
        (lambda x: x * x, "The output: 2 of 3 elements differ"),
    ],
)
def test_functions_of_tensors_are_checked_with_their_gradients(cube, answer, words):
    assert words in told(cube, answer)


class Gate(nn.Module):
    def __init__(self, channels, reduction=2):
        super().__init__()
        self.fc1 = nn.Linear(channels, channels // reduction)
        self.fc2 = nn.Linear(channels // reduction, channels)

    def forward(self, x):
        return x * self.fc2(self.fc1(x).relu()).sigmoid()


@pytest.fixture
def gate():
    exercise = Exercise(
        "99.Gate",
        reference=Gate,
        observe=module,
        cases=[Case("four channels", np.arange(8.0).reshape(2, 4) / 8, channels=4, reduction=2)],
        hints=[],
    )

    @exercise.mutant("The sigmoid is missing.")
    class NoSigmoid(Gate):
        def forward(self, x):
            return x * self.fc2(self.fc1(x).relu())

    return exercise


class Halved(Gate):
    def forward(self, x):
        return x * self.fc1(x)


def test_an_exception_in_a_layer_is_known_whatever_the_learner_calls_the_class(gate):
    gate.mutant("fc2 is not used.", raises=True)(Halved)
    learner = type("Gate", (Halved,), {})  # its name, too, is part of the exception's message
    assert "fc2 is not used." in told(gate, learner)


class NoBias(Gate):
    def __init__(self, channels, reduction=2):
        super().__init__(channels, reduction)
        self.fc1 = nn.Linear(channels, channels // reduction, bias=False)


class PartsInAnotherOrder(Gate):
    def __init__(self, channels, reduction=2):
        nn.Module.__init__(self)
        self.fc2 = nn.Linear(channels // reduction, channels)
        self.fc1 = nn.Linear(channels, channels // reduction)


class NotReduced(Gate):
    def __init__(self, channels, reduction=2):
        super().__init__(channels, reduction=1)


class NoSuper(nn.Module):
    def __init__(self, channels, reduction=2):
        self.fc1 = nn.Linear(channels, channels // reduction)


class Plain:
    def __init__(self, channels, reduction=2):
        pass


class OtherNames(nn.Module):
    def __init__(self, channels, ratio=2):
        super().__init__()


class ForwardTakesNothing(Gate):
    def forward(self):
        return self.fc1


class AxisOfATensor(Gate):
    def forward(self, x):
        return super().forward(x.mean(axis=(2, 3)))


class Detached(Gate):
    def forward(self, x):
        return x * self.fc2(self.fc1(x).relu()).sigmoid().detach()


class HalfWritten(Gate):
    def forward(self, x):
        raise NotImplementedError


class OtherInEvaluation(Gate):
    def forward(self, x):
        return super().forward(x) if self.training else x


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (Gate, "the gradient of x, the gradient of fc1.weight, the gradient of fc1.bias"),
        (PartsInAnotherOrder, "the gradient of x, the gradient of fc1.weight, the gradient of fc1"),
        (NoBias, "the names differ. Missing: fc1.bias."),
        (NotReduced, "`fc1.weight`: Item 0: It is 4 and should be 2."),
        (NoSuper, "super().__init__()"),
        (Plain, "The class should be a module: `class ...(nn.Module)`"),
        (OtherNames, "It is called as `Gate(channels=..., reduction=...)`"),
        (ForwardTakesNothing, "`forward` is called as `forward(x)`"),
        (
            AxisOfATensor,
            "Likely cause: Tensors say `dim=` (`keepdim=`) where NumPy says `axis=` (`keepdims=`).",
        ),
        (Detached, "The gradient of x: "),
        (OtherInEvaluation, "The output in evaluation: "),
        (HalfWritten, "99.Gate is not written to the end yet.\n`forward` of `Gate` still has"),
        (Gate(4), "not a class. Pass the class itself, without calling it:\n    check("),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_modules_are_checked_from_their_parameters_to_evaluation(gate, answer, words):
    assert words in told(gate, answer)


def test_a_known_mistake_of_a_module_is_named(gate):
    class Mine(Gate):
        def forward(self, x):
            return self.fc2(self.fc1(x).relu()) * x

    assert "Likely cause: The sigmoid is missing." in told(gate, Mine)


def momentum(subject, case):
    step = subject(lr=0.5)
    weights = keep(subject, case.inputs[0])
    for number in (1, 2):
        step(weights)
        yield f"the weights after step {number}", fetch(weights)
    if step(weights) is not None:
        raise Mistake("A step returns nothing: it changes the weights in place.")


@pytest.fixture
def optimiser():
    def reference(lr):
        def step(weights):
            weights -= lr * weights

        return step

    return Exercise(
        "99.optimiser",
        reference=reference,
        observe=momentum,
        cases=[Case("two weights", np.array([4.0, 8.0]))],
        hints=[],
        may_change_inputs=True,
    )


def test_an_authors_own_observer_drives_the_answer(optimiser):
    def forgetful(lr):
        def step(weights):
            if weights[0] == 4:
                weights -= lr * weights

        return step

    def talkative(lr):
        def step(weights):
            weights -= lr * weights
            return weights

        return step

    assert "right" in told(optimiser, optimiser.reference)
    assert "The weights after step 2: 2 of 2 elements differ" in told(optimiser, forgetful)
    assert "A step returns nothing: it changes the weights in place." in told(optimiser, talkative)


def nodes(subject, case):
    graph = there(subject, "lambda Node: (lambda a, b: (a, b, a * b + a))(Node(2.0), Node(3.0))")
    a, b, total = graph(subject)
    yield "the value of a * b + a", total.value
    total.backward()
    yield "the gradient of a", a.gradient
    yield "the gradient of b", b.gradient


class Node:
    def __init__(self, value, parents=()):
        self.value, self.parents, self.gradient = value, parents, 0.0

    def __add__(self, other):
        return type(self)(self.value + other.value, ((self, 1.0), (other, 1.0)))

    def __mul__(self, other):
        return type(self)(self.value * other.value, ((self, other.value), (other, self.value)))

    def backward(self, gradient=1.0):
        self.gradient += gradient
        for parent, slope in self.parents:
            parent.backward(gradient * slope)


class Overwriting(Node):
    def backward(self, gradient=1.0):
        self.gradient = gradient
        for parent, slope in self.parents:
            parent.backward(gradient * slope)


def test_an_observer_can_work_with_objects_and_operators():
    exercise = Exercise(
        "01.Node", reference=Node, observe=nodes, cases=[Case("a used twice")], hints=[]
    )
    assert "right" in told(exercise, Node)
    assert "The gradient of a: it is 1 and should be 4." in told(exercise, Overwriting)


def test_every_kind_is_checked_the_same_in_another_process(
    tmp_path, product, cube, gate, optimiser
):
    sources = {
        "product": "lambda a, b: (a * b, (lambda dy: dy * b, lambda dy: dy * a))",
        "cube": "lambda x: x * x * x.detach()",
        "gate": "Mine",
        "optimiser": "lambda lr: lambda weights: weights.__isub__(lr)",
    }
    setup = (
        "from minitorch_attn import nn\n"
        "class Mine(nn.Module):\n"
        "    def __init__(self, channels, reduction=2):\n"
        "        super().__init__()\n"
        "        self.fc1 = nn.Linear(channels, channels // reduction)\n"
        "        self.fc2 = nn.Linear(channels // reduction, channels)\n"
        "    def forward(self, x):\n"
        "        return x * self.fc2(self.fc1(x).relu())\n"
    )
    setup += "".join(f"{name} = {source}\n" for name, source in sources.items())
    names = {}
    exec(setup, names)
    with Worker(tmp_path) as worker:
        Side(worker.send, 20.0).ask("run", source=setup, title="<cell 1>")
        for name, exercise in [
            ("product", product),
            ("cube", cube),
            ("gate", gate),
            ("optimiser", optimiser),
        ]:
            there_ = examine(exercise, Side(worker.send, 20.0).ask("name", name=name))
            here_ = examine(exercise, here(names[name], 20.0))
            assert there_.verdict == here_.verdict == "wrong"
            assert str(there_.page) == str(here_.page)


def test_an_exception_can_be_the_right_answer():
    def refuses(subject, case):
        yield "the output", outcome(lambda: subject(*case.inputs), "ValueError")

    def root(x):
        if x < 0:
            raise ValueError("negative")
        return x**0.5

    def other_kind(x):
        raise TypeError("negative")

    exercise = Exercise(
        "99.root",
        reference=root,
        observe=refuses,
        cases=[Case("it has one", 4.0), Case("it has none", -1.0)],
        hints=[],
    )
    assert "right" in told(exercise, lambda x: root(x))
    wrong = told(exercise, lambda x: abs(x) ** 0.5)
    assert "it should be the text 'a ValueError'; it is the number 1." in wrong
    assert "TypeError: negative" in told(exercise, other_kind)


def test_a_function_among_the_inputs_is_shown_as_its_text():
    exercise = Exercise(
        "99.slope",
        reference=lambda f, x: (f(x + 1e-3) - f(x - 1e-3)) / 2e-3,
        cases=[Case("a square", Code("lambda x: x ** 2"), 3.0)],
        hints=[],
        tolerance=1e-5,
    )
    text = told(exercise, lambda f, x: f(x))
    assert "  f = lambda x: x ** 2\n  x = 3" in text.replace("    ", "  ")
    assert "right" in told(exercise, exercise.reference)


def test_array_of_says_what_came_instead_of_a_tensor():
    with pytest.raises(Mistake, match="it is the number 3"):
        array_of(3)


# -- the notebook's side --------------------------------------------------------------------


def test_check_prints_once_and_returns_nothing(capsys):
    assert check("00.relu", lambda x: np.maximum(x, 0)) is None
    assert capsys.readouterr().out.startswith("00.relu is right.\n")


@pytest.mark.parametrize(
    ("id", "words"),
    [
        ("00.rleu", "There is no exercise '00.rleu'. Did you mean \"00.relu\""),
        ("00.zzzzzz", 'This set has "00.relu", "00.relu_rule", "00.softmax".'),
        ("?????", "An exercise is named by its lesson and itself"),
        (abs, "There is no exercise <built-in function abs>."),
        ("99.relu", "There is no exercise '99.relu'. Did you mean"),
        (None, "There is no exercise None."),
    ],
)
def test_an_unknown_exercise_gets_near_names(capsys, id, words):
    for ask in (lambda: check(id, abs), lambda: hint(id), lambda: solution(id)):
        ask()
        assert words in capsys.readouterr().out


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ((), "00.relu: the check also needs what you wrote.\n    check("),
        ((np.zeros(2),), "It is a float64 array of shape (2,): perhaps what it returned."),
        ((None,), "It is None: perhaps what it returned."),
        ((Gate,), "It is the class Gate, not a function."),
    ],
)
def test_what_is_no_answer_is_told_so(capsys, args, words):
    check("00.relu", *args)
    assert words in capsys.readouterr().out


def test_that_progress_cannot_be_kept_is_said_once(capsys, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MINITORCH_ATTN_PROGRESS", str(tmp_path / "file" / "progress.json"))
    for _ in range(2):
        check("00.relu", lambda x: np.maximum(x, 0))
    out = capsys.readouterr().out
    assert out.count("00.relu is right.") == 2
    assert out.count("Progress cannot be kept") == 1


def test_a_fault_of_the_check_itself_stops_nobody(capsys, monkeypatch):
    def broken(*args, **settings):
        raise ZeroDivisionError("oh")

    monkeypatch.setattr(checking, "examine", broken)
    check("00.relu", abs)
    out = capsys.readouterr().out
    assert "the check itself failed. This is not your mistake." in out
    assert "ZeroDivisionError: oh" in out


def test_a_check_leaves_random_numbers_and_dtype_alone(capsys, gate, monkeypatch):
    monkeypatch.setattr(checking, "find", lambda id: gate)
    monkeypatch.setattr(checking.progress_file, "note", lambda *args, **settings: "")

    class Drawing(Gate):
        def forward(self, x):
            np.random.random()  # noqa: NPY002
            return super().forward(x)

    def draw():
        return mt.default_generator().random(), np.random.random()  # noqa: NPY002

    mt.manual_seed(3)
    np.random.seed(3)  # noqa: NPY002
    expected = draw()
    mt.manual_seed(3)
    np.random.seed(3)  # noqa: NPY002
    check("99.Gate", Drawing)
    assert draw() == expected
    assert mt.get_default_dtype() == np.float32
    assert "right" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MINITORCH_ATTN_CHECK", "raise"),
        ("NBGRADER_EXECUTION", "autograde"),
        ("NBGRADER_EXECUTION", "validate"),
    ],
)
def test_on_request_a_failed_check_raises(capsys, monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    check("00.relu", lambda x: np.maximum(x, 0))
    with pytest.raises(checking.CheckFailed, match=r"00\.relu is not right yet"):
        check("00.relu", np.abs)


def test_html_is_escaped_and_marks_what_differs(squeeze):
    def markup(x):
        print("<script>alert(1)</script>")
        return x.mean(axis=(2, 3)) + 1

    html = examine(squeeze, here(markup)).page._repr_html_()
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html and "<script" not in html
    assert '<b style="text-decoration: underline">5</b>' in html
    assert "✗ 13.squeeze is not right yet." in html
    assert "<code>hint(&quot;13.squeeze&quot;)</code> gives a hint." in html


def test_in_a_notebook_a_page_is_displayed_once(monkeypatch, capsys):
    IPython = pytest.importorskip("IPython")
    shown = []
    monkeypatch.setitem(sys.modules, "IPython", IPython)
    monkeypatch.setattr(IPython, "get_ipython", lambda: object())
    monkeypatch.setattr(IPython.display, "display", shown.append)
    check("00.relu", np.abs)
    assert len(shown) == 1 and capsys.readouterr().out == ""
    assert repr(shown[0]) == str(shown[0])


# -- hints and solutions --------------------------------------------------------------------


def test_hints_come_one_at_a_time_and_begin_again_on_request(capsys):
    said = []
    for restart in (False, False, False, True):
        hint("00.relu", restart=restart)
        said.append(capsys.readouterr().out)
    assert said[0].startswith("Hint 1 of 2 for 00.relu\nFor each element")
    assert "solution" not in said[0]
    assert said[1].startswith("Hint 2 of 2 for 00.relu\n")
    assert '`solution("00.relu")` shows the solution.' in said[1]
    assert said[2].startswith("There are no more hints for 00.relu.\n")
    assert said[3] == said[0]


@pytest.mark.parametrize("id", ["00.relu", "13.SqueezeExcitation"], ids=["function", "class"])
def test_in_a_notebook_a_solution_shows_its_page_alone(id):
    pytest.importorskip("IPython")
    cell = f'from minitorch_attn.course import solution\nsolution("{id}", show=True)'
    program = (
        "from IPython.core.interactiveshell import InteractiveShell\n"
        "shell = InteractiveShell.instance()\n"
        f"shell.run_cell({cell!r})\n"
        "shell.run_cell('callable(_)')\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stderr == "" and f"Solution of {id}" in done.stdout
    assert not re.search(r"<function|<class|solutions_\d\d", done.stdout)
    assert done.stdout.endswith("True\n"), "it is the cell's value all the same"


def test_the_librarys_own_class_does_not_count(capsys, monkeypatch):
    from minitorch_attn.attention import SqueezeExcitation

    monkeypatch.setenv("MINITORCH_ATTN_CHECK", "raise")
    with pytest.raises(checking.CheckFailed):
        check("13.SqueezeExcitation", SqueezeExcitation)
    out = capsys.readouterr().out
    assert out.startswith("13.SqueezeExcitation: this is the library's own")
    assert checking.progress_file.read() == ({}, "")


def test_the_solution_is_shown_after_a_try(capsys):
    assert solution("00.relu") is None
    assert capsys.readouterr().out.startswith("Try 00.relu once before you look at its solution.")
    check("00.relu", np.abs)
    capsys.readouterr()
    relu = solution("00.relu")
    out = capsys.readouterr().out
    assert out.startswith("Solution of 00.relu\n    def relu(x):\n")
    assert "return np.maximum(x, 0)" in out and "###" not in out
    np.testing.assert_array_equal(relu(np.array([-1.0, 2.0])), [0.0, 2.0])


def test_a_stub_is_no_try_and_show_overrules(capsys):
    def relu(x):
        raise NotImplementedError

    check("00.relu", relu)
    assert solution("00.relu") is None
    assert solution("00.relu", show=True) is not None
    capsys.readouterr()


def test_the_courses_own_solution_does_not_count(capsys):
    check("00.softmax", solution("00.softmax", show=True))
    assert "does not count as done" in capsys.readouterr().out
    assert not checking.progress_file.read()[0]["00.softmax"].passed


def test_without_the_sources_the_solution_says_where_it_looked(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(checking.solution_source, "ROOT", tmp_path)
    assert solution("00.relu", show=True) is None
    assert "solutions/source of a checkout" in capsys.readouterr().out


# -- how exercises are made -----------------------------------------------------------------


def test_cases_from_one_seed_are_the_same_from_two_they_differ(squeeze):
    first, again, other = (squeeze.cases(4, seed)[2:] for seed in (1, 1, 2))
    for a, b, c in zip(first, again, other):
        np.testing.assert_array_equal(a.inputs[0], b.inputs[0])
        assert a.seed == b.seed != c.seed
    assert len({case.seed for case in first}) == 4


def test_cotangents_are_fixed_nonzero_and_of_the_outputs_dtype():
    case = Case("it")
    dy = case.cotangent(np.zeros((50, 4), np.float32))
    assert dy.dtype == np.float32 and dy.shape == (50, 4) and np.all(dy != 0)
    np.testing.assert_array_equal(dy, case.cotangent(np.zeros((50, 4), np.float32)))
    assert len(np.unique(dy)) > 5


def test_a_reference_that_fails_is_the_authors_error_not_the_learners():
    exercise = Exercise("99.bad", reference=lambda x: x.nothing, cases=[Case("it", 1)], hints=[])
    with pytest.raises(RuntimeError, match=r"99\.bad, it: .*no attribute 'nothing'"):
        examine(exercise, here(lambda x: x))


def test_exercises_are_found_by_their_lesson():
    assert [one.id for one in exercise.exercises(0)] == ["00.relu", "00.relu_rule", "00.softmax"]
    with pytest.raises(KeyError, match="there is no lesson 29"):
        exercise.exercises(29)


def test_importing_the_course_needs_numpy_alone():
    code = (
        "import sys, minitorch_attn.course\n"
        "heavy = {'IPython', 'jupytext', 'nbformat', 'matplotlib', 'sklearn', 'scipy'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
