"""A data set and files of predictions for it, ready to be evaluated."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from detectron2.data import DatasetCatalog, MetadataCatalog

from cervical_d2.datasets.formats import Record
from cervical_d2.errors import UserError
from cervical_d2.evaluation.analysis import EvaluationInput, make_input
from cervical_d2.evaluation.ground_truth import read_truth
from cervical_d2.evaluation.predictions import read_predictions
from cervical_d2.evaluation.severity import OWN, read_severity


class Loaded(NamedTuple):
    """A inputs for each file, all of one truth; `records` in the order of the images' numbers; `notes` for the user."""

    inputs: list[EvaluationInput]
    records: list[Record]
    notes: list[str]


def load_inputs(dataset: str, files: Sequence[Path], severity: Path = OWN) -> Loaded:
    """`dataset`: a registered name.

    Raises:
        UserError: a data set without images, or predictions that do not fit it (`predictions.read_predictions`).
    """
    classes = list(MetadataCatalog.get(dataset).thing_classes)
    records = list(DatasetCatalog.get(dataset))
    if not records:
        raise UserError(f"{dataset}: no image, so that there is nothing to evaluate; check the data set's paths")
    data = read_truth(dataset, len(classes))
    graded = read_severity(classes, severity)
    notes = [
        f"{severity}: no grade for {name}, which counts as a lesion of grade 1"
        for name, known in zip(classes, graded.known, strict=True)
        if not known and graded.known.any()
    ]
    inputs = []
    for path in files:
        found = read_predictions(path, dataset, records, data.images)
        notes += found.notes
        radius = MetadataCatalog.get(dataset).get("center_radius")
        inputs.append(make_input(data, found.detections, classes, graded, radius))
    return Loaded(inputs, sorted(records, key=lambda record: data.images[record["image_id"]]), notes)
