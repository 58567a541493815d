"""A tensor changed in place after an operation saved it is an error, never a wrong gradient."""

import functools
import gc
import operator

import numpy as np
import pytest
from numpy.lib.stride_tricks import sliding_window_view

from minitorch_attn.engine import (
    GraphError,
    Tensor,
    as_tensor,
    mutation,
    no_grad,
    primitive,
    tensor,
)

from .primitives import add, exp, multiply, relu, reshape, square, take, total


def leaf(*values: float) -> Tensor:
    return tensor(np.array(values), requires_grad=True)


def assert_refused(y: Tensor, op: str) -> None:
    with pytest.raises(GraphError) as error:
        y.backward(np.ones(y.shape))
    assert str(error.value) == (
        f"{op!r} saved an array for its backward pass, and a tensor that shares its memory was "
        "changed in place afterwards: change a copy (x.clone()), or change it after backward()"
    )


def in_no_grad(write):
    def run(x: Tensor) -> None:
        with no_grad():
            write(x)

    return run


def through_view(x: Tensor) -> None:
    with no_grad():
        reshape(x, shape=(3, 1))[0] = 9.0


def through_view_of_view(x: Tensor) -> None:
    with no_grad():
        take(reshape(x, shape=(3, 1)), index=slice(1, 2)).fill_(9.0)


def index_arrays(x: Tensor) -> None:
    x[tensor([0, 2])] = tensor([8.0, 9.0])


def assign_with_operator(x: Tensor) -> None:
    x += 1.0


WRITES = {
    "x[...] = value": in_no_grad(lambda x: x.__setitem__(..., 9.0)),
    "one element": in_no_grad(lambda x: x.__setitem__(0, 9.0)),
    "a mask": in_no_grad(lambda x: x.__setitem__(tensor([True, False, True]), 9.0)),
    "integer arrays": in_no_grad(index_arrays),
    "+=": in_no_grad(assign_with_operator),
    "-=": in_no_grad(lambda x: x.__isub__(1.0)),
    "*=": in_no_grad(lambda x: x.__imul__(2.0)),
    "/=": in_no_grad(lambda x: x.__itruediv__(2.0)),
    "copy_": in_no_grad(lambda x: x.copy_([7.0, 8.0, 9.0])),
    "fill_": in_no_grad(lambda x: x.fill_(9.0)),
    "zero_": in_no_grad(lambda x: x.zero_()),
    "detach(), while recording": lambda x: x.detach().fill_(9.0),
    "detach().detach()": lambda x: x.detach().detach().__iadd__(1.0),
    "a view": through_view,
    "a view of a view": through_view_of_view,
    "as_tensor of a view of the array": lambda x: as_tensor(x._data[1:]).fill_(9.0),
}


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
def test_writing_to_a_saved_input_is_an_error(write):
    x = leaf(1.0, 2.0, 3.0)
    y = total(square(x))
    write(x)
    with pytest.raises(GraphError, match="'square' saved an array"):
        y.backward()
    assert x.grad is None


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
def test_writing_to_a_saved_output_is_an_error(write):
    x = leaf(1.0, 2.0, 3.0)
    y = exp(x)  # saves its output
    write(y)
    assert_refused(y, "exp")


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
def test_writing_to_a_saved_constant_is_an_error(write):
    constant = tensor([4.0, 5.0, 6.0])
    y = multiply(leaf(1.0, 2.0, 3.0), constant)
    write(constant)
    assert_refused(y, "multiply")


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
def test_writing_to_a_computed_tensor_whose_view_was_saved_is_an_error(write):
    h = add(leaf(1.0, 2.0, 3.0), 1.0)
    y = square(reshape(h, shape=(3,)))
    write(h)
    assert_refused(y, "square")


def test_a_tensor_of_indices_is_watched_too():
    index = tensor([0, 1])
    y = take(leaf(1.0, 2.0, 3.0), index=index)
    index[0] = 2
    assert_refused(y, "take")


# -- how a rule may hold an array --------------------------------------------------------------


def by_closure(x):
    return lambda dy: dy * x


def by_default_argument(x):
    def vjp(dy, x=x):
        return dy * x

    return vjp


def by_keyword_default(x):
    def vjp(dy, *, x=x):
        return dy * x

    return vjp


def by_inner_function(x):
    def helper():
        return x

    return lambda dy: dy * helper()


def by_containers(x):
    saved = {"inputs": [(x, None)]}
    return lambda dy: dy * saved["inputs"][0][0]


def by_partial(x):
    return functools.partial(np.multiply, x)


def by_method(x):
    return x.__mul__


def by_strided_view(x):
    windows = sliding_window_view(x, 1)
    return lambda dy: dy * windows[:, 0]


def by_a_function_that_calls_itself(x):
    def power(n):
        return x * power(n - 1) if n else 1.0

    return lambda dy: dy * power(1)


HOLDERS = [value for name, value in list(globals().items()) if name.startswith("by_")]


@pytest.mark.parametrize("holder", HOLDERS, ids=lambda h: h.__name__)
def test_a_saved_array_is_found_wherever_a_rule_holds_it(holder):
    @primitive
    def op(x):
        return x + 0.0, holder(x)

    x = leaf(1.0, 2.0)
    y = op(x)
    tensor([1.0]).fill_(2.0)  # another tensor: no reason to refuse
    y.backward(np.ones(2))
    assert x.grad.tolist() == [1.0, 2.0]
    y = op(x)
    x.detach().fill_(9.0)
    assert_refused(y, "op")


def test_a_variable_of_the_closure_may_have_no_value():
    @primitive
    def op(x, *, masked):
        if masked:
            mask = x > 0
        return x + 0.0, lambda dy: dy * (mask if masked else 1.0)

    x = leaf(1.0)
    y = op(x, masked=False)
    tensor([1.0]).fill_(2.0)  # some write, so that the graph looks at what its rules hold
    y.backward()
    assert x.grad.item() == 1.0


# -- what is no error --------------------------------------------------------------------------


def test_a_change_before_the_operation_is_no_error():
    x = leaf(1.0)
    with no_grad():
        x += 1.0
    square(x).backward()
    assert x.grad.item() == 4.0


def test_a_change_after_backward_is_no_error():
    x = leaf(1.0)
    for expected in (2.0, 1.0, 0.5):  # steps of gradient descent
        square(x).backward()
        assert x.grad.item() == expected
        with no_grad():
            x -= 0.25 * x.grad.data
        x.grad = None


def test_an_operation_that_saved_only_a_shape_does_not_mind():
    x = leaf(1.0, 2.0)
    y = total(x)
    x.detach().fill_(9.0)
    y.backward()
    assert x.grad.tolist() == [1.0, 1.0]


def test_an_operation_that_saved_only_a_mask_does_not_mind():
    x = leaf(-1.0, 2.0)
    y = relu(x)
    x.detach().fill_(9.0)
    y.detach().fill_(9.0)
    y.backward(np.ones(2))
    assert x.grad.tolist() == [0.0, 1.0]


def test_a_rule_that_is_not_needed_does_not_mind():
    x, constant = leaf(1.0), tensor([3.0])
    y = multiply(x, constant)  # x itself would be needed for the constant's gradient alone
    x.detach().fill_(9.0)
    y.backward()
    assert x.grad.item() == 3.0


def test_other_tensors_may_change():
    x, other = leaf(1.0), leaf(5.0)
    y = square(x)
    other.detach().fill_(9.0)
    y.backward()
    assert x.grad.item() == 2.0


def test_replacing_the_array_does_not_disturb_what_was_saved():
    x = leaf(3.0)
    y = square(x)
    x.data = np.array([100.0])
    y.backward()
    assert x.grad.item() == 6.0
    assert x.item() == 100.0


def test_a_copy_may_change():
    x = leaf(3.0)
    y = square(x)
    tensor(x).fill_(9.0)
    y.backward()
    assert x.grad.item() == 6.0


def test_arrays_given_as_operands_are_copied():
    x, factor = leaf(2.0), np.array([3.0])
    y = multiply(x, factor)
    factor[:] = 100.0
    y.backward()
    assert x.grad.item() == 3.0


def test_arrays_given_as_settings_are_copied():
    x, index = leaf(1.0, 2.0), np.array([0])
    y = take(x, index=(index,))
    index[:] = 1
    y.backward()
    assert x.grad.tolist() == [1.0, 0.0]


def test_the_array_a_tensor_was_made_of_is_not_its_memory():
    values = np.array([1.0, 2.0])
    x = tensor(values, requires_grad=True)
    y = square(x)
    values[:] = 9.0
    y.backward(np.ones(2))
    assert x.grad.tolist() == [2.0, 4.0]


# -- no way around -----------------------------------------------------------------------------


def test_data_and_numpy_are_read_only():
    x = leaf(1.0, 2.0)
    for view in (x.data, x.numpy(), np.asarray(x), x.detach().data, x.data[:1]):
        with pytest.raises(ValueError, match="read-only"):
            view[0] = 9.0
        with pytest.raises(ValueError, match="read-only"):
            view += 1.0
    assert x.tolist() == [1.0, 2.0]


def test_a_copy_made_by_numpy_is_free():
    x = leaf(1.0)
    copied = np.array(x)
    copied[0] = 9.0
    assert x.item() == 1.0


def test_data_that_was_taken_from_another_tensor_can_be_written_to():
    x, y = leaf(1.0), leaf(2.0)
    x.data = y.data
    with no_grad():
        x += 1.0
    assert (x.item(), y.item()) == (3.0, 2.0)


# -- the record of writes ----------------------------------------------------------------------


def test_freed_memory_is_forgotten_so_that_its_address_may_be_used_again():
    x = leaf(1.0, 2.0)
    y = square(x)
    gc.collect()
    before = len(mutation._writes)
    for _ in range(1000):  # each is likely to lie where the one before lay
        tensor([1.0, 2.0]).fill_(3.0)
        z = square(y)
        del z
    assert len(mutation._writes) == before
    y.backward(np.ones(2))
    assert x.grad.tolist() == [2.0, 4.0]


def test_writing_many_times_leaves_one_record():
    x = tensor([1.0])
    before = len(mutation._writes)
    for _ in range(10):
        x += 1.0
    assert len(mutation._writes) == before + 1
    del x
    assert len(mutation._writes) == before


IN_PLACE = {
    "+=": operator.iadd,
    "-=": operator.isub,
    "*=": operator.imul,
    "/=": operator.itruediv,
    "//=": operator.ifloordiv,
    "%=": operator.imod,
    "**=": operator.ipow,
}


@pytest.mark.parametrize("sign", IN_PLACE)
def test_every_augmented_assignment_writes_in_place(sign):
    x = tensor([5.0, 7.0])
    before, expected = x, IN_PLACE[sign](np.array([5.0, 7.0], "float32"), 2)
    x = IN_PLACE[sign](x, 2)
    assert x is before and x.tolist() == expected.tolist()


@pytest.mark.parametrize("update", [operator.iand, operator.ior, operator.ixor])
def test_masks_are_updated_in_place(update):
    mask = tensor([True, False])
    assert update(mask, np.array([True, True])) is mask


def test_a_refused_write_is_named_as_it_was_written():
    w = tensor([1.0], requires_grad=True)
    for name, arguments in {"zero_": (), "fill_": (1.0,), "copy_": (np.ones(1),)}.items():
        with pytest.raises(GraphError, match=rf"^x\.{name}\(.*\) cannot be recorded"):
            getattr(w, name)(*arguments)
