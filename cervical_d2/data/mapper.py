"""From a dataset record to the network's input."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import detection_utils
from detectron2.data import transforms as T
from detectron2.structures import Boxes
from PIL import Image

from cervical_d2.data.augmentation import cytology_augmentations
from cervical_d2.data.resize import resized_as
from cervical_d2.datasets.formats import Record
from cervical_d2.datasets.images import deep_pixels
from cervical_d2.errors import UserError
from cervical_d2.structures import LabeledInstances, corners


def train_augmentations(cfg: CfgNode) -> list[T.Augmentation]:
    """Optional crop, multi-scale resize, flip, then `cytology_augmentations`.

    Raises `UserError` if a setting is out of range.
    """
    crop = [T.RandomCrop(cfg.INPUT.CROP.TYPE, cfg.INPUT.CROP.SIZE)] if cfg.INPUT.CROP.ENABLED else []
    upstream = resized_as(cfg, detection_utils.build_augmentation(cfg, is_train=True))
    return [*crop, *upstream, *cytology_augmentations(cfg)]


def test_augmentations(cfg: CfgNode) -> list[T.Augmentation]:
    """The resize of `INPUT.MIN_SIZE_TEST` and `MAX_SIZE_TEST`."""
    return resized_as(cfg, detection_utils.build_augmentation(cfg, is_train=False))


def read_image(path: str, image_format: str) -> np.ndarray:
    """(H, W, 3) uint8 in `image_format`, rotated according to EXIF.

    Raises:
        UserError: the file is broken, has more than 8 bits per channel, or is too large for one image.
    """
    try:
        with Image.open(path) as image:
            if deep := deep_pixels(image):
                raise UserError(f"{path}: {deep}; convert it to 8 bits a channel")
            # As `detection_utils.read_image`, which would open the file once more.
            return detection_utils.convert_PIL_to_numpy(detection_utils._apply_exif_orientation(image), image_format)
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such image; check the path") from error
    except PermissionError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); allow reading it") from error
    except Image.DecompressionBombError as error:
        limit = 2 * (Image.MAX_IMAGE_PIXELS or 0)
        raise UserError(f"{path}: has more than {limit:,} pixels, like a whole slide; cut it into tiles") from error
    except (OSError, SyntaxError, ValueError) as error:
        raise UserError(f"{path}: not a complete, readable image ({error}); copy it again") from error


class DetectionMapper:
    """Reads, augments and packs one record: image (3, H, W) in `image_format`, instances with boxes in its pixels."""

    def __init__(
        self,
        augmentations: Sequence[T.Augmentation],
        image_format: str,
        min_visible: float = 0.0,
        min_side: float = 0.0,
    ):
        """`min_visible`, `min_side`: see `labeled_instances`."""
        self.augmentations = T.AugmentationList(augmentations)
        self.image_format, self.min_visible, self.min_side = image_format, min_visible, min_side

    def __call__(self, record: Record) -> dict[str, Any]:
        """Map `record`, which is not changed. Raises `UserError` if the image is unreadable or has another size."""
        image = read_image(record["file_name"], self.image_format)
        if image.shape[:2] != (record["height"], record["width"]):
            raise UserError(
                f"{record['file_name']}: is {image.shape[1]} x {image.shape[0]} px, but its annotations say "
                f"{record['width']} x {record['height']}; correct the annotations"
            )
        augmented = T.AugInput(image)
        augmented.quarter_turns = record.get("quarter_turns")
        transforms = self.augmentations(augmented)
        shape = augmented.image.shape[:2]
        truth = labeled_instances(record["annotations"], transforms, shape, self.min_visible, self.min_side)
        return {
            **{key: value for key, value in record.items() if key != "annotations"},
            "image": torch.as_tensor(np.ascontiguousarray(augmented.image.transpose(2, 0, 1))),
            "instances": truth,
        }


def labeled_instances(
    annotations: Sequence[Record],
    transforms: T.TransformList,
    shape: tuple[int, int],
    min_visible: float = 0.0,
    min_side: float = 0.0,
) -> LabeledInstances:
    """The annotations after `transforms`, clipped to `shape` (height, width); boxes outside of it are dropped.

    Ignore regions and crowds become ignore regions, and so do cells with a visible share below `min_visible`. Cells
    whose width or height is below `min_side` (pixels of the original image) are dropped.
    """
    box = corners(annotations)
    kept = ((box[:, 2:] - box[:, :2]) >= min_side).all(axis=1)
    annotations, box = [annotation for annotation, keep in zip(annotations, kept, strict=True) if keep], box[kept]
    region = np.array([bool(annotation.get("iscrowd", 0)) for annotation in annotations], bool)
    label = np.array([annotation["category_id"] for annotation in annotations], np.int64)
    moved = transforms.apply_box(box) if len(box) else box
    moved[region] = _enclosures(box[region], transforms)
    boxes = Boxes(torch.as_tensor(moved, dtype=torch.float32))
    whole = boxes.area()
    boxes.clip(shape)
    shown = boxes.nonempty(threshold=1e-5)
    aside = torch.as_tensor(region) | (boxes.area() < min_visible * whole)
    return LabeledInstances(
        shape,
        ignore=boxes[shown & aside],
        gt_boxes=boxes[shown & ~aside],
        gt_classes=torch.as_tensor(label)[shown & ~aside],
    )


def _enclosures(box: np.ndarray, transforms: T.TransformList) -> np.ndarray:
    """(M, 4) the boxes around the transformed corners of each region, which cover all of it even after a rotation."""
    points = transforms.apply_coords(box[:, [0, 1, 2, 1, 2, 3, 0, 3]].reshape(-1, 2)).reshape(-1, 4, 2)
    return np.concatenate([points.min(axis=1), points.max(axis=1)], axis=1)
