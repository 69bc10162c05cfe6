"""FROC by hand and against a reference that tries every threshold; images and slides as units."""

import numpy as np
import pytest
from box_arrays import found_of, truth_of
from test_coco_pycocotools import random_scene

from cervical_d2.evaluation.analysis import Analysis, EvaluationInput
from cervical_d2.evaluation.curves import rankings
from cervical_d2.evaluation.figures import figures_of
from cervical_d2.evaluation.froc import RATES, froc, lesions, operation_at, sensitivities, without_repeats
from cervical_d2.evaluation.matching import match_coco
from cervical_d2.evaluation.protocols import ANY_AREA, IOU_50
from cervical_d2.evaluation.severity import read_severity
from cervical_d2.evaluation.units import area_under_roc, rates_at, roc, units_of

FAR = [500, 500, 540, 540]


def ranked(truth, found, num_classes=1, num_images=1):
    matches = match_coco(truth, found, IOU_50, ANY_AREA, 10**6)
    return rankings(matches, truth, num_classes=num_classes, num_images=num_images)


def cells(count):
    corner = np.stack([100.0 * np.arange(count), np.zeros(count)], axis=1)
    return np.hstack([corner, corner + 50])


def test_sensitivity_at_a_rate_by_hand():
    truth = truth_of(cells(4), images=[0, 0, 1, 1])
    # By score: cell, false, cell, false, false, cell; two images, so one false positive is a rate of 1/2.
    boxes = [cells(4)[0], FAR, cells(4)[1], FAR, FAR, cells(4)[2]]
    images = [0, 1, 0, 0, 1, 1]
    (ranking,) = ranked(truth, found_of(boxes, [0.9, 0.8, 0.7, 0.6, 0.5, 0.4], images=images), num_images=2)
    found = sensitivities(ranking, np.ones((1, 2)), np.array([2.0]))
    # 1/8 and 1/4: no false positive allowed, 1 cell; 1/2: one, 2 cells; 1: two, still 2; 2 and more: 3 of 4.
    assert found[0].tolist() == [0.25, 0.25, 0.5, 0.5, 0.75, 0.75, 0.75]
    curve = froc(ranking, 2)
    assert curve.false_positives.tolist() == [0, 0.5, 0.5, 1, 1.5, 1.5]
    assert curve.sensitivity.tolist() == [0.25, 0.25, 0.5, 0.5, 0.5, 0.75]


def test_equal_scores_stand_or_fall_together_by_hand():
    truth = truth_of(cells(1))
    # The cell comes first among the equal ones, but no threshold lets it through alone: 3 false positives come along.
    (ranking,) = ranked(truth, found_of([cells(1)[0], FAR, FAR, FAR], [0.5] * 4))
    assert sensitivities(ranking, np.ones((1, 1)), np.array([1.0]))[0].tolist() == [0, 0, 0, 0, 0, 1, 1]


@pytest.mark.parametrize("seed", range(8))
def test_sensitivities_equal_the_best_of_all_thresholds(seed):
    truth, found = random_scene(seed)
    weights = np.random.default_rng(seed).multinomial(8, np.full(8, 1 / 8), size=3).astype(float)
    for label, ranking in enumerate(ranked(truth, found, 5, 8)):
        values = sensitivities(ranking, weights, weights.sum(axis=1))
        for row, weight in zip(values, weights, strict=True):
            total = sum(w * ((truth.image == i) & (truth.label == label) & ~truth.crowd & ~truth.ignore).sum()
                        for i, w in enumerate(weight))  # fmt: skip
            for rate, value in zip(RATES, row, strict=True):
                best = 0.0
                for threshold in [2.0, *ranking.score]:
                    over = ranking.score >= threshold
                    of = weight[ranking.image[over]]
                    if (of * ranking.wrong[0, 0, over]).sum() <= rate * weight.sum():
                        best = max(best, (of * ranking.correct[0, 0, over]).sum())
                assert value == pytest.approx(best / total) if total else np.isnan(value)


def test_the_threshold_for_a_sensitivity_by_hand():
    truth = truth_of(cells(4))
    boxes = [cells(4)[0], FAR, cells(4)[1], FAR, cells(4)[2]]
    (ranking,) = ranked(truth, found_of(boxes, [0.9, 0.8, 0.7, 0.6, 0.5]))
    assert operation_at(ranking, 2, 0.5) == (0.7, 0.5, pytest.approx(2 / 3), 0.5)  # one false positive on two images
    assert operation_at(ranking, 2, 0.75) == (0.5, 0.75, pytest.approx(3 / 5), 1.0)
    assert np.isnan(operation_at(ranking, 2, 0.76)).all()  # the fourth cell is never found
    (nothing,) = ranked(truth_of([]), found_of([FAR], [0.9]))
    assert np.isnan(operation_at(nothing, 1, 0.5)).all()


def test_grades_of_one_cell_are_one_finding():
    abnormal = np.array([False, True, True])
    truth = truth_of(cells(3), labels=[0, 1, 2])
    second, third = cells(3)[1], cells(3)[2]
    found = found_of([second, second, third, cells(3)[0]], [0.6, 0.8, 0.7, 0.9], labels=[1, 2, 1, 0])
    true, graded = lesions(truth, found, abnormal)
    assert true.label.tolist() == [0, 0]
    assert sorted(graded.score) == [0.6, 0.7, 0.8]  # the normal cell's is gone
    matches = without_repeats(match_coco(true, graded, IOU_50, ANY_AREA, 10**6), graded)
    assert matches.score.tolist() == [0.8, 0.7, 0.6]
    assert matches.correct[0, 0].tolist() == [True, True, False]  # the third cell is found, if not by its grade
    assert not matches.wrong.any()  # the lower of two on one cell is no false positive


def test_a_false_finding_of_several_grades_is_one_false_positive():
    found = found_of([FAR, FAR, FAR], [0.6, 0.8, 0.7], labels=[0, 1, 2])
    true, graded = lesions(truth_of(cells(1)), found, np.ones(3, bool))
    matches = without_repeats(match_coco(true, graded, IOU_50, ANY_AREA, 10**6), graded)
    assert matches.score[matches.wrong[0, 0]].tolist() == [0.8]


@pytest.mark.parametrize("radius", [None, 25.0])
def test_the_truth_as_predictions_has_100_at_every_rate(radius):
    """Cells of different and of equal grades that overlap by an IoU of 0.82, and 130 of one class in an image."""
    near = cells(130) + np.array([5, 0, 5, 0])
    boxes = np.concatenate([cells(130), near])
    truth = truth_of(boxes, labels=[0] * 130 + [0, 1] * 65)
    severity = read_severity(["LSIL", "HSIL"])
    middle = (boxes[:, :2] + boxes[:, 2:]) / 2
    found = found_of(boxes, np.ones(260), labels=truth.label)
    inputs = EvaluationInput(["LSIL", "HSIL"], truth, found, np.zeros(1, int), True, severity, middle, radius)
    figures = {name: value[0] for name, value in figures_of(Analysis(inputs)).items() if name.startswith("froc")}
    assert len(figures) == 8 + 8 + 2
    assert figures == dict.fromkeys(figures, 100.0)


def test_units_are_images_or_slides_by_hand():
    abnormal = np.array([True, False])
    # Images 0, 1 are slide 0; 2 is slide 1; 3 is slide 2, which holds a normal cell alone; 4 is empty, of slide 2.
    truth = truth_of(cells(3), labels=[0, 0, 1], images=[0, 2, 3])
    found = found_of([FAR] * 5, [0.3, 0.8, 0.5, 0.9, 0.2], labels=[0, 0, 0, 1, 0], images=[0, 1, 2, 3, 4])
    images = units_of(truth, found, abnormal, np.arange(5))
    assert images.positive.tolist() == [True, False, True, False, False]
    assert images.score.tolist() == [0.3, 0.8, 0.5, 0, 0.2]  # 0.9 is of a normal class
    slides = units_of(truth, found, abnormal, np.array([0, 0, 1, 2, 2]))
    assert slides.positive.tolist() == [True, True, False]
    assert slides.score.tolist() == [0.8, 0.5, 0.2]
    # Of the 2 x 3 pairs of images the positive one is higher in: 0.3 > 0, 0.2; 0.5 > 0, 0.2.
    assert area_under_roc(images, np.ones((1, 5)))[0] == pytest.approx(4 / 6)
    assert area_under_roc(slides, np.ones((1, 3)))[0] == 1
    rates = rates_at(images, np.ones((1, 5)), 0.5)
    assert (rates.sensitivity[0], rates.specificity[0]) == (0.5, pytest.approx(2 / 3))


def test_ignored_regions_make_no_image_abnormal_and_crowds_do():
    truth = truth_of(cells(2), images=[0, 1], crowd=[True, True], ignore=[True, False])
    assert units_of(truth, found_of([], []), np.array([True]), np.arange(2)).positive.tolist() == [False, True]


def test_area_under_roc_equals_counted_pairs_under_weights():
    rng = np.random.default_rng(0)
    truth = truth_of(cells(40), images=rng.choice(60, 40, replace=False))
    found = found_of([FAR] * 60, rng.integers(0, 9, 60) / 8, images=np.arange(60))
    units = units_of(truth, found, np.array([True]), np.arange(60))
    weights = rng.multinomial(60, np.full(60, 1 / 60), size=5).astype(float)
    for weight, value in zip(weights, area_under_roc(units, weights), strict=True):
        won = pairs = 0.0
        for i in np.flatnonzero(units.positive):
            for j in np.flatnonzero(~units.positive):
                pairs += weight[i] * weight[j]
                won += (
                    weight[i] * weight[j] * ((units.score[i] > units.score[j]) + (units.score[i] == units.score[j]) / 2)
                )
        assert value == pytest.approx(won / pairs)


def test_without_normal_images_there_is_no_specificity_and_no_auc():
    units = units_of(truth_of(cells(1)), found_of([], []), np.array([True]), np.arange(1))
    assert np.isnan(area_under_roc(units, np.ones((1, 1)))[0])
    rates = rates_at(units, np.ones((1, 1)), 0.5)
    assert (rates.sensitivity[0], np.isnan(rates.specificity[0])) == (0, True)


def test_roc_runs_from_none_to_all_and_its_area_is_the_auc():
    rng = np.random.default_rng(1)
    truth = truth_of(cells(10), images=np.arange(10))
    found = found_of([FAR] * 30, rng.integers(1, 6, 30) / 5, images=np.arange(30))
    units = units_of(truth, found, np.array([True]), np.arange(30))
    thresholds, false, true = roc(units)
    assert (false[0], true[0], false[-1], true[-1]) == (0, 0, 1, 1)
    assert thresholds[0] == np.inf
    area = np.sum(np.diff(false) * (true[1:] + true[:-1]) / 2)
    assert area_under_roc(units, np.ones((1, 30)))[0] == pytest.approx(area)
