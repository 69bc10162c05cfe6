"""The figures of a classifier as sections of a report page."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.metrics import roc_curve

from cervical_d2.engine.run_folder import RunFolder
from cervical_d2.evaluation.bootstrap import LEVEL
from cervical_d2.evaluation.classification import OF_CLASSES, SHOWN
from cervical_d2.evaluation.classification_evaluator import TASK
from cervical_d2.evaluation.cross_validation import Summary, spelled_mean
from cervical_d2.report.axes import GRAY, RGB, in_legend, panels
from cervical_d2.report.page import Card, Cards, Chart, Matrix, Section
from cervical_d2.report.run_comparison import FEW
from cervical_d2.report.tables import Table

MEANINGS = {"accuracy": "correct answers among all images", **{rate.name: rate.meaning for rate in SHOWN}}
CARDS = ("accuracy", *(rate.name for rate in SHOWN if rate.section == "summary"))
STYLES = ("-", "--", "-.", ":")


def cell_sections(summary: Summary, runs: Sequence[RunFolder]) -> list[Section]:
    """All sections but the examples and the settings."""
    parts = (_summary(summary), _figures(summary), _classes(summary), _confusion(summary), _roc(summary))
    return [*parts, *_learning(runs)]


def _main(summary: Summary, name: str) -> str:
    """The key of the main figure for `name`: of the positive class if there is one, else the mean over the classes."""
    return name if name in summary.means else f"macro_{name}"


def _about(summary: Summary) -> str:
    first = summary.answers[0]
    if first.positive is not None:
        return f"Sensitivity, F1 and the like are those of {first.classes[first.positive]}."
    return "Sensitivity, F1 and the like: each class against all others, mean of the classes."


def _summary(summary: Summary) -> Section:
    images = sum(len(fold.label) for fold in summary.answers)
    cards = [
        Card(name.replace("_", "-"), f"{spelled_mean(summary, key)} %", summary.means[key].text(),
             MEANINGS[name])
        for name in CARDS
        for key in (_main(summary, name),)
        if not np.isnan(summary.means[key].value)
    ]  # fmt: skip
    several = len(summary.names) > 1
    folds = f" in {len(summary.names)} folds, each tested once: mean ± standard deviation" if several else ""
    unit = "slides" if summary.answers[0].grouped else "images"
    note = (
        f"{images} images{folds}. {_about(summary)} Below each figure is its {LEVEL} % confidence interval, from "
        f"resampling {unit}."
    )
    return Section("summary", "Summary", note, [Cards(cards)])


def _figures(summary: Summary) -> Section:
    rows: list[list[Any]] = []
    for name, meaning in MEANINGS.items():
        for key in dict.fromkeys((_main(summary, name), f"macro_{name}")):
            if key in summary.means:
                mean = summary.means[key]
                row = [key, meaning, mean.value, summary.deviation(key), mean.text()]
                rows.append([*row, *summary.folds[key]] if len(summary.names) > 1 else row)
    header = ["figure", "definition", "mean", "sd", f"{LEVEL} %"] + (summary.names if len(summary.names) > 1 else [])
    note = (
        "In %. macro_: each class against all others, mean of the classes. What 3cDe-Net's text defines as sensitivity "
        'and specificity ("the proportion of correct images among all predicted" ones) is usually called precision; '
        "both are given."
    )
    return Section("figures", "Figures and definitions", note, [Table("", "", header, rows)])


def _classes(summary: Summary) -> Section:
    classes = summary.answers[0].classes
    counts = np.bincount(np.concatenate([fold.label for fold in summary.answers]), minlength=len(classes))
    rows = []
    for number, label in enumerate(classes):
        cells: list[Any] = [label, int(counts[number])]
        for rate in OF_CLASSES:
            cells += [spelled_mean(summary, f"{rate}-{label}"), summary.means[f"{rate}-{label}"].text()]
        rows.append(cells)
    header = ["class", "images"] + [word for rate in OF_CLASSES for word in (rate, f"{LEVEL} %")]
    return Section("classes", "Classes", "Each class against all others, in %.", [Table("", "", header, rows)])


def _confusion(summary: Summary) -> Section:
    classes = summary.answers[0].classes
    note = "Rows: true class. Columns: predicted class, the one with the highest score."
    if len(summary.names) > 1:
        note += " All folds together: every image once, predicted by the model that was not trained on it."
    matrix = Matrix("", "", classes, classes, summary.matrix.tolist(), "truth", "answer")
    return Section("confusion", "Confusion matrix", note, [matrix])


def _roc(summary: Summary) -> Section:
    figure, (ax,) = panels(1, 4.2)
    ax.plot([0, 1], [0, 1], ":", color=GRAY, label="by chance")
    for number, (name, label, score) in enumerate(_lines(summary)):
        if 0 < label.sum() < len(label):
            false, true, _ = roc_curve(label, score)
            color, style = RGB[number % len(RGB)], STYLES[number % len(STYLES)]
            ax.plot(false, true, label=in_legend(name), color=color, linestyle=style)
    ax.set(xlabel="false positive rate", ylabel="true positive rate", xlim=(0, 1.01), ylim=(0, 1.02))
    ax.grid(alpha=0.3)
    ax.legend(loc="lower right", fontsize=8)
    note = "All thresholds on the score of a class."
    return Section("roc", "ROC", note, [Chart("roc", "", "", figure)])


def _lines(summary: Summary) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """(name, bool (I,), scores (I,)) of each ROC curve: one per fold with a positive class, else one per class."""
    positive = summary.answers[0].positive
    if positive is not None:
        for name, fold in zip(summary.names, summary.answers, strict=True):
            yield name, fold.label == positive, fold.scores[:, positive]
        return
    label, scores = (np.concatenate([getattr(fold, key) for fold in summary.answers]) for key in ("label", "scores"))
    for number, name in enumerate(summary.answers[0].classes):
        yield name, label == number, scores[:, number]


def _learning(runs: Sequence[RunFolder]) -> list[Section]:
    """Loss and accuracy of training and validation, as in Figure 8 of 3cDe-Net; [] without a training."""
    figure, (loss, accuracy) = panels(2, 3.6)
    for number, run in enumerate(runs):
        curves = ((loss, "total_loss", ":"), (loss, "validation/total_loss", "-"), (accuracy, "train_accuracy", ":"),
                  (accuracy, _accuracy_key(run), "-"))  # fmt: skip
        for ax, key, style in curves:
            points = [(line["iteration"] + 1, line[key]) for line in run.metrics if key in line]
            if points:
                what = "training" if style == ":" else "validation"
                name = f"{Path(run.name).name}, {what}" if len(runs) > 1 else what
                (drawn,) = ax.plot(*zip(*points, strict=True), style, color=RGB[number % len(RGB)], label=name)
                drawn.set_marker("." if len(points) < FEW else "")
    if not (loss.lines or accuracy.lines):
        return []
    for ax, name in ((loss, "loss"), (accuracy, "accuracy, %")):
        ax.set(xlabel="iterations", ylabel=name)
        ax.grid(alpha=0.3)
    loss.set_ylim(bottom=0)
    (loss if len(runs) == 1 else accuracy).legend(fontsize=7, ncols=1 if len(runs) < 3 else 2)
    note = (
        "Training: median of 20 iterations, with dropout and augmentation. Validation: first test split, without them."
    )
    return [Section("learning", "Learning curves", note, [Chart("learning", "", "", figure)])]


def _accuracy_key(run: RunFolder) -> str:
    """The key of the accuracy in metrics.json. With several test splits it starts with the name of the split."""
    test = run.cfg.DATASETS.TEST
    return f"{TASK}/accuracy" if len(test) < 2 else f"{test[0]}/{TASK}/accuracy"
