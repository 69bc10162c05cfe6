"""The demo scenes keep their promises: exact boxes, purity, overlap, whole datasets."""

import itertools
import json
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from cervical_d2.demo import scenes as drawing
from cervical_d2.demo.scenes import CLASSES, Cell, Scene, draw_scene, write_dataset
from cervical_d2.demo.stain import strokes
from cervical_d2.errors import UserError

few = settings(max_examples=8, deadline=None, derandomize=True)
seeds, indices = st.integers(0, 2**32 - 1), st.integers(0, 500)


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return [draw_scene(0, "val", index) for index in range(60)]


def xywh(box: tuple[float, ...]) -> list[float]:
    return [box[0], box[1], box[2] - box[0], box[3] - box[1]]


def overlaps(boxes: list[list[float]], cells: list[Cell]) -> np.ndarray:
    """COCO's own IoU of XYWH `boxes` (R) with the boxes of `cells` (C): (R, C)."""
    ious = coco_mask.iou(boxes, [xywh(cell.box) for cell in cells], [0] * len(cells))
    return np.reshape(ious, (len(boxes), len(cells)))


@few
@given(seed=seeds, index=indices, size=st.sampled_from([160, 256, 320]))
def test_box_is_the_tight_enclosure_of_the_silhouette(seed: int, index: int, size: int) -> None:
    scene = draw_scene(seed, "train", index, size)
    assert scene.image.shape == (size, size, 3)
    assert scene.image.dtype == np.uint8
    for cell in scene.cells:
        assert cell.label in CLASSES
        assert cell.mask.shape == (size, size)
        ys, xs = np.where(cell.mask)
        assert cell.box == (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)
        assert 0 <= cell.box[0] < cell.box[2] <= size
        assert 0 <= cell.box[1] < cell.box[3] <= size


def edge_contrast(stain: np.ndarray, mask: np.ndarray) -> float:
    """Mean stain just inside the outline of `mask` minus that just outside, over 2 pixels each."""
    body, kernel = mask.astype(np.uint8), np.ones((5, 5), np.uint8)
    inside, outside = mask & (cv2.erode(body, kernel) == 0), ~mask & (cv2.dilate(body, kernel) > 0)
    return float(stain[inside].mean() - stain[outside].mean())


MISFITS: dict[str, Callable[[np.ndarray], Any]] = {
    "moved left": lambda mask: np.roll(mask, -3, 1),
    "moved right": lambda mask: np.roll(mask, 3, 1),
    "moved up": lambda mask: np.roll(mask, -3, 0),
    "moved down": lambda mask: np.roll(mask, 3, 0),
    "grown": lambda mask: cv2.dilate(mask.astype(np.uint8), np.ones((7, 7), np.uint8)) > 0,
}


@pytest.mark.parametrize("label", CLASSES)
def test_silhouette_is_where_the_cell_is_drawn(scenes: list[Scene], label: str) -> None:
    """The edge of the stain is steepest along the mask, not along a mask moved or grown by 3 pixels."""
    pairs = [
        (255 - scene.image.min(2).astype(np.float32), cell.mask)  # every dye absorbs in at least one channel
        for scene in scenes
        for cell in scene.cells
        if cell.label == label
    ]
    fit = np.mean([edge_contrast(stain, mask) for stain, mask in pairs])
    for name, misfit in MISFITS.items():
        assert fit > np.mean([edge_contrast(stain, misfit(mask)) for stain, mask in pairs]) + 5, name


@few
@given(seed=seeds, index=indices)
def test_a_scene_depends_on_its_arguments_alone(seed: int, index: int) -> None:
    first = draw_scene(seed, "val", index, 160)
    draw_scene(seed, "val", index + 1, 160)
    np.random.seed(1)  # the global state must not matter
    again = draw_scene(seed, "val", index, 160)
    assert first.image.tobytes() == again.image.tobytes()
    assert [(c.label, c.box) for c in first.cells] == [(c.label, c.box) for c in again.cells]
    for other in ((seed + 1, "val", index), (seed, "train", index), (seed, "val", index + 1)):
        assert draw_scene(*other, 160).image.tobytes() != first.image.tobytes()


def test_many_cells_overlap_and_clumps_exist(scenes: list[Scene]) -> None:
    touching = [
        [sum(bool((cell.mask & other.mask).any()) for other in scene.cells) - 1 for cell in scene.cells]
        for scene in scenes
    ]
    flat = list(itertools.chain(*touching))
    assert np.mean(np.array(flat) > 0) >= 0.30
    assert sum(max(row, default=0) >= 2 for row in touching) >= 10  # scenes with three cells in a chain or knot


def test_labeled_cells_stay_apart_enough_to_be_told_apart(scenes: list[Scene]) -> None:
    for scene in scenes:
        ious = overlaps([xywh(cell.box) for cell in scene.cells], scene.cells)
        assert (ious - np.eye(len(ious)) <= 0.3).all()


def test_each_tenth_scene_is_empty_and_every_class_occurs(scenes: list[Scene]) -> None:
    counts = [len(scene.cells) for scene in scenes]
    assert counts.count(0) == 6
    assert all(3 <= count <= 9 for count in counts if count)
    assert {cell.label for scene in scenes for cell in scene.cells} == set(CLASSES)
    sides = [max(c.box[2] - c.box[0], c.box[3] - c.box[1]) for scene in scenes for c in scene.cells]
    assert 15 <= min(sides) < 40
    assert 100 < max(sides) <= 170


def test_written_files_are_the_scenes(tmp_path, capsys) -> None:
    root = tmp_path / "new" / "data" / "demo"  # which makes the folders above it
    write_dataset(root, seed=3, scenes={"train": 2, "val": 1}, size=128)
    assert sorted(path.name for path in root.parent.iterdir()) == ["demo"]
    for split, count in (("train", 2), ("val", 1)):
        coco = json.loads((root / f"{split}.json").read_text())
        assert coco["categories"] == [{"id": i + 1, "name": name} for i, name in enumerate(CLASSES)]
        assert [image["id"] for image in coco["images"]] == list(range(1, count + 1))
        assert [a["id"] for a in coco["annotations"]] == list(range(1, len(coco["annotations"]) + 1))
        for index, image in enumerate(coco["images"]):
            scene = draw_scene(3, split, index, 128)
            assert (image["file_name"], image["width"], image["height"]) == (f"scene_{index:05d}.png", 128, 128)
            pixels: Any = cv2.imread(str(root / split / image["file_name"]))
            assert (pixels[..., ::-1] == scene.image).all()
            notes = [a for a in coco["annotations"] if a["image_id"] == index + 1]
            assert [a["bbox"] for a in notes] == [xywh(cell.box) for cell in scene.cells]
            assert [CLASSES[a["category_id"] - 1] for a in notes] == [c.label for c in scene.cells]
            assert all(a["iscrowd"] == 0 for a in notes)
            assert [a["area"] for a in notes] == [c.mask.sum() for c in scene.cells]
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("interruption", [RuntimeError, KeyboardInterrupt])
def test_an_interrupted_write_leaves_nothing(tmp_path, monkeypatch, interruption: type[BaseException]) -> None:
    def draw_two(seed: int, split: str, index: int, size: int) -> Scene:
        if index == 2:
            raise interruption
        return draw_scene(seed, split, index, size)

    monkeypatch.setattr(drawing, "draw_scene", draw_two)
    with pytest.raises(interruption):
        write_dataset(tmp_path / "demo", scenes={"train": 4}, size=96)
    assert list(tmp_path.iterdir()) == []


def test_of_two_processes_drawing_at_once_one_wins(tmp_path, monkeypatch) -> None:
    def draw_and_be_overtaken(*scene: Any) -> Scene:
        (tmp_path / "demo" / "train").mkdir(parents=True)
        return draw_scene(*scene)

    monkeypatch.setattr(drawing, "draw_scene", draw_and_be_overtaken)
    write_dataset(tmp_path / "demo", scenes={"train": 1}, size=96)
    assert [path.name for path in tmp_path.rglob("*")] == ["demo", "train"]


def test_an_existing_data_set_is_not_overwritten(tmp_path) -> None:
    (tmp_path / "kept.txt").write_text("mine")
    with pytest.raises(UserError, match="remove it"):
        write_dataset(tmp_path, scenes={"train": 1}, size=96)
    assert [path.name for path in tmp_path.iterdir()] == ["kept.txt"]


@pytest.mark.parametrize(("width", "across"), [(1.0, 1), (2.0, 3), (3.2, 5)])
def test_strokes_lie_along_their_lines(width: float, across: int) -> None:
    """`across` is what OpenCV makes of the width, which softening leaves in place."""
    drawn = strokes([np.array([(10.0, 8.0), (50.0, 8.0), (50.0, 35.0)])], (40, 64), width)
    assert 0 <= drawn.min() < drawn.max() <= 1
    dark, half = drawn > 0.5, across // 2
    assert np.flatnonzero(dark[:, 30]).tolist() == list(range(8 - half, 8 + half + 1))
    assert np.flatnonzero(dark[20]).tolist() == list(range(50 - half, 50 + half + 1))  # and no way back to the start
    assert np.flatnonzero(dark[8])[[0, -1]] == pytest.approx([10, 50], abs=half)
    assert np.flatnonzero(dark[:, 50])[[0, -1]] == pytest.approx([8, 35], abs=half)
