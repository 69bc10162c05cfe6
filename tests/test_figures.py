"""The table of figures: what reads it, and that it is all that can be shown."""

from pathlib import Path

import numpy as np
import pytest
from test_bootstrap import CLASSES, scene_of

from cervical_d2.evaluation import figures
from cervical_d2.evaluation.analysis import Analysis
from cervical_d2.evaluation.bootstrap import Interval, measure
from cervical_d2.evaluation.comparison import Difference, verdict
from cervical_d2.evaluation.figures import FIGURES, Figure, figure_of, figures_of, less_is_better, statistic, title_of
from cervical_d2.report.differences import compared
from cervical_d2.report.evaluation_sections import CARDS, PLACED, EvaluatedModel, sections

SLIDES = [0, 0, 1, 1, 2, 2, 3, 3]


def detections_per_image(it):
    """Of an image, as often as it counts."""
    count = np.bincount(it.inputs.detections.image, minlength=it.images.shape[1])
    return it.images @ count / it.images.sum(axis=1)


def test_every_row_is_explained_in_the_docs():
    text = (Path(__file__).parents[1] / "docs/metrics.md").read_text()
    assert [row.name for row in FIGURES if f"`{row.name}`" not in text] == []


def test_rows_are_each_of_its_own_and_say_which_way_is_better():
    names = [row.name for row in FIGURES]
    assert len(set(names)) == len(names)
    assert {row.better for row in FIGURES} <= {"more", "less", ""}
    assert {row.name for row in FIGURES if row.better == "less"} == {"calibration/ECE", "severity/cost"}


def test_every_section_is_one_of_the_pages_and_what_it_places_is_there():
    model = EvaluatedModel(analysis := Analysis(scene_of(0, SLIDES)), measure(statistic(analysis), 4, 5))
    assert {row.section for row in FIGURES} - {""} <= {section.name for section in sections(model)}
    assert set(PLACED) <= {row.name for row in FIGURES}
    assert CARDS.keys() <= model.measured.figures.keys()


def test_families_follow_member_by_member():
    names = list(figures_of(Analysis(scene_of(0, SLIDES))))
    assert names[:5] == ["coco/AP", "coco/AP75", "AP/NILM", "AP50/NILM", "recall50/NILM"]
    assert [name for name in names if name.startswith("froc/")] == [f"froc/{name}" for name in CLASSES]
    assert names.index("froc_image/8") + 1 == names.index("froc_image/mean")
    assert all(figure_of(name) for name in names)


@pytest.mark.parametrize(
    ("name", "row", "less"),
    [
        ("calibration/ECE", "calibration/ECE", True),
        ("bccd_val/severity/cost", "severity/cost", True),
        ("froc_image/mean", "froc_image/mean", False),
        ("froc_image/0.5", "froc_image/{rate}", False),
        ("AP50/RBC", "AP50/{class}", False),
        ("bbox/AP50", None, False),
        ("calibration/ECE2", None, False),
    ],
)
def test_a_figure_is_known_by_its_name_with_or_without_a_split(name, row, less):
    found = figure_of(name)
    assert (found and found.name) == row
    assert less_is_better(name) == less


def test_titles_name_the_member():
    assert title_of("AP50/RBC") == "AP50 of RBC"
    assert title_of("froc_image/1") == "sensitivity at 1 false positive per image"
    assert title_of("voc/mAP") == title_of("nobody/knows") == ""


def test_a_row_is_all_that_a_new_figure_takes(monkeypatch):
    row = Figure("count/detections", "detections per image", "", "", detections_per_image, "scores")
    monkeypatch.setattr(figures, "FIGURES", (*FIGURES, row))
    analysis = Analysis(inputs := scene_of(0))
    model = EvaluatedModel(analysis, measure(statistic(analysis), 8, 30))
    value = len(inputs.detections.score) / 8
    interval = model.measured.interval("count/detections")
    assert interval.value == value
    assert interval.low < value < interval.high
    scores = next(section for section in sections(model) if section.name == "scores")
    assert scores.items[-1].rows == [["detections per image", value, interval.text(2)]]
    (table,) = compared([model.measured] * 2, ["new", "old"]).items
    assert [cells[1:3] for cells in table.rows if cells[0] == "detections per image"] == [[value, value]]
    more = Difference("count/detections", 1, 3, Interval(2, 1, 4), 0.01)  # which is neither better nor worse
    assert verdict(more, ["A", "B"], "x").startswith("x: B has more (+2.00,")
