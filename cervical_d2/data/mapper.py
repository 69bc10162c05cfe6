"""From a dataset record to what the network gets."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import detection_utils
from detectron2.data import transforms as T

from cervical_d2.data.augmentation import cytology_augmentations
from cervical_d2.data.formats import Record
from cervical_d2.errors import UserError


def train_augmentations(cfg: CfgNode) -> list[T.Augmentation]:
    """Crop if asked for, multi-scale resize, flip, then what varies between smears and cameras.

    Raises `UserError` for a setting out of range.
    """
    crop = [T.RandomCrop(cfg.INPUT.CROP.TYPE, cfg.INPUT.CROP.SIZE)] if cfg.INPUT.CROP.ENABLED else []
    return [*crop, *detection_utils.build_augmentation(cfg, is_train=True), *cytology_augmentations(cfg)]


def test_augmentations(cfg: CfgNode) -> list[T.Augmentation]:
    """The resize of `INPUT.MIN_SIZE_TEST` and `MAX_SIZE_TEST`."""
    return list(detection_utils.build_augmentation(cfg, is_train=False))


def read_image(path: str, image_format: str) -> np.ndarray:
    """(H, W, 3) uint8 in `image_format`, turned upright by EXIF. Raises `UserError` if it cannot be read whole."""
    try:
        return detection_utils.read_image(path, image_format)
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such image; check the path") from error
    except (OSError, SyntaxError, ValueError) as error:
        raise UserError(f"{path}: not a whole, readable image ({error}); copy it again") from error


class DetectionMapper:
    """Reads, augments and packs one record: image (3, H, W) in `image_format`, instances with boxes in its pixels."""

    def __init__(self, augmentations: Sequence[T.Augmentation], image_format: str):
        self.augmentations = T.AugmentationList(augmentations)
        self.image_format = image_format

    def __call__(self, record: Record) -> dict[str, Any]:
        """`record` is not changed. Raises `UserError` for an image that cannot be read or is of another size."""
        image = read_image(record["file_name"], self.image_format)
        if image.shape[:2] != (record["height"], record["width"]):
            raise UserError(
                f"{record['file_name']}: is {image.shape[1]} x {image.shape[0]} px, but its annotations say "
                f"{record['width']} x {record['height']}; mend the annotations"
            )
        augmented = T.AugInput(image)
        transforms = self.augmentations(augmented)
        shape = augmented.image.shape[:2]
        annotations = [
            detection_utils.transform_instance_annotations(dict(annotation), transforms, shape)
            for annotation in record["annotations"]
            if not annotation.get("iscrowd", 0)
        ]
        instances = detection_utils.annotations_to_instances(annotations, shape)
        return {
            **{key: value for key, value in record.items() if key != "annotations"},
            "image": torch.as_tensor(np.ascontiguousarray(augmented.image.transpose(2, 0, 1))),
            "instances": detection_utils.filter_empty_instances(instances),
        }
