"""The figures of an evaluation as sections of a page, each with its interval."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from cervical_d2.evaluation.analysis import Analysis
from cervical_d2.evaluation.bootstrap import LEVEL, Measured
from cervical_d2.evaluation.confusion import confusion_matrix
from cervical_d2.evaluation.error_types import IGNORED, KINDS, error_table
from cervical_d2.evaluation.figures import FEW, figure_of, title_of
from cervical_d2.evaluation.froc import RATES, operation_at
from cervical_d2.evaluation.protocols import HEADER, PROTOCOLS, protocol_rows
from cervical_d2.report.evaluation_plots import (
    LESIONS,
    error_figure,
    froc_figure,
    precision_recall_figure,
    reliability_figure,
    roc_figure,
)
from cervical_d2.report.page import Card, Cards, Chart, Item, Matrix, Section
from cervical_d2.report.tables import Table

WANTED = (0.5, 0.7, 0.8, 0.9, 0.95)  # sensitivities for which thresholds are told
CARDS = {
    "coco/mAP": ("mAP", "average precision at an IoU of 0.5, mean of the classes: what the papers call mAP"),
    "coco/AR": ("AR", "share of cells found at any score, mean of the classes: what the papers call AR"),
    "coco/AP": ("COCO AP", "mean over IoUs of 0.50 to 0.95, a stricter measure of the boxes"),
    "froc_image/1": ("Sensitivity at 1 false positive", "{} found at one false positive per image on average"),
    "slide/AUC": ("AUC of slides", "how well the highest score separates abnormal from normal slides"),
    "image/AUC": ("AUC of images", "how well the highest score separates abnormal from normal images"),
    "calibration/ECE": ("Calibration error", "mean gap between the score and the fraction of correct detections"),
}
"""Headline figures: title, and a note in which {} stands for what is to be found."""
PLACED = (
    "coco/AP", "AP/{class}", "AP50/{class}", "recall50/{class}", "froc/{class}", "froc_image/{rate}",
    "froc_slide/{rate}", "calibration/ECE", "severity/cost", "recall_by_size/{size}", "recall_by_crowding/{neighbors}",
    *(f"{unit}/{name}" for unit in ("image", "slide") for name in ("AUC", "sensitivity", "specificity")),
    *(f"{protocol.name}/{name}" for protocol in PROTOCOLS for name in ("mAP", "AR")),
)  # fmt: skip
"""Rows of `FIGURES` that a section shows in its own way; others follow in a table below the section that they name."""


class EvaluatedModel(NamedTuple):
    """One model on one dataset."""

    analysis: Analysis
    measured: Measured

    @property
    def lesion(self) -> str:
        """What cells of the classes that count as lesions are called."""
        return LESIONS[bool(self.analysis.inputs.severity.known.any())]


def sections(subject: EvaluatedModel) -> list[Section]:
    """All of one model's."""
    made = (_summary, _classes, _lesions, _units, _mistakes, _scores, _strata, _protocols)
    parts = [section for make in made if (section := make(subject))]
    return [part._replace(items=[*part.items, *_others(subject, part.name)]) for part in parts]


def _others(subject: EvaluatedModel, section: str) -> list[Table]:
    """The figures whose row names `section`, and that it does not place itself."""
    rows: list[list[Any]] = []
    for name, value in subject.measured.figures.items():
        figure = figure_of(name)
        if figure and figure.section == section and figure.name not in PLACED:
            title = " ".join(filter(None, (title_of(name) or name, figure.unit and f"({figure.unit})")))
            rows.append([title, value, subject.measured.spread(name, 2)])
    return [Table("More figures", "", ["figure", "value", f"{LEVEL} %"], rows)] if rows else []


def _summary(subject: EvaluatedModel) -> Section:
    inputs = subject.analysis.inputs
    truths = int((~(inputs.truth.crowd | inputs.truth.ignore)).sum())
    unit = f"{inputs.units} slides" if inputs.grouped else f"{len(inputs.unit)} images"
    cards = []
    for name, (title, note) in CARDS.items():
        value = subject.measured.figures.get(name, float("nan"))
        if not np.isnan(value):
            interval = subject.measured.interval(name).text()
            cards.append(Card(title, f"{value:.1f} %", interval, note.format(subject.lesion)))
    return Section(
        "summary",
        "Summary",
        f"{len(inputs.unit)} images, {truths:,} labeled cells, {len(inputs.detections.score):,} detections. "
        f"Below each figure is its {LEVEL} % confidence interval: the range to expect with other {unit} of this kind.",
        [Cards(cards)],
    )


def _classes(subject: EvaluatedModel) -> Section:
    inputs, measured = subject.analysis.inputs, subject.measured
    rows: list[list[Any]] = []
    counted = ~(inputs.truth.crowd | inputs.truth.ignore)
    for label, name in enumerate(inputs.classes):
        cells: list[Any] = [name, int((inputs.truth.label[counted] == label).sum())]
        for figure in ("AP50", "recall50", "AP", "froc"):
            cells += [measured.figures[f"{figure}/{name}"], measured.spread(f"{figure}/{name}")]
        rows.append(cells)
    header = ["class", "cells", "AP50", f"{LEVEL} %", "recall", f"{LEVEL} %", "AP", f"{LEVEL} %", "FROC", f"{LEVEL} %"]
    note = "In %. Recall: cells found at any score. FROC: mean sensitivity at 1/8 to 8 false positives per image."
    if measured.warnings:
        note += f" Intervals of classes in fewer than {FEW} images or slides, which are marked, are too narrow."
    chart = Chart("precision-recall", "Precision and recall", "At an IoU of 0.5; the area under a line is its AP50.",
                  precision_recall_figure(subject.analysis))  # fmt: skip
    return Section("classes", "Classes", note, [Table("", "", header, rows), chart])


def _lesions(subject: EvaluatedModel) -> Section:
    analysis, measured = subject.analysis, subject.measured
    names = [
        name for name, grave in zip(analysis.inputs.classes, analysis.inputs.severity.abnormal, strict=True) if grave
    ]
    rates: list[list[Any]] = []
    for unit in analysis.units:
        for rate in RATES:
            interval = measured.interval(f"froc_{unit}/{rate:g}")
            rates.append([f"{rate:g} / {unit}", interval.value, interval.text()])
    operations = [[f"{100 * wanted:g} %", *_operation(analysis, wanted)] for wanted in WANTED]
    matched = (
        f"a detection matches if its center is within {analysis.inputs.radius:g} px of the labeled center"
        if (analysis.inputs.radius)
        else "a detection matches at an IoU of 0.5 or more"
    )
    return Section(
        "lesions",
        f"Finding {subject.lesion}",
        f"All of {', '.join(names)} as one class, whatever class is predicted; {matched}.",
        [
            Chart("froc", "Sensitivity and false positives", f"With {LEVEL} % intervals at the seven usual rates.",
                  froc_figure(analysis, measured)),
            Table("Sensitivity at a rate of false positives", "FROC, in %",
                  ["false positives", "sensitivity", f"{LEVEL} %"], rates),
            Table("Threshold for a sensitivity", "Chosen on these images; expect slightly worse results on new ones.",
                  ["wanted", "score from", "reached, %", "precision, %", "false positives / image"], operations),
        ],
    )  # fmt: skip


def _operation(analysis: Analysis, wanted: float) -> Iterator[float]:
    point = operation_at(analysis.lesions, len(analysis.inputs.unit), wanted)
    return iter((point.threshold, 100 * point.sensitivity, 100 * point.precision, point.false_positives))


def _units(subject: EvaluatedModel) -> Section | None:
    analysis, measured = subject.analysis, subject.measured
    both = [name for name, units in analysis.units.items() if 0 < units.positive.sum() < len(units.positive)]
    if not both:
        return None
    rows: list[list[Any]] = []
    for name in both:
        units = analysis.units[name]
        cells: list[Any] = [f"{name}s", int(units.positive.sum()), int((~units.positive).sum())]
        for figure in ("AUC", "sensitivity", "specificity"):
            cells += [measured.figures[f"{name}/{figure}"], measured.interval(f"{name}/{figure}").text()]
        rows.append(cells)
    header = ["", "abnormal", "normal", "AUC", f"{LEVEL} %", "sensitivity", f"{LEVEL} %", "specificity", f"{LEVEL} %"]
    return Section(
        "units",
        "Abnormal or normal: " + " and ".join(f"{name}s" for name in both),
        f"Predicted abnormal if an abnormal class is detected with a score of {analysis.score:g} or more. In %.",
        [
            Table("", "", header, rows),
            Chart("roc", "ROC", "All thresholds; the dot is this score.", roc_figure(analysis)),
        ],
    )


def _mistakes(subject: EvaluatedModel) -> Section:
    analysis = subject.analysis
    inputs, measured = analysis.inputs, subject.measured
    names = [*inputs.classes, "background"]
    items: list[Item] = []
    matrix = confusion_matrix(analysis.calls, len(inputs.classes)).tolist()
    note = "Rows: ground truth. Columns: prediction. Column background: missed cells. Row background: false positives."
    items.append(Matrix("Confusion matrix", note, names, names, matrix, "truth", "prediction"))
    if "severity/cost" in measured.figures:
        cost = measured.interval("severity/cost")
        items.append(
            Table(
                "Cost",
                "Mistakes weighted by severity (severity.yaml), per labeled cell; 0 is best.",
                ["cost per cell", f"{LEVEL} %"],
                [[cost.value, cost.text(2)]],
            )
        )
    table = error_table(analysis.errors, inputs.truth, inputs.detections, analysis.score, len(inputs.classes))
    header = ["class", *KINDS[:IGNORED], "missed"]
    items += [
        Table("Kinds of mistakes", "Localization: right class, poor box (IoU 0.1 to 0.5). Class: on a cell of another. "
              "Duplicate: a second detection of a cell. Both: wrong class and poor box. Missed: no detection.",
              header, [[name, *row] for name, row in zip(inputs.classes, table.tolist(), strict=True)]),
        Chart("errors", "Mistakes by class", "", error_figure(analysis)),
    ]  # fmt: skip
    return Section("mistakes", "Mistakes", f"Detections with a score of {analysis.score:g} or more.", items)


def _scores(subject: EvaluatedModel) -> Section:
    error = subject.measured.figures["calibration/ECE"]
    note = (
        "If scores were probabilities, eight of ten detections with a score of 0.8 would be correct. Expected "
        f"calibration error: {error:.1f} %. It has no interval, because chance alone increases it, more so with few "
        "detections."
    )
    chart = Chart("reliability", "Reliability diagram", "Left: bars on the dotted line are well calibrated. "
                  "Right: how many detections there are.", reliability_figure(subject.analysis))  # fmt: skip
    return Section("scores", "Calibration", note, [chart])


def _strata(subject: EvaluatedModel) -> Section:
    measured = subject.measured
    rows = []
    for name in measured.figures:
        group, _, leaf = name.partition("/")
        if group.startswith("recall_by_"):
            recall = measured.interval(name)
            rows.append([group.removeprefix("recall_by_"), leaf, recall.value, recall.text()])
    note = (
        f"Cells found with a score of {subject.analysis.score:g} or more, in %. Small: up to 32 x 32 px, large: from "
        "96 x 96 px, as in COCO. Neighbors: cells of any class whose boxes overlap."
    )
    return Section("strata", "Size and crowding", note, [Table("", "", ["by", "", "recall", f"{LEVEL} %"], rows)])


def _protocols(subject: EvaluatedModel) -> Section:
    measured = subject.measured
    rows = protocol_rows(measured.figures, subject.analysis.inputs.classes)
    note = (
        "The same detections under the protocols that papers use without naming them. Compare a figure only "
        "with figures of its own row."
    )
    return Section("protocols", "mAP and AR by protocol", note, [Table("", "", list(HEADER), rows)])
