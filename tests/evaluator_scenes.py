"""Small registered datasets, and plausible detections for them."""

import contextlib
import itertools

import numpy as np
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import Boxes, BoxMode, Instances

OVERALL = ["mAP", "AR", "AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl"]
CLASSES = ["ascus", "flora", "herps"]
FILES = {"metrics.json", "metrics.txt", "predictions.json"}
NUMBER = itertools.count()


@contextlib.contextmanager
def temporary_data_sets():
    """A function that registers records under a new name. All are removed at the end."""
    names = []

    def add(records, **metadata):
        names.append(f"test_evaluator_{next(NUMBER)}")
        DatasetCatalog.register(names[-1], lambda: records)
        MetadataCatalog.get(names[-1]).set(**{"thing_classes": CLASSES, **metadata})
        return names[-1]

    yield add
    for name in names:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


def box(xywh, category=0, **more):
    return {"bbox": xywh, "bbox_mode": BoxMode.XYWH_ABS, "category_id": category, "iscrowd": 0, **more}


def record(image_id, *annotations, **more):
    return {
        "file_name": f"{image_id}.png",
        "image_id": image_id,
        "height": 800,
        "width": 800,
        "annotations": list(annotations),
        **more,
    }


def found(xyxy, scores, classes):
    instances = Instances((800, 800))
    instances.pred_boxes = Boxes(torch.tensor(xyxy, dtype=torch.float32).reshape(-1, 4))
    instances.scores = torch.tensor(scores, dtype=torch.float32)
    instances.pred_classes = torch.tensor(classes, dtype=torch.int64)
    return {"instances": instances}


NOTHING = found([], [], [])


def run(evaluator, records, outputs, **options):
    evaluator.reset()
    for image, output in zip(records, outputs, strict=False):
        evaluator.process([image], [output])
    return evaluator.evaluate(**options)


def random_scene(seed=0, num_images=10):
    """Records whose last class is empty, ids falling, a crowd, an image of nothing; and detections on most boxes."""
    rng = np.random.default_rng(seed)
    records, outputs = [], []
    for number in range(num_images):
        count = rng.integers(1, 9) if number != 4 else 0
        corner, size = rng.integers(0, 2000, (count, 2)) / 4, rng.integers(40, 800, (count, 2)) / 4
        boxes, labels = np.hstack([corner, size]), rng.integers(0, 2, count)
        annotations = [box(b.tolist(), int(k)) for b, k in zip(boxes, labels, strict=True)]
        if annotations:
            annotations[0]["iscrowd"] = int(number % 3 == 0)
        records.append(record(100 - number, *annotations))
        rows = np.repeat(np.arange(count), 2)
        xyxy = np.hstack([corner, corner + size])[rows] + rng.normal(0, 5, (2 * count, 4))
        outputs.append(found(xyxy, rng.random(2 * count).round(1), labels[rows]))
    return records, outputs
