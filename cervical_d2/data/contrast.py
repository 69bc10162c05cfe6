"""Whether a data set has the contrast that the norms of a pre-trained network were made for."""

from collections.abc import Sequence

import numpy as np
from detectron2.config import CfgNode

from cervical_d2.data.pixels import pixel_statistics
from cervical_d2.datasets.formats import Record

SAMPLE = 16  # images, evenly spaced
LEAST = 0.5  # of MODEL.PIXEL_STD; measured: a third of it costs 14 points of AP50 on BCCD (docs/xu2022.md)
KEEPS_STATISTICS = {"FrozenBN", "EvalBN"}
IN_WEIGHTS = 2.0  # a PIXEL_STD below it is none: the first convolution's weights hold it


def contrast_lines(cfg: CfgNode, records: Sequence[Record]) -> list[str]:
    """A line if pixels deviate far less than `MODEL.PIXEL_STD` and pre-trained norms keep their statistics, else none.

    Norms that take the batch's statistics make up for it.
    """
    model = cfg.MODEL
    kept = model.RESNETS.NORM in KEEPS_STATISTICS or model.BACKBONE.FREEZE_AT or model.BACKBONE.FREEZE_STAGES
    if not (model.WEIGHTS and kept) or min(model.PIXEL_STD) < IN_WEIGHTS:
        return []
    places = np.unique(np.linspace(0, len(records) - 1, SAMPLE).round().astype(int))
    std = pixel_statistics([records[int(place)] for place in places], cfg.INPUT.FORMAT).std
    if np.mean(np.divide(std, model.PIXEL_STD)) >= LEAST:
        return []
    told = ", ".join(f"{value:.1f}" for value in std)
    line = (
        f"contrast: pixels of {len(places)} images have a std of {told}, far less than MODEL.PIXEL_STD, and norms that "
        "keep their statistics cannot make up for it; `cervical-d2 mean-std` computes the data's own"
    )
    return [line]
