import numpy as np

from minitorch_attn.course.exercise import Case, Exercise, rules

# -- relu -----------------------------------------------------------------------------------


relu = Exercise(
    "00.relu",
    reference=lambda x: np.maximum(x, 0),
    cases=[
        Case("one row", np.array([-2.0, -0.5, 0.0, 1.5])),
        Case("two rows", np.array([[1.0, -1.0, 4.0], [-3.0, 2.0, -0.1]])),
        Case("float32, which stays float32", np.array([-1.0, 3.0], dtype=np.float32)),
    ],
    more=lambda rng: Case("any shape", rng.normal(size=rng.integers(1, 5, size=3))),
    hints=[
        "For each element, the result is the larger of two numbers. Which two?",
        "`np.maximum(a, b)` compares element by element, and b may be a single number.",
    ],
)


@relu.mutant("You took the absolute value: a negative element becomes 0, not its opposite.")
def absolute_value(x):
    return np.abs(x)


@relu.mutant(
    "`np.max` looks for the one largest element of all; `np.maximum` compares element by element."
)
def largest_of_all(x):
    return np.max(x, initial=0)


@relu.mutant("You kept the negative elements and dropped the positive ones.")
def minimum_for_maximum(x):
    return np.minimum(x, 0)


@relu.mutant(
    "A comparison such as `x > 0` gives True and False; the elements themselves are asked."
)
def mask_for_values(x):
    return x > 0


@relu.mutant("You wrote the zeros into x itself, which belongs to the caller: make a new array.")
def overwritten_input(x):
    x[x < 0] = 0
    return x


# -- relu_rule ------------------------------------------------------------------------------


def relu_rule_reference(x):
    positive = x > 0

    def vjp_x(dy):
        return np.where(positive, dy, 0)  # dy * positive has a -0 where dy is negative

    return np.maximum(x, 0), vjp_x


relu_rule = Exercise(
    "00.relu_rule",
    reference=relu_rule_reference,
    observe=rules,
    cases=[
        Case("one row", np.array([-2.0, -0.5, 1.5, 3.0])),
        Case("two rows", np.array([[1.0, -1.0, 4.0], [-3.0, 2.0, -0.1]])),
    ],
    more=lambda rng: Case("any shape", rng.normal(size=rng.integers(1, 5, size=3))),
    hints=[
        "Change one element of x a little. When does the output change with it, and how fast?",
        "The slope is 1 where x > 0 and 0 where x < 0; the rule multiplies it with dy.",
        "`np.where(x > 0, dy, 0)` takes dy where x > 0 and 0 elsewhere, for all elements at once.",
    ],
)


@relu_rule.mutant("Your rule gives the slope alone; it must carry dy back: multiply the two.")
def slope_without_dy(x):
    return np.maximum(x, 0), lambda dy: (x > 0) * 1.0


@relu_rule.mutant("Your rule passes dy back everywhere; where x is negative nothing comes through.")
def straight_through(x):
    return np.maximum(x, 0), lambda dy: dy


@relu_rule.mutant("Your rule looks at the sign of dy; what counts is where x itself is positive.")
def relu_of_dy(x):
    return np.maximum(x, 0), lambda dy: np.maximum(dy, 0)


@relu_rule.mutant("Your rule multiplies dy with the output; the slope there is 1, not the value.")
def output_for_slope(x):
    y = np.maximum(x, 0)
    return y, lambda dy: dy * y


@relu_rule.mutant("You returned the output alone: the rule belongs beside it, `return y, vjp_x`.")
def rule_forgotten(x):
    return np.maximum(x, 0)


# -- softmax --------------------------------------------------------------------------------


def softmax_reference(x):
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


softmax = Exercise(
    "00.softmax",
    reference=softmax_reference,
    cases=[
        Case("one row", np.array([0.0, 1.0, 2.0])),
        Case("two rows", np.array([[0.0, 1.0, 2.0], [3.0, 3.0, 0.0]])),
        Case("large numbers", np.array([[1000.0, 1001.0], [0.0, -1000.0]])),
    ],
    more=lambda rng: Case("any shape", 3 * rng.normal(size=rng.integers(2, 5, size=3))),
    hints=[
        "Each row becomes positive numbers that add up to 1: exponentials, divided by their sum.",
        "`axis=-1` is the last axis; `keepdims=True` keeps it with length 1, so that the sums "
        "line up with their rows.",
        "`np.exp(1000)` is too large for a float. Subtracting the same number from a whole row "
        "changes nothing in the result: which number makes it safe?",
    ],
)


@softmax.mutant(
    "exp overflows for large numbers: subtract each row's largest element before np.exp."
)
def overflow(x):
    e = np.exp(x)
    return e / e.sum(axis=-1, keepdims=True)


@softmax.mutant(
    "You subtracted the largest of the whole array. In a row far below it every exponential is 0, "
    "and 0/0 is NaN: take each row's own, `x.max(axis=-1, keepdims=True)`."
)
def largest_of_the_whole_array(x):
    e = np.exp(x - x.max())
    return e / e.sum(axis=-1, keepdims=True)


@softmax.mutant("You divided by the sum of all elements; every row should add up to 1 on its own.")
def sum_of_all(x):
    e = np.exp(x - x.max())
    return e / e.sum()


@softmax.mutant("You went along the first axis, so columns add up to 1; rows run along axis -1.")
def first_axis(x):
    e = np.exp(x - x.max(axis=0, keepdims=True))
    return e / e.sum(axis=0, keepdims=True)


@softmax.mutant("The numbers are not divided by their sum yet, so a row does not add up to 1.")
def not_divided(x):
    return np.exp(x - x.max(axis=-1, keepdims=True))


@softmax.mutant("You divided x by its sum; softmax takes the exponential of every element first.")
def without_exponential(x):
    return x / x.sum(axis=-1, keepdims=True)


@softmax.mutant("This is the logarithm of softmax: it lacks the final exponential.")
def logarithm(x):
    z = x - x.max(axis=-1, keepdims=True)
    return z - np.log(np.exp(z).sum(axis=-1, keepdims=True))
