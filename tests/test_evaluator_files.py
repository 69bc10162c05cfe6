"""What the evaluator reads and writes: its files, their numbers against pycocotools, and nothing else."""

import contextlib
import io
import json
import math
import os

import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from evaluator_scenes import (
    CLASSES,
    FILES,
    NOTHING,
    OVERALL,
    box,
    found,
    random_scene,
    record,
    run,
    temporary_data_sets,
)
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from cervical_d2.evaluation.evaluator import CervicalCOCOEvaluator
from cervical_d2.evaluation.table import metrics_text


@pytest.fixture
def register():
    with temporary_data_sets() as add:
        yield add


def test_a_stale_json_file_is_neither_read_nor_left(register, tmp_path):
    records = [record(1, box([0, 0, 50, 50]))]
    name = register(records)
    stale = tmp_path / f"{name}_coco_format.json"
    stale.write_text("not JSON")
    output = found([[0, 0, 50, 50]], [0.9], [0])
    assert run(CervicalCOCOEvaluator(name, tmp_path), records, [output])["bbox"]["AR"] == 100
    records[0]["annotations"].append(box([200, 200, 50, 50]))
    assert run(CervicalCOCOEvaluator(name, tmp_path), records, [output])["bbox"]["AR"] == 100  # read once
    DatasetCatalog.remove(name)
    DatasetCatalog.register(name, lambda: records)  # another reader
    assert run(CervicalCOCOEvaluator(name, tmp_path), records, [output])["bbox"]["AR"] == 50
    assert stale.read_text() == "not JSON"
    assert {path.name for path in tmp_path.iterdir()} == FILES | {stale.name}
    assert not hasattr(MetadataCatalog.get(name), "json_file")


def test_files_say_what_is_returned(register, tmp_path):
    records, outputs = random_scene(1)
    name = register(records)
    results = run(CervicalCOCOEvaluator(name, tmp_path / "new" / "folder"), records, outputs)
    folder = tmp_path / "new" / "folder"
    assert {path.name for path in folder.iterdir()} == FILES

    written = json.loads((folder / "metrics.json").read_text(), parse_constant=pytest.fail)
    assert written["bbox"]["AP-herps"] is None
    assert written["bbox"].keys() == results["bbox"].keys()
    assert written["bbox"]["AP"] == results["bbox"]["AP"]

    table = (folder / "metrics.txt").read_text()
    assert name in table
    ascus = next(line.split() for line in table.splitlines() if line.startswith("ascus"))
    of_ascus = [a for image in records for a in image["annotations"] if a["category_id"] == 0]
    detections = sum(int((output["instances"].pred_classes == 0).sum()) for output in outputs)
    expected = [f"{results['bbox'][metric + '-ascus']:.2f}" for metric in ("AP", "AP50", "recall50")]
    assert ascus == ["ascus", str(sum(not a["iscrowd"] for a in of_ascus)), *expected, str(detections)]
    assert next(line.split() for line in table.splitlines() if line.startswith("herps"))[1:] == [
        "0",
        "-",
        "-",
        "-",
        "0",
    ]


@pytest.mark.parametrize("own_ids", [None, {7: 0, 3: 1, 9: 2}])
def test_predictions_are_a_coco_result_file(register, tmp_path, own_ids):
    records, outputs = random_scene(2)
    name = register(records, **({"thing_dataset_id_to_contiguous_id": own_ids} if own_ids else {}))
    results = run(CervicalCOCOEvaluator(name, tmp_path), records, outputs)
    ids = {k: own for own, k in own_ids.items()} if own_ids else {0: 1, 1: 2, 2: 3}
    annotations = [
        {**a, "image_id": image["image_id"], "category_id": ids[a["category_id"]], "area": a["bbox"][2] * a["bbox"][3]}
        for image in records
        for a in image["annotations"]
    ]
    coco = COCO()
    coco.dataset = {
        "images": [{"id": image["image_id"]} for image in records],
        "categories": [{"id": ids[k], "name": CLASSES[k]} for k in ids],
        "annotations": [{**a, "id": number} for number, a in enumerate(annotations, start=1)],
    }
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(str(tmp_path / "predictions.json")), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    stats = [np.nan if value == -1 else 100 * value for value in evaluation.stats]
    np.testing.assert_allclose([results["bbox"][key] for key in OVERALL[2:]], stats, rtol=0, atol=1e-9)
    first = json.loads((tmp_path / "predictions.json").read_text())[0]
    assert first["category_name"] == CLASSES[next(k for k in ids if ids[k] == first["category_id"])]


def test_a_file_half_written_never_replaces_a_whole_one(register, tmp_path, monkeypatch):
    records = [record(1)]
    evaluator = CervicalCOCOEvaluator(register(records), tmp_path)
    run(evaluator, records, [NOTHING])
    before = (tmp_path / "metrics.json").read_text()

    def full_disk(number):
        os.ftruncate(number, 10)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full_disk)
    with pytest.raises(OSError, match="No space"):
        run(evaluator, records, [NOTHING])
    assert (tmp_path / "metrics.json").read_text() == before
    assert {path.name for path in tmp_path.iterdir()} == FILES


def test_the_text_shows_two_digits_and_a_dash_for_nan():
    columns = {"class": ["a", "b"], "truths": [1000, 0], "AP": [2 / 3, math.nan]}
    text = metrics_text("title", {"AP": 12.345678, "APs": math.nan}, columns)
    lines = [line.split() for line in text.splitlines() if line.strip(" -")]
    assert lines == [
        ["title"],
        ["AP", "APs"],
        ["12.35", "-"],
        ["class", "truths", "AP"],
        ["a", "1000", "0.67"],
        ["b", "0", "-"],
    ]
