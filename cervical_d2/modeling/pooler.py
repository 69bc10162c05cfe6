"""RoI pooling from pyramid levels of any strides; docs/fpn.md says which box goes to which level."""

import math
from collections.abc import Sequence
from typing import Any

from detectron2.modeling.poolers import ROIPooler


class EqualStrideROIPooler(ROIPooler):
    """`ROIPooler` that numbers its levels by their order, the first by log2 of its stride: they may share a stride.

    A box of w x h px belongs to level floor(4 + log2(sqrt(w h) / 224)), the nearest there is (Lin et al. 2017, Eq. 1).
    Where each stride is twice the one before, this is Detectron2's, which refuses all else.
    """

    def __init__(self, *, scales: Sequence[float], **kwargs: Any):
        """`scales`: 1 / stride of each level, from fine to coarse; `kwargs`: upstream's."""
        first = -round(math.log2(scales[0]))
        # Upstream reads a level's number from its scale, so it is given a scale that stands for the number.
        super().__init__(scales=[2.0 ** -(first + place) for place in range(len(scales))], **kwargs)
        for pooler, scale in zip(self.level_poolers, scales, strict=True):
            pooler.spatial_scale = scale
