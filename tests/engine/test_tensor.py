"""What a tensor holds, how it is made, written to, copied and shown."""

import copy
import pickle

import numpy as np
import pytest

from minitorch_attn.engine import (
    DTypeError,
    GraphError,
    ShapeError,
    Tensor,
    as_tensor,
    get_default_dtype,
    grad,
    no_grad,
    set_default_dtype,
    tensor,
)

from .primitives import add, exp, multiply, square, take, total


@pytest.fixture
def float64_by_default():
    before = get_default_dtype()
    set_default_dtype("float64")
    yield
    set_default_dtype(before)


# -- making one --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "dtype", "shape"),
    [
        (1.5, "float32", ()),
        (3, "int64", ()),
        (True, "bool", ()),
        ([1.0, 2], "float32", (2,)),
        ([1, 2], "int64", (2,)),
        ([True, False], "bool", (2,)),
        ([[1.0], [2.0]], "float32", (2, 1)),
        ((1.0, 2.0), "float32", (2,)),
        ([], "float32", (0,)),
        ([[], []], "float32", (2, 0)),
        (range(3), "int64", (3,)),
        (np.ones(2), "float64", (2,)),
        (np.ones(2, "float32"), "float32", (2,)),
        (np.ones(2, "float16"), "float16", (2,)),
        (np.ones(2, "uint8"), "uint8", (2,)),
        (np.float64(1.5), "float64", ()),
        ([np.float64(1.5)], "float64", (1,)),
        ([np.ones(2), np.zeros(2)], "float64", (2, 2)),
        ([np.ones(2, "float32"), [1.0, 2.0]], "float32", (2, 2)),
    ],
    ids=repr,
)
def test_dtype_and_shape_of_data(data, dtype, shape):
    x = tensor(data)
    assert (x.dtype, x.shape) == (dtype, shape)
    assert (x.ndim, x.numel()) == (len(shape), np.prod(shape, dtype=int))


def test_python_floats_follow_the_default_dtype(float64_by_default):
    assert tensor([0.1]).dtype == np.float64
    assert tensor([0.1]).item() == 0.1
    assert tensor(np.ones(1, "float32")).dtype == np.float32
    assert tensor([1]).dtype == np.int64


def test_the_dtype_that_is_asked_for_is_given():
    assert tensor([1, 2], dtype="float16").dtype == np.float16
    assert tensor([0.1], dtype=np.float64).item() == 0.1  # not rounded to float32 on the way
    assert tensor([1.7], dtype=int).tolist() == [1]


def test_lists_of_tensors_are_stacked():
    rows = [tensor([1.0, 2.0]), tensor([3.0, 4.0])]
    assert tensor(rows).tolist() == [[1.0, 2.0], [3.0, 4.0]]
    assert tensor([[tensor(1.0), tensor(2.0)], [3.0, 4.0]]).tolist() == [[1.0, 2.0], [3.0, 4.0]]
    assert tensor([tensor(1.0, dtype="float64")]).dtype == np.float64


def test_the_data_is_copied():
    values = np.array([1.0, 2.0])
    x, y = tensor(values), tensor(tensor(values))
    values[:] = 9.0
    assert x.tolist() == y.tolist() == [1.0, 2.0]


def test_a_tensor_made_of_a_tensor_has_no_history():
    x = tensor([1.0], requires_grad=True)
    assert not tensor(square(x)).requires_grad
    assert not tensor(x).requires_grad


def test_subclasses_of_arrays_are_plain_arrays_here():
    x = tensor(np.array([[1.0, 2.0], [3.0, 4.0]]).view(np.matrix))
    assert multiply(x, x).tolist() == [[1.0, 4.0], [9.0, 16.0]]  # a matrix would be multiplied


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ("abc", "not <U3"),
        (["a", "b"], "not <U1"),
        (1j, "not complex128"),
        (None, "not None"),
        ([1.0, None], r"not \[1.0, None\]"),
        ({"a": 1}, "not {'a': 1}"),
        (2**70, "not 1180591620717411303424"),
        (np.array(["2026-11-21"], "datetime64[D]"), "not datetime64"),
    ],
    ids=repr,
)
def test_what_is_not_a_number_is_refused(data, said):
    with pytest.raises(DTypeError, match=f"a tensor holds floats, integers or booleans, {said}"):
        tensor(data)


def test_a_dtype_that_is_no_number_is_refused():
    with pytest.raises(DTypeError, match="not float64 as complex64"):
        tensor([1.0], dtype="complex64")


def test_nested_lists_of_unequal_lengths_are_refused():
    with pytest.raises(ShapeError, match="nested lists of unequal lengths"):
        tensor([[1.0, 2.0], [3.0]])


def test_as_tensor_shares_memory_and_returns_tensors_as_they_are():
    values = np.array([1.0, 2.0])
    x = as_tensor(values)
    values[0] = 9.0
    assert x.tolist() == [9.0, 2.0]
    assert as_tensor(x) is x
    assert as_tensor(x, dtype="float64") is x
    assert as_tensor(x, dtype="float32").dtype == np.float32
    assert as_tensor([1, 2]).dtype == np.int64


def test_as_tensor_of_another_dtype_stays_in_the_graph():
    x = tensor([2.0], requires_grad=True)
    square(as_tensor(x, dtype="float64")).backward()
    assert x.grad.tolist() == [4.0] and x.grad.dtype == np.float32


# -- requires_grad -----------------------------------------------------------------------------


@pytest.mark.parametrize("data", [[1, 2], [True], np.ones(2, "uint8")], ids=repr)
def test_integers_have_no_gradients(data):
    with pytest.raises(DTypeError, match="make it with dtype='float32'"):
        tensor(data, requires_grad=True)
    with pytest.raises(DTypeError, match="only floating-point tensors have gradients"):
        tensor(data).requires_grad_()


def test_requires_grad_can_be_switched():
    x = tensor([1.0])
    assert not square(x).requires_grad
    x.requires_grad = True
    assert square(x).requires_grad
    assert x.requires_grad_(False) is x
    assert not square(x).requires_grad


def test_a_computed_tensor_keeps_requiring_a_gradient():
    y = square(tensor([1.0], requires_grad=True))
    y.requires_grad = True
    assert not y.is_leaf
    with pytest.raises(GraphError, match=r"use x.detach\(\)"):
        y.requires_grad = False


def test_leaves():
    x = tensor([1.0], requires_grad=True)
    y = square(x)
    assert x.is_leaf and tensor([1.0]).is_leaf and y.detach().is_leaf
    assert not y.is_leaf
    y.backward()
    assert not y.is_leaf  # though its graph was released
    with no_grad():
        assert square(x).is_leaf


def test_detach_shares_the_memory_and_drops_the_history():
    x = tensor([2.0], requires_grad=True)
    y = square(x)
    detached = y.detach()
    assert not detached.requires_grad
    assert np.shares_memory(detached.data, y.data)
    multiply(detached, x).backward()
    assert x.grad.item() == 4.0  # the square is a constant here


# -- values ------------------------------------------------------------------------------------


def test_replacing_the_data():
    x = tensor([1.0, 2.0], requires_grad=True)
    values = np.array([3.0, 4.0], dtype="float32")
    x.data = values
    values[:] = 9.0
    assert x.tolist() == [3.0, 4.0]
    assert x.requires_grad and x.is_leaf
    with pytest.raises(ShapeError, match=r"data of shape \(3,\) cannot replace data of \(2,\)"):
        x.data = np.ones(3)
    with pytest.raises(DTypeError, match="only floating-point tensors have gradients"):
        x.data = [1, 2]
    assert x.tolist() == [3.0, 4.0]


def test_a_leaf_whose_dtype_is_replaced_gets_gradients_of_the_new_one():
    x = tensor([1 / 3], requires_grad=True)
    x.data = x.data.astype("float64")
    square(x).backward([1 / 3])
    assert x.grad.dtype == np.float64
    assert x.grad.item() == 2 * x.item() * (1 / 3)


def test_item_and_tolist():
    assert tensor([[2.5]]).item() == 2.5
    assert type(tensor(True).item()) is bool
    assert tensor([[1, 2]]).tolist() == [[1, 2]]
    with pytest.raises(ShapeError, match=r"exactly one element, the tensor has shape \(2,\)"):
        tensor([1.0, 2.0]).item()


def test_numpy_reads_a_tensor():
    x = tensor([1.0, 2.0])
    assert np.asarray(x).tolist() == [1.0, 2.0]
    assert np.asarray(x, dtype="float64").dtype == np.float64
    assert np.array(x, copy=True).flags.writeable
    assert np.shares_memory(np.asarray(x), x.data)
    with pytest.raises(ValueError, match="copy"):
        np.array(x, dtype="float64", copy=False)


def test_numpys_functions_are_refused_rather_than_losing_the_graph():
    with pytest.raises(TypeError, match="does not support ufuncs"):
        np.exp(tensor([1.0], requires_grad=True))


def test_python_numbers_out_of_tensors():
    x = tensor([2.5])
    assert (float(x), int(x), bool(x)) == (2.5, 2, True)
    assert not tensor(0.0)
    assert [10, 20, 30][tensor(1)] == 20
    assert list(range(5))[tensor(1) : tensor(3)] == [1, 2]
    assert f"{x:.3f}" == "2.500"
    assert f"{x}" == repr(x)
    with pytest.raises(TypeError, match="only an integer tensor can be an index"):
        [10, 20][tensor(1.0)]
    with pytest.raises(ShapeError, match="exactly one element"):
        bool(tensor([1.0, 2.0]))


def test_length_and_hash():
    x = tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    assert len(x) == 3
    with pytest.raises(TypeError, match="without axes has no length"):
        len(tensor(1.0))
    with pytest.raises(TypeError, match="without axes"):
        iter(tensor(1.0))
    assert len({x, x, tensor(1.0), tensor(1.0)}) == 3  # by identity


def test_iteration_gives_rows_that_are_still_in_the_graph(monkeypatch):
    monkeypatch.setattr(Tensor, "__getitem__", lambda x, i: take(x, index=i), raising=False)
    x = tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True)
    first, second = x
    total(multiply(first, second)).backward()
    assert x.grad.tolist() == [[3.0, 4.0], [1.0, 2.0]]


def test_setting_the_gradient():
    x = tensor([1.0, 2.0], requires_grad=True)
    x.grad = tensor([3.0, 4.0])
    x.grad *= 2.0
    assert x.grad.tolist() == [6.0, 8.0]
    x.grad = np.array([5.0, 6.0], "float32")
    total(square(x)).backward()
    assert x.grad.tolist() == [7.0, 10.0]
    for wrong, said in ((0, "not 0"), (tensor([1.0]), r"not \(1,\) float32"), ([1.0, 2.0], "not ")):
        with pytest.raises(ShapeError, match=rf"of shape \(2,\) is a tensor of that .*{said}"):
            x.grad = wrong
    x.grad = None
    assert x.grad is None


# -- writing -----------------------------------------------------------------------------------


def test_writing_into_a_tensor():
    x = tensor([1.0, 2.0, 3.0])
    x[0] = 10.0
    x[tensor([1])] = tensor([20.0])
    assert x.tolist() == [10.0, 20.0, 3.0]
    assert x.copy_([4, 5, 6]) is x
    assert x.tolist() == [4.0, 5.0, 6.0]
    assert x.fill_(2.0).tolist() == [2.0] * 3
    assert x.zero_().tolist() == [0.0] * 3
    assert x.dtype == np.float32


def test_updates_are_in_place_where_nothing_is_recorded():
    x = tensor([8.0, 4.0])
    same, memory = x, x.data
    x += 1.0
    x -= tensor([3.0, 1.0])
    x *= np.array([2.0, 0.5])
    x /= 2
    assert x is same and np.shares_memory(x.data, memory)
    assert x.tolist() == [6.0, 1.0]
    assert x.dtype == np.float32


def test_a_number_is_updated_in_place_too():
    x = tensor(1.0)
    memory = x.data
    x += 1.0
    assert memory.item() == 2.0


def test_updating_a_computed_tensor_is_recorded(monkeypatch):
    monkeypatch.setattr(Tensor, "__add__", add, raising=False)
    x = tensor([2.0], requires_grad=True)
    y = before = exp(x)
    y += 1.0
    assert y is not before
    y.backward()
    assert x.grad.item() == pytest.approx(np.exp(2.0), rel=1e-6)


def test_a_leaf_is_not_updated_while_recording():
    x = tensor([1.0], requires_grad=True)
    with pytest.raises(GraphError) as error:
        x += 1.0
    assert str(error.value) == (
        "a leaf that requires a gradient cannot be changed in place while operations are "
        "recorded: update it inside `with no_grad():`"
    )
    assert x.item() == 1.0


def test_writing_is_refused_where_it_would_have_to_be_recorded():
    x, w = tensor([1.0, 2.0]), tensor([3.0], requires_grad=True)
    for target, value in ((w, 1.0), (square(w), 1.0), (x, square(w))):
        with pytest.raises(GraphError, match="cannot be recorded for a gradient"):
            target[...] = value
    with no_grad():
        x[:1] = square(w)
    assert x.tolist() == [9.0, 2.0]


@pytest.mark.parametrize(
    ("write", "kind", "said"),
    [
        (
            lambda x: x.__setitem__(slice(0, 2), np.ones(3)),
            ValueError,
            r"x\[index\] = value: .*\(given: \(3,\) float32, \(3,\) float64\)",
        ),
        (lambda x: x.__setitem__(7, 1.0), IndexError, r"x\[index\] = value: index 7 is out"),
        (lambda x: x.__iadd__(np.ones((2, 3))), ValueError, r"x \+= y: .*\(2, 3\) float64"),
        (lambda x: x.__imul__("a"), TypeError, r"x \*= y: "),
    ],
)
def test_errors_of_writing_say_what_was_given(write, kind, said):
    x = tensor([1.0, 2.0, 3.0])
    with pytest.raises(kind, match=said):
        write(x)
    assert x.tolist() == [1.0, 2.0, 3.0]


def test_integers_are_not_turned_to_floats_silently():
    x = tensor([1, 2])
    with pytest.raises(TypeError, match=r"x \+= y: .*int64"):
        x += 0.5
    assert x.tolist() == [1, 2]


# -- copies ------------------------------------------------------------------------------------


def test_a_deep_copy_has_its_own_memory_and_gradient():
    x = tensor([1.0, 2.0], requires_grad=True)
    total(square(x)).backward()
    other = copy.deepcopy({"x": x, "again": x})
    assert other["x"] is other["again"]
    y = other["x"]
    assert y.requires_grad and y.is_leaf
    assert y.grad.tolist() == [2.0, 4.0]
    assert not np.shares_memory(y.data, x.data)
    total(square(y)).backward()
    assert y.grad.tolist() == [4.0, 8.0]
    assert x.grad.tolist() == [2.0, 4.0]


def test_a_shallow_copy_shares_its_memory():
    x = tensor([1.0], requires_grad=True)
    y = copy.copy(x)
    assert y is not x and y.requires_grad
    assert np.shares_memory(x.data, y.data)
    square(y).backward()
    assert x.grad is None and y.grad.item() == 2.0


def test_a_pickled_leaf():
    x = pickle.loads(pickle.dumps(tensor([1.0, 2.0], requires_grad=True)))
    assert x.requires_grad and x.tolist() == [1.0, 2.0]
    total(square(x)).backward()
    assert x.grad.tolist() == [2.0, 4.0]


def test_a_copy_keeps_its_subclass():
    class Parameter(Tensor):
        pass

    assert type(copy.deepcopy(Parameter([1.0], requires_grad=True))) is Parameter


def test_computed_tensors_are_not_copied_with_their_history():
    y = square(tensor([1.0], requires_grad=True))
    for attempt in (copy.deepcopy, copy.copy, pickle.dumps):
        with pytest.raises(GraphError, match=r"only leaf tensors can be copied or pickled"):
            attempt(y)
    assert copy.deepcopy(y.detach()).item() == 1.0


# -- how it is shown ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("x", "shown"),
    [
        (lambda: tensor(1.0), "tensor(1.)"),
        (lambda: tensor(3), "tensor(3)"),
        (lambda: tensor([True, False]), "tensor([ True, False])"),
        (lambda: tensor([1.0, 2.5]), "tensor([1. , 2.5])"),
        (lambda: tensor([1 / 3, 200.0]), "tensor([  0.3333, 200.    ])"),
        (lambda: tensor([[1, 2], [3, 4]]), "tensor([[1, 2],\n        [3, 4]])"),
        (lambda: tensor(np.ones(2)), "tensor([1., 1.], dtype=float64)"),
        (lambda: tensor([1], dtype="uint8"), "tensor([1], dtype=uint8)"),
        (lambda: tensor([1.0], requires_grad=True), "tensor([1.], requires_grad=True)"),
        (lambda: exp(tensor([0.0], requires_grad=True)), "tensor([1.], op=<exp>)"),
        (lambda: tensor(np.ones((0, 3), "float32")), "tensor([], shape=(0, 3))"),
        (
            lambda: tensor(np.zeros(1000, "float32")),
            "tensor([0., 0., 0., ..., 0., 0., 0.])",
        ),
    ],
)
def test_repr(x, shown):
    assert repr(x()) == shown


def test_repr_names_no_default_dtype(float64_by_default):
    assert repr(tensor([1.0])) == "tensor([1.])"
    assert repr(tensor([1.0], dtype="float32")) == "tensor([1.], dtype=float32)"


def test_requiring_a_gradient_twice_changes_nothing():
    x = tensor([2.0], requires_grad=True)
    y = square(x)
    x.requires_grad_()
    x.data = np.array([3.0], "float32")
    (dx,) = grad(y, x)
    assert dx.item() == 4


def test_new_data_of_another_dtype_takes_gradients_of_that_dtype():
    x = tensor([2.0], requires_grad=True)
    x.data = np.array([3.0])
    square(x).backward()
    assert x.grad.dtype == np.float64


def test_a_list_takes_the_dtype_of_its_tensors():
    assert tensor([tensor(1.0), 2.0]).dtype == np.float32
    assert tensor([tensor(1.0), tensor(np.float64(2.0))]).dtype == np.float64
