"""Arrays of boxes for tests, with defaults for irrelevant fields."""

import numpy as np

from cervical_d2.evaluation.matching import Detections, Truth


def truth_of(boxes, labels=None, images=None, crowd=None, ignore=None, area=None) -> Truth:
    box = np.array(boxes, float).reshape(-1, 4)
    zeros = np.zeros(len(box), np.int64)
    return Truth(
        image=zeros if images is None else np.array(images),
        label=zeros if labels is None else np.array(labels),
        box=box,
        area=(box[:, 2:] - box[:, :2]).prod(axis=1) if area is None else np.array(area, float),
        crowd=zeros.astype(bool) if crowd is None else np.array(crowd, bool),
        ignore=zeros.astype(bool) if ignore is None else np.array(ignore, bool),
    )


def found_of(boxes, scores, labels=None, images=None) -> Detections:
    box = np.array(boxes, float).reshape(-1, 4)
    zeros = np.zeros(len(box), np.int64)
    return Detections(
        image=zeros if images is None else np.array(images),
        label=zeros if labels is None else np.array(labels),
        box=box,
        score=np.array(scores, float),
    )
