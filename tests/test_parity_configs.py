"""The two base configs that train as mmdetection does: what they set, and a step of each."""

import json
from pathlib import Path

import pytest
import torch
from conftest import ROOT
from detectron2.modeling import build_model
from rank_jobs import on_ranks, train

from cervical_d2.checkpoint.safe_load import load_file
from cervical_d2.config import config_value, differences, load_config
from cervical_d2.modeling.norm import EvalBN

RCNN, RETINANET = "Base-mmdetection.yaml", "Base-mmdetection-RetinaNet.yaml"

# mmdetection 2.x: _base_/models, _base_/datasets/coco_detection.py, _base_/schedules, as our keys say it.
BOTH = {
    "INPUT.FORMAT": "RGB",
    "MODEL.PIXEL_MEAN": [123.675, 116.28, 103.53],
    "MODEL.PIXEL_STD": [58.395, 57.12, 57.375],
    "MODEL.RESNETS.STRIDE_IN_1X1": False,
    "MODEL.RESNETS.NORM": "EvalBN",
    "MODEL.BACKBONE.FREEZE_AT": 2,  # the stem and res2: frozen_stages=1
    "MODEL.BACKBONE.FREEZE_STAGES": (),
    "MODEL.ANCHOR_GENERATOR.PADDED": False,
    "MODEL.ANCHOR_GENERATOR.OFFSET": 0.0,
    "MODEL.CLAMP_DELTAS": "both",
    "SOLVER.WEIGHT_DECAY": 0.0001,
    "SOLVER.WEIGHT_DECAY_NORM": 0.0001,
    "SOLVER.WEIGHT_DECAY_BIAS": None,  # as any weight
    "SOLVER.WARMUP_ITERS": 500,
    "SOLVER.WARMUP_FACTOR": 0.001,
    "SOLVER.WARMUP_METHOD": "linear",
    "INPUT.MIN_SIZE_TRAIN": (640, 800),
    "INPUT.MIN_SIZE_TRAIN_SAMPLING": "choice",
    "INPUT.RESIZE_ROUNDING": "mmdetection",
    "INPUT.RESIZE_BY": "opencv",
    "INPUT.MIN_BOX": 1.0,
    "INPUT.RANDOM_ROT90": False,
    "INPUT.RANDOM_FLIP": "horizontal",
    "DATALOADER.FILTER_EMPTY_ANNOTATIONS": True,
}
OWN = {
    RCNN: {
        "MODEL.RPN.LOW_QUALITY_FLOOR": 0.3,
        "MODEL.RPN.LOSS_NORMALIZER": "samples",
        "MODEL.RPN.SMOOTH_L1_BETA": 0.0,
        "MODEL.ROI_BOX_HEAD.SMOOTH_L1_BETA": 0.0,
        "MODEL.RPN.PRE_NMS_TOPK_TRAIN": 2000,
        "MODEL.RPN.POST_NMS_TOPK_TRAIN": 1000,
    },
    RETINANET: {
        "MODEL.RETINANET.LOSS_NORMALIZER": "batch",
        "MODEL.RETINANET.P7_RELU": False,
        "MODEL.RETINANET.SMOOTH_L1_LOSS_BETA": 0.0,
        "MODEL.RETINANET.IOU_THRESHOLDS": [0.4, 0.5],
        "MODEL.RETINANET.IOU_LABELS": [0, -1, 1],
    },
}


@pytest.mark.parametrize("name", OWN)
def test_a_base_sets_every_row_of_the_table(name):
    cfg = load_config(name)
    expected = {**BOTH, **OWN[name]}
    assert {key: config_value(cfg, key) for key in expected} == expected


def test_another_config_can_build_on_them_without_a_difference_of_its_own(tmp_path: Path):
    (tmp_path / "leaf.yaml").write_text(f"_BASE_: {ROOT / 'configs' / RCNN}\nMODEL: {{RESNETS: {{DEPTH: 101}}}}\n")
    assert [key for key, *_ in differences(load_config(str(tmp_path / "leaf.yaml")), load_config(RCNN))] == [
        "MODEL.RESNETS.DEPTH"
    ]


def test_the_retinanet_is_that_of_its_config_but_for_the_switches():
    ours, plain = (
        build_model(load_config(name, ["MODEL.DEVICE", "cpu"])) for name in (RETINANET, "retinanet_R_50_FPN.yaml")
    )
    shapes = [
        {name: value.shape for name, value in model.state_dict().items() if "num_batches" not in name}
        for model in (ours, plain)
    ]
    assert shapes[0] == shapes[1]
    cells, rounded = (torch.cat(list(model.anchor_generator.cell_anchors)) for model in (ours, plain))
    assert (cells - rounded).abs().max() < 0.15
    areas = (cells[:, 2] - cells[:, 0]) * (cells[:, 3] - cells[:, 1])
    exact = torch.tensor([4 * 2 ** (n / 3) * s for s in (8, 16, 32, 64, 128) for n in range(3) for _ in range(3)])
    torch.testing.assert_close(areas.sqrt(), exact, rtol=2e-6, atol=0)


TINY = ("MODEL.RESNETS.DEPTH", 18, "MODEL.RESNETS.RES2_OUT_CHANNELS", 64, "MODEL.RETINANET.NUM_CONVS", 1,
        "SOLVER.MAX_ITER", 1, "SOLVER.WARMUP_ITERS", 0, "SOLVER.STEPS", (), "SOLVER.EPOCH_STEPS", ())  # fmt: skip


@pytest.mark.parametrize("name", OWN)
def test_a_model_trains_a_step(tiny: Path, name):
    text = (tiny / "config.yaml").read_text()
    (tiny / "config.yaml").write_text(text.replace("quick/Base-quick.yaml", name))
    for folder, more in (("before", ("SOLVER.BASE_LR", 0.0)), ("after", ())):
        on_ranks(1, train, folder=tiny, options=[*TINY, *more, "OUTPUT_DIR", tiny / folder])
    (step,) = json.loads((tiny / "after/losses.json").read_text())
    assert all(0 < value < 100 for value in step.values())
    before, after = (load_file(str(tiny / folder / "model_final.pth"))["model"] for folder in ("before", "after"))
    moved = {key for key in after if not torch.equal(after[key], before[key])}
    assert "backbone.bottom_up.res4.0.conv1.norm.weight" in moved
    assert not [key for key in moved if ".stem." in key or ".res2." in key or "running" in key]
    learned = ("backbone.bottom_up.res5", "backbone.fpn_lateral5", "proposal_generator", "roi_heads.box_head", "head.")
    for part in (part for part in learned if any(key.startswith(part) for key in after)):
        assert [key for key in moved if key.startswith(part)]


@pytest.mark.parametrize("name", OWN)
def test_norms_train_their_scale_and_keep_their_statistics(name):
    model = build_model(load_config(name, ["MODEL.DEVICE", "cpu"])).train()
    norms = [module for module in model.modules() if isinstance(module, EvalBN)]
    assert len(norms) == 42  # of ResNet-50's 53 without the stem's and the 10 of res2
    assert not any(norm.training for norm in norms)
    assert all(norm.weight.requires_grad for norm in norms)
