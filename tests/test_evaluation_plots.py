"""The curves of a report show what was computed."""

import numpy as np
import pytest
from test_bootstrap import scene_of

from cervical_d2.evaluation.analysis import Analysis
from cervical_d2.evaluation.bootstrap import measure
from cervical_d2.evaluation.error_types import error_table
from cervical_d2.evaluation.figures import figures_of, statistic
from cervical_d2.evaluation.units import rates_at
from cervical_d2.report.evaluation_plots import (
    error_figure,
    froc_figure,
    precision_recall_figure,
    reliability_figure,
    roc_figure,
)


@pytest.fixture(scope="module")
def analysis() -> Analysis:
    return Analysis(scene_of(0), 0.4)


def lines(figure, number=0):
    return {line.get_label(): line.get_xydata() for line in figure.axes[number].get_lines()}


def test_precision_over_recall_ends_at_the_recall_of_the_class_and_starts_at_its_best(analysis):
    figures = figures_of(analysis)
    drawn = lines(precision_recall_figure(analysis))
    assert set(drawn) == {"NILM", "ASC-US", "LSIL"}  # the others have no cell, or nothing was found of them
    for name, points in drawn.items():
        assert 100 * points[-1, 0] == pytest.approx(figures[f"recall50/{name}"][0])
        assert points[0, 1] == points[:, 1].max()
        assert points[-1, 1] == 0


def test_froc_passes_through_its_seven_points(analysis):
    measured = measure(statistic(analysis), 8, 20)
    figure = froc_figure(analysis, measured)
    curve = lines(figure)["per image"]
    for rate in (0.5, 1, 2):
        reached = curve[curve[:, 0] <= rate, 1].max(initial=0)
        assert 100 * reached == pytest.approx(measured.figures[f"froc_image/{rate:g}"])


def test_the_dot_of_the_roc_is_the_threshold(analysis):
    (dot,) = lines(roc_figure(analysis))["from a score of 0.4 on"]
    rates = rates_at(analysis.units["image"], np.ones((1, 8)), 0.4)
    assert dot == pytest.approx([1 - rates.specificity[0], rates.sensitivity[0]])


def test_bars_of_reliability_are_shares_and_counts(analysis):
    figure = reliability_figure(analysis)
    counted = (analysis.matches.correct | analysis.matches.wrong)[0, 0]
    heights = [[bar.get_height() for bar in ax.patches] for ax in figure.axes]
    assert sum(heights[1]) == counted.sum()
    in_bin = counted & (analysis.matches.score >= 0.5) & (analysis.matches.score < 0.6)
    assert heights[0][5] == pytest.approx(analysis.matches.correct[0, 0, in_bin].mean())


def test_bars_of_errors_add_up_to_the_table(analysis):
    inputs = analysis.inputs
    table = error_table(analysis.errors, inputs.truth, inputs.detections, 0.4, 5)[:, 1:]
    widths = np.array([bar.get_width() for bar in error_figure(analysis).axes[0].patches]).reshape(6, 5)
    assert widths.T.tolist() == table.tolist()
