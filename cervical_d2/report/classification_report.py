"""The report page and the summary of a classifier, for one run or for all folds of a cross-validation."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from detectron2.config import CfgNode

from cervical_d2.curation.folds import Part
from cervical_d2.datasets.registry import resolve
from cervical_d2.engine.run_folder import RunFolder
from cervical_d2.engine.tasks import CLASSIFICATION, task_of
from cervical_d2.evaluation.bootstrap import SAMPLES
from cervical_d2.evaluation.classification_evaluator import Answered
from cervical_d2.evaluation.cross_validation import document, summarize, write_summary
from cervical_d2.files import check_output, output_folder, write_json, write_text
from cervical_d2.report.classification_sections import cell_sections
from cervical_d2.report.page import DISCLAIMER, FIGURES_FILE, REPORT, page
from cervical_d2.report.recognition import examples
from cervical_d2.report.run_sections import settings_section

LEAK = (
    "Augmented before splitting (DATASETS.LEAK_COPIES_ACROSS_SPLITS): copies of one cell are in training and in test. "
    "These figures say nothing about new cells."
)


class CellRun(NamedTuple):
    """The run of a classifier, and the registered split to report."""

    folder: RunFolder
    split: str

    @property
    def answers(self) -> Answered:
        """The predictions on the split. Raises `UserError` if the run has not been evaluated on it."""
        return self.folder.answers(self.split)

    @property
    def is_finished(self) -> bool:
        """Whether the training is finished and was evaluated on the split."""
        return self.folder.is_finished(self.split)


def cell_runs(folder: RunFolder, dataset: str = "") -> list[CellRun]:
    """The classifier runs in `folder`: the folder itself, or its fold0, fold1, ...; [] if there are none.

    `dataset`: the registered name of the split, by default the last one of DATASETS.TEST.
    """
    places = sorted(folder.path.glob("fold*"), key=lambda path: (len(path.name), path.name))
    folders = [folder] if folder.exists else [run for run in map(RunFolder, places) if run.exists]
    return [
        CellRun(run, dataset or run.cfg.DATASETS.TEST[-1])
        for run in folders
        if task_of(run.cfg) is CLASSIFICATION and run.cfg.DATASETS.TEST
    ]


def write_cell_report(runs: Sequence[CellRun], output: Path, samples: int = SAMPLES, seed: int = 0) -> Path:
    """Write index.html (with embedded pictures) and figures.json into `output`; return the path of the page.

    Raises:
        UserError: a run has not been evaluated, or the classes of the runs differ.
    """
    folders, answered = [run.folder for run in runs], [run.answers for run in runs]
    check_output(output, REPORT)
    summary = summarize([run.path.name for run in folders], answered, samples, seed)
    leak = any(run.cfg.DATASETS.LEAK_COPIES_ACROSS_SPLITS for run in folders)
    parts = [*cell_sections(summary, folders), examples(answered), settings_section(folders)]
    sections = [section for section in parts if section]
    if leak:
        sections[0] = sections[0]._replace(note=f"{LEAK} {sections[0].note}")
    name = folders[0].path.resolve()
    heading = f"{name.parent.name}: {len(runs)} folds" if len(runs) > 1 else f"{name.name}: {answered[0].dataset}"
    with output_folder(output, REPORT) as partial:
        about = {"leak": leak, "samples": samples, "seed": seed}
        write_json(partial / FIGURES_FILE, document(summary, about), indent=1)
        write_text(partial / "index.html", page(heading, DISCLAIMER, sections))
    return output / "index.html"


def summarize_parts(cfg: CfgNode, parts: Sequence[Part], samples: int) -> str:
    """Write summary.md and summary.json into OUTPUT_DIR, and return the text of summary.md.

    With several parts and TEST.REPORT, also writes the report page.

    Raises:
        UserError: a part has not been evaluated.
    """
    folder, leak = Path(cfg.OUTPUT_DIR), cfg.DATASETS.LEAK_COPIES_ACROSS_SPLITS
    runs = [CellRun(RunFolder(folder / part.folder), resolve(part.test[-1])) for part in parts]
    names = [part.folder or part.test[-1].rpartition(":")[2] for part in parts]
    summary = summarize(names, [run.answers for run in runs], samples)
    title = f"{folder.resolve().name}: {', '.join(cfg.DATASETS.TRAIN)}"
    text = write_summary(folder, summary, title, {"data": list(cfg.DATASETS.TRAIN), "leak": leak}, LEAK if leak else "")
    if cfg.TEST.REPORT and len(parts) > 1:
        write_cell_report(runs, folder / "report", samples)
    return text
