"""A threshold does not solve the demo, even with class names and scores from an oracle.

Shapes: boxes are XYWH in pixels, features and masks (H, W).
"""

import contextlib
import io
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import pytest
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from cervical_d2.demo.scenes import CLASSES, Cell, Scene, draw_scene

Field = Callable[[np.ndarray], np.ndarray]


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return [draw_scene(0, "val", index) for index in range(40)]


def darkness(image: np.ndarray) -> Any:
    return 255 - cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)


def saturation(image: np.ndarray) -> Any:
    return cv2.cvtColor(image, cv2.COLOR_RGB2HSV)[..., 1]


def redness(image: np.ndarray) -> np.ndarray:
    return 255 - image[..., 2]  # blue light: what orange and eosin absorb


def otsu(values: np.ndarray) -> float:
    return cv2.threshold(values.reshape(-1, 1), 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)[0]


def body_mask(feature: np.ndarray) -> np.ndarray:
    """Cytoplasm and nuclei: everything above Otsu's threshold."""
    return feature > otsu(feature)


def nucleus_mask(feature: np.ndarray) -> np.ndarray:
    """The darkest things: Otsu again among the foreground."""
    return feature > otsu(feature[body_mask(feature)])


def faint_mask(feature: np.ndarray) -> np.ndarray:
    """Pale bodies too: half of Otsu's distance from the background."""
    background = float(np.median(feature))
    return feature > background + 0.5 * max(otsu(feature) - background, 4)


def components(mask: np.ndarray) -> list[list[float]]:
    """XYWH boxes of the connected components after a small opening, specks left out."""
    opened = cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
    _, _, stats, _ = cv2.connectedComponentsWithStats(opened)
    return [[x, y, w, h] for x, y, w, h, area in stats[1:].tolist() if area >= 40]


def oracle_detections(scenes: list[Scene], feature: Field, mask: Field) -> list[dict]:
    """Components with the class of the best-overlapping cell and that overlap as score; the others are dropped.

    Both the name and the order come from the ground truth: no real threshold method can do better.
    """
    found = []
    for image_id, scene in enumerate(scenes, 1):
        truth = [row(cell) for cell in scene.cells]
        for box in components(mask(feature(scene.image))):
            ious = np.ravel(coco_mask.iou([box], [cell["bbox"] for cell in truth], [0] * len(truth)))
            if ious.any():
                best = truth[int(ious.argmax())]
                found.append({**best, "image_id": image_id, "bbox": box, "score": float(ious.max())})
    return found


def numbered(scenes: list[Scene]) -> list[tuple[int, Cell]]:
    return [(image_id, cell) for image_id, scene in enumerate(scenes, 1) for cell in scene.cells]


def row(cell: Cell) -> dict:
    left, top, right, bottom = cell.box
    return {"category_id": CLASSES.index(cell.label) + 1, "bbox": [left, top, right - left, bottom - top]}


def ap50(scenes: list[Scene], detections: list[dict]) -> float:
    """COCO's AP at IoU 0.5 in percent."""
    truth = COCO()
    truth.dataset = {
        "info": {},
        "images": [{"id": i} for i in range(1, len(scenes) + 1)],
        "categories": [{"id": i, "name": name} for i, name in enumerate(CLASSES, 1)],
        "annotations": [
            {"id": number, "image_id": image_id, "iscrowd": 0, "area": float(cell.mask.sum()), **row(cell)}
            for number, (image_id, cell) in enumerate(numbered(scenes), 1)
        ],
    }
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
        run = COCOeval(truth, truth.loadRes(detections), "bbox")
        run.evaluate()
        run.accumulate()
        run.summarize()
    return 100 * float(run.stats[1])


def test_the_score_of_perfect_detections_is_100(scenes: list[Scene]) -> None:
    perfect = [{"image_id": image_id, "score": 1.0, **row(cell)} for image_id, cell in numbered(scenes)]
    assert ap50(scenes, perfect) == pytest.approx(100)


def test_thresholds_with_oracle_labels_stay_under_50(scenes: list[Scene]) -> None:
    scores = {
        f"{mask.__name__} of {feature.__name__}": ap50(scenes, oracle_detections(scenes, feature, mask))
        for feature in (darkness, saturation, redness)
        for mask in (body_mask, nucleus_mask, faint_mask)
    }
    print({name: round(score, 1) for name, score in scores.items()})
    assert max(scores.values()) < 50
    assert max(scores.values()) > 5  # a broken baseline would prove nothing
