"""Confusion matrices of several classifiers side by side."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cervical_d2.evaluation.classification import Ints
from cervical_d2.report.axes import panels

FEW = 4  # largest number of classes for which a cell also shows its share of the row
DARK = 0.5  # numbers are white in cells with larger shares


def confusion_figure(matrices: Mapping[str, Ints], classes: Sequence[str]) -> Figure:
    """A panel for each of `matrices` by title: (K, K) counts of images, rows are the truth, colors the row's shares."""
    figure, axes = panels(len(matrices), 1.3 + 0.32 * max(len(classes), 6))
    for ax, (title, matrix) in zip(axes, matrices.items(), strict=True):
        share = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
        ax.imshow(share, cmap="Blues", vmin=0, vmax=1)
        _numbers(ax, matrix, share)
        places = range(len(classes))
        ax.set_xticks(places, classes, rotation=0 if len(classes) <= FEW else 60, ha="center", fontsize=8)
        ax.set_yticks(places, classes, fontsize=8)
        ax.set(xlabel="called", ylabel="truth")
        ax.set_title(title, fontsize=10)
    return figure


def _numbers(ax: Axes, matrix: Ints, share: np.ndarray) -> None:
    for (row, column), count in np.ndenumerate(matrix):
        text = f"{count}\n{100 * share[row, column]:.1f} %" if len(matrix) <= FEW else f"{count}" if count else ""
        color = "white" if share[row, column] > DARK else "black"
        ax.text(column, row, text, ha="center", va="center", fontsize=8, color=color)
