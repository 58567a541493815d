"""Where the first value that is not a number came from: operation, layer, direction."""

import gc

import numpy as np
import pytest

from minitorch_attn.engine import AnomalyError, Tensor, detect_anomaly, inside_layer, tensor

from .primitives import add, exp, log, multiply, scale, square


def leaf(*values: float) -> Tensor:
    return tensor(np.array(values), requires_grad=True)


@pytest.fixture(autouse=True)
def quiet():
    with np.errstate(all="ignore"):
        yield


def test_nothing_is_said_outside():
    assert np.isnan(log(leaf(-1.0)).item())


def test_the_operation_that_made_the_first_nan():
    with pytest.raises(AnomalyError) as error, detect_anomaly():
        log(add(leaf(1.0, -3.0), 1.0))
    assert str(error.value) == "the forward of 'log' produced NaN from inputs without NaN"


def test_a_nan_that_was_given_is_said_to_be_given():
    with pytest.raises(AnomalyError, match="^the forward of 'add' produced NaN from NaN inputs$"):
        with detect_anomaly():
            add(leaf(np.nan), 1.0)
    with pytest.raises(AnomalyError, match="NaN inputs$"), detect_anomaly():
        add(leaf(1.0), float("nan"))


def test_the_layer_is_named():
    with pytest.raises(AnomalyError) as error, detect_anomaly():
        with inside_layer("encoder"), inside_layer("3"):
            log(leaf(-1.0))
    assert str(error.value) == (
        "the forward of 'log' in layer 'encoder.3' produced NaN from inputs without NaN"
    )


def test_the_first_infinity_is_named():
    with pytest.raises(AnomalyError) as error, detect_anomaly():
        with inside_layer("first"):
            y = exp(leaf(1000.0))
        with inside_layer("second"):
            y = scale(y, by=2.0)
            multiply(y, 0.0)
    assert str(error.value) == (
        "the forward of 'multiply' in layer 'second' produced NaN from inputs without NaN; the "
        "first infinity came from the forward of 'exp' in layer 'first'"
    )


def test_an_infinity_that_was_given_is_blamed_on_nobody():
    with pytest.raises(AnomalyError) as error, detect_anomaly():
        multiply(scale(leaf(np.inf), by=2.0), 0.0)
    assert "infinity" not in str(error.value)


def test_the_backward_names_the_operation_and_the_layer_of_its_forward():
    with detect_anomaly():
        x = leaf(0.0)
        with inside_layer("head"):
            y = multiply(exp(log(x)), 1.0)  # log(0) = -inf, exp(-inf) = 0: finite again
        with pytest.raises(AnomalyError) as error:
            y.backward()
    assert str(error.value) == (
        "the backward of 'log' in layer 'head' produced NaN from inputs without NaN; the first "
        "infinity came from the forward of 'log' in layer 'head'"
    )
    assert x.grad is None


def test_the_backward_of_a_number_without_axes_is_searched_too():
    with detect_anomaly():
        x = tensor(0.0, requires_grad=True)
        with pytest.raises(AnomalyError, match="the backward of 'log'"):
            exp(log(x)).backward()


def test_a_graph_that_was_recorded_outside_is_searched_without_layers():
    y = exp(log(leaf(0.0)))
    with pytest.raises(AnomalyError, match="^the backward of 'log' produced NaN"), detect_anomaly():
        y.backward()


def test_integers_are_no_anomaly():
    with detect_anomaly():
        assert square(tensor([1, 2])).tolist() == [1, 4]


def test_blocks_nest_and_end():
    with detect_anomaly() as outer:
        with detect_anomaly() as inner:
            exp(leaf(1000.0))
        assert inner.first_infinity and not outer.first_infinity
    with pytest.raises(RuntimeError), detect_anomaly():
        raise RuntimeError
    assert np.isnan(log(leaf(-1.0)).item())


def test_a_layer_ends_with_an_exception():
    with detect_anomaly() as inspector:
        with pytest.raises(RuntimeError), inside_layer("a"):
            raise RuntimeError
        assert inspector.layers == []


def test_layers_outside_cost_nothing_and_say_nothing():
    with inside_layer("a"):
        assert square(leaf(2.0)).item() == 4.0


def test_released_graphs_are_not_remembered():
    with detect_anomaly() as inspector:
        for _ in range(3):
            square(exp(leaf(1.0))).backward()
        gc.collect()
        assert len(inspector._layer_of) == 0
