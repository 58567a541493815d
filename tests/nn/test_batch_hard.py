import numpy as np
import pytest

import minitorch_attn as mt
from minitorch_attn import nn

from .parity import close, normal

FEATURES = normal(9, 4)
IDENTITIES = np.array([0, 1, 0, 2, 1, 0, 2, 2, 1])


def by_loops(features, identities):
    """Every pair looked at, as the definition says."""
    triplets = []
    for i, own in enumerate(identities):
        far = [np.linalg.norm(features[i] - f) for f in features]
        same = [j for j, t in enumerate(identities) if t == own and j != i]
        other = [j for j, t in enumerate(identities) if t != own]
        if same and other:
            triplets.append((i, max(same, key=far.__getitem__), min(other, key=far.__getitem__)))
    return np.array(triplets).reshape(-1, 3).T


@pytest.mark.parametrize("seed", range(5))
def test_the_hardest_are_the_farthest_of_the_own_and_the_nearest_of_the_others(seed):
    features, rng = normal(12, 3, seed=seed), np.random.default_rng(seed)
    identities = rng.integers(5, size=12)
    identities[0] = 9  # alone
    found = nn.hardest_triplets(features, identities)
    np.testing.assert_array_equal(found, by_loops(features, identities))
    assert 0 not in found[0]


def test_a_sample_that_was_put_in_twice_is_still_another_one():
    features = np.array([[0.0], [0.0], [5.0]])
    found = nn.hardest_triplets(features, [0, 0, 1])
    np.testing.assert_array_equal(found, [[0, 1], [1, 0], [2, 2]])


def test_features_far_from_zero_have_the_same_hardest_triplets():
    features = np.array([[0.0], [0.25], [1.0], [3.0], [3.5]])
    near, far = (nn.hardest_triplets(features + shift, [0, 0, 1, 1, 0]) for shift in (0, 2.0**30))
    np.testing.assert_array_equal(near, far)


def test_no_triplets_where_all_are_of_one_identity_or_each_of_its_own():
    for identities in (np.zeros(9, int), np.arange(9)):
        assert all(len(part) == 0 for part in nn.hardest_triplets(FEATURES, identities))


def test_features_of_bytes_and_of_single_precision_are_told_apart_as_well():
    expected = nn.hardest_triplets(FEATURES, IDENTITIES)
    far_away = mt.tensor(FEATURES + 1000, dtype="float32")
    np.testing.assert_array_equal(nn.hardest_triplets(far_away, IDENTITIES), expected)
    bytes_ = np.array([[0], [250], [10], [200]], np.uint8)
    np.testing.assert_array_equal(
        nn.hardest_triplets(bytes_, [0, 1, 0, 1])[1:], [[2, 3, 0, 1], [3, 2, 3, 2]]
    )


@pytest.mark.parametrize("margin", [0.3, 2.0, None])
def test_the_loss_and_its_gradient_are_those_of_the_formula(margin):
    torch = pytest.importorskip("torch")
    f = torch.tensor(FEATURES, requires_grad=True)
    d = (f[:, None] - f[None] + 1e-6).norm(dim=2)
    same = torch.tensor(IDENTITIES[:, None] == IDENTITIES)
    positive = (d * (same & ~torch.eye(9, dtype=bool))).max(dim=1).values
    negative = (d + 100.0 * same).min(dim=1).values
    gap = positive - negative
    loss = torch.log1p(gap.exp()) if margin is None else (gap + margin).clamp_min(0)
    loss.mean().backward()

    x = mt.tensor(FEATURES, requires_grad=True)
    ours = nn.BatchHardTripletLoss(margin)(x, mt.tensor(IDENTITIES))
    ours.backward()
    close(ours, loss.mean(), "float64", "loss")
    close(x.grad, f.grad, "float64", "gradient")


def test_the_gradient_check_passes():
    loss = nn.BatchHardTripletLoss(margin=5.0)
    assert mt.gradcheck(lambda f: loss(f, IDENTITIES), FEATURES).ok


def test_mistakes_are_explained():
    with pytest.raises(ValueError, match="margin must be greater than 0, or None .* not 0"):
        nn.BatchHardTripletLoss(0)
    with pytest.raises(ValueError, match="at least 2 pictures each of 2 identities"):
        nn.BatchHardTripletLoss()(FEATURES, np.arange(9))
    with pytest.raises(mt.ShapeError, match=r"hardest_triplets: .* \(9, 4\) and \(8,\)"):
        nn.hardest_triplets(FEATURES, IDENTITIES[:8])
    assert nn.BatchHardTripletLoss().extra_repr() == "margin=0.3"
