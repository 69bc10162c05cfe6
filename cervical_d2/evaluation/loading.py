"""A data set and files of predictions for it, ready to be evaluated."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from detectron2.data import MetadataCatalog

from cervical_d2.datasets.formats import Record
from cervical_d2.errors import UserError
from cervical_d2.evaluation.analysis import EvaluationInput, make_input
from cervical_d2.evaluation.ground_truth import open_split
from cervical_d2.evaluation.predictions import read_predictions
from cervical_d2.evaluation.severity import OWN, read_severity


class Loaded(NamedTuple):
    """`inputs` for each file, all of one truth; `records` in the order of the images' numbers; `notes` for the user."""

    inputs: list[EvaluationInput]
    records: list[Record]
    notes: list[str]


def load_inputs(dataset: str, files: Sequence[Path], severity: Path = OWN) -> Loaded:
    """The evaluation of each of `files` on the registered split `dataset`.

    Raises:
        UserError: a data set without images, or predictions that do not fit it (`predictions.read_predictions`).
    """
    split = open_split(dataset)
    if not len(split.records):
        raise UserError(f"{dataset}: no image, so that there is nothing to evaluate; check the data set's paths")
    graded = read_severity(split.classes, severity)
    notes = [
        f"{severity}: no grade for {name}, which counts as a lesion of grade 1"
        for name, known in zip(split.classes, graded.known, strict=True)
        if not known and graded.known.any()
    ]
    radius = MetadataCatalog.get(dataset).get("center_radius")
    inputs = []
    for path in files:
        predictions = read_predictions(path, split)
        notes += predictions.notes
        inputs.append(make_input(split.truth, predictions.detections, split.classes, graded, radius))
    return Loaded(inputs, sorted(split.records, key=lambda record: split.truth.images[record["image_id"]]), notes)
