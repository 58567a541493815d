import math

import numpy as np

from minitorch_attn.course.exercise import Case, Exercise, rules
from minitorch_attn.course.subject import SubjectError

# -- broadcast_shape ------------------------------------------------------------------------


def broadcast_shape_reference(a, b):
    ndim = max(len(a), len(b))
    shape = []
    for n, m in zip((1,) * (ndim - len(a)) + a, (1,) * (ndim - len(b)) + b, strict=True):
        if n != m and 1 not in (n, m):
            raise ValueError(f"shapes {a} and {b} do not broadcast: {n} against {m}")
        shape.append(m if n == 1 else n)
    return tuple(shape)


def fits(a, b):
    try:
        np.broadcast_shapes(a, b)
    except ValueError:
        return False
    return True


def shape_or_refusal(subject, case):
    """What the function returns; a ValueError is an answer too where the shapes do not fit."""
    try:
        answer = subject(*case.inputs)
    except SubjectError as error:
        if error.kind != "ValueError" or fits(*case.inputs):
            raise
        answer = "a ValueError"
    yield "the output", answer


def any_shapes(rng):
    common = [int(n) for n in rng.choice([1, 2, 3, 5, 0], size=rng.integers(1, 5))]
    a, b = (
        tuple(1 if rng.random() < 0.3 else n for n in common[rng.integers(0, len(common)) :])
        for _ in range(2)
    )
    if rng.random() < 0.3:
        a, b = (*a, 2), (*b, 3)
    return Case("any shapes", a, b)


broadcast_shape = Exercise(
    "02.broadcast_shape",
    reference=broadcast_shape_reference,
    observe=shape_or_refusal,
    cases=[
        Case("equal shapes", (2, 3), (2, 3)),
        Case("a size of 1 on the right", (2, 3), (2, 1)),
        Case("a size of 1 on both sides", (3, 1), (1, 4)),
        Case("a shorter shape", (4, 2, 3), (3,)),
        Case("a shorter shape on the left", (3,), (4, 2, 3)),
        Case("a number, which has no axes", (), (2, 3)),
        Case("an image batch and one weight for each channel", (8, 3, 5, 5), (3, 1, 1)),
        Case("an axis without elements", (0, 3), (1, 3)),
        Case("sizes that do not fit", (2, 3), (2, 4)),
        Case("one size a multiple of the other", (2, 4), (2, 2)),
        Case("a shorter shape that would fit on the left side only", (2, 3), (2,)),
    ],
    more=any_shapes,
    hints=[
        "The shapes are compared from the last axis backwards. Which sizes stand below each other "
        "for (4, 2, 3) and (3,)?",
        "Make both shapes equally long first, by putting ones in front of the shorter one: "
        "`(1,) * (ndim - len(a)) + a`.",
        "A pair of sizes n, m gives n if they are equal, m if n is 1, n if m is 1; anything else "
        "is the ValueError.",
    ],
)


@broadcast_shape.mutant(
    "You compare the shapes from the first axis; they are compared from the last axis backwards.",
    raises=True,
)
def compared_from_the_front(a, b):
    ndim = max(len(a), len(b))
    a, b = a + (1,) * (ndim - len(a)), b + (1,) * (ndim - len(b))
    if any(n != m and 1 not in (n, m) for n, m in zip(a, b, strict=True)):
        raise ValueError(f"shapes {a} and {b} do not broadcast")
    return tuple(m if n == 1 else n for n, m in zip(a, b, strict=True))


@broadcast_shape.mutant(
    "You take the larger of the two sizes, whatever they are; sizes that differ fit only if one of "
    "them is 1."
)
def larger_size_without_a_look(a, b):
    ndim = max(len(a), len(b))
    a, b = (1,) * (ndim - len(a)) + a, (1,) * (ndim - len(b)) + b
    return tuple(max(n, m) for n, m in zip(a, b, strict=True))


@broadcast_shape.mutant(
    "`zip` stops at the end of the shorter shape, and the longer one loses its first axes."
)
def first_axes_lost(a, b):
    pairs = list(zip(reversed(a), reversed(b), strict=False))
    if any(n != m and 1 not in (n, m) for n, m in pairs):
        raise ValueError(f"shapes {a} and {b} do not broadcast")
    return tuple(m if n == 1 else n for n, m in reversed(pairs))


@broadcast_shape.mutant(
    "You stretch any size that divides the other, such as 2 to 4; only a size of 1 is stretched."
)
def divisors_stretched(a, b):
    ndim = max(len(a), len(b))
    a, b = (1,) * (ndim - len(a)) + a, (1,) * (ndim - len(b)) + b
    pairs = list(zip(a, b, strict=True))
    if any(n and m and max(n, m) % min(n, m) for n, m in pairs):
        raise ValueError(f"shapes {a} and {b} do not broadcast")
    return tuple(m if n == 1 else n if m == 1 else max(n, m) for n, m in pairs)


@broadcast_shape.mutant(
    "The larger of two sizes is wrong where one is 0: a size of 1 becomes 0 beside it, and an axis "
    "without elements stays without."
)
def larger_size(a, b):
    broadcast_shape_reference(a, b)
    ndim = max(len(a), len(b))
    a, b = (1,) * (ndim - len(a)) + a, (1,) * (ndim - len(b)) + b
    return tuple(max(n, m) for n, m in zip(a, b, strict=True))


@broadcast_shape.mutant(
    "You return None for shapes that do not fit, and the mistake goes on unnoticed: raise a "
    "ValueError."
)
def silent_refusal(a, b):
    return broadcast_shape_reference(a, b) if fits(a, b) else None


# -- sum_to_shape ---------------------------------------------------------------------------


def sum_to_shape_reference(dy, shape):
    added = dy.ndim - len(shape)
    stretched = [added + i for i, n in enumerate(shape) if n == 1]
    return dy.sum(axis=(*range(added), *stretched)).reshape(shape)


def any_broadcast(rng):
    whole = tuple(int(n) for n in rng.integers(1, 5, size=rng.integers(1, 5)))
    part = tuple(1 if rng.random() < 0.4 else n for n in whole[rng.integers(0, len(whole) + 1) :])
    return Case("any shapes", rng.integers(-9, 10, size=whole) / 2.0, part)


sum_to_shape = Exercise(
    "02.sum_to_shape",
    reference=sum_to_shape_reference,
    cases=[
        Case("a row that was copied to two rows", np.array([[1.0, 2.0, 3.0], [10, 20, 30]]), (3,)),
        Case("a column", np.array([[1.0, 2.0, 3.0], [10, 20, 30]]), (2, 1)),
        Case("a row with an axis of its own", np.array([[1.0, 2.0, 3.0], [10, 20, 30]]), (1, 3)),
        Case("as many rows as columns", np.array([[1.0, 2.0], [10.0, 20.0]]), (2,)),
        Case("a number", np.array([[1.0, 2.0, 3.0], [10, 20, 30]]), ()),
        Case("nothing was copied", np.array([[1.0, 2.0, 3.0], [10, 20, 30]]), (2, 3)),
        Case("one weight for each channel", np.arange(24.0).reshape(2, 3, 2, 2), (3, 1, 1)),
        Case("new axes and stretched ones", np.arange(24.0).reshape(2, 3, 2, 2), (1, 2)),
        Case("a size of 1 that was not stretched", np.arange(6.0).reshape(2, 1, 3), (2, 1, 1)),
        Case("float32, which stays float32", np.ones((2, 3), dtype=np.float32), (3,)),
    ],
    more=any_broadcast,
    hints=[
        "Each element of x was copied to several places of y. Its gradient is the sum of theirs: "
        "over which axes do the copies lie?",
        "Two kinds: axes that y has in front and x has not (there are `dy.ndim - len(shape)` of "
        "them), and axes where x has the size 1.",
        "Sum over all of these at once, `dy.sum(axis=(...))`; then `.reshape(shape)` puts the axes "
        "of size 1 back.",
    ],
)


@sum_to_shape.mutant(
    "You take the mean over the copies. Each copy is a path of its own, and paths are added up."
)
def mean_over_the_copies(dy, shape):
    return sum_to_shape_reference(dy, shape) * (math.prod(shape) / dy.size)


@sum_to_shape.mutant(
    "You take the gradient of the first copy alone; those of all copies must be added up."
)
def first_copy_only(dy, shape):
    dy = dy[(0,) * (dy.ndim - len(shape))]
    return dy[tuple(slice(0, 1) if n == 1 else slice(None) for n in shape)]


@sum_to_shape.mutant(
    "You sum over the new axes in front, but not over those where x has the size 1."
)
def stretched_axes_forgotten(dy, shape):
    return dy.sum(axis=tuple(range(dy.ndim - len(shape))))


@sum_to_shape.mutant(
    "You sum over the axes of size 1, but not over those in front that x does not have."
)
def new_axes_forgotten(dy, shape):
    added = dy.ndim - len(shape)
    stretched = tuple(added + i for i, n in enumerate(shape) if n == 1)
    return dy.sum(axis=stretched, keepdims=True)


@sum_to_shape.mutant(
    "The axes of size 1 are gone after the sum: the gradient must have exactly the shape of x."
)
def axes_of_size_1_dropped(dy, shape):
    y = sum_to_shape_reference(dy, shape)
    return y.reshape([n for n in shape if n != 1])


@sum_to_shape.mutant(
    "You line the shapes up from the first axis, so the new axes are looked for at the end. They "
    "are added in front."
)
def lined_up_from_the_front(dy, shape):
    padded = shape + (1,) * (dy.ndim - len(shape))
    stretched = tuple(i for i, n in enumerate(padded) if n == 1)
    return dy.sum(axis=stretched, keepdims=len(shape) == dy.ndim)


# -- mean -----------------------------------------------------------------------------------


def count(shape, axis):
    axes = range(len(shape)) if axis is None else (axis,) if isinstance(axis, int) else axis
    return math.prod(shape[i] for i in axes)


def put_back(dy, axis, keepdims):
    """dy with the reduced axes, of size 1."""
    return dy if keepdims or axis is None else np.expand_dims(dy, axis)


def mean_reference(x, *, axis=None, keepdims=False):
    n = count(x.shape, axis)

    def vjp_x(dy):
        return np.broadcast_to(put_back(dy, axis, keepdims) / n, x.shape)

    return x.mean(axis=axis, keepdims=keepdims), vjp_x


def any_mean(rng):
    x = rng.normal(size=rng.integers(1, 5, size=rng.integers(1, 5)))
    axes = rng.permutation(x.ndim)[: rng.integers(1, x.ndim + 1)]
    axes = tuple(int(axis) - x.ndim * int(rng.integers(2)) for axis in axes)
    return Case("any axes", x, axis=axes, keepdims=bool(rng.integers(2)))


SIX = np.array([[1.0, 2.0, 6.0], [3.0, 0.0, -3.0]])

mean = Exercise(
    "02.mean",
    reference=mean_reference,
    observe=rules,
    cases=[
        Case("over the last axis", SIX, axis=1),
        Case("over the first axis", SIX, axis=0),
        Case("over the first axis of a square", SIX[:, :2], axis=0),
        Case("over the last axis of a square", SIX[:, 1:], axis=1),
        Case("with the axis kept", SIX, axis=1, keepdims=True),
        Case("over all", SIX),
        Case("an axis counted from the back", SIX, axis=-2),
        Case(
            "over the pixels of each channel", np.arange(24.0).reshape(2, 3, 2, 2) % 7, axis=(2, 3)
        ),
        Case("two axes that are no neighbours", np.arange(12.0).reshape(2, 3, 2) % 5, axis=(0, -1)),
        Case("float32, which stays float32", SIX.astype(np.float32), axis=1),
    ],
    more=any_mean,
    hints=[
        "y is a sum divided by a number n. How fast does y change with one of the x that it is "
        "the mean of?",
        "The rule is a broadcast: each x gets the dy of its own mean, divided by n. Put the "
        "reduced axes back first, with size 1: `np.expand_dims(dy, axis)` takes several at once.",
        "n is the product of the sizes of the reduced axes. It is also `x.size // y.size`.",
        "`np.broadcast_to(dy, x.shape) / n`, with the axes put back only where they were dropped.",
    ],
)


@mean.mutant("Your rule does not divide by n: that is the rule of a sum.")
def rule_of_a_sum(x, *, axis=None, keepdims=False):
    def vjp_x(dy):
        return np.broadcast_to(put_back(dy, axis, keepdims), x.shape)

    return x.mean(axis=axis, keepdims=keepdims), vjp_x


@mean.mutant(
    "Your rule divides by the number of all elements; n counts those that went into one mean."
)
def divided_by_all(x, *, axis=None, keepdims=False):
    def vjp_x(dy):
        return np.broadcast_to(put_back(dy, axis, keepdims) / x.size, x.shape)

    return x.mean(axis=axis, keepdims=keepdims), vjp_x


@mean.mutant(
    "Your rule divides by x.shape[0], the size of the first axis, whichever axes were reduced; n "
    "counts the elements that went into one mean, `x.size // y.size`."
)
def divided_by_the_first_axis(x, *, axis=None, keepdims=False):
    def vjp_x(dy):
        return np.broadcast_to(put_back(dy, axis, keepdims) / x.shape[0], x.shape)

    return x.mean(axis=axis, keepdims=keepdims), vjp_x


@mean.mutant(
    "dy broadcasts from the last axis, whichever axes were reduced: put those back, with size 1, "
    "before you broadcast.",
    raises=True,
)
def axes_not_put_back(x, *, axis=None, keepdims=False):
    n = count(x.shape, axis)

    def vjp_x(dy):
        return np.broadcast_to(dy / n, x.shape)

    return x.mean(axis=axis, keepdims=keepdims), vjp_x


@mean.mutant(
    "With keepdims=True the reduced axes are there already; you put them in a second time."
)
def axes_put_back_twice(x, *, axis=None, keepdims=False):
    n = count(x.shape, axis)

    def vjp_x(dy):
        dy = dy if axis is None else np.expand_dims(dy, axis)
        return np.broadcast_to(dy / n, x.shape) if dy.ndim <= x.ndim else dy / n

    return x.mean(axis=axis, keepdims=keepdims), vjp_x


@mean.mutant(
    "Your rule returns an array of the shape of dy; a gradient has the shape of its input, so copy "
    "dy to every x that went into the mean."
)
def not_broadcast(x, *, axis=None, keepdims=False):
    n = count(x.shape, axis)

    def vjp_x(dy):
        return dy / n

    return x.mean(axis=axis, keepdims=keepdims), vjp_x


@mean.mutant("You forgot keepdims: with True the reduced axes stay in the output, with size 1.")
def keepdims_forgotten(x, *, axis=None, keepdims=False):
    return mean_reference(x, axis=axis)


# -- matmul ---------------------------------------------------------------------------------


def transposed(x):
    return x.swapaxes(-1, -2)


def matmul_reference(a, b):
    def vjp_a(dy):
        return sum_to_shape_reference(dy @ transposed(b), a.shape)

    def vjp_b(dy):
        return sum_to_shape_reference(transposed(a) @ dy, b.shape)

    return a @ b, (vjp_a, vjp_b)


def matrices(seed, *shape):
    return np.random.default_rng(seed).integers(-4, 5, size=shape) / 1.0


def any_matmul(rng):
    batch = tuple(int(n) for n in rng.integers(1, 4, size=rng.integers(0, 3)))
    n, m, k = rng.integers(1, 5, size=3)
    parts = [
        tuple(1 if rng.random() < 0.4 else size for size in batch[rng.integers(len(batch) + 1) :])
        for _ in range(2)
    ]
    return Case(
        "any shapes", rng.normal(size=(*parts[0], n, m)), rng.normal(size=(*parts[1], m, k))
    )


matmul = Exercise(
    "02.matmul",
    reference=matmul_reference,
    observe=rules,
    cases=[
        Case("two matrices", matrices(0, 2, 3), matrices(1, 3, 4)),
        Case("two square matrices", matrices(2, 2, 2), matrices(3, 2, 2)),
        Case("one row", matrices(4, 1, 3), matrices(5, 3, 2)),
        Case("two batches of square matrices", matrices(6, 2, 2, 2), matrices(7, 2, 2, 2)),
        Case("a batch of matrices", matrices(8, 3, 2, 4), matrices(9, 3, 4, 2)),
        Case("one b for a batch of a", matrices(10, 3, 2, 4), matrices(11, 4, 2)),
        Case("one a for a batch of b", matrices(12, 2, 3), matrices(13, 4, 3, 2)),
        Case("both stretched", matrices(14, 2, 1, 2, 3), matrices(15, 3, 3, 2)),
    ],
    more=any_matmul,
    hints=[
        "For two matrices the gradients are dy b^T and a^T dy: only that makes the shapes fit.",
        "In a batch, each matrix of its own has that rule. `.T` reverses all axes; what you need "
        "is the last two swapped: `x.swapaxes(-1, -2)`.",
        "Where the batch of an operand was broadcast, its gradient has too many axes, or too large "
        "ones. Which function of this set undoes that?",
    ],
)


@matmul.mutant("`.T` reverses the order of all axes, the batch too: swap the last two only.")
def all_axes_reversed(a, b):
    return a @ b, (
        lambda dy: sum_to_shape_reference(dy @ b.T, a.shape),
        lambda dy: sum_to_shape_reference(a.T @ dy, b.shape),
    )


@matmul.mutant(
    "The gradient of an operand whose batch was broadcast is not summed over the copies: it must "
    "have exactly the operand's shape."
)
def copies_not_summed(a, b):
    return a @ b, (lambda dy: dy @ transposed(b), lambda dy: transposed(a) @ dy)


@matmul.mutant("You did not transpose: the rules are dy b^T and a^T dy.", raises=True)
def not_transposed(a, b):
    return a @ b, (
        lambda dy: sum_to_shape_reference(dy @ b, a.shape),
        lambda dy: sum_to_shape_reference(a @ dy, b.shape),
    )


@matmul.mutant(
    "The order of the factors is turned round: the gradient of a is dy b^T, with dy on the left, "
    "and that of b is a^T dy, with dy on the right.",
    raises=True,
)
def factors_turned_round(a, b):
    return a @ b, (
        lambda dy: sum_to_shape_reference(transposed(b) @ dy, a.shape),
        lambda dy: sum_to_shape_reference(dy @ transposed(a), b.shape),
    )


@matmul.mutant(
    "The two rules have changed places: the first belongs to a, the second to b.",
)
def rules_exchanged(a, b):
    y, (vjp_a, vjp_b) = matmul_reference(a, b)
    return y, (vjp_b, vjp_a)


@matmul.mutant("`a * b` multiplies element by element; a matrix product is `a @ b`.", raises=True)
def elementwise(a, b):
    _, rules_of_a_and_b = matmul_reference(a, b)
    return a * b, rules_of_a_and_b


@matmul.mutant(
    "You take the mean over the copies of a broadcast batch. Each copy is a path of its own, and "
    "paths are added up."
)
def mean_over_the_batch(a, b):
    def fitted(dx, shape):
        return sum_to_shape_reference(dx, shape) * (math.prod(shape) / dx.size)

    return a @ b, (
        lambda dy: fitted(dy @ transposed(b), a.shape),
        lambda dy: fitted(transposed(a) @ dy, b.shape),
    )


# -- take_rows ------------------------------------------------------------------------------


def take_rows_reference(x, *, rows):
    def vjp_x(dy):
        dx = np.zeros(x.shape, dy.dtype)
        np.add.at(dx, rows, dy)
        return dx

    return x[rows], vjp_x


def any_rows(rng):
    x = rng.normal(size=rng.integers(1, 5, size=2))
    rows = rng.integers(-len(x), len(x), size=rng.integers(1, 5, size=rng.integers(1, 3)))
    return Case("any rows", x, rows=rows)


TABLE = np.arange(12.0).reshape(4, 3)

take_rows = Exercise(
    "02.take_rows",
    reference=take_rows_reference,
    observe=rules,
    cases=[
        Case("each row once", TABLE, rows=np.array([2, 0, 3, 1])),
        Case("some rows are not taken", TABLE, rows=np.array([3, 1])),
        Case("a row taken twice", TABLE, rows=np.array([2, 0, 2, 3])),
        Case("as many as there are, one of them three times", TABLE, rows=np.array([1, 1, 0, 1])),
        Case("a row counted from the back", TABLE, rows=np.array([-1, 3, 0])),
        Case("a table of row numbers", TABLE, rows=np.array([[0, 1, 1], [3, 0, 1]])),
        Case("float32, which stays float32", TABLE.astype(np.float32), rows=np.array([1, 1])),
    ],
    more=any_rows,
    hints=[
        "Each row of y is a copy of a row of x. A row that was copied k times has k paths.",
        "Begin with zeros of the shape of x (and of the dtype of dy): rows that were not taken "
        "have no path. Then every row of dy is added to the row that it came from.",
        "`dx[rows] += dy` adds only once where a number stands in `rows` several times.",
        "`np.add.at(dx, rows, dy)` adds for every number, as a loop over them would.",
    ],
)


@take_rows.mutant(
    "`dx[rows] = dy` overwrites: of a row that was taken several times, only the last copy's "
    "gradient survives. Add them up.",
    like=["added_once"],
)
def overwritten(x, *, rows):
    def vjp_x(dy):
        dx = np.zeros(x.shape, dy.dtype)
        dx[rows] = dy
        return dx

    return x[rows], vjp_x


@take_rows.mutant(
    "`dx[rows] += dy` first reads, then adds, then writes back: a row that is named several times "
    "gets one share only. `np.add.at(dx, rows, dy)` adds every share.",
    like=["overwritten"],
)
def added_once(x, *, rows):
    def vjp_x(dy):
        dx = np.zeros(x.shape, dy.dtype)
        dx[rows] += dy
        return dx

    return x[rows], vjp_x


@take_rows.mutant(
    "Your rule takes rows of dy; it has to put them: row i of dy belongs to row rows[i] of x."
)
def taken_again(x, *, rows):
    def vjp_x(dy):
        flat = dy.reshape(-1, dy.shape[-1])
        return flat[np.resize(rows, len(x)) % len(flat)]

    return x[rows], vjp_x


@take_rows.mutant(
    "Your rule returns dy as it is; a gradient has the shape of its input, with zeros where "
    "nothing was taken."
)
def dy_as_it_is(x, *, rows):
    return x[rows], lambda dy: dy


@take_rows.mutant(
    "You take the mean over the times a row was taken. Each time is a path of its own, and paths "
    "are added up."
)
def mean_over_the_copies_of_a_row(x, *, rows):
    def vjp_x(dy):
        dx, times = np.zeros(x.shape, dy.dtype), np.zeros((len(x), 1), dy.dtype)
        np.add.at(dx, rows, dy)
        np.add.at(times, rows, 1)
        return dx / np.maximum(times, 1)

    return x[rows], vjp_x


@take_rows.mutant(
    "You took columns, `x[:, rows]`; rows lie along the first axis.",
)
def columns_for_rows(x, *, rows):
    rows = np.asarray(rows) % x.shape[1]

    def vjp_x(dy):
        dx = np.zeros(x.shape, dy.dtype)
        np.add.at(dx, (slice(None), rows), dy)
        return dx

    return x[:, rows], vjp_x
