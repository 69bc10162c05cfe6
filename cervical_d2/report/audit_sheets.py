"""Picture sheets of audit findings: image pairs with the shared part outlined, crops of duplicate boxes.

Images are (H, W, 3) uint8 RGB.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

from cervical_d2.curation.audits.audit import AUDITS, Finding
from cervical_d2.curation.audits.boxes import BoxPair
from cervical_d2.curation.audits.groups import SharedGroup
from cervical_d2.curation.audits.overlaps import Overlap
from cervical_d2.data.mapper import read_image
from cervical_d2.draw import COLORS, FONT
from cervical_d2.files import output_folder, write_json
from cervical_d2.report.pictures import GAP, fit, write_picture

COMMAND = "audit"
WORST = 24  # findings on a sheet
IMAGE = (420, 330)  # width and height of each image of a pair, px
CROP = 240  # px of a crop's side
MARGIN = 0.75  # shown around a box, relative to its longer side
LINE = 18  # px of a line of text
OUTLINE = (255, 0, 200)  # a color that no stain has


class Sheet(NamedTuple):
    """How a finding is drawn, and the number of findings per row."""

    cell: Callable[[Any], np.ndarray]
    columns: int


def write_audit(results: dict[str, Sequence[Finding]], datasets: Sequence[str], output: Path) -> list[Path]:
    """Write audit.json with all findings, and for each audit a sheet of the worst; return the files.

    An outdated sheet of an audit without findings is removed.
    """
    document = {name: [finding.document() for finding in findings] for name, findings in results.items()}
    sheets = {f"{name}.png": draw_sheet(name, findings) for name, findings in results.items() if findings}
    with output_folder(output, COMMAND) as folder:
        write_json(folder / "audit.json", {"datasets": list(datasets), **document}, indent=1)
        for name, sheet in sheets.items():
            write_picture(folder / name, sheet)
    return [output / name for name in ("audit.json", *sheets)]


def draw_sheet(name: str, findings: Sequence[Finding]) -> np.ndarray:
    """The `WORST` findings of the audit `name` in a grid, with the number of all findings."""
    sheet = SHEETS[name]
    cells = [sheet.cell(finding) for finding in findings[:WORST]]
    height, width = np.max([cell.shape[:2] for cell in cells], axis=0) + GAP
    columns = min(sheet.columns, len(cells) + 1)  # a single cell would be narrower than the heading
    rows = -(-len(cells) // columns)
    canvas = np.full((rows * height, columns * width + GAP, 3), 255, np.uint8)
    for number, cell in enumerate(cells):
        y, x = number // columns * height, number % columns * width + GAP
        canvas[y : y + cell.shape[0], x : x + cell.shape[1]] = cell
    shown = "all" if len(findings) == len(cells) else f"the worst {len(cells)} of"
    return np.vstack([_text([f" {AUDITS[name].found}: {shown} {len(findings)}"], canvas.shape[1], 0.6), canvas])


def overlap_cell(item: Overlap) -> np.ndarray:
    """Both images with the shared part outlined. The dots mark corresponding corners."""
    halves = [
        _outlined(read_image(image.file, "RGB"), outline)
        for image, outline in zip((item.first, item.second), item.outlines, strict=True)
    ]
    files = [f"{image.split} {Path(image.file).name}" for image in (item.first, item.second)]
    mirrored = ", mirrored" if item.mirrored else ""
    return _pair(halves, files, f"{item.share:.0%} of the smaller, correlation {item.correlation:.2f}{mirrored}")


def group_cell(item: SharedGroup) -> np.ndarray:
    """The group's first image in each of two splits."""
    splits = list(item.files)[:2]
    halves = [fit(read_image(item.files[split][0], "RGB"), *IMAGE) for split in splits]
    return _pair(halves, [f"{split} {Path(item.files[split][0]).name}" for split in splits], item.line())


def box_cell(item: BoxPair) -> np.ndarray:
    """A crop around the two boxes, in two colors."""
    image = read_image(item.file, "RGB")
    both = np.array(item.boxes)
    center = (both[:, :2].min(axis=0) + both[:, 2:].max(axis=0)) / 2
    half = (both[:, 2:] - both[:, :2]).max() * (0.5 + MARGIN)
    scale = CROP / (2 * half)
    to_crop = np.array([[scale, 0, CROP / 2 - scale * center[0]], [0, scale, CROP / 2 - scale * center[1]]])
    crop = cv2.warpAffine(image, to_crop, (CROP, CROP), flags=cv2.INTER_LINEAR, borderValue=(255, 255, 255))
    for color, (corners, thickness) in enumerate(zip(both * scale + np.tile(to_crop[:, 2], 2), (4, 1), strict=True)):
        x1, y1, x2, y2 = (
            round(float(value)) for value in corners
        )  # the second is thinner, so equal boxes are both visible
        cv2.rectangle(crop, (x1, y1), (x2, y2), COLORS[color], thickness)
    names = item.classes if item.contradictory else (f"{item.classes[0]} twice", "")
    key = np.hstack([_text([name], CROP // 2, 0.45, COLORS[color]) for color, name in enumerate(names)])
    head = _text([Path(item.file).name, f"{item.split}, IoU {item.iou:.2f}"], CROP)
    return np.vstack([head, key, crop])


SHEETS = {"overlaps": Sheet(overlap_cell, 2), "groups": Sheet(group_cell, 2), "boxes": Sheet(box_cell, 6)}


def _outlined(image: np.ndarray, outline: np.ndarray) -> np.ndarray:
    """`image` scaled to fit `IMAGE`, with `outline` (C, 2), in px of the original image, drawn on it."""
    small = fit(image, *IMAGE)
    points = outline * min(IMAGE[0] / image.shape[1], IMAGE[1] / image.shape[0])
    cv2.polylines(small, [np.round(points).astype(np.int32)], True, OUTLINE, 2, cv2.LINE_AA)
    cv2.circle(small, [round(float(value)) for value in points[0]], 7, OUTLINE, cv2.FILLED, cv2.LINE_AA)
    return small


def _pair(halves: Sequence[np.ndarray], captions: Sequence[str], below: str) -> np.ndarray:
    gap = np.full((halves[0].shape[0] + LINE, GAP // 2, 3), 255, np.uint8)
    left, right = (np.vstack([_text([text], IMAGE[0]), half]) for text, half in zip(captions, halves, strict=True))
    both = np.hstack([left, gap, right])
    return np.vstack([_text([below], both.shape[1], 0.5), both])


def _text(lines: Sequence[str], width: int, size: float = 0.42, ink: tuple[int, ...] = (0, 0, 0)) -> np.ndarray:
    step = round(LINE * max(1.0, size / 0.45))
    bar = np.full((step * len(lines), width, 3), 255, np.uint8)
    for number, line in enumerate(lines):
        cv2.putText(bar, line, (2, step * (number + 1) - 5), FONT, size, ink, 1, cv2.LINE_AA)
    return bar
