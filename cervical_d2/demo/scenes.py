"""The embedded demo dataset: synthetic Pap-smear scenes with exact boxes.

A scene is a pure function of (seed, split, index, size), so scenes can be drawn one by one in any order.
Images are RGB, boxes XYXY in pixels with exclusive right and bottom edges, masks (H, W) bool.
"""

import json
import os
import shutil
import tempfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.random import Generator, SeedSequence, default_rng

from cervical_d2.boxes import box_iou
from cervical_d2.demo.cells import DEBRIS, ORGANISMS, Sprite
from cervical_d2.demo.shapes import enclosure
from cervical_d2.demo.stain import Palette, clouds, dots, fibers, photograph, stain_batch, strokes
from cervical_d2.errors import UserError
from cervical_d2.progress import progress_bar

# Names and order as in ComparisonDetector. These five classes can be told apart by their shape.
CLASSES: tuple[str, ...] = ("lsil", "hsil", "scc", "trich", "cand")
DEMO_SCENES: Mapping[str, int] = MappingProxyType({"train": 240, "val": 60})
DESIGN_SIZE = 320

MAX_BOX_IOU = 0.3  # of two labeled cells; non-maximum suppression would remove one of a closer pair
MAX_COVERED = 0.35  # largest share of a labeled cell that overlaps other labeled cells
MIN_INSIDE = 0.7  # least share of a cell inside the image


class Cell(NamedTuple):
    """A labeled cell: class name, tight box of the mask, and the silhouette clipped to the image."""

    label: str
    box: tuple[float, float, float, float]
    mask: np.ndarray


class Scene(NamedTuple):
    """An `image` (H, W, 3) uint8 RGB and its labeled cells."""

    image: np.ndarray
    cells: list[Cell]


class Group(NamedTuple):
    """How cells of one class are grouped."""

    members: tuple[int, int]  # least and largest number
    weight: float  # relative frequency of the group
    clumped: float  # probability that a member is placed next to another cell
    apart: bool = False  # boxes must not overlap: crossing filaments of two organisms would look like one


GROUPS: Mapping[str, Group] = MappingProxyType(
    {
        "lsil": Group((1, 2), 1.3, 0.6),
        "hsil": Group((2, 5), 0.6, 0.85),
        "scc": Group((1, 2), 0.8, 0.6),
        "trich": Group((2, 3), 0.7, 0.45),
        "cand": Group((1, 1), 1.3, 0.6, apart=True),
    }
)


def draw_scene(seed: int, split: str, index: int, size: int = DESIGN_SIZE) -> Scene:
    """Draw scene `index` of `split`, `size` x `size` pixels. The result is the same on every call.

    Every tenth scene has no labeled cells, only normal cells and debris, like many fields of a screened slide.
    """
    # crc32 instead of hash(): hashes of strings differ between Python processes.
    rng = default_rng(SeedSequence([seed, zlib.crc32(split.encode()), index]))
    palette = stain_batch(rng)
    unit = size / DESIGN_SIZE * rng.uniform(0.85, 1.1)
    field = _Field(rng, size, _film(rng, palette, size, unit))
    for _ in range(rng.integers(2, 6)):
        field.drop(ORGANISMS["normal"](rng, palette, unit))
    for label in [] if index % 10 == 9 else _company(rng):
        field.settle(label, ORGANISMS[label](rng, palette, unit))
    for kind, count in (("neutrophil", rng.poisson(7)), ("erythrocyte", rng.poisson(3))):
        center = rng.uniform(0, size, 2)
        for _ in range(count):
            at = center + rng.normal(0, 30 * unit, 2) if rng.random() < 0.6 else None
            field.drop(DEBRIS[kind](rng, palette, unit), at)
    return Scene(photograph(rng, field.density, unit), field.cells)


def _company(rng: Generator) -> list[str]:
    """Labels of the 4 to 9 cells to draw, group by group."""
    names = list(GROUPS)
    weights = np.array([group.weight for group in GROUPS.values()])
    target = rng.integers(4, 8)
    labels: list[str] = []
    while len(labels) < target:
        name = names[rng.choice(len(names), p=weights / weights.sum())]
        low, high = GROUPS[name].members
        labels += [name] * int(rng.integers(low, high + 1))
    return labels[:9]


def _film(rng: Generator, palette: Palette, size: int, unit: float) -> np.ndarray:
    """Density (size, size, 3) of the background: streaks of mucus, sometimes thick, and bacterial rods."""
    shape, flow = (size, size), rng.uniform(0, np.pi)
    veil = np.clip(fibers(rng, shape, 40 * unit, 3, flow) + rng.uniform(-1.2, 0.6), 0, 2)
    threads = 1 + 0.3 * fibers(rng, shape, 3 * unit, 9, flow) + 0.12 * clouds(rng, shape, 2 * unit)
    dye = palette[str(rng.choice(["green", "eosin", "gray"]))]
    film = (rng.uniform(0.04, 0.25) * veil * threads)[..., None] * dye
    starts = rng.uniform(0, size, (rng.poisson(rng.choice([4, 60])), 2))
    heading = rng.uniform(0, 2 * np.pi, len(starts))
    rods = np.stack([starts, starts + 4 * unit * np.stack([np.cos(heading), np.sin(heading)], 1)], 1)
    specks = 0.3 * strokes(list(rods), shape, unit) + 0.15 * dots(rng, shape, 0.003 / unit**2, 0.7 * unit)
    return film + specks[..., None] * palette["hematoxylin"]


class _Field:
    """A scene in progress: its optical density and the labeled cells so far."""

    def __init__(self, rng: Generator, size: int, density: np.ndarray) -> None:
        self.rng, self.size, self.density = rng, size, density
        self.cells: list[Cell] = []

    def drop(self, sprite: Sprite, at: np.ndarray | None = None) -> None:
        """Add an unlabeled sprite centered `at` (2,), or at a random place."""
        self._add(sprite, self._corner(sprite, self.rng.uniform(0, self.size, 2) if at is None else at))

    def settle(self, label: str, sprite: Sprite, attempts: int = 40) -> None:
        """Find a place for a labeled cell and add it. If there is none after `attempts`, the cell is not drawn."""
        for _ in range(attempts):
            corner = self._corner(sprite, self._proposal(label, sprite))
            mask = self._clipped(sprite.mask, corner)
            if mask.sum() >= MIN_INSIDE * sprite.mask.sum() and self._has_room(label, mask):
                self._add(sprite, corner)
                self.cells.append(Cell(label, enclosure(mask), mask))
                return

    def _proposal(self, label: str, sprite: Sprite) -> np.ndarray:
        if not self.cells or self.rng.random() > GROUPS[label].clumped:
            return self.rng.uniform(0, self.size, 2)
        # In a random direction from a neighbor, at a distance at which two such disks overlap a little.
        same = [cell for cell in self.cells if cell.label == label] or self.cells
        neighbor = same[self.rng.integers(len(same))].mask
        rows, columns = np.nonzero(neighbor)
        reach = np.sqrt(neighbor.sum() / np.pi) + np.sqrt(sprite.mask.sum() / np.pi)
        angle = self.rng.uniform(0, 2 * np.pi)
        step = reach * self.rng.uniform(0.6, 0.95) * np.array([np.cos(angle), np.sin(angle)])
        return np.array([columns.mean(), rows.mean()]) + step

    def _has_room(self, label: str, mask: np.ndarray) -> bool:
        others, box = np.zeros_like(mask), np.array(enclosure(mask))
        for cell in self.cells:
            limit = 0 if cell.label == label and GROUPS[label].apart else MAX_BOX_IOU
            if box_iou(box, np.array(cell.box)) > limit:
                return False
            # Earlier cells must also stay recognizable.
            if (mask & cell.mask).sum() > MAX_COVERED * min(mask.sum(), cell.mask.sum()):
                return False
            others |= cell.mask
        return bool((mask & others).sum() <= MAX_COVERED * mask.sum())

    @staticmethod
    def _corner(sprite: Sprite, center: np.ndarray) -> tuple[int, int]:
        height, width = sprite.mask.shape
        return int(center[1] - height / 2), int(center[0] - width / 2)

    def _windows(self, shape: tuple[int, ...], corner: tuple[int, int]) -> tuple[Any, Any]:
        """Slices of the image and of a patch at `corner` (top, left) where they overlap."""
        spans = [(max(0, at), min(self.size, at + side), at) for at, side in zip(corner, shape, strict=False)]
        image = tuple(slice(low, max(low, high)) for low, high, _ in spans)
        return image, tuple(slice(low - at, max(low, high) - at) for low, high, at in spans)

    def _clipped(self, mask: np.ndarray, corner: tuple[int, int]) -> np.ndarray:
        full = np.zeros((self.size, self.size), bool)
        image, patch = self._windows(mask.shape, corner)
        full[image] = mask[patch]
        return full

    def _add(self, sprite: Sprite, corner: tuple[int, int]) -> None:
        image, patch = self._windows(sprite.mask.shape, corner)
        self.density[image] += sprite.density[patch]


def write_dataset(
    root: Path, *, seed: int = 0, scenes: Mapping[str, int] = DEMO_SCENES, size: int = DESIGN_SIZE
) -> None:
    """Write `root/<split>/scene_00000.png` and `root/<split>.json` (COCO) for every split of `scenes`.

    The files are written to a temporary folder, which is renamed to `root` at the end. An interrupted run leaves no
    files, and if two processes draw at the same time, the first to finish wins. Raises `UserError` if `root` exists.
    """
    if root.exists():
        raise UserError(f"{root}: exists already; remove it to draw the demo data again")
    root.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{root.name}.", dir=root.parent))
    try:
        with progress_bar(total=sum(scenes.values()), desc="drawing scenes", unit="scene") as bar:
            for split, count in scenes.items():
                coco = _write_split(partial / split, seed, count, size, bar.update)
                (partial / f"{split}.json").write_text(json.dumps(coco))
        partial.chmod(0o755)  # mkdtemp creates private folders
        _publish(partial, root)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _publish(partial: Path, root: Path) -> None:
    """Rename `partial` to `root`, unless another process has done so in the meantime."""
    try:
        os.rename(partial, root)
    except OSError:
        if not root.is_dir():
            raise


def _write_split(folder: Path, seed: int, count: int, size: int, done: Callable[[], Any]) -> dict[str, Any]:
    """Write the images of one split to `folder`, which is named after the split; return its COCO dict."""
    folder.mkdir()
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for index in range(count):
        scene = draw_scene(seed, folder.name, index, size)
        name = f"scene_{index:05d}.png"
        if not cv2.imwrite(str(folder / name), scene.image[..., ::-1]):
            raise OSError(f"{folder / name}: could not be written; is the disk full?")
        images.append({"id": index + 1, "file_name": name, "width": size, "height": size})
        for cell in scene.cells:
            annotations.append({"id": len(annotations) + 1, "image_id": index + 1, **_annotation(cell)})
        done()
    categories = [{"id": number, "name": name} for number, name in enumerate(CLASSES, 1)]
    return {"images": images, "annotations": annotations, "categories": categories}


def _annotation(cell: Cell) -> dict[str, Any]:
    left, top, right, bottom = cell.box
    return {
        "category_id": CLASSES.index(cell.label) + 1,
        "bbox": [left, top, right - left, bottom - top],
        "area": float(cell.mask.sum()),
        "iscrowd": 0,
    }
