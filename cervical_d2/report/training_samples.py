"""Pictures of training samples, as the loader makes them, beside their original images."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.detection_utils import convert_image_to_rgb

from cervical_d2.data.build import build_train_loader, records_of
from cervical_d2.data.loader import BatchPlan, TrainLoader
from cervical_d2.data.mapper import read_image
from cervical_d2.datasets.formats import Record
from cervical_d2.datasets.registry import has_images, resolve
from cervical_d2.draw import Box, draw_boxes
from cervical_d2.errors import UserError
from cervical_d2.report.pictures import beside, captioned, spread, truth_boxes, write_pictures

COMMAND = "visualize"
DRAWS = 3  # training samples beside each image
HIGHEST = 480  # px; largest height of a panel in a row of training samples
LEGIBLE = 400  # px; least longer side of a picture with text on it


def draw_truth(dataset: str, output: Path, count: int, *, labels: bool = True) -> list[Path]:
    """Draw `count` evenly spaced images of the registered split with their annotations, and a sheet of the first six.

    `labels`: write the class beside each box. Boxes without images are drawn on light gray. Returns the files, the
    sheet first. Raises `UserError` before anything is written.
    """
    names = MetadataCatalog.get(dataset).thing_classes
    if has_images(dataset):
        chosen, read = readable(spread(records_of((dataset,)), count)), image_of
    else:
        chosen, read = spread(DatasetCatalog.get(dataset), count), blank
    # Images of single cells are enlarged, so that text fits.
    scales = (max(1.0, LEGIBLE / max(record["height"], record["width"])) for record in chosen)
    shown = names if labels else [""] * len(names)
    drawn = (truth(record, read(record), shown, scale) for record, scale in zip(chosen, scales, strict=True))
    return write_pictures(output, COMMAND, chosen, drawn, names)


def draw_training_samples(
    dataset: str, output: Path, cfg: CfgNode, count: int, draws: int = DRAWS, *, labels: bool = True
) -> list[Path]:
    """`draw_truth` with the first `draws` training samples of each image beside it.

    They are the samples of a training with `cfg` from its first iteration on: same seed, order and augmentations. If
    `dataset` is not in `cfg.DATASETS.TRAIN`, they are those of a training on `dataset` only. `cfg` is changed.
    """
    if draws < 1 or cfg.SEED < 0:
        raise UserError(f"--draws {draws} --seed {cfg.SEED}: write at least 1 and 0")
    trained = tuple(map(resolve, cfg.DATASETS.TRAIN))
    cfg.DATASETS.TRAIN = trained if dataset in trained else (dataset,)
    names = MetadataCatalog.get(dataset).thing_classes
    loader = build_train_loader(cfg)
    wanted = {record["file_name"] for record in records_of((dataset,))}
    places = [place for place, record in enumerate(loader.dataset.records) if record["file_name"] in wanted]
    chosen = readable(spread([{**loader.dataset.records[place], "place": place} for place in places], count))
    times = training_samples(loader.plan, [record["place"] for record in chosen], draws)
    shown = names if labels else [""] * len(names)
    rows = (row(record, loader, times[record["place"]], shown, cfg.INPUT.FORMAT) for record in chosen)
    return write_pictures(output, COMMAND, chosen, rows, names, columns=1)


def readable(records: Sequence[Record]) -> Sequence[Record]:
    """`records`, after reading their images, so that a broken image raises before anything is written."""
    for record in records:
        image_of(record)
    return records


def training_samples(plan: BatchPlan, images: Sequence[int], draws: int) -> dict[int, list[tuple[int, int]]]:
    """{image: [(iteration, position)]}: the first `draws` times at which the `plan` uses each of `images` (indices)."""
    times: dict[int, list[tuple[int, int]]] = {image: [] for image in images}
    iteration = 0
    while any(len(of_image) < draws for of_image in times.values()):
        for position, image in plan.batch_at(iteration):
            if image in times and len(times[image]) < draws:
                times[image].append((iteration, position))
        iteration += 1
    return times


def row(
    record: Record, loader: TrainLoader, times: Sequence[tuple[int, int]], names: Sequence[str], image_format: str
) -> np.ndarray:
    """`record` with its annotations, then its training samples at `times`; (H, W, 3) uint8 RGB.

    All samples have the same scale, so that their sizes can be compared. The image is as high as the highest sample.
    """
    samples = [_sample(loader, position, record["place"]) for _, position in times]
    highest = max(sample["image"].shape[1] for sample in samples)
    scale = min(1.0, HIGHEST / highest)
    panels = [truth(record, image_of(record), names, scale * highest / record["height"])]
    for (iteration, _), sample in zip(times, samples, strict=True):
        panels.append(presented(sample, names, image_format, f"iteration {iteration}", scale))
    return beside(panels)


def _sample(loader: TrainLoader, position: int, image: int) -> dict[str, Any]:
    sample = loader.dataset[position, image]
    if isinstance(sample, UserError):
        raise sample
    return sample


def image_of(record: Record) -> np.ndarray:
    """The image of `record`, (H, W, 3) uint8 RGB. Raises `UserError` if it cannot be read."""
    return read_image(record["file_name"], "RGB")


def blank(record: Record) -> np.ndarray:
    """A light gray image of the size of `record`; (H, W, 3) uint8."""
    return np.full((record["height"], record["width"], 3), 240, np.uint8)


def truth(record: Record, image: np.ndarray, names: Sequence[str], scale: float = 1.0) -> np.ndarray:
    """`image` with the annotations of `record`, below a caption with name, size and number of boxes; uint8 RGB."""
    return _panel(image, truth_boxes(record, names), Path(record["file_name"]).stem, scale)


def presented(
    sample: dict[str, Any], names: Sequence[str], image_format: str, title: str, scale: float = 1.0
) -> np.ndarray:
    """A mapper's `sample` as a picture with its boxes; (H, W, 3) uint8 RGB."""
    pixels = sample["image"].permute(1, 2, 0).numpy()
    image = np.clip(convert_image_to_rgb(pixels, image_format), 0, 255).round().astype(np.uint8)
    given, classes = sample["instances"].gt_boxes.tensor.tolist(), sample["instances"].gt_classes.tolist()
    boxes = [Box(box, label, names[label] if label >= 0 else "") for box, label in zip(given, classes, strict=True)]
    return _panel(np.ascontiguousarray(image), boxes, title, scale)


def _panel(image: np.ndarray, boxes: Sequence[Box], title: str, scale: float) -> np.ndarray:
    """Draw boxes after scaling, so that lines and text stay readable. The caption gives the size before scaling."""
    height, width = image.shape[:2]
    counted = sum(item.category_id >= 0 for item in boxes)
    title += f": {width} x {height} px, {counted} box{'es' * (counted != 1)}"
    shown = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    return captioned(draw_boxes(shown, [item.scaled(scale) for item in boxes]), title)
