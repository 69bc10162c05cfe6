"""How residual blocks begin."""

from detectron2.modeling.backbone.resnet import BasicBlock, BottleneckBlock
from torch import nn


def begin_as_shortcuts(backbone: nn.Module) -> None:
    """Set the weight of the last norm of each of Detectron2's residual blocks in `backbone` to 0, in place.

    A block then passes on its shortcut alone until it has learned something. Source: Goyal et al. 2017, section 5.1.
    """
    for block in backbone.modules():
        if isinstance(block, BasicBlock | BottleneckBlock):
            last = block.conv3 if isinstance(block, BottleneckBlock) else block.conv2
            nn.init.zeros_(last.norm.weight)
