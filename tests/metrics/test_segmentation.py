import numpy as np
import pytest

import minitorch_attn as mt
from minitorch_attn.metrics import (
    confusion_matrix,
    intersection_over_union,
    mean_iou,
    pixel_accuracy,
)

TARGET = np.array([[0, 0, 1], [1, 1, 2]])
PREDICTION = np.array([[0, 1, 1], [1, 0, 2]])
CONFUSION = np.array([[1, 1, 0], [1, 2, 0], [0, 0, 1]])  # by hand


def test_rows_are_targets_and_columns_predictions():
    np.testing.assert_array_equal(confusion_matrix(PREDICTION, TARGET, 3), CONFUSION)
    once = confusion_matrix([2], [0], 3)
    assert once[0, 2] == 1 and once.sum() == 1


def test_overlap_by_hand():
    np.testing.assert_allclose(intersection_over_union(CONFUSION), [1 / 3, 2 / 4, 1])
    assert mean_iou(CONFUSION) == pytest.approx((1 / 3 + 1 / 2 + 1) / 3)
    assert pixel_accuracy(CONFUSION) == pytest.approx(4 / 6)


def test_they_are_those_of_sets():
    rng = np.random.default_rng(0)
    p, t = rng.integers(4, size=(2, 3, 5, 7))
    expected = [((p == k) & (t == k)).sum() / ((p == k) | (t == k)).sum() for k in range(4)]
    matrix = confusion_matrix(p, t, 4)
    np.testing.assert_allclose(intersection_over_union(matrix), expected)
    assert mean_iou(matrix) == pytest.approx(np.mean(expected))
    assert pixel_accuracy(matrix) == pytest.approx((p == t).mean())


def test_a_class_that_does_not_occur_is_left_out_of_the_mean():
    matrix = confusion_matrix(PREDICTION, TARGET, 5)
    overlap = intersection_over_union(matrix)
    assert np.isnan(overlap[3:]).all() and not np.isnan(overlap[:3]).any()
    assert mean_iou(matrix) == mean_iou(CONFUSION)


def test_a_class_that_is_predicted_and_not_there_counts_with_zero():
    overlap = intersection_over_union(confusion_matrix([0, 1], [0, 0], 2))
    np.testing.assert_array_equal(overlap, [0.5, 0.0])


def test_places_to_ignore_are_left_out():
    target = np.where(TARGET == 2, 255, TARGET)
    matrix = confusion_matrix(PREDICTION, target, 3, ignore_index=255)
    assert matrix.sum() == 5
    np.testing.assert_array_equal(matrix[:2], CONFUSION[:2])


def test_matrices_of_batches_add_up():
    halves = [confusion_matrix(PREDICTION[i], TARGET[i], 3) for i in range(2)]
    np.testing.assert_array_equal(sum(halves), CONFUSION)


def test_no_places_at_all_give_nan():
    nothing = confusion_matrix(np.zeros((0, 4), int), np.zeros((0, 4), int), 3)
    assert nothing.sum() == 0 and nothing.shape == (3, 3)
    np.testing.assert_array_equal(confusion_matrix([], [], 3), nothing)
    assert np.isnan(mean_iou(nothing)) and np.isnan(pixel_accuracy(nothing))


def test_tensors_and_lists_are_taken():
    matrix = confusion_matrix(mt.tensor(PREDICTION), TARGET.tolist(), 3)
    np.testing.assert_array_equal(matrix, CONFUSION)


def test_masks_are_of_the_classes_0_and_1():
    masks = PREDICTION == 1, TARGET == 1
    expected = confusion_matrix(*(mask.astype(int) for mask in masks), 2)
    np.testing.assert_array_equal(confusion_matrix(*masks, 2), expected)
    np.testing.assert_array_equal(expected, [[2, 1], [1, 2]])


def test_small_and_unsigned_integers_are_counted_as_they_are():
    p, t = np.array([199, 0, 7], np.uint8), np.array([199, 199, 255], np.uint8)
    matrix = confusion_matrix(p, t, np.uint8(200), ignore_index=255)
    assert matrix[199, 199] == matrix[199, 0] == 1 and matrix.sum() == 2
    with pytest.raises(ValueError, match="the target holds the classes 18446744073709551615 to"):
        confusion_matrix([0], np.array([2**64 - 1], np.uint64), 3, ignore_index=-1)


def test_a_matrix_may_be_a_list_a_tensor_or_of_shares():
    expected = intersection_over_union(CONFUSION)
    for matrix in (CONFUSION.tolist(), mt.tensor(CONFUSION), CONFUSION / 60):
        np.testing.assert_allclose(intersection_over_union(matrix), expected, rtol=1e-6)
        assert mean_iou(matrix) == pytest.approx(mean_iou(CONFUSION))
        assert pixel_accuracy(matrix) == pytest.approx(4 / 6)


@pytest.mark.parametrize("measure", [intersection_over_union, mean_iou, pixel_accuracy])
@pytest.mark.parametrize("shape", [(3,), (2, 3), (2, 2, 2)])
def test_a_matrix_that_is_not_square_is_refused(measure, shape):
    with pytest.raises(mt.ShapeError, match=r"needs a confusion matrix \(K, K\), got"):
        measure(np.ones(shape))


def test_settings_that_are_no_integers_are_refused():
    for num_classes in (0, 2.5):
        with pytest.raises(ValueError, match="num_classes must be an integer of at least 1"):
            confusion_matrix([0], [0], num_classes)
    with pytest.raises(ValueError, match="ignore_index must be an integer, not 255.0"):
        confusion_matrix([0], [0], 3, ignore_index=255.0)


def test_scores_in_place_of_classes_are_refused_with_what_to_do():
    with pytest.raises(mt.ShapeError, match="take the argmax of scores over their axis"):
        confusion_matrix(np.zeros((2, 3, 4, 4), int), np.zeros((2, 4, 4), int), 3)
    with pytest.raises(ValueError, match="classes must be integers, not float64: take the argmax"):
        confusion_matrix(np.zeros((2, 4)), np.zeros((2, 4), int), 3)


@pytest.mark.parametrize(
    ("prediction", "target", "message"),
    [
        ([0, 3], [0, 1], "the prediction holds the classes 0 to 3, outside of 0 to 2"),
        ([0, 1], [-1, 1], "the target holds the classes -1 to 1, outside of 0 to 2"),
        ([0, 1], [255, 1], "the target holds the classes 1 to 255, outside of 0 to 2"),
    ],
)
def test_classes_that_are_none_are_refused(prediction, target, message):
    with pytest.raises(ValueError, match=message):
        confusion_matrix(prediction, target, 3)
