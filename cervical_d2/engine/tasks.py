"""The differences between detectors and classifiers, in one table. The rest of a run is the same for both."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from detectron2.config import CfgNode
from detectron2.evaluation import DatasetEvaluator

from cervical_d2.data.build import build_test_loader, build_train_loader, records_of, train_records
from cervical_d2.data.cell_build import build_cell_test_loader, build_cell_train_loader
from cervical_d2.data.cell_build import prepare_training as prepare_classification
from cervical_d2.data.cell_records import labeled_records
from cervical_d2.data.contrast import contrast_lines
from cervical_d2.data.loader import BatchPlan, TrainLoader
from cervical_d2.data.mapper import train_augmentations
from cervical_d2.data.sampling import train_repeats
from cervical_d2.engine.run_folder import RunFolder
from cervical_d2.evaluation.classification_evaluator import CellEvaluator
from cervical_d2.evaluation.evaluator import CervicalCOCOEvaluator
from cervical_d2.evaluation.severity import OWN
from cervical_d2.modeling.classifier import CellClassifier


class Task(NamedTuple):
    """One kind of model.

    `test_records` returns the checked records of a split. `prepare_training` checks the training settings and returns
    the number of images per epoch and lines for the log. `epoch` returns that number from the plan of the batches.
    """

    test_records: Callable[[str], Sequence[Any]]
    prepare_training: Callable[[CfgNode], tuple[int, list[str]]]
    epoch: Callable[[BatchPlan], int]
    train_loader: Callable[[CfgNode], TrainLoader]
    test_loader: Callable[[CfgNode, str], Any]
    evaluator: Callable[[CfgNode, str], DatasetEvaluator]


def _prepare_detection(cfg: CfgNode) -> tuple[int, list[str]]:
    records = train_records(cfg)
    lines = contrast_lines(cfg, records)
    train_augmentations(cfg)  # raises if a value is out of range
    if (repeats := train_repeats(cfg, records)) is not None:
        lines.append(f"repeat factors: {repeats.min():.2f} to {repeats.max():.2f}, {repeats.mean():.2f} on average")
    return len(records), lines


def _detection_evaluator(cfg: CfgNode, name: str) -> CervicalCOCOEvaluator:
    return CervicalCOCOEvaluator(
        name,
        RunFolder(cfg.OUTPUT_DIR).evaluation(name),
        max_dets_per_image=max(100, cfg.TEST.DETECTIONS_PER_IMAGE),
        score=cfg.TEST.SCORE,
        severity=_severity(cfg),
    )


def _cell_evaluator(cfg: CfgNode, name: str) -> CellEvaluator:
    return CellEvaluator(name, RunFolder(cfg.OUTPUT_DIR).evaluation(name), severity=_severity(cfg))


def _severity(cfg: CfgNode) -> Path:
    return Path(cfg.TEST.SEVERITY) if cfg.TEST.SEVERITY else OWN


DETECTION = Task(
    lambda name: records_of((name,)),
    _prepare_detection,
    lambda plan: plan.images,
    build_train_loader,
    build_test_loader,
    _detection_evaluator,
)
CLASSIFICATION = Task(
    lambda name: labeled_records([name]),
    prepare_classification,
    lambda plan: plan.cycle,
    build_cell_train_loader,
    build_cell_test_loader,
    _cell_evaluator,
)
TASKS = {CellClassifier.__name__: CLASSIFICATION}


def task_of(cfg: CfgNode) -> Task:
    """The task of `MODEL.META_ARCHITECTURE`: detection, unless `TASKS` lists it."""
    return TASKS.get(cfg.MODEL.META_ARCHITECTURE, DETECTION)
