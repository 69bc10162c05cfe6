"""Ignore regions do not count in training, in any detector, nor in evaluation; likely unlabeled cells do not either."""

import json
from pathlib import Path

import pytest
import torch
from conftest import ROOT
from detectron2.data import DatasetCatalog
from detectron2.data import transforms as T
from detectron2.modeling import build_model
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage
from evaluator_scenes import box, found, record, run, temporary_data_sets

from cervical_d2.config import load_config
from cervical_d2.data.mapper import DetectionMapper, labeled_instances
from cervical_d2.data.rotation import CellRotation
from cervical_d2.datasets.registry import resolve
from cervical_d2.evaluation.evaluator import CervicalCOCOEvaluator
from cervical_d2.modeling.unlabeled import Leniency
from cervical_d2.structures import LabeledInstances, ignore_regions, in_ignore_region

SIZE = (128, 128)
CELL, REGION = [8.0, 8.0, 40.0, 40.0], [64.0, 64.0, 128.0, 128.0]


def truth(regions=(), cells=(CELL,)) -> LabeledInstances:
    return LabeledInstances(
        SIZE,
        ignore=Boxes(torch.tensor(list(regions)).reshape(-1, 4)),
        gt_boxes=Boxes(torch.tensor(list(cells)).reshape(-1, 4)),
        gt_classes=torch.zeros(len(cells), dtype=torch.long),
    )


def model_of(name: str, *options):
    torch.manual_seed(0)
    small = ["MODEL.FPN.OUT_CHANNELS", "16", "MODEL.DEVICE", "cpu"]
    cfg = load_config(str(ROOT / "configs" / name), [*small, *map(str, options)])
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = cfg.MODEL.RETINANET.NUM_CLASSES = 2
    return build_model(cfg)


def rcnn(*options):
    return model_of("quick/demo.yaml", "MODEL.ROI_BOX_HEAD.FC_DIM", 32, *options)


def retinanet(*options):
    return model_of("retinanet_R_50_FPN.yaml", "MODEL.RETINANET.NUM_CONVS", 1, "MODEL.RESNETS.DEPTH", 50, *options)


def grid(step: int = 16) -> Boxes:
    """Squares of 16 px side by side over the image."""
    corner = torch.cartesian_prod(torch.arange(0, 128, step), torch.arange(0, 128, step)).float()
    return Boxes(torch.cat([corner, corner + 16], dim=1))


def test_regions_pass_through_device_and_are_not_cells():
    one = truth([REGION]).to("cpu")
    assert len(one) == 1
    assert ignore_regions(one).tensor.tolist() == [REGION]
    assert len(ignore_regions(Instances(SIZE))) == 0
    # Squares 4..7 of each axis lie in the region; one that is half in it counts, one that is less does not.
    assert int(in_ignore_region(grid(), one).sum()) == 16
    edges = Boxes(torch.tensor([[56.0, 80, 72, 96], [55.0, 80, 71, 96]]))
    assert in_ignore_region(edges, one).tolist() == [True, False]


def test_mapper_sets_regions_and_crowds_aside_and_turns_them_with_the_image(tiny: Path):
    document = json.loads((tiny / "train.json").read_text())
    document["annotations"][0] |= {"ignore": 1}
    document["annotations"][1] |= {"iscrowd": 1}
    (tiny / "train.json").write_text(json.dumps(document))
    one = DatasetCatalog.get(resolve(f"{tiny}/data.yaml:train"))[1]
    assert [note["category_id"] for note in one["annotations"]] == [-1, 1]
    sample = DetectionMapper([T.RandomFlip(1.0)], "RGB")(one)["instances"]
    assert len(sample) == 0
    flipped = [[96 - x - w, y, 96 - x, y + h] for x, y, w, h in (a["bbox"] for a in document["annotations"][:2])]
    assert ignore_regions(sample).tensor.tolist() == flipped


def test_a_region_is_still_covered_when_it_is_turned(tiny: Path):
    notes = [
        {"bbox": [40, 40, 60, 60], "bbox_mode": 0, "category_id": label, "iscrowd": crowd}
        for label, crowd in ((1, 0), (-1, 1))
    ]
    turned = labeled_instances(notes, T.TransformList([CellRotation(100, 100, 45, (0, 0, 0))]), (100, 100))
    # A square of side 20: its inscribed circle keeps its size, its corners reach 20 / sqrt(2) = 14.14 px out.
    assert turned.gt_boxes.tensor[0].tolist() == pytest.approx([40, 40, 60, 60])
    assert ignore_regions(turned).tensor[0].tolist() == pytest.approx([35.858, 35.858, 64.142, 64.142], abs=1e-3)


def test_what_is_left_of_a_cut_cell_is_not_learned_if_asked():
    notes = [
        {"bbox": [x, 10, x + 20, 30], "bbox_mode": 0, "category_id": 0, "iscrowd": 0} for x in (50, 85, 95)
    ]  # of 20 px in width 20, 15 and 5 stay in an image of 100
    some = labeled_instances(notes, T.TransformList([]), (100, 100), 0.5)
    assert some.gt_boxes.tensor.tolist() == [[50, 10, 70, 30], [85, 10, 100, 30]]
    assert ignore_regions(some).tensor.tolist() == [[95, 10, 100, 30]]
    every = labeled_instances(notes, T.TransformList([]), (100, 100))
    assert len(every) == 3
    assert len(ignore_regions(every)) == 0


def test_rpn_learns_no_background_from_a_region():
    rpn = rcnn().proposal_generator
    rpn.batch_size_per_image = 1000  # all of them
    labels, _ = rpn.label_and_sample_anchors([grid()], [truth([REGION])])
    inside = in_ignore_region(grid(), truth([REGION]))
    assert set(labels[0][inside].tolist()) == {-1}
    assert (labels[0][~inside] >= 0).sum() == 48
    # A cell inside the region is learned.
    labels, _ = rpn.label_and_sample_anchors([grid()], [truth([REGION], [[80.0, 80, 96, 96]])])
    assert labels[0][inside].tolist().count(1) == 1


def test_rpn_without_regions_samples_as_upstream():
    rpn = rcnn().proposal_generator
    rpn.batch_size_per_image = 20
    torch.manual_seed(3)
    ours, _ = rpn.label_and_sample_anchors([grid(8)], [truth()])
    torch.manual_seed(3)
    from detectron2.modeling.proposal_generator import RPN

    rpn._subsample_labels = lambda label: RPN._subsample_labels(rpn, label)
    theirs, _ = RPN.label_and_sample_anchors(rpn, [grid(8)], [truth()])
    assert torch.equal(ours[0], theirs[0])
    assert (ours[0] >= 0).sum() == 20


def test_second_stage_learns_no_background_from_a_region():
    heads = rcnn().roi_heads
    heads.batch_size_per_image, heads.positive_fraction = 1000, 1.0
    proposals = Instances(SIZE, proposal_boxes=grid(), objectness_logits=torch.zeros(64))
    in_region = [80.0, 80.0, 96.0, 96.0]
    with EventStorage():
        (plain,) = heads.label_and_sample_proposals([proposals], [truth(cells=[CELL, in_region])])
        (ours,) = heads.label_and_sample_proposals([proposals], [truth([REGION], [CELL, in_region])])
    # Of 64 squares 16 lie in the region, one of which is the cell there.
    assert (plain.gt_classes == 2).sum() - (ours.gt_classes == 2).sum() == 15
    assert (plain.gt_classes == 0).sum() == (ours.gt_classes == 0).sum()


def test_retinanet_learns_no_background_from_a_region():
    model = retinanet()
    labels, _ = model.label_anchors([grid()], [truth([REGION])])
    inside = in_ignore_region(grid(), truth([REGION]))
    assert set(labels[0][inside].tolist()) == {-1}
    assert set(labels[0][~inside].tolist()) <= {0, 2}


def test_likely_cells_are_spared_after_the_warm_up_only():
    scores, background = torch.tensor([0.9, 0.7, 0.69, 0.9]), torch.tensor([True, True, True, False])
    with EventStorage(100):
        assert Leniency(0.7, 100).spares(scores, background).tolist() == [True, True, False, False]
        assert not Leniency(0.7, 101).spares(scores, background).any()
        assert not Leniency(0.0, 0).spares(scores, background).any()


# Four samples: a cell, background that the model takes for a cell (0.9), other background, a sample not looked at.
LENIENT = ("MODEL.UNLABELED_SCORE", 0.7, "SOLVER.WARMUP_ITERS", 0)
FOUR = Boxes(torch.tensor([CELL, [0.0, 64, 32, 96], [64.0, 0, 96, 32], [96.0, 96, 128, 128]]))
LOGITS = torch.logit(torch.tensor([[0.2, 0.9, 0.6, 0.9]]))


def losses_of(lossy, *arguments) -> dict[str, float]:
    with EventStorage():
        return {name: value.item() for name, value in lossy.losses(*arguments).items()}


def test_rpn_is_not_taught_that_a_likely_cell_is_background():
    deltas, boxes = [torch.full((1, 4, 4), 0.1)], [FOUR.tensor]

    def loss(rpn, labels):
        return losses_of(rpn, [FOUR], [LOGITS], [torch.tensor(labels)], deltas, boxes)

    strict, lenient = rcnn().proposal_generator, rcnn(*LENIENT).proposal_generator
    assert loss(lenient, [1, 0, 0, -1]) == loss(strict, [1, -1, 0, -1]) != loss(strict, [1, 0, 0, -1])


def test_second_stage_is_not_taught_that_a_likely_cell_is_background():
    scores = torch.tensor([[0.2, 0.1, 0.7], [0.05, 0.9, 0.05], [0.3, 0.1, 0.6], [0.4, 0.3, 0.3]]).log()
    deltas = torch.full((4, 4), 0.1)

    def loss(heads, rows):
        first, second = rows[:2], rows[2:]  # two images
        proposals = [
            Instances(SIZE, proposal_boxes=FOUR[part], gt_boxes=FOUR[part], gt_classes=torch.tensor([0, 2, 2, 2])[part])
            for part in (first, second)
        ]
        return losses_of(heads.box_predictor, (scores[rows], deltas[rows]), proposals)

    strict, lenient = rcnn().roi_heads, rcnn(*LENIENT).roi_heads
    assert loss(lenient, [0, 1, 2, 3]) == pytest.approx(loss(strict, [0, 2, 3]))
    assert loss(strict, [0, 1, 2, 3])["loss_cls"] > loss(strict, [0, 2, 3])["loss_cls"]


def test_retinanet_is_not_taught_that_a_likely_cell_is_background():
    logits = torch.stack([LOGITS - 9, LOGITS], dim=2)  # the likelier of two classes counts
    deltas, boxes = [torch.full((1, 4, 4), 0.1)], [FOUR.tensor]

    def loss(model, labels):
        return losses_of(model, [FOUR], [logits], [torch.tensor(labels)], deltas, boxes)

    strict, lenient = retinanet(), retinanet(*LENIENT)
    assert loss(lenient, [0, 2, 2, -1]) == loss(strict, [0, -1, 2, -1]) != loss(strict, [0, 2, 2, -1])


def test_ignore_regions_are_neither_found_nor_wrong_for_any_class():
    region = box([400, 400, 100, 100], -1, ignore=1, iscrowd=1)
    records = [record(1, box([0, 0, 50, 50], 0), box([0, 90, 50, 50], 1), region)]
    # In the region two, of different classes and without it a mistake each, surer than the two that are right.
    boxes = [[410, 410, 430, 430], [440, 440, 470, 470], [0, 0, 50, 50], [0, 90, 50, 140]]
    outputs = [found(boxes, [0.9, 0.8, 0.7, 0.6], [0, 1, 0, 1])]
    with temporary_data_sets() as register:
        with_region = run(CervicalCOCOEvaluator(register(records)), records, outputs)["bbox"]
        records[0]["annotations"].pop()
        without = run(CervicalCOCOEvaluator(register(records)), records, outputs)["bbox"]
    for name in ("ascus", "flora"):
        assert with_region[f"AP50-{name}"] == pytest.approx(100)
        assert without[f"AP50-{name}"] == pytest.approx(50)
