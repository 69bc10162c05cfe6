"""Anchors of any shape in the models."""

import json
from pathlib import Path

import pytest
import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling import build_model
from detectron2.modeling.anchor_generator import DefaultAnchorGenerator, build_anchor_generator
from small_model import RETINANET, SMALL
from test_trainer import trainer_of

from cervical_d2.config import load_config
from cervical_d2.engine.setup import prepare
from cervical_d2.errors import UserError
from cervical_d2.modeling.anchors import ClusteredAnchorGenerator

SIZES = [[32.0], [64.0], [128.0], [256.0], [512.0]]
RATIOS = [[0.5, 1.0, 2.0]]
CLUSTERED = ("MODEL.ANCHOR_GENERATOR.NAME", "ClusteredAnchorGenerator", "MODEL.ANCHOR_GENERATOR.CLUSTERS")
# Two anchors on each of the levels p3, p4, p5, p6 of the small model.
PAIRS = [[[9, 14], [15, 9.5]], [[18, 18], [20, 26]], [[25, 22], [26, 28]], [[40, 40], [50, 30]]]


def on_maps(generator) -> list[torch.Tensor]:
    """Its anchors on maps of 3 x 4, 2 x 3, ... cells."""
    sizes = [(3, 4), (2, 3), (2, 2), (1, 2), (1, 1)]
    return [boxes.tensor for boxes in generator([torch.zeros(1, 1, *size) for size in sizes])]


@pytest.mark.parametrize("strides", [[4, 8, 16, 32, 64], [4, 8, 16, 16, 16]])
@pytest.mark.parametrize("offset", [0.0, 0.5])
@pytest.mark.parametrize(
    ("sizes", "ratios"),
    [(SIZES, RATIOS), ([[32.0, 40.3]] * 5, [[0.3], [1.0], [0.7], [3.0], [1.5]]), ([8.0, 100.0], [0.5, 1.0])],
)
def test_sizes_and_ratios_give_the_default_anchors_to_the_bit(strides, offset, sizes, ratios):
    given = {"sizes": sizes, "aspect_ratios": ratios, "strides": strides, "offset": offset}
    ours, upstream = ClusteredAnchorGenerator(**given), DefaultAnchorGenerator(**given)
    assert all(torch.equal(a, b) for a, b in zip(on_maps(ours), on_maps(upstream), strict=True))
    assert (ours.num_anchors, ours.num_cell_anchors, ours.box_dim) == (
        upstream.num_anchors, upstream.num_cell_anchors, upstream.box_dim
    )  # fmt: skip
    # The same shapes as pairs, beside sizes of another number of levels.
    pairs = [[(box[2] - box[0], box[3] - box[1]) for box in cell.tolist()] for cell in upstream.cell_anchors]
    paired = ClusteredAnchorGenerator(clusters=pairs, **{**given, "sizes": [[1.0]] * 3})
    assert all(torch.equal(a, b) for a, b in zip(on_maps(paired), on_maps(upstream), strict=True))
    assert paired.num_cell_anchors == upstream.num_cell_anchors


def test_pairs_by_hand():
    clusters = [[[10, 20]], [[6, 4], [8, 8], [30, 2.5]]]
    made = ClusteredAnchorGenerator(
        clusters=clusters, sizes=[[1.0]], aspect_ratios=[[1.0]], strides=[4, 16], offset=0.5
    )
    first, second = (boxes.tensor.tolist() for boxes in made([torch.zeros(1, 1, 1, 2), torch.zeros(1, 1, 2, 1)]))
    # Centers at (2, 2) and (6, 2), then at (8, 8) and (8, 24).
    assert first == [[-3, -8, 7, 12], [1, -8, 11, 12]]
    assert second[:3] == [[5, 6, 11, 10], [4, 4, 12, 12], [-7, 6.75, 23, 9.25]]
    assert second[3:] == [[x1, y1 + 16, x2, y2 + 16] for x1, y1, x2, y2 in second[:3]]
    assert (made.num_anchors, made.num_cell_anchors, made.box_dim) == ([1, 3], [1, 3], 4)
    assert made.state_dict() == {}  # as upstream: a checkpoint of other anchors loads


def config(*options):
    return load_config("quick/demo.yaml", [str(word) for word in (*SMALL, "MODEL.DEVICE", "cpu", *options)])


@pytest.mark.parametrize(
    ("clusters", "message"),
    [
        (PAIRS[:3], "lists for 3 levels, but the network has 4; `cervical-d2 anchors --config-file FILE` prints"),
        (
            [*PAIRS[:3], [[9, 9]]],
            r"\[2, 2, 2, 1\] anchors per level; all levels share one head and need the same; `",
        ),
        ([*PAIRS[:3], [[40, 40], [50, 0]]], r"\[\[40, 40\], \[50, 0\]\] for level 4 of 4; write \[\[width, height\], "),
        ([[[9, -1], [2, 2]], *PAIRS[1:]], ".*for level 1 of 4; write"),
        ([*PAIRS[:3], [[1, float("inf")], [2, 2]]], ".*for level 4 of 4; write"),
        ([*PAIRS[:3], [[1, 2, 3], [4, 5, 6]]], ".*for level 4 of 4; write"),
        ([*PAIRS[:3], [[1, 2], [3]]], ".*for level 4 of 4; write"),
        ([*PAIRS[:3], []], r"\[\] for level 4 of 4; write"),
        ([*PAIRS[:3], "wide"], "'wide' for level 4 of 4; write"),
        ([[9, 14], [18, 18], [25, 22], [40, 40]], r"\[9, 14\] for level 1 of 4; write"),
    ],
)
def test_clusters_that_cannot_be_used_are_one_line(clusters, message):
    cfg = config()
    cfg.MODEL.ANCHOR_GENERATOR.NAME, cfg.MODEL.ANCHOR_GENERATOR.CLUSTERS = "ClusteredAnchorGenerator", clusters
    with pytest.raises(UserError, match=f"^MODEL.ANCHOR_GENERATOR.CLUSTERS: {message}") as error:
        build_model(cfg)
    assert "\n" not in str(error.value)


def test_they_are_refused_before_anything_is_written(tiny: Path):
    def refused(message, *options):
        with pytest.raises(UserError, match=message):
            prepare(load_config(str(tiny / "config.yaml"), [str(word) for word in options]))
        assert not (tiny / "run").exists()

    refused("lists for 3 levels, but the network has 4", *CLUSTERED, PAIRS[:3])
    refused("NAME DefaultAnchorGenerator does not support .*CLUSTERS; use ClusteredAnchorGenerator",
            "MODEL.ANCHOR_GENERATOR.CLUSTERS", PAIRS)  # fmt: skip
    refused("MODEL.ANCHOR_GENERATOR does not fit the levels p3, p4, p5, p6: .*3",
            "MODEL.ANCHOR_GENERATOR.SIZES", [[8], [16], [32]])  # fmt: skip
    refused(
        "CLUSTERS is empty, because anchors depend on the data; compute and set them: .*--num-anchors 12",
        *CLUSTERED[:2],
    )
    prepare(load_config(str(tiny / "config.yaml"), [str(word) for word in (*CLUSTERED, PAIRS)]))


def test_direct_use_may_have_levels_of_unequal_numbers_but_a_config_not():
    given = {"sizes": [[1.0]], "aspect_ratios": [[1.0]], "strides": [4, 8]}
    made = ClusteredAnchorGenerator(clusters=[[[5, 5]], [[5, 5], [6, 6]]], **given)
    assert made.num_anchors == [1, 2]
    with pytest.raises(UserError, match="lists for 1 levels, but the network has 2"):
        ClusteredAnchorGenerator(clusters=[[[5, 5]]], **given)


@pytest.mark.parametrize("kind", ["rpn", "padded rpn", "retinanet"])
def test_models_train_with_them(tiny: Path, kind):
    # Sizes for another number of levels stay in the config, and do not matter.
    options = ("MODEL.ANCHOR_GENERATOR.SIZES", [[8], [16]], *CLUSTERED, PAIRS, "SOLVER.MAX_ITER", 2)
    arch = RETINANET if kind == "retinanet" else ("MODEL.ANCHOR_GENERATOR.PADDED", kind == "rpn")
    trainer = trainer_of(tiny, *SMALL, *arch, *options, "SOLVER.BASE_LR", 0.001)
    model = trainer.model
    head = model.head if kind == "retinanet" else model.proposal_generator.rpn_head
    generator = model.anchor_generator if kind == "retinanet" else model.proposal_generator.anchor_generator
    assert generator.num_anchors == [2] * 4
    regressor = head.bbox_pred if kind == "retinanet" else head.anchor_deltas
    assert regressor.out_channels == 2 * 4
    corners = [cell.tolist() for cell in generator.cell_anchors]
    assert corners == [[[-w / 2, -h / 2, w / 2, h / 2] for w, h in pairs] for pairs in PAIRS]
    before = regressor.weight.detach().clone()
    trainer.resume_or_load(resume=False)
    trainer.train()  # evaluates, too
    assert not torch.equal(before, regressor.weight)
    assert regressor.weight.isfinite().all()
    losses = [json.loads(line) for line in (tiny / "run/metrics.json").read_text().splitlines()]
    assert losses[-1]["loss_box_reg" if kind == "retinanet" else "loss_rpn_loc"] > 0


def test_anchors_of_equal_strides_in_a_config():
    cfg = load_config("faster_rcnn_R_50_FPN.yaml", [*CLUSTERED, str([[[8 * n, 9 * n]] for n in range(1, 6)])])
    made = build_anchor_generator(cfg, [ShapeSpec(stride=stride) for stride in (4, 8, 16, 16, 16)])
    p4, p5, p6 = (boxes.tensor for boxes in made([torch.zeros(1, 1, 2, 2)] * 5)[2:])
    centers = [(boxes[:, :2] + boxes[:, 2:]) / 2 for boxes in (p4, p5, p6)]
    assert centers[0].tolist() == [[0, 0], [16, 0], [0, 16], [16, 16]]
    assert torch.equal(centers[0], centers[1])
    assert torch.equal(centers[0], centers[2])
    assert (p6[:, 2:] - p6[:, :2]).tolist() == [[40, 45]] * 4
