"""Checks whether the contrast of a dataset is too low for the fixed norm statistics of a pre-trained network."""

from collections.abc import Sequence

import numpy as np
from detectron2.config import CfgNode

from cervical_d2.data.pixels import pixel_statistics
from cervical_d2.datasets.formats import Record

SAMPLE = 16  # images, evenly spaced
LEAST = 0.5  # of MODEL.PIXEL_STD; at a third, AP50 on BCCD drops by 14 points (docs/xu2022.md)
KEEPS_STATISTICS = {"FrozenBN", "EvalBN"}
IN_WEIGHTS = 2.0  # a smaller PIXEL_STD is not a real one: the weights of the first convolution include it


def contrast_lines(cfg: CfgNode, records: Sequence[Record]) -> list[str]:
    """A warning if contrast is below `LEAST` of what frozen BatchNorm statistics expect, else [].

    Norms that use batch statistics compensate for low contrast.
    """
    model = cfg.MODEL
    kept = model.RESNETS.NORM in KEEPS_STATISTICS or model.BACKBONE.FREEZE_AT or model.BACKBONE.FREEZE_STAGES
    if not (model.WEIGHTS and kept) or min(model.PIXEL_STD) < IN_WEIGHTS:
        return []
    places = np.unique(np.linspace(0, len(records) - 1, SAMPLE).round().astype(int))
    std = pixel_statistics([records[int(place)] for place in places], cfg.INPUT.FORMAT).std
    if np.mean(np.divide(std, model.PIXEL_STD)) >= LEAST:
        return []
    values = ", ".join(f"{value:.1f}" for value in std)
    line = (
        f"contrast: pixels of {len(places)} images have a std of {values}, far below MODEL.PIXEL_STD, and norms with "
        "fixed statistics cannot compensate for it; `cervical-d2 mean-std` computes mean and std of the data"
    )
    return [line]
