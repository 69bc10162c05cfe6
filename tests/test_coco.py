"""COCO's protocol and the papers' numbers by hand; `test_coco_pycocotools` has the comparison."""

import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from box_arrays import found_of, truth_of

from cervical_d2.evaluation.coco import class_metrics, coco_tables, paper_metrics, summarize_coco
from cervical_d2.evaluation.matching import select


def test_a_wrong_box_between_two_right_ones_by_hand():
    truth = truth_of([[0, 0, 50, 50], [100, 0, 150, 50]])
    found = found_of([[0, 0, 50, 50], [300, 0, 350, 50], [100, 0, 150, 50]], [0.9, 0.8, 0.7])
    tables = coco_tables(truth, found, num_classes=1)
    # Precision is 1, 1/2, 2/3 at recall 1/2, 1/2, 1: so 1 at the 51 levels 0 ... 0.50, and 2/3 at the other 50.
    expected = 100 * (51 + 50 * 2 / 3) / 101
    stats = summarize_coco(tables)
    assert stats["AP"] == pytest.approx(expected)
    assert stats["AP50"] == pytest.approx(expected)
    assert stats["AR1"] == pytest.approx(50)  # the first detection finds one of two
    assert stats["AR100"] == pytest.approx(100)
    assert stats["APm"] == pytest.approx(expected)  # 2500 is between 1024 and 9216; the wrong box is as large
    assert np.isnan(stats["APs"])
    assert np.isnan(stats["ARl"])


def test_overlap_decides_at_how_many_thresholds_a_box_counts_by_hand():
    truth, found = truth_of([[0, 0, 100, 100]]), found_of([[0, 0, 62, 100]], [0.9])
    stats = summarize_coco(coco_tables(truth, found, num_classes=1))
    # IoU 0.62 passes 0.50, 0.55 and 0.60 of the ten thresholds.
    assert stats["AP"] == pytest.approx(30)
    assert (stats["AP50"], stats["AP75"]) == (pytest.approx(100), 0)
    assert stats["AR100"] == pytest.approx(30)


@pytest.mark.parametrize(
    ("kind", "truths", "expected"),
    [
        ({}, 2, 100 * (51 / 3 + 0) / 101),  # two to find: right comes third, 1/3 up to recall 1/2
        ({"crowd": [False, True]}, 1, 100),  # both boxes lie in the crowd, so neither is wrong
        ({"ignore": [False, True]}, 1, 100 / 3),  # IoU 1/16: wrong; but only one is to be found
    ],
)
def test_boxes_inside_a_crowd_are_not_wrong_by_hand(kind, truths, expected):
    truth = truth_of([[0, 0, 50, 50], [100, 100, 300, 300]], **kind)
    found = found_of([[100, 100, 150, 150], [200, 200, 250, 250], [0, 0, 50, 50]], [0.9, 0.8, 0.7])
    tables = coco_tables(truth, found, num_classes=1)
    assert summarize_coco(tables)["AP50"] == pytest.approx(expected)
    assert tables.truths.tolist() == [truths]


def test_an_ignored_box_excuses_one_detection_only_by_hand():
    truth = truth_of([[0, 0, 50, 50], [100, 0, 150, 50]], ignore=[False, True])
    found = found_of([[100, 0, 150, 50], [100, 0, 150, 50], [0, 0, 50, 50]], [0.9, 0.8, 0.7])
    # The second one on the ignored box is wrong: precision 1/2 when the only box is found.
    assert summarize_coco(coco_tables(truth, found, num_classes=1))["AP50"] == pytest.approx(50)


@pytest.mark.parametrize(("order", "expected"), [([0, 1], 100), ([1, 0], 100 * 51 / 101)])
def test_of_two_equal_overlaps_the_later_box_is_taken_by_hand(order, expected):
    truth = select(truth_of([[0, 0, 40, 40], [20, 0, 60, 40]]), np.array(order))
    found = found_of([[10, 0, 50, 40], [0, 0, 40, 40]], [0.9, 0.8])
    # The first has IoU 30/50 with both. Only if it takes the right one, the left one stays free for the second.
    assert summarize_coco(coco_tables(truth, found, num_classes=1))["AP50"] == pytest.approx(expected)


def test_an_area_on_the_border_belongs_to_both_ranges():
    truth, found = truth_of([[0, 0, 32, 32]]), found_of([[0, 0, 32, 32]], [1])
    stats = summarize_coco(coco_tables(truth, found, num_classes=1))
    assert (stats["APs"], stats["APm"]) == (pytest.approx(100), pytest.approx(100))
    assert np.isnan(stats["APl"])


def test_paper_metrics_are_means_over_classes_with_truth_by_hand():
    truth = truth_of([[0, 0, 50, 50], [100, 0, 150, 50], [200, 0, 250, 50]], labels=[0, 0, 1])
    found = found_of([[0, 0, 50, 26], [0, 0, 50, 50]], [0.9, 0.9], labels=[0, 2])
    tables = coco_tables(truth, found, num_classes=3)
    # Class 0: one of two found, precision 1 at 51 of 101 levels, recall 50; IoU 0.52, so at one threshold of ten.
    # Class 1: nothing found. Class 2: no truth, so its wrong box counts nowhere.
    assert paper_metrics(tables) == {"mAP": pytest.approx(100 * 51 / 101 / 2), "AR": pytest.approx(25)}
    assert paper_metrics(tables)["mAP"] == pytest.approx(summarize_coco(tables)["AP50"])
    per_class = class_metrics(tables)
    np.testing.assert_allclose(per_class["AP"], [10 * 51 / 101, 0, np.nan])
    np.testing.assert_allclose(per_class["AP50"], [100 * 51 / 101, 0, np.nan])
    np.testing.assert_allclose(per_class["recall50"], [50, 0, np.nan])
    assert tables.truths.tolist() == [2, 1, 0]
    assert tables.detections.tolist() == [1, 0, 1]


def test_detections_beyond_a_hundred_count_when_the_cap_allows():
    corner = np.stack([np.arange(150) * 60.0, np.zeros(150)], axis=1)
    truth = truth_of(np.hstack([corner, corner + 50]))
    found = found_of(truth.box, np.linspace(1, 0.1, 150))
    stats = summarize_coco(coco_tables(truth, found, num_classes=1, max_dets=(1, 10, 100, 300)))
    assert stats["AR100"] == pytest.approx(100 * 100 / 150)
    assert stats["AR300"] == stats["AP"] == pytest.approx(100)
    assert summarize_coco(coco_tables(truth, found, num_classes=1))["AP"] == pytest.approx(100 * 67 / 101)  # to 0.66


@pytest.mark.parametrize(
    ("boxes", "expected"),
    [([], np.nan), ([[0, 0, 9, 9]], 0)],  # nothing to find is no number, finding nothing is none of it
)
def test_nothing_found_or_nothing_there_gives_no_warning(boxes, expected):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tables = coco_tables(truth_of(boxes), found_of([], []), num_classes=2)
        stats = summarize_coco(tables) | paper_metrics(tables)
    for name in ("AP", "AP50", "APs", "AR1", "AR100", "ARs", "mAP", "AR"):
        np.testing.assert_equal(stats[name], expected)


def test_a_label_out_of_range_is_refused():
    with pytest.raises(ValueError, match="truth: labels from 0 to 2, but 2 classes"):
        coco_tables(truth_of([[0, 0, 9, 9]] * 2, labels=[0, 2]), found_of([], []), num_classes=2)
    with pytest.raises(ValueError, match="detections: labels from -1 to -1"):
        coco_tables(truth_of([]), found_of([[0, 0, 9, 9]], [1], labels=[-1]), num_classes=2)


def test_protocols_need_numpy_only():
    # Bare packages stand in for ours, whose __init__ may register models: the promise is the module's.
    program = """
import sys, types
for name, path in (("cervical_d2", sys.argv[1]), ("cervical_d2.evaluation", sys.argv[1] + "/evaluation")):
    sys.modules[name] = types.ModuleType(name)
    sys.modules[name].__path__ = [path]
import cervical_d2.evaluation.coco
import cervical_d2.evaluation.protocols
print(*sorted({"detectron2", "torch", "pycocotools", "numpy"} & set(sys.modules)))
"""
    package = Path(__file__).parents[1] / "cervical_d2"
    run = subprocess.run(
        [sys.executable, "-c", program, str(package)], capture_output=True, text=True, check=True, timeout=60
    )
    assert run.stdout.split() == ["numpy"]
