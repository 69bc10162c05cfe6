"""Anchors clustered for a split beside those of a config: boxes as a training meets them, and how well anchors fit.

M boxes, K anchors on L levels; sizes are (width, height) in pixels of the network's input.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog

from cervical_d2.anchors.grid import AnchorFit, config_anchors, grid_iou, network_scale
from cervical_d2.anchors.kmeans import best_anchor, cluster_anchors
from cervical_d2.curation.statistics import Floats, SplitBoxes, arrays_of, sides
from cervical_d2.datasets.formats import Source
from cervical_d2.datasets.reading import read_source
from cervical_d2.datasets.registry import resolve
from cervical_d2.errors import UserError
from cervical_d2.modeling.anchors import ClusteredAnchorGenerator, anchor_levels
from cervical_d2.progress import progress_bar

TINY = 1.0  # px of the image; ComparisonDetector's README advises against boxes so narrow or low
OF_RANGE = 5  # short sides that stand for all between MIN_SIZE_TRAIN's two, where a training draws from a range
DIGITS = 4  # significant ones of a side


class Clustering(NamedTuple):
    """How anchors are to be found: see `cluster_anchors`."""

    update: str
    restarts: int
    seed: int

    def __call__(self, side: Floats, count: int) -> Floats:
        """(`count`, 2) anchors of boxes with sides (M, 2), to `DIGITS` figures, the smallest first."""
        anchor = cluster_anchors(side, count, **self._asdict()).anchor
        return np.array([[float(f"{length:.{DIGITS}g}") for length in sides] for sides in anchor])


class Study(NamedTuple):
    """`boxes` as the network meets them in a training; `fits` of the config's own anchors and of the clustered ones,
    which are in `cfg`, by shape; `grid`: IoUs (M,) where they stand; `sweep`: mean IoU by number of anchors, {} if it
    was not asked for."""

    boxes: SplitBoxes
    tiny: int
    cfg: CfgNode
    fits: dict[str, AnchorFit]
    grid: dict[str, Floats]
    how: Clustering
    sweep: dict[int, float]


OWN, CLUSTERED = "config's", "k-means"


def boxes_of_split(name: str) -> SplitBoxes:
    """Those of a registered split, NAME@MAP or FILE.yaml:SPLIT; no image is opened."""
    registered = resolve(name)
    return arrays_of(registered, MetadataCatalog.get(registered).thing_classes, DatasetCatalog.get(registered))


def boxes_of_file(path: Path) -> SplitBoxes:
    """Those of a COCO file, with the classes that it lists."""
    split = read_source(Source(path.stem, None, path), "coco")
    split.problems.settle()
    return arrays_of(path.stem, split.document.classes, split.document.records)


def study_anchors(split: SplitBoxes, cfg: CfgNode, count: int, how: Clustering, sweep: bool = False) -> Study:
    """Cluster the boxes of `split`, scaled as a training with `cfg` does, into `count` anchors; compare.

    `sweep`: into all smaller numbers too. Raises `UserError` for boxes or a number that the levels cannot have.
    """
    levels = anchor_levels(cfg)
    _check_count(count, levels)
    boxes, tiny = training_boxes(split, cfg)
    side = sides(boxes.box)
    clustered = with_clusters(cfg, how(side, count))
    both = {OWN: cfg, CLUSTERED: clustered}
    fits = {label: _fit(side, own) for label, own in both.items()}
    grid = {label: grid_iou(boxes, own) for label, own in both.items()}
    counts = progress_bar(range(1, count + 1), desc="clustering", unit="number") if sweep else ()
    swept = {number: float(best_anchor(side, how(side, number))[0].mean()) for number in counts}
    return Study(boxes, tiny, clustered, fits, grid, how, swept)


def _fit(side: Floats, cfg: CfgNode) -> AnchorFit:
    anchors = config_anchors(cfg)
    return AnchorFit(side, *best_anchor(side, anchors.size), anchors)


def _check_count(count: int, levels: Sequence[str]) -> None:
    if count < 1 or count % len(levels):
        near = max(1, count // len(levels)) * len(levels)
        raise UserError(
            f"--num-anchors {count}: the {len(levels)} levels {', '.join(levels)} need equally many; use "
            f"{near} or {near + len(levels)}"
        )


def training_boxes(split: SplitBoxes, cfg: CfgNode) -> tuple[SplitBoxes, int]:
    """`split` as the network meets it: each box once at each of `training_sizes`; and how many were too small.

    Left out are boxes of `TINY` px or less, and those below `INPUT.MIN_BOX`. Raises `UserError` if none is left.
    """
    shortest = sides(split.box).min(axis=1, initial=np.inf)
    keep = (shortest > TINY) & (shortest >= cfg.INPUT.MIN_BOX)
    if not keep.any():
        raise UserError(f"{split.name}: no box above {TINY:g} px among {len(keep)}; name a split with boxes")
    box, image, label = split.box[keep], split.image[keep], split.label[keep]
    scales = [network_scale(at_test_size(cfg, short), split.size) for short in training_sizes(cfg)]
    return split._replace(
        size=np.concatenate([split.size * scale for scale in scales]),
        image=np.concatenate([image + number * len(split.size) for number in range(len(scales))]),
        label=np.tile(label, len(scales)),
        box=np.concatenate([box * np.tile(scale, 2)[image] for scale in scales]),
    ), int((~keep).sum())


def training_sizes(cfg: CfgNode) -> list[int]:
    """The short sides of `INPUT.MIN_SIZE_TRAIN`; of a range, `OF_RANGE` of them, evenly from end to end."""
    given = sorted(set(cfg.INPUT.MIN_SIZE_TRAIN))
    if cfg.INPUT.MIN_SIZE_TRAIN_SAMPLING == "range":
        given = sorted({round(size) for size in np.linspace(given[0], given[-1], OF_RANGE)})
    return given


def sizes_in_words(cfg: CfgNode) -> str:
    """As papers write them, long side first: "(1333, 640), (1333, 800)"."""
    return ", ".join(f"({cfg.INPUT.MAX_SIZE_TRAIN}, {short})" for short in training_sizes(cfg))


def at_test_size(cfg: CfgNode, short: int) -> CfgNode:
    """A copy of `cfg` that tests images at a size of its training."""
    cfg = cfg.clone()
    cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST = short, cfg.INPUT.MAX_SIZE_TRAIN
    return cfg


def with_clusters(cfg: CfgNode, anchor: Floats) -> CfgNode:
    """A copy of `cfg` with `anchor` (K, 2), sorted by area, in equal parts on its levels."""
    cfg = cfg.clone()
    cfg.MODEL.ANCHOR_GENERATOR.NAME = ClusteredAnchorGenerator.__name__
    cfg.MODEL.ANCHOR_GENERATOR.CLUSTERS = anchor.reshape(len(anchor_levels(cfg)), -1, 2).tolist()
    return cfg
