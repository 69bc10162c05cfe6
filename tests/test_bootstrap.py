"""Intervals: resampling equals really repeating images, covers what it says, and compares in pairs."""

import numpy as np
import pytest
from test_coco_pycocotools import random_scene

from cervical_d2.evaluation.analysis import Analysis, EvaluationInput, of_images
from cervical_d2.evaluation.bootstrap import interval, resampled, two_sided_p
from cervical_d2.evaluation.figures import figures_of
from cervical_d2.evaluation.matching import select
from cervical_d2.evaluation.severity import read_severity

CLASSES = ["NILM", "ASC-US", "LSIL", "HSIL", "SCC"]


def scene_of(seed=0, unit=None) -> EvaluationInput:
    truth, found = random_scene(seed)
    found = found._replace(score=np.random.default_rng(seed).permutation(len(found.score)) / len(found.score))
    unit = np.arange(8) if unit is None else np.array(unit)
    middle = (truth.box[:, :2] + truth.box[:, 2:]) / 2
    return EvaluationInput(CLASSES, truth, found, unit, len(set(unit)) < 8, read_severity(CLASSES), middle, None)


def repeated(inputs: EvaluationInput, times) -> EvaluationInput:
    """`inputs` with image i `times[i]` times."""
    sources = np.repeat(np.arange(len(times)), times)

    def copies(columns):
        parts = [(number, np.flatnonzero(columns.image == image)) for number, image in enumerate(sources)]
        rows = np.concatenate([rows for _, rows in parts])
        return select(columns, rows)._replace(image=np.repeat([n for n, _ in parts], [len(rows) for _, rows in parts]))

    unit = np.arange(len(sources))
    return inputs._replace(truth=copies(inputs.truth), detections=copies(inputs.detections), unit=unit, grouped=False,
                          centers=np.zeros((0, 2)))  # fmt: skip


@pytest.mark.parametrize("seed", range(4))
def test_a_weight_is_a_repetition_of_the_image(seed):
    inputs = scene_of(seed)
    times = np.random.default_rng(seed + 9).multinomial(8, np.full(8, 1 / 8))
    weighted = figures_of(Analysis(inputs, 0.4), times[None].astype(float))
    real = figures_of(Analysis(repeated(inputs, times), 0.4))
    assert weighted.keys() == real.keys()
    lacking = bool(set(inputs.truth.label[~inputs.truth.crowd & ~inputs.truth.ignore].tolist())
                   - set(repeated(inputs, times).truth.label.tolist()))  # fmt: skip
    for name, values in real.items():
        if name.endswith(("/mAP", "/AR")) or name in ("coco/AP", "coco/AP75"):
            assert np.isnan(weighted[name][0]) == lacking  # a mean over fewer classes is another figure
        if not np.isnan(weighted[name][0]) or np.isnan(values[0]) or not lacking:
            assert weighted[name][0] == pytest.approx(values[0], abs=1e-9, nan_ok=True), name


def test_a_mean_over_classes_has_no_number_without_one_of_them():
    inputs = scene_of(0)
    rare = min(set(inputs.truth.label.tolist()), key=inputs.truth.label.tolist().count)
    without = ~np.isin(np.arange(8), inputs.truth.image[inputs.truth.label == rare])
    assert without.any()
    figures = figures_of(Analysis(inputs), np.stack([np.ones(8), without.astype(float)]))
    for name in ("coco/AP", "coco/mAP", "voc/mAP", "comparison_detector/AR"):
        assert np.isnan(figures[name]).tolist() == [False, True]
    assert not np.isnan(figures["image/sensitivity"]).any()


def test_slides_are_drawn_whole():
    inputs = scene_of(1, unit=[0, 0, 0, 1, 1, 2, 2, 3])
    weights = np.array([[2.0, 0, 1, 0]])
    weighted = figures_of(Analysis(inputs, 0.4), weights)
    times = [2, 2, 2, 0, 0, 1, 1, 0]
    real = figures_of(Analysis(repeated(inputs, times)))
    for name in ("coco/AP", "voc/mAP", "comparison_detector/AR", "image/AUC", "froc_image/1"):
        assert weighted[name][0] == pytest.approx(real[name][0], abs=1e-9, nan_ok=True), name
    assert {"slide/AUC", "froc_slide/1"} <= weighted.keys()
    assert not {"slide/AUC", "froc_slide/1"} & real.keys()


def test_a_weight_is_a_repetition_of_the_slide():
    inputs = scene_of(5, unit=[0, 0, 0, 1, 1, 2, 2, 3])
    normal = np.isin(inputs.truth.image, [5, 6])  # slide 2
    inputs = inputs._replace(truth=inputs.truth._replace(label=np.where(normal, 0, inputs.truth.label)))
    weighted = figures_of(Analysis(inputs, 0.95), np.array([[3.0, 0, 1, 2]]))
    copies = repeated(inputs, [3, 3, 3, 0, 0, 1, 1, 2])
    # Six slides, so that so many false positives more are allowed than on one of each.
    copies = copies._replace(unit=np.array([0, 1, 2, 0, 1, 2, 0, 1, 2, 3, 3, 4, 5]), grouped=True)
    real = {name: values for name, values in figures_of(Analysis(copies, 0.95)).items() if "slide" in name}
    assert {"slide/AUC", "slide/sensitivity", "slide/specificity", "froc_slide/1"} <= real.keys()
    for name, values in real.items():
        assert weighted[name][0] == pytest.approx(values[0], abs=1e-9), name
    assert weighted["slide/sensitivity"][0] == pytest.approx(60)  # slide 0 of those with lesions: 3 of 5


def test_false_positives_are_counted_a_slide():
    """Two images a slide: 8 on each slide are 4 on each image."""
    figures = figures_of(Analysis(scene_of(1, unit=[0, 0, 1, 1, 2, 2, 3, 3])))
    for a_slide, an_image in (("0.25", "0.125"), ("2", "1"), ("8", "4")):
        assert figures[f"froc_slide/{a_slide}"] == figures[f"froc_image/{an_image}"]
    assert figures["froc_slide/1"] < figures["froc_image/1"] < figures["froc_image/4"]


def test_figures_of_some_images_are_those_of_a_set_of_them_alone():
    inputs = scene_of(2)
    chosen = [0, 2, 5, 6]
    some = figures_of(Analysis(of_images(inputs, chosen)))
    weighted = figures_of(Analysis(inputs), np.isin(np.arange(8), chosen)[None].astype(float))
    for name, values in some.items():
        assert values[0] == pytest.approx(weighted[name][0], abs=1e-9, nan_ok=True), name


def mean_of(values):
    return lambda weights: {"mean": weights @ values / weights.sum(axis=1)}


def test_draws_repeat_with_the_seed_and_are_shared_by_models():
    values = np.random.default_rng(0).random(30)
    first = resampled(mean_of(values), 30, 50)["mean"]
    np.testing.assert_array_equal(first, resampled(mean_of(values), 30, 50)["mean"])
    assert np.abs(first - resampled(mean_of(values), 30, 50, seed=1)["mean"]).max() > 0.01
    # The same images are drawn for both, so that a model that is better everywhere is better in every resample.
    np.testing.assert_allclose(resampled(mean_of(values + 0.1), 30, 50)["mean"] - first, 0.1)


def test_a_resample_has_as_many_units_as_there_are():
    units, samples = 7, 45  # of which 20, 20 and 5 are drawn at a time
    weights = resampled(lambda weights: {f"{number}": weights[:, number] for number in range(units)}, units, samples)
    drawn = np.stack(list(weights.values()), axis=1)
    assert drawn.shape == (samples, units)
    assert (drawn.sum(axis=1) == units).all()
    assert drawn.min() == 0
    assert drawn.mean(axis=0) == pytest.approx(np.ones(units), abs=0.5)  # its deviation is sqrt(6 / 7 / 45) = 0.14


def test_interval_is_as_wide_as_theory_says():
    values = np.random.default_rng(3).normal(10, 2, 400)
    found = interval(values.mean(), resampled(mean_of(values), 400, 2000)["mean"])
    assert found.value == values.mean()
    half = 1.96 * values.std() / 20
    assert found.low == pytest.approx(values.mean() - half, abs=0.02)
    assert found.high == pytest.approx(values.mean() + half, abs=0.02)


def test_intervals_cover_the_truth_about_as_often_as_they_say():
    rng = np.random.default_rng(0)
    covered = 0
    for repeat in range(200):
        values = rng.exponential(1, 60)
        found = interval(values.mean(), resampled(mean_of(values), 60, 200, repeat)["mean"])
        covered += found.low <= 1 <= found.high
    assert 0.88 <= covered / 200 <= 0.98


def test_drawing_cells_instead_of_slides_would_be_too_sure():
    rng = np.random.default_rng(5)
    slides = rng.normal(0, 1, 20)
    cells = np.repeat(slides, 10) + rng.normal(0, 0.1, 200)
    by_slide = interval(0.0, resampled(mean_of(cells.reshape(20, 10).mean(axis=1)), 20, 500)["mean"])
    by_cell = interval(0.0, resampled(mean_of(cells), 200, 500)["mean"])
    assert (by_slide.high - by_slide.low) / (by_cell.high - by_cell.low) == pytest.approx(np.sqrt(10), rel=0.2)


@pytest.mark.parametrize(
    ("draws", "expected"),
    [
        ([1.0] * 99, 2 / 100),  # never on the other side, but for the resample that is counted in
        ([1.0] * 95 + [-1.0] * 4, 10 / 100),
        ([1.0, -1.0] * 50, 1.0),
        ([0.0] * 9, 1.0),
        ([np.nan, 1.0, 1.0], 2 / 3),
    ],
)
def test_p_by_hand(draws, expected):
    assert two_sided_p(np.array(draws)) == pytest.approx(expected)


def test_no_interval_where_too_few_resamples_have_a_number():
    assert np.isnan(interval(1.0, np.array([1.0, np.nan, np.nan]))[1:]).all()
    assert interval(1.0, np.array([1.0, 1.0, np.nan])).low == 1
    assert np.isnan(interval(np.nan, np.ones(5))).all()
