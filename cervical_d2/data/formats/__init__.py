"""Readers of annotation formats. A new format is a module with `read` and a row here."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from cervical_d2.data.classes import ClassTable

Record = dict[str, Any]
"""A Detectron2 dataset dict: file_name, image_id, height, width (pixels), annotations (bbox in pixels, bbox_mode,
category_id contiguous from 0, iscrowd); `group_id` (slide or patient) where known."""


class Source(NamedTuple):
    """Where a split lies: all paths resolved, `subset` a file that lists image stems, or None."""

    name: str
    images: Path
    annotations: Path
    subset: Path | None
    classes: ClassTable


def reader(name: str) -> Callable[[Source], list[Record]]:
    """The reader of the format `name`; imported here so that registering a data set stays cheap."""
    from cervical_d2.data.formats import coco, synthetic, voc

    return {"coco": coco.read, "voc": voc.read, "synthetic": synthetic.read}[name]


FORMATS = ("coco", "voc", "synthetic")
