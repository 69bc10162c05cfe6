"""The picture of the augmentations shows each with its boxes, and the tool writes it."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import tool

from cervical_d2.draw import COLORS, Box
from cervical_d2.randomness import Stream, numpy_seeded
from cervical_d2.report import augmentations
from cervical_d2.report.augmentations import CAPTION, GAP, SHOWN, augmentation_sheet, costs

SIDE = 100


def pictures(sheet, height):
    """(rows, draws + 1, height, SIDE, 3), captions and gaps taken off."""
    tops = range(CAPTION, len(SHOWN) * (CAPTION + height), CAPTION + height)
    rows = [sheet[top : top + height] for top in tops]
    return np.array([[row[:, left : left + SIDE] for left in range(0, row.shape[1], SIDE + GAP)] for row in rows])


def test_each_row_shows_the_original_and_draws_with_their_boxes():
    image = np.full((160, 200, 3), 220, np.uint8)
    cv2.circle(image, (100, 80), 30, (60, 40, 90), cv2.FILLED)
    boxes = [Box((70, 50, 130, 110), 1, "")]
    with numpy_seeded(0, Stream.AUGMENTATION):
        sheet = augmentation_sheet(image, boxes, ["lsil", "hsil"], draws=8, side=SIDE)
    assert sheet.dtype == np.uint8
    assert sheet.shape[1:] == (9 * SIDE + 8 * GAP, 3)
    seen = pictures(sheet, 80)
    assert seen.shape == (len(SHOWN), 9, 80, SIDE, 3)
    # Half the size: the box is 35..65 x 25..55. The disk about the center, and so its box, is the same at any angle.
    assert SHOWN[0][0] == "INPUT.RANDOM_ROTATION"
    for row in seen:
        for picture in row:
            ys, xs = np.nonzero((picture == COLORS[1]).all(axis=2))
            assert (xs.min(), xs.max(), ys.min(), ys.max()) == (35, 65, 25, 55)
        assert all((row[0] == other).all() for other in seen[:, 0])  # the original, in each row
    assert all(any((row[0] != picture).any() for picture in row[1:]) for row in seen[1:])


def test_boxes_turn_with_the_picture():
    image = np.full((200, 200, 3), 220, np.uint8)
    cv2.circle(image, (150, 60), 20, (60, 40, 90), cv2.FILLED)
    with numpy_seeded(1, Stream.AUGMENTATION):
        sheet = augmentation_sheet(image, [Box((130, 40, 170, 80), 0, "")], [], draws=6, side=SIDE)
    centers = set()
    for picture in pictures(sheet, SIDE)[0]:
        ys, xs = np.nonzero((picture == COLORS[0]).all(axis=2))
        dark_ys, dark_xs = np.nonzero(picture.max(axis=2) < 120)
        assert (xs.min() + xs.max()) / 2 == pytest.approx(dark_xs.mean(), abs=1.5)
        assert (ys.min() + ys.max()) / 2 == pytest.approx(dark_ys.mean(), abs=1.5)
        centers.add((int(xs.min()), int(ys.min())))
    assert len(centers) > 3


def test_costs_are_of_images_that_are_changed(monkeypatch):
    # A clock that moves by 2 ms when it is looked at, so each draw takes that; all that is counted is the drawing.
    ticks = iter(range(10**6))
    monkeypatch.setattr(augmentations.time, "process_time", lambda: next(ticks) * 0.002)
    threads = cv2.getNumThreads()
    rows = costs(np.full((20, 30, 3), 200, np.uint8), repeats=4)
    assert [row[:2] for row in rows] == list(SHOWN)
    assert [row[2] for row in rows] == pytest.approx([2.0] * len(SHOWN))
    assert next(ticks) == 2 * 4 * len(SHOWN)
    assert cv2.getNumThreads() == threads


def test_the_tool_writes_a_picture_and_names_a_place_where_it_cannot(tmp_path: Path, capsys):
    cv2.imwrite(str(tmp_path / "smear.png"), np.full((30, 60, 3), 200, np.uint8))
    words = ("augmentations", "--image", tmp_path / "smear.png", "--output")
    assert tool(*words, tmp_path / "sheet.jpg", "--time") == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()[1:]] == [key for key, _ in SHOWN]
    # 240 px wide pictures of a 2 : 1 image, five in a row; no legend, as there are no boxes.
    assert cv2.imread(str(tmp_path / "sheet.jpg")).shape == (len(SHOWN) * (CAPTION + 120), 5 * 240 + 4 * GAP, 3)
    assert tool(*words, tmp_path / "smear.png/sheet.jpg") == 2
    assert "smear.png is not a folder; choose another output" in capsys.readouterr().err
    assert tool(*words, tmp_path / "sheet.txt") == 2
