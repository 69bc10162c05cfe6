"""Detections as files that other programs read."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cervical_d2.inference.detector import Detection


def coco_document(
    cells: Mapping[Path, Sequence[Detection]], sizes: Mapping[Path, tuple[int, int]], class_names: Sequence[str]
) -> dict[str, Any]:
    """COCO JSON with a `score` on each annotation; ids from 1. `sizes`: (width, height) in pixels."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for image_id, (path, own) in enumerate(cells.items(), start=1):
        width, height = sizes[path]
        images.append({"id": image_id, "file_name": str(path), "width": width, "height": height})
        for cell in own:
            x1, y1, x2, y2 = cell.box
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": cell.category_id + 1,
                    "bbox": [round(value, 2) for value in (x1, y1, x2 - x1, y2 - y1)],
                    "area": round((x2 - x1) * (y2 - y1), 2),
                    "iscrowd": 0,
                    "score": round(cell.score, 4),
                }
            )
    categories = [{"id": number, "name": name} for number, name in enumerate(class_names, start=1)]
    return {"images": images, "annotations": annotations, "categories": categories}
