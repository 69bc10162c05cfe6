"""The files beside the tiles: annotations of each split, data.yaml, and tiles.json with the fate of every tile.

S slides, C classes.
"""

import csv
import io
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml

from cervical_d2.curation.splitting import divide
from cervical_d2.curation.tile_plan import FATES, SlideLabels, TileSettings
from cervical_d2.curation.tile_work import planned, results
from cervical_d2.datasets.formats import Record, tidy
from cervical_d2.errors import UserError
from cervical_d2.files import write_json, write_text

WHOLE = {"all": 1.0}  # the single split if none are requested
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


class SlideTiles(NamedTuple):
    """The tiles of a slide: those `kept`, as `tile_work` wrote them, and in `fates` the number of tiles per fate."""

    labels: SlideLabels
    scale: float
    kept: list[dict[str, Any]]
    fates: dict[str, int]
    focus: list[float]


def slide_tiles(labels: SlideLabels, work: Path) -> SlideTiles:
    """The tiles of a finished slide, read from its folder `work`."""
    plan = planned(work)
    assert plan is not None
    cut = list(results(work))
    blurred = sum(tile["fate"] == "blurred" for tile in cut)
    fates = Counter(fate for *_, fate in plan["places"])
    fates.update({"blurred": blurred, "empty": -blurred})
    kept = [tile for tile in cut if tile["fate"] != "blurred"]
    counts = {fate: fates[fate] for fate in FATES}
    return SlideTiles(labels, plan["scale"], kept, counts, [tile["focus"] for tile in cut])


def check_ratios(ratios: Mapping[str, float], slides: int) -> None:
    """Raises `UserError` if there are fewer slides than splits."""
    if slides < len(ratios):
        raise UserError(
            f"{slides} slides cannot be divided into {len(ratios)} splits; slides stay whole, ask for at most {slides}"
        )


def split_slides(slides: Sequence[SlideTiles], classes: Sequence[str], ratios: Mapping[str, float], seed: int) -> Any:
    """(S,) int: the split of each slide, so that each has its share of the tiles and of the cells of each class."""
    counts = np.zeros((len(slides), 1 + len(classes)), int)
    for row, slide in zip(counts, slides, strict=True):
        row[0] = max(len(slide.kept), 1)  # `divide` cannot place an empty group
        for _, cell in _cells(slide):
            row[1 + classes.index(cell["category"])] += 1
    return divide(counts, np.array(list(ratios.values())), np.random.default_rng(seed))


def _cells(slide: SlideTiles) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Each tile with each of its cells."""
    yield from ((tile, cell) for tile in slide.kept for cell in tile["cells"] if cell["category"] is not None)


def write_set(
    folder: Path, slides: Sequence[SlideTiles], ratios: Mapping[str, float], name: str, settings: TileSettings
) -> Iterator[str]:
    """Write the annotations of each split, data.yaml and tiles.json into `folder`; yields lines about them."""
    classes = list(dict.fromkeys(label for slide in slides for label in slide.labels.classes)) or ["cell"]
    chosen = split_slides(slides, classes, ratios, settings.seed)
    crops = settings.around_cells is not None
    places = {}
    for number, split in enumerate(ratios):
        members = [slide for slide, part in zip(slides, chosen, strict=True) if part == number]
        file = f"{split}.csv" if crops else f"{split}.json"
        if crops:
            write_text(folder / file, crops_table(members, settings))
        else:
            write_json(folder / file, coco_tiles(members, classes, settings))
        places[split] = {"images": "images", "annotations": file}
        yield _summary_of(split, members, classes)
    content = {"name": name, "format": "labels" if crops else "coco", "classes": classes, "splits": places}
    write_text(folder / "data.yaml", yaml.safe_dump(content, sort_keys=False, allow_unicode=True))
    names = list(ratios)
    about = [_about(slide, names[part]) for slide, part in zip(slides, chosen, strict=True)]
    write_json(folder / "tiles.json", {"settings": settings._asdict(), "slides": about}, indent=1)
    yield from _summary(about)


def coco_tiles(slides: Sequence[SlideTiles], classes: Sequence[str], settings: TileSettings) -> Record:
    """COCO's dict. Beyond COCO, an image has its slide, its position in pixels of level 0, scale, tissue and focus."""
    images: list[Record] = []
    annotations: list[Record] = []
    numbers = {name: number for number, name in enumerate(classes, start=1)}
    for slide in slides:
        for tile in slide.kept:
            side, scale = tile["size"], slide.scale
            name = {"id": len(images) + 1, "file_name": file_of(slide, tile, settings), "width": side, "height": side}
            place = {"x": tidy(tile["x"] / scale), "y": tidy(tile["y"] / scale), "scale": scale}
            judged = {key: tile[key] for key in ("tissue", "focus")}
            images.append(name | {"group_id": slide.labels.name} | place | judged)
            for cell in tile["cells"]:
                x1, y1, x2, y2 = cell["bbox"]
                width, height = tidy(x2 - x1), tidy(y2 - y1)
                entry = {"id": len(annotations) + 1, "image_id": len(images), "bbox": [x1, y1, width, height]}
                entry |= {"area": tidy(width * height)}
                ignored = cell["category"] is None
                entry |= {"iscrowd": int(ignored)} | ({"ignore": 1} if ignored else {})
                entry |= {} if ignored else {"category_id": numbers[cell["category"]], "cell": cell["cell"]}
                annotations.append(entry)
    categories = [{"id": number, "name": name} for name, number in numbers.items()]
    return {"images": images, "annotations": annotations, "categories": categories}


def file_of(slide: SlideTiles, tile: Mapping[str, Any], settings: TileSettings) -> str:
    """The tile's file below the image folder."""
    return f"{slide.labels.name}/{tile['name']}{settings.suffix}"


def crops_table(slides: Sequence[SlideTiles], settings: TileSettings) -> str:
    """CSV of single cells, as `formats.cell_csv` reads it."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("file", "label", "group"))
    for slide in slides:
        rows = [(file_of(slide, tile, settings), cell["category"], slide.labels.name) for tile, cell in _cells(slide)]
        writer.writerows(rows)
    return text.getvalue()


def _about(slide: SlideTiles, split: str) -> Record:
    """A slide's entry in tiles.json; `lost` counts the cells that are in no tile."""
    held = {cell["cell"] for _, cell in _cells(slide)}
    focus = np.quantile(slide.focus, QUANTILES).round(2).tolist() if slide.focus else []
    cells = len(slide.labels.boxes)
    about = {"slide": slide.labels.name, "file": slide.labels.path.name, "split": split, "scale": slide.scale}
    return about | {"tiles": slide.fates, "cells": cells, "lost": cells - len(held), "focus_quantiles": focus}


def _summary_of(split: str, slides: Sequence[SlideTiles], classes: Sequence[str]) -> str:
    tiles = sum(len(slide.kept) for slide in slides)
    boxes = Counter(cell["category"] for slide in slides for _, cell in _cells(slide))
    boxes_text = ", ".join(f"{boxes[name]} {name}" for name in classes)
    with_cells = sum(slide.fates["cells"] for slide in slides)
    return f"{split}: {len(slides)} slides, {tiles} tiles ({with_cells} with cells), boxes: {boxes_text}"


def _summary(about: Sequence[Record]) -> Iterator[str]:
    totals = Counter[str]()
    for slide in about:
        totals.update(slide["tiles"])
    left_out = {text: totals[fate] for fate, text in FATES.items() if fate not in ("cells", "empty") and totals[fate]}
    if left_out:
        yield "left out: " + ", ".join(f"{count} {text}" for text, count in left_out.items())
    if lost := sum(slide["lost"] for slide in about):
        yield f"warning: {lost} of {sum(slide['cells'] for slide in about)} cells are in no tile by this rule"
