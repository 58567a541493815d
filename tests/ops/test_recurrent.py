import numpy as np
import pytest

import minitorch_attn as mt
from minitorch_attn.ops import recurrent
from minitorch_attn.ops.packing import pack, unpack
from minitorch_attn.ops.recurrent import recurrence

from .parity import check_gradients, normal

N, D = 3, 2
STEPS = {  # G, and how many parts the state has
    "rnn_tanh": (1, 1),
    "rnn_relu": (1, 1),
    "lstm": (4, 2),
    "gru": (3, 1),
}


def operands(name, batch_sizes=(3, 3, 2, 1), bias=True):
    G, parts = STEPS[name]
    B = sum(batch_sizes)
    state = [normal(N, D, seed=k) for k in range(parts)]
    b = normal(G * D) if bias else None
    return normal(B, G * D), normal(G * D, D), b, *state


@pytest.mark.parametrize("name", STEPS)
@pytest.mark.parametrize("reverse", [False, True])
def test_gradients_of_all_steps(name, reverse):
    step = getattr(recurrent, name)
    for batch_sizes in ((3, 3, 2, 1), (3, 3)):
        check_gradients(
            recurrence,
            *operands(name, batch_sizes),
            step=step,
            batch_sizes=batch_sizes,
            reverse=reverse,
        )
    check_gradients(
        recurrence,
        *operands(name, bias=False),
        step=step,
        batch_sizes=(3, 3, 2, 1),
        reverse=reverse,
    )


@pytest.mark.parametrize("name", STEPS)
@pytest.mark.parametrize("reverse", [False, True])
def test_all_steps_are_one_step_after_the_other(name, reverse):
    """In one call, or in a call for each element: the same states and the same gradients."""
    step, sizes = getattr(recurrent, name), (3, 3, 3)
    found = []
    for split in (False, True):
        a, weight, bias, *state = (mt.tensor(x, requires_grad=True) for x in operands(name, sizes))
        leaves, parts = (a, weight, bias, *state), len(state)
        settings = {"step": step, "reverse": reverse}
        if split:
            outputs = {}
            for t in (2, 1, 0) if reverse else (0, 1, 2):
                share = a[t * N : (t + 1) * N]
                y = recurrence(share, weight, bias, *state, batch_sizes=(N,), **settings)
                state = [y[(k + 1) * N : (k + 2) * N] for k in range(parts)]
                outputs[t] = y[:N]
            y = mt.functional.cat([outputs[0], outputs[1], outputs[2], *state])
        else:
            y = recurrence(a, weight, bias, *state, batch_sizes=sizes, **settings)
        y.backward(normal(*y.shape))
        found.append([y.numpy(), *(leaf.grad.numpy() for leaf in leaves)])
    for one_call, many in zip(*found):
        np.testing.assert_allclose(one_call, many, atol=1e-13)


@pytest.mark.parametrize("name", STEPS)
def test_a_sequence_that_is_over_keeps_its_state(name):
    a, weight, bias, *state = operands(name, (3, 1))
    y = recurrence(a, weight, bias, *state, step=getattr(recurrent, name), batch_sizes=(3, 1))
    outputs, last = y[:4].numpy(), y[4 : 4 + N].numpy()
    np.testing.assert_array_equal(last, outputs[[3, 1, 2]])


@pytest.mark.no_shadow("counts calls")
@pytest.mark.parametrize("name", STEPS)
def test_the_way_back_is_gone_once(name):
    """Five rules share one pass through time; with every dy it is gone anew."""
    calls = []

    def counted(*operands):
        new, rule = getattr(recurrent, name)(*operands)

        def counting(*dstate):
            calls.append(1)
            return rule(*dstate)

        return new, counting

    leaves = [mt.tensor(x, requires_grad=True) for x in operands(name, (3, 2))]
    y = recurrence(*leaves, step=counted, batch_sizes=(3, 2))
    dy = normal(*y.shape)
    y.backward(dy, retain_graph=True)
    assert len(calls) == 2
    first = leaves[0].grad.numpy().copy()
    y.backward(2 * dy)
    assert len(calls) == 4
    np.testing.assert_allclose(leaves[0].grad.numpy(), 3 * first)


def test_large_inputs_saturate_the_gates():
    a = np.full((3, 8), 1e4, "float32")
    zeros = np.zeros((3, 2), "float32")
    y = recurrence(
        -a, np.zeros((8, 2), "float32"), None, zeros, zeros, step=recurrent.lstm, batch_sizes=(3,)
    )
    assert y.dtype == "float32"
    np.testing.assert_array_equal(y.numpy(), 0)


def test_a_weight_changed_before_the_way_back_is_noticed():
    a, weight, bias, h = (mt.tensor(x, requires_grad=True) for x in operands("gru", (3,)))
    y = recurrence(a, weight, bias, h, step=recurrent.gru, batch_sizes=(3,))
    with mt.no_grad():
        weight -= 1
    with pytest.raises(RuntimeError, match="'recurrence' saved an array"):
        y.sum().backward()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({3: normal(3)}, r"h, and c, need one shape \(N, D\), not \(3,\)"),
        ({3: normal(3, 5)}, r"a state of 5 features needs a weight of shape \(G \* 5, 5\)"),
        ({0: normal(8, 6)}, r"9 elements and a weight of 6 rows need .* \(9, 6\), not \(8, 6\)"),
        ({2: normal(2)}, r"the bias needs shape \(6,\), .* not \(2,\)"),
    ],
)
def test_shapes_that_do_not_fit(changed, message):
    given = [changed.get(i, x) for i, x in enumerate(operands("gru"))]
    with pytest.raises(mt.ShapeError, match="^recurrence: " + message):
        recurrence(*given, step=recurrent.gru, batch_sizes=(3, 3, 2, 1))


@pytest.mark.parametrize("batch_sizes", [(2, 1), (3, 1, 2), ()])
def test_batch_sizes_fall_from_n(batch_sizes):
    with pytest.raises(mt.ShapeError, match="batch_sizes must fall from N = 3"):
        recurrence(*operands("gru"), step=recurrent.gru, batch_sizes=batch_sizes)


PLACES = (np.array([0, 2, 1]), np.array([1, 0, 1]))


def test_packing_and_unpacking_are_adjoint():
    check_gradients(pack, normal(3, 2, 4), places=PLACES)
    check_gradients(unpack, normal(3, 4), places=PLACES, size=(3, 2), value=7.0)
    padded, rows = normal(3, 2, 4), normal(3, 4)
    there = (pack(padded, places=PLACES).numpy() * rows).sum()
    back = (padded * unpack(rows, places=PLACES, size=(3, 2)).numpy()).sum()
    np.testing.assert_allclose(there, back)


def test_unpacking_fills_the_other_places():
    y = unpack(np.arange(3.0), places=PLACES, size=(3, 2), value=-1.0).numpy()
    np.testing.assert_array_equal(y, [[-1, 0], [-1, 2], [1, -1]])
    assert unpack(np.arange(3), places=PLACES, size=(3, 2)).dtype == np.int64
