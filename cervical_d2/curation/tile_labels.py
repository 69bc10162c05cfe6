"""Slides and their labels, read like any other dataset and checked before a tile is cut."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cervical_d2.curation.tile_plan import SlideLabels
from cervical_d2.datasets.classes import spelling_key
from cervical_d2.datasets.definition import Centers
from cervical_d2.datasets.formats import Document, Record, Source, format_of
from cervical_d2.datasets.problems import Problems
from cervical_d2.datasets.reading import finish
from cervical_d2.errors import UserError
from cervical_d2.slides.slide import open_slide, slide_files


class LabelSource(NamedTuple):
    """The files of the labels and how to read them.

    `roi`: the class of screened regions; `drop`: classes that are not read. `box_side`: side of the boxes around point
    labels, in pixels of level 0. `objective`: the magnification of the labels' pixels, if not the slide's own.
    """

    images: Path
    annotations: Path
    format: str
    roi: str = "roi"
    drop: tuple[str, ...] = ()
    box_side: float | None = None
    objective: float | None = None
    drop_invalid: bool = False


def read_labels(source: LabelSource) -> list[SlideLabels]:
    """The labeled slides in the order of the labels.

    Raises:
        UserError: no labels or slides, labels without a slide or outside their slide, slides that cannot be opened.
    """
    problems = Problems()
    place, chosen = Source("slides", source.images, source.annotations), format_of(source.format)
    document = chosen.read(place, problems)
    if source.objective:
        _rescale(document, source.objective)
    centers = Centers(source.box_side, None) if source.box_side else None
    split = finish(document, place, chosen, problems, None, centers)
    if not source.drop_invalid:
        if strays := [problem for problem in problems if problem.kind == "outside"]:
            fault = strays[0]
            raise UserError(
                f"{fault.place}: {fault.finding}: labels of another slide or scale? ({len(strays)} such labels; "
                "--drop-invalid leaves them out)"
            )
        problems.settle()
    if not split.document.records:
        raise UserError(f"{source.annotations}: no label belongs to a slide of {source.images}; check both paths")
    return [_labels_of(record, source) for record in split.document.records]


def _rescale(document: Document, objective: float) -> None:
    """From pixels at `objective` to those of level 0, in place."""
    for record in document.records:
        with open_slide(record["file_name"]) as slide:
            if slide.objective is None:
                raise UserError(f"{slide.path}: does not state its objective; --labels-at cannot be used with it")
            factor = slide.objective / objective
        for annotation in record["annotations"]:
            for key in annotation.keys() & {"bbox", "point"}:
                annotation[key] = [factor * value for value in annotation[key]]


def _labels_of(record: Record, source: LabelSource) -> SlideLabels:
    wanted = [entry for entry in record["annotations"] if not _is(entry, source.drop)]
    regions = [entry for entry in wanted if _is(entry, (source.roi,))]
    ignored = [entry for entry in wanted if entry.get("ignore") or entry["iscrowd"]]
    cells = [entry for entry in wanted if entry not in regions and entry not in ignored]
    path = Path(record["file_name"])
    classes = [entry["category"] for entry in cells]
    return SlideLabels(path.stem, path, _boxes(cells), classes, _boxes(regions), _boxes(ignored))


def _is(annotation: Record, names: Sequence[str]) -> bool:
    own = annotation.get("category")
    return own is not None and spelling_key(own) in map(spelling_key, names)


def _boxes(annotations: Sequence[Record]) -> np.ndarray:
    return np.array([entry["bbox"] for entry in annotations], float).reshape(-1, 4)


def without_cells(places: Sequence[Path]) -> list[SlideLabels]:
    """The slides among and below `places`, which have no cells to find."""
    none = np.empty((0, 4))
    return [SlideLabels(path.stem, path, none, [], none, none) for path in slide_files(places)]


def check_slides(labels: Sequence[SlideLabels], mpp: float | None) -> list[tuple[int, int]]:
    """Open all slides and return their sizes.

    Raises:
        UserError: a slide cannot be opened, has no scale although `mpp` needs one, or has the name of another.
    """
    names: dict[str, Path] = {}
    sizes = []
    for item in labels:
        other = names.setdefault(item.name.casefold(), item.path)
        if other != item.path:
            raise UserError(f"{item.path}: has the name of {other}; tiles are named after slides; rename one")
        with open_slide(item.path) as slide:
            if mpp is not None:
                slide.scale_of(mpp)
            sizes.append(slide.size)
    return sizes
