"""The figures of a classifier, for the images as they are and for any resample; docs/classifier.md defines them.

I images in U units (slides or patients, otherwise the images themselves); K classes; S weightings of the units.
Figures are in percent; NaN where there is nothing to be measured.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from sklearn.metrics import confusion_matrix, roc_auc_score

from cervical_d2.evaluation.bootstrap import Statistic
from cervical_d2.evaluation.matching import Floats, Ints
from cervical_d2.evaluation.units import Units, area_under_roc


class Answers(NamedTuple):
    """What a classifier said of a split. `positive`: the class that sensitivity is about, None for other than two."""

    classes: Sequence[str]
    label: Ints  # (I,)
    scores: Floats  # (I, K) of sum 1
    unit: Ints  # (I,) from 0 without a gap
    grouped: bool
    positive: int | None

    @property
    def called(self) -> Ints:
        """(I,) the class of the highest score, of equal ones the first."""
        return self.scores.argmax(axis=1)

    @property
    def units(self) -> int:
        """U."""
        return int(self.unit.max(initial=-1)) + 1


def _share(part: Floats, whole: Floats) -> Floats:
    return 100 * part / np.where(whole > 0, whole, np.nan)


def _harmonic(one: Floats, other: Floats) -> Floats:
    """The harmonic mean, 0 where both are 0."""
    total = one + other
    return 2 * one * other / np.where(total == 0, 1, total)


class Counts(NamedTuple):
    """Images of every class against all others, (..., K) each, and the area under its ROC in percent."""

    hit: Floats
    missed: Floats
    alarm: Floats
    passed: Floats
    auroc: Floats


class Rate(NamedTuple):
    """A figure of one class against all others, in percent; more is better."""

    name: str
    meaning: str
    compute: Callable[[Counts], Floats]
    section: str  # the first of the page's that shows it: "summary", "classes" or "figures"


def _sensitivity(of: Counts) -> Floats:
    return _share(of.hit, of.hit + of.missed)


def _specificity(of: Counts) -> Floats:
    return _share(of.passed, of.passed + of.alarm)


def _predictive_value(of: Counts) -> Floats:
    return _share(of.hit, of.hit + of.alarm)


def _negative_predictive_value(of: Counts) -> Floats:
    return _share(of.passed, of.passed + of.missed)


# 3cDe-Net's words define sensitivity and specificity as "the proportion of correct images among all predicted" ones,
# which are the positive and the negative predictive value.
RATES = (
    Rate("sensitivity", "TP / (TP + FN): those found of the images of the class", _sensitivity, "summary"),
    Rate("specificity", "TN / (TN + FP): those let pass of all other images", _specificity, "summary"),
    Rate("h_mean", "harmonic mean of sensitivity and specificity",
         lambda of: _harmonic(_sensitivity(of), _specificity(of)), "summary"),
    Rate("f1", "2 TP / (2 TP + FP + FN)", lambda of: _share(2 * of.hit, 2 * of.hit + of.missed + of.alarm), "summary"),
    Rate("paper_sensitivity", "TP / (TP + FP), in 3cDe-Net's words sensitivity; the literature's precision",
         _predictive_value, "classes"),
    Rate("paper_specificity", "TN / (TN + FN), in 3cDe-Net's words specificity; the negative predictive value",
         _negative_predictive_value, "classes"),
    Rate("paper_h_mean", "harmonic mean of these two",
         lambda of: _harmonic(_predictive_value(of), _negative_predictive_value(of)), "figures"),
    Rate("auroc", "how often an image of the class has a higher score for it than another image",
         lambda of: of.auroc, "summary"),
)  # fmt: skip
"""In the order of results. A new rate is a row here: results, texts, summaries and the page have it from this table."""
SHOWN = sorted(RATES, key=lambda rate: rate.section != "summary")
"""In the order of pages."""
OF_CLASSES = tuple(rate.name for rate in SHOWN if rate.section != "figures")
"""Columns of tables of classes."""


def class_rates(matrix: Floats, auroc: Floats) -> dict[str, Floats]:
    """Every one of `RATES`, (..., K) each, from `matrix` (..., K, K), rows the truth, columns the answer."""
    hit = np.diagonal(matrix, axis1=-2, axis2=-1)
    missed, alarm = matrix.sum(axis=-1) - hit, matrix.sum(axis=-2) - hit
    passed = matrix.sum(axis=(-2, -1))[..., None] - hit - missed - alarm
    counts = Counts(hit, missed, alarm, passed, auroc)
    return {rate.name: rate.compute(counts) for rate in RATES}


def named_figures(answers: Answers, matrix: Floats, auroc: Floats) -> dict[str, Floats]:
    """All figures by name, (...) each, from `matrix` (..., K, K) and `auroc` (..., K) in percent.

    accuracy; for two classes RATE of the positive one; macro_RATE, the mean over the classes that have images;
    RATE-CLASS.
    """
    rates = class_rates(matrix, auroc)
    figures = {"accuracy": _share(np.trace(matrix, axis1=-2, axis2=-1), matrix.sum(axis=(-2, -1)))}
    if answers.positive is not None:
        figures |= {name: values[..., answers.positive] for name, values in rates.items()}
    present = np.isin(np.arange(len(answers.classes)), answers.label)
    figures |= {f"macro_{name}": values[..., present].mean(axis=-1) for name, values in rates.items()}
    for number, label in enumerate(answers.classes):
        figures |= {f"{name}-{label}": values[..., number] for name, values in rates.items()}
    return figures


def confusion(answers: Answers) -> Ints:
    """(K, K) images: rows are the truth, columns the answer."""
    return confusion_matrix(answers.label, answers.called, labels=np.arange(len(answers.classes)))


def measured(answers: Answers) -> dict[str, float]:
    """The figures of the images as they are, by scikit-learn."""
    auroc = [_auroc(answers.label == number, answers.scores[:, number]) for number in range(len(answers.classes))]
    figures = named_figures(answers, confusion(answers).astype(float), np.array(auroc))
    return {name: float(value) for name, value in figures.items()}


def _auroc(positive: np.ndarray, score: Floats) -> float:
    return 100 * float(roc_auc_score(positive, score)) if 0 < positive.sum() < len(positive) else float("nan")


def statistic(answers: Answers) -> Statistic:
    """The same figures under weights (S, U), for resamples: scikit-learn takes some ms for each weighting and class."""
    size = len(answers.classes)
    cell = answers.label * size + answers.called
    places = np.eye(size * size)[cell]

    def figures(weights: Floats) -> Mapping[str, Floats]:
        of_images = weights[:, answers.unit]
        matrix = (of_images @ places).reshape(-1, size, size)
        areas = [
            100 * area_under_roc(Units(answers.label == number, answers.scores[:, number]), of_images)
            for number in range(size)
        ]
        return named_figures(answers, matrix, np.stack(areas, axis=-1))

    return figures


def mean_of_folds(folds: Sequence[Answers]) -> Statistic:
    """The mean over the folds of each figure, under weights (S, U) of the units of all folds one after another.

    A figure that some fold cannot have is NaN there. Units differ between folds, as no group is divided.
    """
    parts = [statistic(fold) for fold in folds]
    ends = np.cumsum([fold.units for fold in folds])[:-1]

    def figures(weights: Floats) -> Mapping[str, Floats]:
        folds = [part(weight) for part, weight in zip(parts, np.split(weights, ends, axis=1), strict=True)]
        return {name: np.mean([fold[name] for fold in folds], axis=0) for name in folds[0]}

    return figures
