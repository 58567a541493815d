import numpy as np
import pytest

import minitorch_attn as mt
from minitorch_attn.metrics import re_identification
from minitorch_attn.retrieval import mean_average_precision


def as_published(distances, q, g, q_camera, g_camera, ranks):
    """The evaluation of Market-1501, query by query and picture by picture."""
    curves, precisions = [], []
    for i in range(len(q)):
        hits = []
        for j in sorted(range(len(g)), key=lambda j: (distances[i, j], j)):
            if g[j] == q[i] and g_camera[j] == q_camera[i]:
                continue
            hits.append(int(g[j] == q[i]))
        if sum(hits) == 0:
            continue
        curves.append([int(sum(hits[: k + 1]) > 0) for k in range(ranks)])
        seen = [sum(hits[: k + 1]) / (k + 1) for k in range(len(hits))]
        precisions.append(sum(p * h for p, h in zip(seen, hits, strict=True)) / sum(hits))
    return np.mean(curves, axis=0), np.mean(precisions)


def a_search(seed):
    rng = np.random.default_rng(seed)
    d = rng.integers(20, size=(8, 15)) / 4  # with ties
    return (
        d,
        rng.integers(4, size=8),
        rng.integers(4, size=15),
        *(rng.integers(2, size=count) for count in (8, 15)),
    )


@pytest.mark.parametrize("seed", range(10))
def test_it_is_the_published_evaluation(seed):
    found = re_identification(*a_search(seed), max_rank=6)
    cmc, mean = as_published(*a_search(seed), ranks=6)
    np.testing.assert_allclose(found.cmc, cmc)
    assert found.mean_average_precision == pytest.approx(mean)
    assert found.mean_average_precision == pytest.approx(np.nanmean(found.average_precisions))


@pytest.mark.parametrize("seed", range(5))
def test_it_is_the_retrieval_of_a_gallery_whose_own_camera_is_junk(seed):
    d, q, g, q_camera, g_camera = a_search(seed)
    same, one_camera = q[:, None] == g, q_camera[:, None] == g_camera
    mean = mean_average_precision(
        np.argsort(d, axis=1, kind="stable"),
        [np.flatnonzero(row) for row in same & ~one_camera],
        [np.flatnonzero(row) for row in same & one_camera],
        interpolation="step",
    )
    found = re_identification(d, q, g, q_camera, g_camera)
    assert found.mean_average_precision == pytest.approx(mean)


def test_by_hand():
    d = [[1.0, 2, 3, 4, 5]]
    found = re_identification(d, [7], [7, 8, 7, 8, 7], [0], [0, 0, 1, 1, 1], max_rank=4)
    np.testing.assert_array_equal(found.cmc, [0, 1, 1, 1])  # 8, 7, 8, 7
    assert found.mean_average_precision == pytest.approx((1 / 2 + 2 / 4) / 2)
    everything = re_identification(d, [7], [7, 8, 7, 8, 7], max_rank=4)
    np.testing.assert_array_equal(everything.cmc, [1, 1, 1, 1])
    assert everything.mean_average_precision == pytest.approx((1 + 2 / 3 + 3 / 5) / 3)


def test_another_identity_by_the_same_camera_stays():
    found = re_identification([[1.0, 2]], [0], [1, 0], [0], [0, 1], max_rank=2)
    np.testing.assert_array_equal(found.cmc, [0, 1])


def test_a_query_without_a_match_is_left_out_of_the_means():
    found = re_identification([[1.0, 2], [1, 2]], [0, 5], [0, 1], max_rank=3)
    np.testing.assert_array_equal(found.cmc, [1, 1, 1])
    np.testing.assert_array_equal(found.average_precisions, [1, np.nan])


def test_it_takes_tensors():
    found = re_identification(mt.tensor([[1.0, 2]]), mt.tensor([1]), mt.tensor([0, 1]), max_rank=1)
    assert found.cmc.tolist() == [0] and found.mean_average_precision == 0.5


def test_mistakes_are_explained():
    d = np.ones((2, 3))
    for arguments, message in {
        ((3,), (2,), (3,)): r"needs distances \(queries, gallery\), got shape \(3,\)",
        ((2, 3), (3,), (3,)): r"need query_identities of shape \(2,\), not \(3,\)",
        ((2, 3), (2,), (2,)): r"need gallery_identities of shape \(3,\), not \(2,\)",
        ((2, 3), (2,), (3,), (1,), (3,)): r"need query_cameras of shape \(2,\), not \(1,\)",
        ((2, 3), (2,), (3,), (2,), (1,)): r"need gallery_cameras of shape \(3,\), not \(1,\)",
    }.items():
        with pytest.raises(mt.ShapeError, match=message):
            re_identification(*map(np.ones, arguments))
    with pytest.raises(ValueError, match="cameras of queries and gallery, or of neither"):
        re_identification(d, np.ones(2), np.ones(3), np.ones(2))
    with pytest.raises(ValueError, match="no query has a picture of its identity in the gallery"):
        re_identification(d, np.ones(2), np.zeros(3))
    with pytest.raises(ValueError, match="of its identity by another camera in the gallery"):
        re_identification(d, np.ones(2), np.ones(3), np.ones(2), np.ones(3))
    with pytest.raises(ValueError, match="1 of the distances are nan"):
        re_identification([[1.0, np.nan]], [0], [0, 0])
    with pytest.raises(ValueError, match="max_rank must be"):
        re_identification(d, np.ones(2), np.ones(3), max_rank=0)
