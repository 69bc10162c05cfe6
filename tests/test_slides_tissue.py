"""Tissue, focus, and the places of tiles."""

import cv2
import numpy as np
import pytest
from slide_files import smear

from cervical_d2.slides.grid import shares, starts
from cervical_d2.slides.tissue import filled, focus, pen_mask, tissue_mask

BOXES = [(100, 100, 60, 50), (300, 200, 70, 50), (520, 80, 40, 40)]


def inside(mask: np.ndarray, box: tuple[int, int, int, int]) -> float:
    x, y, width, height = box
    return float(mask[y : y + height, x : x + width].mean())


def test_cells_are_tissue_and_glass_is_not():
    mask = tissue_mask(smear((700, 400), BOXES))
    # An ellipse is pi / 4 of its box.
    assert [inside(mask, box) for box in BOXES] == pytest.approx([np.pi / 4] * 3, abs=0.08)
    assert mask.mean() == pytest.approx(sum(w * h for _, _, w, h in BOXES) * np.pi / 4 / 280_000, rel=0.08)


def test_an_empty_slide_has_no_tissue():
    noise = np.random.default_rng(0).normal(238, 2, (300, 400, 3))
    assert not tissue_mask(noise.clip(0, 255).astype(np.uint8)).any()
    assert not tissue_mask(np.zeros((50, 50, 3), np.uint8)).any()


@pytest.mark.parametrize("ink", [(20, 40, 200), (10, 150, 40), (15, 15, 20), (210, 20, 30)])
def test_a_pen_is_no_tissue(ink: tuple[int, int, int]):
    slide = smear((700, 400), BOXES)
    cv2.line(slide, (40, 350), (660, 330), ink, 14)
    mask = tissue_mask(slide)
    assert not mask[310:390].any()
    assert pen_mask(slide)[340, 350]
    assert [inside(mask, box) for box in BOXES] == pytest.approx([np.pi / 4] * 3, abs=0.08)


def test_a_bubble_is_no_tissue():
    slide = smear((700, 400), BOXES)
    cv2.circle(slide, (620, 320), 60, (120, 122, 121), 5)
    assert not tissue_mask(slide)[250:, 545:].any()


def test_small_holes_are_filled_and_large_ones_are_not():
    mask = np.ones((200, 300), bool)
    mask[20:24, 20:25] = False  # 20 of 60,000 px: a third of a thousandth
    mask[100:150, 100:150] = False
    mask[0:3, 100:108] = False
    closed = filled(mask)
    assert closed[20:24, 20:25].all() and not closed[100:150, 100:150].any() and closed[0:3].all()


def test_focus_falls_with_blur_and_is_none_on_glass():
    tile = smear((200, 200), [(20, 20, 90, 70), (120, 110, 60, 70)])
    sharp, blurred = focus(tile), focus(cv2.GaussianBlur(tile, (0, 0), 3))
    assert sharp > 20 * blurred > 0
    assert focus(np.full((64, 64, 3), 240, np.uint8)) == 0


@pytest.mark.parametrize(
    "length, size, overlap, expected",
    [
        (800, 800, 0, [0]),
        (500, 800, 0, [0]),
        (1600, 800, 0, [0, 800]),
        (1700, 800, 0, [0, 800, 900]),  # the last is moved inward
        (1700, 800, 200, [0, 600, 900]),
        (801, 800, 0, [0, 1]),
    ],
)
def test_starts(length: int, size: int, overlap: int, expected: list[int]):
    assert starts(length, size, overlap) == expected


def test_tiles_cover_every_pixel_and_stay_inside():
    rng = np.random.default_rng(0)
    for _ in range(200):
        size = int(rng.integers(1, 60))
        length, overlap = int(rng.integers(1, 500)), int(rng.integers(0, size))
        places = starts(length, size, overlap)
        covered = np.zeros(max(length, size), bool)
        for start in places:
            covered[start : start + size] = True
        assert covered[:length].all()
        assert length < size or max(places) + size == length
        assert places == sorted(set(places))


def test_an_overlap_as_large_as_the_tile_is_refused():
    with pytest.raises(ValueError):
        starts(100, 10, 10)


def test_shares_of_a_mask():
    mask = np.zeros((10, 20), bool)
    mask[:, :5] = True
    boxes = np.array([[0, 0, 40, 40], [0, 0, 100, 100], [40, 40, 60, 60], [180, 80, 220, 120], [41, 1, 42, 2]], float)
    # The mask is a tenth as large: 4 x 4, 10 x 10, 2 x 2 px, half outside, less than a pixel.
    assert shares(mask, boxes, 0.1).tolist() == [1, 0.5, 0.5, 0, 1]
