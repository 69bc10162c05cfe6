"""A trained checkpoint as three lines of Python: `for cell in Detector("model_best.pth")("smear.jpg"): ...`."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import transforms as T

from cervical_d2.checkpoint.checkpoint import Checkpoint
from cervical_d2.checkpoint.checkpointer import CervicalCheckpointer
from cervical_d2.config import load_config, load_dumped_config, set_num_classes
from cervical_d2.data.mapper import read_image, test_augmentations
from cervical_d2.errors import UserError
from cervical_d2.inference.device import usable_device
from cervical_d2.modeling import build_model
from cervical_d2.modeling.classifier import CellClassifier


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
    ):
        """Load `weights`.

        Args:
            config_file: instead of the checkpoint's own config.
            options: KEY, VALUE, ... on top of `config_file`.
            device: "cpu", "cuda", ...; by default CUDA where there is one.
            score_threshold: detections below it are left out; by default the config's, 0.05.

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
        if score_threshold is not None:
            self.cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST = score_threshold
            self.cfg.MODEL.RETINANET.SCORE_THRESH_TEST = score_threshold
        try:
            self.model = build_model(self.cfg).eval()
        except KeyError as error:
            raise UserError(f"{weights}: its config names a part of a network that is not here ({error})") from error
        if self.cfg.MODEL.CHANNELS_LAST:
            self.model = self.model.to(memory_format=torch.channels_last)
        CervicalCheckpointer(self.model, strict=True).load(checkpoint.path)
        self.resize = T.AugmentationList(test_augmentations(self.cfg))

    def __call__(self, image: str | Path | np.ndarray) -> list[Detection]:
        """Cells of one image, the surest first.

        Args:
            image: a file, or (H, W, 3) uint8 in the channel order of `INPUT.FORMAT` ("RGB" in our configs).

        Raises:
            UserError: the file cannot be read whole.
        """
        pixels = image if isinstance(image, np.ndarray) else read_image(str(image), self.cfg.INPUT.FORMAT)
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


def _config(checkpoint: Checkpoint, config_file: str, options: list[str]) -> CfgNode:
    if config_file:
        return load_config(config_file, options)
    if not checkpoint.config:
        raise UserError(f"{checkpoint.path}: carries no config; name one with --config-file")
    cfg = load_dumped_config(checkpoint.config, f"{checkpoint.path} (its config)")
    cfg.merge_from_list(options)
    return cfg
