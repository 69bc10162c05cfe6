"""The page and the summary of a classifier: one run, or the folds of a cross-validation together."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from detectron2.config import CfgNode

from cervical_d2.config import load_dumped_config
from cervical_d2.curation.folds import Part
from cervical_d2.engine.cross_validation import answers_file, config_of
from cervical_d2.engine.tasks import CLASSIFICATION, task_of
from cervical_d2.evaluation.bootstrap import SAMPLES
from cervical_d2.evaluation.classification_evaluator import PREDICTIONS, Answered, read_answers
from cervical_d2.evaluation.cross_validation import Summary, document, summarize, write_summary
from cervical_d2.files import replaced_folder, write_json, write_text
from cervical_d2.report.classification_sections import cell_sections
from cervical_d2.report.page import DISCLAIMER, FIGURES_FILE, Section, page
from cervical_d2.report.recognition import examples
from cervical_d2.report.run_comparison import Run, read_run
from cervical_d2.report.run_sections import settings_section

LEAK = (
    "Augmented before dividing (DATASETS.LEAK_COPIES_ACROSS_SPLITS): copies of one cell are in training and in test. "
    "These figures say nothing about new cells."
)


class CellRun(NamedTuple):
    """An OUTPUT_DIR of a trained classifier and the file of its answers."""

    folder: Path
    cfg: CfgNode
    answers: Path


def cell_runs(folder: Path, dataset: str = "") -> list[CellRun]:
    """The runs in `folder`: itself, or its fold0, fold1, ...; [] if there is none of a classifier.

    `dataset`: the registered name of the split, by default the last of DATASETS.TEST.
    """
    folders = [folder] if (folder / "config.yaml").is_file() else list(folder.glob("fold*"))
    found = []
    for place in sorted(folders, key=lambda path: (len(path.name), path.name)):
        path = place / "config.yaml"
        cfg = load_dumped_config(path.read_text(), str(path)) if path.is_file() else None
        if cfg is not None and task_of(cfg) is CLASSIFICATION and cfg.DATASETS.TEST:
            split = dataset or cfg.DATASETS.TEST[-1]
            found.append(CellRun(place, cfg, place / "evaluation" / split / PREDICTIONS))
    return found


def write_cell_report(runs: Sequence[CellRun], output: Path, samples: int = SAMPLES, seed: int = 0) -> Path:
    """Write `output`: index.html with the pictures in it, figures.json. Returns the page.

    Raises:
        UserError: a run has not been evaluated, or the runs are of different classes.
    """
    answered = [read_answers(run.answers) for run in runs]
    summary = summarize([run.folder.name for run in runs], answered, samples, seed)
    leak = any(run.cfg.DATASETS.LEAK_COPIES_ACROSS_SPLITS for run in runs)
    parts = _sections(summary, answered, [read_run(run.folder) for run in runs], runs[0].folder)
    if leak:
        parts[0] = parts[0]._replace(note=f"{LEAK} {parts[0].note}")
    name = runs[0].folder.resolve()
    heading = f"{name.parent.name}: {len(runs)} folds" if len(runs) > 1 else f"{name.name}: {answered[0].dataset}"
    with replaced_folder(output, FIGURES_FILE) as partial:
        write_json(
            partial / FIGURES_FILE, document(summary, {"leak": leak, "samples": samples, "seed": seed}), indent=1
        )
        write_text(partial / "index.html", page(heading, DISCLAIMER, parts))
    return output / "index.html"


def _sections(summary: Summary, answered: Sequence[Answered], runs: Sequence[Run], folder: Path) -> list[Section]:
    parts = [*cell_sections(summary, runs), examples(answered)]
    return [section for section in (*parts, settings_section(runs, folder)) if section]


def summarize_parts(cfg: CfgNode, parts: Sequence[Part], samples: int) -> str:
    """summary.md and summary.json in OUTPUT_DIR, for several parts with TEST.REPORT also the page; returns the first.

    Raises:
        UserError: a part has not been evaluated.
    """
    folder, leak = Path(cfg.OUTPUT_DIR), cfg.DATASETS.LEAK_COPIES_ACROSS_SPLITS
    files = [answers_file(cfg, part) for part in parts]
    names = [part.folder or part.test[-1].rpartition(":")[2] for part in parts]
    summary = summarize(names, list(map(read_answers, files)), samples)
    title = f"{folder.resolve().name}: {', '.join(cfg.DATASETS.TRAIN)}"
    text = write_summary(folder, summary, title, {"data": list(cfg.DATASETS.TRAIN), "leak": leak}, LEAK if leak else "")
    if cfg.TEST.REPORT and len(parts) > 1:
        runs = [
            CellRun(folder / part.folder, config_of(cfg, part), file) for part, file in zip(parts, files, strict=True)
        ]
        write_cell_report(runs, folder / "report", samples)
    return text
