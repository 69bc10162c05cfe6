"""The stages of a residual backbone as a table. The keys `MODEL.DC_RESNET.*` are the columns of this table."""

from typing import NamedTuple


class Stage(NamedTuple):
    """One residual stage of `blocks` bottlenecks with `mid` channels in the 3x3 convolution and `out` at the output.

    `stride` applies to the first block, `dilation` to every 3x3 convolution.
    """

    name: str
    blocks: int
    mid: int
    out: int
    groups: int = 1
    stride: int = 1
    dilation: int = 1


# 3cDe-Net (Wang et al. 2022), Fig. 2: three grouped stages as in ResNeXt-50 32x4d, then two dilated ones at stride 16.
DC_RESNET_59 = (
    Stage("res2", blocks=3, mid=128, out=256, groups=32),
    Stage("res3", blocks=4, mid=256, out=512, groups=32, stride=2),
    Stage("res4", blocks=6, mid=512, out=1024, groups=32, stride=2),
    Stage("res5", blocks=3, mid=256, out=1024, dilation=2),
    Stage("res6", blocks=3, mid=256, out=1024, dilation=2),
)
