"""Every row of the paper's tables has a config that matches the row, builds, and trains one step."""

from pathlib import Path

import pytest
import torch
from conftest import ROOT
from detectron2.modeling import build_model
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage

from cervical_d2.checkpoint.published_weights import read_weights
from cervical_d2.config import differences, load_config, set_num_classes
from cervical_d2.engine.setup import prepare
from cervical_d2.errors import UserError
from cervical_d2.papers.tables import read_paper

PAPER = read_paper("xu2022")
ROWS = {row.config: row for rows in PAPER.rows.values() for row in rows if row.config}
FOLDER = ROOT / "configs/xu2022"
IMAGENET = ([123.675, 116.28, 103.53], [58.395, 57.12, 57.375])
# As narrow as it gets: what is tested is that the parts fit.
NARROW = ("MODEL.RESNETS.STEM_OUT_CHANNELS", 8, "MODEL.RESNETS.RES2_OUT_CHANNELS", 16,
          "MODEL.RESNETS.WIDTH_PER_GROUP", 4, "MODEL.FPN.OUT_CHANNELS", 8, "MODEL.ROI_BOX_HEAD.FC_DIM", 16,
          "MODEL.RPN.POST_NMS_TOPK_TRAIN", 50, "MODEL.DEVICE", "cpu")  # fmt: skip


def test_every_row_has_a_config_or_a_reason_and_no_config_is_of_no_row():
    assert all(row.config or row.not_ours for rows in PAPER.rows.values() for row in rows)
    leaves = {f"xu2022/{path.name}" for path in FOLDER.glob("table*.yaml")}
    assert leaves == set(ROWS)
    assert {number: len(rows) for number, rows in PAPER.rows.items()} == {
        3: 8, 4: 8, 5: 9, 6: 6, 7: 6, 8: 4, 9: 4, 10: 3, 11: 5,
    }  # fmt: skip


@pytest.mark.parametrize("name", ROWS)
def test_a_leaf_is_short_and_says_what_its_row_says(name):
    assert len((ROOT / "configs" / name).read_text().splitlines()) <= 8
    cfg, facts = load_config(name), ROWS[name].facts
    retinanet = facts["architecture"] == "retinanet"
    head = cfg.MODEL.RETINANET if retinanet else cfg.MODEL.ROI_BOX_HEAD
    weights = read_weights()[facts["initialization"]].file if facts["initialization"] != "none" else ""
    beta = head.SMOOTH_L1_LOSS_BETA if retinanet else head.SMOOTH_L1_BETA
    assert ("RetinaNet" in cfg.MODEL.META_ARCHITECTURE) == retinanet
    assert facts["depth"] == cfg.MODEL.RESNETS.DEPTH
    assert weights == cfg.MODEL.WEIGHTS
    assert list(cfg.INPUT.MIN_SIZE_TRAIN) == facts["sides"]
    assert (cfg.INPUT.MIN_SIZE_TRAIN_SAMPLING, cfg.INPUT.MAX_SIZE_TRAIN, cfg.INPUT.MIN_SIZE_TEST) == (
        "choice",
        1333,
        800,
    )
    assert (list(cfg.MODEL.BACKBONE.FREEZE_STAGES), cfg.MODEL.BACKBONE.FREEZE_AT) == (facts["frozen"], 0)
    assert facts["loss"] == head.BBOX_REG_LOSS_TYPE
    assert facts["loss"] != "smooth_l1" or beta == 1
    assert (10 if facts["loss"] in ("iou", "giou") else 1) == head.BBOX_REG_LOSS_WEIGHT
    assert retinanet or (cfg.MODEL.RPN.BBOX_REG_LOSS_TYPE, cfg.MODEL.RPN.BBOX_REG_LOSS_WEIGHT) == ("l1", 1)
    statistics = (list(cfg.MODEL.PIXEL_MEAN), list(cfg.MODEL.PIXEL_STD))
    assert statistics == (IMAGENET if facts["normalization"] == "imagenet" else ([], []))
    assert name.removesuffix(".yaml") in cfg.OUTPUT_DIR


def test_what_is_common_to_all_rows():
    cfg = load_config("xu2022/table05_R_50_freeze_stem_res2.yaml")
    solver = cfg.SOLVER
    assert (solver.BASE_LR, solver.REFERENCE_BATCH, solver.MOMENTUM, solver.WEIGHT_DECAY) == (0.0025, 2, 0.9, 1e-4)
    assert (solver.WEIGHT_DECAY_NORM, solver.WARMUP_ITERS, solver.MAX_EPOCHS) == (1e-4, 500, 24)
    assert tuple(solver.EPOCH_STEPS) == (16, 22)
    assert (cfg.MODEL.RESNETS.NORM, cfg.INPUT.FORMAT, cfg.INPUT.RANDOM_ROT90) == ("EvalBN", "RGB", False)
    assert tuple(load_config("xu2022/schedule_literal.yaml").SOLVER.EPOCH_STEPS) == (8, 11)


@pytest.mark.parametrize("group", PAPER.same, ids=lambda group: group[0])
def test_rows_that_are_one_experiment_resolve_equal(group):
    first = load_config(group[0])
    for name in group[1:]:
        assert [key for key, _, _ in differences(first, load_config(name))] == ["OUTPUT_DIR"]
    assert len({tuple(sorted(ROWS[name].printed.items())) for name in group}) == 1


def test_rows_that_are_not_one_experiment_differ():
    kept = [name for name in ROWS if not any(name in group[1:] for group in PAPER.same)]
    texts = {}
    for name in kept:
        cfg = load_config(name)
        cfg.OUTPUT_DIR = ""
        # Statistics of COCO and of the data itself are both empty, to be computed.
        texts.setdefault((cfg.dump(), ROWS[name].facts["normalization"]), []).append(name)
    assert [names for names in texts.values() if len(names) > 1] == []


def step(name, extra=()):
    torch.manual_seed(0)
    cfg = load_config(name, [str(word) for word in (*NARROW, *extra)])
    set_num_classes(cfg, 11)
    cfg.MODEL.PIXEL_MEAN, cfg.MODEL.PIXEL_STD = IMAGENET
    model = build_model(cfg).train()
    truth = Instances((64, 96), gt_boxes=Boxes(torch.tensor([[8.0, 8, 40, 40]])), gt_classes=torch.tensor([3]))
    with EventStorage():
        losses = model([{"image": torch.randint(0, 256, (3, 64, 96), dtype=torch.uint8), "instances": truth}])
    sum(losses.values()).backward()
    return model, losses


# Rows of one depth, architecture, frozen set and loss are one model.
DISTINCT = {
    (r.facts["architecture"], r.facts["depth"], *r.facts["frozen"], r.facts["loss"]): n for n, r in ROWS.items()
}


@pytest.mark.parametrize("name", DISTINCT.values())
def test_each_model_builds_and_learns_a_step(name):
    model, losses = step(name)
    assert all(torch.isfinite(loss) for loss in losses.values())
    stages = dict(model.backbone.bottom_up.named_children())
    frozen = {name for name, stage in stages.items() if all(value.grad is None for value in stage.parameters())}
    assert frozen == set(ROWS[name].facts["frozen"])


def test_weights_that_are_not_there_are_refused_with_the_command_that_makes_them():
    with pytest.raises(UserError, match=r"3x\.pth: no such .*faster_rcnn_r50_fpn_mstrain_3x.*convert-weights"):
        prepare(load_config("xu2022/table08_R_50_l1.yaml"))


def test_statistics_that_are_printed_nowhere_are_refused_with_the_command_that_computes_them(tmp_path: Path):
    with pytest.raises(UserError, match=r"empty.*cervical-d2 mean-std --dataset NAME \(comparison_detector_train for"):
        prepare(load_config("xu2022/table10_R_50_self_statistics.yaml", ["MODEL.WEIGHTS", ""]))
