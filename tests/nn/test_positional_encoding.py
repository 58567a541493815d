import numpy as np
import pytest

import minitorch_attn as mt
from minitorch_attn import nn

from .parity import normal


def places(module, length):
    """What a module adds to tokens that are zero."""
    return module(mt.zeros(1, length, module.d_model, dtype="float64")).numpy()[0]


def test_sines_and_cosines_are_those_of_the_paper():
    p = places(nn.SinusoidalEncoding(4).double(), 4)
    np.testing.assert_allclose(p[0], [0, 1, 0, 1])
    np.testing.assert_allclose(
        p[1:],
        [
            [0.841471, 0.540302, 0.01, 0.99995],
            [0.909297, -0.416147, 0.019999, 0.9998],
            [0.141120, -0.989992, 0.029996, 0.99955],
        ],
        atol=5e-6,
    )


def test_a_shift_turns_every_pair_by_its_own_angle():
    mt.set_default_dtype("float64")
    try:
        p = places(nn.SinusoidalEncoding(6), 12)
    finally:
        mt.set_default_dtype("float32")
    for i, frequency in enumerate(10000 ** (-np.arange(3) / 3)):
        sin, cos = np.sin(5 * frequency), np.cos(5 * frequency)
        turned = p[:7, 2 * i : 2 * i + 2] @ np.array([[cos, -sin], [sin, cos]])
        np.testing.assert_allclose(turned, p[5:, 2 * i : 2 * i + 2], atol=1e-12)
    gram = p @ p.T
    for distance in range(12):
        assert np.ptp(np.diagonal(gram, distance)) < 1e-12


@pytest.mark.parametrize("kind", [nn.SinusoidalEncoding, nn.LearnedEncoding])
def test_tokens_that_start_later_get_later_places(kind):
    module, x = kind(6, max_len=9), mt.tensor(normal(2, 9, 6).astype("float32"))
    whole = module(x).numpy()
    np.testing.assert_array_equal(module(x[:, 4:7], start=4).numpy(), whole[:, 4:7])
    assert whole.dtype == np.float32


@pytest.mark.parametrize("kind", [nn.SinusoidalEncoding, nn.LearnedEncoding])
def test_more_tokens_than_places_are_refused(kind):
    module = kind(6, max_len=4)
    with pytest.raises(mt.ShapeError, match=r"up to place 4, but it has 4 places.*max_len=5"):
        module(mt.ones(2, 5, 6))
    with pytest.raises(mt.ShapeError, match=r"up to place 4.*max_len=5"):
        module(mt.ones(2, 1, 6), start=4)
    with pytest.raises(mt.ShapeError, match=r"needs tokens \(N, L, 6\), not \(2, 5, 4\)"):
        module(mt.ones(2, 5, 4))


def test_only_learned_places_are_parameters_and_have_gradients():
    assert not nn.SinusoidalEncoding(6).state_dict()
    module = nn.LearnedEncoding(6, max_len=4)
    assert module.state_dict()["weight"].shape == (4, 6)
    module(mt.ones(3, 2, 6)).sum().backward()
    np.testing.assert_array_equal(module.weight.grad.numpy(), [[3.0] * 6] * 2 + [[0.0] * 6] * 2)


def test_rotary_scores_depend_on_the_distance_alone():
    module = nn.RotaryEncoding(6)
    q, k = (mt.tensor(np.broadcast_to(normal(6, seed=i), (10, 6)).copy()) for i in (0, 1))
    scores = (module(q) @ module(k).transpose(0, 1)).numpy()
    for distance in range(-9, 10):
        assert np.ptp(np.diagonal(scores, distance)) < 1e-12
    assert np.ptp(scores) > 0.5
    np.testing.assert_allclose(np.diagonal(scores), (q.numpy() * k.numpy()).sum(axis=1))


def test_rotary_turns_neighbouring_pairs_as_complex_numbers():
    x = normal(2, 3, 7, 6)
    y = nn.RotaryEncoding(6, base=100.0)(mt.tensor(x), start=4).numpy()
    z = x[..., 0::2] + 1j * x[..., 1::2]
    turned = z * np.exp(1j * np.arange(4, 11)[:, None] * 100.0 ** (-np.arange(3) / 3))
    np.testing.assert_allclose(y[..., 0::2], turned.real, atol=1e-12)
    np.testing.assert_allclose(y[..., 1::2], turned.imag, atol=1e-12)
    report = mt.gradcheck(nn.RotaryEncoding(6), x)
    assert not any(i.warning for i in report.inputs)


@pytest.mark.parametrize("kind", [nn.SinusoidalEncoding, nn.RotaryEncoding])
@pytest.mark.parametrize("features", [0, 5])
def test_features_that_cannot_be_paired_are_refused(kind, features):
    with pytest.raises(
        ValueError, match=f"{kind.__name__}: features come in pairs.*not {features}"
    ):
        kind(features)


def test_rotary_refuses_heads_of_another_width():
    with pytest.raises(mt.ShapeError, match=r"queries or keys \(..., L, 6\), not \(2, 5, 4\)"):
        nn.RotaryEncoding(6)(mt.ones(2, 5, 4))


@pytest.mark.parametrize("kind", [nn.SinusoidalEncoding, nn.LearnedEncoding, nn.RotaryEncoding])
def test_no_token_stands_before_the_first_place(kind):
    with pytest.raises(ValueError, match="places count from 0, so no token starts at place -1"):
        kind(6)(mt.ones(2, 5, 6), start=-1)


@pytest.mark.parametrize("kind", [nn.SinusoidalEncoding, nn.LearnedEncoding, nn.RotaryEncoding])
def test_tokens_may_come_as_lists(kind):
    tokens = [[[1.0, 2.0, 3.0, 4.0]] * 3]
    module = kind(4)
    np.testing.assert_array_equal(module(tokens).data, module(mt.tensor(tokens)).data)


def test_they_print_their_sizes():
    assert repr(nn.SinusoidalEncoding(6)).startswith("SinusoidalEncoding(6, max_len=5000)")
    assert repr(nn.LearnedEncoding(6, 4)).startswith("LearnedEncoding(6, max_len=4)")
    assert repr(nn.RotaryEncoding(6)).startswith("RotaryEncoding(6)")
