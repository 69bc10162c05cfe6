"""What came out of the folds of a cross-validation: mean, standard deviation, and the interval of the mean.

The deviation says what another fold would give; the interval what the mean could have been with other images, or slides
where these are known: they are resampled, and the trainings are not.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import stdev
from typing import Any, NamedTuple

import numpy as np

from cervical_d2.errors import UserError
from cervical_d2.evaluation.bootstrap import LEVEL, SAMPLES, Interval, interval, resampled
from cervical_d2.evaluation.classification import OF_CLASSES, Answers, confusion, mean_of_folds, measured
from cervical_d2.evaluation.classification_evaluator import Answered
from cervical_d2.evaluation.matching import Ints
from cervical_d2.files import check_output, plain, record_output, write_json, write_text

COMMAND = "train-classifier"
SUMMARIES = ("summary.md", "summary.json")


class Summary(NamedTuple):
    """`folds`: the values of each figure, and `means` with their intervals; `matrix` (K, K) is of all images."""

    names: list[str]
    answers: list[Answers]
    folds: dict[str, list[float]]
    means: dict[str, Interval]
    matrix: Ints

    def deviation(self, name: str) -> float:
        """Over the folds, NaN for one."""
        values = self.folds[name]
        return stdev(values) if len(values) > 1 else float("nan")


def summarize(names: Sequence[str], answered: Sequence[Answered], samples: int = SAMPLES, seed: int = 0) -> Summary:
    """Of the folds `names` and what was answered in them.

    Raises:
        UserError: folds of different classes.
    """
    answers = [fold.answers for fold in answered]
    if other := [name for name, fold in zip(names, answers, strict=True) if fold.classes != answers[0].classes]:
        raise UserError(f"{other[0]}: of other classes than {names[0]}; summarize folds of one division")
    values = [measured(fold) for fold in answers]
    folds = {name: [each[name] for each in values] for name in values[0]}
    draws = resampled(mean_of_folds(answers), sum(fold.units for fold in answers), samples, seed)
    means = {name: interval(float(np.mean(each)), draws[name]) for name, each in folds.items()}
    return Summary(list(names), answers, folds, means, np.sum([confusion(fold) for fold in answers], axis=0))


def spelled_mean(summary: Summary, name: str) -> str:
    """`95.2 ± 1.1`, without a deviation for one fold."""
    deviation = summary.deviation(name)
    return f"{summary.means[name].value:.1f}" + ("" if np.isnan(deviation) else f" ± {deviation:.1f}")


def markdown(summary: Summary, title: str, warning: str = "") -> str:
    """Every figure of all classes together, those of each class, and the confusion matrix; a `warning` comes first."""
    first = summary.answers[0]
    images = ", ".join(f"{name} {len(fold.label)}" for name, fold in zip(summary.names, summary.answers, strict=True))
    positive = (
        f" Sensitivity and the like are of {first.classes[first.positive]}." if first.positive is not None else ""
    )
    lines = [f"# {title}", "", *([f"**{warning}**", ""] if warning else [])]
    parts = summary.names if len(summary.names) > 1 else []  # a single one is the mean itself
    unit = "In %, mean ± standard deviation of the folds." if parts else "In %."
    lines += [f"Images tested: {images}. {unit}{positive}", ""]
    overall = {name: interval for name, interval in summary.means.items() if "-" not in name}
    lines += _table(
        ["figure", "mean" if parts else "value", f"{LEVEL} %", *parts],
        [
            [name, spelled_mean(summary, name), interval.text(),
             *(f"{value:.1f}" for value in summary.folds[name] if parts)]
            for name, interval in overall.items()
        ],
    )  # fmt: skip
    lines += _table(
        ["class", *OF_CLASSES],
        [[label, *(spelled_mean(summary, f"{rate}-{label}") for rate in OF_CLASSES)] for label in first.classes],
    )
    lines += [f"{'All folds together; r' if parts else 'R'}ows are the truth, columns the answer:", ""]
    rows = [[label, *map(str, row)] for label, row in zip(first.classes, summary.matrix.tolist(), strict=True)]
    return "\n".join([*lines, *_table(["", *first.classes], rows)]).rstrip() + "\n"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return ["| " + " | ".join(row) + " |" for row in (header, ["---"] * len(header), *rows)] + [""]


def document(summary: Summary, about: Mapping[str, Any]) -> dict[str, Any]:
    """For JSON, NaN as None; `about` comes first."""
    figures = {
        name: {
            "folds": summary.folds[name],
            "mean": interval.value,
            "std": summary.deviation(name),
            "low": interval.low,
            "high": interval.high,
        }
        for name, interval in summary.means.items()
    }
    first = summary.answers[0]
    images = [len(fold.label) for fold in summary.answers]
    return {
        **about,
        "folds": summary.names,
        "images": images,
        "classes": list(first.classes),
        "positive": None if first.positive is None else first.classes[first.positive],
        "figures": plain(figures, digits=6),
        "confusion": summary.matrix.tolist(),
    }


def write_summary(folder: Path, summary: Summary, title: str, about: Mapping[str, Any], warning: str = "") -> str:
    """Write summary.md and summary.json into `folder`; returns the text. Raises `UserError` if there are others."""
    text = markdown(summary, title, warning)
    check_output(folder, COMMAND, only=SUMMARIES)
    record_output(folder, COMMAND, SUMMARIES)
    write_text(folder / SUMMARIES[0], text)
    write_json(folder / SUMMARIES[1], document(summary, about), indent=1)
    return text
