"""Confusion with costs, calibration, kinds of errors, recall by size and crowding: by hand and against references."""

from pathlib import Path

import numpy as np
import pytest
from box_arrays import found_of, truth_of
from test_coco_pycocotools import random_scene
from test_protocols import reference_iou

from cervical_d2.datasets.definition import read_label_map
from cervical_d2.errors import UserError
from cervical_d2.evaluation.calibration import bins_of, calibration_error, reliability
from cervical_d2.evaluation.confusion import calls, confusion_matrix, mean_cost
from cervical_d2.evaluation.error_types import KINDS, error_table, error_types
from cervical_d2.evaluation.matching import match_coco
from cervical_d2.evaluation.protocols import ANY_AREA, IOU_50
from cervical_d2.evaluation.severity import OWN, read_severity
from cervical_d2.evaluation.strata import neighbors, recall_of, strata

CELL, OTHER, FAR = [0, 0, 40, 40], [100, 0, 140, 40], [500, 500, 540, 540]


def shifted(box, by):
    return [box[0] + by, box[1], box[2] + by, box[3]]


def test_confusion_matrix_by_hand():
    truth = truth_of([CELL, OTHER, [200, 0, 240, 40]], labels=[0, 1, 1])
    # The first cell is called 1 and, less sure, 0: the surer call counts, the other is a false alarm. The second is
    # called rightly, the third is missed, and one detection lies where nothing is; 0.4 is below the threshold.
    found = found_of([CELL, shifted(CELL, 4), OTHER, FAR, [200, 0, 240, 40]], [0.9, 0.8, 0.7, 0.6, 0.4],
                     labels=[1, 0, 1, 0, 1])  # fmt: skip
    matrix = confusion_matrix(calls(truth, found, 2, 0.5), 2)
    assert matrix.tolist() == [[0, 1, 0], [0, 1, 1], [2, 0, 0]]
    assert confusion_matrix(calls(truth, found, 2, 0.4), 2)[1].tolist() == [0, 2, 0]  # 0.4 itself counts


def test_what_lies_in_ignored_regions_is_no_false_alarm():
    truth = truth_of([[0, 0, 300, 300]] * 2, labels=[0, 1], crowd=[True, True], ignore=[True, True])
    matrix = confusion_matrix(calls(truth, found_of([CELL, OTHER, FAR], [0.9] * 3), 2, 0.5), 2)
    assert matrix.tolist() == [[0, 0, 0], [0, 0, 0], [1, 0, 0]]


def test_costs_by_hand():
    classes = ["NILM", "ASC-US", "HSIL"]  # grades 0, 1, 4
    costs = read_severity(classes).costs
    # Too low costs 2 a grade, too high 1; within grade 0 a quarter.
    assert costs.tolist() == [[0, 1, 4, 0.25], [2, 0, 3, 2], [8, 6, 0, 8], [0.25, 1, 4, 0]]
    truth = truth_of([CELL, OTHER, CELL], labels=[2, 1, 0], images=[0, 0, 1])
    found = found_of([CELL, OTHER], [0.9, 0.9], labels=[0, 2])
    pairs = calls(truth, found, 3, 0.5)
    # Image 0: HSIL called NILM 8, ASC-US called HSIL 3; image 1: NILM missed 0.25.
    assert mean_cost(pairs, costs, np.array([[1.0, 1], [2, 1], [0, 0]])).tolist() == pytest.approx(
        [11.25 / 3, 22.25 / 5, np.nan], nan_ok=True
    )


def test_the_own_table_of_grades_agrees_with_the_label_map_of_abnormal():
    table = read_label_map("abnormal")
    names = sorted(table._index)
    severity = read_severity(names)
    assert severity.known.all()
    assert severity.abnormal.tolist() == [table.names[table.index(name)] == "abnormal" for name in names]


def test_a_class_without_a_grade_is_a_lesion_of_the_lowest():
    severity = read_severity(["RBC", "lsil"])
    assert (severity.grade.tolist(), severity.known.tolist()) == ([1, 2], [False, True])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("grades: {1: [a]}\ntoo_low: 1\ntoo_high: 1\n", "needs grades, too_low, too_high, otherwise"),
        ("grades: {1: [a], 2: [A]}\ntoo_low: 1\ntoo_high: 1\notherwise: 0\n", "'A' has two grades"),
        ("grades: {x: [a]}\ntoo_low: 1\ntoo_high: 1\notherwise: 0\n", "a grade is 'x'; write a number from 0"),
        ("grades: {1: [a]}\ntoo_low: -1\ntoo_high: 1\notherwise: 0\n", "too_low is -1"),
        ("grades: [a]\ntoo_low: 1\ntoo_high: 1\notherwise: 0\n", "write a line for each grade"),
    ],
)
def test_tables_of_severities_that_cannot_be_used(tmp_path: Path, text, message):
    path = tmp_path / "severity.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=f"severity.yaml: .*{message}"):
        read_severity(["a"], path)


def test_a_users_table_counts(tmp_path: Path):
    path = tmp_path / "severity.yaml"
    path.write_text(OWN.read_text().replace("too_low: 2", "too_low: 10"))
    assert read_severity(["hsil"], path).costs[0, 1] == 40


def matched(truth, found):
    return match_coco(truth, found, IOU_50, ANY_AREA, 10**6)


def test_calibration_error_by_hand():
    truth = truth_of([CELL, OTHER], images=[0, 1])
    found = found_of([CELL, FAR, OTHER, FAR], [0.95, 0.85, 0.15, 0.12], images=[0, 0, 1, 1])
    bins = bins_of(matched(truth, found), 2)
    # Bins: 0.95 right (off by 0.05), 0.85 wrong (0.85), 0.15 and 0.12 half right (mean score 0.135: 0.365, twice).
    assert calibration_error(bins, np.ones((1, 2)))[0] == pytest.approx((0.05 + 0.85 + 2 * 0.365) / 4)
    assert calibration_error(bins, np.array([[1.0, 0]]))[0] == pytest.approx((0.05 + 0.85) / 2)
    count, score, correct = reliability(bins)
    assert count.tolist() == [0, 2, 0, 0, 0, 0, 0, 0, 1, 1]
    assert (score[1], correct[1]) == (pytest.approx(0.135), 0.5)
    assert np.isnan(score[0])


def test_a_score_of_one_is_in_the_last_bin_and_ignored_ones_in_none():
    truth = truth_of([CELL, OTHER], crowd=[False, True])
    count, _, correct = reliability(bins_of(matched(truth, found_of([CELL, OTHER], [1.0, 0.5])), 1))
    assert (count.sum(), count[9], correct[9]) == (1, 1, 1)


@pytest.mark.parametrize("seed", range(5))
def test_calibration_error_equals_a_loop_over_detections(seed):
    truth, found = random_scene(seed)
    matches = matched(truth, found)
    total = error = 0.0
    for low in range(10):
        rows = [n for n in range(len(matches.score)) if low / 10 <= matches.score[n] < (low + 1) / 10
                and (matches.correct[0, 0, n] or matches.wrong[0, 0, n])]  # fmt: skip
        if rows:
            gap = np.mean([matches.score[n] for n in rows]) - np.mean([matches.correct[0, 0, n] for n in rows])
            total, error = total + len(rows), error + len(rows) * abs(gap)
    assert calibration_error(bins_of(matches, 8), np.ones((1, 8)))[0] == pytest.approx(error / total)


def test_kinds_of_errors_by_hand():
    truth = truth_of([CELL, OTHER, [200, 0, 240, 40], [300, 0, 340, 40]], labels=[0, 1, 0, 1])
    boxes = [
        CELL,  # correct
        shifted(CELL, 2),  # on the same cell: duplicate
        OTHER,  # the cell is of class 1: class
        shifted([200, 0, 240, 40], 20),  # IoU 1/3: localization
        shifted([300, 0, 340, 40], 20),  # IoU 1/3 with a cell of class 1: both
        FAR,  # background
        shifted([200, 0, 240, 40], 36),  # IoU 4/76 = 0.05: background
    ]
    found = found_of(boxes, [0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3])
    errors = error_types(truth, found, matched(truth, found))
    kinds = [KINDS[kind] for kind in errors.kind]
    assert kinds == ["correct", "duplicate", "class", "localization", "both", "background", "background"]
    assert errors.hit_score.tolist() == [0.9, -1, -1, -1]
    assert errors.covered.tolist() == [-1, 0.7, 0.6, -1]  # the last cell is touched by "both" alone, so it is missed
    table = error_table(errors, truth, found, 0.5, 2)
    # By class: correct, localization, class, duplicate, background, both, missed.
    assert table.tolist() == [[1, 1, 1, 1, 0, 1, 0], [0, 0, 0, 0, 0, 0, 1]]
    assert error_table(errors, truth, found, 0.65, 2)[:, -1].tolist() == [1, 1]  # its poor box is now below


@pytest.mark.parametrize("seed", range(6))
def test_kinds_equal_a_straightforward_reference(seed):
    truth, found = random_scene(seed)
    errors = error_types(truth, found, matched(truth, found))
    matches = matched(truth, found)
    verdict = {int(row): (matches.correct[0, 0, n], matches.wrong[0, 0, n]) for n, row in enumerate(matches.row)}
    for row in range(len(found.score)):
        same = other = 0.0
        for n in range(len(truth.label)):
            if truth.image[n] == found.image[row] and not truth.crowd[n] and not truth.ignore[n]:
                iou = reference_iou(found.box[row], truth.box[n], 0)
                if truth.label[n] == found.label[row]:
                    same = max(same, iou)
                else:
                    other = max(other, iou)
        correct, wrong = verdict[row]
        if correct or not wrong:
            expected = "correct" if correct else "ignored"
        elif 0.1 <= same < 0.5:
            expected = "localization"
        elif other >= 0.5:
            expected = "class"
        elif same >= 0.5:
            expected = "duplicate"
        else:
            expected = "background" if max(same, other) <= 0.1 else "both"
        assert KINDS[errors.kind[row]] == expected


def test_recall_by_size_and_crowding_by_hand():
    # 20 x 20 alone, 50 x 50 beside one of another class, 100 x 100 in another image; a crowd is no neighbor.
    truth = truth_of([[0, 0, 20, 20], [100, 0, 150, 50], [140, 0, 190, 50], [0, 0, 100, 100], [0, 0, 300, 300]],
                     labels=[0, 0, 1, 0, 0], images=[0, 0, 0, 1, 0], crowd=[0, 0, 0, 0, 1])  # fmt: skip
    assert neighbors(truth).tolist() == [0, 1, 1, 0, 0]
    found = np.array([True, False, True, True, False])
    weights = np.array([[1.0, 1], [1, 3], [0, 1]])
    recalls = {(item.by, item.name): recall_of(item, truth, found, weights) for item in strata(truth)}
    np.testing.assert_allclose(recalls["size", "small"], [1, 1, np.nan])
    np.testing.assert_allclose(recalls["size", "medium"], [0.5, 0.5, np.nan])
    np.testing.assert_allclose(recalls["size", "large"], [1, 1, 1])
    np.testing.assert_allclose(recalls["crowding", "alone"], [1, 1, 1])
    np.testing.assert_allclose(recalls["crowding", "one neighbor"], [0.5, 0.5, np.nan])
    assert np.isnan(recalls["crowding", "two or more"]).all()
