"""Report sections about the runs: learning curves, anchors, settings, code and machine."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from cervical_d2.anchors.grid import fit_anchors
from cervical_d2.curation.statistics import arrays_of
from cervical_d2.engine.run_folder import RunFolder
from cervical_d2.evaluation.ground_truth import open_split
from cervical_d2.report.anchor_plot import anchor_figure
from cervical_d2.report.page import Chart, Section, Text
from cervical_d2.report.run_comparison import comparison, curves, has_curves
from cervical_d2.report.summary import split_statistics


class Evaluated(NamedTuple):
    """Predictions with their name, and their run, if any."""

    name: str
    predictions: Path
    run: RunFolder | None = None

    @property
    def place(self) -> Path:
        """What the user named: the run's folder, or the file."""
        return self.run.path if self.run else self.predictions


def evaluated(source: Path | RunFolder, dataset: str) -> Evaluated:
    """The predictions of `source`, the OUTPUT_DIR of a run or a file of predictions, on a registered split.

    Raises:
        UserError: `source` has no predictions.
    """
    if isinstance(source, Path) and source.is_file():
        return Evaluated(source.stem, source)
    run = source if isinstance(source, RunFolder) else RunFolder(source)
    predictions = run.evaluated(dataset, otherwise=", or name a JSON file of predictions")
    return Evaluated(run.path.resolve().name, predictions, run)


def run_sections(sources: Sequence[Evaluated], dataset: str) -> list[Section]:
    """Sections for all runs among `sources`. The anchors and settings are those of the first run."""
    runs = [item.run for item in sources if item.run and item.run.exists]
    if not runs:
        return []
    return [section for section in (_learning(runs), _anchors(runs[0], dataset), settings_section(runs)) if section]


def _learning(runs: Sequence[RunFolder]) -> Section | None:
    if not has_curves(runs):
        return None
    note = "Training and validation loss, and the figures of each evaluation."
    return Section("learning", "Learning curves", note, [Chart("learning", "", "", curves(runs))])


def _anchors(run: RunFolder, dataset: str) -> Section:
    split = open_split(dataset)
    boxes = arrays_of(dataset, split.classes, split.records)
    subject = split_statistics(boxes, fit_anchors(boxes, run.cfg))
    note = "Boxes at test size and the anchors of the config, and how well the best anchor fits by shape."
    return Section("anchors", "Anchors and boxes", note, [Chart("anchors", "", "", anchor_figure([subject]))])


def settings_section(runs: Sequence[RunFolder]) -> Section:
    """Starts of `runs` and differences between them; config and environment of the first."""
    first = runs[0]
    items = [Text("What was run", "Starts, what differs between runs, last figures.", comparison(runs))]
    items.append(Text("Configuration", "config.yaml, resolved; it reproduces the run.", first.config_text))
    if first.starts:
        items.append(Text("Environment", "run.json: the last start.", json.dumps(first.starts[-1], indent=1)))
    return Section("run", "Configuration and environment", "", items)
