"""Detectron2's evaluator for classifiers, and the file of their answers, which needs no dataset beside it."""

import itertools
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from detectron2.data import MetadataCatalog
from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm

from cervical_d2.data.cell_records import label_of, labeled_records
from cervical_d2.errors import UserError
from cervical_d2.evaluation.classification import OF_CLASSES, Answers, confusion, measured
from cervical_d2.evaluation.predictions import PREDICTIONS
from cervical_d2.evaluation.severity import OWN, read_severity
from cervical_d2.evaluation.table import aligned, metrics_text
from cervical_d2.files import plain, write_json, write_text

TASK = "classification"
Row = dict[str, Any]


class CellEvaluator(DatasetEvaluator):
    """`evaluate` returns {"classification": figures} in percent (`classification.measured`), in the main process alone.

    In `output_dir`: metrics.json (what is returned, NaN as null), metrics.txt (tables) and predictions.json: the
    classes and, of each image, its file, group, label and scores.
    """

    def __init__(self, dataset_name: str, output_dir: str | Path, *, severity: Path = OWN, distributed: bool = True):
        """`severity`: which of two classes is the lesion, whose sensitivity is told."""
        self.name, self.folder, self.distributed = dataset_name, Path(output_dir), distributed
        self.classes = list(MetadataCatalog.get(dataset_name).thing_classes)
        self.positive = positive_class(self.classes, severity)
        self.rows: dict[Any, Row] = {}

    def reset(self) -> None:
        """Forget all answers."""
        self.rows = {}

    def process(self, inputs: Sequence[Mapping[str, Any]], outputs: Sequence[Mapping[str, Any]]) -> None:
        """Keep the answers: of each input the model's output with `scores` (K,)."""
        for item, output in zip(inputs, outputs, strict=True):
            self.rows[item["image_id"]] = {"scores": [round(value, 6) for value in output["scores"].tolist()]}

    def evaluate(self) -> dict[str, dict[str, float]]:
        """{} in all processes but the main one.

        Raises:
            UserError: the model has another number of classes than the dataset.
        """
        gathered = comm.gather(self.rows, dst=0) if self.distributed else [self.rows]
        if self.distributed and not comm.is_main_process():
            return {}
        answers: dict[Any, Row] = dict(itertools.chain.from_iterable(part.items() for part in gathered))
        rows = [
            {
                "file_name": record["file_name"],
                "image_id": record["image_id"],
                "group_id": record.get("group_id"),
                "label": label_of(record),
                **answers[record["image_id"]],
            }
            for record in labeled_records([self.name])
            if record["image_id"] in answers
        ]
        self._check(rows)
        document = {"dataset": self.name, "classes": self.classes, "positive": self.positive, "images": rows}
        figures = measured(answers_of(document))
        text = figures_text(self.name, answers_of(document), figures)
        logging.getLogger("detectron2.cervical_d2").info("Evaluation:\n%s", text)
        write_json(self.folder / PREDICTIONS, document)
        write_json(self.folder / "metrics.json", plain({TASK: figures}), indent=2)
        write_text(self.folder / "metrics.txt", text + "\n")
        return {TASK: figures}

    def _check(self, rows: Sequence[Row]) -> None:
        if not rows:
            raise UserError(f"{self.name}: no image was classified; evaluate on the dataset that the loader reads")
        if len(rows[0]["scores"]) != len(self.classes):
            raise UserError(
                f"{self.name} has {len(self.classes)} classes, the model {len(rows[0]['scores'])}; evaluate on the "
                "classes that it was trained on, by a label map if need be: NAME@MAP"
            )


def positive_class(classes: Sequence[str], severity: Path = OWN) -> int | None:
    """Of two classes the lesion, or the second where not exactly one of them is; None for other numbers of classes."""
    if len(classes) != 2:
        return None
    grave = read_severity(classes, severity).abnormal
    return int(np.argmax(grave)) if grave.sum() == 1 else 1


class Answered(NamedTuple):
    """A file of answers: the figures' `answers`, and the `rows` of its images in the same order."""

    dataset: str
    answers: Answers
    rows: list[Row]


def read_answers(path: Path) -> Answered:
    """What `CellEvaluator` wrote. Raises `UserError` for a file that is not there, or of another kind."""
    try:
        document = json.loads(path.read_bytes())
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); evaluate the classifier first") from error
    except ValueError as error:
        raise UserError(f"{path}: not valid JSON ({error}); evaluate the classifier again") from error
    if not is_answers(document):
        raise UserError(f"{path}: not the answers of a classifier; name the folder of one")
    return Answered(document["dataset"], answers_of(document), document["images"])


def is_answers(document: Any) -> bool:
    """Whether what a predictions.json holds is a classifier's."""
    return isinstance(document, dict) and {"dataset", "classes", "positive", "images"} <= document.keys()


def answers_of(document: Mapping[str, Any]) -> Answers:
    """The arrays of a file of answers."""
    rows = document["images"]
    groups = [row["group_id"] for row in rows]
    units = [f"group {group}" if group is not None else f"image {number}" for number, group in enumerate(groups)]
    return Answers(
        classes=document["classes"],
        label=np.array([row["label"] for row in rows], np.int64),
        scores=np.array([row["scores"] for row in rows], float),
        unit=np.unique(units, return_inverse=True)[1].reshape(-1),
        grouped=any(group is not None for group in groups),
        positive=document["positive"],
    )


def figures_text(name: str, answers: Answers, figures: Mapping[str, float]) -> str:
    """The figures, those of each class, and the confusion matrix."""
    overall = {key: value for key, value in figures.items() if "-" not in key}
    counts = np.bincount(answers.label, minlength=len(answers.classes))
    columns = {"class": answers.classes, "images": counts.tolist()}
    columns |= {rate: [figures[f"{rate}-{label}"] for label in answers.classes] for rate in OF_CLASSES}
    of = f" of {answers.classes[answers.positive]}" if answers.positive is not None else ""
    table = aligned(("figure", "%"), list(overall.items()))
    matrix = [[label, *row] for label, row in zip(answers.classes, confusion(answers).tolist(), strict=True)]
    head = metrics_text(f"{name}: {len(answers.label)} images; %", {"accuracy": figures["accuracy"]}, columns)
    return "\n\n".join(
        [head, f"sensitivity and the like{of}:\n\n{table}", "rows: truth, columns: answer\n\n"
         + aligned(["", *answers.classes], matrix)]
    )  # fmt: skip
