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
    "Blocks meet at the same elements. A thread begins at its place in the whole grid, "
    "`thread.block * thread.block_size + thread.index`. (Or the step is one block's size, where it "
    "should be that of the whole grid.)",
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


@axpy.mutant(
    "Threads of one block take elements that others take too: the step is "
    "`thread.blocks * thread.block_size`, all threads of the grid, and not `thread.blocks` or 1.",
    like=["all_take_everything"],
    raises=True,
)
def step_of_the_blocks(thread, a, x, y):
    for i in range(everywhere(thread), len(x), thread.blocks):
        y[i] = a * x[i] + y[i]


@axpy.mutant(
    "Every thread goes through all elements: this code is run by each of them, so each takes only "
    "its own.",
    like=["step_of_the_blocks"],
    raises=True,
)
def all_take_everything(thread, a, x, y):
    for i in range(len(x)):
        y[i] = a * x[i] + y[i]


@axpy.mutant(
    "The values are right, but the blocks take turns: neighbouring elements belong to different "
    "blocks, and more sectors are moved. A block's threads should lie side by side, at "
    "`thread.block * thread.block_size + thread.index`."
)
def blocks_take_turns(thread, a, x, y):
    for i in range(thread.index * thread.blocks + thread.block, len(x), in_all(thread)):
        y[i] = a * x[i] + y[i]


@axpy.mutant(
    "Only whole rounds of all threads are made: the elements that are left over belong to the "
    "first threads. `range(first, len(x), step)` finds them."
)
def whole_rounds_only(thread, a, x, y):
    for turn in range(len(x) // in_all(thread)):
        i = everywhere(thread) + turn * in_all(thread)
        y[i] = a * x[i] + y[i]


@axpy.mutant("The last element is left out: `range(first, len(x), step)` stops in front of len(x).")
def last_left_out(thread, a, x, y):
    for i in range(everywhere(thread), len(x) - 1, in_all(thread)):
        y[i] = a * x[i] + y[i]


@axpy.mutant("y stays as it was: each thread has to write, `y[i] = ...`; nothing is returned.")
def nothing_written(thread, a, x, y):
    pass


@axpy.mutant("a multiplies y; it is the factor of x.")
def factor_of_y(thread, a, x, y):
    for i in range(everywhere(thread), len(x), in_all(thread)):
        y[i] = x[i] + a * y[i]


@axpy.mutant("The old y is added twice: `y[i] += ...` adds it already.")
def y_added_twice(thread, a, x, y):
    for i in range(everywhere(thread), len(x), in_all(thread)):
        y[i] += a * x[i] + y[i]


@axpy.mutant("The factor a is left out.")
def factor_left_out(thread, a, x, y):
    for i in range(everywhere(thread), len(x), in_all(thread)):
        y[i] += x[i]


@axpy.mutant(
    "x and y are whole arrays, in the card's memory; a thread computes with single elements, "
    "`x[i]` and `y[i]`.",
    raises=True,
)
def whole_arrays(thread, a, x, y):
    return a * x


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
            "The sums are right, but there are fewer barriers than a tree has steps, so numbers "
            "are added one after the other. Halve the number of partial sums in each step.",
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
    "The barrier stands inside of the `if`, or some threads have returned before it: only a part "
    "comes by. All of the block must reach it: put it behind the `if`, and let no thread return.",
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
    "An element behind the end of the array is added: `apart` starts at half of the block size, "
    "and only threads with `thread.index < apart` add (`<`, not `<=`).",
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
    "One thread adds the partial sums (or the whole row) up while the others wait, or all queue to "
    "add to `y`: as many steps as threads. A tree halves the number of sums in each step."
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


def _with_a_tree(thread, y, total, *, write=None):
    """Joins what the threads bring, one number each; and may be given a mistake."""
    part = thread.shared("part", thread.block_size)
    part[thread.index] = total
    yield
    apart = thread.block_size // 2
    while apart:
        if thread.index < apart:
            part[thread.index] += part[thread.index + apart]
        yield
        apart //= 2
    if write is not None:
        write(part)
    elif thread.index == 0:
        y[thread.block] = part[0]


def _own_columns(thread, x):
    return (x[thread.block, j] for j in range(thread.index, x.shape[1], thread.block_size))


@row_sum.mutant(
    "Every thread adds up all columns, and the tree adds these sums: each takes only every "
    "`thread.block_size`-th column, from `thread.index` on."
)
def all_columns_by_each(thread, x, y):
    return _with_a_tree(thread, y, sum(x[thread.block, j] for j in range(x.shape[1])))


@row_sum.mutant("Each thread keeps only its last column: add them up, `total += ...`.")
def last_column_kept(thread, x, y):
    return _with_a_tree(thread, y, [0.0, *_own_columns(thread, x)][-1])


@row_sum.mutant(
    "The sum is added to what stood in y, and y is not zero at the start: write it, `y[n] = ...`."
)
def added_to_y(thread, x, y):
    def write(part):
        if thread.index == 0:
            y[thread.block] += part[0]

    return _with_a_tree(thread, y, sum(_own_columns(thread, x)), write=write)


@row_sum.mutant(
    "All blocks write one element: row n belongs to `y[n]`, and n is `thread.block`.", raises=True
)
def one_element_for_all_rows(thread, x, y):
    def write(part):
        if thread.index == 0:
            y[0] = part[0]

    return _with_a_tree(thread, y, sum(_own_columns(thread, x)), write=write)


@row_sum.mutant("The tree leaves the sum in element 0; the last thread writes its own element.")
def last_thread_writes(thread, x, y):
    def write(part):
        if thread.index == thread.block_size - 1:
            y[thread.block] = part[thread.index]

    return _with_a_tree(thread, y, sum(_own_columns(thread, x)), write=write)


@row_sum.mutant(
    "x is summed down its columns: block n takes row n, so its elements are `x[thread.block, j]`."
)
def columns_for_rows(thread, x, y):
    down = range(thread.index, x.shape[0], thread.block_size)
    return _with_a_tree(thread, y, sum(x[j, thread.block] for j in down))


@row_sum.mutant(
    "The partial sum is added up in shared memory, which is not zero at the start: use a variable, "
    "`total = 0.0`, and write it there at the end.",
    raises=True,
)
def added_up_in_shared_memory(thread, x, y):
    part = thread.shared("part", thread.block_size)
    for v in _own_columns(thread, x):
        part[thread.index] += v
    yield


@row_sum.mutant(
    "The tree runs the wrong way: with `thread.index < apart`, apart begins at half of the block "
    "size and is halved. Growing from 1, it leaves most elements out."
)
def tree_from_small_to_large(thread, x, y):
    part = thread.shared("part", thread.block_size)
    part[thread.index] = sum(_own_columns(thread, x))
    yield
    apart = 1
    while apart < thread.block_size:
        if thread.index < apart:
            part[thread.index] += part[thread.index + apart]
        yield
        apart *= 2
    if thread.index == 0:
        y[thread.block] = part[0]


@row_sum.mutant(
    "The tree runs over the columns, whose number need not be a power of two (nor are there as "
    "many threads): first one partial sum for each thread, and then a tree over these."
)
def tree_over_the_columns(thread, x, y):
    D = x.shape[1]
    part = thread.shared("part", D)
    for j in range(thread.index, D, thread.block_size):
        part[j] = x[thread.block, j]
    yield
    apart = D // 2
    while apart:
        if thread.index < apart:
            part[thread.index] += part[thread.index + apart]
        yield
        apart //= 2
    if thread.index == 0:
        y[thread.block] = part[0]


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


@scatter_add.mutant(
    "Every thread adds all elements of dy: each takes one, its own i in the whole grid."
)
def all_added_by_each(thread, index, dy, dx):
    for i in range(len(dy)):
        thread.atomic_add(dx, index[i], dy[i])


@scatter_add.mutant("dy[i] is added at i itself; it belongs where x was picked from, at index[i].")
def index_left_out(thread, index, dy, dx):
    i = everywhere(thread)
    if i < min(len(dy), len(dx)):
        thread.atomic_add(dx, i, dy[i])


@scatter_add.mutant(
    "The place in the grid is not right: in front of a block lie `thread.block` others of "
    "`thread.block_size` threads each (`thread.blocks` is how many there are)."
)
def blocks_for_the_size(thread, index, dy, dx):
    i = thread.block * thread.blocks + thread.index
    if i < len(dy):
        thread.atomic_add(dx, index[i], dy[i])


@scatter_add.mutant(
    "The blocks overlap: `thread.block + thread.index` moves each by one element only. Multiply "
    "`thread.block` by `thread.block_size`."
)
def block_added_alone(thread, index, dy, dx):
    i = thread.block + thread.index
    if i < len(dy):
        thread.atomic_add(dx, index[i], dy[i])


@scatter_add.mutant("The last element of dy is left out: the guard is `if i < len(dy)`.")
def last_share_left_out(thread, index, dy, dx):
    i = everywhere(thread)
    if i < len(dy) - 1:
        thread.atomic_add(dx, index[i], dy[i])


@scatter_add.mutant(
    "atomic_add reads the old value itself: give it the share dy[i] alone, not dx[k] + dy[i].",
    raises=True,
)
def old_value_given_too(thread, index, dy, dx):
    i = everywhere(thread)
    if i < len(dy):
        thread.atomic_add(dx, index[i], dx[index[i]] + dy[i])


@scatter_add.mutant(
    "A thread gathers for each element of dx; but there are as many threads as dy is long, and dx "
    "may be longer. Let the thread of dy[i] bring its share."
)
def gathered(thread, index, dy, dx):
    k = everywhere(thread)
    if k < len(dx):
        dx[k] = sum(dy[i] for i in range(len(dy)) if index[i] == k)


@scatter_add.mutant(
    "atomic_add was given an element, `dx[k]`, which is only a number: give it the array and the "
    "place, `thread.atomic_add(dx, k, value)`.",
    raises=True,
)
def element_for_the_array(thread, index, dy, dx):
    i = everywhere(thread)
    if i < len(dy):
        thread.atomic_add(dx[index[i]], dy[i], 0)


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


@merge.mutant("The spread of the means is divided by n twice: delta**2 * n1 * n2 / n.")
def divided_twice(n1, mean1, q1, n2, mean2, q2):
    n, mean, _ = merge_reference(n1, mean1, q1, n2, mean2, q2)
    return n, mean, q1 + q2 + (mean2 - mean1) ** 2 * n1 * n2 / n**2


@merge.mutant("n1 has become n before q was computed: q needs the old n1, so call the sum n.")
def n_overwritten(n1, mean1, q1, n2, mean2, q2):
    n, mean, _ = merge_reference(n1, mean1, q1, n2, mean2, q2)
    return n, mean, q1 + q2 + (mean2 - mean1) ** 2 * n * n2 / n


@merge.mutant(
    "q takes the way from mean1 to the new mean; delta lies between the means of the two parts."
)
def delta_to_the_new_mean(n1, mean1, q1, n2, mean2, q2):
    n, mean, _ = merge_reference(n1, mean1, q1, n2, mean2, q2)
    return n, mean, q1 + q2 + (mean - mean1) ** 2 * n1 * n2 / n


@merge.mutant("delta has the wrong sign: it is mean2 - mean1, from the first towards the second.")
def delta_turned_round(n1, mean1, q1, n2, mean2, q2):
    n, _, q = merge_reference(n1, mean1, q1, n2, mean2, q2)
    return n, mean1 + (mean1 - mean2) * n2 / n, q


@merge.mutant("q's last term lacks a factor: delta**2 * n1 * n2 / n has both counts.")
def one_count_missing(n1, mean1, q1, n2, mean2, q2):
    n, mean, _ = merge_reference(n1, mean1, q1, n2, mean2, q2)
    return n, mean, q1 + q2 + (mean2 - mean1) ** 2 * n2 / n


@merge.mutant("The mean moves by delta / n, the share of one number; the second part has n2.")
def share_of_one(n1, mean1, q1, n2, mean2, q2):
    n, _, q = merge_reference(n1, mean1, q1, n2, mean2, q2)
    return n, mean1 + (mean2 - mean1) / n, q


@merge.mutant("q1 and q2 are averaged like the means; they are sums, and just add up.")
def spreads_averaged(n1, mean1, q1, n2, mean2, q2):
    n, mean, q = merge_reference(n1, mean1, q1, n2, mean2, q2)
    return n, mean, q - q1 - q2 + (n1 * q1 + n2 * q2) / n


@merge.mutant("The three results come in the order n, mean, q.")
def n_returned_last(n1, mean1, q1, n2, mean2, q2):
    n, mean, q = merge_reference(n1, mean1, q1, n2, mean2, q2)
    return mean, q, n


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


@prepare.mutant(
    "x is scaled where it is below the limit, and left where it is above: limit / maximum(largest, "
    "limit) is 1 below and less than 1 above."
)
def minimum_for_maximum(x, limit):
    return _prepare(x, limit, scaled=lambda xp, x, most: x * (limit / xp.minimum(most, limit)))


@prepare.mutant("Large negative numbers are overlooked: the largest is that of `xp.abs(x)`.")
def largest_without_abs(x, limit):
    return _prepare(x, limit, scaled=lambda xp, x, _: x * (limit / xp.maximum(x.max(), limit)))


@prepare.mutant(
    "Each row is scaled by its own largest element; there is one for all of x, `xp.abs(x).max()`."
)
def each_row_scaled(x, limit):
    def scaled(xp, x, _):
        return x * (limit / xp.maximum(xp.abs(x).max(axis=1, keepdims=True), limit))

    return _prepare(x, limit, scaled=scaled)


@prepare.mutant(
    "`x.mean(axis=1)` has the shape (N,), which lies along the columns when it is subtracted: keep "
    "the axis, `keepdims=True`."
)
def means_along_the_columns(x, limit):
    return _prepare(x, limit, centre=lambda xp, x: x.mean(axis=1))


@prepare.mutant("All of x is centred by one mean; each row has its own: axis=1, keepdims=True.")
def one_mean_for_all(x, limit):
    return _prepare(x, limit, centre=lambda xp, x: x.mean())


@prepare.mutant(
    "The longest column was found, not the longest row: its length is a sum over columns, axis=1."
)
def longest_column(x, limit):
    centred = x - x.mean(axis=1, keepdims=True)
    return _prepare(x, limit, index=lambda _: (centred**2).sum(axis=0).argmax())


@prepare.mutant("The longest row is that of the centred x: find it after the means are gone.")
def longest_before_centring(x, limit):
    return _prepare(x, limit, index=lambda _: (x**2).sum(axis=1).argmax())


@prepare.mutant("The last step is missing: subtract the longest row from all of them.")
def longest_not_subtracted(x, limit):
    xp = array_module(x)
    x = x * (limit / xp.maximum(xp.abs(x).max(), limit))
    return x - x.mean(axis=1, keepdims=True)


@prepare.mutant(
    "A boolean mask as an index makes the host wait: it must know how many elements were chosen. "
    "`argmax()` gives the place, an array without axes."
)
def a_mask_as_index(x, limit):
    xp = array_module(x)
    x = x * (limit / xp.maximum(xp.abs(x).max(), limit))
    x = x - x.mean(axis=1, keepdims=True)
    lengths = (x**2).sum(axis=1)
    return x - x[lengths == lengths.max()]


@prepare.mutant(
    "A list of one mean for each row is put together: a launch for every row, and what is needed "
    "to join them goes to the card. All means at once are `x.mean(axis=1, keepdims=True)`."
)
def a_list_of_means(x, limit):
    return _prepare(x, limit, centre=lambda xp, x: xp.array([row.mean() for row in x])[:, None])


@prepare.mutant(
    "`np.asarray` of an array on the device would copy it to the host, so CuPy refuses it: use the "
    "library that made x, `xp = array_module(x)`.",
    raises=True,
)
def made_an_array_of_numpy(x, limit):
    return prepare_reference(np.asarray(x), limit)


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
    """A letter for each step: i for infinite, I in the first array, B in both, n for NaN."""
    (steps,) = case.inputs
    scaler = subject(**case.settings)
    yield "the scale at the start", scaler.scale
    for number, what in enumerate(steps, 1):
        rng = case.rng(str(number))
        gradients = [rng.normal(scale=1e-3, size=n).astype(np.float16) for n in ((2, 2), 3)]
        for bad in {".": [], "I": [0], "B": [0, 1]}.get(what, [1]):
            gradients[bad].flat[1] = np.nan if what == "n" else np.inf
        unscaled = scaler.unscale(gradients)
        yield (
            f"what step {number} returns",
            "None: the step is left out" if unscaled is None else unscaled,
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
        Case("nothing but overflow", "BIii", scale=65536.0, patience=2),
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
    "The scale is not yet doubled after `patience` good steps, but one step later (or never).",
    like=["NeverDoubled"],
)
class OneStepTooLate(LossScalerReference):
    def after_success(self):
        self.good += 1
        if self.good > self.patience:
            self.scale *= 2
            self.good = 0


@LossScaler.mutant(
    "The scale is never doubled: do so after `patience` good steps in a row.",
    like=["OneStepTooLate"],
)
class NeverDoubled(LossScalerReference):
    def after_success(self):
        self.good += 1


@LossScaler.mutant("The scale is doubled one step too early: count the good steps from 0.")
class OneStepTooEarly(LossScalerReference):
    def after_success(self):
        self.good += 1
        if self.good >= self.patience - 1:
            self.scale *= 2
            self.good = 0


@LossScaler.mutant("The scale is doubled after every good step, not after `patience` in a row.")
class DoubledAfterEach(LossScalerReference):
    def after_success(self):
        self.scale *= 2


@LossScaler.mutant(
    "All steps are counted, also those that were left out: it takes `patience` good ones in a row."
)
class AllStepsCounted(LossScalerReference):
    def after_overflow(self):
        self.scale /= 2
        self.good += 1

    def after_success(self):
        self.good += 1
        if self.good % self.patience == 0:
            self.scale *= 2


@LossScaler.mutant("The scale is doubled after an overflow; it was too large, so halve it.")
class DoubledAfterAnOverflow(LossScalerReference):
    def after_overflow(self):
        self.scale *= 2
        self.good = 0


@LossScaler.mutant(
    "The values are rounded to float16, by the division or at the end: what comes back is float32, "
    "so convert first, and then divide.",
    like=["ReturnedAsFloat16"],
)
class KeptInFloat16(LossScalerReference):
    def divide(self, gradients):
        return [g / np.float16(self.scale) for g in gradients]


@LossScaler.mutant(
    "After the division the gradients go back to float16, where they vanish: return float32.",
    like=["KeptInFloat16"],
)
class ReturnedAsFloat16(LossScalerReference):
    def divide(self, gradients):
        return [g.astype(np.float16) for g in super().divide(gradients)]


@LossScaler.mutant("NaN is noticed, infinities are not: `np.isfinite` is False for both.")
class InfinityNotNoticed(LossScalerReference):
    def is_good(self, gradients):
        return not any(np.isnan(g).any() for g in gradients)


@LossScaler.mutant(
    "The step is left out only if all arrays have an element that is not finite: one is enough."
)
class AllMustOverflow(LossScalerReference):
    def is_good(self, gradients):
        return any(np.isfinite(g).all() for g in gradients)


@LossScaler.mutant(
    "The elements that are not finite are replaced by 0 and the step is taken: it is to be left "
    "out, for the others may be wrong too. Return None."
)
class ReplacedByZero(LossScalerReference):
    def unscale(self, gradients):
        zeroed = [np.where(np.isfinite(g), g, np.float16(0)) for g in gradients]
        unscaled = self.divide(zeroed)
        if self.is_good(gradients):
            self.after_success()
        else:
            self.after_overflow()
        return unscaled


@LossScaler.mutant("An empty list comes back from a step that is left out: return None.")
class EmptyForNone(LossScalerReference):
    def unscale(self, gradients):
        unscaled = super().unscale(gradients)
        return [] if unscaled is None else unscaled


@LossScaler.mutant(
    "`np.isfinite` was given the whole list, whose arrays differ in shape: look at each.",
    raises=True,
)
class AllAtOnce(LossScalerReference):
    def is_good(self, gradients):
        return np.isfinite(gradients).all()


@LossScaler.mutant("Only the first array comes back: unscale each, and return a list of them.")
class FirstArrayReturned(LossScalerReference):
    def divide(self, gradients):
        return super().divide(gradients)[0]
