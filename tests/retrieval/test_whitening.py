import numpy as np
import pytest

from minitorch_attn.engine import ShapeError
from minitorch_attn.retrieval import PCAWhitening

from ..nn.parity import normal

LEARNT = normal(50, 6) @ normal(6, 6, seed=1) + 3
NEW = normal(4, 6, seed=2)


def test_what_it_learned_from_becomes_white():
    y = PCAWhitening(normalize=False).fit_transform(LEARNT)
    np.testing.assert_allclose(y.mean(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(y.T @ y / len(y), np.eye(6), atol=1e-10)


@pytest.mark.parametrize("whiten", [False, True])
def test_it_is_scikit_learns(whiten):
    decomposition = pytest.importorskip("sklearn.decomposition")
    ours = PCAWhitening(4, whiten, normalize=False).fit(LEARNT).transform(NEW)
    theirs = decomposition.PCA(4, whiten=whiten, svd_solver="full").fit(LEARNT).transform(NEW)
    if whiten:  # it divides by the unbiased spread
        theirs = theirs * np.sqrt(50 / 49)
    np.testing.assert_allclose(np.abs(ours), np.abs(theirs), rtol=1e-9)


def test_results_have_length_1():
    y = PCAWhitening(3).fit(LEARNT).transform(NEW)
    np.testing.assert_allclose(np.linalg.norm(y, axis=1), 1)
    assert y.shape == (4, 3)


def test_signs_do_not_depend_on_the_machine():
    directions = PCAWhitening().fit(LEARNT).directions
    largest = directions[np.abs(directions).argmax(axis=0), np.arange(6)]
    assert (largest > 0).all()


def test_directions_of_rounding_alone_are_left_out():
    flat = np.concatenate([LEARNT, LEARNT[:, :1] + LEARNT[:, 1:2]], axis=1)
    assert PCAWhitening().fit(flat).directions.shape == (7, 6)
    with pytest.raises(ValueError, match="7 components .* vary in 6 directions alone"):
        PCAWhitening(7).fit(flat)
    with pytest.raises(ValueError, match="vary in 0 directions"):
        PCAWhitening().fit(np.ones((5, 3)))


def test_regions_keep_their_axes_and_floats_their_dtype():
    whitening = PCAWhitening(2).fit(LEARNT)
    y = whitening.transform(normal(3, 5, 6).astype("float32"))
    assert y.shape == (3, 5, 2) and y.dtype == np.float32


def test_bad_input_is_refused_by_name():
    with pytest.raises(RuntimeError, match=r"call fit\(descriptors\) first"):
        PCAWhitening().transform(NEW)
    with pytest.raises(ShapeError, match="fitted to descriptors of 6 numbers, got"):
        PCAWhitening().fit(LEARNT).transform(normal(4, 5))
    with pytest.raises(ShapeError, match="two at least"):
        PCAWhitening().fit(LEARNT[:1])
    with pytest.raises(ValueError, match="components must be an integer of at least 1, not 0"):
        PCAWhitening(0)
    with pytest.raises(ValueError, match="components must be an integer of at least 1, not 2.0"):
        PCAWhitening(2.0)
    with pytest.raises(ShapeError, match=r"two at least, not \(4, 0\)"):
        PCAWhitening().fit(np.ones((4, 0)))
    broken = LEARNT.copy()
    broken[[3, 7], 1] = np.nan, np.inf
    with pytest.raises(ValueError, match="of 50 descriptors 2 hold nan or infinite .* rows 3, 7$"):
        PCAWhitening().fit(broken)


def test_it_is_learned_in_float64():
    learned = PCAWhitening().fit(LEARNT.astype("float32"))
    assert {learned.mean.dtype, learned.directions.dtype, learned.variances.dtype} == {
        np.dtype("float64")
    }
    np.testing.assert_allclose(learned.variances, PCAWhitening().fit(LEARNT).variances, rtol=1e-5)
