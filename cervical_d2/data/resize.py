"""The resize of mmdetection, as an option.

Sizes are (width, height) in pixels; the arguments `h`, `w` of Detectron2's transforms have the height first.
"""

from collections.abc import Sequence

import cv2
import numpy as np
from detectron2.config import CfgNode
from detectron2.data import transforms as T
from fvcore.transforms.transform import Transform


def scaled_size(width: int, height: int, short: int, long: int) -> tuple[int, int]:
    """(width, height) scaled once by min(`long` / longer side, `short` / shorter side), rounded.

    Detectron2 first scales to `short` and then to `long`, which rounds differently for some sizes: 121 x 946 becomes
    171 x 1333 here and 170 x 1333 there. Source: Xu et al. 2022, Table 1; mmdetection's `rescale_size`.
    """
    scale = min(long / max(width, height), short / min(width, height))
    return int(width * scale + 0.5), int(height * scale + 0.5)


class OpenCVResize(Transform):
    """Bilinear resize with OpenCV, which does not anti-alias when it shrinks; Pillow does."""

    def __init__(self, h: int, w: int, new_h: int, new_w: int):
        super().__init__()
        self.h, self.w, self.new_h, self.new_w = h, w, new_h, new_w

    def apply_image(self, img: np.ndarray) -> np.ndarray:
        """Resize an image (H, W, C), uint8 or float."""
        return cv2.resize(img, (self.new_w, self.new_h), interpolation=cv2.INTER_LINEAR)

    def apply_coords(self, coords: np.ndarray) -> np.ndarray:
        """Scale (N, 2) x, y coordinates in place."""
        coords[:, 0] *= self.new_w / self.w
        coords[:, 1] *= self.new_h / self.h
        return coords

    def apply_segmentation(self, segmentation: np.ndarray) -> np.ndarray:
        """Resize (H, W) labels."""
        return cv2.resize(segmentation, (self.new_w, self.new_h), interpolation=cv2.INTER_NEAREST)

    def inverse(self) -> "OpenCVResize":
        """The resize back to the original size."""
        return OpenCVResize(self.new_h, self.new_w, self.h, self.w)


class Resize(T.Augmentation):
    """Detectron2's `ResizeShortestEdge` with other rounding or with OpenCV. It draws the same short sides."""

    def __init__(self, upstream: T.ResizeShortestEdge, *, once: bool, opencv: bool):
        """`once`: sizes by `scaled_size`; `opencv`: pixels by `OpenCVResize`."""
        super().__init__()
        self.upstream, self.once, self.opencv = upstream, once, opencv

    def get_transform(self, image: np.ndarray) -> Transform:
        """`image` (H, W, C)."""
        height, width = image.shape[:2]
        sides = self.upstream.short_edge_length
        short = int(np.random.randint(sides[0], sides[1] + 1) if self.upstream.is_range else np.random.choice(sides))
        if not short:
            return T.NoOpTransform()
        if self.once:
            new_w, new_h = scaled_size(width, height, short, self.upstream.max_size)
        else:
            new_h, new_w = self.upstream.get_output_shape(height, width, short, self.upstream.max_size)
        make = OpenCVResize if self.opencv else T.ResizeTransform
        return make(height, width, new_h, new_w)


def resized_as(cfg: CfgNode, augmentations: Sequence[T.Augmentation]) -> list[T.Augmentation]:
    """`augmentations` with their resize replaced by that of `INPUT.RESIZE_ROUNDING` and `INPUT.RESIZE_BY`."""
    once, opencv = cfg.INPUT.RESIZE_ROUNDING == "mmdetection", cfg.INPUT.RESIZE_BY == "opencv"
    return [
        Resize(item, once=once, opencv=opencv) if isinstance(item, T.ResizeShortestEdge) and (once or opencv) else item
        for item in augmentations
    ]
