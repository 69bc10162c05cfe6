"""Output of an anchor study: YAML to paste, tables, plots."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from cervical_d2.anchors.study import CLUSTERED, OWN, Study, sizes_in_words, training_sizes
from cervical_d2.curation.statistics import Floats, SplitBoxes, mean, share
from cervical_d2.evaluation.table import aligned
from cervical_d2.files import write_bytes, write_text
from cervical_d2.modeling.anchors import anchor_levels, level_strides
from cervical_d2.report.anchor_plot import anchor_figure, sweep_figure
from cervical_d2.report.axes import png
from cervical_d2.report.summary import FITS, SplitStatistics

LOST = 0.02  # share of a class's boxes lost to a coarse grid that is reported


def as_yaml(study: Study) -> str:
    """YAML to paste into a config, with the settings of the clustering as a comment."""
    generator, how = study.cfg.MODEL.ANCHOR_GENERATOR, study.how
    boxes, at = len(study.boxes.box) // len(training_sizes(study.cfg)), sizes_in_words(study.cfg)
    levels = zip(anchor_levels(study.cfg), generator.CLUSTERS, strict=True)
    rows = [f"      - {pairs}  # {name}" for name, pairs in levels]
    return "\n".join(
        [
            f"# {boxes} boxes of {study.boxes.name} at {at}, without {study.tiny} too small ones",
            f"# update {how.update}, seed {how.seed}, the best of {how.restarts} starts",
            f"MODEL:\n  ANCHOR_GENERATOR:\n    NAME: {generator.NAME}\n    CLUSTERS:",
            *rows,
        ]
    )


def as_text(study: Study) -> str:
    """The YAML, tables of the fit by class, by level and on the grid, and a last line with the mean IoU."""
    own, ours = (figures(study.fits[label].iou) for label in (OWN, CLUSTERED))
    last = f"mean IoU {ours[0]}, recall {ours[1]} at {FITS[0]}, {ours[2]} at {FITS[1]}"
    before = f"the {OWN} {len(study.fits[OWN].anchors.size)} anchors: {', '.join(own)}"
    strides = ", ".join(map(str, level_strides(study.cfg)))
    shapes = class_table(study.boxes, {kind: fit.iou for kind, fit in study.fits.items()})
    stands = f"where the anchors stand, {strides} px apart on their levels:\n{class_table(study.boxes, study.grid)}"
    parts = [as_yaml(study), shapes, level_table(study), "\n".join([stands, *lost_to_the_grid(study)])]
    if study.sweep:
        rows = [[number, f"{iou:.4f}"] for number, iou in study.sweep.items()]
        parts.append(aligned(["anchors", "mean IoU"], rows))
    return "\n\n".join([*parts, f"{last} ({before})"])


def figures(iou: Floats) -> list[str]:
    """Mean IoU and recall at each of `FITS` for boxes whose best anchor has `iou` (M,); "-" without boxes."""
    values = [mean(iou), *(share(iou, threshold) for threshold in FITS)]
    return ["-" if np.isnan(value) else f"{value:.4f}" for value in values]


def lost_to_the_grid(study: Study) -> list[str]:
    """A line for each class with lower recall than before that is caused by the grid, not by the shapes."""
    lines = []
    for number, name in enumerate(study.boxes.classes):
        chosen = study.boxes.label == number
        before, now = (share(study.grid[kind][chosen], FITS[0]) for kind in (OWN, CLUSTERED))
        if min(before, share(study.fits[CLUSTERED].iou[chosen], FITS[0])) - now > LOST:
            lines.append(
                f"{name}: {now:.4f} find an anchor with IoU {FITS[0]}, {before:.4f} with the {OWN}; leave out the "
                f"coarsest level, {anchor_levels(study.cfg)[-1]}, or take a network whose strides stay"
            )
    return lines


COLUMNS = ["mean IoU", *(f"recall {threshold}" for threshold in FITS)]


def class_table(boxes: SplitBoxes, ious: Mapping[str, Floats]) -> str:
    """A table with a row for all boxes and one for each class, and columns for each kind of anchors; `ious` (M,)."""
    label = boxes.label
    groups = [("all", np.full(len(label), True))]
    groups += [(name, label == number) for number, name in enumerate(boxes.classes)]
    rows = [
        [name, int(chosen.sum()), *(cell for iou in ious.values() for cell in figures(iou[chosen]))]
        for name, chosen in groups
    ]
    header = ["boxes of", "number", *(cell for kind in ious for cell in (f"{kind}: {COLUMNS[0]}", *COLUMNS[1:]))]
    return aligned(header, rows)


def level_table(study: Study) -> str:
    """A table of the anchors of each level and the boxes whose best anchor is on it."""
    rows = []
    for number, name in enumerate(anchor_levels(study.cfg)):
        for kind, fit in study.fits.items():
            chosen = fit.anchors.level[fit.anchor] == number
            sizes = fit.anchors.size[fit.anchors.level == number]
            shapes = ", ".join(f"{width:.0f} x {height:.0f}" for width, height in sizes)
            rows.append([name, kind, shapes, 100 * float(chosen.mean()), *figures(fit.iou[chosen])])
    return aligned(["level", "anchors", "width x height", "% of boxes", *COLUMNS], rows)


def write_study(study: Study, output: Path) -> list[Path]:
    """Write anchors.yaml, anchors.png (boxes and anchors) and, after a sweep, sweep.png into the folder `output`."""
    files = {"anchors.yaml": as_yaml(study) + "\n"}
    subjects = [
        SplitStatistics(
            study.boxes._replace(name=f"{study.boxes.name}, {len(fit.anchors.size)} anchors ({kind})"), {}, fit
        )
        for kind, fit in study.fits.items()
    ]
    pictures = {"anchors.png": anchor_figure(subjects, sizes_in_words(study.cfg))}
    if study.sweep:
        pictures["sweep.png"] = sweep_figure(study.sweep, len(anchor_levels(study.cfg)), study.fits[OWN])
    for name, text in files.items():
        write_text(output / name, text)
    for name, figure in pictures.items():
        write_bytes(output / name, png(figure))
    return [output / name for name in (*files, *pictures)]
