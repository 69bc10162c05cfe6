"""k-means on the shapes of boxes against plain loops, numbers by hand and planted clusters."""

import statistics

import numpy as np
import pytest

from cervical_d2.anchors import kmeans
from cervical_d2.anchors.kmeans import (
    UPDATES,
    best_anchor,
    cluster_anchors,
    descend,
    moved,
    seeds,
)
from cervical_d2.errors import UserError

KINDS = {"median": statistics.median, "mean": statistics.fmean}


def heavy_tailed(seed: int, count: int = 150) -> np.ndarray:
    """Sides around 60 px, a few of them ten times that."""
    return np.random.default_rng(seed).lognormal(4, 0.8, (count, 2))


def plain_iou(a, b):
    """Of two boxes, each (width, height), laid around one center."""
    shared = min(a[0], b[0]) * min(a[1], b[1])
    return shared / (a[0] * a[1] + b[0] * b[1] - shared)


def plain_fit(boxes, anchors):
    """Mean IoU, and each box's best anchor, the first of equals."""
    rows = [[plain_iou(box, anchor) for anchor in anchors] for box in boxes]
    return statistics.fmean(map(max, rows)), [row.index(max(row)) for row in rows]


def plain_descent(boxes, anchors, kind):
    """The mean IoUs of k-means from `anchors` on, each above the one before, and where it ends."""
    fit, owner = plain_fit(boxes, anchors)
    steps = [fit]
    while True:
        parts = [[box for box, own in zip(boxes, owner, strict=True) if own == n] for n in range(len(anchors))]
        trial = [[KINDS[kind](side) for side in zip(*part, strict=True)] for part in parts]
        fit, owner = plain_fit(boxes, trial)
        if fit <= steps[-1]:
            return steps, anchors
        anchors, steps = trial, [*steps, fit]


@pytest.mark.parametrize("kind", UPDATES)
def test_descent_is_that_of_plain_loops(kind):
    side = heavy_tailed(0, 60)
    found = descend(side, side[:4], UPDATES[kind])
    steps, anchors = plain_descent(side.tolist(), side[:4].tolist(), kind)
    assert len(steps) > 3
    assert found.steps == pytest.approx(steps, abs=1e-12)
    assert found.anchor == pytest.approx(np.array(anchors), rel=1e-12)
    iou, which = best_anchor(side, found.anchor)
    fit, owner = plain_fit(side.tolist(), anchors)
    assert (iou.mean(), which.tolist()) == (pytest.approx(fit), owner)


def test_the_best_anchor_is_the_first_of_equals():
    iou, which = best_anchor(np.array([[10.0, 10]]), np.array([[90.0, 90], [20, 10], [10, 20], [20, 10]]))
    assert (iou.tolist(), which.tolist()) == ([0.5], [1])


def test_median_and_mean_by_hand():
    side = np.array([[10.0, 30], [10, 30], [40, 90], [500, 500]])
    which, iou = np.array([0, 0, 0, 1]), np.ones(4)
    assert moved(side, iou, which, 2, np.median).tolist() == [[10, 30], [500, 500]]
    assert moved(side, iou, which, 2, np.mean).tolist() == [[20, 50], [500, 500]]


def planted(shapes, seed: int) -> np.ndarray:
    """40 boxes around each of `shapes`, by up to 2 px a side, in pairs across it, so that its median is the shape."""
    rng = np.random.default_rng(seed)
    parts = [shape + np.concatenate([noise, -noise]) for shape in shapes for noise in [rng.uniform(-2, 2, (20, 2))]]
    return rng.permutation(np.concatenate(parts))


@pytest.mark.parametrize("update", UPDATES)
def test_planted_clusters_are_found(update):
    shapes = np.array([[20.0, 30], [60, 25], [50, 120], [200, 180], [90, 450]])
    found = cluster_anchors(planted(shapes, 0), 5, update=update)
    by_area = shapes[np.argsort(shapes.prod(axis=1))]
    assert found.anchor == pytest.approx(by_area, abs=0.5 if update == "median" else 1e-9)
    # A side is off by 1 px on average, of 20 to 450.
    assert found.mean_iou > 0.95


@pytest.mark.parametrize("update", UPDATES)
def test_no_step_lowers_the_mean_iou(update):
    for seed in range(5):
        side = heavy_tailed(seed)
        found = cluster_anchors(side, 9, update=update, seed=seed)
        assert all(before < after for before, after in zip(found.steps, found.steps[1:], strict=False))
        # The last is that of the anchors that are returned.
        assert found.mean_iou == pytest.approx(plain_fit(side.tolist(), found.anchor.tolist())[0])


def test_the_median_fits_better_than_the_mean():
    for seed in range(5):
        median, mean = (cluster_anchors(heavy_tailed(seed), 9, update=update).mean_iou for update in UPDATES)
        assert median > mean


def test_the_best_of_all_restarts_is_kept():
    better = 0
    for seed in range(4):
        side = heavy_tailed(seed)
        rng = np.random.default_rng(seed)  # a run with less restarts begins as one with more
        single = [descend(side, seeds(side, 9, rng), np.median).mean_iou for _ in range(10)]
        better += max(single) > single[0]
        found = [cluster_anchors(side, 9, restarts=count, seed=seed).mean_iou for count in (1, 3, 10)]
        assert found == pytest.approx([single[0], max(single[:3]), max(single)], abs=1e-12)
    assert better >= 2


def test_a_seed_gives_the_same_anchors_again():
    side = heavy_tailed(0)
    first, again, other = (cluster_anchors(side, 9, restarts=2, seed=seed).anchor for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert (np.diff(first.prod(axis=1)) > 0).all()  # by area


def test_seeds_are_drawn_by_the_square_of_the_distance():
    # From a 10 x 10 the IoU of a 10 x 20 is 1/2 and of a 10 x 40 1/4: distances of 2/4 and 3/4, odds of 4 to 9.
    side = np.array([[10.0, 10], [10, 20], [10, 40]])
    rng = np.random.default_rng(0)
    drawn = [seeds(side, 2, rng)[:, 1] for _ in range(4000)]
    second = [chosen[1] for chosen in drawn if chosen[0] == 10]
    assert len(second) == pytest.approx(4000 / 3, abs=120)
    assert second.count(40) / len(second) == pytest.approx(9 / 13, abs=0.04)  # the distances themselves: 3/5
    assert second.count(10) == 0
    assert all(len(set(chosen)) == 3 for chosen in (seeds(side, 3, rng)[:, 1].tolist() for _ in range(50)))


def test_empty_clusters_start_again_at_the_worst_fitted_boxes():
    side = np.array([[10.0, 10], [12, 12], [10, 100], [10, 100], [300, 10]])
    anchor = np.array([[11.0, 11], [5000, 5000], [6000, 6000]])
    iou, which = best_anchor(side, anchor)
    assert which.tolist() == [0] * 5
    # 300 x 10 shares 110 of 3011 with 11 x 11, 10 x 100 shares 110 of 1011. The second one goes to 10 x 100: 300 x 10
    # has its own by then.
    assert moved(side, iou, which, 3, np.median).tolist() == [[10, 12], [300, 10], [10, 100]]
    assert descend(side, anchor, np.median).mean_iou > 0.8


def test_many_boxes_are_clustered_by_samples_first(monkeypatch):
    side = heavy_tailed(0, 1500)
    side = side[np.argsort(side.prod(axis=1))]  # files may be in any order
    whole = cluster_anchors(side, 9)
    looked_at = []

    def counted(part, anchor, middle):
        looked_at.append((len(part), best_anchor(side, anchor)[0].mean()))
        assert (part.prod(axis=1) > side[1000].prod()).mean() == pytest.approx(1 / 3, abs=0.1)
        return descend(part, anchor, middle)

    monkeypatch.setattr(kmeans, "RUNGS", ((300, 3), (800, 2)))
    monkeypatch.setattr(kmeans, "descend", counted)
    found = cluster_anchors(side, 9)
    assert [boxes for boxes, _ in looked_at] == [300] * 10 + [800] * 3 + [1500] * 2
    starts = [fit for _, fit in looked_at[10:]]
    assert starts[:3] == sorted(starts[:3], reverse=True)  # by the fit of all boxes
    assert found.mean_iou == pytest.approx(best_anchor(side, found.anchor)[0].mean())  # of all, not of a sample
    assert found.mean_iou == pytest.approx(whole.mean_iou, abs=0.005)
    assert descend(side, found.anchor, np.median).steps == pytest.approx([found.mean_iou])  # it ends where all would
    looked_at.clear()
    cluster_anchors(side[::2], 9)
    assert {boxes for boxes, _ in looked_at} == {750}  # few are clustered as they are


def test_rare_shapes_that_a_sample_misses_are_found(monkeypatch):
    monkeypatch.setattr(kmeans, "RUNGS", ((10, 3), (20, 1)))
    side = np.array([[20.0, 20]] * 500 + [[5.0, 90]] + [[90.0, 5]])
    found = cluster_anchors(side, 3)
    assert sorted(found.anchor.tolist()) == [[5, 90], [20, 20], [90, 5]]
    assert found.mean_iou == 1


def test_as_many_shapes_as_anchors_and_fewer():
    side = np.array([[10.0, 20], [20, 10], [30, 30], [30, 30]])
    found = cluster_anchors(side, 3)
    assert found.anchor.tolist() in ([[10, 20], [20, 10], [30, 30]], [[20, 10], [10, 20], [30, 30]])
    assert found.steps == [1]
    with pytest.raises(UserError, match="4 boxes of 3 different shapes are too few for 4 anchors; use a larger set"):
        cluster_anchors(side, 4)
