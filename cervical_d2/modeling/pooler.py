"""RoI pooling from pyramid levels of any strides; docs/fpn.md explains which box goes to which level."""

import math
from collections.abc import Sequence
from typing import Any

from detectron2.modeling.poolers import ROIPooler


class EqualStrideROIPooler(ROIPooler):
    """`ROIPooler` for levels that may share a stride: the first is numbered log2 of its stride, the others in order.

    A box of w x h px is pooled from level floor(4 + log2(sqrt(w h) / 224)), or the nearest available one (Lin et al.
    2017, Eq. 1). If each stride is twice the one before, this equals Detectron2's pooler, which refuses other strides.
    """

    def __init__(self, *, scales: Sequence[float], **kwargs: Any):
        """`scales`: 1 / stride of each level, from fine to coarse; `kwargs`: those of `ROIPooler`."""
        first = -round(math.log2(scales[0]))
        # Detectron2 derives a level's number from its scale, so pass scales that encode the numbers.
        super().__init__(scales=[2.0 ** -(first + place) for place in range(len(scales))], **kwargs)
        for pooler, scale in zip(self.level_poolers, scales, strict=True):
            pooler.spatial_scale = scale
