"""Compares anchors clustered for a split with those of a config, on boxes at the training resolutions.

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
from cervical_d2.curation.statistics import Floats, SplitBoxes, arrays_of, share, sides
from cervical_d2.datasets.formats import Source
from cervical_d2.datasets.reading import read_source
from cervical_d2.datasets.registry import resolve
from cervical_d2.errors import UserError
from cervical_d2.modeling.anchors import ClusteredAnchorGenerator, anchor_levels, levels_key
from cervical_d2.progress import progress_bar

TINY = 1.0  # px of the image; ComparisonDetector's README advises to drop such thin boxes
GOOD = 0.5  # IoU
LOST = 0.02  # share of a class's boxes that a coarse grid may lose without a warning
OF_RANGE = 5  # number of short sides used for MIN_SIZE_TRAIN if training draws from a range
DIGITS = 4  # significant digits of a side


class Clustering(NamedTuple):
    """Settings of `cluster_anchors`."""

    update: str
    restarts: int
    seed: int

    def __call__(self, side: Floats, count: int) -> Floats:
        """(`count`, 2) anchors for boxes with sides (M, 2), rounded to `DIGITS` significant digits, smallest first."""
        anchor = cluster_anchors(side, count, **self._asdict()).anchor
        return np.array([[float(f"{length:.{DIGITS}g}") for length in sides] for sides in anchor])


class Study(NamedTuple):
    """The comparison of the config's anchors with the clustered ones.

    `boxes`: at the training resolutions; `tiny`: number of boxes left out; `cfg`: config with the clustered anchors;
    `fits`: fit of both sets of anchors by shape; `grid`: IoUs (M,) of both on the grid; `how`: the settings; `sweep`:
    mean IoU by number of anchors, {} if not computed; `without`: the levels to leave out so that no class loses boxes
    to the grid, None if none has to be or leaving out does not help.
    """

    boxes: SplitBoxes
    tiny: int
    cfg: CfgNode
    fits: dict[str, AnchorFit]
    grid: dict[str, Floats]
    how: Clustering
    sweep: dict[int, float]
    without: "Study | None" = None


OWN, CLUSTERED = "config's", "k-means"


def boxes_of_split(name: str) -> SplitBoxes:
    """The boxes of a registered split, NAME@MAP or FILE.yaml:SPLIT. No image is opened."""
    registered = resolve(name)
    return arrays_of(registered, MetadataCatalog.get(registered).thing_classes, DatasetCatalog.get(registered))


def boxes_of_file(path: Path) -> SplitBoxes:
    """The boxes of a COCO file, with the classes that it lists."""
    split = read_source(Source(path.stem, None, path), "coco")
    split.problems.settle()
    return arrays_of(path.stem, split.document.classes, split.document.records)


def study_anchors(split: SplitBoxes, cfg: CfgNode, count: int, how: Clustering, sweep: bool = False) -> Study:
    """Cluster the boxes of `split`, scaled as in training with `cfg`, into `count` anchors, and compare.

    `sweep`: also cluster into all smaller numbers. Raises `UserError` if there are no usable boxes, or if `count` is
    not a multiple of the number of levels.
    """
    levels = anchor_levels(cfg)
    _check_count(count, levels)
    found = _compared(*training_boxes(split, cfg), cfg, count, how)
    side = sides(found.boxes.box)
    counts = progress_bar(range(1, count + 1), desc="clustering", unit="number") if sweep else ()
    swept = {number: float(best_anchor(side, how(side, number))[0].mean()) for number in counts}
    return found._replace(sweep=swept, without=_without_loss(found, cfg, count))


def _compared(boxes: SplitBoxes, tiny: int, cfg: CfgNode, count: int, how: Clustering) -> Study:
    """The anchors of `cfg` and `count` clustered ones, by shape and where they stand."""
    side = sides(boxes.box)
    both = {OWN: cfg, CLUSTERED: with_clusters(cfg, how(side, count))}
    fits = {label: _fit(side, own) for label, own in both.items()}
    grid = {label: grid_iou(boxes, own) for label, own in both.items()}
    return Study(boxes, tiny, both[CLUSTERED], fits, grid, how, {})


def lost_classes(found: Study) -> dict[str, tuple[float, float]]:
    """Of each class that finds fewer anchors than before, not by their shape but by where they stand: the share of its
    boxes that finds one with an IoU of `GOOD`, of the clustered anchors and of the config's own."""
    lost = {}
    for number, name in enumerate(found.boxes.classes):
        chosen = found.boxes.label == number
        before, now = (share(found.grid[kind][chosen], GOOD) for kind in (OWN, CLUSTERED))
        if min(before, share(found.fits[CLUSTERED].iou[chosen], GOOD)) - now > LOST:
            lost[name] = (now, before)
    return lost


def _without_loss(found: Study, cfg: CfgNode, count: int) -> Study | None:
    """The study with the fewest of the coarsest levels of `cfg` left out that loses no class; None where none helps,
    or `found` itself loses none."""
    for levels in range(len(anchor_levels(cfg)) - 1, 0, -1) if lost_classes(found) else ():
        number = max(count // levels, 1) * levels
        fewer = _compared(found.boxes, found.tiny, finest_levels(cfg, levels), number, found.how)
        if not lost_classes(fewer):
            return fewer
    return None


def finest_levels(cfg: CfgNode, levels: int) -> CfgNode:
    """A copy of `cfg` whose anchors lie on the first so many of its levels."""
    cfg = cfg.clone()
    generator = cfg.MODEL.ANCHOR_GENERATOR
    for key in ("SIZES", "ASPECT_RATIOS", "CLUSTERS"):
        if len(generator[key]) > 1:  # one list serves all levels
            generator[key] = list(generator[key])[:levels]
    cfg.merge_from_list([levels_key(cfg), anchor_levels(cfg)[:levels]])
    return cfg


def _fit(side: Floats, cfg: CfgNode) -> AnchorFit:
    anchors = config_anchors(cfg)
    return AnchorFit(side, *best_anchor(side, anchors.size), anchors)


def _check_count(count: int, levels: Sequence[str]) -> None:
    if count < 1 or count % len(levels):
        near = max(1, count // len(levels)) * len(levels)
        raise UserError(
            f"--num-anchors {count}: the {len(levels)} levels {', '.join(levels)} need the same number each; use "
            f"{near} or {near + len(levels)}"
        )


def training_boxes(split: SplitBoxes, cfg: CfgNode) -> tuple[SplitBoxes, int]:
    """`split` with each box at each of `training_sizes`, and the number of boxes that were too small.

    Boxes of at most `TINY` px and those below `INPUT.MIN_BOX` are left out. Raises `UserError` if none remain.
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
    """The short sides of `INPUT.MIN_SIZE_TRAIN`; for a range, `OF_RANGE` evenly spaced values."""
    given = sorted(set(cfg.INPUT.MIN_SIZE_TRAIN))
    if cfg.INPUT.MIN_SIZE_TRAIN_SAMPLING == "range":
        given = sorted({round(size) for size in np.linspace(given[0], given[-1], OF_RANGE)})
    return given


def sizes_in_words(cfg: CfgNode) -> str:
    """The training sizes as text, long side first as in papers: "(1333, 640), (1333, 800)"."""
    return ", ".join(f"({cfg.INPUT.MAX_SIZE_TRAIN}, {short})" for short in training_sizes(cfg))


def at_test_size(cfg: CfgNode, short: int) -> CfgNode:
    """A copy of `cfg` whose test resize uses a training size."""
    cfg = cfg.clone()
    cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST = short, cfg.INPUT.MAX_SIZE_TRAIN
    return cfg


def with_clusters(cfg: CfgNode, anchor: Floats) -> CfgNode:
    """A copy of `cfg` with the anchors (K, 2), sorted by area, divided equally among its levels."""
    cfg = cfg.clone()
    cfg.MODEL.ANCHOR_GENERATOR.NAME = ClusteredAnchorGenerator.__name__
    cfg.MODEL.ANCHOR_GENERATOR.CLUSTERS = anchor.reshape(len(anchor_levels(cfg)), -1, 2).tolist()
    return cfg
