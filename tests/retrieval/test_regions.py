import numpy as np
import pytest

from minitorch_attn.retrieval import Region, region_grid


def test_the_regions_of_a_map_of_7_by_7():
    regions = region_grid(7, 7)
    assert regions[0] == Region(0, 0, 7)
    assert regions[1:5] == [Region(top, left, 4) for top in (0, 3) for left in (0, 3)]
    assert regions[5:] == [Region(top, left, 3) for top in (0, 2, 4) for left in (0, 2, 4)]


def test_the_regions_of_a_map_of_24_by_32():
    regions = region_grid(24, 32)
    places = {
        size: (
            sorted({r.top for r in regions if r.size == size}),
            sorted({r.left for r in regions if r.size == size}),
        )
        for size in (24, 16, 12)
    }
    assert places == {
        24: ([0], [0, 8]),
        16: ([0, 8], [0, 8, 16]),
        12: ([0, 6, 12], [0, 6, 13, 20]),
    }


@pytest.mark.parametrize(
    ("size", "levels", "count"),
    [
        *[((14, 14), 3, 14), ((14, 14), 5, 55), ((30, 40), 3, 20), ((30, 40), 5, 70)],
        *[((16, 32), 3, 26), ((16, 32), 5, 85), ((12, 32), 3, 32), ((12, 32), 5, 100)],
    ],
)
def test_how_many_there_are(size, levels, count):
    assert len(region_grid(*size, levels)) == count
    assert len(region_grid(*size[::-1], levels)) == count


@pytest.mark.parametrize("size", [(12, 13), (10, 14), (24, 32), (10, 23), (10, 47), (1, 100)])
def test_the_largest_overlap_by_as_near_to_two_fifths_as_two_to_seven_of_them_can(size):
    H, W = size

    def miss(count):
        return abs(1 - (W - H) / (count - 1) / H - 0.4)

    assert len(region_grid(H, W, levels=1)) == min(range(2, 8), key=miss)


@pytest.mark.parametrize("size", [(4, 4), (5, 9), (23, 11), (1, 6)])
def test_a_turned_map_has_the_turned_regions_and_all_lie_inside(size):
    H, W = size
    regions = region_grid(H, W)
    assert {(r.left, r.top, r.size) for r in regions} == set(region_grid(W, H))
    assert all(0 <= r.top <= H - r.size and 0 <= r.left <= W - r.size for r in regions)
    assert all(isinstance(n, int) for r in regions for n in r)


def test_every_place_of_the_map_is_in_some_region_of_each_size():
    covered = {}
    for top, left, size in region_grid(24, 32):
        covered.setdefault(size, np.zeros((24, 32), bool))[top : top + size, left : left + size] = 1
    assert len(covered) == 3 and all(c.all() for c in covered.values())


def test_levels_too_fine_for_the_map_are_left_out():
    assert {r.size for r in region_grid(2, 2, levels=9)} == {2, 1}


@pytest.mark.parametrize("kind", [np.uint8, np.int64])
def test_sizes_may_be_numpys_integers(kind):
    regions = region_grid(kind(200), kind(220))
    assert regions == region_grid(200, 220)
    assert all(type(n) is int for r in regions for n in r)


@pytest.mark.parametrize("settings", [(0, 4), (4, 0), (4, 4, 0), (7.5, 4), (4, 4, 2.0)])
def test_nothing_to_divide_is_refused(settings):
    with pytest.raises(ValueError, match="region_grid: .* must be an integer of at least 1"):
        region_grid(*settings)
