"""Anchors of any width and height. Detectron2's own anchors are sizes times aspect ratios.

L pyramid levels, A anchors per cell; boxes are XYXY in pixels of the network's input.
"""

from collections.abc import Sequence
from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling.anchor_generator import (
    ANCHOR_GENERATOR_REGISTRY,
    BufferList,
    DefaultAnchorGenerator,
    build_anchor_generator,
)
from detectron2.modeling.backbone import build_backbone
from torch import Tensor

from cervical_d2.config import config_value
from cervical_d2.errors import UserError

# The key with the feature maps, by MODEL.META_ARCHITECTURE. All others use MODEL.RPN.IN_FEATURES.
FEATURES = dict.fromkeys(("RetinaNet", "CervicalRetinaNet"), "MODEL.RETINANET.IN_FEATURES")
KEY = "MODEL.ANCHOR_GENERATOR.CLUSTERS"
CURE = "`cervical-d2 anchors --config-file FILE` prints anchors that fit a config"
Clusters = Sequence[Sequence[Sequence[float]]]
"""L lists of A pairs (width, height)."""


@ANCHOR_GENERATOR_REGISTRY.register()
class ClusteredAnchorGenerator(DefaultAnchorGenerator):
    """`DefaultAnchorGenerator` that also accepts anchors as `clusters`, instead of sizes and aspect ratios.

    Without `clusters` the anchors are exactly Detectron2's. Raises `UserError` for invalid `clusters`.
    Source: 3cDe-Net (Wang et al. 2022), k-means anchors.
    """

    @configurable
    def __init__(self, *, clusters: Clusters = (), **kwargs: Any):
        if not clusters:
            super().__init__(**kwargs)
            return
        sides = sides_of(clusters, len(kwargs["strides"]))
        # The sizes in the config may be for another number of levels.
        super().__init__(**{**kwargs, "sizes": [1.0], "aspect_ratios": [1.0]})
        self.cell_anchors = BufferList([torch.cat([-side / 2, side / 2], dim=1).float() for side in sides])

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: list[ShapeSpec]) -> dict[str, Any]:
        """Detectron2's arguments and ours.

        Raises:
            UserError: the levels have unequal numbers of anchors, which one shared head cannot serve.
        """
        clusters = cfg.MODEL.ANCHOR_GENERATOR.CLUSTERS
        numbers = [len(side) for side in sides_of(clusters, len(input_shape))] if clusters else []
        if len(set(numbers)) > 1:
            raise UserError(f"{KEY}: {numbers} anchors per level; all levels share one head and need the same; {CURE}")
        return {**super().from_config(cfg, input_shape), "clusters": clusters}


def sides_of(clusters: Clusters, levels: int) -> list[Tensor]:
    """(A, 2) float64 widths and heights for each of the `levels`.

    Raises:
        UserError: the number of levels is wrong, an entry is not a pair, or a side is not above 0.
    """
    if len(clusters) != levels:
        raise UserError(f"{KEY}: lists for {len(clusters)} levels, but the network has {levels}; {CURE}")
    sides = []
    for number, pairs in enumerate(clusters, start=1):
        try:
            side = torch.tensor(pairs, dtype=torch.float64)
        except (TypeError, ValueError):  # text, or rows of different lengths
            side = torch.zeros(0)
        if side.dim() != 2 or side.shape[1] != 2 or not ((side > 0) & side.isfinite()).all():
            raise UserError(
                f"{KEY}: {pairs!r:.60} for level {number} of {levels}; write [[width, height], ...], in px above 0"
            )
        sides.append(side)
    return sides


def anchor_levels(cfg: CfgNode) -> list[str]:
    """The names of the feature maps that have anchors."""
    return list(config_value(cfg, levels_key(cfg)))


def levels_key(cfg: CfgNode) -> str:
    """The config key that names the feature maps of `anchor_levels`."""
    return FEATURES.get(cfg.MODEL.META_ARCHITECTURE, "MODEL.RPN.IN_FEATURES")


def level_strides(cfg: CfgNode) -> list[int]:
    """The stride in px of each of `anchor_levels`, taken from the network.

    Raises:
        UserError: the network does not have one of the levels.
    """
    with torch.device("meta"):  # allocates no weights
        shapes = build_backbone(cfg).output_shape()
    levels = anchor_levels(cfg)
    if unknown := [name for name in levels if name not in shapes]:
        raise UserError(f"no level {unknown[0]!r} for anchors; the network has {', '.join(shapes)}")
    return [shapes[name].stride for name in levels]


def cell_anchors(cfg: CfgNode) -> list[Tensor]:
    """(A, 4) anchors around the origin for each of `anchor_levels`, built as the model builds them.

    Raises:
        UserError: they do not fit the levels, or the generator is unknown or has no `cell_anchors`.
    """
    levels = anchor_levels(cfg)
    try:
        return list(build_anchor_generator(cfg, [ShapeSpec(stride=1)] * len(levels)).cell_anchors)
    except (AssertionError, AttributeError, KeyError) as error:
        raise UserError(f"MODEL.ANCHOR_GENERATOR does not fit the levels {', '.join(levels)}: {error}") from error


def check_anchors(cfg: CfgNode) -> None:
    """Raise `UserError` if the anchors do not fit the levels, or the generator does not support them."""
    name, ours = cfg.MODEL.ANCHOR_GENERATOR.NAME, ClusteredAnchorGenerator.__name__
    if cfg.MODEL.ANCHOR_GENERATOR.CLUSTERS and name == DefaultAnchorGenerator.__name__:
        raise UserError(f"MODEL.ANCHOR_GENERATOR.NAME {name} does not support {KEY}; use {ours}")
    if not cfg.MODEL.ANCHOR_GENERATOR.CLUSTERS and name == ours:
        raise UserError(
            f"{KEY} is empty, because anchors depend on the data; compute and set them: cervical-d2 anchors --dataset "
            f"NAME ({' '.join(cfg.DATASETS.TRAIN)}) --config-file FILE --num-anchors {3 * len(anchor_levels(cfg))}"
        )
    if name in (DefaultAnchorGenerator.__name__, ours):
        cell_anchors(cfg)
