"""COCO's numbers of a checkpoint on a split as it is, and under each corruption at each strength."""

import contextlib
import hashlib
import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.config import CfgNode
from detectron2.data.detection_utils import convert_PIL_to_numpy
from PIL import Image

from cervical_d2.checkpoint.checkpoint import Checkpoint
from cervical_d2.data.corruptions import CORRUPTIONS, STRENGTHS, Corruption, corrupted
from cervical_d2.data.mapper import read_image
from cervical_d2.errors import MachineError, UserError
from cervical_d2.evaluation.coco import coco_tables, summarize_coco
from cervical_d2.evaluation.evaluator import COCO_CAPS
from cervical_d2.evaluation.ground_truth import Split
from cervical_d2.evaluation.matching import Detections
from cervical_d2.files import check_output, plain, write_json
from cervical_d2.inference.detector import Detection, Detector
from cervical_d2.progress import progress_bar

COMMAND = "robustness"
FILE = "robustness.json"
FILES = (FILE, "robustness.txt", "robustness.png", "sheet.png")
Trial = tuple[str, int]
"""A corruption's name and the strength, 1 to 5; `UNDISTURBED` for neither."""
UNDISTURBED: Trial = ("none", 0)
PLAN: dict[Trial, Corruption | None] = {
    UNDISTURBED: None,
    **{(corruption.name, strength): corruption for corruption in CORRUPTIONS for strength in STRENGTHS},
}


def open_detector(weights: Path, device: str | None) -> Detector:
    """The detector in `weights`, on `device`.

    Raises:
        UserError: they cannot be read, or do not carry their config and classes, or there is no such device.
    """
    checkpoint = Checkpoint.open(weights)
    if not (checkpoint.config and checkpoint.classes):
        raise UserError(f"{weights}: carries no config and classes; name a checkpoint of `cervical-d2 train`")
    return Detector(weights, device=device, for_evaluation=True)


def check_classes(split: Split, detector: Detector) -> None:
    """Raises `UserError` if the detector's classes are not the split's."""
    if split.classes != detector.class_names:
        raise UserError(
            f"{split.name} has the classes {split.classes}, but the weights find {detector.class_names}; name a split "
            "of the dataset that they were trained on, or a label map: NAME@MAP"
        )


class Results:
    """Metrics by trial, in percent; NaN where nothing counts. They stand in a file, together with what they are of."""

    def __init__(self, path: Path, about: dict[str, Any], metrics: dict[Trial, dict[str, float]]):
        self.path, self.about, self.metrics = path, about, metrics

    def missing(self) -> list[Trial]:
        """What has not been evaluated yet, in the order of `PLAN`."""
        return [trial for trial in PLAN if trial not in self.metrics]

    def write(self) -> None:
        """The whole file anew."""
        rows = [_row(trial, self.metrics[trial]) for trial in PLAN if trial in self.metrics]
        write_json(self.path, {"about": self.about, "results": rows}, indent=1)


@contextlib.contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Within, whatever keeps `folder` from being read or written is a `MachineError` that says how to go on."""
    try:
        yield
    except OSError as error:
        raise MachineError(f"{folder}: {error.strerror}; mend that, then the same command goes on") from error


def provenance(weights: Path, split: Split, seed: int) -> dict[str, Any]:
    """What the results depend on, as JSON."""
    annotations = hashlib.sha256(b"".join(np.ascontiguousarray(column).tobytes() for column in split.truth.boxes))
    return {
        "weights": hashlib.sha256(weights.read_bytes()).hexdigest(),
        "dataset": split.name,
        "images": len(split.records),
        "annotations": annotations.hexdigest(),
        "seed": seed,
        "strengths": {corruption.name: list(corruption.values) for corruption in CORRUPTIONS},
    }


def open_results(folder: Path, about: dict[str, Any]) -> Results:
    """The results in `folder` that are about the same, or none in a new or empty folder. Writes nothing.

    Raises:
        UserError: the folder holds something else.
    """
    path = folder / FILE
    check_output(folder, COMMAND)
    if not path.is_file():
        return Results(path, about, {})
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        other = [name for name, value in about.items() if document["about"].get(name) != value]
        metrics = dict(map(_trial, document["results"]))
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: not a file of this tool ({error}); choose another --output") from error
    if other:
        raise UserError(f"{path}: of other {', '.join(other)}; choose another --output")
    return Results(path, about, metrics)


def _row(trial: Trial, metrics: dict[str, float]) -> dict[str, Any]:
    corruption, strength = PLAN[trial], trial[1]
    value = {"value": corruption.values[strength - 1]} if corruption else {}
    return {"corruption": trial[0], "strength": strength, **value, **plain(metrics)}


def _trial(row: dict[str, Any]) -> tuple[Trial, dict[str, float]]:
    trial = (row["corruption"], row["strength"])
    metrics = {name: number for name, number in row.items() if name not in ("corruption", "strength", "value")}
    return trial, {name: math.nan if number is None else float(number) for name, number in metrics.items()}


def complete(results: Results, detector: Detector, split: Split) -> None:
    """Evaluate what is missing; after each trial `results` are written."""
    trials = results.missing()
    with progress_bar(total=len(trials) * len(split.records), desc="evaluating", unit="image") as bar:
        for trial in trials:
            bar.set_description(" ".join(map(str, trial)))
            results.metrics[trial] = evaluate(detector, split, trial, results.about["seed"], bar)
            results.write()


def evaluate(detector: Detector, split: Split, trial: Trial, seed: int, bar: Any) -> dict[str, float]:
    """COCO's numbers in percent, as `CervicalCOCOEvaluator` has them; `bar` moves by one an image."""
    cells: list[tuple[int, Detection]] = []
    for number, image in disturbed_images(split, trial, seed):
        cells += [(number, cell) for cell in detector(in_format(image, detector.cfg.INPUT.FORMAT))]
        bar.update()
    tables = coco_tables(
        split.truth.boxes, _arrays(cells), num_classes=len(detector.class_names), max_dets=_caps(detector.cfg)
    )
    return summarize_coco(tables)


def disturbed_images(split: Split, trial: Trial, seed: int) -> Iterator[tuple[int, np.ndarray]]:
    """The number of each image, and the image under `trial`: (H, W, 3) uint8 RGB."""
    corruption = PLAN[trial]
    for number, record in zip(split.numbers, split.records, strict=True):
        image = read_image(record["file_name"], "RGB")
        yield number, corrupted(image, corruption, trial[1], seed=seed, number=number) if corruption else image


def in_format(image: np.ndarray, image_format: str) -> np.ndarray:
    """`image` ((H, W, 3) uint8 RGB) as a detector of that `INPUT.FORMAT` takes it."""
    return np.ascontiguousarray(convert_PIL_to_numpy(Image.fromarray(image), image_format))


def _caps(cfg: CfgNode) -> list[int]:
    return sorted({*COCO_CAPS, max(*COCO_CAPS, cfg.TEST.DETECTIONS_PER_IMAGE)})


def _arrays(cells: Sequence[tuple[int, Detection]]) -> Detections:
    """`cells` with the number of the image of each."""
    return Detections(
        image=np.array([number for number, _ in cells], np.int64),
        label=np.array([cell.category_id for _, cell in cells], np.int64),
        box=np.array([cell.box for _, cell in cells], float).reshape(-1, 4),
        score=np.array([cell.score for _, cell in cells], float),
    )
