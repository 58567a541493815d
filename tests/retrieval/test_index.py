import numpy as np
import pytest

import minitorch_attn as mt
import minitorch_attn.functional as F
from minitorch_attn.engine import ShapeError
from minitorch_attn.retrieval import Index, expand_queries, l2_normalized

from ..nn.parity import normal

GALLERY = normal(20, 4)


def test_images_are_ranked_by_the_angle_alone():
    index = Index(GALLERY)
    queries = normal(3, 4, seed=1)
    cosines = l2_normalized(queries) @ l2_normalized(GALLERY).T
    np.testing.assert_array_equal(index.search(queries), np.argsort(-cosines, axis=1))
    longer = GALLERY * np.arange(1, 21)[:, None]
    np.testing.assert_array_equal(Index(longer).search(7 * queries), index.search(queries))


def test_an_image_finds_itself_first_and_k_limits_the_answers():
    found = Index(GALLERY).search(GALLERY, k=3)
    assert found.shape == (20, 3)
    np.testing.assert_array_equal(found[:, 0], np.arange(20))


def test_of_equals_the_lower_number_comes_first():
    many = np.tile(np.eye(3), (40, 1))  # enough that a sort which is not stable mixes them
    found = Index(many).search(many[1:2], k=40)
    np.testing.assert_array_equal(found, [np.arange(1, 120, 3)])


def test_a_query_is_expanded_by_its_first_answers():
    index, q = Index(GALLERY), normal(1, 4, seed=1)
    first = index.search(q, k=3)[0]
    plain = l2_normalized(q) + index.descriptors[first].sum(axis=0)
    np.testing.assert_allclose(expand_queries(index, q, k=3), l2_normalized(plain))
    weights = np.maximum(index.similarities(q)[0, first], 0) ** 3
    weighted = l2_normalized(q) + weights @ index.descriptors[first]
    np.testing.assert_allclose(expand_queries(index, q, 3, alpha=3.0), l2_normalized(weighted))


def test_expansion_finds_what_lies_behind_the_first_answer():
    steps = np.deg2rad([20, 40, 180, -35])
    gallery = np.stack([np.cos(steps), np.sin(steps)], axis=1)
    index, query = Index(gallery), np.array([[1.0, 0.0]])
    assert index.search(query, k=2).tolist() == [[0, 3]]
    assert index.search(expand_queries(index, query, k=1), k=2).tolist() == [[0, 1]]


def test_of_the_answers_those_like_the_query_weigh_more_and_the_unlike_nothing():
    index = Index([[0.0, 1.0], [-1.0, 0.0]])
    query = np.array([[0.6, 0.8]])
    for alpha, weights in [(0, [1, 1]), (1.0, [0.8, 0]), (np.float64(2), [0.64, 0])]:
        expected = l2_normalized(query + weights @ index.descriptors)
        np.testing.assert_allclose(expand_queries(index, query, 2, alpha), expected)


def test_lengths_are_those_of_the_tensors_function_for_every_dtype():
    np.testing.assert_array_equal(l2_normalized(GALLERY), F.normalize(mt.tensor(GALLERY)).numpy())
    for dtype in ("uint8", "int8", "float16", "float32"):
        y = l2_normalized(np.array([[100, 100], [0, 0]], dtype))
        np.testing.assert_allclose(y, [[0.5**0.5] * 2, [0, 0]], rtol=1e-6)


def test_tensors_are_taken_and_small_floats_keep_their_dtype():
    small = GALLERY.astype("float32")
    index = Index(mt.tensor(small))
    np.testing.assert_array_equal(index.search(mt.tensor(small), 1)[:, 0], np.arange(20))
    assert index.similarities(small).dtype == np.float32
    assert expand_queries(index, small, 2, np.float64(3)).dtype == np.float32


def test_what_is_not_finite_is_refused_by_its_row():
    broken = GALLERY.copy()
    broken[2, 1] = np.nan
    with pytest.raises(ValueError, match="Index: of 20 descriptors 1 hold nan .* in rows 2$"):
        Index(broken)
    with pytest.raises(ValueError, match="Index: queries: of 20 descriptors 1 hold nan"):
        Index(GALLERY).search(broken)


def test_bad_input_is_refused_by_name():
    index = Index(GALLERY)
    for bad in (np.ones(3), np.ones((0, 4)), np.ones((4, 0))):
        with pytest.raises(ShapeError, match=r"needs descriptors \(G, D\), one at least"):
            Index(bad)
    with pytest.raises(ShapeError, match=r"needs queries \(Q, 4\)"):
        index.search(np.ones((1, 3)))
    with pytest.raises(ValueError, match="k must be between 1 and the 20 images"):
        expand_queries(index, GALLERY[:1], k=21)
    with pytest.raises(ValueError, match="alpha must not be negative"):
        expand_queries(index, GALLERY[:1], alpha=-1.0)
    with pytest.raises(ValueError, match="alpha must not be negative, not nan"):
        expand_queries(index, GALLERY[:1], alpha=float("nan"))
    for k in (-1, 0, 2.0):
        with pytest.raises(ValueError, match=f"k must be an integer of at least 1, not {k}"):
            index.search(GALLERY[:1], k)
