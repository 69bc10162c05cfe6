"""The curves of an evaluation as figures."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cervical_d2.evaluation.analysis import Analysis
from cervical_d2.evaluation.bootstrap import Measured
from cervical_d2.evaluation.calibration import BINS, reliability
from cervical_d2.evaluation.curves import curves
from cervical_d2.evaluation.error_types import IGNORED, KINDS, error_table
from cervical_d2.evaluation.froc import RATES, froc
from cervical_d2.evaluation.units import roc
from cervical_d2.report.axes import GRAY, RGB, in_legend, log_axis, panels

STYLES = ("-", "--", "-.", ":")
HATCHES = ("", "//", "..", "\\\\", "xx", "++", "")
LESIONS = ("cells", "abnormal cells")  # what is found: without and with grades of the classes
ERRORS = (*KINDS[1:IGNORED], "missed")


def precision_recall_figure(analysis: Analysis) -> Figure:
    """Precision over recall of each class that has cells, at an IoU of 0.5 under COCO's protocol."""
    figure, (ax,) = panels(1, 4.2)
    for label, ranking in enumerate(analysis.ranked["coco"]):
        if not ranking.wanted.sum() or not len(ranking.score):
            continue
        curve = curves(ranking.correct[:1, :1], ranking.wrong[:1, :1], ranking.wanted.sum(keepdims=True))
        recall, precision = curve.recall[0, 0], curve.precision[0, 0]
        # The best precision holds for every lower recall, and ends where recall does.
        ax.step([0, *recall, recall[-1]], [precision[0], *precision, 0], where="pre", **_line(label),
                label=in_legend(analysis.inputs.classes[label]))  # fmt: skip
    return _finish(figure, ax, "recall", "precision", "lower left")


def froc_figure(analysis: Analysis, measured: Measured) -> Figure:
    """Sensitivity over false positives per image, and per slide where slides are known, with intervals."""
    figure, (ax,) = panels(1, 4.2)
    for number, (name, units) in enumerate(analysis.units.items()):
        curve = froc(analysis.lesions, len(units.score))
        inside = (curve.false_positives >= RATES[0] / 2) & (curve.false_positives <= 2 * RATES[-1])
        ax.step(curve.false_positives[inside], curve.sensitivity[inside], where="post", **_line(number),
                label=f"per {name}")  # fmt: skip
        ends = np.array([measured.interval(f"froc_{name}/{rate:g}") for rate in RATES]) / 100
        known = ~np.isnan(ends).any(axis=1)
        value, low, high = ends[known].T
        # A percentile interval need not hold its value.
        errors = np.clip([value - low, high - value], 0, None)
        ax.errorbar(RATES[known], value, errors, fmt="o", color=RGB[number], markersize=4, capsize=3)
    log_axis(ax, "x", RATES[0] / 2, 2 * RATES[-1], 9)
    ax.set_xlim(RATES[0] / 2, 2 * RATES[-1])
    return _finish(figure, ax, "false positives per image" + (" or slide" if len(analysis.units) > 1 else ""),
                   f"share of {LESIONS[bool(analysis.inputs.severity.known.any())]} found", "lower right")  # fmt: skip


def roc_figure(analysis: Analysis) -> Figure:
    """Images, and slides, called abnormal by their surest detection."""
    figure, (ax,) = panels(1, 4.2)
    ax.plot([0, 1], [0, 1], ":", color=GRAY, label="by chance")
    for number, (name, units) in enumerate(analysis.units.items()):
        thresholds, false, true = roc(units)
        ax.plot(false, true, **_line(number), label=f"{name}s")
        place = np.searchsorted(-thresholds, -analysis.score, "right") - 1
        ax.plot(false[place], true[place], "o", color=RGB[number], label=f"from a score of {analysis.score:g} on")
    return _finish(figure, ax, "normal ones called abnormal", "abnormal ones called abnormal", "lower right")


def reliability_figure(analysis: Analysis) -> Figure:
    """How often detections of a score are right, and how many there are."""
    figure, (ax, below) = panels(2, 3.6)
    count, score, correct = reliability(analysis.bins)
    middle = (np.arange(BINS) + 0.5) / BINS
    ax.bar(middle, np.nan_to_num(correct), 0.9 / BINS, color=RGB[5], label="right")
    ax.plot(score, correct, "o", color=RGB[1], label="at the mean score of the bin")
    ax.plot([0, 1], [0, 1], ":", color=GRAY, label="a score that says it")
    _finish(figure, ax, "score", "share of detections that are right", "upper left")
    below.bar(middle, count, 0.9 / BINS, color=RGB[5])
    below.set(xlabel="score", ylabel="detections", xlim=(0, 1))
    return figure


def error_figure(analysis: Analysis) -> Figure:
    """What goes wrong from the threshold on, by class."""
    inputs = analysis.inputs
    table = error_table(analysis.errors, inputs.truth, inputs.detections, analysis.score, len(inputs.classes))[:, 1:]
    figure, (ax,) = panels(1, 1.6 + 0.32 * len(inputs.classes))
    left = np.zeros(len(inputs.classes))
    for number, name in enumerate(ERRORS):
        ax.barh(inputs.classes, table[:, number], left=left, color=RGB[number], hatch=HATCHES[number], label=name,
                edgecolor="white", linewidth=0)  # fmt: skip
        left += table[:, number]
    ax.invert_yaxis()
    ax.set_xlabel("wrong detections, and missed cells")
    figure.legend(loc="outside upper center", ncols=3, fontsize=8)
    return figure


def _line(number: int) -> dict[str, Any]:
    return {"color": RGB[number % len(RGB)], "linestyle": STYLES[number % len(STYLES)]}


def _finish(figure: Figure, ax: Axes, across: str, up: str, legend: Any) -> Figure:
    ax.set(xlabel=across, ylabel=up, ylim=(0, 1.02))
    if ax.get_xscale() == "linear":
        ax.set_xlim(0, 1.01)
    ax.grid(alpha=0.3)
    ax.legend(loc=legend, fontsize=8)
    return figure
