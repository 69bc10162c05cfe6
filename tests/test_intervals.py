"""Intervals by what can be known otherwise: slides resampled in a loop, rates of 0 and 100 %, rare classes, names."""

import json
from pathlib import Path

import numpy as np
import pytest
from box_arrays import found_of
from conftest import called
from test_bootstrap import CLASSES, scene_of
from test_predictions import rows_on_truth

from cervical_d2.errors import UserError
from cervical_d2.evaluation.analysis import Analysis
from cervical_d2.evaluation.bootstrap import wilson
from cervical_d2.evaluation.comparison import compare, verdict
from cervical_d2.evaluation.figures import measured
from cervical_d2.evaluation.froc import RATES
from cervical_d2.evaluation.loading import told_apart
from cervical_d2.report.evaluation_sections import EvaluatedModel, sections

SLIDES = [0, 0, 1, 1, 2, 2, 3, 3]


@pytest.mark.parametrize(
    ("share", "count", "low", "high"),
    [
        (100, 10, 100 * 10 / (10 + 1.959964**2), 100),  # n / (n + z^2)
        (0, 20, 0, 100 * 1.959964**2 / (20 + 1.959964**2)),
        (50, 4, 15.0039, 84.9961),  # 1/2 -+ z sqrt(1/16 + z^2/64) / (1 + z^2/4)
    ],
)
def test_wilsons_interval_by_hand(share, count, low, high):
    assert wilson(share, count) == pytest.approx((share, low, high), abs=1e-4)


def test_wilsons_interval_covers_a_rate_near_100_as_often_as_it_says():
    rng = np.random.default_rng(0)
    ends = [wilson(100 * hits / 40, 40) for hits in rng.binomial(40, 0.97, 2000)]
    assert 0.93 <= np.mean([low <= 97 <= high for _, low, high in ends]) <= 0.99


def called_abnormal(inputs, score):
    """With one detection of HSIL in each of the eight images."""
    found = found_of([[0, 0, 40, 40]] * 8, [score] * 8, labels=[3] * 8, images=range(8))
    return inputs._replace(detections=found)


def test_a_rate_of_0_or_100_percent_has_a_width():
    inputs = called_abnormal(scene_of(0), 0.9)
    model = measured(analysis := Analysis(inputs), 20)
    positive = int(analysis.units["image"].positive.sum())
    assert model.interval("image/sensitivity") == wilson(100, positive)
    assert model.interval("image/sensitivity").low < 80
    none = measured(Analysis(called_abnormal(inputs, 0.1)), 20)
    assert none.interval("image/sensitivity") == wilson(0, positive)
    by_slide = measured(Analysis(called_abnormal(scene_of(0, SLIDES), 0.9)), 20)
    for kind in ("image", "slide"):  # eight images, but four slides: images of one slide are alike
        assert by_slide.interval(f"{kind}/sensitivity") == wilson(100, 4)


def slides_drawn(inputs, samples, seed):
    """The numbers of the slides in each resample, some more than once."""
    draws = np.random.default_rng(seed).multinomial(4, [0.25] * 4, size=samples)
    return [[slide for slide, times in enumerate(row) for _ in range(times)] for row in draws]


def test_slide_intervals_equal_those_of_a_loop_over_slides():
    inputs = scene_of(7, SLIDES)
    abnormal = inputs.severity.abnormal
    rows = {slide: [] for slide in range(4)}  # (score, correct, wrong) of the detections of lesions
    lesions = (analysis := Analysis(inputs, 0.7)).lesions
    for image, score, correct, wrong in zip(
        lesions.image, lesions.score, lesions.correct[0, 0], lesions.wrong[0, 0], strict=True
    ):
        rows[SLIDES[image]].append((score, correct, wrong))
    truth = inputs.truth
    wanted, positive = dict.fromkeys(range(4), 0), dict.fromkeys(range(4), False)
    for image, label, crowd, ignore in zip(truth.image, truth.label, truth.crowd, truth.ignore, strict=True):
        wanted[SLIDES[image]] += int(abnormal[label] and not crowd and not ignore)
        positive[SLIDES[image]] |= bool(abnormal[label] and not ignore)
    top = {slide: max((score for score, *_ in part), default=0) for slide, part in rows.items()}
    assert all(positive.values())

    def figures(drawn):
        scores = sorted({score for slide in drawn for score, *_ in rows[slide]})
        found = {"slide/sensitivity": 100 * np.mean([top[slide] >= 0.7 for slide in drawn])}
        for rate in RATES:
            best = 0
            for threshold in scores:
                over = [row for slide in drawn for row in rows[slide] if row[0] >= threshold]
                if sum(wrong for _, _, wrong in over) <= rate * len(drawn):
                    best = max(best, sum(correct for _, correct, _ in over))
            found[f"froc_slide/{rate:g}"] = 100 * best / sum(wanted[slide] for slide in drawn)
        return found

    model = measured(analysis, 60, 3)
    expected = [figures(drawn) for drawn in slides_drawn(inputs, 60, 3)]
    for name in expected[0]:
        low, high = np.percentile([each[name] for each in expected], [2.5, 97.5])
        assert model.interval(name) == pytest.approx((figures(range(4))[name], low, high)), name
    assert model.interval("slide/sensitivity").low < model.interval("slide/sensitivity").high


def test_the_calibration_error_has_no_interval_and_no_difference_that_tells():
    model, other = measured(Analysis(scene_of(0)), 20), measured(Analysis(scene_of(1)), 20)
    assert model.interval("calibration/ECE").value > 0
    assert np.isnan(model.interval("calibration/ECE")[1:]).all()
    item = next(item for item in compare(model, other) if item.name == "calibration/ECE")
    assert np.isnan([*item.difference[1:], item.p]).all()
    assert verdict(item, ["A", "B"], "x").startswith("x: there is no interval, which would tell which is better (diff")
    scores = next(part for part in sections(EvaluatedModel(Analysis(scene_of(0)), model)) if part.name == "scores")
    assert "It has no interval" in scores.note


def test_a_class_in_few_images_is_marked_beside_its_interval():
    inputs = scene_of(0)
    rare = inputs.truth.label == 4
    keep = inputs.truth.image[rare][:1]
    label = np.where(rare & ~np.isin(inputs.truth.image, keep), 3, inputs.truth.label)
    inputs = inputs._replace(truth=inputs.truth._replace(label=label))
    model = measured(analysis := Analysis(inputs), 20)
    assert model.warnings["AP50/SCC"] == "only 1 image"
    assert model.spread("AP50/SCC").endswith("only 1 image")
    assert {name.partition("/")[0] for name in model.warnings if name.endswith("/SCC")} == {
        "AP", "AP50", "recall50", "froc"
    }  # fmt: skip
    classes = next(part for part in sections(EvaluatedModel(analysis, model)) if part.name == "classes")
    assert "only 1 image" in str(classes.items[0].rows[CLASSES.index("SCC")])
    assert "fewer than 5 images or slides" in classes.note
    by_slide = measured(Analysis(scene_of(0, SLIDES)), 20)
    assert by_slide.warnings["AP/LSIL"] == "only 4 slides"


@pytest.mark.parametrize(
    ("names", "paths", "told"),
    [
        (["x", "y"], ["a/x.json", "b/y.json"], ["x", "y"]),
        (["p"] * 2, ["a/p.json", "b/p.json"], ["a/p.json", "b/p.json"]),
        (["p"] * 2, ["a/e/p.json", "b/e/p.json"], ["a/e/p.json", "b/e/p.json"]),
        (["run"] * 2, ["run", "run.json"], ["run", "run.json"]),
    ],
)
def test_names_that_are_alike_are_told_apart_by_the_shortest_ends_of_their_paths(names, paths, told):
    assert told_apart(names, list(map(Path, paths))) == told


def test_a_thing_named_twice_is_refused():
    with pytest.raises(UserError, match=r"p\.json: named twice"):
        told_apart(["p", "p"], [Path("a/p.json"), Path("b/../a/p.json")])


def two_predictions(tiny: Path) -> list[Path]:
    paths = [tiny / name / "predictions.json" for name in ("a", "b")]
    for path, rows in zip(paths, (rows_on_truth(tiny, 0.9), rows_on_truth(tiny, 0.9)[:1]), strict=True):
        path.parent.mkdir()
        path.write_text(json.dumps(rows))
    return paths


def test_a_baseline_of_the_same_name_does_not_replace_the_subject(tiny: Path, capfd):
    subject, baseline = two_predictions(tiny)
    words = ("--dataset", f"{tiny / 'data.yaml'}:val", "--samples", 20)
    run = called(capfd, "tools/report.py", subject, "--baseline", baseline, *words, "--output", tiny / "r")
    assert run.returncode == 0, run.stderr
    figures = json.loads((tiny / "r/figures.json").read_text())["figures"]
    assert list(figures) == ["a/predictions.json", "b/predictions.json"]
    assert [model["coco/AR"]["value"] for model in figures.values()] == [100, 25]
    assert figures["a/predictions.json"]["AP/hsil"]["warning"] == "only 2 images"
    assert "warning" not in figures["a/predictions.json"]["coco/mAP"]
    assert "Compared with b/predictions.json" in (tiny / "r/index.html").read_text()
    same = called(capfd, "tools/report.py", subject, "--baseline", subject, *words, "--output", tiny / "same")
    assert (same.returncode, "named twice" in same.stderr, (tiny / "same").exists()) == (2, True, False)


def test_a_comparison_marks_few_images_in_text_and_file(tiny: Path, capfd):
    words = ("--dataset", f"{tiny / 'data.yaml'}:val", "--samples", 20, "--output", tiny / "out.json")
    run = called(capfd, "tools/compare_predictions.py", *two_predictions(tiny), *words)
    assert run.returncode == 0, run.stderr
    assert "AP/hsil (only 2 images)" in run.stdout
    assert json.loads((tiny / "out.json").read_text())["AP/hsil"]["warning"] == "only 2 images"
