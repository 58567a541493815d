"""The reverse pass: its order, its memory, and what it says when it cannot go on."""

import gc
import tracemalloc
import weakref

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minitorch_attn.engine import (
    GraphError,
    ShapeError,
    Tensor,
    grad,
    no_grad,
    primitive,
    sum_to_shape,
    tensor,
)

from .primitives import add, exp, matmul, multiply, relu, reshape, scale, square, total


def leaf(*values: float, dtype: str = "float64") -> Tensor:
    return tensor(np.array(values, dtype), requires_grad=True)


# -- depth and width ---------------------------------------------------------------------------


def test_a_chain_of_100_000_operations_needs_no_recursion():
    x = leaf(1.0)
    y = x
    for _ in range(100_000):
        y = add(y, 1.0)
    y.backward(retain_graph=True)  # the graph stays whole, so that freeing it is tested too
    assert x.grad.item() == 1.0
    assert y.item() == 100_001.0
    del y


def test_a_deep_graph_that_no_backward_pass_used_is_freed_without_recursion():
    y = leaf(1.0)
    for _ in range(100_000):
        y = scale(y, by=1.0)
    first = weakref.ref(y._node)
    del y
    assert first() is None


def test_a_ladder_of_60_diamonds_calls_each_rule_once():
    calls = 0

    @primitive
    def double(a, b):
        def vjp(dy):
            nonlocal calls
            calls += 1
            return dy

        return a + b, (vjp, vjp)

    x = leaf(1.0)
    y = x
    for _ in range(60):  # 2^60 paths lead from the output to x
        y = double(y, y)
    y.backward()
    assert calls == 2 * 60
    assert x.grad.item() == 2.0**60


def test_a_node_waits_for_users_that_were_made_much_later():
    x = leaf(2.0)
    early = square(x)
    deep = early
    for _ in range(50):
        deep = add(deep, 0.0)
    add(deep, multiply(early, 3.0)).backward()
    assert x.grad.item() == pytest.approx(4 * 2 * 2.0)  # d/dx (x^2 + 3 x^2)


# -- accumulation ------------------------------------------------------------------------------


def test_gradients_of_several_uses_add_up():
    x = leaf(3.0)
    add(multiply(x, x), x).backward()
    assert x.grad.item() == 2 * 3 + 1


def test_gradients_of_several_backward_calls_add_up_until_they_are_forgotten():
    x = leaf(3.0, 4.0)
    for _ in range(3):
        total(square(x)).backward()
    assert x.grad.tolist() == [18.0, 24.0]
    x.zero_grad()
    assert x.grad is None
    total(square(x)).backward()
    assert x.grad.tolist() == [6.0, 8.0]


def test_leaves_do_not_share_the_memory_of_their_gradients():
    a, b = leaf(1.0, 2.0), leaf(3.0, 4.0)
    dy = np.ones(2)
    add(a, b).backward(dy)  # the rules of a sum hand on the very array that came in
    a.grad *= 10.0
    assert a.grad.tolist() == [10.0, 10.0]
    assert b.grad.tolist() == [1.0, 1.0]
    assert dy.tolist() == [1.0, 1.0]


def test_a_gradient_that_was_broadcast_can_be_written_to():
    x = leaf(1.0, 2.0)
    total(x).backward()  # the rule returns a read-only view of one number
    x.grad *= 2.0
    assert x.grad.tolist() == [2.0, 2.0]


def test_the_gradient_of_a_leaf_itself_is_the_one_given():
    x = leaf(1.0, 2.0)
    x.backward([3.0, 4.0])
    assert x.grad.tolist() == [3.0, 4.0]


def test_gradients_without_axes_stay_arrays():
    x = tensor(3.0, requires_grad=True)
    seen = []

    @primitive
    def watch(x):
        def vjp_x(dy):
            seen.append(type(dy))
            return dy

        return x, vjp_x

    for _ in range(2):
        y = watch(multiply(x, x))
        add(y, y).backward()
    assert seen == [np.ndarray, np.ndarray]  # though NumPy makes scalars of sums of 0-d arrays
    assert type(x.grad.data) is np.ndarray
    assert x.grad.item() == 24.0


def test_retained_gradients_of_computed_tensors():
    x = leaf(2.0)
    y = square(x)
    y.retain_grad()
    scale(y, by=5.0).backward()
    assert y.grad.item() == 5.0
    assert x.grad.item() == 20.0


def test_retain_grad_needs_a_graph():
    with pytest.raises(GraphError, match="requires a gradient"):
        tensor(1.0).retain_grad()


# -- releasing the graph -----------------------------------------------------------------------


def test_a_second_pass_over_a_released_graph_says_so():
    x = leaf(2.0)
    y = square(x)
    y.backward()
    with pytest.raises(GraphError) as error:
        y.backward()
    assert str(error.value) == (
        "the graph behind 'square' was released by an earlier backward(): compute the result "
        "again, or call the first backward(retain_graph=True)"
    )
    assert x.grad.item() == 4.0


def test_retain_graph_allows_a_second_pass():
    x = leaf(2.0)
    y = square(x)
    y.backward(retain_graph=True)
    y.backward()
    assert x.grad.item() == 8.0


def test_two_results_of_one_shared_part_cannot_both_release_it():
    x = leaf(2.0)
    shared = square(x)
    one, two = scale(shared, by=3.0), scale(shared, by=5.0)
    one.backward()
    with pytest.raises(GraphError, match="'square' was released"):
        two.backward()
    assert x.grad.item() == 12.0  # the failed pass added nothing


def test_two_results_of_one_shared_part_with_retain_graph():
    x = leaf(2.0)
    shared = square(x)
    scale(shared, by=3.0).backward(retain_graph=True)
    scale(shared, by=5.0).backward()
    assert x.grad.item() == (3 + 5) * 4.0


def test_an_error_in_mid_pass_leaves_every_gradient_untouched():
    x, w = leaf(1.0), leaf(2.0)
    x.grad = tensor([7.0])

    @primitive
    def broken(x):
        def vjp_x(dy):
            raise RuntimeError("no idea")

        return x, vjp_x

    y = scale(broken(x), by=2.0)
    y.retain_grad()
    with pytest.raises(RuntimeError, match="no idea"):
        multiply(y, w).backward()
    assert x.grad.item() == 7.0
    assert w.grad is None and y.grad is None


def test_what_rules_hold_is_freed_while_the_pass_goes():
    held, alive = [], []

    @primitive
    def step(x):
        saved = x + 1
        held.append(weakref.ref(saved))

        def vjp_x(dy):
            alive.append(sum(ref() is not None for ref in held))
            return dy * (saved > 0)

        return x + 1, vjp_x

    y = leaf(1.0)
    for _ in range(5):
        y = step(y)
    y.backward()
    assert alive == [5, 4, 3, 2, 1]
    assert not any(ref() for ref in held)


def test_retain_graph_keeps_what_rules_hold():
    x = leaf(1.0)
    y = exp(x)
    saved = weakref.ref(y._data)
    node = y._node
    y.backward(retain_graph=True)
    del y
    assert saved() is not None
    node.edges = None
    assert saved() is None


def test_activations_that_no_rule_needs_are_freed_in_the_forward_pass():
    x = leaf(1.0, 2.0)
    y = add(x, 1.0)
    activation = weakref.ref(y._data)
    y = add(y, 1.0)
    assert activation() is None
    total(y).backward()
    assert x.grad.tolist() == [1.0, 1.0]


def test_only_the_rules_that_are_needed_are_kept():
    x = leaf(1.0, 2.0)
    constant = tensor(np.array([5.0, 6.0]))
    held = weakref.ref(x._data)
    y = multiply(x, constant)  # only the gradient to x is needed: it holds the constant
    del x
    assert held() is None
    assert len(y._node.edges) == 1


def test_nothing_is_kept_without_gradients():
    held = []

    @primitive
    def watched(x):
        saved = x + 1
        held.append(weakref.ref(saved))
        return x * 1, lambda dy: dy * saved

    x = leaf(1.0)
    with no_grad():
        y = watched(x)
    z = watched(tensor([1.0]))
    assert [ref() for ref in held] == [None, None]
    assert not y.requires_grad and not z.requires_grad


def test_a_training_loop_without_the_garbage_collector_keeps_memory_flat():
    rng = np.random.default_rng(0)
    x = tensor(rng.standard_normal((16, 32)))
    w = tensor(rng.standard_normal((32, 32)), requires_grad=True)

    def step() -> None:
        hidden = relu(matmul(x, w))
        hidden.retain_grad()
        loss = total(square(hidden))
        loss.backward()
        with no_grad():
            w.copy_(w.data - 1e-4 * w.grad.data)
        w.grad = None

    gc.collect()
    gc.disable()
    tracemalloc.start()
    try:
        for _ in range(5):
            step()
        before, _ = tracemalloc.get_traced_memory()
        for _ in range(50):
            step()
        after, _ = tracemalloc.get_traced_memory()
        assert after - before < 5 * 16 * 32 * 8  # less than five activations in fifty steps
        assert gc.collect() == 0
    finally:
        tracemalloc.stop()
        gc.enable()


def test_a_forward_without_backward_leaves_no_garbage():
    x = leaf(1.0, 2.0)
    gc.collect()
    gc.disable()
    try:
        total(square(exp(x)))
        assert gc.collect() == 0
    finally:
        gc.enable()


# -- errors of users ---------------------------------------------------------------------------


def test_backward_without_a_graph():
    expected = (
        "backward() found no graph: no tensor this was computed from requires a gradient "
        "(make one with requires_grad=True), or it was computed in no_grad()"
    )
    with pytest.raises(GraphError) as error:
        tensor([1.0, 2.0]).backward()
    assert str(error.value) == expected
    with no_grad():
        y = total(leaf(1.0))
    with pytest.raises(GraphError, match="found no graph"):
        y.backward()


def test_backward_of_several_elements_needs_a_gradient():
    with pytest.raises(ShapeError) as error:
        square(leaf(1.0, 2.0)).backward()
    assert str(error.value) == (
        "backward() without a gradient needs one element, this tensor has shape (2,): reduce it "
        "first (for example .sum()), or pass gradient="
    )


def test_backward_with_a_gradient_of_another_shape():
    with pytest.raises(ShapeError, match=r"gradient of shape \(3,\) for a tensor of shape \(2,\)"):
        square(leaf(1.0, 2.0)).backward(np.ones(3))


def test_a_rule_that_returns_another_shape_names_its_operation():
    @primitive
    def careless(x):
        return x.sum(axis=0), lambda dy: dy[:2]

    with pytest.raises(ShapeError) as error:
        careless(tensor(np.ones((4, 3)), requires_grad=True)).backward(np.ones(3))
    assert str(error.value) == (
        "a rule of 'careless' returned a gradient of shape (2,) for an input of shape (4, 3): "
        "a gradient has the shape of its input"
    )


@pytest.mark.parametrize(
    ("returned", "said"),
    [
        (None, r"a rule of 'odd' returned NoneType, not an array \(is its `return` missing\?\)"),
        ([1.0], "a rule of 'odd' returned list, not an array"),
        (tensor([1.0]), "a rule of 'odd' returned Tensor, not an array"),
    ],
)
def test_a_rule_that_returns_no_array_names_its_operation(returned, said):
    @primitive
    def odd(x):
        return x, lambda dy: returned

    with pytest.raises(TypeError, match=said):
        odd(leaf(1.0)).backward()


def test_an_error_inside_a_rule_names_its_operation():
    @primitive
    def careless(x):
        return x * 2, lambda dy: dy @ np.ones((5, 5))

    with pytest.raises(ValueError, match=r"^the backward of 'careless': .*\(given: \(2,\) float64"):
        careless(leaf(1.0, 2.0)).backward(np.ones(2))


# -- dtypes ------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_gradients_have_the_dtype_of_their_tensors(dtype):
    x = leaf(1.0, 2.0, dtype=dtype)
    y = total(multiply(square(x), 0.5))
    assert y.dtype == dtype
    y.backward(np.float64(1.0))
    assert x.grad.dtype == dtype


def test_mixed_dtypes_give_each_input_a_gradient_of_its_own():
    single, double = leaf(1.0, dtype="float32"), leaf(2.0, dtype="float64")
    product = multiply(single, double)
    assert product.dtype == np.float64
    product.backward()
    assert single.grad.dtype == np.float32
    assert double.grad.dtype == np.float64


def test_rules_that_widen_are_cast_back():
    @primitive
    def widening(x):
        return x * 2, lambda dy: dy.astype(np.float64) * 2

    x = leaf(1.0, dtype="float32")
    y = multiply(x, 1.0)
    y.retain_grad()
    widening(y).backward()
    assert (y.grad.dtype, x.grad.dtype) == (np.float32, np.float32)


# -- undoing broadcasting ----------------------------------------------------------------------


@st.composite
def broadcast_pairs(draw):
    wide = draw(st.lists(st.integers(0, 4), max_size=4).map(tuple))
    kept = draw(st.integers(0, len(wide)))
    narrow = tuple(draw(st.sampled_from([1, n])) for n in wide[len(wide) - kept :])
    return wide, narrow


@given(broadcast_pairs())
def test_sum_to_shape_is_the_transpose_of_broadcasting(shapes):
    wide, narrow = shapes
    rng = np.random.default_rng(0)
    x, dy = rng.standard_normal(narrow), rng.standard_normal(wide)
    dx = sum_to_shape(dy, narrow)
    assert dx.shape == narrow
    # <dy, broadcast(x)> = <sum_to_shape(dy), x> for all x and dy says just that.
    assert np.sum(dy * np.broadcast_to(x, wide)) == pytest.approx(np.sum(dx * x), abs=1e-9)


@pytest.mark.parametrize(
    ("wide", "narrow"), [((3,), (4,)), ((3,), (2, 3)), ((2, 3), (2,)), ((), (1,))]
)
def test_sum_to_shape_refuses_what_does_not_broadcast(wide, narrow):
    with pytest.raises(ShapeError, match="does not broadcast"):
        sum_to_shape(np.ones(wide), narrow)


# -- random graphs against dense Jacobians -----------------------------------------------------


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_random_graphs_agree_with_jacobians_carried_forward(data):
    """Forward mode is the oracle: dy/dx as full matrices, by the chain rule, input to output."""
    size, seed = 3, data.draw(st.integers(0, 2**32 - 1))
    rng = np.random.default_rng(seed)
    leaves = [
        tensor(rng.uniform(0.5, 1.5, size), requires_grad=True)
        for _ in range(data.draw(st.integers(1, 3)))
    ]
    tensors = list(leaves)
    eye, zero = np.eye(size), np.zeros((size, size))
    jacobians = [[eye if i == j else zero for j in range(len(leaves))] for i in range(len(leaves))]
    for _ in range(data.draw(st.integers(1, 12))):
        op = data.draw(st.sampled_from(["add", "multiply", "square", "scale", "reshape"]))
        i, j = (data.draw(st.integers(0, len(tensors) - 1)) for _ in range(2))
        a, b = tensors[i], tensors[j]
        if op == "add":
            y, da, db = add(a, b), eye, eye
        elif op == "multiply":
            y, da, db = multiply(scale(a, by=0.3), b), np.diag(0.3 * b.data), np.diag(0.3 * a.data)
        elif op == "square":
            y, da, db = scale(square(a), by=0.3), np.diag(0.6 * a.data), zero
        elif op == "scale":
            y, da, db = scale(a, by=-0.7), -0.7 * eye, zero
        else:
            y, da, db = reshape(reshape(a, shape=(size, 1)), shape=(size,)), eye, zero
        tensors.append(y)
        jacobians.append([da @ ja + db @ jb for ja, jb in zip(jacobians[i], jacobians[j])])
    dy = rng.standard_normal(size)
    tensors[-1].backward(dy)
    for x, jacobian in zip(leaves, jacobians[-1]):
        got = np.zeros(size) if x.grad is None else x.grad.data
        np.testing.assert_allclose(got, dy @ jacobian, rtol=1e-9, atol=1e-9)


# -- grad() ------------------------------------------------------------------------------------


def test_grad_returns_gradients_and_touches_none():
    x, w = leaf(2.0), leaf(3.0)
    y = multiply(square(x), w)
    dx, dw = grad(y, [x, w])
    assert (dx.item(), dw.item()) == (12.0, 4.0)
    assert x.grad is None and w.grad is None


def test_gradients_of_grad_have_memory_of_their_own():
    a, b = leaf(1.0), leaf(2.0)
    da, db = grad(add(a, b), [a, b])
    da *= 5.0
    assert (da.item(), db.item()) == (5.0, 1.0)


def test_grad_of_computed_tensors():
    x = leaf(2.0)
    h = square(x)
    (dh,) = grad(scale(h, by=5.0), h, retain_graph=True)
    assert dh.item() == 5.0
    assert h.grad is None


def test_grad_with_a_cotangent_and_an_unused_input():
    x, unused = leaf(1.0, 2.0), leaf(1.0)
    y = square(x)
    with pytest.raises(GraphError, match=r"no gradient reaches input 1 of shape \(1,\)"):
        grad(y, [x, unused], np.ones(2), retain_graph=True)
    dx, nothing = grad(y, [x, unused], np.ones(2), allow_unused=True)
    assert dx.tolist() == [2.0, 4.0] and nothing is None
