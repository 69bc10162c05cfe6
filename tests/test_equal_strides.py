"""A detector whose last three levels share a stride: anchors, padding, losses, inference; and the four of Table 6."""

import pytest
import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, Backbone, build_backbone, build_model
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage
from test_fpn import FUSED, STAGES, STRIDES
from torch import nn

from cervical_d2.config import load_config, set_num_classes
from cervical_d2.errors import UserError
from cervical_d2.modeling.fpn import EqualStrideFPN
from cervical_d2.modeling.norm import EvalBN

TOY, DC = "build_toy_equal_stride_backbone", "build_dc_resnet_fpn_backbone"
LEVELS = ["p2", "p3", "p4", "p5", "p6"]
# 72 x 88 px and 64 x 64 px: padded together to 80 x 96, a multiple of 16
SIZES = ((72, 88), (64, 64))
GRIDS = [(20, 24), (10, 12), (5, 6), (5, 6), (5, 6)]


class Toy(Backbone):
    """Five convolutions of 8 channels at strides 4, 8, 16, 16, 16."""

    def __init__(self):
        super().__init__()
        self._out_features = list(STAGES)
        self._out_feature_channels = dict.fromkeys(STAGES, 8)
        self._out_feature_strides = dict(STRIDES)
        for name, channels, stride in zip(STAGES, (3, 8, 8, 8, 8), (4, 2, 2, 1, 1), strict=True):
            self.add_module(name, nn.Conv2d(channels, 8, 3, stride=stride, padding=1))

    def forward(self, x):
        features = {}
        for name, stage in self.named_children():
            features[name] = x = stage(x).relu()
        return features


if TOY not in BACKBONE_REGISTRY:

    def toy(cfg, input_shape):
        fpn = cfg.MODEL.FPN
        return EqualStrideFPN(bottom_up=Toy(), in_features=fpn.IN_FEATURES, out_channels=fpn.OUT_CHANNELS)

    toy.__name__ = TOY
    BACKBONE_REGISTRY.register(toy)


def config(backbone, *options):
    cfg = load_config("quick/demo.yaml", [str(word) for word in (
        "MODEL.BACKBONE.NAME", backbone, "MODEL.FPN.IN_FEATURES", list(STAGES), "MODEL.FPN.OUT_CHANNELS", 16,
        "MODEL.RPN.IN_FEATURES", LEVELS, "MODEL.ROI_HEADS.IN_FEATURES", LEVELS, "MODEL.ROI_BOX_HEAD.FC_DIM", 8,
        "MODEL.ANCHOR_GENERATOR.SIZES", [[8], [16], [32], [64], [96]], "MODEL.DEVICE", "cpu",
        "MODEL.ROI_HEADS.SCORE_THRESH_TEST", 0, *options,
    )])  # fmt: skip
    set_num_classes(cfg, 2)
    return cfg


def detector(backbone, *options):
    torch.manual_seed(0)
    return build_model(config(backbone, *options))


def batch():
    torch.manual_seed(1)
    inputs = []
    for height, width in SIZES:
        cells = Boxes(torch.tensor([[4.0, 4, 24, 30], [30, 20, 62, 60]]))
        truth = Instances((height, width), gt_boxes=cells, gt_classes=torch.tensor([0, 1]))
        image = torch.randint(0, 256, (3, height, width), dtype=torch.uint8)
        inputs.append({"image": image, "instances": truth, "height": height, "width": width})
    return inputs


@pytest.mark.parametrize("backbone", [TOY, DC])
def test_a_step_of_training_reaches_every_level(backbone):
    model = detector(backbone, "MODEL.RPN.BATCH_SIZE_PER_IMAGE", 4096).train()
    with EventStorage():
        losses = model(batch())
    assert set(losses) == {"loss_cls", "loss_box_reg", "loss_rpn_cls", "loss_rpn_loc"}
    total = sum(losses.values())
    assert total.isfinite()
    total.backward()
    parameters = {name: p for name, p in model.backbone.named_parameters() if p.requires_grad}
    assert {f"fpn_lateral{number}.weight" for number in range(2, 7)} <= set(parameters)
    assert [name for name, p in parameters.items() if p.grad is None or not p.grad.any()] == []


@pytest.mark.parametrize("backbone", [TOY, DC])
def test_inference_finds_boxes_within_the_images(backbone):
    model, poolings = detector(backbone).eval(), []
    model.roi_heads.box_pooler.register_forward_pre_hook(lambda _, args: poolings.append(args[0]))
    with torch.inference_mode():
        outputs = model(batch())
    for (height, width), output in zip(SIZES, outputs, strict=True):
        found = output["instances"].pred_boxes.tensor
        assert 10 < len(found) <= 100
        assert (found >= 0).all()
        assert (found[:, 2::2] <= width).all()
        assert (found[:, 3::2] <= height).all()
    assert [tuple(level.shape[-2:]) for level in poolings[0]] == GRIDS


def test_anchors_of_a_level_lie_on_its_own_stride():
    """Three ratios a cell, centered at stride * column: Detectron2's offset is 0."""
    generator = detector(TOY).proposal_generator.anchor_generator
    anchors = generator([torch.zeros(1, 16, *grid) for grid in GRIDS])
    assert [len(level) for level in anchors] == [3 * height * width for height, width in GRIDS]
    for level, stride, (height, width) in zip(anchors, STRIDES.values(), GRIDS, strict=True):
        x, y = level.get_centers().view(height, width, 3, 2).unbind(dim=-1)
        torch.testing.assert_close(x[0, :, 0], stride * torch.arange(width).float())
        torch.testing.assert_close(y[:, 0, 2], stride * torch.arange(height).float())


@pytest.mark.parametrize("padded", [True, False])
def test_padding_is_set_aside_on_every_level(padded):
    """A 64 x 64 image in a batch of 80 x 96: on each level, anchors centered at 64 px or beyond are not learned."""
    options = ("MODEL.ANCHOR_GENERATOR.PADDED", padded, "MODEL.RPN.BATCH_SIZE_PER_IMAGE", 4096)
    rpn = detector(TOY, *options).proposal_generator
    anchors = rpn.anchor_generator([torch.zeros(1, 16, *grid) for grid in GRIDS])
    labels, _ = rpn.label_and_sample_anchors(anchors, [batch()[1]["instances"]])
    for level, label in zip(anchors, labels[0].split([len(level) for level in anchors]), strict=True):
        beyond = (level.get_centers() >= 64).any(dim=1)
        assert beyond.any()
        assert (label[beyond] == -1).all() != padded
        assert (label[~beyond] >= 0).any()


@pytest.mark.parametrize("fused", FUSED)
def test_the_four_of_table_6_are_one_key(fused):
    """F[1..5] are C2..C6. A pyramid of 256 channels has c * 256 + 256 weights in a lateral of c channels and
    256 * 256 * 9 + 256 in an output; what is not fused above the last is not built."""
    names = [STAGES[number - 1] for number in fused]
    cfg = config(DC, "MODEL.FPN.IN_FEATURES", names, "MODEL.FPN.OUT_CHANNELS", 256)
    backbone = build_backbone(cfg, ShapeSpec(channels=3))
    assert {name: shape.stride for name, shape in backbone.output_shape().items()} == FUSED[fused]
    assert backbone.size_divisibility == 16
    built = [name for name, _ in backbone.bottom_up.named_children()]
    assert built == ["stem", *STAGES[: fused[-1]]]
    channels = dict(zip(STAGES, (256, 512, 1024, 1024, 1024), strict=True))
    expected = sum(channels[name] * 256 + 256 + 256 * 256 * 9 + 256 for name in names)
    own = sum(p.numel() for name, p in backbone.named_parameters() if not name.startswith("bottom_up."))
    assert own == expected


def test_norms_fusion_and_frozen_stages_are_the_configs():
    frozen = ("MODEL.BACKBONE.FREEZE_STAGES", ("stem", "res3"), "MODEL.RESNETS.NORM", "EvalBN")
    pyramid = ("MODEL.FPN.NORM", "GN", "MODEL.FPN.OUT_CHANNELS", 32, "MODEL.FPN.FUSE_TYPE", "avg")
    backbone = build_backbone(config(DC, *frozen, *pyramid), ShapeSpec(channels=3))
    still = {name.split(".")[1] for name, p in backbone.named_parameters() if not p.requires_grad}
    assert still == {"stem", "res3"}
    assert (
        sum(isinstance(module, EvalBN) for module in backbone.bottom_up.res6.modules()) == 10
    )  # 3 blocks of 3, and B's
    assert sum(isinstance(module, nn.GroupNorm) for module in backbone.modules()) == 10  # two a level
    assert backbone.fuse(torch.tensor(1.0), torch.tensor(2.0)) == 1.5


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        (
            "MODEL.RPN.IN_FEATURES",
            ["p2", "p7"],
            "no level 'p7'; there are p2, p3, p4, p5, p6, of MODEL.FPN.IN_FEATURES",
        ),
        (
            "MODEL.ROI_HEADS.IN_FEATURES",
            ["p2", "p7"],
            "MODEL.ROI_HEADS.IN_FEATURES p2, p7: name some of p2, p3, p4, p5",
        ),
        ("MODEL.FPN.IN_FEATURES", ["res2", "res3", "res7"], "MODEL.FPN.IN_FEATURES: no stage 'res7'; there are res2, "),
        ("MODEL.FPN.IN_FEATURES", ["res6", "res2"], "MODEL.FPN.IN_FEATURES res6, res2: name some of res2, res3, "),
        ("MODEL.FPN.IN_FEATURES", ["res2", "res3", "res4", "res6"], "no level 'p5'; there are p2, p3, p4, p6, of"),
        ("MODEL.META_ARCHITECTURE", "CervicalRetinaNet", "no level 'p7'; there are p2"),
    ],
)
def test_a_config_that_does_not_agree_with_itself_is_refused(key, value, message):
    with pytest.raises(UserError, match=message) as refused:
        detector(DC if "no stage" in message else TOY, key, value)
    assert "\n" not in str(refused.value)
