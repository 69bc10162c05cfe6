"""Measures the rows of a table of classifiers: fold by fold, all rows on the same images."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from cervical_d2.config import load_config
from cervical_d2.engine.run_folder import RunFolder
from cervical_d2.errors import UserError
from cervical_d2.evaluation.bootstrap import measure
from cervical_d2.evaluation.classification import confusion, mean_of_folds, measured
from cervical_d2.evaluation.classification_evaluator import Answered
from cervical_d2.files import output_folder, write_bytes
from cervical_d2.papers.experiments import Job
from cervical_d2.papers.trained import Runner, Trained
from cervical_d2.report.axes import png
from cervical_d2.report.classification_report import cell_runs
from cervical_d2.report.confusion_plot import confusion_figure


def splits(job: Job) -> int:
    """The number of folds of `job`; 1 without folds."""
    return max(1, load_config(job.experiment.config, job.experiment.options).DATASETS.FOLDS)


def done(job: Job) -> bool:
    """Whether every fold is completely trained and evaluated."""
    finished = [run.is_finished for run in cell_runs(RunFolder(job.folder))]
    return len(finished) == splits(job) and all(finished)


def measured_jobs(jobs: Sequence[Job], samples: int, seed: int = 0) -> list[Trained]:
    """The mean over the folds of each job. All jobs share the resamples of images or slides.

    Raises:
        UserError: a job was tested on other images than the first one.
    """
    answered = [[run.answers for run in cell_runs(RunFolder(job.folder))] for job in jobs]
    tested = [[[(row["image_id"], row["label"]) for row in fold.rows] for fold in folds] for folds in answered]
    for job, images in zip(jobs, tested, strict=True):
        if images != tested[0]:
            raise UserError(f"{job.folder}: tested on other images than {jobs[0].folder}; train it again")
    return [_trained(folds, samples, seed) for folds in answered]


def _trained(folds: Sequence[Answered], samples: int, seed: int) -> Trained:
    answers = [fold.answers for fold in folds]
    values = [measured(fold) for fold in answers]
    mean = measure(mean_of_folds(answers), sum(fold.units for fold in answers), samples, seed)
    return Trained({name: [each[name] for each in values] for name in values[0]}, *mean[:2])


def draw(jobs: Mapping[str, Job], output: Path) -> None:
    """Draw the confusion matrix of each of `jobs` (by caption), summed over folds, as sheet.png in `output`."""
    runs = {caption: cell_runs(RunFolder(job.folder)) for caption, job in jobs.items()}
    folds = {caption: [run.answers.answers for run in each] for caption, each in runs.items()}
    matrices = {caption: np.sum([confusion(fold) for fold in each], axis=0) for caption, each in folds.items()}
    classes = next(iter(folds.values()))[0].classes
    with output_folder(output, "reproduce") as folder:
        write_bytes(folder / "sheet.png", png(confusion_figure(matrices, classes)))


RUNNER = Runner(
    command="train-classifier",
    figures={
        "accuracy": "accuracy",
        "sensitivity": "sensitivity",
        "specificity": "specificity",
        "H-mean": "h_mean",
        "F1": "f1",
        "AUROC": "auroc",
    },
    floors={},
    done=done,
    measure=measured_jobs,
    splits=splits,
    draw=draw,
    drawn="confusion matrices of the first seed of each row",
)
