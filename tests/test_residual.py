"""Zero initialization of residual blocks."""

import pytest
import torch
from detectron2.modeling import build_model
from detectron2.modeling.backbone.resnet import BasicBlock, BottleneckBlock

from cervical_d2.config import load_config

NETWORKS = {
    "R_18": ("build_cervical_resnet_backbone", "MODEL.RESNETS.DEPTH", 18, "MODEL.RESNETS.RES2_OUT_CHANNELS", 64),
    "R_50": ("build_cervical_resnet_backbone", "MODEL.RESNETS.DEPTH", 50),
    "DC_59": ("build_dc_resnet_backbone",),
}


def blocks_of(network: str, zero: bool, norm: str = "BN"):
    name, *more = NETWORKS[network]
    cfg = load_config("classifier/herlev_2.yaml", [
        "MODEL.BACKBONE.NAME", name, *map(str, more), "MODEL.RESNETS.ZERO_INIT_RESIDUAL", str(zero),
        "MODEL.RESNETS.NORM", norm, "MODEL.DEVICE", "cpu"])  # fmt: skip
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = 2
    return [block for block in build_model(cfg).modules() if isinstance(block, BasicBlock | BottleneckBlock)]


@pytest.mark.parametrize("norm", ["BN", "EvalBN"])
@pytest.mark.parametrize("network", NETWORKS)
def test_a_block_begins_as_its_shortcut(network, norm):
    for block in blocks_of(network, True, norm):
        block.eval()
        x = torch.randn(2, block.in_channels, 6, 6).relu()
        passed = x if block.shortcut is None else block.shortcut(x)
        assert torch.equal(block(x), passed.relu())


@pytest.mark.parametrize("network", NETWORKS)
def test_it_is_an_option_and_the_block_learns(network):
    plain = blocks_of(network, False)[1].eval()
    x = torch.randn(2, plain.in_channels, 6, 6).relu()
    assert not torch.equal(plain(x), x)
    zero = blocks_of(network, True)[1]
    zero(x).sum().backward()
    last = zero.conv3 if isinstance(zero, BottleneckBlock) else zero.conv2
    assert last.norm.weight.grad.abs().sum() > 0
