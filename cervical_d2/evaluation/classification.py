"""The figures of a classifier, for the images as they are and for any resample; docs/classifier.md defines them.

I images in U units (slides or patients, otherwise the images themselves); K classes; S weightings of the units.
Figures are in percent; NaN where there is nothing to be measured.
"""

from collections.abc import Mapping, Sequence
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


def class_rates(matrix: Floats) -> dict[str, Floats]:
    """(..., K) each: every class against all others, from `matrix` (..., K, K), rows the truth, columns the answer.

    The last three are what 3cDe-Net's words define as sensitivity, specificity and H-mean: "the proportion of correct
    images among all predicted" ones are the positive and the negative predictive value.
    """
    hit = np.diagonal(matrix, axis1=-2, axis2=-1)
    missed, alarm = matrix.sum(axis=-1) - hit, matrix.sum(axis=-2) - hit
    passed = matrix.sum(axis=(-2, -1))[..., None] - hit - missed - alarm
    sensitivity, specificity = _share(hit, hit + missed), _share(passed, passed + alarm)
    predictive, negative_predictive = _share(hit, hit + alarm), _share(passed, passed + missed)
    return {
        "sensitivity": sensitivity,
        "specificity": specificity,
        "h_mean": _harmonic(sensitivity, specificity),
        "f1": _share(2 * hit, 2 * hit + missed + alarm),
        "paper_sensitivity": predictive,
        "paper_specificity": negative_predictive,
        "paper_h_mean": _harmonic(predictive, negative_predictive),
    }


def named_figures(answers: Answers, matrix: Floats, auroc: Floats) -> dict[str, Floats]:
    """All figures by name, (...) each, from `matrix` (..., K, K) and `auroc` (..., K) in percent.

    accuracy; for two classes RATE of the positive one; macro_RATE, the mean over the classes that have images;
    RATE-CLASS.
    """
    rates = class_rates(matrix) | {"auroc": auroc}
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
    found = named_figures(answers, confusion(answers).astype(float), np.array(auroc))
    return {name: float(value) for name, value in found.items()}


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
        found = [part(weight) for part, weight in zip(parts, np.split(weights, ends, axis=1), strict=True)]
        return {name: np.mean([each[name] for each in found], axis=0) for name in found[0]}

    return figures
