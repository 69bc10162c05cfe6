"""The evaluator end to end on small registered datasets, against upstream's and by hand."""

import contextlib
import io
import json
import logging
import math

import numpy as np
import pytest
import torch
import torch.multiprocessing
from detectron2.evaluation import COCOEvaluator
from detectron2.structures import BoxMode
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

from cervical_d2.errors import UserError
from cervical_d2.evaluation.evaluator import CervicalCOCOEvaluator
from cervical_d2.evaluation.ground_truth import open_split


@pytest.fixture
def register():
    with temporary_data_sets() as add:
        yield add


def test_metrics_equal_upstreams(register, tmp_path):
    records, outputs = random_scene()
    ours = run(CervicalCOCOEvaluator(register(records)), records, outputs)["bbox"]
    upstream = COCOEvaluator(register(records), ("bbox",), False, str(tmp_path), use_fast_impl=False)
    with contextlib.redirect_stdout(io.StringIO()):
        theirs = run(upstream, records, outputs)["bbox"]
    assert math.isfinite(theirs["AP"])
    assert {f"AP-{name}" for name in CLASSES} <= theirs.keys() <= ours.keys()
    for name, value in theirs.items():
        assert ours[name] == pytest.approx(value, abs=1e-9, nan_ok=True), name


def test_result_has_all_keys_and_the_papers_numbers_by_hand(register):
    records = [record("a", box([0, 0, 50, 50]), box([100, 0, 50, 50])), record("b", box([0, 0, 50, 50], 1))]
    outputs = [found([[0, 0, 50, 50], [300, 0, 350, 50]], [0.9, 0.8], [0, 2]), NOTHING]
    metrics = run(CervicalCOCOEvaluator(register(records)), records, outputs)["bbox"]
    per_class = [f"{metric}-{name}" for metric in ("AP", "AP50", "recall50") for name in CLASSES]
    assert list(metrics) == OVERALL + per_class
    # ascus: one of two found, precision 1 at the 51 levels up to 0.5; flora: nothing; herps: no truth.
    assert metrics["mAP"] == pytest.approx(100 * 51 / 101 / 2)
    assert metrics["AR"] == pytest.approx(25)
    assert metrics["AP50-ascus"] == pytest.approx(100 * 51 / 101)
    assert (metrics["recall50-ascus"], metrics["recall50-flora"]) == (50, 0)
    assert math.isnan(metrics["AP-herps"])
    assert all(type(value) is float for value in metrics.values())


@pytest.mark.parametrize("outputs", [[], [NOTHING, NOTHING]], ids=["no image processed", "empty outputs"])
def test_a_model_that_finds_nothing_gets_every_key(register, tmp_path, outputs):
    records = [record(1, box([0, 0, 50, 50])), record(2)]
    metrics = run(CervicalCOCOEvaluator(register(records), tmp_path), records, outputs)["bbox"]
    assert list(metrics)[: len(OVERALL)] == OVERALL
    for name in ("AP", "AP50", "mAP", "AR", "AR100", "APm", "AP-ascus", "recall50-ascus"):
        assert metrics[name] == 0, name
    for name in ("APs", "ARl", "AP-flora", "recall50-herps"):
        assert math.isnan(metrics[name]), name
    assert {path.name for path in tmp_path.iterdir()} == FILES


def test_all_other_figures_stand_beside_cocos(register):
    # One cell found; the surer detection on the other misses an IoU of 0.5 with it.
    records = [record(1, box([0, 0, 50, 50])), record(2, box([0, 0, 50, 50], 1), group_id="s")]
    outputs = [found([[0, 0, 50, 50]], [0.9], [0]), found([[30, 0, 80, 50], [0, 0, 50, 50]], [0.65, 0.6], [1, 1])]
    results = run(CervicalCOCOEvaluator(register(records)), records, outputs)
    # Flora: precision 1/2 at recall 1; and it is below the 0.7 of ComparisonDetector.
    assert results["coco"] == {"AP": pytest.approx(75), "AP75": pytest.approx(75), "mAP": pytest.approx(75), "AR": 100}
    assert results["voc_11point"] == {"mAP": pytest.approx(75), "AR": 100}
    assert results["comparison_detector"] == {"mAP": pytest.approx(50), "AR": 50}
    # Flora is no lesion; so one image is abnormal, and the other is called normal.
    assert results["image"] == {"AUC": 100, "sensitivity": 100, "specificity": 100}
    assert "slide" not in results  # the slide of the first image is unknown
    assert results["froc_image"]["0.125"] == 100
    assert results["froc_image"]["mean-flora"] == pytest.approx(100 * 5 / 7)  # one false positive on two images first
    assert results["recall_by_size"]["medium"] == 100
    assert results["calibration"]["ECE"] == pytest.approx(100 * (0.1 + abs(1.25 - 1)) / 3)  # bin 0.6: one of two right
    assert results["severity"]["cost"] == pytest.approx(0.25 / 2)


def test_slides_are_evaluated_where_all_are_known(register):
    records = [record(n, *([box([0, 0, 50, 50])] if n == 1 else []), group_id=f"s{n // 2}") for n in range(4)]
    outputs = [NOTHING, found([[0, 0, 50, 50]], [0.9], [0]), NOTHING, found([[0, 0, 50, 50]], [0.6], [0])]
    results = run(CervicalCOCOEvaluator(register(records)), records, outputs)
    assert results["slide"] == {"AUC": 100, "sensitivity": 100, "specificity": 0}
    assert results["image"]["specificity"] == pytest.approx(200 / 3)
    assert (
        run(CervicalCOCOEvaluator(register(records)), records, outputs, img_ids=[0, 1])["slide"]["sensitivity"] == 100
    )


def test_detections_that_are_no_numbers_are_left_out_and_told(register, caplog):
    records = [record(1, box([0, 0, 50, 50]))]
    output = found(
        [[0, 0, 50, 50], [0, 0, np.nan, 50], [0, 0, 50, 50], [50, 0, 0, 50]], [0.5, 0.9, np.nan, 0.8], [0] * 4
    )
    with caplog.at_level(logging.WARNING, "detectron2.cervical_d2"):
        metrics = run(CervicalCOCOEvaluator(register(records)), records, [output])["bbox"]
    assert metrics["AP"] == pytest.approx(100)
    assert "left out 3 of 4 detections" in caplog.text


def test_no_truth_at_all_is_nan_not_an_error(register):
    records = [record(1)]
    metrics = run(CervicalCOCOEvaluator(register(records)), records, [found([[0, 0, 9, 9]], [0.5], [0])])["bbox"]
    assert all(math.isnan(value) for value in metrics.values())


@pytest.mark.parametrize(
    ("cap", "recalls"),
    [
        (300, {"AR1": 100 / 150, "AR10": 1000 / 150, "AR100": 10000 / 150, "AR300": 100}),
        (100, {"AR1": 100 / 150, "AR10": 1000 / 150, "AR100": 10000 / 150}),
        (50, {"AR1": 100 / 150, "AR10": 1000 / 150, "AR50": 5000 / 150}),
    ],
)
def test_cap_on_the_detections_of_an_image(register, cap, recalls):
    places = [(50 * (n % 15), 50 * (n // 15)) for n in range(150)]
    records = [record(1, *[box([x, y, 40, 40]) for x, y in places])]
    output = found([[x, y, x + 40, y + 40] for x, y in places], np.linspace(1, 0.1, 150), [0] * 150)
    metrics = run(CervicalCOCOEvaluator(register(records), max_dets_per_image=cap), records, [output])["bbox"]
    names = {name for name in metrics if name[:2] == "AR" and name[2:].isdigit()}
    assert {name: metrics[name] for name in names} == pytest.approx(recalls)
    assert metrics["AR"] == pytest.approx(min(cap, 150) / 1.5)


def test_a_json_file_in_the_metadata_is_not_needed(register):
    records = [record(1, box([0, 0, 50, 50]))]
    name = register(records, json_file="/nowhere/truth.json")
    metrics = run(CervicalCOCOEvaluator(name), records, [found([[0, 0, 50, 50]], [0.9], [0])])["bbox"]
    assert metrics["AP"] == pytest.approx(100)


def test_it_is_upstreams_evaluator_to_whoever_uses_it_as_one(register, tmp_path):
    records, outputs = random_scene()
    upstream = COCOEvaluator(register(records), ("bbox",), False, str(tmp_path), use_fast_impl=False)
    ours = CervicalCOCOEvaluator(register(records), distributed=False)
    assert isinstance(ours, COCOEvaluator)
    # All that upstream's methods may look at; sigmas of keypoints exist where truth is read from a COCO file.
    assert vars(upstream).keys() - vars(ours).keys() == {"_kpt_oks_sigmas"}
    assert run(upstream, records, outputs)["bbox"].keys() <= run(ours, records, outputs)["bbox"].keys()


def test_only_the_images_asked_for_count(register):
    records = [record(1, box([0, 0, 50, 50])), record(2, box([0, 0, 50, 50]))]
    outputs = [found([[0, 0, 50, 50]], [0.5], [0]), found([[300, 0, 350, 50]], [0.9], [0])]
    evaluator = CervicalCOCOEvaluator(register(records))
    assert run(evaluator, records, outputs)["bbox"]["AP"] < 50
    assert run(evaluator, records, outputs, img_ids=[1])["bbox"]["AP"] == pytest.approx(100)
    assert run(evaluator, records, outputs, img_ids=[2])["bbox"]["AP"] == 0


def test_crowds_ignored_boxes_areas_and_box_modes_are_heeded(register):
    # The boxes of the crowd and the ignored one are no mistakes, the small area is the annotation's word.
    truth = [
        {"bbox": [0, 0, 50, 50], "bbox_mode": BoxMode.XYXY_ABS, "category_id": 0, "area": 900.0},
        box([100, 100, 200, 200], iscrowd=1),
        box([400, 400, 50, 50], ignore=1),
    ]
    boxes = [[100, 100, 150, 150], [200, 200, 250, 250], [400, 400, 450, 450], [0, 0, 50, 50]]
    records = [record(1, *truth)]
    output = found(boxes, [0.9, 0.8, 0.7, 0.6], [0] * 4)
    metrics = run(CervicalCOCOEvaluator(register(records)), records, [output])["bbox"]
    assert metrics["AP"] == pytest.approx(100)
    assert metrics["APs"] == pytest.approx(100)
    assert math.isnan(metrics["APm"])


def test_truth_is_read_in_double_precision(register):
    truth = open_split(register([record(1, box([1000.1, 0.2, 10.3, 20.4], 2))])).truth.boxes
    assert truth.box.tolist() == [[1000.1, 0.2, 1000.1 + 10.3, 0.2 + 20.4]]  # 1000.1 is 1000.09998 in 32 bits
    assert truth.label.tolist() == [2]


@pytest.mark.parametrize(
    ("records", "metadata", "message"),
    [
        ([record(1), record(1)], {}, "2 images, but 1 image ids"),
        ([record(1, box([0, 0, 9, 9], 3))], {}, r"image 1: category_id 3 is not in \[0, 3\)"),
        ([record("x", box([0, 0, 9, 9, 30]))], {}, "image 'x': box .* is not four numbers"),
        ([record(1)], {"thing_classes": []}, "no class names"),
    ],
)
def test_truth_that_cannot_be_understood_is_refused_at_once(register, records, metadata, message):
    name = register(records, **metadata)
    with pytest.raises(UserError, match=f"{name}: {message}"):
        CervicalCOCOEvaluator(name)


@pytest.mark.parametrize(
    ("image_id", "label", "message"),
    [(1, 3, "predicts class 3, but there are 3 classes; set NUM_CLASSES"), (2, 0, "prediction for image_id 2")],
)
def test_predictions_that_do_not_fit_the_truth_are_refused(register, image_id, label, message):
    evaluator = CervicalCOCOEvaluator(register([record(1)]))
    with pytest.raises(UserError, match=message):
        run(evaluator, [record(image_id)], [found([[0, 0, 9, 9]], [0.5], [label])])


def test_the_table_is_logged_where_detectron2_shows_it(register):
    lines = []
    handler = logging.Handler()
    handler.emit = lambda entry: lines.append(entry.getMessage())
    logger = logging.getLogger("detectron2")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)  # as detectron2's setup_logger does
    try:
        run(CervicalCOCOEvaluator(register([record(1)])), [], [])
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
    assert any("recall50" in line and "ascus" in line for line in lines)


def _half(rank, name, records, outputs, folder):
    torch.distributed.init_process_group("gloo", f"file://{folder}/rendezvous", rank=rank, world_size=2)
    results = run(CervicalCOCOEvaluator(name, folder / "out"), records[rank::2], outputs[rank::2])
    (folder / f"rank{rank}.json").write_text(json.dumps(results))
    torch.distributed.destroy_process_group()


def test_two_processes_give_the_numbers_of_one(register, tmp_path):
    records, outputs = random_scene(3)
    name = register(records)
    torch.multiprocessing.start_processes(
        _half, (name, records, outputs, tmp_path), nprocs=2, start_method="fork", daemon=True
    )
    expected = run(CervicalCOCOEvaluator(name, distributed=False), records, outputs)["bbox"]
    gathered = json.loads((tmp_path / "rank0.json").read_text())["bbox"]
    assert gathered == pytest.approx(expected, abs=1e-9, nan_ok=True)
    assert json.loads((tmp_path / "rank1.json").read_text()) == {}
