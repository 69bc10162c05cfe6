"""What the first stage of a two-stage detector finds: cells that one of its best proposals meets, class by class.

A class that is lost here cannot be found by the second stage, whatever it has learned.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from cervical_d2.boxes import pairwise_iou
from cervical_d2.data.build import build_test_loader
from cervical_d2.errors import UserError
from cervical_d2.evaluation.ground_truth import open_split
from cervical_d2.evaluation.matching import Floats, Ints
from cervical_d2.evaluation.table import aligned
from cervical_d2.inference.detector import Detector
from cervical_d2.progress import progress_bar


class ProposalRecall(NamedTuple):
    """Of each of the classes, how many cells there are, and how many of them the best `limits` proposals meet."""

    classes: list[str]
    limits: list[int]
    cells: Ints  # (K,)
    met: Ints  # (L, K)


def proposal_recall(detector: Detector, dataset: str, limits: Sequence[int], iou: float) -> ProposalRecall:
    """On every image of `dataset` (a registered name), at the size at which `detector` tests it.

    A cell is met by a proposal of IoU `iou` or more with it; crowds and ignore regions are no cells. Proposals are
    ranked by objectness over all levels, after the suppression of overlapping ones. `MODEL.RPN.PRE_NMS_TOPK_TEST` is
    raised to the largest of `limits` where it is lower.

    Raises:
        UserError: a detector without a proposal stage, or of other classes than the dataset.
    """
    split, limits = open_split(dataset), sorted(set(limits))
    classes, data = split.classes, split.truth
    rpn: Any = getattr(detector.model, "proposal_generator", None)
    if not hasattr(rpn, "post_nms_topk"):
        raise UserError(f"{detector.cfg.MODEL.META_ARCHITECTURE} has no proposals; this is of detectors with an RPN")
    if detector.class_names != classes:
        raise UserError(
            f"{dataset}: classes {', '.join(classes)}; the detector knows {', '.join(detector.class_names)}"
        )
    rpn.pre_nms_topk[False], rpn.post_nms_topk[False] = max(rpn.pre_nms_topk[False], limits[-1]), limits[-1]
    wanted = ~(data.boxes.crowd | data.boxes.ignore)
    cells, met = np.zeros(len(classes), np.int64), np.zeros((len(limits), len(classes)), np.int64)
    for batch in progress_bar(build_test_loader(detector.cfg, dataset), desc="proposing", unit="image"):
        for item, boxes in zip(batch, propose(detector.model, batch), strict=True):
            rows = wanted & (data.boxes.image == data.images[item["image_id"]])
            label, best = data.boxes.label[rows], pairwise_iou(boxes, data.boxes.box[rows]) >= iou
            cells += np.bincount(label, minlength=len(classes))
            for place, limit in enumerate(limits):
                met[place] += np.bincount(label[best[:limit].any(axis=0)], minlength=len(classes))
    return ProposalRecall(classes, limits, cells, met)


def propose(model: Any, batch: Sequence[dict[str, Any]]) -> list[Floats]:
    """Of each image of `batch`, as Detectron2's loaders make it: (P, 4) XYXY in the image's own px, best first."""
    with torch.inference_mode():
        images = model.preprocess_image(batch)
        proposals, _ = model.proposal_generator(images, model.backbone(images.tensor), None)
    boxes = []
    for item, (height, width), proposal in zip(batch, images.image_sizes, proposals, strict=True):
        scale = np.array([item["width"] / width, item["height"] / height] * 2)
        boxes.append(proposal.proposal_boxes.tensor.cpu().double().numpy() * scale)
    return boxes


def recall_table(recall: ProposalRecall) -> str:
    """A row for each limit, a column for each class, in %."""
    share = 100 * np.divide(recall.met, recall.cells, out=np.full(recall.met.shape, np.nan), where=recall.cells > 0)
    header = ["proposals", *(f"{name} ({count})" for name, count in zip(recall.classes, recall.cells, strict=True))]
    return aligned(header, [[limit, *row.tolist()] for limit, row in zip(recall.limits, share, strict=True)])
