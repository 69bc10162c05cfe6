"""Each head computes the box loss that its own key names, normalized as Detectron2 does, of its foreground alone."""

from pathlib import Path

import pytest
import torch
from box_loss_scenes import ANCHORS, CLASSES, IMAGES, KEY, LOSS, Scene, config, losses, part_of
from conftest import listing
from detectron2.modeling import build_model
from detectron2.modeling.box_regression import Box2BoxTransform
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage
from small_model import RETINANET
from torch import Tensor

from cervical_d2.config import load_config
from cervical_d2.engine.setup import prepare
from cervical_d2.errors import UserError
from cervical_d2.modeling.box_losses import BOX_LOSSES, DECODED_LOSSES
from cervical_d2.modeling.box_regression import box_loss_sum, dense_box_loss_sum

UPSTREAMS = ("smooth_l1", "giou", "diou", "ciou")
WEIGHTED = ("MODEL.RPN.BBOX_REG_LOSS_WEIGHT", 10, "MODEL.RPN.LOSS_WEIGHT", 0.5,
            "MODEL.ROI_BOX_HEAD.BBOX_REG_LOSS_WEIGHT", 7)  # fmt: skip
HEADS = [("rpn", True), ("rcnn", True), ("rcnn", False), ("retinanet", True)]  # with the only or the class's regressor


@pytest.mark.parametrize("weights", [(), WEIGHTED], ids=["1", "weighted"])
@pytest.mark.parametrize("name", UPSTREAMS)
@pytest.mark.parametrize(("head", "agnostic"), HEADS)
def test_losses_are_those_of_detectron2(head, agnostic, name, weights):
    options = (f"{KEY[head]}.BBOX_REG_LOSS_TYPE", name, "MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG", agnostic, *weights)
    ours, theirs = part_of(head, True, *options), part_of(head, False, *options)
    for seed in (0, 10):  # RetinaNet's normalizer moves on with each call
        scene = Scene(seed, 4 if agnostic else 4 * CLASSES)
        try:
            expected, slope = losses(theirs, scene, head)
        except ValueError as error:
            pytest.skip(f"this Detectron2 has no {name}: {error}")
        found, our_slope = losses(ours, scene, head)
        assert found.keys() == expected.keys()
        for key in found:
            torch.testing.assert_close(found[key], expected[key], rtol=1e-5, atol=0)
        torch.testing.assert_close(our_slope, slope, rtol=1e-4, atol=1e-7)
        if name == "smooth_l1":
            assert found == expected  # to the last bit
            assert torch.equal(our_slope, slope)


@pytest.mark.parametrize("head", KEY)
def test_defaults_are_detectron2s(head):
    scene = Scene()
    (ours, our_slope), (theirs, slope) = (losses(part_of(head, ours), scene, head) for ours in (True, False))
    assert ours == theirs
    assert torch.equal(our_slope, slope)


@pytest.mark.parametrize("name", BOX_LOSSES)
@pytest.mark.parametrize("head", KEY)
def test_each_loss_is_the_tables_over_the_foreground_and_the_heads_divisor(head, name):
    """By hand: decode or encode every foreground box, one value each, one sum, one division."""
    beta = "SMOOTH_L1_LOSS_BETA" if head == "retinanet" else "SMOOTH_L1_BETA"  # the table's beta is 1
    part = part_of(head, True, f"{KEY[head]}.BBOX_REG_LOSS_TYPE", name, f"{KEY[head]}.{beta}", 1)
    scene = Scene()
    found, _ = losses(part, scene, head)
    transform, chosen = part.box2box_transform, scene.kind == 0
    anchors, deltas, truth = scene.anchors.expand(IMAGES, -1, 4)[chosen], scene.deltas[chosen], scene.truth[chosen]
    if name in DECODED_LOSSES:
        values = BOX_LOSSES[name](transform.apply_deltas(deltas, anchors), truth)
    else:
        values = BOX_LOSSES[name](deltas, transform.get_deltas(anchors, truth))
    divisor = {
        "rpn": IMAGES * 256,  # anchors sampled an image
        "rcnn": IMAGES * ANCHORS,
        "retinanet": 0.9 * 100 + 0.1 * int(chosen.sum()),  # upstream's moving average after one step
    }[head]
    assert found[LOSS[head]].item() == pytest.approx(values.sum().item() / divisor, rel=1e-5)


def test_retinanet_weighs_its_box_loss_and_no_other():
    scene, key = Scene(), "MODEL.RETINANET.BBOX_REG_LOSS_WEIGHT"
    for name in ("smooth_l1", "giou"):
        loss = ("MODEL.RETINANET.BBOX_REG_LOSS_TYPE", name)
        plain, _ = losses(part_of("retinanet", True, *loss), scene, "retinanet")
        weighted, _ = losses(part_of("retinanet", True, *loss, key, 10), scene, "retinanet")
        assert weighted["loss_box_reg"].item() == pytest.approx(10 * plain["loss_box_reg"].item())
        assert weighted["loss_cls"] == plain["loss_cls"]


def test_retinanet_normalizes_by_the_image_alone_in_validation():
    part, scene = part_of("retinanet", True, "MODEL.RETINANET.BBOX_REG_LOSS_TYPE", "l2"), Scene()
    with torch.no_grad(), EventStorage():
        validated = part.losses(*scene.arguments("retinanet"))["loss_box_reg"].item()
    trained = losses(part, scene, "retinanet")[0]["loss_box_reg"].item()
    count = int((scene.kind == 0).sum())
    assert validated * count == pytest.approx(trained * (0.9 * 100 + 0.1 * count))


@pytest.mark.parametrize("head", KEY)
def test_a_head_follows_its_own_key(head):
    scene = Scene()
    plain, _ = losses(part_of(head, True), scene, head)
    others = [word for other in KEY if other != head for word in (f"{KEY[other]}.BBOX_REG_LOSS_TYPE", "l2")]
    assert losses(part_of(head, True, *others), scene, head)[0] == plain
    own, _ = losses(part_of(head, True, *others, f"{KEY[head]}.BBOX_REG_LOSS_TYPE", "giou"), scene, head)
    assert {key for key in plain if own[key] != plain[key]} == {LOSS[head]}


@pytest.mark.parametrize("name", BOX_LOSSES)
@pytest.mark.parametrize(("head", "agnostic"), HEADS)
def test_without_foreground_the_loss_is_a_zero_with_a_way_back(head, agnostic, name):
    options = ("MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG", agnostic, f"{KEY[head]}.BBOX_REG_LOSS_TYPE", name)
    scene = Scene(width=4 if agnostic else 4 * CLASSES)
    scene.kind.fill_(1)
    found, slope = losses(part_of(head, True, *options), scene, head)
    assert found[LOSS[head]] == 0
    assert not slope.any()


class Recorded(Box2BoxTransform):
    """Notes how many boxes it is asked for."""

    def __init__(self) -> None:
        super().__init__(weights=(1.0, 1.0, 1.0, 1.0))
        self.rows: list[int] = []

    def get_deltas(self, src_boxes: Tensor, target_boxes: Tensor) -> Tensor:
        self.rows.append(len(src_boxes))
        return super().get_deltas(src_boxes, target_boxes)

    def apply_deltas(self, deltas: Tensor, boxes: Tensor) -> Tensor:
        self.rows.append(len(boxes))
        return super().apply_deltas(deltas, boxes)


@pytest.mark.parametrize("name", ["l2", "giou"])
def test_only_the_foreground_is_decoded(name):
    scene, transform = Scene(), Recorded()
    anchors, _, _, deltas, truth = scene.arguments("rpn")
    foreground = scene.kind == 0
    total = dense_box_loss_sum(name, transform, anchors, deltas, truth, foreground)
    assert transform.rows == [int(foreground.sum())]
    one_by_one = [
        box_loss_sum(name, transform, scene.anchors[a, None], scene.deltas[n, a, None], scene.truth[n, a, None])
        for n, a in foreground.nonzero().tolist()
    ]
    torch.testing.assert_close(total, torch.stack(one_by_one).sum())


RCNN = ("MODEL.RPN.IN_FEATURES", ["p3", "p4", "p5", "p6"], "MODEL.ROI_HEADS.IN_FEATURES", ["p3", "p4", "p5"],
        "MODEL.ANCHOR_GENERATOR.SIZES", [[16], [32], [64], [128]])  # fmt: skip
REGRESSORS = {
    "rcnn": {
        "proposal_generator.rpn_head.anchor_deltas": "loss_rpn_loc",
        "roi_heads.box_predictor.bbox_pred": "loss_box_reg",
    },
    "retinanet": {"head.bbox_pred": "loss_box_reg"},
}


@pytest.mark.parametrize("name", BOX_LOSSES)
@pytest.mark.parametrize("arch", REGRESSORS)
def test_a_training_step_with_each_loss_moves_the_regressors(arch, name):
    torch.manual_seed(0)
    keys = [word for head in KEY.values() for word in (f"{head}.BBOX_REG_LOSS_TYPE", name)]
    model = build_model(config(*(RETINANET if arch == "retinanet" else RCNN), *keys))
    truth = Instances((64, 96), gt_boxes=Boxes([[8.0, 8.0, 38.0, 42.0]]), gt_classes=torch.tensor([1]))
    with EventStorage():
        found = model([{"image": torch.randint(0, 255, (3, 64, 96), dtype=torch.uint8), "instances": truth}])
    for part, key in REGRESSORS[arch].items():
        regressor = model.get_submodule(part)
        before = regressor.weight.clone()
        found[key].backward(retain_graph=True)
        torch.optim.SGD(regressor.parameters(), lr=1e-3).step()
        assert found[key] > 0
        assert regressor.weight.grad.any()
        assert regressor.weight.isfinite().all()
        assert not torch.equal(regressor.weight, before)


@pytest.mark.parametrize("word", ["goiu", "xyz", ""])
@pytest.mark.parametrize("head", KEY)
def test_a_misspelt_loss_is_refused_in_one_line_with_the_choices(tiny: Path, head, word):
    before = listing(tiny)
    cfg = load_config(str(tiny / "config.yaml"))
    cfg.merge_from_list([f"{KEY[head]}.BBOX_REG_LOSS_TYPE", word])
    with pytest.raises(UserError) as error:
        prepare(cfg)
    (line,) = str(error.value).splitlines()
    assert line.startswith(f"{KEY[head]}.BBOX_REG_LOSS_TYPE '{word}' is unknown")
    assert ", ".join(BOX_LOSSES) in line
    assert ("did you mean giou?" in line) == (word == "goiu")
    assert listing(tiny) == before
