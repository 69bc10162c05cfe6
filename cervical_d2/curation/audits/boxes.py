"""Cells with two boxes. They penalize a detector for a missed cell even if it has detected the cell.

R = boxes of one image; boxes are XYXY in pixels.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from detectron2.structures import BoxMode

from cervical_d2.boxes import pairwise_iou
from cervical_d2.datasets.formats import Record

DUPLICATE_IOU = 0.9  # higher than between neighboring cells, reached by two annotations of the same cell
ROWS = 256  # boxes compared with all others at a time; limits memory for images with thousands of boxes


class BoxPair(NamedTuple):
    """Two nearly identical boxes in one image. `classes` are equal, or contradict each other."""

    file: str
    split: str
    boxes: tuple[tuple[float, ...], tuple[float, ...]]
    classes: tuple[str, str]
    iou: float

    @property
    def contradictory(self) -> bool:
        """Whether the boxes have different classes."""
        return self.classes[0] != self.classes[1]

    def line(self) -> str:
        """One line of text."""
        one, other = self.classes
        kind = f"contradictory labels, {one} and {other}" if self.contradictory else f"{one} twice"
        place = ", ".join(f"{value:.0f}" for value in self.boxes[0])
        return f"{self.split} {Path(self.file).name}: {kind}, IoU {self.iou:.2f}, at ({place})"

    def document(self) -> dict[str, Any]:
        """All data, for JSON."""
        return self._asdict() | {"contradictory": self.contradictory}


def find_box_pairs(splits: Mapping[str, Sequence[Record]], names: Sequence[str]) -> list[BoxPair]:
    """Pairs with an IoU of at least `DUPLICATE_IOU`, contradictory ones first, then by IoU. Skips ignore regions."""
    pairs = [pair for split, records in splits.items() for record in records for pair in _pairs(record, split, names)]
    return sorted(pairs, key=lambda item: (not item.contradictory, -item.iou, item.split, item.file, item.boxes))


def _pairs(record: Record, split: str, names: Sequence[str]) -> list[BoxPair]:
    cells = [item for item in record["annotations"] if not item.get("iscrowd", 0) and item["category_id"] >= 0]
    if len(cells) < 2:
        return []
    boxes = np.array([BoxMode.convert(item["bbox"], item["bbox_mode"], BoxMode.XYXY_ABS) for item in cells], float)
    return [
        BoxPair(
            record["file_name"],
            split,
            (tuple(boxes[i].tolist()), tuple(boxes[j].tolist())),
            (names[cells[i]["category_id"]], names[cells[j]["category_id"]]),
            round(iou, 4),
        )
        for i, j, iou in near_duplicates(boxes)
    ]


def near_duplicates(boxes: np.ndarray) -> list[tuple[int, int, float]]:
    """(i, j, IoU) with i < j for all pairs of (R, 4) boxes whose IoU reaches `DUPLICATE_IOU`."""
    pairs = []
    for start in range(0, len(boxes), ROWS):
        iou = pairwise_iou(boxes[start : start + ROWS], boxes)
        first, second = np.nonzero(iou >= DUPLICATE_IOU)
        later = first + start < second
        pairs += [(int(i) + start, int(j), float(iou[i, j])) for i, j in zip(first[later], second[later], strict=True)]
    return pairs
