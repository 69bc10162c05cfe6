"""One page for an evaluation: every figure with its interval, the curves, the run, every image, a baseline."""

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from detectron2.config import CfgNode

from cervical_d2.datasets.formats import Record
from cervical_d2.engine.run_folder import RunFolder
from cervical_d2.engine.tasks import CLASSIFICATION, task_of
from cervical_d2.evaluation.analysis import Analysis
from cervical_d2.evaluation.bootstrap import SAMPLES, Measured
from cervical_d2.evaluation.centers import SCORE
from cervical_d2.evaluation.error_types import KINDS
from cervical_d2.evaluation.figures import measured as measured_of
from cervical_d2.evaluation.loading import load_inputs, told_apart
from cervical_d2.evaluation.severity import OWN
from cervical_d2.files import check_output, output_folder, plain, write_json, write_text
from cervical_d2.report.classification_report import cell_runs, write_cell_report
from cervical_d2.report.differences import compared
from cervical_d2.report.evaluation_sections import EvaluatedModel, sections
from cervical_d2.report.gallery import FoundBox, Gallery, GalleryImage, TruthBox, write_images
from cervical_d2.report.page import DISCLAIMER, FIGURES_FILE, REPORT, page
from cervical_d2.report.run_sections import Evaluated, evaluated, run_sections

logger = logging.getLogger("detectron2.cervical_d2")


class Options(NamedTuple):
    """What can be chosen: the threshold where one counts, resamples and their seed, the table of severities."""

    score: float = SCORE
    samples: int = SAMPLES
    seed: int = 0
    severity: Path = OWN


def write_evaluation_report(
    dataset: str, sources: Sequence[Evaluated], output: Path, options: Options
) -> tuple[Path, list[str]]:
    """Write `output`: index.html, figures.json, images/. `sources`: one, or two of which the second is the baseline.

    Returns the page and notes for the user. Raises `UserError` before anything is written.
    """
    names = told_apart([item.name for item in sources], [item.place for item in sources])
    loaded = load_inputs(dataset, [item.predictions for item in sources], options.severity)
    inputs = [*(item.predictions for item in sources), *(record["file_name"] for record in loaded.records)]
    check_output(output, REPORT, inputs)  # now, and not after the resamples
    analyses = [Analysis(one, options.score) for one in loaded.inputs]
    measured = [measured_of(item, options.samples, options.seed) for item in analyses]
    parts = sections(EvaluatedModel(analyses[0], measured[0]))
    if len(sources) > 1:
        parts.insert(1, compared(measured, names))
    parts += run_sections(sources, dataset)
    heading = f"{dataset}: {names[0]}" + (f", compared with {names[1]}" if len(names) > 1 else "")
    with output_folder(output, REPORT) as folder:
        urls = write_images(loaded.records, folder)
        gallery = Gallery(
            loaded.inputs[0].classes, options.score, list(_images(analyses, loaded.records, urls)),
            names if len(names) > 1 else ("prediction",),
        )  # fmt: skip
        write_json(folder / FIGURES_FILE, _document(dataset, names, measured, options), indent=1)
        write_text(folder / "index.html", page(heading, DISCLAIMER, parts, gallery))
    return output / "index.html", loaded.notes


def write_reports(cfg: CfgNode) -> None:
    """OUTPUT_DIR/report for the last evaluation of a run, below it a folder for each split if there are several.

    A classifier's page is of its last test split.
    """
    run = RunFolder(cfg.OUTPUT_DIR)
    options = Options(cfg.TEST.SCORE, severity=Path(cfg.TEST.SEVERITY) if cfg.TEST.SEVERITY else OWN)
    if task_of(cfg) is CLASSIFICATION:
        if runs := cell_runs(run):
            logger.info("report: %s", write_cell_report(runs, run.path / "report"))
        return
    for dataset in cfg.DATASETS.TEST:
        place = run.path / "report" / (dataset if len(cfg.DATASETS.TEST) > 1 else "")
        path, notes = write_evaluation_report(dataset, [evaluated(run, dataset)], place, options)
        logger.info("\n".join([f"report: {path}", *notes]))


def _document(dataset: str, names: Sequence[str], measured: Sequence[Measured], options: Options) -> dict[str, Any]:
    figures = {
        model: {name: _entry(one, name) for name in one.figures} for model, one in zip(names, measured, strict=True)
    }
    settings = {"score": options.score, "samples": options.samples, "seed": options.seed}
    return {"dataset": dataset, "settings": settings, "figures": plain(figures, digits=6)}


def _entry(model: Measured, name: str) -> dict[str, Any]:
    warning = {"warning": model.warnings[name]} if name in model.warnings else {}
    return model.interval(name)._asdict() | warning


def _images(analyses: Sequence[Analysis], records: Sequence[Record], urls: Sequence[str]) -> Iterator[GalleryImage]:
    truths = _by_image(_truth(analyses[0]), analyses[0].inputs.truth.image, len(records))
    detections = [_by_image(_detections(item), item.inputs.detections.image, len(records)) for item in analyses]
    for number, (record, url) in enumerate(zip(records, urls, strict=True)):
        group = record.get("group_id")
        yield GalleryImage(
            Path(record["file_name"]).name, url, record["width"], record["height"],
            None if group is None else str(group), truths[number], *(part[number] for part in detections),
        )  # fmt: skip


def _truth(analysis: Analysis) -> list[TruthBox | None]:
    """In the order of the truth; of the copies that an ignored region has for every class all but the first is None."""
    inputs, errors = analysis.inputs, analysis.errors
    truth = inputs.truth
    points: Sequence[Sequence[float] | None] = inputs.centers.tolist() if inputs.radius else [None] * len(truth.label)
    return [
        None if ignore and label else TruthBox(box, -1 if ignore else label, hit, covered, point)
        for box, label, ignore, hit, covered, point in zip(
            truth.box, truth.label.tolist(), truth.ignore.tolist(), errors.hit_score, errors.covered, points,
            strict=True,
        )
    ]  # fmt: skip


def _detections(analysis: Analysis) -> list[FoundBox]:
    detections, kinds = analysis.inputs.detections, analysis.errors.kind.tolist()
    return [
        FoundBox(box, label, score, KINDS[kind])
        for box, label, score, kind in zip(
            detections.box, detections.label.tolist(), detections.score, kinds, strict=True
        )
    ]


def _by_image(items: Sequence[Any], image: Any, count: int) -> list[list[Any]]:
    """`items` that are not None, by the number of their image."""
    parts: list[list[Any]] = [[] for _ in range(count)]
    for item, number in zip(items, image.tolist(), strict=True):
        if item is not None:
            parts[number].append(item)
    return parts
