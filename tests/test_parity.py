"""Each switch towards mmdetection against its rule, in loops or by hand; without them all is Detectron2's."""

import math

import pytest
import torch
from box_loss_scenes import CLASSES, KEY, LOSS, Scene, losses, part_of
from detectron2.structures import Boxes, Instances

from cervical_d2.errors import UserError
from cervical_d2.structures import LabeledInstances

FLOOR, PADDED, CLAMP = "MODEL.RPN.LOW_QUALITY_FLOOR", "MODEL.ANCHOR_GENERATOR.PADDED", "MODEL.CLAMP_DELTAS"
SAMPLES, BATCH = ("MODEL.RPN.LOSS_NORMALIZER", "samples"), ("MODEL.RETINANET.LOSS_NORMALIZER", "batch")
DENSE = ("rpn", "retinanet")


def image(boxes, size=(64, 64), regions=()) -> LabeledInstances:
    """Cells of class 1 in an image of `size` (height, width)."""
    return LabeledInstances(
        size,
        ignore=Boxes(torch.tensor(list(regions), dtype=torch.float32).reshape(-1, 4)),
        gt_boxes=Boxes(torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)),
        gt_classes=torch.ones(len(boxes), dtype=torch.long),
    )


def labeled(part, anchors, *truths):
    """Labels, 1 for a cell, 0 for background, and matched boxes of either dense head, without its sampling."""
    every = [Boxes(torch.as_tensor(anchors, dtype=torch.float32))]
    if hasattr(part, "label_and_sample_anchors"):
        part.batch_size_per_image, part.positive_fraction = 10**6, 0.5
        return part.label_and_sample_anchors(every, list(truths))
    labels, boxes = part.label_anchors(every, list(truths))
    return [torch.where(label == CLASSES, 0, label) for label in labels], boxes


def iou(a, b):
    w, h = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    shared = max(w, 0) * max(h, 0)
    return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)


# --- the floor of low-quality matches


@pytest.mark.parametrize(
    ("floor", "expected"),
    [(0, [1, 1, 1, 0]), (0.3, [1, 0, 1, 0]), (0.31, [1, 0, -1, 0]), (0.4, [-1, 0, -1, 0])],
)
def test_a_cells_best_anchor_needs_the_floor_by_hand(floor, expected):
    """Strips of a square of 100 px: of 32 px an IoU of 0.32, and so on; from 0.3 to 0.7 others are set aside."""
    cells = [[x, 0, x + 100, 100] for x in (0, 1000, 2000)]
    anchors = [[0, 0, 100, 32], [1000, 0, 1100, 29], [2000, 0, 2100, 30], [3000, 0, 3100, 100]]
    labels, _ = labeled(part_of("rpn", True, FLOOR, floor), anchors, image(cells, (4000, 4000)))
    assert labels[0].tolist() == expected


@pytest.mark.parametrize("floor", [-0.1, 30])
def test_a_floor_that_is_no_iou_is_refused(floor):
    with pytest.raises(UserError, match=rf"LOW_QUALITY_FLOOR is {floor}(\.0)?, an IoU; allowed: 0"):
        part_of("rpn", True, FLOOR, floor)


def by_the_rule(anchors, cells, floor):
    """mmdetection's three steps at 0.3 and 0.7, as loops."""
    label = []
    for anchor in anchors:
        best = max(iou(anchor, cell) for cell in cells)
        label.append(1 if best >= 0.7 else 0 if best < 0.3 else -1)
    for cell in cells:
        best = max(iou(anchor, cell) for anchor in anchors)
        for n, anchor in enumerate(anchors):
            if best >= floor and iou(anchor, cell) == best:
                label[n] = 1
    return label


@pytest.mark.parametrize("floor", [0, 0.3, 0.5, 0.99])
def test_labels_are_those_of_the_rule(floor):
    part, seen = part_of("rpn", True, FLOOR, floor), set()
    for seed in range(20):
        scene = Scene(seed)
        anchors, cells = scene.anchors.tolist(), scene.truth[0, :6].tolist()
        labels, _ = labeled(part, anchors, image(cells, (128, 128)))
        assert labels[0].tolist() == by_the_rule(anchors, cells, floor)
        seen.update(a != b for a, b in zip(labels[0].tolist(), by_the_rule(anchors, cells, 0), strict=True))
    assert (True in seen) == (floor > 0.2)  # nearly every cell here has an anchor of 0.2


def test_an_anchor_stays_with_the_cell_that_it_overlaps_most():
    """The best of both cells at IoUs of 0.8 and 0.4: mmdetection gives it to the later, and docs/parity.md says so."""
    cells = [[0, 0, 80, 100], [60, 0, 100, 100]]
    labels, boxes = labeled(part_of("rpn", True, FLOOR, 0.3), [[0, 0, 100, 100]], image(cells))
    assert labels[0].tolist() == [1]
    assert boxes[0].tolist() == cells[:1]


# --- the padding of the batch

SMALL_IMAGE = (40, 70)  # height, width: its own padding reaches to 64 x 96


@pytest.mark.parametrize("head", DENSE)
def test_anchors_beyond_an_images_own_padding_are_set_aside_by_hand(head):
    centers = [(10, 10), (95, 63), (69, 39), (96, 10), (10, 64), (120, 120), (95.5, 10)]
    anchors = [[x - 8, y - 8, x + 8, y + 8] for x, y in centers]
    cell = [2, 2, 18, 18]
    truths = [image([cell], SMALL_IMAGE), image([], (64, 96)), image([], (65, 97)), image([], (32, 128))]
    rows = labeled(part_of(head, True, PADDED, False), anchors, *truths)
    assert [label.tolist() for label in rows[0]] == [
        [1, 0, 0, -1, -1, -1, 0],
        [0, 0, 0, -1, -1, -1, 0],  # a multiple of 32 px already
        [0, 0, 0, 0, 0, -1, 0],  # up to 96 x 128
        [0, -1, -1, 0, -1, -1, 0],
    ]
    assert rows[1][0][0].tolist() == cell
    plain, _ = labeled(part_of(head, True), anchors, *truths)
    assert [label.tolist() for label in plain] == [[1, 0, 0, 0, 0, 0, 0], [0] * 7, [0] * 7, [0] * 7]


@pytest.mark.parametrize("head", DENSE)
def test_they_are_set_aside_before_the_matching(head):
    """Their best anchor is centered at x = 64, on the edge; the next, IoU 1/3, is the best in the padding."""
    anchors = [[52, 0, 76, 20], [34, 0, 54, 20], [0, 40, 10, 50]]
    truth = image([[44, 0, 64, 20]])
    (plain,), _ = labeled(part_of(head, True), anchors, truth)
    (ours,), (boxes,) = labeled(part_of(head, True, PADDED, False), anchors, truth)
    # RetinaNet calls background what is below 0.4, the RPN what is below 0.3.
    assert plain.tolist() == [1, -1 if head == "rpn" else 0, 0]
    assert ours.tolist() == [-1, 1, 0]
    assert boxes[1].tolist() == [44, 0, 64, 20]


def test_they_are_set_aside_before_the_sampling():
    part = part_of("rpn", True, PADDED, False)
    part.batch_size_per_image = 4
    inside = [[n, 0, n + 10, 10] for n in range(4)]
    beyond = [[90 + n, 0, 100 + n, 10] for n in range(50)]
    (label,), _ = part.label_and_sample_anchors([Boxes(torch.tensor([*beyond, *inside]).float())], [image([])])
    assert label.tolist() == [-1] * 50 + [0] * 4


@pytest.mark.parametrize("head", DENSE)
def test_ignore_regions_count_as_before(head):
    anchors = [[0, 0, 16, 16], [16, 0, 32, 16], [90, 0, 106, 16]]
    truth = image([], regions=[[0, 0, 16, 16]])
    (label,), _ = labeled(part_of(head, True, PADDED, False), anchors, truth)
    assert label.tolist() == [-1, 0, -1]


@pytest.mark.parametrize("size", [(800, 1067), (737, 1333), (1, 1), (640, 1344)])
@pytest.mark.parametrize("sizes", [[[32], [64], [128], [256], [512]], [[40.3175], [80.6349], [161.2699], [333.3], [7]]])
def test_they_are_mmdetections_valid_flags(sizes, size):
    """mmdetection counts cells: of a level of stride s those before ceil(padded side / s) are valid."""
    from detectron2.modeling.anchor_generator import DefaultAnchorGenerator

    strides = (4, 8, 16, 32, 64)
    generator = DefaultAnchorGenerator(sizes=sizes, aspect_ratios=[[0.5, 1.0, 2.0]], strides=strides, offset=0.0)
    anchors = generator([torch.zeros(1, 1, 1344 // stride, 1344 // stride) for stride in strides])
    height, width = (math.ceil(side / 32) * 32 for side in size)
    expected = [
        y < math.ceil(height / stride) and x < math.ceil(width / stride)
        for stride in strides
        for y in range(1344 // stride)
        for x in range(1344 // stride)
        for _ in range(3)
    ]
    part = part_of("rpn", True, PADDED, False)
    part.batch_size_per_image, part.positive_fraction = 10**6, 0.5
    (label,), _ = part.label_and_sample_anchors(anchors, [image([], size)])
    assert (label == 0).tolist() == expected


# --- all switches together


def everything(part, head):
    """What a part computes that a switch could change, by name."""
    scene = Scene(width=4)
    found, slope = losses(part, scene, head)
    out = {**found, f"slope of {LOSS[head]}": slope}
    deltas = torch.tensor([[0.0, 0, -30, 1], [0.5, 0.5, 1, 1]])
    out["decoded"] = part.box2box_transform.apply_deltas(deltas, scene.anchors[:2])
    if head in DENSE:
        cells = image([[0, 0, 100, 25], [20, 20, 60, 61]], (32, 64))
        plain = Instances((32, 64), **cells.get_fields())
        torch.manual_seed(0)
        anchors = [Boxes(torch.cat([scene.anchors, torch.tensor([[0.0, 0, 25, 25]])]))]
        label = part.label_and_sample_anchors if head == "rpn" else part.label_anchors
        (out["labels"],), (out["matched"],) = label(anchors, [plain])
        out["matched"] = out["matched"][out["labels"] == 1]
    return out


CHANGES = [
    ("rpn", (FLOOR, 0.4), {"labels", "matched"}),
    ("rpn", (PADDED, False), {"labels"}),
    ("rpn", SAMPLES, {"loss_rpn_cls", "loss_rpn_loc", "slope of loss_rpn_loc"}),
    ("rpn", BATCH, set()),
    ("rpn", (CLAMP, "both"), {"decoded"}),
    ("rcnn", (CLAMP, "both"), {"decoded"}),
    ("rcnn", (FLOOR, 0.4, PADDED, False, *SAMPLES, *BATCH), set()),
    ("retinanet", (PADDED, False), {"labels"}),
    ("retinanet", BATCH, {"loss_cls", "loss_box_reg", "slope of loss_box_reg"}),
    ("retinanet", (CLAMP, "both"), {"decoded"}),
    ("retinanet", (FLOOR, 0.4, *SAMPLES), set()),
]


@pytest.mark.parametrize(("head", "switch", "changed"), [*((head, (), set()) for head in KEY), *CHANGES])
def test_a_switch_changes_what_it_says_and_all_else_stays_detectron2s(head, switch, changed):
    options = ("MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG", True)
    ours = everything(part_of(head, True, *options, *switch), head)
    theirs = everything(part_of(head, False, *options), head)
    assert ours.keys() == theirs.keys()
    assert {name for name in theirs if not torch.equal(ours[name], theirs[name])} == changed
