import numpy as np
import pytest

from minitorch_attn.engine import ShapeError
from minitorch_attn.retrieval import (
    Index,
    l2_normalized,
    mean_average_precision,
    reciprocal_distances,
    rerank,
)

from ..nn.parity import normal


def clustered(seed, count=45, D=5):
    rng = np.random.default_rng(seed)
    places = rng.integers(6, size=count)
    return normal(6, D, seed=seed)[places] + 0.5 * rng.normal(size=(count, D)), places


def by_the_definition(queries, gallery, k1, k2, original):
    """With sets and dicts, image by image, as the definition says it."""
    x = l2_normalized(np.concatenate([queries, gallery]))
    images = range(len(x))
    d = np.array([[((x[i] - x[j]) ** 2).sum() for j in images] for i in images])
    d = d / d.max(axis=1, keepdims=True)
    nearest = [sorted(images, key=lambda j: (j != i, d[i, j])) for i in images]

    def friends(i, k):
        return {j for j in nearest[i][: k + 1] if i in nearest[j][: k + 1]}

    encoded = []
    for i in images:
        mutual = friends(i, k1)
        wider = set(mutual)
        for j in mutual:
            theirs = friends(j, round(k1 / 2))
            if len(theirs & mutual) * 3 > len(theirs) * 2:
                wider |= theirs
        total = sum(np.exp(-d[i, j]) for j in wider)
        encoded.append({j: np.exp(-d[i, j]) / total for j in wider})
    means = [
        {m: np.mean([encoded[j].get(m, 0.0) for j in nearest[i][:k2]]) for m in images}
        for i in images
    ]
    Q = len(queries)
    result = np.empty((Q, len(gallery)))
    for i in range(Q):
        for j in images[Q:]:
            smaller = sum(min(means[i][m], means[j][m]) for m in images)
            larger = sum(max(means[i][m], means[j][m]) for m in images)
            result[i, j - Q] = original * d[i, j] + (1 - original) * (1 - smaller / larger)
    return result


@pytest.mark.parametrize(
    ("k1", "k2", "original"),
    [(7, 3, 0.3), (10, 1, 0.0), (1, 2, 0.5), (20, 6, 0.3), (5, 4, 1.0), (44, 44, 0.0)],
)
def test_distances_are_those_of_the_definition(k1, k2, original):
    x, _ = clustered(k1)
    ours = reciprocal_distances(Index(x[4:]), x[:4], k1, k2, original)
    np.testing.assert_allclose(ours, by_the_definition(x[:4], x[4:], k1, k2, original), atol=1e-12)


def test_with_the_original_distance_alone_the_ranking_stays():
    x, _ = clustered(0)
    index = Index(x[4:])
    np.testing.assert_array_equal(rerank(index, x[:4], 7, 3, original=1.0), index.search(x[:4]))


def test_the_ranking_is_by_distance():
    x, _ = clustered(0)
    index = Index(x[4:])
    expected = np.argsort(reciprocal_distances(index, x[:4], 7, 3, 0.2), axis=1, kind="stable")
    np.testing.assert_array_equal(rerank(index, x[:4], 7, 3, 0.2), expected)


def test_it_finds_more_where_images_of_a_kind_lie_together():
    for seed in range(5):
        x, places = clustered(seed, count=150)
        index, queries = Index(x[20:]), x[:20]
        positives = [np.flatnonzero(places[20:] == place) for place in places[:20]]
        plain = mean_average_precision(index.search(queries), positives)
        assert mean_average_precision(rerank(index, queries), positives) > plain


def test_a_near_image_that_has_other_friends_falls_behind():
    steps = np.deg2rad([-10, -12, 13, 14, 15, 16, 17, 9])
    gallery = np.stack([np.cos(steps), np.sin(steps)], axis=1)
    query = np.array([[1.0, 0.0]])
    assert Index(gallery).search(query)[0, :3].tolist() == [7, 0, 1]
    assert rerank(Index(gallery), query, k1=2, k2=1, original=0.1)[0, :2].tolist() == [0, 1]


def test_images_that_are_all_the_same_are_no_trouble():
    same = np.eye(3)[[0] * 6]  # of length 1 exactly, so that all distances are 0
    with np.errstate(all="raise"):
        distances = reciprocal_distances(Index(same[1:]), same[:1], k1=1, k2=4)
    assert np.isfinite(distances).all() and (distances >= 0).all()


def test_lengths_do_not_matter_and_small_floats_keep_their_dtype():
    x, _ = clustered(0)
    small = x.astype("float32")
    plain = reciprocal_distances(Index(small[4:]), small[:4], 7, 3)
    longer = reciprocal_distances(Index(2 * small[4:]), 3 * x[:4], 7, 3)
    assert plain.dtype == longer.dtype == np.float32
    np.testing.assert_allclose(plain, longer, atol=1e-5)


def test_what_cannot_be_ranked_is_refused_by_name():
    x, _ = clustered(0)
    index = Index(x[4:])
    for settings, says in [
        ({"k1": 0}, "k1 must be between 1 and 44, .* not 0"),
        ({"k2": 45}, "k2 must be between 1 and 44, .* not 45"),
        ({"k1": 2.0}, "k1 must be an integer, not 2.0"),
        ({"original": 1.5}, "original must be from 0 to 1, not 1.5"),
        ({"original": float("nan")}, "original must be from 0 to 1, not nan"),
    ]:
        with pytest.raises(ValueError, match=f"reciprocal_distances: {says}"):
            rerank(index, x[:4], **settings)
    with pytest.raises(ShapeError, match=r"needs queries \(Q, 5\)"):
        rerank(index, np.ones((1, 3)))
