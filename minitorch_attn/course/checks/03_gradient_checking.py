import numpy as np

from minitorch_attn.course.exercise import Case, Code, Exercise, rules

# -- central_difference ---------------------------------------------------------------------


def central_difference_reference(f, x, h=1e-5):
    return (f(x + h) - f(x - h)) / (2 * h)


def any_cubic(rng):
    a, b, c = (int(n) for n in rng.integers(1, 6, size=3))
    function = Code(f"lambda x: {a} * x**3 - {b} * x**2 + {c} * x")
    return Case("any cubic", function, round(float(rng.normal()), 2), h=0.01)


central_difference = Exercise(
    "03.central_difference",
    reference=central_difference_reference,
    cases=[
        Case("a parabola, with a large step", Code("lambda x: x**2"), 3.0, h=0.5),
        Case("a cubic", Code("lambda x: x**3"), 1.0, h=0.1),
        Case("the sine", Code("np.sin"), 0.5, h=0.01),
        Case("a negative slope", Code("lambda x: 1 / x"), 2.0, h=0.001),
    ],
    more=any_cubic,
    hints=[
        "Two values of f are needed, one on each side of x. How far apart do they lie?",
        "The change of f from x - h to x + h, divided by the length of that way, which is 2h.",
        "`(f(x + h) - f(x - h)) / (2 * h)`: mind the brackets around `2 * h`.",
    ],
)


@central_difference.mutant("This is the one-sided difference; the central one also looks at x - h.")
def one_sided(f, x, h=1e-5):
    return (f(x + h) - f(x)) / h


@central_difference.mutant("x - h and x + h lie 2h apart: divide by 2h, not by h.")
def divided_by_h(f, x, h=1e-5):
    return (f(x + h) - f(x - h)) / h


@central_difference.mutant("`/ 2 * h` divides by 2 and multiplies by h: write `/ (2 * h)`.")
def brackets_forgotten(f, x, h=1e-5):
    return (f(x + h) - f(x - h)) / 2 * h


@central_difference.mutant("The difference runs the wrong way: the value at x + h comes first.")
def backwards(f, x, h=1e-5):
    return (f(x - h) - f(x + h)) / (2 * h)


@central_difference.mutant("You used a step of your own; the caller says how large h is.")
def own_step(f, x, h=1e-5):
    return (f(x + 1e-5) - f(x - 1e-5)) / 2e-5


# -- numerical_vjp --------------------------------------------------------------------------


def numerical_vjp_reference(f, x, dy, h=1e-5):
    dx = np.zeros_like(x)
    for i in np.ndindex(x.shape):
        step = np.zeros_like(x)
        step[i] = h
        dx[i] = (dy * (f(x + step) - f(x - step))).sum() / (2 * h)
    return dx


def any_product(rng):
    N, D, K = (int(n) for n in rng.integers(1, 4, size=3))
    return Case(
        "any shapes",
        Code(f"lambda x: x**3 @ np.arange(1.0, {D * K + 1}).reshape({D}, {K})"),
        rng.normal(size=(N, D)).round(2),
        rng.normal(size=(N, K)).round(2),
        h=0.01,
    )


MATRIX = np.array([[1.0, -2.0, 0.5], [3.0, 0.0, -1.0]])

numerical_vjp = Exercise(
    "03.numerical_vjp",
    reference=numerical_vjp_reference,
    cases=[
        Case("a function of one element", Code("lambda x: x**3"), np.array([2.0]), np.array([1.0])),
        Case(
            "an elementwise function",
            Code("lambda x: x**3"),
            np.array([1.0, 2.0, -1.0]),
            np.array([1.0, -1.0, 10.0]),
            h=0.1,
        ),
        Case(
            "softmax, whose outputs add up to 1",
            Code("lambda x: np.exp(x) / np.exp(x).sum()"),
            np.array([0.0, 1.0, -1.0]),
            np.array([2.0, -1.0, 0.5]),
            h=0.1,
        ),
        Case(
            "an output of another shape",
            Code("lambda x: (x**2).sum(axis=0)"),
            MATRIX,
            np.array([1.0, 2.0, -3.0]),
        ),
        Case(
            "an output in the input's own memory",
            Code("lambda x: x.T"),
            MATRIX,
            np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]),
        ),
    ],
    more=any_product,
    tolerance=1e-6,
    hints=[
        "Begin with `dx = np.zeros_like(x)` and loop `for i in np.ndindex(x.shape)`; `dx[i]` and "
        "`x[i]` are single elements, whatever the shape.",
        "For each i two new arrays are needed, one with x[i] a little larger and one with it a "
        "little smaller. Make a `step` of zeros with h at i, then `x + step` and `x - step`.",
        "The change of the output is an array like dy. Multiply the two and add everything up.",
        "`dx[i] = (dy * (f(x + step) - f(x - step))).sum() / (2 * h)`.",
    ],
)


@numerical_vjp.mutant("dy is not used: you measured the gradient of the sum of the outputs.")
def sum_of_outputs(f, x, dy, h=1e-5):
    return numerical_vjp_reference(f, x, np.ones_like(dy), h)


@numerical_vjp.mutant("These are one-sided differences; go h to both sides and divide by 2h.")
def one_sided_differences(f, x, dy, h=1e-5):
    dx = np.zeros_like(x)
    for i in np.ndindex(x.shape):
        step = np.zeros_like(x)
        step[i] = h
        dx[i] = (dy * (f(x + step) - f(x))).sum() / h
    return dx


@numerical_vjp.mutant(
    "You moved all elements of x at once, so every place gets the sum of their slopes: move one "
    "element at a time."
)
def all_moved_at_once(f, x, dy, h=1e-5):
    return np.full(x.shape, (dy * (f(x + h) - f(x - h))).sum() / (2 * h))


@numerical_vjp.mutant(
    "You moved all elements of x together and multiplied with dy element by element; an output may "
    "depend on several inputs, so move one element at a time and add up."
)
def elementwise_only(f, x, dy, h=1e-5):
    return dy * (f(x + h) - f(x - h)) / (2 * h)


@numerical_vjp.mutant(
    "The step at one place is still there when the next is measured: begin each place with x as it "
    "was given."
)
def step_left_in(f, x, dy, h=1e-5):
    dx, moved = np.zeros_like(x), x.copy()
    for i in np.ndindex(x.shape):
        moved[i] = x[i] + h
        ahead = f(moved).copy()
        moved[i] = x[i] - h
        dx[i] = (dy * (ahead - f(moved))).sum() / (2 * h)
    return dx


@numerical_vjp.mutant(
    "You wrote the second step into the array that f was given for the first. Where f returns that "
    "memory, as x.T does, both outputs are then the same: give f a new array each time."
)
def same_array_twice(f, x, dy, h=1e-5):
    dx, moved = np.zeros_like(x), x.copy()
    for i in np.ndindex(x.shape):
        moved[i] = x[i] + h
        ahead = f(moved)
        moved[i] = x[i] - h
        behind = f(moved)
        moved[i] = x[i]
        dx[i] = (dy * (ahead - behind)).sum() / (2 * h)
    return dx


@numerical_vjp.mutant("x itself is changed when you are done; it belongs to the caller.")
def input_overwritten(f, x, dy, h=1e-5):
    dx = numerical_vjp_reference(f, x, dy, h)
    x += h
    return dx


# -- agree ----------------------------------------------------------------------------------


def agree_reference(analytic, numeric, rtol=1e-5, atol=1e-7):
    if analytic.shape != numeric.shape:
        return False
    return bool((np.abs(analytic - numeric) <= atol + rtol * np.abs(numeric)).all())


def any_gradients(rng):
    numeric = rng.normal(size=rng.integers(1, 4, size=2))
    size = rng.choice([1e-9, 1e-6, 1e-3])
    return Case("any gradients", numeric + size * rng.choice([-1, 1], numeric.shape), numeric)


agree = Exercise(
    "03.agree",
    reference=agree_reference,
    cases=[
        Case("equal", np.array([1.0, -2.0]), np.array([1.0, -2.0])),
        Case("one element off", np.array([1.0, -2.0, 3.0]), np.array([1.0, -2.0, 3.01])),
        Case("one element too small", np.array([1.0, -2.1]), np.array([1.0, -2.0])),
        Case("zero, measured with noise", np.array([1.0, 0.0]), np.array([1.0, 3e-11])),
        Case("zero everywhere", np.zeros(2), np.zeros(2)),
        Case("large numbers", np.array([1e6, -2e6]), np.array([1000001.0, -2e6])),
        Case("negative numbers, almost equal", np.array([-1e6]), np.array([-1000001.0])),
        Case("not summed over a broadcast axis", np.ones((3, 2)), np.ones(2)),
        Case("a NaN", np.array([np.nan, 1.0]), np.array([1.0, 1.0])),
        Case("wide tolerances", np.array([2.0]), np.array([1.2]), rtol=0.5, atol=0.0),
        Case("tolerances just enough", np.array([1.5]), np.array([1.0]), rtol=0.25, atol=0.25),
    ],
    more=any_gradients,
    hints=[
        "The shapes first: NumPy would broadcast (3, 2) against (2,) without a word.",
        "`np.abs(analytic - numeric) <= ...` compares all elements at once and gives an array of "
        "truth values; `.all()` makes one of them.",
        "A comparison with NaN is False. So ask whether all are close, rather than whether any is "
        "far.",
    ],
)


@agree.mutant(
    "You divide by the measured gradient. Where that is zero, or only noise, no rule can pass: add "
    "atol and compare without a division."
)
def relative_alone(analytic, numeric, rtol=1e-5, atol=1e-7):
    if analytic.shape != numeric.shape:
        return False
    return bool((np.abs(analytic - numeric) <= rtol * np.abs(numeric)).all())


@agree.mutant("You compare with atol alone, which no large gradient can meet: add rtol * |n|.")
def absolute_alone(analytic, numeric, rtol=1e-5, atol=1e-7):
    if analytic.shape != numeric.shape:
        return False
    return bool((np.abs(analytic - numeric) <= atol).all())


@agree.mutant("The sign of the difference got through: a gradient too small passes. Take |a - n|.")
def difference_with_sign(analytic, numeric, rtol=1e-5, atol=1e-7):
    if analytic.shape != numeric.shape:
        return False
    return bool((analytic - numeric <= atol + rtol * np.abs(numeric)).all())


@agree.mutant("One close element is enough for `any`; all of them have to be close.")
def any_for_all(analytic, numeric, rtol=1e-5, atol=1e-7):
    if analytic.shape != numeric.shape:
        return False
    return bool((np.abs(analytic - numeric) <= atol + rtol * np.abs(numeric)).any())


@agree.mutant(
    "Gradients of different shapes were broadcast against each other; a wrong shape is a mistake."
)
def shapes_broadcast(analytic, numeric, rtol=1e-5, atol=1e-7):
    return bool((np.abs(analytic - numeric) <= atol + rtol * np.abs(numeric)).all())


@agree.mutant(
    "A NaN slipped through: `NaN > tolerance` is False, so no element counted as far. Ask whether "
    "all are close."
)
def nan_is_not_far(analytic, numeric, rtol=1e-5, atol=1e-7):
    if analytic.shape != numeric.shape:
        return False
    return not (np.abs(analytic - numeric) > atol + rtol * np.abs(numeric)).any()


@agree.mutant(
    "The tolerance grows with the gradient under test, so a large wrong one allows itself more: "
    "measure with |numeric|."
)
def judged_by_itself(analytic, numeric, rtol=1e-5, atol=1e-7):
    if analytic.shape != numeric.shape:
        return False
    return bool((np.abs(analytic - numeric) <= atol + rtol * np.abs(analytic)).all())


@agree.mutant("The size of n is meant, |n|: for a negative n your tolerance becomes negative.")
def tolerance_with_sign(analytic, numeric, rtol=1e-5, atol=1e-7):
    if analytic.shape != numeric.shape:
        return False
    return bool((np.abs(analytic - numeric) <= atol + rtol * numeric).all())


# -- mended ---------------------------------------------------------------------------------


def mended_reference(x, w, b):
    y = np.tanh(x @ w - b)

    def back(dy):
        return dy * (1 - y**2)

    def vjp_x(dy):
        return back(dy) @ w.T

    def vjp_w(dy):
        return x.T @ back(dy)

    def vjp_b(dy):
        return -back(dy).sum(axis=0)

    return y, (vjp_x, vjp_w, vjp_b)


def any_layer(rng):
    N, D = (int(n) for n in rng.integers(2, 5, size=2))
    return Case("any sizes", *(rng.normal(size=s).round(2) for s in ((N, D), (D, D), D)))


mended = Exercise(
    "03.mended",
    reference=mended_reference,
    observe=rules,
    cases=[
        Case("one number", np.array([[0.5]]), np.array([[2.0]]), np.array([0.5])),
        Case(
            "two rows of two",
            np.array([[1.0, 0.5], [-0.5, 2.0]]),
            np.array([[0.5, -1.0], [0.25, 1.0]]),
            np.array([0.5, -0.25]),
        ),
        Case(
            "three rows of two",
            np.array([[1.0, 0.5], [-0.5, 0.0], [0.25, -1.0]]),
            np.array([[1.0, -0.5], [0.75, 0.5]]),
            np.array([-0.5, 0.25]),
        ),
    ],
    more=any_layer,
    hints=[
        "The report names a pattern for each input: 4 times too small (there are 4 rows), "
        "transposed, exactly negated.",
        "x: nothing is averaged in this layer, so no N belongs in its rule. b: it is subtracted.",
        "w: x.T has shape (D, N) and da (N, D); their product has w's shape, and is not da.T @ x.",
    ],
)


def with_rules(x, w, b, to_x=None, to_w=None, to_b=None):
    """The right answer with some rules replaced, each a function of da."""
    y = np.tanh(x @ w - b)
    to_x = to_x or (lambda da: da @ w.T)
    to_w = to_w or (lambda da: x.T @ da)
    to_b = to_b or (lambda da: -da.sum(axis=0))

    def carried_through_tanh(rule):
        return lambda dy: rule(dy * (1 - y**2))

    return y, tuple(carried_through_tanh(rule) for rule in (to_x, to_w, to_b))


@mended.mutant("This is still the layer as it was given: each of its three rules is wrong.")
def as_given(x, w, b):
    return with_rules(
        x,
        w,
        b,
        to_x=lambda da: da @ w.T / len(x),
        to_w=lambda da: da.T @ x,
        to_b=lambda da: da.sum(axis=0),
    )


@mended.mutant("The rule of x still divides by N; nothing in this layer is a mean.")
def x_divided_by_N(x, w, b):
    return with_rules(x, w, b, to_x=lambda da: da @ w.T / len(x))


@mended.mutant("The rule of w is still transposed: `x.T @ da`, not `da.T @ x`.")
def w_transposed(x, w, b):
    return with_rules(x, w, b, to_w=lambda da: da.T @ x)


@mended.mutant("The rule of b still has the wrong sign: b is subtracted.")
def b_not_negated(x, w, b):
    return with_rules(x, w, b, to_b=lambda da: da.sum(axis=0))


@mended.mutant("You took the transpose of w away; da goes back through w.T.")
def w_untransposed_in_x(x, w, b):
    return with_rules(x, w, b, to_x=lambda da: da @ w)


@mended.mutant("The rule of b takes a mean over the rows; every row counts in full.")
def b_averaged(x, w, b):
    return with_rules(x, w, b, to_b=lambda da: -da.mean(axis=0))


@mended.mutant("The rule of b is not summed over the rows, over which b was broadcast.")
def b_not_summed(x, w, b):
    return with_rules(x, w, b, to_b=lambda da: -da)


@mended.mutant("All rules carry dy past the tanh: multiply it with 1 - y² first.")
def tanh_forgotten(x, w, b):
    y = np.tanh(x @ w - b)
    return y, (lambda dy: dy @ w.T, lambda dy: x.T @ dy, lambda dy: -dy.sum(axis=0))


@mended.mutant("The output has changed: b is subtracted, y = tanh(x w - b). Mend the rule of b.")
def b_added(x, w, b):
    return with_rules(x, w, -b, to_b=lambda da: da.sum(axis=0))


# -- is_kink --------------------------------------------------------------------------------


def gap(f, x, h):
    return abs((f(x + h) - f(x)) / h - (f(x) - f(x - h)) / h)


def is_kink_reference(f, x, h=1e-4):
    return bool(gap(f, x, h) > 1e-6 and gap(f, x, h / 4) > 0.6 * gap(f, x, h))


def any_bend(rng):
    at, slope, curve = (float(n) for n in rng.integers(1, 9, size=3))
    beside = float(rng.choice([0.0, 0.5]))
    function = Code(f"lambda x: {curve} * x**2 + {slope} * abs(x - {at})")
    return Case("any bend", function, at + beside)


is_kink = Exercise(
    "03.is_kink",
    reference=is_kink_reference,
    cases=[
        Case("the absolute value, at 0", Code("abs"), 0.0),
        Case("the absolute value, at 1", Code("abs"), 1.0),
        Case("a kink that looks down", Code("lambda x: -3 * abs(x)"), 0.0),
        Case("a kink so slight that it is easily missed", Code("lambda x: 1e-3 * abs(x)"), 0.0),
        Case("a strong curve", Code("lambda x: 1000 * x**2"), 1.0),
        Case("a jump", Code("lambda x: float(x >= 0)"), 0.0),
        Case("a kink within reach of the larger step", Code("lambda x: max(x, 0.0)"), 5e-5),
        Case("a straight line, with rounding", Code("lambda x: 0.1 * x + 1"), 0.3),
        Case("a larger step, as asked for", Code("lambda x: max(x, 0.0)"), 0.01, h=0.2),
    ],
    more=any_bend,
    hints=[
        "Write the gap as an inner function of the step; you need it for two steps.",
        "The first condition keeps rounding out, the second a strong curve. Both must hold: `and`.",
        "`gap(h) > 1e-6 and gap(h / 4) > 0.6 * gap(h)`.",
    ],
)


@is_kink.mutant(
    "You looked at one step alone. A strong curve also makes a gap: see whether it stays when the "
    "step is made smaller."
)
def one_step_alone(f, x, h=1e-4):
    return bool(gap(f, x, h) > 1e-6)


@is_kink.mutant(
    "On a straight line the gap is only rounding, and that does not shrink with the step: gaps "
    "below 1e-6 do not count."
)
def rounding_taken_for_a_kink(f, x, h=1e-4):
    return bool(gap(f, x, h / 4) > 0.6 * gap(f, x, h))


@is_kink.mutant("The condition is the wrong way round: a gap that shrinks means a smooth function.")
def shrinking_taken_for_a_kink(f, x, h=1e-4):
    return bool(gap(f, x, h) > 1e-6 and gap(f, x, h / 4) < 0.6 * gap(f, x, h))


@is_kink.mutant(
    "Without the absolute value, a kink that looks down has a negative gap and is missed."
)
def gap_with_sign(f, x, h=1e-4):
    def signed(h):
        return (f(x + h) - 2 * f(x) + f(x - h)) / h

    return bool(signed(h) > 1e-6 and signed(h / 4) > 0.6 * signed(h))


@is_kink.mutant("You asked the gap to stay as it is; at a jump it grows, and that counts as well.")
def jump_missed(f, x, h=1e-4):
    wide, narrow = gap(f, x, h), gap(f, x, h / 4)
    return bool(wide > 1e-6 and 0.6 * wide < narrow < 1.5 * wide)


@is_kink.mutant(
    "The difference of the slopes is divided by the step once more: that is the second derivative, "
    "which a strong curve has too."
)
def second_derivative(f, x, h=1e-4):
    return bool(gap(f, x, h) / h > 1e-6 and gap(f, x, h / 4) / (h / 4) > 0.6 * gap(f, x, h) / h)


@is_kink.mutant("You used a step of your own; the caller says how large h is.")
def own_step_size(f, x, h=1e-4):
    return is_kink_reference(f, x, 1e-4)
