import numpy as np

from minitorch_attn.course.exercise import Case, Exercise, Handle, Mistake, fetch, keep, there
from minitorch_attn.engine import array_module

# -- kernels --------------------------------------------------------------------------------


def on_threads(subject, case):
    """Launch a kernel where it lives: its tally there, and the arrays as they are afterwards."""
    launch = there(subject, "__import__('minitorch_attn.simulator.threads', fromlist='*').launch")
    _, *inputs = case.inputs
    held = [keep(subject, x) if isinstance(x, np.ndarray) else x for x in inputs]
    tally = launch(subject, case.settings["blocks"], case.settings["block_size"], *held)
    return tally, [fetch(x) if isinstance(x, Handle) else x for x in held]


def grid(label, blocks, block_size, *inputs):
    """A case: arrays and numbers, and the grid that the kernel is launched on."""
    return Case(
        f"{label}: {blocks} block{'s' * (blocks > 1)} of {block_size} threads",
        "one of the grid's",
        *inputs,
        blocks=blocks,
        block_size=block_size,
    )


# -- axpy -----------------------------------------------------------------------------------


def everywhere(thread):
    return thread.block * thread.block_size + thread.index


def in_all(thread):
    return thread.blocks * thread.block_size


def axpy_reference(thread, a, x, y):
    for i in range(everywhere(thread), len(x), in_all(thread)):
        y[i] = a * x[i] + y[i]


def the_sum_and_its_traffic(subject, case):
    tally, (_, _, y) = on_threads(subject, case)
    yield "y", y
    yield "the 32-byte sectors that were moved", tally.sectors


def _vectors(rng, label, n, blocks, block_size):
    x, y = rng.integers(-4, 9, size=(2, n)).astype(float)
    return grid(label, blocks, block_size, float(rng.integers(2, 6)), x, y)


axpy = Exercise(
    "27.axpy",
    reference=axpy_reference,
    observe=the_sum_and_its_traffic,
    cases=[
        _vectors(np.random.default_rng(0), "as many elements as threads", 8, 2, 4),
        _vectors(np.random.default_rng(1), "more threads than elements", 5, 2, 4),
        _vectors(np.random.default_rng(2), "three elements for each thread", 24, 2, 4),
        _vectors(np.random.default_rng(3), "10 elements, which 8 does not divide", 10, 2, 4),
        _vectors(np.random.default_rng(4), "whole warps", 150, 2, 32),
    ],
    more=lambda rng: _vectors(
        rng, "any sizes", *(int(n) for n in rng.integers((20, 2, 3), (60, 4, 9)))
    ),
    hints=[
        "Number all threads of the grid from 0: in front of a block lie `thread.block` others of "
        "`thread.block_size` threads each.",
        "`range(first, len(x), step)` gives an element, and then those that are `step` further "
        "each time; it is empty for a thread that has no element.",
        "The step is the number of threads in the whole grid, `thread.blocks * thread.block_size`.",
    ],
)


@axpy.mutant(
    "Each thread takes one element only; where there are more elements than threads, go on by "
    "`thread.blocks * thread.block_size`."
)
def one_element_each(thread, a, x, y):
    i = everywhere(thread)
    if i < len(x):
        y[i] = a * x[i] + y[i]


@axpy.mutant(
    "A thread beyond the last element touches memory that is not the array's: guard it, or let "
    "`range` end at `len(x)`.",
    raises=True,
)
def no_guard(thread, a, x, y):
    i = everywhere(thread)
    while True:
        y[i] = a * x[i] + y[i]
        i += in_all(thread)
        if i >= len(x):
            break


@axpy.mutant(
    "Every block begins at element 0: `thread.index` is the place in the block; add "
    "`thread.block * thread.block_size`. (Or the step is one block's size, where it should be that "
    "of the whole grid.)",
    like=["step_of_one_block"],
    raises=True,
)
def place_in_the_block_alone(thread, a, x, y):
    for i in range(thread.index, len(x), in_all(thread)):
        y[i] = a * x[i] + y[i]


@axpy.mutant(
    "The step is the size of one block, so blocks meet one another's elements; go on by the number "
    "of threads in all blocks.",
    like=["place_in_the_block_alone"],
    raises=True,
)
def step_of_one_block(thread, a, x, y):
    for i in range(everywhere(thread), len(x), thread.block_size):
        y[i] = a * x[i] + y[i]


@axpy.mutant(
    "The values are right, but each thread takes a run of neighbouring elements. Then the threads "
    "of a warp touch elements that lie far apart, and more sectors are moved: let neighbouring "
    "threads take neighbouring elements."
)
def a_run_for_each_thread(thread, a, x, y):
    each = -(-len(x) // in_all(thread))
    for i in range(everywhere(thread) * each, min((everywhere(thread) + 1) * each, len(x))):
        y[i] = a * x[i] + y[i]


@axpy.mutant("The old y is lost: a * x is added to it.")
def y_overwritten(thread, a, x, y):
    for i in range(everywhere(thread), len(x), in_all(thread)):
        y[i] = a * x[i]


@axpy.mutant("One block does the work alone, while the others do it again or nothing.")
def first_block_alone(thread, a, x, y):
    if thread.block == 0:
        for i in range(thread.index, len(x), in_all(thread)):
            y[i] = a * x[i] + y[i]


# -- row_sum --------------------------------------------------------------------------------


def _row_sum(
    thread,
    x,
    y,
    *,
    first_barrier=True,
    barriers=True,
    start=None,
    least=1,
    last=True,
    factor=None,
    one_column=False,
    own_part_only=False,
    neighbour=lambda index, apart: index + apart,
    row=None,
):
    """The kernel; each setting can be replaced by a mistake."""
    size, D = thread.block_size, x.shape[1]
    row = thread.block if row is None else row
    part = thread.shared("part", size)
    total = 0.0
    for j in range(thread.index, min(D, size) if one_column else D, size):
        total += x[row, j]
    if not own_part_only or thread.index < D:
        part[thread.index] = total
    if first_barrier:
        yield
    apart = size // 2 if start is None else start
    while apart >= least:
        if thread.index < apart:
            part[thread.index] += part[neighbour(thread.index, apart)]
        if barriers:
            yield
        apart //= 2
    if thread.index == 0 or not last:
        y[thread.block] = part[0] * (1 if factor is None else factor)


def row_sum_reference(thread, x, y):
    return _row_sum(thread, x, y)


def the_rows_and_their_tree(subject, case):
    tally, (x, y) = on_threads(subject, case)
    yield "y", y
    blocks, block_size = case.settings["blocks"], case.settings["block_size"]
    if tally.barriers < blocks * np.log2(block_size):
        raise Mistake(
            "The sums are right, but there are fewer barriers than a tree has steps: one thread "
            "adds the shared elements up, while the others wait. Halve their number in each step.",
            "one thread adds all",
        )
    yield "the 32-byte sectors that were moved", tally.sectors


def _rows(rng, label, N, D, block_size):
    x = rng.integers(-9, 10, size=(N, D)).astype(float)
    return grid(label, N, block_size, x, np.full(N, -99.0))


row_sum = Exercise(
    "27.row_sum",
    reference=row_sum_reference,
    observe=the_rows_and_their_tree,
    cases=[
        _rows(np.random.default_rng(0), "a column for each thread", 2, 8, 8),
        _rows(np.random.default_rng(1), "more columns than threads", 3, 21, 8),
        _rows(np.random.default_rng(2), "more threads than columns", 2, 5, 8),
        _rows(np.random.default_rng(3), "a whole warp", 2, 100, 32),
    ],
    more=lambda rng: _rows(
        rng, "any sizes", int(rng.integers(2, 5)), int(rng.integers(9, 40)), 2 ** rng.integers(2, 5)
    ),
    hints=[
        "`part = thread.shared('part', thread.block_size)`, and every thread writes its own "
        "element, also a thread that met no column: its sum is 0.",
        "The tree: `apart` is half the block size, then half of that, down to 1. Threads with "
        "`thread.index < apart` add element `thread.index + apart` to their own.",
        "A `yield` behind the writing of the partial sums, and one behind each step of the tree, "
        "outside of the `if`.",
    ],
)


@row_sum.mutant(
    "There is no barrier between the writing of the partial sums and the tree, which reads those "
    "of other threads: `yield` in front of the loop.",
    like=["no_barrier_in_the_tree"],
    raises=True,
)
def no_barrier_before_the_tree(thread, x, y):
    return _row_sum(thread, x, y, first_barrier=False)


@row_sum.mutant(
    "The steps of the tree are not parted: a thread reads sums of the step before, so `yield` at "
    "the end of each.",
    like=["no_barrier_before_the_tree"],
    raises=True,
)
def no_barrier_in_the_tree(thread, x, y):
    return _row_sum(thread, x, y, barriers=False)


@row_sum.mutant(
    "The barrier stands inside of the `if`, where only some threads come by. All threads of the "
    "block must reach it: put it behind the `if`.",
    raises=True,
)
def barrier_inside_the_if(thread, x, y):
    part = thread.shared("part", thread.block_size)
    total = 0.0
    for j in range(thread.index, x.shape[1], thread.block_size):
        total += x[thread.block, j]
    part[thread.index] = total
    yield
    apart = thread.block_size // 2
    while apart:
        if thread.index < apart:
            part[thread.index] += part[thread.index + apart]
            yield
        apart //= 2
    if thread.index == 0:
        y[thread.block] = part[0]


@row_sum.mutant(
    "The tree starts too far: with `apart = thread.block_size` the element that is added lies "
    "behind the end of the array.",
    raises=True,
)
def tree_starts_too_far(thread, x, y):
    return _row_sum(thread, x, y, start=thread.block_size)


@row_sum.mutant("The tree ends a step too early: `apart` goes down to 1, and 1 is still a step.")
def tree_ends_too_early(thread, x, y):
    return _row_sum(thread, x, y, least=2)


@row_sum.mutant("The tree starts too late: its first step joins halves, so `apart` is size // 2.")
def tree_starts_too_late(thread, x, y):
    return _row_sum(thread, x, y, start=thread.block_size // 4)


@row_sum.mutant(
    "Columns beyond the block size are left out: each thread goes on, a block size further each "
    "time."
)
def one_column_for_each_thread(thread, x, y):
    return _row_sum(thread, x, y, one_column=True)


@row_sum.mutant(
    "Threads without a column write nothing, and the tree reads their elements all the same; "
    "shared memory is not zero at the start, so write 0 there.",
    raises=True,
)
def elements_never_written(thread, x, y):
    return _row_sum(thread, x, y, own_part_only=True)


@row_sum.mutant("All threads of the block write y[n]: one of them is enough.", raises=True)
def all_write_the_sum(thread, x, y):
    return _row_sum(thread, x, y, last=False)


@row_sum.mutant("The sum is divided by the number of columns: that is their mean.")
def mean_for_sum(thread, x, y):
    return _row_sum(thread, x, y, factor=1 / x.shape[1])


@row_sum.mutant(
    "Each thread adds element `apart` to its own; it is `thread.index + apart`, each another one."
)
def one_neighbour_for_all(thread, x, y):
    return _row_sum(thread, x, y, neighbour=lambda index, apart: apart)


@row_sum.mutant(
    "The values are right, but each thread takes a run of neighbouring columns: the threads of a "
    "warp then touch elements that lie apart, and more sectors are moved. Let them take every "
    "`thread.block_size`-th column."
)
def a_run_of_columns_for_each_thread(thread, x, y):
    part = thread.shared("part", thread.block_size)
    each = -(-x.shape[1] // thread.block_size)
    total = 0.0
    for j in range(thread.index * each, min((thread.index + 1) * each, x.shape[1])):
        total += x[thread.block, j]
    part[thread.index] = total
    yield
    apart = thread.block_size // 2
    while apart:
        if thread.index < apart:
            part[thread.index] += part[thread.index + apart]
        yield
        apart //= 2
    if thread.index == 0:
        y[thread.block] = part[0]


@row_sum.mutant(
    "One thread adds all partial sums up while the others wait: as many steps as threads. A tree "
    "halves the number of sums in each step."
)
def one_thread_adds_all(thread, x, y):
    part = thread.shared("part", thread.block_size)
    total = 0.0
    for j in range(thread.index, x.shape[1], thread.block_size):
        total += x[thread.block, j]
    part[thread.index] = total
    yield
    if thread.index == 0:
        y[thread.block] = sum(part[i] for i in range(thread.block_size))


# -- scatter_add ----------------------------------------------------------------------------


def scatter_add_reference(thread, index, dy, dx):
    i = everywhere(thread)
    if i < len(dy):
        thread.atomic_add(dx, index[i], dy[i])


def the_gradient(subject, case):
    _, (_, _, dx) = on_threads(subject, case)
    yield "dx", dx


def _picks(rng, label, n, m, blocks, block_size):
    index, dy = rng.integers(m, size=n), rng.integers(1, 10, size=n).astype(float)
    index[: 2 * block_size : block_size] = 1  # met within a block and by two of them
    index[1] = 1
    return grid(label, blocks, block_size, index, dy, np.zeros(m))


scatter_add = Exercise(
    "27.scatter_add",
    reference=scatter_add_reference,
    observe=the_gradient,
    cases=[
        grid("example", 1, 3, np.array([2, 0, 2]), np.array([1.0, 10.0, 100.0]), np.zeros(3)),
        grid(
            "each once", 2, 2, np.array([3, 1, 0, 2]), np.array([1.0, 2.0, 3.0, 4.0]), np.zeros(4)
        ),
        _picks(np.random.default_rng(0), "elements met by two blocks", 8, 5, 2, 4),
        _picks(np.random.default_rng(1), "more threads than elements", 10, 12, 3, 4),
    ],
    more=lambda rng: _picks(
        rng, "any sizes", int(rng.integers(9, 16)), int(rng.integers(3, 20)), 4, 4
    ),
    hints=[
        "The thread's place in the whole grid is its i; a thread behind the last element does "
        "nothing.",
        "`dx[k] += v` is two steps, a read and a write, and another thread may come between the "
        "two. Is there an addition that nobody can interrupt?",
        "`thread.atomic_add(dx, index[i], dy[i])`.",
    ],
)


@scatter_add.mutant(
    "`dx[k] += ...` reads and then writes, and another thread may read in between: one of the two "
    "shares is lost. Add with `thread.atomic_add`.",
    raises=True,
)
def plain_addition(thread, index, dy, dx):
    i = everywhere(thread)
    if i < len(dy):
        dx[index[i]] += dy[i]


@scatter_add.mutant(
    "Each share overwrites the others: an element that was picked twice gets two of them, which "
    "add up.",
    raises=True,
)
def overwritten(thread, index, dy, dx):
    i = everywhere(thread)
    if i < len(dy):
        dx[index[i]] = dy[i]


@scatter_add.mutant(
    "A thread behind the last element reads memory that is not the array's: `if i < len(dy)`.",
    raises=True,
)
def no_guard_for_the_last_threads(thread, index, dy, dx):
    i = everywhere(thread)
    thread.atomic_add(dx, index[i], dy[i])


@scatter_add.mutant(
    "The index stands on the wrong side: `dx[i] += dy[index[i]]` picks again. The rule puts dy[i] "
    "where x was picked from, at index[i]."
)
def picked_again(thread, index, dy, dx):
    i = everywhere(thread)
    if i < len(dy):
        thread.atomic_add(dx, i, dy[index[i]])


@scatter_add.mutant(
    "`thread.index` is the place in the block: every block adds the first shares again. Add "
    "`thread.block * thread.block_size`."
)
def place_in_the_block(thread, index, dy, dx):
    i = thread.index
    if i < len(dy):
        thread.atomic_add(dx, index[i], dy[i])


@scatter_add.mutant("Each pick counts 1; it adds its own dy[i].")
def counted(thread, index, dy, dx):
    i = everywhere(thread)
    if i < len(dy):
        thread.atomic_add(dx, index[i], 1.0)


@scatter_add.mutant(
    "The guard compares with the length of dx; there are as many shares as dy is long."
)
def guard_of_the_other_array(thread, index, dy, dx):
    i = everywhere(thread)
    if i < min(len(dx), len(dy)):
        thread.atomic_add(dx, index[i], dy[i])


# -- merge ----------------------------------------------------------------------------------


def merge_reference(n1, mean1, q1, n2, mean2, q2):
    n, delta = n1 + n2, mean2 - mean1
    return n, mean1 + delta * n2 / n, q1 + q2 + delta**2 * n1 * n2 / n


def _parts(rng, shape, offset=0.0):
    parts = []
    for _ in range(2):
        n = rng.integers(1, 9, size=shape).astype(float)
        parts += [n, offset + rng.normal(size=shape).round(2), (n - 1) * rng.uniform(0.5, 2, shape)]
    return parts


merge = Exercise(
    "27.merge",
    reference=merge_reference,
    cases=[
        Case("1, 3 and 8", *(np.array([v]) for v in (2.0, 2.0, 2.0, 1.0, 8.0, 0.0))),
        Case("as many on both sides", *(np.array([v]) for v in (2.0, 2.0, 2.0, 2.0, 8.0, 8.0))),
        Case("three channels", *_parts(np.random.default_rng(0), 3)),
        Case("a mean of a hundred million", *_parts(np.random.default_rng(1), 3, 1e8)),
    ],
    more=lambda rng: Case("any numbers", *_parts(rng, int(rng.integers(2, 6)))),
    hints=[
        "Write down n and delta first; everything else is made of them.",
        "The mean moves from the first towards the second, by the second's share n2 / n.",
        "`q1 + q2 + delta**2 * n1 * n2 / n`: each part's own spread, and that of the two means.",
    ],
)


@merge.mutant("The means are averaged as if both parts were equally many: weigh them by n.")
def plain_mean_of_the_means(n1, mean1, q1, n2, mean2, q2):
    n, _, q = merge_reference(n1, mean1, q1, n2, mean2, q2)
    return n, (mean1 + mean2) / 2, q


@merge.mutant("The spread between the two means is left out: q also has delta**2 * n1 * n2 / n.")
def spread_of_the_means_forgotten(n1, mean1, q1, n2, mean2, q2):
    n, mean, _ = merge_reference(n1, mean1, q1, n2, mean2, q2)
    return n, mean, q1 + q2


@merge.mutant("delta**2 * n1 * n2 is not divided by n.")
def not_divided(n1, mean1, q1, n2, mean2, q2):
    n, mean, _ = merge_reference(n1, mean1, q1, n2, mean2, q2)
    return n, mean, q1 + q2 + (mean2 - mean1) ** 2 * n1 * n2


@merge.mutant("The mean moves by the share of the first part; it is the second's, n2 / n.")
def share_of_the_first(n1, mean1, q1, n2, mean2, q2):
    n, _, q = merge_reference(n1, mean1, q1, n2, mean2, q2)
    return n, mean1 + (mean2 - mean1) * n1 / n, q


@merge.mutant("delta is not squared in q.")
def delta_not_squared(n1, mean1, q1, n2, mean2, q2):
    n, mean, _ = merge_reference(n1, mean1, q1, n2, mean2, q2)
    return n, mean, q1 + q2 + np.abs(mean2 - mean1) * n1 * n2 / n


@merge.mutant("You returned the variance q / n; q itself is asked, which the next merge needs.")
def variance_returned(n1, mean1, q1, n2, mean2, q2):
    n, mean, q = merge_reference(n1, mean1, q1, n2, mean2, q2)
    return n, mean, q / n


@merge.mutant(
    "By way of the sums of squares: where the mean is large, two nearly equal numbers are "
    "subtracted, and no digit is left. Take the formula with delta."
)
def by_sums_of_squares(n1, mean1, q1, n2, mean2, q2):
    n, mean, _ = merge_reference(n1, mean1, q1, n2, mean2, q2)
    return n, mean, q1 + n1 * mean1**2 + q2 + n2 * mean2**2 - n * mean**2


# -- prepare --------------------------------------------------------------------------------


def prepare_reference(x, limit):
    xp = array_module(x)
    x = x * (limit / xp.maximum(xp.abs(x).max(), limit))
    x = x - x.mean(axis=1, keepdims=True)
    return x - x[(x**2).sum(axis=1).argmax()]


def on_the_stand_in(subject, case):
    x, limit = case.inputs
    yield "the output for an array of NumPy", subject(x, limit)
    stack = there(subject, "__import__('contextlib').ExitStack")()
    simulated = there(subject, "__import__('minitorch_attn.simulator', fromlist='*').simulated_gpu")
    traffic = stack.enter_context(simulated())
    try:
        on_device = there(subject, "lambda x: __import__('cupy').asarray(x)")(x)
        traffic.reset()
        y = subject(on_device, limit)
        seen = {
            "copies to the host": traffic.to_host,
            "copies to the device": traffic.to_device,
            "times that the host waited": traffic.synchronisations,
        }
        if y is not None and not isinstance(y, Handle):
            raise Mistake(
                "The input lay on the device, and an array of NumPy came back: compute with the "
                "library of x, `xp = array_module(x)`, all the way.",
                "came back on the host",
            )
        yield "the output on the device", None if y is None else y.get()
        yield "what passed between host and device", seen
    finally:
        stack.close()


def _rows_to_prepare(rng, N, D, size):
    return size * rng.normal(size=(N, D)).round(2)


prepare = Exercise(
    "27.prepare",
    reference=prepare_reference,
    observe=on_the_stand_in,
    cases=[
        Case("one that is scaled", np.array([[1.0, 3.0], [-8.0, 0.0]]), 4.0),
        Case("one that is not", np.array([[1.0, 3.0], [-2.0, 0.0], [0.0, -1.0]]), 4.0),
        Case("more columns", _rows_to_prepare(np.random.default_rng(0), 3, 5, 2.0), 1.5),
    ],
    more=lambda rng: Case(
        "any rows",
        _rows_to_prepare(rng, *(int(n) for n in rng.integers(2, 6, size=2)), rng.uniform(0.5, 3)),
        2.0,
    ),
    hints=[
        "`xp.abs(x).max()` is an array without axes, and may stay one: arithmetic takes it as it "
        "is.",
        "For `if largest > limit` find one formula for both cases. What is limit / "
        "maximum(largest, limit) in each?",
        "All means at once are `x.mean(axis=1, keepdims=True)`.",
        "`argmax()` gives an array without axes; `x[longest]` takes it as an index.",
    ],
)


def _prepare(x, limit, largest=lambda v: v, index=lambda i: i, centre=None, scaled=None):
    """The function; each step can be replaced by a mistake."""
    xp = array_module(x)
    most = largest(xp.abs(x).max())
    x = x * (limit / xp.maximum(most, limit)) if scaled is None else scaled(xp, x, most)
    x = x - (x.mean(axis=1, keepdims=True) if centre is None else centre(xp, x))
    return x - x[index((x**2).sum(axis=1).argmax())]


@prepare.mutant(
    "`.item()` brings a number to the host, which waits for it: the largest element, or the place "
    "of the longest row. Both may stay arrays; an array of the device is an index too.",
    like=["place_as_a_number"],
)
def largest_as_a_number(x, limit):
    return _prepare(x, limit, largest=lambda v: v.item())


@prepare.mutant(
    "`.item()` brings the place of the longest row to the host, which waits for it. An array of "
    "the device is an index too.",
    like=["largest_as_a_number"],
)
def place_as_a_number(x, limit):
    return _prepare(x, limit, index=lambda i: i.item())


@prepare.mutant(
    "`float(...)` of an array on the device copies it to the host, unseen: leave it as it is.",
    raises=True,
)
def float_of_an_array(x, limit):
    return _prepare(x, limit, largest=float)


@prepare.mutant(
    "`int(...)` of an array on the device copies it to the host, unseen: use the array itself as "
    "the index.",
    raises=True,
)
def int_of_an_array(x, limit):
    return _prepare(x, limit, index=int)


@prepare.mutant(
    "`if` asks for the truth of an array that lies on the device, so the host waits for it. Find "
    "one formula for both cases, with `maximum` or `where`.",
    raises=True,
)
def a_branch_on_the_host(x, limit):
    return _prepare(x, limit, scaled=lambda xp, x, most: x * (limit / most) if most > limit else x)


@prepare.mutant(
    "Each row's mean is copied to the host: all means at once are `x.mean(axis=1, keepdims=True)`."
)
def a_copy_for_every_row(x, limit):
    return _prepare(
        x, limit, centre=lambda xp, x: xp.asarray([row.mean().item() for row in x])[:, None]
    )


@prepare.mutant("x is always scaled to the limit; where it is below, it should stay.")
def always_scaled(x, limit):
    return _prepare(x, limit, scaled=lambda xp, x, most: x * (limit / most))


@prepare.mutant(
    "Each element is cut off at the limit; all of x is scaled, so that its largest element is the "
    "limit."
)
def cut_off(x, limit):
    return _prepare(x, limit, scaled=lambda xp, x, most: xp.clip(x, -limit, limit))


@prepare.mutant("The mean is taken over the rows; each row has its own, over its columns: axis=1.")
def mean_over_the_rows(x, limit):
    return _prepare(x, limit, centre=lambda xp, x: x.mean(axis=0, keepdims=True))


@prepare.mutant(
    "x is copied to the host first (`.get()`), and all work is done there: compute on the device, "
    "with the functions of `xp`."
)
def worked_on_the_host(x, limit):
    on_host = x if array_module(x) is np else x.get()
    return array_module(x).asarray(prepare_reference(on_host, limit))


# -- LossScaler -----------------------------------------------------------------------------


class LossScalerReference:
    """The scaler; subclasses replace a part of it by a mistake."""

    def __init__(self, scale, patience):
        self.scale, self.patience, self.good = scale, patience, 0

    def unscale(self, gradients):
        if not self.is_good(gradients):
            self.after_overflow()
            return None
        unscaled = self.divide(gradients)
        self.after_success()
        return unscaled

    def is_good(self, gradients):
        return all(np.isfinite(g).all() for g in gradients)

    def divide(self, gradients):
        return [g.astype(np.float32) / np.float32(self.scale) for g in gradients]

    def after_overflow(self):
        self.scale /= 2
        self.good = 0

    def after_success(self):
        self.good += 1
        if self.good == self.patience:
            self.scale *= 2
            self.good = 0


def a_few_steps(subject, case):
    """A letter for each step: i for infinite, I for that in the first array, n for NaN."""
    (steps,) = case.inputs
    scaler = subject(**case.settings)
    yield "the scale at the start", scaler.scale
    for number, what in enumerate(steps, 1):
        rng = case.rng(str(number))
        gradients = [rng.normal(scale=1e-3, size=n).astype(np.float16) for n in ((2, 2), 3)]
        if what != ".":
            gradients[what != "I"].flat[1] = np.nan if what == "n" else np.inf
        yield (
            f"what step {number} returns",
            scaler.unscale(gradients) or "None: the step is left out",
            {"gradients": gradients},
        )
        yield f"the scale after step {number}", scaler.scale


def _any_steps(rng):
    steps = "".join(rng.choice(list("......iIn"), size=14))
    return Case(
        f"steps {steps}",
        steps,
        scale=float(2 ** rng.integers(4, 16)),
        patience=int(rng.integers(2, 4)),
    )


LossScaler = Exercise(
    "27.LossScaler",
    reference=LossScalerReference,
    observe=a_few_steps,
    cases=[
        Case("one step", ".", scale=1024.0, patience=10),
        Case("the third of five overflows", "..i..", scale=8.0, patience=2),
        Case("one is not a number", ".n.", scale=1024.0, patience=10),
        Case("twice a row of two", ".....", scale=1024.0, patience=2),
        Case("rows that are broken off", "..i..i...", scale=1024.0, patience=3),
        Case("nothing but overflow", "Iiii", scale=65536.0, patience=2),
    ],
    more=_any_steps,
    hints=[
        "`np.isfinite(g).all()` is False where an element is infinite or NaN.",
        "Convert to float32 first, then divide.",
        "Count the good steps in a row. Where the row ends, by an overflow or because it is full, "
        "the count goes back to 0.",
        "Divide by the scale that the loss was multiplied with, and move it only after that.",
    ],
)


@LossScaler.mutant(
    "After an overflow the row of good steps goes on where it was; it starts anew from 0."
)
class RowNotBrokenByAnOverflow(LossScalerReference):
    def after_overflow(self):
        self.scale /= 2


@LossScaler.mutant(
    "After the scale was doubled, the row starts anew from 0; here it is doubled in every step "
    "from then on."
)
class DoubledInEveryStepFromThenOn(LossScalerReference):
    def after_success(self):
        self.good += 1
        if self.good >= self.patience:
            self.scale *= 2


@LossScaler.mutant(
    "The scale is doubled once only: after that the row starts anew from 0, and may be filled "
    "again."
)
class DoubledOnce(LossScalerReference):
    def after_success(self):
        self.good += 1
        if self.good == self.patience:
            self.scale *= 2


@LossScaler.mutant(
    "The gradients are divided by the scale of the next step; the loss was multiplied by the one "
    "before. Move the scale last."
)
class MovedTooEarly(LossScalerReference):
    def unscale(self, gradients):
        if not self.is_good(gradients):
            self.after_overflow()
            return None
        self.after_success()
        return self.divide(gradients)


@LossScaler.mutant("Infinities are noticed, NaN is not: `np.isfinite` is False for both.")
class NaNNotNoticed(LossScalerReference):
    def is_good(self, gradients):
        return not any(np.isinf(g).any() for g in gradients)


@LossScaler.mutant("Only the first array is looked at: an overflow may be in any of them.")
class FirstArrayAlone(LossScalerReference):
    def is_good(self, gradients):
        return np.isfinite(gradients[0]).all()


@LossScaler.mutant(
    "The gradients are divided in float16, where they vanish, or keep few digits: convert to "
    "float32 first."
)
class DividedInFloat16(LossScalerReference):
    def divide(self, gradients):
        return [(g / np.float16(self.scale)).astype(np.float32) for g in gradients]


@LossScaler.mutant("The gradients are multiplied by the scale; they are too large by it: divide.")
class Multiplied(LossScalerReference):
    def divide(self, gradients):
        return [g.astype(np.float32) * np.float32(self.scale) for g in gradients]


@LossScaler.mutant(
    "The scale stays after an overflow; the next step would overflow just so: halve it."
)
class NotHalved(LossScalerReference):
    def after_overflow(self):
        self.good = 0


@LossScaler.mutant("A step that overflows is to be left out: return None, not its gradients.")
class NothingLeftOut(LossScalerReference):
    def unscale(self, gradients):
        with np.errstate(invalid="ignore"):
            unscaled = self.divide(gradients)
        if self.is_good(gradients):
            self.after_success()
        else:
            self.after_overflow()
        return unscaled


@LossScaler.mutant(
    "The scale is doubled one step too late: after `patience` good steps, not one more."
)
class OneStepTooLate(LossScalerReference):
    def after_success(self):
        self.good += 1
        if self.good > self.patience:
            self.scale *= 2
            self.good = 0
