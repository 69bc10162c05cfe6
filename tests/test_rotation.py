"""Rotated boxes are tight around rotated cells."""

import math
from pathlib import Path

import numpy as np
import pytest
from detectron2.data import DatasetCatalog
from detectron2.data import transforms as T

from cervical_d2.data.mapper import DetectionMapper
from cervical_d2.data.rotation import CellRotation, RandomCellRotation
from cervical_d2.datasets.registry import resolve
from cervical_d2.demo.scenes import draw_scene

PAPER = (230, 220, 240)


def ellipse(height, width, box):
    """A dark ellipse that fills `box`, on paper; a pixel belongs to it if its center does."""
    x1, y1, x2, y2 = box
    y, x = np.mgrid[:height, :width] + 0.5
    inside = ((x - (x1 + x2) / 2) / (x2 - x1) * 2) ** 2 + ((y - (y1 + y2) / 2) / (y2 - y1) * 2) ** 2 <= 1
    return np.where(inside[..., None], np.uint8(20), np.array(PAPER, np.uint8))


def tight_box(image):
    rows, columns = np.nonzero(image[..., 1] < (20 + PAPER[1]) / 2)
    return [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]


@pytest.mark.parametrize("half_axes", [(40, 40), (50, 25), (15, 60)])
@pytest.mark.parametrize("angle", [-160, -20, 10, 30, 45, 77, 90, 133, 180])
def test_the_rotated_box_is_tight_around_the_rotated_cell(half_axes, angle):
    (a, b), (cx, cy) = half_axes, (180, 130)
    box = [cx - a, cy - b, cx + a, cy + b]
    rotation = CellRotation(300, 320, angle, PAPER)
    turned = rotation.apply_image(ellipse(300, 320, box))
    assert turned.shape == (300, 320, 3)
    np.testing.assert_allclose(rotation.apply_box(np.array([box]))[0], tight_box(turned), atol=1.5)


@pytest.mark.parametrize("turns", [0, 1, 2, 3])
def test_quarter_turns_are_exact(turns):
    image = np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)
    boxes = np.array([[3.0, 5, 20, 11], [0, 0, 40, 7.5]])
    rotation, upstream = CellRotation(40, 40, 90 * turns, PAPER), T.RotationTransform(40, 40, 90 * turns)
    np.testing.assert_array_equal(rotation.apply_image(image), np.rot90(image, turns))
    np.testing.assert_allclose(rotation.apply_box(boxes), upstream.apply_box(boxes), atol=1e-9)


def test_points_go_where_their_pixels_go():
    # Counterclockwise by 30 degrees about (60, 50): (40, 0) from the center goes to (40 cos 30, -40 sin 30).
    rotation = CellRotation(100, 120, 30, PAPER)
    expected = [60 + 40 * math.sqrt(0.75), 50 - 20]
    np.testing.assert_allclose(rotation.apply_coords(np.array([[100.0, 50.0]]))[0], expected)
    turned = rotation.apply_image(ellipse(100, 120, [96, 46, 104, 54]))
    rows, columns = np.nonzero(turned[..., 1] < 120)
    np.testing.assert_allclose([columns.mean() + 0.5, rows.mean() + 0.5], expected, atol=0.3)


def test_outside_comes_in_as_median_color_and_as_no_label():
    image = np.full((80, 80, 3), PAPER, np.uint8)
    image[20:60, 20:60] = 20  # a quarter of the pixels: the mean would be far from paper
    np.random.seed(0)
    angles, corners = [], set()
    for _ in range(50):
        transform = RandomCellRotation(60).get_transform(image)
        angles.append(transform.angle)
        corners.add(tuple(transform.apply_image(image)[0, 0].tolist()))
    assert corners == {PAPER}
    assert -60 <= min(angles) < -40
    assert 40 < max(angles) <= 60
    labels = np.ones((80, 80), np.uint8)
    assert CellRotation(80, 80, 45, PAPER).apply_segmentation(labels)[0, 0] == 0


def test_cells_that_leave_the_view_are_clipped_or_dropped(tiny: Path):
    record = DatasetCatalog.get(resolve(f"{tiny}/data.yaml:train"))[1]  # 96 x 64, center (48, 32)
    # 45 degrees counterclockwise; both circles lie up and left of the center and go straight left,
    # the first by 28 sqrt 2 = 39.6 to (8.4, 32), the second by 62.2 in x: out of view.
    kept, lost = [10, -6, 30, 14], [0, -12, 8, -4]
    annotations = [{"bbox": box, "bbox_mode": 0, "category_id": 0} for box in (kept, lost)]
    mapper = DetectionMapper([CellRotation(64, 96, 45, PAPER)], "RGB")
    boxes = mapper({**record, "annotations": annotations})["instances"].gt_boxes.tensor
    np.testing.assert_allclose(boxes.numpy(), [[0, 22, 48 - 28 * math.sqrt(2) + 10, 42]], atol=1e-4)


def enclosure_iou(a, b):
    sides = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
    shared = np.prod(np.clip(sides, 0, None))
    return shared / (np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2]) - shared)


def test_cells_of_the_demo_set_are_enclosed_better_than_by_rotated_corners():
    """Against the enclosure of the rotated silhouette; `pytest -s` prints the figures of docs/augmentation.md."""
    rng = np.random.default_rng(0)
    found: dict[str, list] = {}
    for cell in (cell for index in range(60) for cell in draw_scene(0, "val", index).cells):
        box = np.array([cell.box])
        if box.min() > 0 and box.max() < 320:  # a cell that the border cuts has no silhouette to compare with
            ys, xs = np.nonzero(cell.mask)
            corners = np.concatenate([np.stack([xs + dx, ys + dy], 1) for dx in (0, 1) for dy in (0, 1)])
            rotation = CellRotation(320, 320, rng.uniform(-180, 180), PAPER)
            turned = rotation.apply_coords(corners)
            truth = np.concatenate([turned.min(0), turned.max(0)])
            boxes = rotation.apply_box(box)[0], T.RotationTransform.apply_box(rotation, box)[0]
            found.setdefault(cell.label, []).append([enclosure_iou(truth, other) for other in boxes])
    means = {label: np.mean(rows, axis=0) for label, rows in found.items()}
    every = np.concatenate(list(found.values())).mean(axis=0)
    for label, (ellipse_iou, corner_iou) in {**means, "all": every}.items():
        print(f"{label:6} {ellipse_iou:.2f} {corner_iou:.2f}")
    assert all(ellipse_iou > corner_iou + 0.05 for ellipse_iou, corner_iou in means.values())
    assert every[0] > 0.8
    assert every[1] < 0.66
