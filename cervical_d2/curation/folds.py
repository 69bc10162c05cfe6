"""Divides a classifier's data for cross-validation, or into train, val and test, and writes the parts to disk.

N images in G groups, which stay whole; K classes, after the label maps.
"""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from detectron2.config import CfgNode

from cervical_d2.curation.leaked_copies import leaked_copies
from cervical_d2.curation.pooling import Pool, pool
from cervical_d2.curation.split_files import Division, divide_pool, fold_ratios, split_documents, write_splits
from cervical_d2.data.cell_records import check_classes, check_split, label_of
from cervical_d2.datasets.definition import read_label_map
from cervical_d2.datasets.registry import definition_of, name_and_maps, resolve, resolve_all
from cervical_d2.errors import UserError

SHARES = {2: ("train", "test"), 3: ("train", "val", "test")}
"""The splits that two and three `DATASETS.RATIOS` stand for."""


class Part(NamedTuple):
    """One training: `folder` below OUTPUT_DIR ("" for OUTPUT_DIR itself), its splits for DATASETS.TRAIN and TEST."""

    folder: str
    train: tuple[str, ...]
    test: tuple[str, ...]


class Undivided(NamedTuple):
    """The data to divide: `plain` split names, whose classes balance the parts, so the parts do not depend on the label
    `maps`; the `classes` after the maps, and in `places` the id after the maps for each plain class."""

    plain: list[str]
    maps: list[str]
    classes: list[str]
    places: np.ndarray


def divide(cfg: CfgNode) -> list[Part]:
    """The trainings that `cfg` asks for; one if nothing is divided.

    The parts are written into OUTPUT_DIR/splits, or compared with those already there: they depend only on the images,
    their classes and groups, and the config.

    Raises:
        UserError: the data cannot be divided with these settings, a part lacks a class, or other parts exist there.
    """
    data = cfg.DATASETS
    if not data.FOLDS and not data.RATIOS:
        if data.LEAK_COPIES_ACROSS_SPLITS:
            raise UserError("DATASETS.LEAK_COPIES_ACROSS_SPLITS needs FOLDS or RATIOS")
        return [Part("", tuple(data.TRAIN), tuple(data.TEST))]
    ratios = _ratios(cfg)
    source = _source(data.TRAIN)
    check_split(resolve_all(data.TRAIN))
    output = Path(cfg.OUTPUT_DIR) / "splits"
    plain = [leaked_copies(cfg, source.plain, source.places)] if data.LEAK_COPIES_ACROSS_SPLITS else source.plain
    pooled = pool(plain)
    division = _given(pooled, data.FOLDS, ", ".join(source.plain)) or divide_pool(pooled, ratios, data.DIVISION_SEED)
    _check(pooled, division, source)
    _write(pooled, division, output, resolve(source.plain[0]), folds=bool(data.FOLDS))
    ending = "".join(f"@{name}" for name in source.maps)

    def name(split: str) -> str:
        return f"{output / 'data.yaml'}:{split}{ending}"

    if data.FOLDS:
        return [Part(part, (name(f"{part}_train"),), (name(f"{part}_val"),)) for part in division.ratios]
    first, *others = division.ratios
    return [Part("", (name(first),), tuple(map(name, others)))]


def _ratios(cfg: CfgNode) -> dict[str, float]:
    folds, shares = cfg.DATASETS.FOLDS, tuple(cfg.DATASETS.RATIOS)
    if (folds and shares) or cfg.DATASETS.TEST:
        raise UserError("DATASETS.FOLDS and RATIOS divide TRAIN: set one of them, and leave TEST empty")
    if folds:
        if folds < 2:
            raise UserError(f"DATASETS.FOLDS is {folds}; write 2 or more, or 0 for none")
        return fold_ratios(folds)
    positive = all(isinstance(share, int | float) and share > 0 for share in shares)
    if len(shares) not in SHARES or not positive or abs(sum(shares) - 1) > 1e-6:
        raise UserError(
            f"DATASETS.RATIOS {shares}: write two or three positive shares that sum to 1, such as (0.8, 0.1, 0.1)"
        )
    return dict(zip(SHARES[len(shares)], shares, strict=True))


def _source(names: Sequence[str]) -> Undivided:
    """Raises `UserError` if there is no name, or if the label maps differ."""
    if not names:
        raise UserError("DATASETS.TRAIN is empty; name the split to divide, for example herlev_all")
    plain, *maps = zip(*(_plain_and_maps(name) for name in names), strict=True)
    if len({*maps[0]}) > 1:
        raise UserError(f"DATASETS.TRAIN {tuple(names)}: use the same label map for all of them, or none")
    table = definition_of(resolve(plain[0])).classes
    known = table.names
    for name in maps[0][0]:
        table = table.then(read_label_map(name))
    places = np.array([table.index(name) for name in known], np.int64)  # negative: removed by a map
    return Undivided(list(plain), list(maps[0][0]), table.names, places)


def _plain_and_maps(name: str) -> tuple[str, tuple[str, ...]]:
    plain, *maps = name_and_maps(name)
    return plain, tuple(maps)


def _given(pooled: Pool, folds: int, where: str) -> Division | None:
    """The folds given in the files, or None; `where` is named in errors.

    Raises:
        UserError: some images have no fold, the number is not `DATASETS.FOLDS`, or a group is in two folds.
    """
    stated = [str(record.get("fold", "")) for record in pooled.records]
    if not folds or not any(stated):
        return None
    if "" in stated:
        file = pooled.files[stated.index("")]
        raise UserError(f"{file}: has no fold, but others have; give one to every image, or to none")
    names = sorted({*stated}, key=lambda name: (len(name), name))  # 2 before 10
    if len(names) != folds:
        raise UserError(
            f"{where}: has {len(names)} folds ({', '.join(names)}), but DATASETS.FOLDS is {folds}; make them equal"
        )
    number = np.array([names.index(name) for name in stated])
    chosen = np.full(len(pooled.counts), -1)
    chosen[pooled.group] = number
    if (split := np.flatnonzero(chosen[pooled.group] != number)).size:
        raise UserError(
            f"{pooled.files[split[0]]}: its group {pooled.records[split[0]].get('group_id')} is in two folds; "
            "keep a slide or patient in one"
        )
    return Division(fold_ratios(folds), chosen)


def _check(pooled: Pool, division: Division, source: Undivided) -> None:
    """Raises `UserError` if a part lacks a class. If none does, the union of other parts has all classes too."""
    label = np.array([-1 if (own := label_of(record)) is None else source.places[own] for record in pooled.records])
    part = division.chosen[pooled.group]
    cure = (
        "use fewer parts, pool more data, or merge rare classes with a label map; a slide or patient is never divided"
    )
    for number, name in enumerate(division.ratios):
        counts = np.bincount(label[(part == number) & (label >= 0)], minlength=len(source.classes))
        check_classes(f"{', '.join(source.plain)}: {name}", counts, source.classes, cure)


def _write(pooled: Pool, division: Division, output: Path, name: str, *, folds: bool) -> None:
    """Write the parts into `output` as the dataset `name`, unless the same parts are there."""
    if not output.exists():
        write_splits(pooled, division, output, re.sub(r"[^A-Za-z0-9_-]", "_", name), folds=folds)
        return
    for file, document in split_documents(pooled, division, folds=folds):
        path = output / f"{file}.json"
        if not path.is_file() or json.loads(path.read_bytes()) != json.loads(json.dumps(document)):
            raise UserError(f"{path}: written for other images, labels or DATASETS keys; choose another OUTPUT_DIR")
