"""Which detection finds which true box: verdicts, from which `protocols` draws its curves. Arrays in, arrays out.

Another rule of matching is another `match_*` function that returns `Matches`.
"""

from collections.abc import Iterator
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from cervical_d2.boxes import Bools, Floats, box_area, pairwise_iou

# G true boxes and D detections of all images together; A area ranges, T IoU thresholds. Boxes are XYXY in
# pixels, areas in square pixels. An image is any number from 0; one with neither boxes nor detections changes
# nothing, so the set of images is not asked for. Of equal scores the lower image, then the earlier row, is first.

Ints = NDArray[np.int64]


class Truth(NamedTuple):
    """What is in the images."""

    image: Ints  # (G,)
    label: Ints  # (G,) classes from 0
    box: Floats  # (G, 4)
    area: Floats  # (G,) decides between small, medium and large; need not be the box's own
    crowd: Bools  # (G,) a region of many: any number of detections may lie in it
    ignore: Bools  # (G,) need not be found, and finding it is no mistake; crowds are ignored in any case


class Detections(NamedTuple):
    """What a model said is there."""

    image: Ints  # (D,)
    label: Ints  # (D,)
    box: Floats  # (D, 4)
    score: Floats  # (D,)


class Matches(NamedTuple):
    """Verdicts on the E detections within the cap per image and class, sorted by class, image, falling score.

    One that is neither correct nor wrong does not count: it is on an ignored box, or unmatched and of an area
    outside the range.
    """

    row: Ints  # (E,) its place in the detections
    label: Ints  # (E,)
    image: Ints  # (E,)
    score: Floats  # (E,)
    rank: Ints  # (E,) from 0, by score within image and class
    correct: Bools  # (A, T, E)
    wrong: Bools  # (A, T, E)
    box: Ints  # (A, T, E) the true box that it took, a row of the truth, or -1


Columns = TypeVar("Columns", Truth, Detections)


def select(columns: Columns, rows: NDArray[np.generic]) -> Columns:
    """The `rows` (indices or a mask) of every column."""
    return type(columns)(*(column[rows] for column in columns))


def outside(area: Floats, ranges: Floats) -> Bools:
    """Whether `area` (R,) is outside each of `ranges` (A, 2), whose ends belong to them; returns (A, R)."""
    return (area < ranges[:, :1]) | (area > ranges[:, 1:])


def match_coco(truth: Truth, detections: Detections, thresholds: Floats, ranges: Floats, cap: int) -> Matches:
    """COCO's rule: by falling score, each detection takes the best box that is still free.

    `thresholds`: (T,) of IoU; `ranges`: (A, 2) of area; `cap`: detections kept per image and class.
    Source: pycocotools `COCOeval.evaluateImg`, ties included.
    """
    row, rank = best_of(detections, cap)
    detections = select(detections, row)
    ignored = outside(truth.area, ranges) | truth.crowd | truth.ignore
    taken = np.full((len(ranges), len(thresholds), len(rank)), -1)
    excused = np.zeros(taken.shape, bool)
    for rows, boxes in meetings(detections, truth):
        iou = pairwise_iou(detections.box[rows], truth.box[boxes], truth.crowd[boxes])
        choice = _greedy(iou, ignored[:, boxes], truth.crowd[boxes], thresholds)
        taken[..., rows] = np.where(choice >= 0, boxes[choice], -1)
        on_ignored = np.take_along_axis(ignored[:, None, boxes], choice, axis=2)
        excused[..., rows] = (choice >= 0) & on_ignored
    matched = taken >= 0
    excused |= ~matched & outside(box_area(detections.box), ranges)[:, None]
    return Matches(
        row, detections.label, detections.image, detections.score, rank, matched & ~excused, ~matched & ~excused, taken
    )


def match_voc(truth: Truth, detections: Detections, thresholds: Floats, plus: float = 0) -> Matches:
    """VOC's rule: a detection may take the box that it overlaps most and no other; taken already, it is wrong.

    `thresholds`: (T,) of IoU; `plus` as in `boxes.box_iou`. A detection whose box is a crowd or ignored does not count.
    Source: mmdetection 2.28 `tpfp_default`.
    """
    row, rank = best_of(detections, len(detections.score))
    detections = select(detections, row)
    ignored = truth.crowd | truth.ignore
    nearest, iou = np.full(len(row), -1), np.zeros(len(row))
    for rows, boxes in meetings(detections, truth):
        boxes = boxes[np.argsort(ignored[boxes], kind="stable")]  # of equal ones the one that counts
        table = pairwise_iou(detections.box[rows], truth.box[boxes], plus=plus)
        nearest[rows], iou[rows] = boxes[table.argmax(axis=1)], table.max(axis=1)
    on_box = (iou >= thresholds[:, None]) & (nearest >= 0)
    excused = on_box & ignored[nearest] if len(ignored) else np.zeros_like(on_box)
    correct = np.zeros_like(on_box)
    for verdicts, candidates in zip(correct, on_box & ~excused, strict=True):
        places = np.flatnonzero(candidates)
        verdicts[places[np.unique(nearest[places], return_index=True)[1]]] = True
    taken = np.where(correct | excused, nearest, -1)
    columns = (row, detections.label, detections.image, detections.score, rank)
    return Matches(*columns, correct[None], (~correct & ~excused)[None], taken[None])


def best_of(detections: Detections, cap: int) -> tuple[Ints, Ints]:
    """The rows of the `cap` best of each image and class, sorted as in `Matches`, and their ranks."""
    order = np.lexsort((-detections.score, detections.image, detections.label))
    label, image = detections.label[order], detections.image[order]
    key = label * (image.max(initial=0) + 1) + image
    rank = np.arange(len(key)) - np.searchsorted(key, key)
    return order[rank < cap], rank[rank < cap]


def meetings(detections: Detections, truth: Truth) -> Iterator[tuple[slice, Ints]]:
    """For each image and class that has both: the rows of the sorted `detections`, and those of `truth`."""
    images = max(detections.image.max(initial=0), truth.image.max(initial=0)) + 1
    predicted = detections.label * images + detections.image
    wanted = truth.label * images + truth.image
    order = np.argsort(wanted, kind="stable")
    both = np.intersect1d(predicted, wanted)
    edges = [np.searchsorted(keys, both, side) for keys in (predicted, wanted[order]) for side in ("left", "right")]
    for start, stop, first, last in np.transpose(edges).tolist():
        yield slice(start, stop), order[first:last]


def _greedy(iou: Floats, ignored: Bools, crowd: Bools, thresholds: Floats) -> Ints:
    """The box that each detection takes, or -1, for all area ranges and thresholds at once.

    `iou`: (D, G), rows by falling score; `ignored`: (A, G); `crowd`: (G,); returns (A, T, D).
    """
    areas, boxes = ignored.shape
    choice = np.full((areas, len(thresholds), len(iou)), -1)
    taken = np.zeros((areas, len(thresholds), boxes), bool)
    # Ranks instead of the IoU make the order strict: a box that counts before any ignored one, then the higher
    # IoU, and of equal ones the later, which is what COCO's loop leaves standing.
    counts_first = boxes * ~ignored[:, None]
    for row in np.flatnonzero((iou >= thresholds.min()).any(axis=1)):
        place = np.argsort(np.argsort(iou[row], kind="stable"))
        free = (iou[row] >= thresholds[:, None]) & ~taken
        best = np.where(free, place + counts_first, -1).argmax(axis=2)
        area, threshold = np.nonzero(free.any(axis=2))
        box = best[area, threshold]
        choice[area, threshold, row] = box
        taken[area, threshold, box] = ~crowd[box]
    return choice
