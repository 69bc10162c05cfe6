"""Pictures of truth beside prediction."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from cervical_d2.colors import COLORS
from cervical_d2.datasets.registry import resolve
from cervical_d2.engine.run_folder import RunFolder
from cervical_d2.errors import UserError
from cervical_d2.report.pictures import GAP, draw_results, strip

RECORD = {"image_id": 1, "height": 60, "width": 80, "annotations": [{"bbox": [10, 10, 30, 40], "bbox_mode": 0,
                                                                      "category_id": 0}]}  # fmt: skip


def test_truth_is_left_and_prediction_right(tmp_path: Path):
    cv2.imwrite(str(tmp_path / "a.png"), np.full((60, 80, 3), 255, np.uint8))
    found = [{"bbox": [50, 20, 20, 30], "category_name": "hsil", "score": 0.9}]
    record = {**RECORD, "file_name": str(tmp_path / "a.png")}
    image = strip(record, {"predicted": found}, ["lsil", "hsil"])
    bar = image.shape[0] - 60  # the caption
    left, right = image[bar:, :80], image[bar:, 80 + GAP :]
    assert right.shape == (60, 80, 3)
    # The corner of each box in its class's color; labels may lie over the upper edges, so the lower ones are looked at.
    assert tuple(left[40, 20]) == COLORS[0]
    assert tuple(right[50, 60]) == COLORS[1]
    assert not (left == COLORS[1]).all(axis=2).any()
    assert not (right == COLORS[0]).all(axis=2).any()
    other = strip(record, {"predicted": [], "of another": found}, ["lsil", "hsil"])[bar:]
    assert other.shape == (60, 3 * 80 + 2 * GAP, 3)
    assert (other[:, :80] == left).all()
    assert (other[:, 80 + GAP : 160 + GAP] == 255).all()
    assert (other[:, 160 + 2 * GAP :] == right).all()


def test_results_of_a_run_are_drawn_above_the_score(tiny: Path):
    name = resolve(f"{tiny}/data.yaml:val")
    folder = tiny / "run/evaluation" / name
    folder.mkdir(parents=True)
    rows = [
        {"image_id": 13, "category_id": 1, "category_name": "ascus", "bbox": [5, 30, 20, 30], "score": score}
        for score in (0.9, 0.3)
    ]
    (folder / "predictions.json").write_text(json.dumps([{**rows[1], "bbox": [50, 30, 20, 20]}, rows[0]]))
    files = draw_results({"predicted": RunFolder(tiny / "run")}, name, tiny / "out", score=0.5, count=3)
    assert [path.name for path in files] == ["sheet.png", "val0.png", "val1.png", "val2.png"]
    image = cv2.cvtColor(cv2.imread(str(tiny / "out/val1.png")), cv2.COLOR_BGR2RGB)
    bar = image.shape[0] - 64
    right = image[bar:, 96 + GAP :]
    assert tuple(right[60, 15]) == COLORS[0]
    assert tuple(right[50, 60]) != COLORS[0]  # 0.3 is below the threshold
    with pytest.raises(UserError, match="evaluate first"):
        runs = {name: RunFolder(tiny / name) for name in ("run", "elsewhere")}
        draw_results(runs, name, tiny / "out2", score=0.5, count=3)
    assert not (tiny / "out2").exists()
