import numpy as np
import pytest

import minitorch_attn as mt
from minitorch_attn.data import IdentityLoader, TensorDataset

LABELS = np.array([3, 5, 3, 7, 5, 3, 7, 9, 3, 5])  # 9 has one picture, 7 two


def loader(**settings):
    dataset = TensorDataset(np.arange(10.0)[:, None], LABELS)
    return IdentityLoader(dataset, LABELS, **{"identities": 2, "pictures": 3, **settings})


def test_a_batch_holds_some_identities_with_some_pictures_each():
    batches = list(loader(generator=0))
    assert len(batches) == len(loader()) == 2
    for x, t in batches:
        assert isinstance(x, mt.Tensor) and x.shape == (6, 1)
        assert (t.numpy().reshape(2, 3) == t.numpy()[::3, None]).all()
        np.testing.assert_array_equal(LABELS[x.numpy()[:, 0].astype(int)], t.numpy())
    shown = np.concatenate([t.numpy()[::3] for _, t in batches])
    np.testing.assert_array_equal(np.sort(shown), [3, 5, 7, 9])


def test_pictures_repeat_only_where_an_identity_has_too_few():
    for _ in range(5):
        for x, t in loader(generator=1):
            for identity, pictures in zip(t.numpy()[::3], x.numpy().reshape(2, 3), strict=True):
                assert len(set(pictures)) == min(3, (identity == LABELS).sum())


def test_epochs_differ_and_a_seed_repeats_them():
    def epochs(count):
        one = loader(generator=4)
        return [np.concatenate([x.numpy() for x, _ in one]) for _ in range(count)]

    first, second = epochs(2)
    assert not np.array_equal(first, second)
    np.testing.assert_array_equal(epochs(2), [first, second])


def test_company_and_pictures_change_from_epoch_to_epoch():
    one = loader(pictures=2, generator=0)
    batches = [(x.numpy()[:, 0], t.numpy()) for _ in range(10) for x, t in one]
    assert len({frozenset(t) for _, t in batches}) > 3  # who is beside whom
    assert len({frozenset(x[t == 3]) for x, t in batches if 3 in t}) > 2  # two of its four


def test_identities_that_fill_no_batch_are_left_out():
    assert [len(t.numpy()) for _, t in loader(identities=3, generator=0)] == [9]


def test_mistakes_are_explained():
    with pytest.raises(ValueError, match="a batch needs 5 identities, the labels hold 4"):
        loader(identities=5)
    with pytest.raises(ValueError, match="pictures must be"):
        loader(pictures=0)
    with pytest.raises(mt.ShapeError, match=r"one label for each of 10 samples, .* \(9,\)"):
        IdentityLoader(np.zeros((10, 1)), LABELS[:9])
