import math

import numpy as np
import pytest

import minitorch_attn as mt
from minitorch_attn.nn import init


def drawn(fill, *shape):
    t = mt.zeros(*shape, dtype="float64")
    assert fill(t, generator=np.random.default_rng(0)) is t
    return t.numpy()


@pytest.mark.parametrize(
    ("fill", "bound"),
    [
        (lambda t, generator: init.uniform_(t, -0.3, 0.3, generator), 0.3),
        (init.xavier_uniform_, math.sqrt(6 / (9 * 30 + 9 * 40))),
        (init.kaiming_uniform_, math.sqrt(6 / (9 * 30))),
        (
            lambda t, generator: init.kaiming_uniform_(
                t, 2.0, "fan_out", "leaky_relu", generator
            ),
            math.sqrt(3) * math.sqrt(2 / 5) / math.sqrt(9 * 40),
        ),
        (lambda t, generator: init.kaiming_uniform_(t, math.sqrt(5), generator=generator),
         1 / math.sqrt(9 * 30)),
    ],
    ids=["uniform", "xavier", "kaiming", "kaiming fan out", "kaiming of a layer"],
)  # fmt: skip
def test_uniform_fillings_reach_their_bound_and_no_further(fill, bound):
    values = drawn(fill, 40, 30, 3, 3)
    assert np.abs(values).max() <= bound and np.abs(values).max() > 0.999 * bound
    assert abs(values.std() * math.sqrt(3) / bound - 1) < 0.02 and abs(values.mean()) < 0.02 * bound


@pytest.mark.parametrize(
    ("fill", "std"),
    [
        (lambda t, generator: init.normal_(t, 0.0, 0.3, generator), 0.3),
        (lambda t, generator: init.xavier_normal_(t, 2.0, generator), 2 * math.sqrt(2 / (9 * 70))),
        (init.kaiming_normal_, math.sqrt(2 / (9 * 30))),
        (
            lambda t, generator: init.kaiming_normal_(
                t, mode="fan_out", nonlinearity="tanh", generator=generator
            ),
            5 / 3 / math.sqrt(9 * 40),
        ),
    ],
    ids=["normal", "xavier", "kaiming", "kaiming fan out"],
)
def test_normal_fillings_have_their_standard_deviation(fill, std):
    values = drawn(fill, 40, 30, 3, 3)
    assert abs(values.std() / std - 1) < 0.02 and abs(values.mean()) < 0.02 * std
    assert abs((np.abs(values) < std).mean() - 0.6827) < 0.01


def test_a_normal_filling_has_its_mean():
    assert (
        abs(drawn(lambda t, generator: init.normal_(t, 3.0, 1.0, generator), 10_000).mean() - 3)
        < 0.05
    )


def test_truncated_normals_lie_inside_and_keep_their_shape():
    torch = pytest.importorskip("torch")
    values = drawn(lambda t, generator: init.trunc_normal_(t, 0.5, 2.0, -1, 2, generator), 40_000)
    assert values.min() >= -1 and values.max() <= 2
    torch.manual_seed(0)
    theirs = torch.nn.init.trunc_normal_(torch.empty(40_000), 0.5, 2.0, -1, 2).numpy()
    shares = np.linspace(0.01, 0.99, 33)
    np.testing.assert_allclose(np.quantile(values, shares), np.quantile(theirs, shares), atol=0.05)
    with pytest.raises(ValueError, match=r"\[4, 5\] holds almost nothing"):
        init.trunc_normal_(mt.zeros(3), a=4, b=5)


def test_constants():
    t = mt.zeros(2, 2)
    assert init.constant_(t, 3).tolist() == [[3, 3], [3, 3]]
    assert init.ones_(t).tolist() == [[1, 1], [1, 1]]
    assert init.zeros_(t) is t and t.tolist() == [[0, 0], [0, 0]]


@pytest.mark.parametrize(
    "name", ["linear", "conv2d", "sigmoid", "tanh", "relu", "leaky_relu", "selu"]
)
def test_gains_are_pytorchs(name):
    torch = pytest.importorskip("torch")
    assert init.calculate_gain(name) == pytest.approx(torch.nn.init.calculate_gain(name), 1e-12)
    theirs = torch.nn.init.calculate_gain("leaky_relu", 0.3)
    assert init.calculate_gain("leaky_relu", 0.3) == pytest.approx(theirs, 1e-12)


def test_what_cannot_be_filled_is_explained():
    with pytest.raises(ValueError, match="no gain is known for 'swish', only for linear, conv1d"):
        init.calculate_gain("swish")
    with pytest.raises(ValueError, match="mode must be 'fan_in' or 'fan_out', not 'fan_up'"):
        init.kaiming_normal_(mt.zeros(2, 2), mode="fan_up")
    with pytest.raises(mt.ShapeError, match=r"at least the axes \(out, in\) .* not \(3,\)"):
        init.xavier_normal_(mt.zeros(3))


def test_the_default_generator_is_the_seeded_one():
    mt.manual_seed(1)
    first = init.normal_(mt.zeros(3)).tolist()
    mt.manual_seed(1)
    assert init.normal_(mt.zeros(3)).tolist() == first


def test_filling_a_parameter_is_no_recorded_operation():
    p = mt.nn.Parameter(mt.zeros(3, 3))
    init.kaiming_uniform_(p)
    assert p.is_leaf and p.requires_grad
