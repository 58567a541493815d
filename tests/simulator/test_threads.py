import functools

import numpy as np
import pytest

from minitorch_attn.simulator.threads import (
    BarrierError,
    BoundsError,
    KernelError,
    RaceError,
    UnwrittenError,
    launch,
)

SEEDS = range(6)


def double(thread, x, y):
    i = thread.block * thread.block_size + thread.index
    if i < len(x):
        y[i] = 2 * x[i]


def reverse(thread, x, y):
    part = thread.shared("part", thread.block_size)
    first = thread.block * thread.block_size
    part[thread.index] = x[first + thread.index]
    yield
    y[first + thread.index] = part[thread.block_size - 1 - thread.index]


def tree_sum(thread, x, y):
    """The sum of each block's part."""
    part = thread.shared("part", thread.block_size)
    part[thread.index] = x[thread.block * thread.block_size + thread.index]
    yield
    apart = thread.block_size // 2
    while apart:
        if thread.index < apart:
            part[thread.index] += part[thread.index + apart]
        yield
        apart //= 2
    if thread.index == 0:
        y[thread.block] = part[0]


# -- running --------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", SEEDS)
def test_a_kernel_without_a_barrier_is_a_plain_function(seed):
    x, y = np.arange(50.0), np.zeros(50)
    launch(double, 4, 16, x, y, seed=seed)
    assert (y == 2 * x).all()


@pytest.mark.parametrize("seed", SEEDS)
def test_a_barrier_parts_writing_from_reading(seed):
    x, y = np.arange(40.0), np.zeros(40)
    tally = launch(reverse, 4, 10, x, y, seed=seed)
    assert (y.reshape(4, 10) == x.reshape(4, 10)[:, ::-1]).all()
    assert tally.barriers == 4


@pytest.mark.parametrize("seed", SEEDS)
def test_a_tree_of_barriers_sums_each_block(seed):
    x, y = np.arange(64.0), np.zeros(4)
    tally = launch(tree_sum, 4, 16, x, y, seed=seed)
    assert (y == x.reshape(4, 16).sum(axis=1)).all()
    assert tally.barriers == 4 * (1 + 4)


def test_a_barrier_may_stand_in_a_function_that_the_kernel_calls():
    def wait_and_read(thread, part):
        yield
        return part[0]

    def broadcast(thread, y):
        part = thread.shared("part", 1)
        if thread.index == 3:
            part[0] = 7.0
        y[thread.index] = yield from wait_and_read(thread, part)

    y = np.zeros(8)
    launch(broadcast, 1, 8, y)
    assert (y == 7).all()


def test_the_order_of_blocks_and_threads_comes_from_the_seed():
    def note_the_order(thread, seen):
        ticket = thread.atomic_add(seen, 0, 1)
        order.append((thread.block, thread.index, int(ticket)))

    orders = []
    for seed in (0, 0, 1):
        order = []
        launch(note_the_order, 3, 5, np.zeros(1), seed=seed)
        assert [ticket for *_, ticket in order] == list(range(15))
        orders.append(order)
    assert orders[0] == orders[1] != orders[2]
    assert orders[0] != sorted(orders[0])


def test_a_kernel_may_have_settings_filled_in():
    def scale(thread, x, factor):
        x[thread.index] *= factor

    x = np.ones(4)
    launch(functools.partial(scale, factor=3.0), 1, 4, x)
    assert (x == 3).all()


def test_arrays_of_several_axes_are_indexed_by_as_many_integers():
    def transpose(thread, x, y):
        y[thread.index, thread.block] = x[thread.block, thread.index]

    x, y = np.arange(6.0).reshape(2, 3), np.zeros((3, 2))
    launch(transpose, 2, 3, x, y)
    assert (y == x.T).all()


def test_numbers_keep_the_dtype_of_their_array():
    def add_in_half(thread, x, y):
        total = np.float16(0)
        for i in range(len(x)):
            total += x[i]
        y[0] = total

    y = np.zeros(1)
    launch(add_in_half, 1, 1, np.ones(3000, np.float16), y)
    assert y[0] == 2048  # where float16 has no odd numbers any more


def test_shared_memory_is_the_blocks_own():
    def first_of_block(thread, y):
        part = thread.shared("part", 1)
        if thread.index == 0:
            part[0] = thread.block
        yield
        y[thread.block, thread.index] = part[0]

    y = np.zeros((3, 4))
    launch(first_of_block, 3, 4, y)
    assert (y == np.arange(3)[:, None]).all()


# -- what goes wrong ------------------------------------------------------------------------


@pytest.mark.parametrize("seed", SEEDS)
def test_a_missing_barrier_is_a_race_in_every_order(seed):
    def without_a_barrier(thread, x, y):
        part = thread.shared("part", thread.block_size)
        part[thread.index] = x[thread.index]
        y[thread.index] = part[thread.block_size - 1 - thread.index]

    with pytest.raises(RaceError, match=r"part\[\d\] \(shared\).*put a `yield` between"):
        launch(without_a_barrier, 1, 8, np.arange(8.0), np.zeros(8), seed=seed)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_missing_barrier_in_the_loop_is_a_race_in_every_order(seed):
    def one_barrier_only(thread, x, y):
        part = thread.shared("part", 8)
        part[thread.index] = x[thread.index]
        yield
        for apart in (4, 2, 1):
            if thread.index < apart:
                part[thread.index] += part[thread.index + apart]

    with pytest.raises(RaceError, match="thread . of block 0 .* thread . of block 0"):
        launch(one_barrier_only, 1, 8, np.arange(8.0), np.zeros(1), seed=seed)


def test_a_race_says_who_and_where_and_its_notes_hold_both_lines():
    def sum_into_one(thread, x, y):
        y[0] += x[thread.index]

    with pytest.raises(RaceError) as caught:
        launch(sum_into_one, 1, 2, np.ones(2), np.zeros(1))
    assert "a race for y[0]: thread " in str(caught.value)
    assert "In the kernel sum_into_one:" in caught.value.__notes__
    assert any("y[0] += x[thread.index]" in note for note in caught.value.__notes__)


@pytest.mark.parametrize("seed", SEEDS)
def test_two_blocks_may_not_write_one_element(seed):
    def write_twice(thread, y):
        y[thread.index] = 1.0

    with pytest.raises(RaceError, match=r"blocks wait for nothing.*thread\.atomic_add"):
        launch(write_twice, 2, 4, np.zeros(4), seed=seed)


def test_a_block_may_not_read_what_another_writes():
    def pass_on(thread, y):
        if thread.block == 0:
            y[0] = 1.0
        else:
            y[thread.block] = y[0]

    with pytest.raises(RaceError, match="blocks wait for nothing"):
        launch(pass_on, 2, 1, np.zeros(2))


def test_threads_may_read_one_element_and_a_thread_may_write_its_own_again():
    def harmless(thread, x, y):
        for _ in range(3):
            y[thread.index] += x[0]

    y = np.zeros(4)
    launch(harmless, 1, 4, np.ones(1), y)
    assert (y == 3).all()


@pytest.mark.parametrize("seed", SEEDS)
def test_atomic_adds_are_no_race_and_are_all_counted(seed):
    def count(thread, labels, counts):
        i = thread.block * thread.block_size + thread.index
        thread.atomic_add(counts, labels[i], 1)

    labels = np.arange(24) % 3
    counts = np.zeros(3, int)
    tally = launch(count, 3, 8, labels, counts, seed=seed)
    assert (counts == 8).all()
    assert tally.atomics == 24 and tally.writes == 0


@pytest.mark.parametrize("seed", SEEDS)
def test_an_atomic_add_and_a_plain_read_are_a_race(seed):
    def add_and_look(thread, y):
        thread.atomic_add(y, 0, 1.0)
        if thread.index == 0:
            y[1] = y[0]

    with pytest.raises(RaceError, match=r"by thread\.atomic_add alone"):
        launch(add_and_look, 1, 4, np.zeros(2), seed=seed)


@pytest.mark.parametrize("index", [5, -1])
def test_an_index_outside_is_named_with_the_shape(index):
    def outside(thread, x):
        x[index] = 0.0

    with pytest.raises(BoundsError, match=rf"x\[{index}\], but x has the shape \(5,\).*if i < 5"):
        launch(outside, 1, 1, np.zeros(5))


@pytest.mark.parametrize("seed", SEEDS)
def test_a_barrier_that_some_threads_miss_is_named(seed):
    def inside_the_if(thread, y):
        if thread.index < 2:
            yield
        y[thread.index] = 0.0

    with pytest.raises(BarrierError, match="thread 0 .* but thread 2 has ended without it"):
        launch(inside_the_if, 1, 4, np.zeros(4), seed=seed)


def test_two_barriers_in_two_branches_are_not_one():
    def branches(thread):
        if thread.index % 2:
            yield
        else:
            yield

    with pytest.raises(BarrierError, match="thread 0 .* at one barrier, thread 1 at another"):
        launch(branches, 1, 4)


def test_shared_memory_is_not_zero_at_the_start():
    def read_at_once(thread, y):
        y[thread.index] = thread.shared("part", 4)[thread.index]

    with pytest.raises(UnwrittenError, match=r"part\[\d\].*not zero at the start"):
        launch(read_at_once, 1, 4, np.zeros(4))


@pytest.mark.parametrize(
    ("touch", "words"),
    [
        (lambda x: x[0:2], "one element at a time"),
        (lambda x: x[0], "takes 2 integers"),
        (lambda x: x[0.0, 0], "takes 2 integers"),
        (lambda x: sum(x), "one element at a time"),
    ],
)
def test_a_thread_touches_one_element_at_a_time(touch, words):
    def kernel(thread, x):
        touch(x)

    with pytest.raises(KernelError, match=words):
        launch(kernel, 1, 1, np.zeros((2, 2)))


def test_an_atomic_add_takes_the_array_and_the_place_not_the_element():
    def add_to_the_element(thread, x):
        thread.atomic_add(x[0], 1.0, 0)

    with pytest.raises(KernelError, match=r"atomic_add\(y, i, value\).* not an array"):
        launch(add_to_the_element, 1, 1, np.zeros(2))


def test_threads_must_agree_on_the_shape_of_shared_memory():
    def disagree(thread):
        thread.shared("part", 1 + thread.index)

    with pytest.raises(KernelError, match="there is one array of that name"):
        launch(disagree, 1, 2)


def test_an_array_that_is_not_contiguous_is_refused():
    with pytest.raises(ValueError, match=r"x of shape \(4,\) is not C-contiguous"):
        launch(double, 1, 4, np.zeros(8)[::2], np.zeros(4))


@pytest.mark.parametrize(("blocks", "size"), [(0, 4), (2, 0)])
def test_a_launch_has_threads(blocks, size):
    with pytest.raises(ValueError, match="must be 1 or more"):
        launch(double, blocks, size, np.zeros(4), np.zeros(4))


# -- counting -------------------------------------------------------------------------------


def test_reads_writes_and_bytes_are_counted_array_by_array():
    tally = launch(double, 4, 16, np.zeros(50, np.float32), np.zeros(50))
    assert (tally.reads, tally.writes) == (50, 50)
    assert tally.bytes == 50 * 4 + 50 * 8
    assert tally.of("x").bytes == 200 and tally.of("y").reads == 0


def test_shared_memory_is_counted_apart():
    tally = launch(reverse, 2, 8, np.zeros(16), np.zeros(16))
    assert (tally.reads, tally.writes, tally.shared) == (16, 16, 32)


@pytest.mark.parametrize(("step", "sectors"), [(1, 4), (2, 8), (8, 32), (64, 32)])
def test_neighbours_in_memory_share_a_sector(step, sectors):
    def load(thread, x):
        x[thread.index * step]

    tally = launch(load, 1, 32, np.zeros(32 * step, np.float32))
    assert len(tally.requests) == 1 and tally.sectors == sectors


def test_the_turns_of_a_loop_are_requests_of_their_own():
    def load(thread, x):
        for i in range(thread.index, len(x), thread.block_size):
            x[i]

    tally = launch(load, 1, 64, np.zeros(256, np.float32))
    assert len(tally.requests) == 2 * 4  # two warps, four turns
    assert all(len(one.elements) == 32 for one in tally.requests)
    assert tally.sectors == 256 * 4 // 32


def test_two_arrays_on_one_line_are_two_requests():
    tally = launch(double, 1, 32, np.zeros(32), np.zeros(32))
    assert sorted(one.array for one in tally.requests) == ["x", "y"]
