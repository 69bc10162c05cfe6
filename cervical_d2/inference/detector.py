"""A trained checkpoint as three lines of Python: `for cell in Detector("model_best.pth")("smear.jpg"): ...`."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import transforms as T
from detectron2.data.detection_utils import convert_PIL_to_numpy
from PIL import Image, ImageOps

from cervical_d2.checkpoint.checkpoint import Checkpoint
from cervical_d2.checkpoint.checkpointer import CervicalCheckpointer
from cervical_d2.config import load_config, load_dumped_config, merge_options, set_num_classes
from cervical_d2.data.mapper import read_image, test_augmentations
from cervical_d2.datasets.images import deep_pixels
from cervical_d2.errors import UserError
from cervical_d2.inference.device import usable_device
from cervical_d2.modeling import build_model
from cervical_d2.modeling.classifier import CellClassifier

EXPECTED = "a path, an image of Pillow's, or an array (height, width, 3) of uint8, 0 to 255"


class Detection(NamedTuple):
    """One cell: its class, its id from 0, the score in [0, 1], and the box XYXY in the image's own pixels."""

    name: str
    category_id: int
    score: float
    box: tuple[float, float, float, float]


class Detector:
    """Finds cells in images, with the config and class names that the checkpoint carries."""

    def __init__(
        self,
        weights: str | Path,
        *,
        config_file: str = "",
        options: Iterable[str] = (),
        device: str | None = None,
        score_threshold: float | None = None,
        for_evaluation: bool = False,
    ):
        """Load `weights`.

        Args:
            config_file: instead of the checkpoint's own config.
            options: KEY, VALUE, ... on top of `config_file`.
            device: "cpu", "cuda", ...; by default CUDA where there is one.
            score_threshold: detections below it are left out; by default the config's TEST.SCORE, which is 0.5.
            for_evaluation: keep detections from the config's SCORE_THRESH_TEST (0.05) on, as AP needs them.

        Raises:
            UserError: no such file, one without a config, one that does not fit the config or holds numbers that are
                NaN or infinite, or no such device.
        """
        checkpoint = Checkpoint.open(weights)
        self.cfg = _config(checkpoint, config_file, list(options))
        if CellClassifier.__name__ == self.cfg.MODEL.META_ARCHITECTURE:
            raise UserError(f"{weights}: a classifier, which cannot detect; `cervical-d2 train-classifier` tests it")
        self.class_names = checkpoint.classes
        count = self.cfg.MODEL.ROI_HEADS.NUM_CLASSES
        if self.class_names:
            set_num_classes(self.cfg, len(self.class_names))
        else:
            self.class_names = [f"class {number}" for number in range(count)]
        self.cfg.MODEL.DEVICE = usable_device(device)
        if not for_evaluation:
            threshold = self.cfg.TEST.SCORE if score_threshold is None else score_threshold
            if not 0 <= threshold <= 1:
                raise UserError(f"a score threshold of {threshold}: scores are from 0 to 1")
            self.cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST = threshold
            self.cfg.MODEL.RETINANET.SCORE_THRESH_TEST = threshold
        try:
            self.model = build_model(self.cfg).eval()
        except KeyError as error:
            raise UserError(f"{weights}: its config names an unknown part of a network ({error})") from error
        if self.cfg.MODEL.CHANNELS_LAST:
            self.model = self.model.to(memory_format=torch.channels_last)
        CervicalCheckpointer(self.model, strict=True).load(checkpoint.path)
        self.resize = T.AugmentationList(test_augmentations(self.cfg))

    def __call__(self, image: str | Path | Image.Image | np.ndarray) -> list[Detection]:
        """Cells of one image, the surest first.

        Args:
            image: a file, an image of Pillow's, or an array as `pixels_of` takes it.

        Raises:
            UserError: the file cannot be read whole, or `image` is anything else.
        """
        image_format = self.cfg.INPUT.FORMAT
        pixels = (
            read_image(str(image), image_format) if isinstance(image, str | Path) else pixels_of(image, image_format)
        )
        resized = T.AugInput(pixels)
        self.resize(resized)
        tensor = torch.as_tensor(np.ascontiguousarray(resized.image.transpose(2, 0, 1)))
        height, width = pixels.shape[:2]
        with torch.inference_mode():
            instances = self.model([{"image": tensor, "height": height, "width": width}])[0]["instances"].to("cpu")
        return sorted(self._detections(instances), key=lambda cell: -cell.score)

    def _detections(self, instances: Any) -> Iterator[Detection]:
        boxes = instances.pred_boxes.tensor.tolist()
        for box, score, label in zip(boxes, instances.scores.tolist(), instances.pred_classes.tolist(), strict=True):
            yield Detection(self.class_names[label], label, score, tuple(box))


def pixels_of(image: object, image_format: str) -> np.ndarray:
    """(H, W, 3) uint8 in `image_format` of an image in memory.

    Taken are Pillow's images of 8 bits a channel, turned by EXIF as files are, and uint8 arrays: (H, W, 3) in the
    channel order of `image_format`, as they are; (H, W, 4), without the last channel; (H, W) and (H, W, 1), gray, with
    three equal channels.

    Raises:
        UserError: anything else, such as channels first, and numbers of another range.
    """
    if isinstance(image, Image.Image):
        if deep := deep_pixels(image):
            raise UserError(f"the image {deep}; convert it to 8 bits a channel")
        image = convert_PIL_to_numpy(ImageOps.exif_transpose(image), image_format)
    if not isinstance(image, np.ndarray):
        raise UserError(f"{type(image).__name__} is no image; give {EXPECTED}")
    gray = image.ndim == 2 or (image.ndim == 3 and image.shape[2] == 1)
    if image.dtype != np.uint8 or not image.size or not (gray or (image.ndim == 3 and image.shape[2] in (3, 4))):
        raise UserError(f"an array of shape {image.shape}, {image.dtype}, is no image; give {EXPECTED}")
    return np.repeat(image.reshape(*image.shape[:2], 1), 3, axis=2) if gray else image[..., :3]


def _config(checkpoint: Checkpoint, config_file: str, options: list[str]) -> CfgNode:
    if config_file:
        return load_config(config_file, options)
    if not checkpoint.config:
        raise UserError(f"{checkpoint.path}: carries no config; name one with --config-file")
    cfg = load_dumped_config(checkpoint.config, f"{checkpoint.path} (its config)")
    merge_options(cfg, options)
    return cfg
