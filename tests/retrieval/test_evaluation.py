import numpy as np
import pytest

from minitorch_attn.retrieval import average_precision, mean_average_precision, precision_at_k


def area_by_walking(ranking, positives, junk):
    """The Oxford protocol as it is written down: walk the list, add trapezoids."""
    area, old_recall, old_precision, found, place = 0.0, 0.0, 1.0, 0, 0
    for image in ranking:
        if image in junk:
            continue
        found += image in positives
        recall, precision = found / len(positives), found / (place + 1)
        area += (recall - old_recall) * (old_precision + precision) / 2
        old_recall, old_precision, place = recall, precision, place + 1
    return area


def test_a_ranking_of_five_by_hand():
    assert average_precision([3, 1, 0, 7, 2], [3, 7], [1]) == pytest.approx(0.791667, abs=1e-6)
    step = average_precision([3, 1, 0, 7, 2], [3, 7], [1], interpolation="step")
    assert step == pytest.approx(0.833333, abs=1e-6)


@pytest.mark.parametrize("seed", range(20))
def test_it_is_the_area_that_walking_the_list_gives(seed):
    rng = np.random.default_rng(seed)
    images = rng.permutation(30)
    positives, junk = images[: rng.integers(1, 10)], images[10 : 10 + rng.integers(5)]
    ranking = rng.permutation(30)
    expected = area_by_walking(ranking, set(positives.tolist()), set(junk.tolist()))
    assert average_precision(ranking, positives, junk) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_the_step_form_is_scikit_learns(seed):
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(seed)
    ranking, positives = rng.permutation(20), rng.choice(20, 6, replace=False)
    expected = metrics.average_precision_score(np.isin(ranking, positives), -np.arange(20))
    assert average_precision(ranking, positives, interpolation="step") == pytest.approx(expected)


def test_the_best_ranking_has_1_and_a_positive_that_never_comes_costs_its_share():
    assert average_precision([4, 2, 0, 1], [2, 4]) == 1
    assert average_precision([4, 0], [2, 4]) == 0.5
    assert average_precision([], [2]) == 0


def test_junk_neither_helps_nor_harms():
    assert average_precision([9, 4, 8, 2], [2, 4], [8, 9]) == average_precision([4, 2], [2, 4])


def test_the_mean_leaves_out_queries_without_positives():
    mean = mean_average_precision([[0, 1], [0, 1], [1, 0]], [[0], [], [0]])
    assert mean == pytest.approx((1 + average_precision([1, 0], [0])) / 2)
    assert np.isnan(mean_average_precision([[0]], [[]]))


def test_the_mean_is_of_the_form_and_without_the_junk_that_one_asks():
    rankings, positives, junk = [[3, 1, 0, 7, 2], [1, 0]], [[3, 7], [0]], [[1], []]
    for form in ("trapezoid", "step"):
        each = [average_precision(*q, form) for q in zip(rankings, positives, junk)]
        mean = mean_average_precision(rankings, positives, junk, form)
        assert mean == pytest.approx(np.mean(each))


def test_a_positive_that_is_named_twice_counts_once():
    assert average_precision([3, 1], [3, 3]) == precision_at_k([3, 1], [3, 3], k=2) == 1


def test_precision_looks_no_further_than_the_last_positive():
    assert precision_at_k([5, 1, 2, 3], [5, 2], k=10) == pytest.approx(2 / 3)
    assert precision_at_k([5, 2, 1, 3], [5, 2], k=10) == 1
    assert precision_at_k([5, 1, 2, 3], [5, 2], k=1) == 1
    assert precision_at_k([5, 1, 2, 3], [5, 2], k=2) == 0.5
    assert precision_at_k([5, 1, 2, 3], [5, 2], k=2, junk=[1]) == 1


def test_a_positive_that_never_comes_lowers_the_precision():
    assert precision_at_k([5, 1], [5, 2], k=4) == 0.25
    assert precision_at_k([], [5], k=1) == 0


@pytest.mark.parametrize("kind", [list, set, np.array, np.uint64, iter])
def test_images_are_named_by_anything_that_gives_integers(kind):
    assert average_precision([3, 1, 0], kind([1, 3]), kind([0])) == 1


@pytest.mark.parametrize(
    "measure", [average_precision, lambda *a: precision_at_k(*a[:2], 1, *a[2:])]
)
@pytest.mark.parametrize(
    ("images", "says"),
    [
        (([3, 1], np.array([False, True])), "positives must be .* not bool .* np.flatnonzero"),
        (([3, 1], [1], np.array([False, True])), "junk must be .* not bool"),
        (([3.7, 1.2], [1]), "ranking must be .* not float64"),
        (([[3, 1], [0, 2]], [1]), r"ranking must be .* of shape \(2, 2\)"),
        (([3, 1], 1), r"positives must be .* of shape \(\)"),
        (([1, 1], [1]), "more than once"),
        (([1], [1], [1]), "both positive and junk"),
    ],
)
def test_what_names_no_images_is_refused(measure, images, says):
    with pytest.raises(ValueError, match=says):
        measure(*images)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (([0], []), "no positives"),
        (([0], [0], [0]), "both positive and junk"),
        (([0, 0], [0]), "more than once"),
        (([0], [0], [], "area"), "must be trapezoid or step, not 'area'"),
    ],
)
def test_what_cannot_be_evaluated_is_refused(settings, says):
    with pytest.raises(ValueError, match=says):
        average_precision(*settings)


def test_numbers_of_queries_must_agree():
    with pytest.raises(ValueError, match="the same queries, got 1, 2 and 2"):
        mean_average_precision([[0]], [[0], [1]])
    for k in (0, 1.5):
        with pytest.raises(ValueError, match=f"k must be an integer of at least 1, not {k}"):
            precision_at_k([0], [0], k=k)
