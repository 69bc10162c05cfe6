"""Output of an anchor study: YAML to paste, tables, plots."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from cervical_d2.anchors.study import CLUSTERED, OWN, Study, lost_classes, sizes_in_words, training_sizes
from cervical_d2.curation.statistics import Floats, SplitBoxes, mean, share
from cervical_d2.evaluation.table import aligned
from cervical_d2.files import output_folder, write_bytes, write_text
from cervical_d2.modeling.anchors import anchor_levels, level_strides, levels_key
from cervical_d2.report.anchor_plot import anchor_figure, sweep_figure
from cervical_d2.report.axes import png
from cervical_d2.report.summary import FITS, SplitStatistics

COMMAND = "anchors"


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
    """The YAML, tables of the fit by class, by level and on the grid, the means by shape, and last where they stand."""
    by_shape = _means({label: fit.iou for label, fit in found.fits.items()}, found)
    strides = ", ".join(map(str, level_strides(found.cfg)))
    shapes = class_table(found.boxes, {kind: fit.iou for kind, fit in found.fits.items()})
    stands = f"where the anchors stand, {strides} px apart on their levels:\n{class_table(found.boxes, found.grid)}"
    parts = [as_yaml(found), shapes, level_table(found), "\n".join([stands, *lost_to_the_grid(found)])]
    if found.sweep:
        rows = [[number, f"{iou:.4f}"] for number, iou in found.sweep.items()]
        parts.append(aligned(["anchors", "mean IoU"], rows))
    return "\n\n".join([*parts, f"by shape alone: {by_shape}\n{_means(found.grid, found)}, where the anchors stand"])


def _means(ious: Mapping[str, Floats], found: Study) -> str:
    own, ours = (figures(ious[label]) for label in (OWN, CLUSTERED))
    before = f"the {OWN} {len(found.fits[OWN].anchors.size)} anchors: {', '.join(own)}"
    return f"mean IoU {ours[0]}, recall {ours[1]} at {FITS[0]}, {ours[2]} at {FITS[1]} ({before})"


def figures(iou: Floats) -> list[str]:
    """Mean IoU and recall at each of `FITS`, of boxes whose best anchor has `iou` (M,); "-" where there are none."""
    values = [mean(iou), *(share(iou, threshold) for threshold in FITS)]
    return ["-" if np.isnan(value) else f"{value:.4f}" for value in values]


def lost_to_the_grid(found: Study) -> list[str]:
    """A line for each of `lost_classes`, then what to do."""
    lines = [
        f"{name}: {now:.4f} find an anchor with IoU {FITS[0]}, {before:.4f} with the {OWN}"
        for name, (now, before) in lost_classes(found).items()
    ]
    if lines and found.without:
        fewer = found.without
        gone = ", ".join(anchor_levels(found.cfg)[len(anchor_levels(fewer.cfg)) :])
        lines.append(
            f"leave out {gone}: with {levels_key(fewer.cfg)} {anchor_levels(fewer.cfg)} and --num-anchors "
            f"{len(fewer.fits[CLUSTERED].anchors.size)} it is {_means(fewer.grid, fewer)}"
        )
    elif lines:
        lines.append(f"fewer levels do not help: keep the {OWN} anchors, or take a network whose strides stay")
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
        SplitStatistics(
            found.boxes._replace(name=f"{found.boxes.name}, {len(fit.anchors.size)} anchors ({kind})"), {}, fit
        )
        for kind, fit in found.fits.items()
    ]
    pictures = {"anchors.png": anchor_figure(subjects, sizes_in_words(found.cfg))}
    if found.sweep:
        pictures["sweep.png"] = sweep_figure(found.sweep, len(anchor_levels(found.cfg)), found.fits[OWN])
    with output_folder(output, COMMAND) as folder:
        for name, text in files.items():
            write_text(folder / name, text)
        for name, figure in pictures.items():
            write_bytes(folder / name, png(figure))
    return [output / name for name in (*files, *pictures)]
