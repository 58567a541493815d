import numpy as np
import pytest

import minitorch_attn as mt
import minitorch_attn.functional as F

from .parity import check_gradients, normal


def seeded(seed=0):
    return np.random.default_rng(seed)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_elements_are_zero_with_probability_p_and_scaled_otherwise(p, dtype):
    x = mt.ones(100, 400, dtype=dtype)
    y = F.dropout(x, p, generator=seeded())
    assert y.dtype == dtype
    kept = y.numpy() != 0
    np.testing.assert_allclose(y.numpy()[kept], 1 / (1 - p), rtol=1e-6)
    deviation = np.sqrt(p * (1 - p) / kept.size)
    assert kept.mean() == pytest.approx(1 - p, abs=5 * deviation)


def test_the_gradient_passes_where_the_value_passed():
    x = mt.tensor(normal(50, 4), requires_grad=True)
    y = F.dropout(x, 0.25, generator=seeded())
    y.backward(normal(50, 4, seed=1))
    expected = np.where(y.numpy() == 0, 0, normal(50, 4, seed=1) / 0.75)
    np.testing.assert_allclose(x.grad.numpy(), expected, rtol=1e-12)
    check_gradients(lambda x: F.dropout(x, 0.3, generator=seeded()), normal(4, 5))


def test_nothing_happens_without_training_or_with_p_of_zero():
    x = mt.tensor(normal(5, 4), requires_grad=True)
    assert F.dropout(x, 0.5, training=False) is x
    assert F.dropout(x, 0.0) is x
    assert isinstance(F.dropout(normal(5, 4), training=False), mt.Tensor)


def test_everything_is_dropped_with_p_of_one():
    x = mt.tensor(normal(5, 4), requires_grad=True)
    y = F.dropout(x, 1.0)
    y.sum().backward()
    assert not y.numpy().any() and not x.grad.numpy().any()


def test_the_noise_is_the_generators():
    x = mt.ones(20, 20)
    a, b = (F.dropout(x, generator=seeded(1)).numpy() for _ in range(2))
    np.testing.assert_array_equal(a, b)
    assert (a != F.dropout(x, generator=seeded(2)).numpy()).any()
    generator = seeded(1)
    first, second = (F.dropout(x, generator=generator).numpy() for _ in range(2))
    assert (first != second).any()


def test_without_a_generator_the_seed_of_the_library_counts():
    x = mt.ones(20, 20)
    mt.manual_seed(3)
    a = F.dropout(x).numpy()
    mt.manual_seed(3)
    np.testing.assert_array_equal(F.dropout(x).numpy(), a)


def test_the_same_elements_are_dropped_in_float32_and_float64():
    a, b = (F.dropout(mt.ones(9, 9, dtype=d), generator=seeded()) for d in ("float32", "float64"))
    np.testing.assert_array_equal(a.numpy(), b.numpy())


def test_an_empty_input_stays_empty():
    assert F.dropout(mt.ones(0, 3)).shape == (0, 3)


@pytest.mark.parametrize("p", [-0.1, 1.5, float("nan")])
def test_p_must_be_a_probability(p):
    with pytest.raises(ValueError, match="^dropout: p is a probability, from 0 to 1"):
        F.dropout(mt.ones(3), p)


# -- whole channels -------------------------------------------------------------------------------


def test_channels_are_kept_or_dropped_as_a_whole():
    y = F.dropout2d(mt.ones(100, 40, 3, 2), 0.25, generator=seeded()).numpy()
    assert set(np.unique(y)) == {0, np.float32(1 / 0.75)}
    np.testing.assert_array_equal(y, np.broadcast_to(y[:, :, :1, :1], y.shape))
    kept = y[:, :, 0, 0] != 0
    assert kept.mean() == pytest.approx(0.75, abs=5 * np.sqrt(0.25 * 0.75 / kept.size))


def test_the_gradient_passes_where_the_channel_passed():
    check_gradients(lambda x: F.dropout2d(x, 0.5, generator=seeded()), normal(3, 4, 2, 2))


def test_dropout2d_does_nothing_without_training_and_all_with_p_of_one():
    x = mt.tensor(normal(2, 3, 2, 2))
    assert F.dropout2d(x, 0.5, training=False) is x
    assert not F.dropout2d(x, 1.0).numpy().any()


def test_the_layer_drops_channels_in_training_only():
    layer, x = mt.nn.Dropout2d(0.5), mt.ones(20, 20, 2, 2)
    mt.manual_seed(0)
    y = layer(x).numpy()
    mt.manual_seed(0)
    np.testing.assert_array_equal(y, F.dropout2d(x, 0.5).numpy())
    np.testing.assert_array_equal(layer.eval()(x).numpy(), x.numpy())
    assert repr(layer) == "Dropout2d(0.5)"


def test_dropout2d_refuses_what_does_not_fit():
    with pytest.raises(
        mt.ShapeError, match=r"dropout2d: needs an input \(N, C, H, W\), got \(3, 2"
    ):
        F.dropout2d(mt.ones(3, 2, 2))
    with pytest.raises(ValueError, match="^dropout2d: p is a probability, from 0 to 1, not 2"):
        F.dropout2d(mt.ones(1, 3, 2, 2), 2)
    with pytest.raises(ValueError, match="^Dropout2d: p is a probability"):
        mt.nn.Dropout2d(-1)
