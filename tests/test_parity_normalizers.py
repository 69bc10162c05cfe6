"""The normalizers of the losses of dense heads, against loops over single anchors."""

import json
import math
from pathlib import Path

import pytest
import rank_jobs
import torch
from box_loss_scenes import ANCHORS, CLASSES, KEY, LOSS, Scene, losses, part_of
from detectron2.utils.events import EventStorage
from rank_jobs import on_ranks
from small_model import RETINANET
from test_ranks import FOUR, ended, largest_difference

SAMPLES, BATCH = ("MODEL.RPN.LOSS_NORMALIZER", "samples"), ("MODEL.RETINANET.LOSS_NORMALIZER", "batch")
L1 = ("MODEL.RETINANET.SMOOTH_L1_LOSS_BETA", 0)


def scene_with(*counts, seed=0) -> Scene:
    """Two images of so many (positive, negative) anchors each; the others are of neither kind."""
    scene = Scene(seed)
    rows = [[0] * pos + [1] * neg + [2] * (ANCHORS - pos - neg) for pos, neg in counts]
    scene.kind = torch.tensor(rows)
    return scene


def entropy_sum(logits, kind) -> float:
    """Binary cross-entropy over what is labeled: log(1 + exp(-z)) of a cell, log(1 + exp(z)) of background."""
    pairs = zip(logits.flatten().tolist(), kind.flatten().tolist(), strict=True)
    return sum(math.log1p(math.exp(-z if label == 0 else z)) for z, label in pairs if label < 2)


def focal_sum(scene) -> float:
    """-alpha (1 - p)^2 log p of the cell's class, -(1 - alpha) p^2 log(1 - p) of all others; alpha 0.25."""
    total = 0.0
    for n, a in (scene.kind < 2).nonzero().tolist():
        for k in range(CLASSES):
            p = 1 / (1 + math.exp(-scene.logits[n, a, k + 1].item()))
            cell = scene.kind[n, a] == 0 and scene.classes[n, a] == k
            total -= 0.25 * (1 - p) ** 2 * math.log(p) if cell else 0.75 * p**2 * math.log(1 - p)
    return total


def l1_sum(scene, transform) -> float:
    return sum(
        (scene.deltas[n, a] - transform.get_deltas(scene.anchors[a, None], scene.truth[n, a, None])[0])
        .abs()
        .sum()
        .item()
        for n, a in (scene.kind == 0).nonzero().tolist()
    )


@pytest.mark.parametrize(
    ("counts", "samples"),
    [
        (((3, 2), (0, 4)), (3 + 2) + (1 + 4)),
        (((3, 2), (5, 9)), (3 + 2) + (5 + 9)),
        (((3, 0), (0, 0)), (3 + 1) + (1 + 1)),
    ],
)
def test_the_rpn_divides_by_its_samples_by_hand(counts, samples):
    scene, part = scene_with(*counts), part_of("rpn", True, *SAMPLES)
    found, _ = losses(part, scene, "rpn")
    assert found["loss_rpn_cls"].item() == pytest.approx(
        entropy_sum(scene.logits[..., 0], scene.kind) / samples, rel=1e-5
    )
    assert found["loss_rpn_loc"].item() == pytest.approx(l1_sum(scene, part.box2box_transform) / samples, rel=1e-5)
    slots, _ = losses(part_of("rpn", True), scene, "rpn")
    assert slots["loss_rpn_cls"].item() * 2 * 256 == pytest.approx(found["loss_rpn_cls"].item() * samples)


WEIGHTED = ("MODEL.RPN.BBOX_REG_LOSS_WEIGHT", 10, "MODEL.RPN.LOSS_WEIGHT", 0.5)


@pytest.mark.parametrize("name", ["l2", "giou", "ciou_gated"])
@pytest.mark.parametrize("weights", [(), WEIGHTED], ids=["1", "weighted"])
@pytest.mark.parametrize(("head", "switch", "old", "new"), [
    ("rpn", SAMPLES, 2 * 256, 10), ("retinanet", BATCH, 0.9 * 100 + 0.1 * 3, 3 + 1),
])  # fmt: skip
def test_losses_of_ours_are_divided_likewise(head, switch, old, new, name, weights):
    scene, loss = scene_with((3, 2), (0, 4)), (f"{KEY[head]}.BBOX_REG_LOSS_TYPE", name)
    plain, slope = losses(part_of(head, True, *loss, *weights), scene, head)
    ours, our_slope = losses(part_of(head, True, *loss, *weights, *switch), scene, head)
    assert {key: value.item() * new for key, value in ours.items()} == pytest.approx(
        {key: value.item() * old for key, value in plain.items()}, rel=1e-5
    )
    torch.testing.assert_close(our_slope * new, slope * old)
    assert plain[LOSS[head]] > 0


def test_a_spared_sample_is_as_if_it_had_not_been_drawn():
    """Two of the six backgrounds score 0.9 where 0.8 is spared: four are left, in one image none of its only two."""
    scene = scene_with((3, 2), (0, 4))
    scene.logits[...] = -1.0
    scene.logits[0, 3:5, 0] = math.log(9)
    part = part_of("rpn", True, *SAMPLES, "MODEL.UNLABELED_SCORE", 0.8, "SOLVER.WARMUP_ITERS", 0)
    found, _ = losses(part, scene, "rpn")
    assert found["loss_rpn_loc"].item() == pytest.approx(l1_sum(scene, part.box2box_transform) / ((3 + 1) + (1 + 4)))
    scene.kind[0, 3:5] = 2
    assert found["loss_rpn_cls"].item() == pytest.approx(entropy_sum(scene.logits[..., 0], scene.kind) / 9)


@pytest.mark.parametrize(("counts", "positives"), [(((3, 9), (0, 4)), 4), (((3, 9), (5, 4)), 8), (((0, 9), (0, 9)), 2)])
def test_retinanet_divides_by_the_positives_of_the_batch_by_hand(counts, positives):
    part = part_of("retinanet", True, *BATCH, *L1)
    for seed in (0, 7):  # a batch knows nothing of the one before it
        scene = scene_with(*counts, seed=seed)
        found, _ = losses(part, scene, "retinanet")
        assert found["loss_cls"].item() == pytest.approx(focal_sum(scene) / positives, rel=1e-5)
        assert found["loss_box_reg"].item() == pytest.approx(
            l1_sum(scene, part.box2box_transform) / positives, rel=1e-5
        )
    assert part.get_extra_state().isnan()  # and there is no average to be kept


@pytest.mark.parametrize("head", ["rpn", "retinanet"])
def test_in_validation_nobody_is_waited_for(head, monkeypatch):
    monkeypatch.setattr("detectron2.utils.comm.all_gather", lambda count: pytest.fail("processes are not in step"))
    scene, part = scene_with((3, 9), (0, 4)), part_of(head, True, *SAMPLES, *BATCH)
    with torch.no_grad(), EventStorage():
        validated = part.losses(*scene.arguments(head))
    monkeypatch.undo()
    assert validated[LOSS[head]].item() == losses(part, scene, head)[0][LOSS[head]].item()


@pytest.mark.parametrize(("head", "others", "mean"), [("rpn", 21, (21 + 18) / 2), ("retinanet", 10, (10 + 4) / 2)])
def test_all_processes_divide_by_the_mean_of_their_counts(head, others, mean, monkeypatch):
    scene = scene_with((3, 9), (0, 5))  # 12 and 1 + 5 samples
    part = part_of(head, True, *SAMPLES, *BATCH)
    alone, _ = losses(part, scene, head)
    monkeypatch.setattr("detectron2.utils.comm.all_gather", lambda count: [count, others])
    both, _ = losses(part, scene, head)
    count = {"rpn": 18, "retinanet": 4}[head]
    for name in alone:
        assert both[name].item() * mean == pytest.approx(alone[name].item() * count)


@pytest.mark.parametrize("detector", [(), RETINANET], ids=["rcnn", "retinanet"])
def test_two_ranks_train_as_one_does_whatever_the_losses_are_divided_by(tiny: Path, detector):
    for ranks in (1, 2):
        options = [*FOUR, *detector, *SAMPLES, *BATCH, "OUTPUT_DIR", tiny / f"ranks{ranks}"]
        on_ranks(ranks, rank_jobs.train, folder=tiny, options=options)
    alone, both = (json.loads((tiny / f"ranks{ranks}/losses.json").read_text()) for ranks in (1, 2))
    for ours, theirs in zip(both, alone, strict=True):
        assert ours == pytest.approx(theirs, abs=1e-5)
    weights = [ended(tiny / f"ranks{ranks}") for ranks in (1, 2)]
    for one in weights:  # of RetinaNet, the average that there is none of
        assert one.pop("_extra_state", torch.tensor(torch.nan)).isnan()
    assert largest_difference(*weights) < 1e-5
