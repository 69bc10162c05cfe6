"""Every row of 3cDe-Net's detection tables has a config that matches the row, builds, and trains one step."""

import itertools

import pytest
import torch
from conftest import ROOT, real_data
from detectron2.modeling import build_model
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage

from cervical_d2.checkpoint.published_weights import read_weights
from cervical_d2.config import differences, load_config, set_num_classes
from cervical_d2.engine.setup import prepare
from cervical_d2.errors import UserError
from cervical_d2.papers.experiments import make_plan, parse_table
from cervical_d2.papers.tables import DETECTORS, read_paper

PAPER = read_paper("3cdenet")
ROWS = {row.config: row for number, rows in PAPER.rows.items() if PAPER.tasks[number] == DETECTORS for row in rows}
SYSTEM = "3cdenet/table04_backbone.yaml"
# As narrow as it gets: what is tested is that the parts fit.
NARROW = ("MODEL.RESNETS.STEM_OUT_CHANNELS", 8, "MODEL.RESNETS.RES2_OUT_CHANNELS", 16,
          "MODEL.RESNETS.WIDTH_PER_GROUP", 4, "MODEL.DC_RESNET.MID_CHANNELS", (8, 8, 8, 4, 4),
          "MODEL.DC_RESNET.OUT_CHANNELS", (16, 16, 16, 16, 16), "MODEL.DC_RESNET.GROUPS", (4, 4, 4, 1, 1),
          "MODEL.FPN.OUT_CHANNELS", 8, "MODEL.ROI_BOX_HEAD.FC_DIM", 16, "MODEL.RPN.POST_NMS_TOPK_TRAIN", 50,
          "MODEL.DEVICE", "cpu")  # fmt: skip


def test_every_row_has_a_config_and_no_config_is_of_no_row():
    leaves = {f"3cdenet/{path.name}" for path in (ROOT / "configs/3cdenet").glob("table*.yaml")}
    assert leaves == {row.config for rows in PAPER.rows.values() for row in rows}
    assert {number: len(rows) for number, rows in PAPER.rows.items()} == {2: 3, 3: 4, 4: 4, 5: 3, 6: 4}


@pytest.mark.parametrize("name", ROWS)
def test_a_leaf_is_short_and_says_what_its_row_says(name):
    assert len((ROOT / "configs" / name).read_text().splitlines()) <= 8
    cfg, facts = load_config(name), ROWS[name].facts
    model, dilated = cfg.MODEL, facts["backbone"] == "DC_59"
    assert f"build_{'dc' if dilated else 'cervical'}_resnet_fpn_backbone" == model.BACKBONE.NAME
    assert dilated or facts["backbone"] == f"R_{model.RESNETS.DEPTH}"
    assert read_weights()[facts["initialization"]].file == model.WEIGHTS
    assert list(model.FPN.IN_FEATURES) == facts["fused"]
    assert facts["loss"] == model.ROI_BOX_HEAD.BBOX_REG_LOSS_TYPE
    anchors = {"default": "DefaultAnchorGenerator", "kmeans": "ClusteredAnchorGenerator"}[facts["anchors"]]
    assert anchors == model.ANCHOR_GENERATOR.NAME
    levels = [stage.replace("res", "p") for stage in facts["fused"]]
    assert list(model.ROI_HEADS.IN_FEATURES) == levels
    assert list(model.RPN.IN_FEATURES) == levels + ([] if dilated else ["p6"])
    assert name.removesuffix(".yaml") in cfg.OUTPUT_DIR


def test_what_is_published_and_common_to_all_rows():
    for name in ROWS:
        cfg = load_config(name)
        solver = cfg.SOLVER
        assert (solver.BASE_LR, solver.REFERENCE_BATCH, solver.IMS_PER_BATCH, solver.MOMENTUM) == (0.00125, 6, 6, 0.9)
        assert (solver.WEIGHT_DECAY, solver.MAX_EPOCHS, tuple(solver.EPOCH_STEPS)) == (0.001, 24, (16, 22))
        assert (cfg.MODEL.RPN.BBOX_REG_LOSS_TYPE, cfg.MODEL.RPN.SMOOTH_L1_BETA) == ("smooth_l1", 1)
        assert (cfg.MODEL.ROI_BOX_HEAD.SMOOTH_L1_BETA, tuple(cfg.INPUT.MIN_SIZE_TRAIN)) == (1, (800,))


def test_each_row_of_table_4_changes_one_thing():
    rows = [load_config(row.config) for row in PAPER.rows[4]]
    changed = [{key for key, _, _ in differences(*pair)} - {"OUTPUT_DIR"} for pair in itertools.pairwise(rows)]
    assert changed[0] == {"MODEL.ANCHOR_GENERATOR.NAME"}
    assert changed[1] == {"MODEL.ROI_BOX_HEAD.BBOX_REG_LOSS_TYPE"}
    assert changed[2] == {"MODEL.BACKBONE.NAME", "MODEL.FPN.IN_FEATURES", "MODEL.ROI_HEADS.IN_FEATURES",
                          "MODEL.WEIGHTS"}  # fmt: skip


def test_rows_that_are_one_experiment_resolve_equal_and_others_differ():
    for group in PAPER.same:
        first = load_config(group[0])
        for name in group[1:]:
            assert [key for key, _, _ in differences(first, load_config(name))] == ["OUTPUT_DIR"]
    kept = [name for name in ROWS if not any(name in group[1:] for group in PAPER.same)]
    dumps = {load_config(name, ["OUTPUT_DIR", "x"]).dump() for name in kept}
    assert len(dumps) == len(kept) == 8


@pytest.mark.parametrize("name", [name for name in ROWS if not any(name in group[1:] for group in PAPER.same)])
def test_each_model_builds_and_learns_a_step(name):
    torch.manual_seed(0)
    cfg = load_config(name, [str(word) for word in NARROW])
    set_num_classes(cfg, 1)
    levels = len(cfg.MODEL.RPN.IN_FEATURES)
    if ROWS[name].facts["anchors"] == "kmeans":
        cfg.MODEL.ANCHOR_GENERATOR.CLUSTERS = [[[16 * n, 20 * n], [20 * n, 16 * n]] for n in range(1, levels + 1)]
    model = build_model(cfg).train()
    truth = Instances((64, 96), gt_boxes=Boxes(torch.tensor([[8.0, 8, 40, 40]])), gt_classes=torch.tensor([0]))
    with EventStorage():
        losses = model([{"image": torch.randint(0, 256, (3, 64, 96), dtype=torch.uint8), "instances": truth}])
    assert all(torch.isfinite(loss) for loss in losses.values())
    sum(losses.values()).backward()
    moved = {name for name, stage in model.backbone.bottom_up.named_children()
             if any(value.grad is not None and value.grad.abs().sum() > 0 for value in stage.parameters())}  # fmt: skip
    assert moved >= {"stem", *ROWS[name].facts["fused"]}


def test_anchors_that_are_printed_nowhere_are_refused_with_the_command_that_computes_them():
    with pytest.raises(UserError, match=r"CLUSTERS is empty.*cervical-d2 anchors --dataset NAME .*--num-anchors 15"):
        prepare(load_config(SYSTEM, ["MODEL.WEIGHTS", "", "DATASETS.TRAIN", "('cervical_demo_train',)",
                                     "DATASETS.TEST", "('cervical_demo_val',)"]))  # fmt: skip


def test_weights_that_are_not_there_are_refused_with_the_command_that_trains_them():
    with pytest.raises(UserError, match=r"DC_59_cells\.pth: no such .*classifier.*cervical-d2 train-classifier"):
        prepare(load_config(SYSTEM))


@real_data
def test_the_quick_table_4_clusters_its_anchors_and_narrows_its_backbones(monkeypatch):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(ROOT / "../shared/data"))
    plan = make_plan(*parse_table("3cde:4"), quick="bccd")
    assert [item.row.label for item in plan.experiments] == [row.label for row in PAPER.rows[4]]
    cfgs = [load_config(item.config, item.options) for item in plan.experiments]
    assert [cfg.MODEL.ANCHOR_GENERATOR.NAME[:7] for cfg in cfgs] == ["Default", "Cluster", "Cluster", "Cluster"]
    assert [cfg.MODEL.ROI_BOX_HEAD.BBOX_REG_LOSS_TYPE for cfg in cfgs] == ["smooth_l1", "smooth_l1"] + [
        "balanced_l1"
    ] * 2
    assert [len(cfg.MODEL.RPN.IN_FEATURES) for cfg in cfgs] == [4] * 4
    assert {(cfg.MODEL.RPN.PRE_NMS_TOPK_TEST, cfg.MODEL.RPN.POST_NMS_TOPK_TEST) for cfg in cfgs} == {(1000, 1000)}
    assert {cfg.MODEL.WEIGHTS for cfg in cfgs} == {""}
    clusters = [cfg.MODEL.ANCHOR_GENERATOR.CLUSTERS for cfg in cfgs]
    assert [len(level) for level in clusters[1]] == [3] * 4
    assert clusters[1] == clusters[2] == clusters[3]
    millions = []
    for cfg in (cfgs[0], cfgs[3]):
        set_num_classes(cfg, 3)
        cfg.MODEL.DEVICE = "cpu"
        bottom_up = build_model(cfg).backbone.bottom_up
        millions.append(sum(value.numel() for value in bottom_up.parameters()) / 1e6)
    # A quarter of ResNet-50's 23.508 and DC-ResNet-59's 17.239, as all channels are halved; but half of the latter's
    # grouped convolutions, 0.530, as the groups are halved too; and a little for BatchNorm.
    assert millions == pytest.approx([23.508 / 4, (17.239 + 0.530) / 4], rel=0.005)


@real_data
def test_pretrained_quick_backbones_are_those_of_classifiers(monkeypatch):
    """Every weight of the quick detector's backbone has its like in the classifier that it is to start from."""
    monkeypatch.setenv("DETECTRON2_DATASETS", str(ROOT / "../shared/data"))
    plan = make_plan(*parse_table("3cde:5"), quick="bccd", pretrained=True)
    assert plan.left_out == {"R101": "there is no cell classifier with this backbone in this size"}
    for item, kind in zip(plan.experiments, ("R_50", "DC_59"), strict=True):
        detector, cells = (
            load_config(name, [*options, "MODEL.DEVICE", "cpu"])
            for name, options in ((item.config, item.options), (f"classifier/quick_{kind}_half.yaml", ()))
        )
        assert f"weights/{kind}_cells_half.pth" == detector.MODEL.WEIGHTS
        assert f"classifier/quick_{kind}_half.yaml" in read_weights()[f"{kind}_cells_half"].command
        set_num_classes(detector, 3)
        set_num_classes(cells, 11)
        bottom_up = build_model(detector).backbone.bottom_up.state_dict()
        backbone = build_model(cells).backbone.state_dict()
        assert {name: value.shape for name, value in bottom_up.items()} == {
            name: value.shape for name, value in backbone.items()
        }


@real_data
def test_the_quick_table_6_leaves_out_the_level_of_stride_4(monkeypatch):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(ROOT / "../shared/data"))
    plan = make_plan(*parse_table("3cde:6"), ["F[1,2,4,5]"], quick="bccd")
    words = dict(zip(plan.experiments[0].options[::2], plan.experiments[0].options[1::2], strict=True))
    assert words["MODEL.FPN.IN_FEATURES"] == "['res3', 'res5', 'res6']"
    assert words["MODEL.RPN.IN_FEATURES"] == "['p3', 'p5', 'p6']"
    assert len(load_config("quick/bccd.yaml", plan.experiments[0].options).MODEL.ANCHOR_GENERATOR.CLUSTERS) == 3
