"""Measures the rows of a table of detectors."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from cervical_d2.config import load_config
from cervical_d2.datasets.registry import resolve
from cervical_d2.engine.run_folder import RunFolder
from cervical_d2.evaluation.analysis import EvaluationInput
from cervical_d2.evaluation.bootstrap import Statistic, measure
from cervical_d2.evaluation.curves import rankings
from cervical_d2.evaluation.froc import SAME_CELL, lesions
from cervical_d2.evaluation.loading import load_inputs
from cervical_d2.evaluation.matching import Floats, match_coco, select
from cervical_d2.evaluation.protocols import ANY_AREA, IOU_50, PROTOCOLS, averages, protocol_rankings, suppressed
from cervical_d2.papers.experiments import Job
from cervical_d2.papers.trained import Runner, Trained
from cervical_d2.report.pictures import draw_results

AGNOSTIC = "agnostic/AP50"
SURE, PICTURES = 0.5, 6  # least score of a detection that is drawn; number of images
(COCO,) = (protocol for protocol in PROTOCOLS if protocol.name == "coco")


def statistic(inputs: EvaluationInput) -> Statistic:
    """mAP, AR and class-agnostic AP50 as a function of resampling weights."""
    images, classes = len(inputs.unit), len(inputs.classes)
    ranked = protocol_rankings(COCO, inputs.truth, inputs.detections, num_classes=classes, num_images=images)
    present = [bool(ranking.wanted.any()) for ranking in ranked]
    truth, detections = lesions(inputs.truth, inputs.detections, np.ones(classes, bool))
    detections = select(detections, suppressed(detections, SAME_CELL))
    matches = match_coco(truth, detections, IOU_50, ANY_AREA, len(detections.score))
    as_one = rankings(matches, truth, num_classes=1, num_images=images)

    def figures(weights: Floats) -> dict[str, Floats]:
        of_images = weights[:, inputs.unit]
        by_class, one = averages(COCO, ranked, of_images), averages(COCO, as_one, of_images)
        means = [100 * table[:, 0, present].mean(axis=1) for table in by_class]
        return {"coco/mAP": means[0], "coco/AR": means[1], AGNOSTIC: 100 * one.ap[:, 0, 0]}

    return figures


def split_of(job: Job) -> str:
    """The registered split that `job` is evaluated on."""
    return resolve(load_config(job.experiment.config, job.experiment.options).DATASETS.TEST[0])


def done(job: Job) -> bool:
    """Whether `job` is completely trained and evaluated."""
    return RunFolder(job.folder).is_finished(split_of(job))


def measured(jobs: Sequence[Job], samples: int, seed: int = 0) -> list[Trained]:
    """The figures of each job. All jobs share the resamples of images or slides."""
    if not jobs:
        return []
    files = [RunFolder(job.folder).predictions(split_of(job)) for job in jobs]
    inputs = load_inputs(split_of(jobs[0]), files).inputs
    runs = [measure(statistic(one), one.units, samples, seed) for one in inputs]
    return [Trained({name: [value] for name, value in run.figures.items()}, *run[:2]) for run in runs]


def draw(jobs: Mapping[str, Job], output: Path) -> None:
    """Draw the truth beside the detections of `jobs` (by caption) as PNG files in `output`."""
    runs = {caption: RunFolder(job.folder) for caption, job in jobs.items()}
    draw_results(runs, split_of(next(iter(jobs.values()))), output, score=SURE, count=PICTURES)


RUNNER = Runner(
    command="train",
    figures={"mAP": "coco/mAP", "AR": "coco/AR"},
    floors={"cric": ("AP50 of all classes as one", AGNOSTIC)},  # its classes are rare
    done=done,
    measure=measured,
    splits=lambda _: 1,
    draw=draw,
    drawn="truth beside the first training of each row",
)
