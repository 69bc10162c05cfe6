"""Center labels: matched by distance, and trained as boxes around them."""

import math
from pathlib import Path

import numpy as np
import pytest
from conftest import SHARED, real_data
from detectron2.data import DatasetCatalog
from evaluator_scenes import box, found, record, run, temporary_data_sets

from cervical_d2.datasets.registry import resolve
from cervical_d2.errors import UserError
from cervical_d2.evaluation.centers import center_metrics, match_centers
from cervical_d2.evaluation.evaluator import CervicalCOCOEvaluator
from cervical_d2.evaluation.matching import Detections, Truth


def truth_at(points, labels=None, crowds=()):
    """Cells of one image at `points`, and crowd boxes behind them."""
    rows = len(points) + len(crowds)
    boxes = np.array([(x, y, x, y) for x, y in points] + list(crowds), float).reshape(-1, 4)
    labels = np.array([*(labels or [0] * len(points)), *([0] * len(crowds))], np.int64)
    crowd = np.arange(rows) >= len(points)
    truth = Truth(np.zeros(rows, np.int64), labels, boxes, np.ones(rows), crowd, crowd)
    return truth, (boxes[:, :2] + boxes[:, 2:]) / 2


def detections_at(points, scores, labels=None):
    boxes = np.array([(x - 9, y - 4, x + 9, y + 4) for x, y in points], float).reshape(-1, 4)
    labels = np.array(labels or [0] * len(points), np.int64)
    return Detections(np.zeros(len(points), np.int64), labels, boxes, np.array(scores, float))


def test_the_surest_detection_takes_the_nearest_free_center():
    truth, centers = truth_at([(100, 100), (130, 100)])
    # The first is nearer to the second cell and takes it; the second would like it too and gets the first, 28 px
    # away; for the third none is left.
    matches = match_centers(truth, centers, detections_at([(118, 100), (128, 100), (101, 100)], [0.9, 0.8, 0.7]), 30, 9)
    assert matches.correct[0, 0].tolist() == [True, True, False]
    assert matches.wrong[0, 0].tolist() == [False, False, True]


@pytest.mark.parametrize(("distance", "hit"), [(29.9, True), (30.0, True), (30.1, False)])
def test_the_radius_belongs_to_the_circle(distance, hit):
    truth, centers = truth_at([(100, 100)])
    angle = 0.7  # a distance along neither axis
    place = (100 + distance * math.cos(angle), 100 + distance * math.sin(angle))
    matches = match_centers(truth, centers, detections_at([place], [0.5]), 30 + 1e-9, 9)
    assert matches.correct[0, 0].tolist() == [hit]


def test_what_lies_in_an_ignored_region_is_neither_found_nor_wrong():
    truth, centers = truth_at([(100, 100)], crowds=[(200, 200, 300, 300)])
    detections = detections_at([(250, 250), (299, 201), (301, 250), (100, 101)], [0.9, 0.8, 0.7, 0.6])
    matches = match_centers(truth, centers, detections, 20, 9)
    assert matches.correct[0, 0].tolist() == [False, False, False, True]
    assert matches.wrong[0, 0].tolist() == [False, False, True, False]


def test_metrics_by_hand():
    truth, centers = truth_at([(100, 100), (200, 100), (300, 100), (400, 100)], labels=[0, 0, 0, 2])
    found_at = [(100, 105), (500, 500), (200, 95), (300, 101), (400, 100)]
    detections = detections_at(found_at, [0.9, 0.8, 0.7, 0.4, 0.9], labels=[0, 0, 0, 0, 1])
    metrics = center_metrics(truth, centers, detections, num_classes=3, radius=10)
    # Class 0 at 0.5: 2 right, 1 wrong, 3 to find: F1 4/6, precision and recall 2/3. AP: precision 1 up to a recall of
    # 1/3 (34 of 101 levels), then at best 3/4 up to 1 (67 levels).
    assert metrics["F1"][0] == pytest.approx(200 / 3)
    assert metrics["precision"][0] == pytest.approx(200 / 3)
    assert metrics["recall"][0] == pytest.approx(200 / 3)
    assert metrics["AP"][0] == pytest.approx(100 * (34 + 67 * 0.75) / 101)
    # Class 1 has no cell, class 2 is never found (its cell was called class 1).
    assert [math.isnan(metrics[name][1]) for name in ("AP", "F1", "recall")] == [True] * 3
    assert metrics["precision"][1] == 0
    assert [metrics[name][2] for name in ("AP", "F1", "recall")] == [0, 0, 0]


def test_evaluator_adds_centers_where_the_data_set_has_a_radius(tmp_path: Path):
    records = [record(1, box([100, 100, 40, 40], 0), box([300, 300, 40, 40], 1, point=[310, 310]))]
    # The first box is too small for an IoU of 0.5 but has the right middle; the second is matched by the labeled
    # point, 10 px from the middle of its box.
    outputs = [found([[110, 110, 130, 130], [300, 300, 320, 320]], [0.9, 0.9], [0, 1])]
    with temporary_data_sets() as register:
        plain = run(CervicalCOCOEvaluator(register(records)), records, outputs)
        name = register(records, center_radius=5.0)
        results = run(CervicalCOCOEvaluator(name, tmp_path), records, outputs)
    assert "center" not in plain
    assert results["bbox"] == pytest.approx(plain["bbox"], nan_ok=True)
    assert results["bbox"]["AP50"] == 0
    assert results["center"]["F1"] == 100
    assert results["center"]["AP-ascus"] == pytest.approx(100)
    assert "by centers within 5 px" in (tmp_path / "metrics.txt").read_text()


def points_file(tiny: Path, centers: str) -> str:
    (tiny / "train.json").write_text(
        '{"images": [{"id": 1, "file_name": "train0.png", "width": 64, "height": 96}],'
        ' "annotations": [{"id": 4, "image_id": 1, "category_id": 7, "point": [30, 40]},'
        ' {"id": 5, "image_id": 1, "category_id": 7, "point": [60, 4]}], "categories": [{"id": 7, "name": "hsil"}]}'
    )
    data = (tiny / "data.yaml").read_text()
    (tiny / "data.yaml").write_text(data + centers)
    return resolve(f"{tiny}/data.yaml:train")


@pytest.mark.parametrize(
    "centers",
    ["centers: {box: 20 px}\n", "centers: {box: 5 um}\nmicrometers_per_pixel: 0.25\n", "centers: {box: 20}\n"],
)
def test_boxes_of_the_stated_size_stand_around_points_and_end_with_the_image(tiny: Path, centers):
    (result,) = DatasetCatalog.get(points_file(tiny, centers))
    boxes = [annotation["bbox"] for annotation in result["annotations"]]
    assert boxes == [[20, 30, 40, 50], [50, 0, 64, 14]]
    assert [annotation["point"] for annotation in result["annotations"]] == [[30, 40], [60, 4]]


def test_points_without_a_size_are_refused_with_the_cure(tiny: Path):
    with pytest.raises(UserError, match=r'annotation 4 \(image "train0.png"\): a center .*centers: \{box: 90 px\}'):
        DatasetCatalog.get(points_file(tiny, ""))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("centers: {box: 5 um}\n", "add micrometers_per_pixel"),
        ("centers: {box: 5 parsec}\n", "positive length"),
        ("centers: {box: 0}\n", "positive length"),
        ("centers: {size: 5}\n", "write box and radius"),
    ],
)
def test_unclear_sizes_are_refused(tiny: Path, text, words):
    (tiny / "data.yaml").write_text((tiny / "data.yaml").read_text() + text)
    with pytest.raises(UserError, match=f"data.yaml: .*{words}"):
        resolve(f"{tiny}/data.yaml:train")


@real_data
def test_a_center_is_where_it_was_though_the_border_cut_its_box(monkeypatch):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(SHARED / "data"))
    annotations = [note for image in DatasetCatalog.get("cric_train") for note in image["annotations"]]
    sides = np.array([(n["bbox"][2] - n["bbox"][0], n["bbox"][3] - n["bbox"][1]) for n in annotations])
    whole = (abs(sides - 84) < 0.2).all(axis=1)
    middle = np.array([((n["bbox"][0] + n["bbox"][2]) / 2, (n["bbox"][1] + n["bbox"][3]) / 2) for n in annotations])
    points = np.array([n["point"] for n in annotations])
    np.testing.assert_allclose(points[whole], middle[whole])
    # A cut box lies at the border; its cell is nearer to the border than the middle of what is left of the box.
    assert (~whole).sum() > 100
    assert (abs(points[~whole] - middle[~whole]).max(axis=1) > 0.05).mean() > 0.95


def test_abnormal_cells_are_found_by_the_distance_of_their_own_centers():
    # Of flora, no lesion, and ascus; the detection of ascus is too small for an IoU of 0.5 and has the right middle.
    records = [record(1, box([300, 300, 40, 40], 1), box([100, 100, 40, 40], 0, point=[110, 110]))]
    output = found([[105, 105, 115, 115]], [0.9], [0])
    with temporary_data_sets() as register:
        results = run(CervicalCOCOEvaluator(register(records, center_radius=5)), records, [output])
        by_box = run(CervicalCOCOEvaluator(register(records)), records, [output])
    assert results["froc_image"]["0.125"] == 100
    assert by_box["froc_image"]["0.125"] == 0
