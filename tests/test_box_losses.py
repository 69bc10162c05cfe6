"""The box losses one by one: published values and slopes, torchvision's values, and no NaN for degenerate boxes."""

import pytest
import torch
from box_loss_scenes import random_boxes
from torch.autograd import gradcheck
from torchvision import ops

from cervical_d2.modeling import box_losses
from cervical_d2.modeling.box_losses import BOX_LOSSES, DECODED_LOSSES, DELTA_LOSSES

EIGHT = {"l1", "l2", "smooth_l1", "balanced_l1", "iou", "giou", "diou", "ciou"}
PAIRS = (
    ([0, 0, 10, 10], [5, 0, 15, 10]),  # 50 shared of 150, enclosing 150: GIoU's term is 0; DIoU's 25 / 325
    ([2, 2, 8, 6], [0, 0, 10, 10]),  # inside: 24 of 100; DIoU's 1 / 200; shapes differ, IoU below the gate
    ([0, 0, 10, 10], [20, 30, 40, 40]),  # disjoint: union 300, enclosing 1600: 1 + 13/16; DIoU's 25^2 + 30^2 of 3200
    ([0, 0, 10, 8], [0, 0, 10, 10]),  # 80 of 100, above the gate
    ([0, 0, 20, 10], [0, 0, 10, 20]),  # 100 of 300, enclosing 400: + 1/4; DIoU's 50 / 800
)
# Computed in fp64 with independent implementations.
PUBLISHED = {
    "iou_log": (1.09861229, 1.42711636, 13.81551056, 0.22314355, 1.09861229),
    "iou": (0.66666667, 0.76, 1, 0.2, 0.66666667),
    "giou": (0.66666667, 0.76, 1.8125, 0.2, 0.91666667),
    "diou": (0.74358974, 0.765, 1.4765625, 0.205, 0.72916667),
    "ciou_gated": (0.74358974, 0.765, 1.4765625, 0.20512016, 0.72916667),
    "ciou": (0.74358974, 0.76532146, 1.47825196, 0.20512016, 0.76291833),
}
# One value for each |x|.
DISTANCES = (0.1, 0.5, 1.0, 2.0)
BY_DISTANCE = {
    "l1": DISTANCES,
    "l2": (0.01, 0.25, 1, 4),
    "smooth_l1": (0.005, 0.125, 0.5, 1.5),
    "balanced_l1": (0.03135309, 0.40056751, 1.07859354, 2.57859354),
    # The printed form lacks - 0.5 |x| below 1; continuous, it lies 0.5 higher beyond.
    "balanced_l1_printed": (0.08135309, 0.65056751, 1.57859354, 3.07859354),
}
# Slopes at |x| = 0+, 1-, 1+ and 3.
SLOPES = {
    "l1": (1, 1, 1, 1),
    "l2": (0, 2, 2, 6),
    "smooth_l1": (0, 1, 1, 1),
    "balanced_l1": (0, 1.5, 1.5, 1.5),
    "balanced_l1_printed": (0.5, 2.0, 1.5, 1.5),
}
TORCHVISION = {
    "giou": ops.generalized_box_iou_loss,
    "diou": ops.distance_box_iou_loss,
    "ciou": ops.complete_box_iou_loss,
}


def at(values, signs=(1, -1, 1, -1)) -> torch.Tensor:
    """Deltas (R, 4), for each of `values` one row that has it once, at another coordinate and with another sign."""
    rows = torch.zeros(len(values), 4, dtype=torch.float64)
    for number, value in enumerate(values):
        rows[number, number % 4] = value * signs[number % 4]
    return rows


def slope(loss, pred: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    pred = pred.clone().requires_grad_()
    loss(pred, target).sum().backward()
    assert pred.grad is not None
    return pred.grad


def test_table_holds_the_promised_losses_and_says_what_they_take():
    assert set(BOX_LOSSES) >= EIGHT
    assert set(DELTA_LOSSES) == set(BY_DISTANCE)
    assert set(DECODED_LOSSES) == set(PUBLISHED)


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_values_of_losses_on_boxes(name):
    pred, target = (torch.tensor(boxes, dtype=torch.float64) for boxes in zip(*PAIRS, strict=True))
    assert BOX_LOSSES[name](pred, target).tolist() == pytest.approx(PUBLISHED[name], abs=1e-8)
    assert BOX_LOSSES[name](pred.float(), target.float()).tolist() == pytest.approx(PUBLISHED[name], rel=1e-6)


@pytest.mark.parametrize("name", BY_DISTANCE)
def test_published_values_of_losses_on_deltas(name):
    pred = at(DISTANCES)
    assert BOX_LOSSES[name](pred, torch.zeros_like(pred)).tolist() == pytest.approx(BY_DISTANCE[name], abs=1e-8)
    # Only the difference counts, and the four coordinates are summed.
    moved = BOX_LOSSES[name](pred + 3, torch.full_like(pred, 3.0))
    assert moved.tolist() == pytest.approx(BY_DISTANCE[name], abs=1e-8)
    every = torch.tensor([DISTANCES], dtype=torch.float64)
    assert BOX_LOSSES[name](every, every * 0).item() == pytest.approx(sum(BY_DISTANCE[name]), abs=4e-8)


@pytest.mark.parametrize("name", SLOPES)
def test_slopes_of_losses_on_deltas(name):
    near = 1e-9
    pred = at((near, 1 - near, 1 + near, 3))
    slopes = slope(BOX_LOSSES[name], pred, torch.zeros_like(pred))
    assert slopes.abs().sum(dim=1).tolist() == pytest.approx(SLOPES[name], abs=1e-6)
    assert (slopes * pred >= 0).all()  # away from the target is uphill


def test_smooth_l1_has_a_transition_point():
    pred = torch.tensor([[0.05, -0.4, 0.0, 0.0]])
    # 0.05^2 / 0.2 = 0.0125, 0.4 - 0.05 = 0.35; at 0 it is L1.
    assert box_losses.smooth_l1(pred, pred * 0, beta=0.1).item() == pytest.approx(0.3625)
    assert box_losses.smooth_l1(pred, pred * 0, beta=0.0).item() == pytest.approx(0.45)


@pytest.mark.parametrize("name", TORCHVISION)
def test_values_and_gradients_are_torchvisions(name):
    pred, target = random_boxes(0), random_boxes(1)
    torch.testing.assert_close(BOX_LOSSES[name](pred, target), TORCHVISION[name](pred, target), rtol=0, atol=1e-6)
    # With CIoU's too: neither lets a gradient through alpha.
    torch.testing.assert_close(
        slope(BOX_LOSSES[name], pred, target), slope(TORCHVISION[name], pred, target), rtol=0, atol=1e-6
    )


def test_iou_and_log_iou_are_of_torchvisions_iou():
    pred, target = random_boxes(2), random_boxes(3)
    expected = ops.box_iou(pred, target).diagonal()
    torch.testing.assert_close(BOX_LOSSES["iou"](pred, target), 1 - expected)
    torch.testing.assert_close(BOX_LOSSES["iou_log"](pred, target), -expected.clamp(min=1e-6).log())


def test_gate_compares_shapes_above_an_iou_of_one_half_only():
    target = torch.tensor([[0.0, 0.0, 10.0, 10.0]]).double().expand(3, 4)
    pred = torch.tensor([[0, 0, 10, 4.9], [0, 0, 10, 5.0], [0, 0, 10, 5.1]]).double()  # IoU .49, .5, .51
    gated, plain, without = (BOX_LOSSES[name](pred, target) for name in ("ciou_gated", "ciou", "diou"))
    assert torch.equal(gated[:2], without[:2])
    assert torch.equal(gated[2:], plain[2:])
    assert (plain > without).all()


@pytest.mark.parametrize("name", sorted(set(BOX_LOSSES) - {"ciou", "ciou_gated"}))  # alpha is a constant to autograd
def test_gradients_are_those_of_the_values(name):
    scale = 1 if name in DECODED_LOSSES else 0.03  # deltas on both sides of 1
    pred, target = (random_boxes(seed, 20) * scale for seed in (4, 5))
    assert gradcheck(BOX_LOSSES[name], (pred.requires_grad_(), target), eps=1e-7, atol=1e-5)


@pytest.mark.parametrize("name", ["ciou", "ciou_gated"])
def test_gradient_of_ciou_is_that_of_the_value_with_alpha_held(name):
    pred, target = random_boxes(4, 20), random_boxes(5, 20)
    iou = ops.box_iou(pred, target).diagonal()
    ratio = [(box[:, 2] - box[:, 0]) / (box[:, 3] - box[:, 1]) for box in (pred, target)]
    v = 4 / torch.pi**2 * (ratio[0].atan() - ratio[1].atan()) ** 2
    alpha = v / (1 - iou + v) * (iou > (0.5 if name == "ciou_gated" else -1))

    def held(boxes):
        size = boxes[:, 2:] - boxes[:, :2]
        v = 4 / torch.pi**2 * ((size[:, 0] / size[:, 1]).atan() - ratio[1].atan()) ** 2
        return BOX_LOSSES["diou"](boxes, target) + alpha * v

    torch.testing.assert_close(BOX_LOSSES[name](pred, target), held(pred))
    torch.testing.assert_close(slope(BOX_LOSSES[name], pred, target), slope(lambda p, _: held(p), pred, target))


POINT, LINE, BOX, FAR = [5, 5, 5, 5], [5, 0, 5, 9], [0, 0, 10, 8], [90, 90, 99, 99]
CASES = {
    "point for a box": (POINT, BOX),
    "box for a point": (BOX, POINT),
    "point for the same point": (POINT, POINT),
    "point for another point": (POINT, [7, 7, 7, 7]),
    "line for a line": (LINE, LINE),
    "line for a box": (LINE, BOX),
    "box for a line": (BOX, LINE),
    "perfect": (BOX, BOX),
    "disjoint": (BOX, FAR),
    "touching": (BOX, [10, 0, 20, 8]),
    "point far away": (POINT, FAR),
}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", BOX_LOSSES)
def test_value_and_gradient_stay_finite(name, case, dtype):
    pred, target = (torch.tensor([boxes], dtype=dtype) for boxes in CASES[case])
    value = BOX_LOSSES[name](pred, target)
    assert value.shape == (1,)
    assert value.isfinite().all()
    assert (value >= 0).all()
    assert slope(BOX_LOSSES[name], pred, target).isfinite().all()


@pytest.mark.parametrize("name", BOX_LOSSES)
def test_no_boxes_give_a_zero_that_leads_back(name):
    pred = torch.zeros(0, 4, requires_grad=True)
    value = BOX_LOSSES[name](pred, torch.zeros(0, 4))
    assert value.shape == (0,)
    value.sum().backward()
    assert pred.grad is not None
    assert pred.grad.shape == (0, 4)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", BOX_LOSSES)
def test_half_precision_is_computed_in_single(name, dtype):
    """A box of 400 x 300 px has an area, and x = 300 a square, that fp16 cannot hold."""
    large = torch.tensor([[0, 0, 400, 300], [300, 300, 700, 600]])
    pred = torch.cat([random_boxes(6, 50), large]).to(dtype)
    target = torch.cat([random_boxes(7, 50), large.flip(0)]).to(dtype)
    value = BOX_LOSSES[name](pred, target)
    assert value.dtype == torch.float32
    assert torch.equal(value, BOX_LOSSES[name](pred.float(), target.float()))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(BOX_LOSSES[name](pred, target), value)


@pytest.mark.parametrize("name", DECODED_LOSSES)
def test_geometry_is_computed_once(name, monkeypatch):
    calls, geometry = [], box_losses.geometry
    monkeypatch.setattr(box_losses, "geometry", lambda *boxes: calls.append(1) or geometry(*boxes))
    BOX_LOSSES[name](random_boxes(8, 3), random_boxes(9, 3))
    assert calls == [1]
