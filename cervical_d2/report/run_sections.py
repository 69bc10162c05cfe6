"""What a report tells of the runs behind it: how they learned, their anchors, settings, code and machine."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from detectron2.data import DatasetCatalog, MetadataCatalog

from cervical_d2.anchors.grid import fit_anchors
from cervical_d2.curation.statistics import arrays_of
from cervical_d2.errors import UserError
from cervical_d2.report.anchor_plot import anchor_figure
from cervical_d2.report.page import Chart, Section, Text
from cervical_d2.report.run_comparison import Run, comparison, curves, has_curves, read_run
from cervical_d2.report.summary import split_statistics


class Evaluated(NamedTuple):
    """Predictions, what they are called, and the run that they are of, if any."""

    name: str
    predictions: Path
    run: Path | None = None


def evaluated(source: Path, dataset: str) -> Evaluated:
    """`source`: OUTPUT_DIR of a training, or a file of predictions.

    Raises:
        UserError: there is neither.
    """
    if source.is_file():
        return Evaluated(source.stem, source)
    predictions = source / "evaluation" / dataset / "predictions.json"
    if not predictions.is_file():
        raise UserError(
            f"{predictions}: no such file; evaluate first (cervical-d2 evaluate with OUTPUT_DIR {source}), "
            "or name a JSON file of predictions"
        )
    return Evaluated(source.resolve().name, predictions, source)


def run_sections(sources: Sequence[Evaluated], dataset: str) -> list[Section]:
    """Of all runs among `sources`; the first one's settings."""
    folders = [item.run for item in sources if item.run and (item.run / "config.yaml").is_file()]
    runs = [read_run(folder) for folder in folders]
    if not runs:
        return []
    return [
        section
        for section in (_learning(runs), _anchors(runs[0], dataset), settings_section(runs, folders[0]))
        if section
    ]


def _learning(runs: Sequence[Run]) -> Section | None:
    if not has_curves(runs):
        return None
    note = "The loss of training and of validation, and the figures of each evaluation on the way."
    return Section("learning", "Learning curves", note, [Chart("learning", "", "", curves(runs))])


def _anchors(run: Run, dataset: str) -> Section:
    boxes = arrays_of(dataset, MetadataCatalog.get(dataset).thing_classes, DatasetCatalog.get(dataset))
    subject = split_statistics(boxes, fit_anchors(boxes, run.cfg))
    note = "Boxes at the size of the test among the anchors of the config, and how well the best one fits by shape."
    return Section("anchors", "Anchors and boxes", note, [Chart("anchors", "", "", anchor_figure([subject]))])


def settings_section(runs: Sequence[Run], folder: Path) -> Section:
    """Starts and differences of `runs`; the config in `folder`, and the machine of the first."""
    items = [Text("What was run", "Starts, what differs between runs, last figures.", comparison(runs))]
    items.append(
        Text("Configuration", "config.yaml, resolved: it repeats the run.", (folder / "config.yaml").read_text())
    )
    if runs[0].starts:
        items.append(Text("Environment", "run.json: the last start.", json.dumps(runs[0].starts[-1], indent=1)))
    return Section("run", "Configuration and environment", "", items)
