"""A warning is logged when contrast is below half of what frozen BatchNorm statistics expect."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from cervical_d2.config import load_config
from cervical_d2.data.contrast import contrast_lines
from cervical_d2.datasets.registry import resolve
from cervical_d2.errors import UserError

FROZEN = ("MODEL.WEIGHTS", "some.pth", "MODEL.RESNETS.NORM", "FrozenBN")


@pytest.fixture
def records(tmp_path: Path) -> list[dict]:
    """40 images; of every second row of pixels 10 levels brighter, so that the std is 5."""
    image = np.full((8, 8, 3), 180, np.uint8)
    image[::2] += 10
    cv2.imwrite(str(tmp_path / "a.png"), image)
    return [{"file_name": str(tmp_path / "a.png")}] * 40


def test_low_contrast_with_frozen_norms_is_reported_with_the_cure(records):
    (line,) = contrast_lines(load_config("quick/bccd.yaml", FROZEN), records)
    assert line.startswith("contrast: pixels of 16 images have a std of 5.0, 5.0, 5.0, far below MODEL.PIXEL_STD")
    assert "cervical-d2 mean-std" in line


@pytest.mark.parametrize(
    "options",
    [
        ("MODEL.WEIGHTS", ""),
        ("MODEL.RESNETS.NORM", "BN"),
        ("MODEL.PIXEL_STD", "[9.9, 9.9, 9.9]"),  # half of it is enough
        ("MODEL.PIXEL_STD", "[1.0, 1.0, 1.0]"),  # as of weights that hold the division
    ],
)
def test_no_warning_without_frozen_norms_or_with_enough_contrast(records, options):
    assert contrast_lines(load_config("quick/bccd.yaml", [*FROZEN, *options]), records) == []


@pytest.mark.parametrize("options", [("MODEL.BACKBONE.FREEZE_AT", "2"), ("MODEL.BACKBONE.FREEZE_STAGES", "('stem',)")])
def test_norms_of_frozen_stages_keep_their_statistics(records, options):
    cfg = load_config("quick/bccd.yaml", [*FROZEN, "MODEL.RESNETS.NORM", "BN", *options])
    assert len(contrast_lines(cfg, records)) == 1


def test_it_is_logged_at_the_start_of_a_training(tiny: Path):
    from cervical_d2.engine.tasks import DETECTION

    cfg = load_config(str(tiny / "config.yaml"), FROZEN)
    cfg.DATASETS.TRAIN = (resolve(f"{tiny}/data.yaml:train"),)
    told = []
    for std in (58.0, 200.0):
        cfg.MODEL.PIXEL_STD = [std] * 3
        told.append([line for line in DETECTION.prepare_training(cfg)[1] if line.startswith("contrast: pixels of 6 ")])
    assert [len(lines) for lines in told] == [0, 1]
    (tiny / "images/train3.png").write_bytes(b"")
    with pytest.raises(UserError, match=r"train3\.png"):
        DETECTION.prepare_training(cfg)
