"""A checkpoint alone finds cells: in Python, and as files."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from test_trainer import train

from cervical_d2 import Detector
from cervical_d2.colors import COLORS
from cervical_d2.draw import Box, draw_boxes
from cervical_d2.errors import UserError
from cervical_d2.inference.batch import find_images, picture_names, predict_images


@pytest.fixture
def weights(tiny: Path) -> Path:
    train(tiny, "SOLVER.MAX_ITER", 2, "TEST.VAL_LOSS", False)
    return tiny / "run/model_final.pth"


def test_checkpoint_carries_its_config_and_names(tiny: Path, weights: Path):
    detector = Detector(weights, score_threshold=0.0, device="cpu")
    assert detector.class_names == ["ascus", "hsil"]
    assert detector.cfg.INPUT.MIN_SIZE_TEST == 64
    cells = detector(tiny / "images/val1.png")
    assert len(cells) > 5
    assert [cell.score for cell in cells] == sorted((cell.score for cell in cells), reverse=True)
    assert {cell.name for cell in cells} <= {"ascus", "hsil"}
    for cell in cells:  # val1.png is 96 x 64 px
        x1, y1, x2, y2 = cell.box
        assert 0 <= x1 <= x2 <= 96
        assert 0 <= y1 <= y2 <= 64


def test_file_and_array_give_the_same(tiny: Path, weights: Path):
    detector = Detector(weights, score_threshold=0.0, device="cpu")
    path = tiny / "images/val1.png"
    pixels = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)
    assert detector(path) == detector(pixels)


def test_threshold_leaves_out_what_is_below(tiny: Path, weights: Path):
    every = Detector(weights, score_threshold=0.0, device="cpu")(tiny / "images/val1.png")
    middle = every[len(every) // 2].score
    some = Detector(weights, score_threshold=middle, device="cpu")(tiny / "images/val1.png")
    assert 0 < len(some) < len(every)
    assert min(cell.score for cell in some) >= middle


def test_predictions_are_coco_json_and_pictures(tiny: Path, weights: Path):
    detector = Detector(weights, score_threshold=0.0, device="cpu")
    paths = find_images([tiny / "images/val1.png", tiny / "images"]).paths
    assert len(paths) == 9
    total = predict_images(detector, paths, tiny / "out")
    document = json.loads((tiny / "out/predictions.json").read_text())
    assert [category["name"] for category in document["categories"]] == ["ascus", "hsil"]
    assert total == len(document["annotations"])
    first = [row for row in document["annotations"] if row["image_id"] == 1]
    cells = detector(paths[0])
    assert [row["score"] for row in first] == [round(cell.score, 4) for cell in cells]
    x1, y1, x2, y2 = cells[0].box
    assert first[0]["bbox"] == pytest.approx([x1, y1, x2 - x1, y2 - y1], abs=0.01)
    assert first[0]["category_id"] == cells[0].category_id + 1
    picture = cv2.imread(str(tiny / "out/val1.png"))
    assert picture.shape == (64, 96, 3)
    assert (picture != cv2.imread(str(tiny / "images/val1.png"))).any()


def test_names_of_pictures_do_not_collide():
    paths = [Path("a/x.jpg"), Path("b/x.png"), Path("c/X.bmp")]
    assert list(picture_names(paths).values()) == ["x.png", "x-2.png", "X-3.png"]


def test_boxes_are_drawn_where_they_are():
    image = np.full((100, 100, 3), 255, np.uint8)
    drawn = draw_boxes(image, [Box((20, 30, 60, 70), 1, "")])
    assert tuple(drawn[30, 40]) == COLORS[1]
    assert tuple(drawn[50, 20]) == COLORS[1]
    assert (drawn[35:65, 25:55] == 255).all()
    assert (image == 255).all()  # the original is not painted on


def test_checkpoint_without_config_is_refused(tmp_path: Path):
    torch.save({"model": {"a": torch.ones(1)}}, tmp_path / "w.pth")
    with pytest.raises(UserError, match=r"w\.pth: carries no config; name one with --config-file"):
        Detector(tmp_path / "w.pth")
