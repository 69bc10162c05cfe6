"""The three protocols against straightforward references, and by hand where they differ."""

import numpy as np
import pytest
from box_arrays import found_of, truth_of
from test_coco_pycocotools import random_scene

from cervical_d2.evaluation.coco import class_metrics, coco_tables
from cervical_d2.evaluation.curves import mean
from cervical_d2.evaluation.matching import select
from cervical_d2.evaluation.protocols import PROTOCOLS, Protocol, averages, protocol_rankings

BY_NAME = {protocol.name: protocol for protocol in PROTOCOLS}
ALL = {"score": -1.0, "nms": 1.0, "cap": 10**6}  # so that every detection counts


def of(protocol: Protocol, truth, found, num_classes=1, num_images=1, ious=(0.5,)):
    ranked = protocol_rankings(
        protocol, truth, found, num_classes=num_classes, num_images=num_images, ious=np.array(ious)
    )
    result = averages(protocol, ranked, np.ones((1, num_images)))
    return result.ap[0], result.recall[0]


# References: loops over lists, written from the sources' descriptions. They use nothing of the package.


def side(low, high, plus):
    return high - low + plus


def reference_iou(a, b, plus):
    width = max(0, side(max(a[0], b[0]), min(a[2], b[2]), plus))
    height = max(0, side(max(a[1], b[1]), min(a[3], b[3]), plus))
    both = width * height
    union = side(a[0], a[2], plus) * side(a[1], a[3], plus) + side(b[0], b[2], plus) * side(b[1], b[3], plus) - both
    return both / union if both > 0 else 0.0


def rows_of(truth, found, label):
    """[(image, box, left out)], [(image, box, score)] by falling score, earlier image and row first."""
    true = [
        (int(truth.image[n]), truth.box[n].tolist(), bool(truth.crowd[n] or truth.ignore[n]))
        for n in range(len(truth.label))
        if truth.label[n] == label
    ]
    hits = [
        (int(found.image[n]), found.box[n].tolist(), float(found.score[n]))
        for n in range(len(found.label))
        if found.label[n] == label
    ]
    return true, sorted(sorted(hits, key=lambda hit: hit[0]), key=lambda hit: -hit[2])


def verdicts_voc(true, hits, threshold, plus):
    """+1 right, 0 does not count, -1 wrong: PASCAL VOC with regions left out, as mmdetection's eval_map."""
    taken, verdicts = set(), []
    for image, box, _ in hits:
        best, number = -1.0, None
        for left_out in (False, True):  # of equal ones that which counts, then the first
            for n, (place, other, out) in enumerate(true):
                if place == image and out == left_out:
                    value = reference_iou(box, other, plus)
                    if value > best:
                        best, number = value, n
        if number is None or best < threshold:
            verdicts.append(-1)
        elif true[number][2]:
            verdicts.append(0)
        elif number in taken:
            verdicts.append(-1)
        else:
            taken.add(number)
            verdicts.append(1)
    return verdicts


def verdicts_comparison(true, hits, threshold):
    """All true boxes of the class by falling IoU, the first that is free; here without crowds."""
    taken, verdicts = set(), []
    for image, box, _ in hits:
        candidates = [
            (reference_iou(box, other, 0), n)
            for n, (place, other, _) in enumerate(true)
            if place == image and n not in taken
        ]
        best = max(candidates, default=(0.0, -1))
        if best[0] >= threshold:
            taken.add(best[1])
        verdicts.append(1 if best[0] >= threshold else -1)
    return verdicts


def reference_curve(verdicts, total):
    points, right, wrong = [], 0, 0
    for verdict in verdicts:
        right, wrong = right + (verdict == 1), wrong + (verdict == -1)
        points.append((right / total, right / (right + wrong) if right + wrong else 0.0))
    return points


def reference_area(points):
    ap, last = 0.0, 0.0
    for n, (recall, _) in enumerate(points):
        if recall > last:
            ap += (recall - last) * max(precision for _, precision in points[n:])
            last = recall
    return ap


def reference_eleven(points):
    levels = np.arange(0, 1 + 1e-3, 0.1)
    return sum(max((p for r, p in points if r >= level), default=0.0) for level in levels) / 11


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("name", ["voc", "voc_plus1", "voc_11point", "voc_11point_plus1"])
def test_voc_equals_a_straightforward_reference(seed, name):
    protocol = BY_NAME[name]._replace(**ALL)
    truth, found = random_scene(seed)
    ious = (0.3, 0.5, 0.75)
    ap, recall = of(protocol, truth, found, 5, 8, ious)
    for label in range(5):
        true, hits = rows_of(truth, found, label)
        total = sum(not out for _, _, out in true)
        for t, threshold in enumerate(ious):
            if not total:
                assert np.isnan(ap[t, label])
                continue
            points = reference_curve(verdicts_voc(true, hits, threshold, protocol.plus), total)
            expected = (reference_eleven if "11" in name else reference_area)(points)
            assert ap[t, label] == pytest.approx(expected, abs=1e-9)
            assert recall[t, label] == pytest.approx(points[-1][0] if points else 0, abs=1e-9)


@pytest.mark.parametrize("seed", range(20))
def test_comparison_detector_equals_a_straightforward_reference(seed):
    truth, found = random_scene(seed)
    truth = select(truth, ~(truth.crowd | truth.ignore))  # which it does not know
    ap, recall = of(BY_NAME["comparison_detector"]._replace(**ALL), truth, found, 5, 8)
    for label in range(5):
        true, hits = rows_of(truth, found._replace(box=np.round(found.box)), label)
        if not true:
            assert np.isnan(ap[0, label])
            continue
        points = reference_curve(verdicts_comparison(true, hits, 0.5), len(true))
        assert ap[0, label] == pytest.approx(reference_area(points), abs=1e-9)
        assert recall[0, label] == pytest.approx(points[-1][0] if points else 0, abs=1e-9)


@pytest.mark.parametrize("seed", range(6))
def test_coco_equals_its_tables_which_equal_pycocotools(seed):
    truth, found = random_scene(seed)
    protocol = BY_NAME["coco"]._replace(score=-1.0, nms=1.0)
    ap, recall = of(protocol, truth, found, 5, 8)
    expected = class_metrics(coco_tables(truth, found, num_classes=5))
    np.testing.assert_allclose(100 * ap[0], expected["AP50"], atol=1e-9)
    np.testing.assert_allclose(100 * recall[0], expected["recall50"], atol=1e-9)


# Two cells that overlap: A at 0..40 and B at 20..60, both 40 high. IoU 20/60.
CELLS = [[0, 0, 40, 40], [20, 0, 60, 40]]
A, B = CELLS
BOTH = [8, 0, 48, 40]  # IoU 32/48 with A, 28/52 with B
FAR = [300, 0, 340, 40]


@pytest.mark.parametrize(
    ("boxes", "scores", "expected"),
    [
        # COCO: A, then B is free for the second, so all is found before the third errs. VOC: the second may take A
        # alone, which is taken; precision 1 up to recall 1/2, then 2/3. ComparisonDetector sees the first alone.
        ([A, BOTH, B], [0.9, 0.6, 0.5], {"coco": 1, "voc": 5 / 6, "comparison_detector": 1 / 2}),
        # A wrong one first. COCO: 2 of 3 in the end, which is the best from everywhere. VOC and the other: 1/2 at
        # recall 1/2; the eleven points take it at six of eleven levels.
        (
            [FAR, A, BOTH],
            [0.9, 0.8, 0.6],
            {"coco": 2 / 3, "voc": 1 / 4, "voc_11point": 3 / 11, "comparison_detector": 1 / 4},
        ),
        # One of two found: 51 of 101 levels, half of the area, 6 of 11 levels; at 0.6 the last protocol sees nothing.
        ([A], [0.6], {"coco": 51 / 101, "voc": 1 / 2, "voc_11point": 6 / 11, "comparison_detector": 0}),
    ],
)
def test_one_scene_has_a_number_for_each_protocol_by_hand(boxes, scores, expected):
    for name, value in expected.items():
        ap, _ = of(BY_NAME[name]._replace(nms=1.0), truth_of(CELLS), found_of(boxes, scores))
        assert ap[0, 0] == pytest.approx(value), name


def test_of_a_box_and_its_ignored_copy_voc_takes_the_one_that_counts_by_hand():
    truth = truth_of([A, A], ignore=[True, False])
    ap, recall = of(BY_NAME["voc"], truth, found_of([A], [0.9]))
    assert (ap[0, 0], recall[0, 0]) == (pytest.approx(1), 1)


def test_plus_one_counts_the_last_pixel_by_hand():
    # 7 x 7 in 10 x 10: 0.49; with both ends counted 8 x 8 in 11 x 11: 64 / 121 = 0.529.
    truth, found = truth_of([[0, 0, 10, 10]]), found_of([[0, 0, 7, 7]], [0.9])
    assert of(BY_NAME["voc"], truth, found)[0][0, 0] == 0
    assert of(BY_NAME["voc_plus1"], truth, found)[0][0, 0] == pytest.approx(1)


def test_why_a_recall_of_64_and_one_of_88_are_not_of_one_protocol_by_hand():
    corner = np.stack([100.0 * np.arange(10), np.zeros(10)], axis=1)
    truth = truth_of(np.hstack([corner, corner + 50]))
    found = found_of(truth.box, np.linspace(0.95, 0.05, 10))
    # 0.95, 0.85, 0.75 reach 0.7: the same detector has a recall of 30 % under one protocol and of 100 % under another.
    recalls = {name: of(BY_NAME[name], truth, found)[1][0, 0] for name in ("coco", "voc", "comparison_detector")}
    assert recalls == {"coco": 1, "voc": 1, "comparison_detector": pytest.approx(0.3)}


def test_predicted_boxes_are_rounded_for_comparison_detector_by_hand():
    truth, found = truth_of([[0, 0, 10, 10]]), found_of([[0.4, 0.3, 5.4, 10.2]], [0.9])
    # As it is 5 x 9.7 of 100.2 - 49.5...: below 0.5; rounded (0, 0, 5, 10): exactly 0.5, which counts.
    assert of(BY_NAME["coco"], truth, found)[1][0, 0] == 0
    assert of(BY_NAME["comparison_detector"], truth, found)[1][0, 0] == 1


def test_means_leave_out_classes_without_truth():
    truth, found = truth_of([[0, 0, 50, 50]], labels=[1]), found_of([[0, 0, 50, 50]] * 2, [0.9, 0.9], labels=[0, 1])
    ap, recall = of(BY_NAME["voc"], truth, found, 3)
    np.testing.assert_allclose(ap[0], [np.nan, 1, np.nan])
    assert (mean(ap), mean(recall)) == (pytest.approx(1), 1)
