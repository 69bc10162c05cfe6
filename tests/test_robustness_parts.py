"""What a detector gets of a disturbed split; the table by hand, the figure's lines, the sheet's pixels."""

from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch

from cervical_d2.data.corruptions import CORRUPTIONS, STRENGTHS, corrupted
from cervical_d2.data.mapper import read_image
from cervical_d2.datasets.registry import resolve
from cervical_d2.errors import UserError
from cervical_d2.evaluation import robustness
from cervical_d2.evaluation.ground_truth import Split, open_split
from cervical_d2.evaluation.robustness import PLAN, UNDISTURBED, disturbed_images, evaluate
from cervical_d2.inference.detector import Detection
from cervical_d2.report.robustness import BAR, SIDE, corruption_sheet, robustness_figure, robustness_table

IMAGES = 3  # of the split tiny_val
QUIET = SimpleNamespace(update=lambda: None)


class Recorder:
    """Instead of a detector: finds the same cell everywhere, and keeps what it was given."""

    def __init__(self, image_format: str):
        self.class_names = ["ascus", "hsil"]
        self.cfg = SimpleNamespace(
            INPUT=SimpleNamespace(FORMAT=image_format), TEST=SimpleNamespace(DETECTIONS_PER_IMAGE=100)
        )
        self.images = []

    def __call__(self, image: np.ndarray) -> list[Detection]:
        self.images.append(image)
        return [Detection("hsil", 1, 0.9, (0, 0, 9, 9))]


def test_a_detector_is_opened_on_the_device_that_is_named(tmp_path: Path, monkeypatch):
    weights = tmp_path / "model.pth"
    monkeypatch.setattr(robustness, "Detector", lambda *given, **named: (given, named))
    for about in ({"config": "", "classes": ["a"]}, {"config": "MODEL: {}", "classes": []}):
        torch.save({"model": {"a": torch.ones(1)}, "cervical_d2": about}, weights)
        with pytest.raises(UserError, match=r"model\.pth: carries no config and classes; name a checkpoint"):
            robustness.open_detector(weights, "cpu")
    about = {"config": "MODEL: {}", "classes": ["a"]}
    torch.save({"model": {"a": torch.ones(1)}, "cervical_d2": about}, weights)
    for device in ("cuda:1", None):
        assert robustness.open_detector(weights, device) == (
            (weights,),
            {"device": device, "for_evaluation": True},
        )


def split_of(folder: Path, chosen=slice(None)) -> Split:
    return open_split(resolve(f"{folder}/data.yaml:val")).chosen(range(IMAGES)[chosen])


@pytest.mark.parametrize("trial", [UNDISTURBED, ("JPEG", 5), ("more eosin", 5)])
def test_a_detector_gets_its_order_of_channels(tiny: Path, trial):
    split = split_of(tiny)
    rgb, bgr = Recorder("RGB"), Recorder("BGR")
    for detector in (rgb, bgr):
        evaluate(detector, split, trial, 0, QUIET)
    assert len(rgb.images) == IMAGES
    for one, other, record, number in zip(rgb.images, bgr.images, split.records, split.numbers, strict=True):
        original = read_image(record["file_name"], "RGB")
        corruption = PLAN[trial]
        expected = corrupted(original, corruption, trial[1], seed=0, number=number) if corruption else original
        np.testing.assert_array_equal(one, expected)
        np.testing.assert_array_equal(other, expected[..., ::-1])


def test_a_detector_of_more_than_100_cells_an_image_has_its_recall(tiny: Path):
    detector = Recorder("RGB")
    detector.cfg.TEST.DETECTIONS_PER_IMAGE = 150
    metrics = evaluate(detector, split_of(tiny), UNDISTURBED, 0, QUIET)
    assert [name for name in metrics if name[:3] == "AR1"] == ["AR1", "AR10", "AR100", "AR150"]


def test_part_of_a_split_keeps_its_truth_and_its_noise(tiny: Path):
    whole, part = split_of(tiny), split_of(tiny, slice(1, None))
    assert len(part.records) == IMAGES - 1
    assert set(part.truth.boxes.image) <= set(part.numbers)
    assert part.truth.centers.shape == (4, 2)
    assert len(part.truth.boxes.image) == 4  # two boxes in each image but the first, which has none
    assert len(split_of(tiny, slice(0, 2)).truth.boxes.image) == 2
    noisy = dict(disturbed_images(whole, ("noise", 5), 0))
    for number, image in disturbed_images(part, ("noise", 5), 0):
        np.testing.assert_array_equal(image, noisy[number])


def metrics_of(clean: float, *changes: tuple[str, tuple[float, ...]]) -> dict:
    """AP50 `clean` everywhere but for `changes`: (corruption, values of strengths 1 to 5); AP is half of it."""
    metrics = {trial: {"AP50": float(clean), "AP": clean / 2} for trial in PLAN}
    for name, values in changes:
        for strength, value in zip(STRENGTHS, values, strict=True):
            metrics[name, strength] = {"AP50": float(value), "AP": value / 2}
    return metrics


def test_table_by_hand():
    # blur: mean 40 of 80, half. All: strength 1 (6 * 80 + 60) / 7, ..., mean (6 * 80 + 40) / 7 = 74.29, 92.86 % of 80.
    table = robustness_table("title", metrics_of(80, ("blur", (60, 50, 40, 30, 20)))).splitlines()
    assert table[0] == "title"
    blur = next(line for line in table if line.startswith("blur"))
    assert "sigma, px: 0.7 1.2 2 3 4.5" in blur
    assert blur.split()[-8:] == ["80.00", "60.00", "50.00", "40.00", "30.00", "20.00", "40.00", "50.00"]
    assert table[-1].split()[-8:] == ["80.00", "77.14", "75.71", "74.29", "72.86", "71.43", "74.29", "92.86"]
    assert "mPC and rPC" in table[-1]
    better = robustness_table("", metrics_of(80, ("JPEG", (88,) * 5))).splitlines()
    assert next(line for line in better if line.startswith("JPEG")).split()[-2:] == ["88.00", "110.00"]
    assert robustness_table("", metrics_of(0)).splitlines()[-1].split()[-2:] == ["0.00", "-"]


def test_figure_has_a_panel_each_with_the_undisturbed_value_dashed():
    axes = robustness_figure(metrics_of(80, ("noise", (60, 50, 40, 30, 20)))).axes
    assert [ax.get_title() for ax in axes] == [item.name for item in CORRUPTIONS]
    lines = axes[1].get_lines()
    assert [list(line.get_ydata()) for line in lines] == [
        [80, 60, 50, 40, 30, 20], [80, 80], [40, 30, 25, 20, 15, 10], [40, 40],
    ]  # fmt: skip
    assert [line.get_linestyle() for line in lines] == ["-", "--", "-", "--"]
    assert [label.get_text() for label in axes[1].get_xticklabels()] == ["none", "4", "8", "14", "22", "32"]
    # All panels have one scale, from 0 to a little above the best.
    assert {ax.get_ylim() for ax in axes} == {(0, 1.05 * 80)}
    assert {ax.get_ylim() for ax in robustness_figure(metrics_of(0)).axes} == {(0, 1)}


@pytest.mark.parametrize(
    ("box", "left", "top"), [((400, 0, 440, 40), 320, 0), (None, 200, 100), ((0, 380, 9, 400), 0, 200)]
)
def test_sheet_shows_each_strength_pixel_by_pixel_about_a_box(box, left, top):
    image = np.random.default_rng(0).integers(0, 256, (400, 600, 3), np.uint8)
    image = cv2.GaussianBlur(image, (0, 0), 3)
    sheet = corruption_sheet(image, box, seed=2, number=5)
    height = sheet.shape[0] // len(CORRUPTIONS)
    width = sheet.shape[1] // (1 + len(STRENGTHS))
    for row, item in enumerate(CORRUPTIONS):
        for column in range(1 + len(STRENGTHS)):
            y, x = row * height + 2 * BAR, column * width
            seen = corrupted(image, item, column, seed=2, number=5) if column else image
            part = seen[top : top + SIDE, left : left + SIDE]
            np.testing.assert_array_equal(sheet[y : y + SIDE, x : x + SIDE], part)


def test_sheet_of_a_small_image_is_as_large():
    image = np.full((60, 90, 3), 7, np.uint8)
    large = corruption_sheet(np.full((300, 300, 3), 7, np.uint8), None, seed=0, number=0)
    sheet = corruption_sheet(image, None, seed=0, number=0)
    assert sheet.shape == large.shape
    assert (sheet[2 * BAR : 2 * BAR + 60, :90] == 7).all()
