"""Predictions from files: what fits a dataset, in whose words, and what is refused."""

import json
from pathlib import Path

import pytest
from conftest import command

from cervical_d2.datasets.registry import resolve
from cervical_d2.errors import UserError
from cervical_d2.evaluation.bootstrap import Interval
from cervical_d2.evaluation.comparison import Difference, verdict
from cervical_d2.evaluation.ground_truth import open_split
from cervical_d2.evaluation.loading import load_inputs
from cervical_d2.evaluation.predictions import read_predictions

ROW = {"image_id": 10, "category_id": 5, "bbox": [1, 2, 3, 4], "score": 0.5}


def read(tiny: Path, rows):
    """`rows` for the split val of the set `tiny`: images 10, 13, 16, COCO's own class ids 5 (ascus) and 7 (hsil)."""
    path = tiny / "found.json"
    path.write_text(rows if isinstance(rows, str) else json.dumps(rows))
    return read_predictions(path, open_split(resolve(f"{tiny / 'data.yaml'}:val")))


def test_coco_results_with_the_files_own_ids(tiny: Path):
    found, notes = read(tiny, [ROW, {**ROW, "image_id": 16, "category_id": 7, "score": 1}])
    assert notes == []
    assert found.image.tolist() == [0, 2]
    assert found.label.tolist() == [0, 1]
    assert found.box.tolist() == [[1, 2, 4, 6]] * 2
    assert found.score.tolist() == [0.5, 1]


@pytest.mark.parametrize("image", ["val1.png", "val1", 13, "13", "/somewhere/else/val1.png"])
def test_an_image_is_known_by_id_or_by_its_file(tiny: Path, image):
    assert read(tiny, [{**ROW, "image_id": image}]).detections.image.tolist() == [1]


@pytest.mark.parametrize(("name", "label"), [("HSIL", 1), ("ASC-US", 0), ("hsil", 1)])
def test_a_class_is_known_by_name_in_any_spelling(tiny: Path, name, label):
    assert read(tiny, [{**ROW, "category_id": 5, "category_name": name}]).detections.label.tolist() == [label]


def test_what_predict_writes_is_read(tiny: Path):
    document = {
        "images": [{"id": 1, "file_name": "/data/val2.png", "width": 64, "height": 96}],
        "categories": [{"id": 1, "name": "hsil"}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4], "score": 0.25}],
    }
    found = read(tiny, document).detections
    assert (found.image.tolist(), found.label.tolist(), found.score.tolist()) == ([2], [1], [0.25])


def test_under_a_label_map_names_are_mapped_and_ignored_classes_left_out(tiny: Path):
    (tiny / "map.yaml").write_text("classes: [{abnormal: [hsil]}]\nignore: [ascus]\n")
    path = tiny / "found.json"
    path.write_text(json.dumps([ROW, {**ROW, "category_id": 7}]))
    loaded = load_inputs(resolve(f"{tiny / 'data.yaml'}:val@{tiny / 'map.yaml'}"), [path])
    assert loaded.inputs[0].detections.label.tolist() == [0]
    assert any(note.startswith(f"{path}: left out 1 predictions of classes that tiny_val@") for note in loaded.notes)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("", "not valid JSON"),
        ("[{", "not valid JSON"),
        ({"a": 1}, "not a list of COCO results"),
        ([1], "not a list of COCO results"),
        ([ROW, {**ROW, "image_id": 11}], "entry 1: no image 11 in tiny_val"),
        ([{key: value for key, value in ROW.items() if key != "image_id"}], "entry 0: no image None"),
        ([{**ROW, "image_id": [1]}], r"entry 0: no image \[1\]"),
        ([{**ROW, "category_id": 6}], "entry 0: no category_id 6 in tiny_val, which has ascus, hsil"),
        ([{**ROW, "category_name": "lsil"}], "entry 0: no class 'lsil'"),
        ([{**ROW, "score": None}], "entry 0: score None is not a number from 0 to 1"),
        ([{**ROW, "score": 1.5}], "score 1.5 is not a number from 0 to 1"),
        ('[{"image_id": 10, "category_id": 5, "bbox": [1, 2, 3, 4], "score": NaN}]', "score nan"),
        ([{**ROW, "bbox": [1, 2, 3]}], r"bbox \[1, 2, 3\] is not four numbers"),
        ('[{"image_id": 10, "category_id": 5, "bbox": [1, 2, Infinity, 4], "score": 1}]', "is not four numbers"),
    ],
)
def test_what_does_not_fit_is_refused_with_its_place(tiny: Path, rows, message):
    with pytest.raises(UserError, match=f"found.json: .*{message}"):
        read(tiny, rows)


def test_negative_sizes_are_counted_and_empty_files_told(tiny: Path):
    found, notes = read(tiny, [ROW, {**ROW, "bbox": [5, 5, -1, 2]}, {**ROW, "bbox": [5, 5, 0, 2]}])
    assert len(found.score) == 2  # without width it is a box that finds nothing
    assert notes == [f"{tiny / 'found.json'}: left out 1 predictions of negative width or height"]
    found, notes = read(tiny, [])
    assert len(found.score) == 0
    assert notes == [f"{tiny / 'found.json'}: holds no prediction at all"]


def test_truth_without_images_is_refused(tiny: Path):
    document = json.loads((tiny / "val.json").read_text())
    (tiny / "val.json").write_text(json.dumps({**document, "images": [], "annotations": []}))
    (tiny / "found.json").write_text("[]")
    with pytest.raises(UserError, match=r"val\.json: lists no image"):
        load_inputs(resolve(f"{tiny / 'data.yaml'}:val"), [tiny / "found.json"])


def rows_on_truth(tiny: Path, score: float):
    notes = json.loads((tiny / "val.json").read_text())["annotations"]
    return [{key: note[key] for key in ("image_id", "category_id", "bbox")} | {"score": score} for note in notes]


def test_the_tool_tells_which_model_is_better(tiny: Path):
    (tiny / "good.json").write_text(json.dumps(rows_on_truth(tiny, 0.9)))
    (tiny / "bad.json").write_text(json.dumps(rows_on_truth(tiny, 0.9)[:1]))
    run = command("tools/compare_predictions.py", tiny / "bad.json", tiny / "good.json",
                  "--dataset", f"{tiny / 'data.yaml'}:val", "--samples", 50, "--output", tiny / "out.json",
                  "--figure", "voc/AR")  # fmt: skip
    assert run.returncode == 0, run.stderr
    last = run.stdout.strip().splitlines()[-1]
    # One of two cells of ascus and none of hsil: 25 against 100. Both cells are in each of two of the three images.
    assert last.startswith(f"voc/AR: {tiny / 'good.json'} is better (+75.00, 95 % interval +50.00 to +100.00, p 0.0")
    document = json.loads((tiny / "out.json").read_text())
    assert document["voc/AR"]["difference"] == 75
    assert document["recall_by_size/large"]["difference"] is None
    (tiny / "again.json").write_text((tiny / "good.json").read_text())
    same = command("tools/compare_predictions.py", tiny / "good.json", tiny / "again.json",
                   "--dataset", f"{tiny / 'data.yaml'}:val", "--samples", 20)  # fmt: skip
    assert "coco/mAP: these images cannot tell which model is better (+0.00" in same.stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--figure", "coco/MAP"], "error: --figure coco/MAP: there are coco/AP, "),
        (["--severity", "nowhere.yaml"], "error: nowhere.yaml: cannot be read"),
    ],
)
def test_the_tools_mistakes_are_one_line(tiny: Path, words, message):
    for name in ("good", "again"):
        (tiny / f"{name}.json").write_text(json.dumps(rows_on_truth(tiny, 0.9)))
    run = command("tools/compare_predictions.py", tiny / "good.json", tiny / "again.json",
                  "--dataset", f"{tiny / 'data.yaml'}:val", *words)  # fmt: skip
    assert run.returncode == 2
    assert run.stderr.splitlines()[-1].startswith(message)
    assert "Traceback" not in run.stderr


@pytest.mark.parametrize(
    ("name", "change", "better"),
    [("coco/mAP", 5.0, "B"), ("coco/mAP", -5.0, "A"), ("calibration/ECE", 5.0, "A"), ("severity/cost", -5.0, "B")],
)
def test_less_error_and_cost_are_better(name, change, better):
    found = Difference(name, 10, 10 + change, Interval(change, change - 1, change + 1), 0.01)
    assert verdict(found, ["A", "B"], "x") == (
        f"x: {better} is better ({change:+.2f}, 95 % interval {change - 1:+.2f} to {change + 1:+.2f}, p 0.010)"
    )
    unsure = found._replace(difference=Interval(change, -6, 6))
    assert verdict(unsure, ["A", "B"], "x").startswith("x: these images cannot tell which model is better")


def test_a_name_that_two_images_share_is_none(tiny: Path):
    split = open_split(resolve(f"{tiny / 'data.yaml'}:val"))
    records = [{"file_name": f"/{folder}/x.png", "image_id": folder} for folder in ("a", "b")]
    shared = split._replace(records=records, truth=split.truth._replace(images={"a": 0, "b": 1}))
    path = tiny / "found.json"
    path.write_text(json.dumps([{**ROW, "image_id": "x.png"}]))
    with pytest.raises(UserError, match=r"entry 0: no image 'x\.png'"):
        read_predictions(path, shared)
    path.write_text(json.dumps([{**ROW, "image_id": "b"}]))
    assert read_predictions(path, shared).detections.image.tolist() == [1]
