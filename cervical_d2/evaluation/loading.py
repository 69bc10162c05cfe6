"""A dataset and files of predictions for it, ready to be evaluated."""

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


def told_apart(names: Sequence[str], paths: Sequence[Path]) -> list[str]:
    """`names` where they differ; otherwise the ends of `paths`, the shortest that differ, such as `a/predictions.json`.

    Raises:
        UserError: two paths are the same.
    """
    if len(set(names)) == len(names):
        return list(names)
    parts = [path.resolve().parts for path in paths]
    if len(set(parts)) < len(parts):
        raise UserError(f"{paths[-1]}: named twice, so that there is nothing to compare; name another")
    ends = (["/".join(part[-depth:]) for part in parts] for depth in range(1, max(map(len, parts)) + 1))
    return next(end for end in ends if len(set(end)) == len(end))


def load_inputs(dataset: str, files: Sequence[Path], severity: Path = OWN) -> Loaded:
    """The evaluation of each of `files` on the registered split `dataset`.

    Raises:
        UserError: a dataset without images, or predictions that do not fit it (`predictions.read_predictions`).
    """
    split = open_split(dataset)
    if not len(split.records):
        raise UserError(f"{dataset}: no image, so that there is nothing to evaluate; check the dataset's paths")
    graded = read_severity(split.classes, severity)
    notes = [
        f"{severity}: no grade for {name}, which counts as a lesion of grade 1"
        for name, known in zip(split.classes, graded.known, strict=True)
        if not known and graded.known.any()
    ]
    if severity != OWN and not graded.known.any():
        notes.append(f"{severity}: lists no class of {dataset} ({', '.join(split.classes)}); every cell is a lesion")
    radius = MetadataCatalog.get(dataset).get("center_radius")
    inputs = []
    for path in files:
        predictions = read_predictions(path, split)
        notes += predictions.notes
        inputs.append(make_input(split.truth, predictions.detections, split.classes, graded, radius))
    return Loaded(inputs, sorted(split.records, key=lambda record: split.truth.images[record["image_id"]]), notes)
