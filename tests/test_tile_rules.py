"""Which cells belong to a tile, and what of it was screened: by hand, and against pixels."""

import numpy as np
import pytest

from cervical_d2.curation.tile_rules import MEMBERSHIP, screened_share, touching, unscreened

TILE = np.array([100.0, 100, 200, 200])
BOXES = {
    "inside": [120, 120, 160, 150],
    "fills it": [100, 100, 200, 200],
    "over the right": [180, 120, 220, 150],  # half of its area inside
    "over the left": [90, 120, 130, 150],  # three quarters
    "over the corner": [190, 190, 210, 210],  # a quarter
    "over all": [50, 50, 250, 250],  # a quarter
    "beside": [200, 120, 240, 150],
    "above": [100, 60, 140, 100],
}


@pytest.mark.parametrize(
    "rule, share, expected",
    [
        ("inside", 0.5, {"inside", "fills it"}),
        ("corner", 0.5, {"inside", "fills it", "over the right", "over the corner"}),
        ("share", 0.5, {"inside", "fills it", "over the left"}),  # more than a half
        ("share", 0.2, {"inside", "fills it", "over the left", "over the right", "over the corner", "over all"}),
        ("share", 0.0, {"inside", "fills it", "over the left", "over the right", "over the corner", "over all"}),
    ],
)
def test_membership(rule: str, share: float, expected: set[str]):
    members = MEMBERSHIP[rule](np.array(list(BOXES.values()), float), TILE, share)
    assert {name for name, member in zip(BOXES, members, strict=True) if member} == expected


def test_by_the_corner_a_cell_is_in_one_tile_of_a_grid():
    rng = np.random.default_rng(0)
    corner = rng.integers(0, 300, (500, 2)).astype(float)
    boxes = np.hstack([corner, corner + rng.integers(1, 80, (500, 2))])
    tiles = [np.array([x, y, x + 100, y + 100], float) for x in (0, 100, 200) for y in (0, 100, 200)]
    assert (sum(MEMBERSHIP["corner"](boxes, tile, 0).astype(int) for tile in tiles) == 1).all()


def test_a_sliver_touches_nothing():
    boxes = np.array([[199, 120, 240, 150], [198.5, 120, 240, 150], [150, 60, 160, 101]])
    assert touching(boxes, TILE).tolist() == [False, True, False]


def test_no_boxes_are_members_of_nothing():
    none = np.empty((0, 4))
    assert [rule(none, TILE, 0.5).shape for rule in MEMBERSHIP.values()] == [(0,)] * 3
    assert touching(none, TILE).shape == (0,)


def test_what_no_region_covers_by_hand():
    assert unscreened(TILE, np.array([[0.0, 0, 150, 300]])) == [[150, 100, 200, 200]]
    assert unscreened(TILE, np.array([[120.0, 130, 180, 160]])) == [
        [100, 100, 200, 130],
        [100, 130, 120, 160],
        [180, 130, 200, 160],
        [100, 160, 200, 200],
    ]
    assert unscreened(TILE, np.array([[0.0, 0, 500, 500]])) == []
    assert unscreened(TILE, np.array([[0.0, 0, 50, 50]])) == [TILE.tolist()]


def test_regions_that_repeat_and_overlap_count_once():
    rng = np.random.default_rng(1)
    for _ in range(100):
        corner = rng.integers(60, 220, (rng.integers(1, 6), 2))
        regions = np.hstack([corner, corner + rng.integers(1, 90, corner.shape)]).astype(float)
        regions = np.vstack([regions, regions[:1]])
        seen = np.zeros((300, 320), bool)
        for x1, y1, x2, y2 in regions.astype(int):
            seen[y1:y2, x1:x2] = True
        left = np.zeros_like(seen, dtype=int)
        for x1, y1, x2, y2 in np.array(unscreened(TILE, regions)).reshape(-1, 4).astype(int):
            left[y1:y2, x1:x2] += 1
        inside = np.zeros_like(seen)
        inside[100:200, 100:200] = True
        assert np.array_equal(left, (inside & ~seen).astype(int))
        assert screened_share(TILE, regions) == pytest.approx(seen[100:200, 100:200].mean())
