"""Plots of the boxes of splits with the anchors of a config."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cervical_d2.anchors.grid import AnchorFit
from cervical_d2.anchors.kmeans import best_anchor
from cervical_d2.curation.statistics import Floats, mean
from cervical_d2.report.axes import GRAY, RGB, WIDTHS, in_legend, log_axis, panels
from cervical_d2.report.summary import FITS, SplitStatistics

MARKERS = "osD^vPX*"  # one per pyramid level


def anchor_figure(subjects: Sequence[SplitStatistics], size: str = "the test size") -> Figure:
    """One row per split: on the left the boxes with the anchors, on the right the share of boxes by IoU.

    `size`: text for the title that says at which size the boxes are.
    """
    fits = [(subject, subject.fit) for subject in subjects if subject.fit]
    figure = Figure((WIDTHS[1], 4.6 * len(fits)), layout="constrained")
    grid = figure.subplots(len(fits), 2, squeeze=False, width_ratios=(1.15, 1))
    for (plane, curves), (subject, fit) in zip(grid, fits, strict=True):
        _anchor_plane(plane, fit)
        plane.set_title(f"{subject.boxes.name}: boxes at {size}, and anchors", loc="left", fontsize=10)
        for label, name in enumerate(subject.boxes.classes):
            _coverage(curves, fit.iou[subject.boxes.label == label], label, name)
        for threshold in FITS:
            curves.axvline(threshold, color=GRAY, linestyle=":")
        curves.set(
            xlim=(0, 1), ylim=(0, 101), xlabel="IoU by shape with the best anchor", ylabel="% of boxes that reach it"
        )
        if len(fit.iou):
            curves.legend(loc="lower left", fontsize=8)
        curves.grid(alpha=0.3)
    return figure


def _anchor_plane(ax: Axes, fit: AnchorFit) -> None:
    anchors = fit.anchors.size
    every = np.vstack([fit.side, anchors])
    low, high = every.min(axis=0) / 1.3, every.max(axis=0) * 1.3
    edges = [np.geomspace(low[axis], high[axis], 60) for axis in (0, 1)]
    if len(fit.side):
        counts = np.histogram2d(fit.side[:, 0], fit.side[:, 1], bins=edges)[0].T
        ax.pcolormesh(*edges, np.ma.masked_equal(counts, 0), cmap="Greys", norm="log", vmin=0.5, rasterized=True)
    across, down = np.meshgrid(*edges)
    best = best_anchor(np.stack([across.ravel(), down.ravel()], axis=1), anchors)[0].reshape(across.shape)
    for threshold, color, width in zip(FITS, (GRAY, RGB[1]), (0.9, 1.3), strict=True):
        ax.contour(across, down, best, [threshold], colors=[color], linewidths=width)
        ax.plot([], [], color=color, linewidth=width, label=f"best IoU {threshold:g}")
    for level, name in enumerate(fit.anchors.levels):
        color, marker = RGB[level % len(RGB)], MARKERS[level % len(MARKERS)]
        points = anchors[fit.anchors.level == level]
        ax.plot(*points.T, marker, color=color, markeredgecolor="white", markersize=8, label=name)
    ax.set(xlabel="width (px of the network's input)", ylabel="height (px of the network's input)")
    for axis, start, end in zip("xy", low, high, strict=True):
        log_axis(ax, axis, start, end, most=8)
    ax.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]))
    ax.legend(loc="lower right", fontsize=8)


def _coverage(ax: Axes, iou: Floats, label: int, name: str) -> None:
    if len(iou):
        reached = 100 * (1 - np.arange(len(iou)) / len(iou))
        style = ("-", "--", "-.")[label % 3]
        ax.step(np.sort(iou), reached, color=RGB[label % len(RGB)], linestyle=style, label=in_legend(name), where="pre")


def sweep_figure(swept: Mapping[int, float], levels: int, own: AnchorFit) -> Figure:
    """Mean IoU by number of anchors (`swept`). Filled markers: multiples of `levels`; cross: the config's anchors."""
    figure, (ax,) = panels(1, 4.0)
    usable = {number: iou for number, iou in swept.items() if number % levels == 0}
    ax.plot(list(swept), list(swept.values()), "o-", color=RGB[0], markerfacecolor="white", label="k-means")
    ax.plot(list(usable), list(usable.values()), "o", color=RGB[0], label=f"a multiple of the {levels} levels")
    ax.plot([len(own.anchors.size)], [mean(own.iou)], "X", color=RGB[1], markersize=9, label="the config's anchors")
    ax.set(xlabel="number of anchors", ylabel="mean IoU by shape with the best anchor")
    ax.set_xticks(list(usable))
    ax.grid(alpha=0.3)
    ax.legend(loc="lower right", fontsize=8)
    return figure
