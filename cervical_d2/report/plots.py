"""Plots of the statistics of splits, with one row or panel per split, in colors for color-blind readers."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from cervical_d2.curation.statistics import (
    MEASURES,
    Floats,
    Ints,
    boxes_per_image,
    center_map,
    class_counts,
    measures,
)
from cervical_d2.data.pixels import LEVELS
from cervical_d2.report.axes import GRAY, RGB, WIDTHS, in_legend, log_axis, panels, short
from cervical_d2.report.summary import OVERLAPS, SplitStatistics

BOXES, IMAGES = RGB[1], RGB[4]
SKEWED = 50  # ratio of the largest to the smallest class above which bars get a log scale
PER_BIN = 10  # average number of boxes per bin of the map of centers; fewer would show only noise
UNITS = {"width": "width (px)", "height": "height (px)", "area": "area (square px)", "aspect ratio": "height / width"}


def class_figure(subjects: Sequence[SplitStatistics], scale: str = "auto") -> Figure:
    """Boxes and images of each class as paired bars. `scale`: linear, log, or auto (log if classes differ much)."""
    figure, axes = panels(len(subjects), 0.9 + 0.42 * max(len(subject.boxes.classes) for subject in subjects))
    all_counts = [class_counts(subject.boxes) for subject in subjects]
    log = scale == "log" or (scale == "auto" and any(_skewed(boxes) for boxes, _ in all_counts))
    for ax, subject, counts in zip(axes, subjects, all_counts, strict=True):
        places = np.arange(len(subject.boxes.classes))
        for values, shift, color, label in zip(counts, (-0.2, 0.2), (BOXES, IMAGES), ("boxes", "images"), strict=True):
            bars = ax.barh(places + shift, values, 0.38, color=color, label=label)
            ax.bar_label(bars, [f"{value:,}" for value in values], padding=2, fontsize=8)
        ax.set_yticks(places, subject.boxes.classes)
        ax.invert_yaxis()
        ax.margins(x=0.15)
        if log:
            ax.set_xscale("log")
            ax.set_xlim(0.7, 5 * max(counts[0].max(), 1))
        ax.xaxis.set_major_formatter(FuncFormatter(short))
        ax.set_xlabel("number, on a logarithmic scale" if log else "number")
        ax.set_title(subject.boxes.name)
    axes[0].legend(loc="lower right")
    return figure


def _skewed(boxes: Ints) -> bool:
    seen = boxes[boxes > 0]
    return len(seen) > 0 and bool(seen.max() > SKEWED * seen.min())


def shape_figure(subjects: Sequence[SplitStatistics]) -> Figure:
    """Quantiles (5, 25, 50, 75 and 95 %) of width, height, area and aspect ratio of each class; one row per split."""
    heights = [0.5 + 0.26 * len(subject.boxes.classes) for subject in subjects]
    figure = Figure((WIDTHS[1], sum(heights) + 0.4), layout="constrained")
    grid = figure.subplots(len(subjects), len(MEASURES), squeeze=False, sharex="col", height_ratios=heights)
    quantiles = [measures(subject.boxes) for subject in subjects]
    for row, subject, table in zip(grid, subjects, quantiles, strict=True):
        for ax, values in zip(row, table.values(), strict=True):
            _spread(ax, values)
            ax.set_yticks(range(len(values)), subject.boxes.classes if ax is row[0] else [""] * len(values))
            ax.invert_yaxis()
        row[0].set_title(subject.boxes.name, loc="left", fontsize=10)
    for ax, name in zip(grid[-1], MEASURES, strict=True):
        every = np.concatenate([table[name].ravel() for table in quantiles])
        if len(every := every[np.isfinite(every)]):
            log_axis(ax, "x", every.min(), every.max(), most=5)
        ax.set_xlabel(UNITS[name])
    return figure


def _spread(ax: Axes, table: Floats) -> None:
    """A box plot of (C, 5) quantiles. The line of a class without boxes is empty."""
    for label, values in enumerate(table):
        low, first, median, third, high = values
        ax.plot([low, high], [label, label], color=GRAY, linewidth=1)
        ax.barh(label, third - first, 0.6, first, color=RGB[label % len(RGB)], alpha=0.75)
        ax.plot([median, median], [label - 0.3, label + 0.3], color="black", linewidth=1.5)
    ax.grid(axis="x", alpha=0.3)


def center_figure(subjects: Sequence[SplitStatistics]) -> Figure:
    """Maps of the box centers."""
    figure, axes = panels(len(subjects), 3.2)
    for ax, subject in zip(axes, subjects, strict=True):
        bins = int(np.clip(np.sqrt(len(subject.boxes.box) / PER_BIN), 5, 20))
        drawn = ax.imshow(center_map(subject.boxes, bins), cmap="cividis", extent=(0, 100, 100, 0), vmin=0)
        width, height = subject.boxes.size.mean(axis=0)
        ax.set_aspect(height / width)
        ax.set(xlabel="% of the width", ylabel="% of the height", title=subject.boxes.name)
        figure.colorbar(drawn, ax=ax, label="boxes", shrink=min(1, height / width))
    return figure


def crowding_figure(subjects: Sequence[SplitStatistics]) -> Figure:
    """On the left the number of boxes per image, on the right the overlap of the boxes."""
    figure, (crowd, overlap) = panels(2, 3.4)
    top = max(int(boxes_per_image(subject.boxes).max()) for subject in subjects)
    edges = np.arange(0, top + 2, max(1, top // 40)) - 0.5
    thresholds = np.linspace(0.02, 1, 99)
    for number, subject in enumerate(subjects):
        color, counts = RGB[number % len(RGB)], boxes_per_image(subject.boxes)
        weights = np.full(len(counts), 100 / len(counts))
        crowd.hist(
            counts,
            [*edges, edges[-1] + max(1, top // 40)],
            weights=weights,
            histtype="step",
            color=color,
            linewidth=1.6,
        )
        crowd.plot([], [], color=color, label=in_legend(subject.boxes.name))
        for (scope, values), style in zip(subject.overlaps.items(), ("-", "--"), strict=True):
            reached = 100 * (1 - np.searchsorted(np.sort(values), thresholds) / max(1, len(values)))
            overlap.plot(thresholds, reached, style, color=color, label=in_legend(f"{subject.boxes.name}, {scope}"))
    for threshold in OVERLAPS:
        overlap.axvline(threshold, color=GRAY, linestyle=":")
    crowd.set(xlabel="boxes in an image", ylabel="% of images")
    overlap.set(xlabel="largest IoU with another box of the image", ylabel="% of boxes that reach it", xlim=(0, 1))
    overlap.set_ylim(bottom=0)
    for ax in (crowd, overlap):
        ax.legend(fontsize=8)
    return figure


def size_figure(subjects: Sequence[SplitStatistics]) -> Figure:
    """The sizes of the images and their mean."""
    figure, axes = panels(len(subjects), 3.4)
    for ax, subject in zip(axes, subjects, strict=True):
        size = subject.boxes.size
        different, counts = np.unique(size, axis=0, return_counts=True)
        area = 20 + 280 * counts / counts.max()
        ax.scatter(different[:, 0], different[:, 1], s=area, color=BOXES, alpha=0.5, edgecolors="none")
        width, height = size.mean(axis=0)
        ax.plot(width, height, "+", color=RGB[0], markersize=14, markeredgewidth=2)
        ax.set_title(f"{subject.boxes.name}: mean {width:.1f} x {height:.1f} px", fontsize=10)
        ax.set(xlabel="width (px)", ylabel="height (px)")
        ax.set(xlim=(0, 1.15 * size[:, 0].max()), ylim=(0, 1.15 * size[:, 1].max()))
        ax.grid(alpha=0.3)
    return figure


def pixel_figure(subjects: Sequence[SplitStatistics]) -> Figure:
    """Histograms of the pixel values of each channel, with the means."""
    named = [(subject.boxes.name, subject.pixels) for subject in subjects if subject.pixels]
    figure, axes = panels(len(named), 3.0)
    for ax, (name, pixels) in zip(axes, named, strict=True):
        shares = 100 * pixels.histogram / pixels.histogram.sum(axis=1, keepdims=True)
        channels = zip(pixels.format, shares, pixels.mean, pixels.std, strict=True)
        for channel, values, mean, std in channels:
            color = {"R": RGB[0], "G": RGB[2], "B": RGB[1]}.get(channel, "black")
            ax.plot(np.arange(LEVELS), values, color=color, label=f"{channel}: {mean:.1f} ± {std:.1f}")
            ax.axvline(mean, color=color, linestyle=":", linewidth=1)
        ax.set(xlabel="value", ylabel="% of pixels", title=name, xlim=(0, LEVELS - 1))
        ax.set_ylim(bottom=0)
        ax.legend(fontsize=8)
    return figure
