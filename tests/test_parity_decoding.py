"""The smallest side that can be decoded, as in Detectron2 or as in mmdetection."""

import math

import pytest
import torch
from box_loss_scenes import KEY, Scene, part_of

CLAMP = "MODEL.CLAMP_DELTAS"
LEAST = 16 / 1000  # exp(-4.135)


@pytest.mark.parametrize("head", KEY)
def test_sides_are_bounded_below_too_by_hand(head):
    anchors = torch.tensor([[100.0, 200, 200, 400]])  # 100 x 200 px around (150, 300)
    for bounds, least in (("both", LEAST), ("above", math.exp(-10))):
        transform = part_of(head, True, CLAMP, bounds).box2box_transform
        units = torch.tensor(transform.weights)
        for raw, w, h in (
            ([0, 0, -10, 0], least, 1),
            ([0, 0, 0, -10], 1, least),
            ([-9, -9, -10, 10], least, 62.5),
            ([0, 0, -4, -4.2], math.exp(-4), least if bounds == "both" else math.exp(-4.2)),
        ):
            scaled = torch.tensor([raw]) * units
            deltas = torch.cat([scaled, torch.zeros(1, 4), scaled], dim=1)  # of three classes
            box, other, third = transform.apply_deltas(deltas, anchors).view(3, 4)
            x, y = 150 + raw[0] * 100, 300 + raw[1] * 200
            expected = [x - 50 * w, y - 100 * h, x + 50 * w, y + 100 * h]
            assert box.tolist() == pytest.approx(expected, rel=1e-5, abs=1e-3)
            assert other.tolist() == anchors[0].tolist()
            assert third.tolist() == box.tolist()


@pytest.mark.parametrize("head", KEY)
def test_between_the_bounds_decoding_is_detectron2s_to_the_last_bit(head):
    ours, theirs = part_of(head, True, CLAMP, "both").box2box_transform, part_of(head, False).box2box_transform
    scene = Scene()
    deltas = scene.deltas[0].detach()
    assert torch.equal(ours.apply_deltas(deltas, scene.anchors), theirs.apply_deltas(deltas, scene.anchors))
    halves = ours.apply_deltas(deltas.half(), scene.anchors)
    assert torch.equal(halves, theirs.apply_deltas(deltas.half(), scene.anchors))
    assert ours.apply_deltas(deltas[:0], scene.anchors[:0]).shape == (0, 4)
    pairs = scene.anchors, scene.truth[0]
    assert torch.equal(ours.get_deltas(*pairs), theirs.get_deltas(*pairs))


def test_a_side_below_its_bound_has_no_slope():
    deltas = torch.tensor([[0.0, 0, -5, -4]], requires_grad=True)
    decoded = part_of("rpn", True, CLAMP, "both").box2box_transform.apply_deltas(deltas, torch.tensor([[0.0, 0, 8, 8]]))
    decoded[0, 2:].sum().backward()
    assert deltas.grad is not None
    assert deltas.grad[0, 2] == 0
    assert deltas.grad[0, 3] > 0


def test_the_bound_is_not_that_of_half_precision():
    transform = part_of("rpn", True, CLAMP, "both").box2box_transform
    (box,) = transform.apply_deltas(
        torch.tensor([[0.0, 0, -10, 0]], dtype=torch.bfloat16), torch.tensor([[0.0, 0, 8, 8]])
    )
    assert (box[2] - box[0]).item() == pytest.approx(8 * LEAST, rel=1e-4)  # bfloat16 has 4.135 as 4.125
