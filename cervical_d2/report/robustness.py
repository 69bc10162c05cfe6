"""The robustness of a model against corruptions: a table, a plot, and a sheet with examples of the strengths."""

import math
from collections.abc import Mapping, Sequence

import cv2
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cervical_d2.data.corruptions import CORRUPTIONS, STRENGTHS, Corruption, corrupted
from cervical_d2.data.mapper import read_image
from cervical_d2.draw import FONT
from cervical_d2.evaluation.ground_truth import Split
from cervical_d2.evaluation.robustness import UNDISTURBED, Trial
from cervical_d2.evaluation.table import aligned
from cervical_d2.report.axes import RGB, panels
from cervical_d2.report.pictures import GAP
from cervical_d2.structures import corners

Metrics = Mapping[Trial, Mapping[str, float]]
SIDE = 200  # px of a picture on the sheet
BAR = 20  # px of its caption


def robustness_table(title: str, metrics: Metrics) -> str:
    """A table of AP50 in percent at strengths 0 to 5, its mean over 1 to 5, and that mean relative to strength 0.

    The last row is the mean of the others. Its mean and share are mPC and rPC of Michaelis et al. (2019), Benchmarking
    robustness in object detection: the mean over corruptions and strengths, and its share of the clean value.
    """
    clean = metrics[UNDISTURBED]["AP50"]
    rows = np.array([[metrics[item.name, strength]["AP50"] for strength in STRENGTHS] for item in CORRUPTIONS])
    labels = [(item.name, meaning(item)) for item in CORRUPTIONS]
    cells = [[*label, *_figures(clean, row)] for label, row in zip(labels, rows, strict=True)]
    cells.append(["all", "mPC and rPC", *_figures(clean, rows.mean(axis=0))])
    header = ["corruption", "strengths 1 to 5", *map(str, (0, *STRENGTHS)), "mean", "share"]
    return f"{title}\n\n{aligned(header, cells)}"


def _figures(clean: float, row: np.ndarray) -> list[float]:
    mean = float(row.mean())
    return [clean, *row.tolist(), mean, 100 * mean / clean if clean else math.nan]


def meaning(corruption: Corruption) -> str:
    """The unit and values of a corruption as text: `sigma, px: 0.7 1.2 ...`"""
    return f"{corruption.unit}: {' '.join(f'{value:g}' for value in corruption.values)}"


def robustness_figure(metrics: Metrics) -> Figure:
    """A panel for each corruption: AP50 and AP over strength, with the clean values dashed."""
    figure, axes = panels(len(CORRUPTIONS), 2.9)
    for ax, corruption in zip(axes, CORRUPTIONS, strict=True):
        _panel(ax, corruption, metrics)
    top = max(row[name] for row in metrics.values() for name in ("AP", "AP50"))
    for ax in axes:
        ax.set_ylim(0, 1.05 * top if top > 0 else 1)
    axes[0].legend(loc="lower left")
    return figure


def _panel(ax: Axes, corruption: Corruption, metrics: Metrics) -> None:
    trials = [UNDISTURBED, *((corruption.name, strength) for strength in STRENGTHS)]
    for name, color in (("AP50", RGB[0]), ("AP", RGB[1])):
        ax.plot(range(len(trials)), [metrics[trial][name] for trial in trials], "o-", color=color, label=name)
        ax.axhline(metrics[UNDISTURBED][name], color=color, linestyle="--", linewidth=1)
    ax.set_xticks(range(len(trials)), ["none", *(f"{value:g}" for value in corruption.values)])
    ax.set_title(corruption.name)
    ax.set_xlabel(corruption.unit)
    ax.set_ylabel("%")


def split_sheet(split: Split, seed: int) -> np.ndarray:
    """`corruption_sheet` of the first image with a box, or else of the first image."""
    place = next((place for place, record in enumerate(split.records) if record["annotations"]), 0)
    record = split.records[place]
    box = corners(record["annotations"])[0].tolist() if record["annotations"] else None
    return corruption_sheet(read_image(record["file_name"], "RGB"), box, seed=seed, number=split.numbers[place])


def corruption_sheet(image: np.ndarray, box: Sequence[float] | None, *, seed: int, number: int) -> np.ndarray:
    """A row for each corruption: the part of `image` around `box`, unscaled, clean and at each strength.

    `image` (H, W, 3) uint8 RGB; `number`: its number in the split; `box` XYXY, or None for the center of the image.
    Returns (H', W', 3) uint8 RGB.
    """
    part = _window(image.shape[:2], box)
    rows = []
    for item in CORRUPTIONS:
        pictures = [_captioned(image[part], "none")]
        for strength, value in zip(STRENGTHS, item.values, strict=True):
            seen = corrupted(image, item, strength, seed=seed, number=number)
            pictures.append(_captioned(seen[part], f"{strength}: {value:g}"))
        row = np.hstack(pictures)
        rows += [_caption(f"{item.name} ({item.unit})", row.shape[1]), row]
    return np.vstack(rows)


def _window(shape: tuple[int, int], box: Sequence[float] | None) -> tuple[slice, slice]:
    height, width = shape
    x1, y1, x2, y2 = box or (0, 0, width, height)
    slices = []
    for size, center in ((height, (y1 + y2) / 2), (width, (x1 + x2) / 2)):
        start = int(np.clip(center - SIDE / 2, 0, max(0, size - SIDE)))
        slices.append(slice(start, start + SIDE))
    return slices[0], slices[1]


def _captioned(part: np.ndarray, text: str) -> np.ndarray:
    """`part` below `text`, with a gap on the right and below: (BAR + SIDE + GAP, SIDE + GAP, 3)."""
    height, width = part.shape[:2]
    room = ((0, SIDE + GAP - height), (0, SIDE + GAP - width), (0, 0))
    return np.vstack([_caption(text, SIDE + GAP), np.pad(part, room, constant_values=255)])


def _caption(text: str, width: int) -> np.ndarray:
    bar = np.full((BAR, width, 3), 255, np.uint8)
    return cv2.putText(bar, text, (2, BAR - 6), FONT, 0.45, (0, 0, 0), 1, cv2.LINE_AA)
