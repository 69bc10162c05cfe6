"""Anchors clustered for a split beside those of a config: YAML to paste, tables, pictures.

N images, M boxes, K anchors on L levels; sizes are (width, height) in pixels of the network's input.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from tqdm import tqdm

from cervical_d2.data.anchor_clusters import best_anchor, cluster_anchors
from cervical_d2.data.formats import Source
from cervical_d2.data.reading import read_source
from cervical_d2.data.registry import resolve
from cervical_d2.errors import UserError
from cervical_d2.evaluation.table import aligned
from cervical_d2.files import write_bytes, write_text
from cervical_d2.modeling.anchors import ClusteredAnchorGenerator, anchor_levels, level_strides
from cervical_d2.report.anchor_fit import AnchorFit, config_anchors, network_scale
from cervical_d2.report.anchor_grid import grid_iou
from cervical_d2.report.anchor_plot import anchor_figure, sweep_figure
from cervical_d2.report.axes import png
from cervical_d2.report.statistics import Floats, SplitBoxes, arrays_of, mean, share, sides
from cervical_d2.report.summary import FITS, Subject

TINY = 1.0  # px of the image; ComparisonDetector's README advises against boxes so narrow or low
OF_RANGE = 5  # short sides that stand for all between MIN_SIZE_TRAIN's two, where a training draws from a range
LOST = 0.02  # of a class's boxes, to a grid that is too coarse for them, is told
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


def study(split: SplitBoxes, cfg: CfgNode, count: int, how: Clustering, sweep: bool = False) -> Study:
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
    counts = tqdm(range(1, count + 1), desc="clustering", unit="number", delay=3) if sweep else ()
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


def as_yaml(found: Study) -> str:
    """What to paste into a config, with how it was found as a comment."""
    generator, how = found.cfg.MODEL.ANCHOR_GENERATOR, found.how
    boxes, at = len(found.boxes.box) // len(training_sizes(found.cfg)), sizes_in_words(found.cfg)
    levels = zip(anchor_levels(found.cfg), generator.CLUSTERS, strict=True)
    rows = [f"      - {pairs}  # {name}" for name, pairs in levels]
    return "\n".join(
        [
            f"# {boxes} boxes of {found.boxes.name} at {at}, without {found.tiny} too small ones",
            f"# update {how.update}, seed {how.seed}, the best of {how.restarts} starts",
            f"MODEL:\n  ANCHOR_GENERATOR:\n    NAME: {generator.NAME}\n    CLUSTERS:",
            *rows,
        ]
    )


def as_text(found: Study) -> str:
    """The YAML, tables of the fit by class, by level and on the grid, and a last line of `mean IoU`."""
    own, ours = (figures(found.fits[label].iou) for label in (OWN, CLUSTERED))
    last = f"mean IoU {ours[0]}, recall {ours[1]} at {FITS[0]}, {ours[2]} at {FITS[1]}"
    before = f"the {OWN} {len(found.fits[OWN].anchors.size)} anchors: {', '.join(own)}"
    strides = ", ".join(map(str, level_strides(found.cfg)))
    shapes = class_table(found.boxes, {kind: fit.iou for kind, fit in found.fits.items()})
    stands = f"where the anchors stand, {strides} px apart on their levels:\n{class_table(found.boxes, found.grid)}"
    parts = [as_yaml(found), shapes, level_table(found), "\n".join([stands, *lost_to_the_grid(found)])]
    if found.sweep:
        rows = [[number, f"{iou:.4f}"] for number, iou in found.sweep.items()]
        parts.append(aligned(["anchors", "mean IoU"], rows))
    return "\n\n".join([*parts, f"{last} ({before})"])


def figures(iou: Floats) -> list[str]:
    """Mean IoU and recall at each of `FITS`, of boxes whose best anchor has `iou` (M,); "-" where there are none."""
    values = [mean(iou), *(share(iou, threshold) for threshold in FITS)]
    return ["-" if np.isnan(value) else f"{value:.4f}" for value in values]


def lost_to_the_grid(found: Study) -> list[str]:
    """A line for each class that finds fewer anchors than before, not by their shape but by where they stand."""
    lines = []
    for number, name in enumerate(found.boxes.classes):
        chosen = found.boxes.label == number
        before, now = (share(found.grid[kind][chosen], FITS[0]) for kind in (OWN, CLUSTERED))
        if min(before, share(found.fits[CLUSTERED].iou[chosen], FITS[0])) - now > LOST:
            lines.append(
                f"{name}: {now:.4f} find an anchor with IoU {FITS[0]}, {before:.4f} with the {OWN}; leave out the "
                f"coarsest level, {anchor_levels(found.cfg)[-1]}, or take a network whose strides stay"
            )
    return lines


COLUMNS = ["mean IoU", *(f"recall {threshold}" for threshold in FITS)]


def class_table(boxes: SplitBoxes, ious: Mapping[str, Floats]) -> str:
    """All boxes, then those of each class: a row each, both kinds of anchors side by side; `ious` (M,) by kind."""
    label = boxes.label
    groups = [("all", np.full(len(label), True))]
    groups += [(name, label == number) for number, name in enumerate(boxes.classes)]
    rows = [
        [name, int(chosen.sum()), *(cell for iou in ious.values() for cell in figures(iou[chosen]))]
        for name, chosen in groups
    ]
    header = ["boxes of", "number", *(cell for kind in ious for cell in (f"{kind}: {COLUMNS[0]}", *COLUMNS[1:]))]
    return aligned(header, rows)


def level_table(found: Study) -> str:
    """The anchors of each level, and the boxes that have their best anchor among them."""
    rows = []
    for number, name in enumerate(anchor_levels(found.cfg)):
        for kind, fit in found.fits.items():
            chosen = fit.anchors.level[fit.anchor] == number
            sizes = fit.anchors.size[fit.anchors.level == number]
            shapes = ", ".join(f"{width:.0f} x {height:.0f}" for width, height in sizes)
            rows.append([name, kind, shapes, 100 * float(chosen.mean()), *figures(fit.iou[chosen])])
    return aligned(["level", "anchors", "width x height", "% of boxes", *COLUMNS], rows)


def write_study(found: Study, output: Path) -> list[Path]:
    """anchors.yaml, anchors.png (boxes and anchors) and, of a sweep, sweep.png into the folder `output`."""
    files = {"anchors.yaml": as_yaml(found) + "\n"}
    subjects = [
        Subject(found.boxes._replace(name=f"{found.boxes.name}, {len(fit.anchors.size)} anchors ({kind})"), {}, fit)
        for kind, fit in found.fits.items()
    ]
    pictures = {"anchors.png": anchor_figure(subjects, sizes_in_words(found.cfg))}
    if found.sweep:
        pictures["sweep.png"] = sweep_figure(found.sweep, len(anchor_levels(found.cfg)), found.fits[OWN])
    for name, text in files.items():
        write_text(output / name, text)
    for name, figure in pictures.items():
        write_bytes(output / name, png(figure))
    return [output / name for name in (*files, *pictures)]
