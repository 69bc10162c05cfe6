"""New splits of a pool of images: the division, the files that training reads, and tables about them."""

import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml
from detectron2.data import DatasetCatalog

from cervical_d2.curation.pooling import Pool
from cervical_d2.curation.splitting import deviation, divide, held, random_division
from cervical_d2.datasets.formats import Document
from cervical_d2.datasets.formats.coco import coco_document
from cervical_d2.errors import UserError
from cervical_d2.files import refuse_existing, write_json, write_text

NAME = re.compile(r"[A-Za-z0-9_-]+")


class Division(NamedTuple):
    """`ratios`: the share of each part by name; `chosen` (G,): the part of each group of the pool."""

    ratios: dict[str, float]
    chosen: np.ndarray


def parse_ratios(text: str) -> dict[str, float]:
    """`train=0.7,val=0.3`. Raises `UserError` unless names are plain and positive shares sum to 1."""
    ratios: dict[str, float] = {}
    for part in text.split(","):
        name, _, value = (word.strip() for word in part.partition("="))
        try:
            share = float(value)
        except ValueError:
            share = 0.0
        if not NAME.fullmatch(name) or not 0 < share <= 1:
            raise UserError(
                f"--ratios {text}: {part!r} is not NAME=SHARE; write for example train=0.7,val=0.15,test=0.15"
            )
        if name in ratios:
            raise UserError(f"--ratios {text}: {name} is given twice; name each split once")
        ratios[name] = share
    if abs(sum(ratios.values()) - 1) > 1e-6:
        raise UserError(f"--ratios {text}: the shares sum to {sum(ratios.values()):g}; they must sum to 1")
    return ratios


def fold_ratios(folds: int) -> dict[str, float]:
    """`folds` equal parts, fold0, fold1, ..."""
    if folds < 2:
        raise UserError(f"--folds {folds}: write 2 or more")
    return {f"fold{number}": 1 / folds for number in range(folds)}


def divide_pool(pooled: Pool, ratios: Mapping[str, float], seed: int) -> Division:
    """The division, which depends only on images, ratios and seed. Raises `UserError` for fewer groups than parts."""
    groups = len(pooled.counts)
    if groups < len(ratios):
        raise UserError(
            f"{groups} groups cannot be divided into {len(ratios)} parts; ask for at most {groups}, or pool more data"
        )
    chosen = divide(pooled.counts, np.array(list(ratios.values())), np.random.default_rng(seed))
    return Division(dict(ratios), chosen)


def write_splits(pooled: Pool, division: Division, output: Path, name: str, *, folds: bool) -> None:
    """Write `output`, a new folder: a COCO JSON for each part (for `folds` also of all others) and data.yaml.

    Either all files are written or none. Images stay where they are; data.yaml points to them.
    Raises `UserError` if `output` exists, or if another dataset is called `name`.
    """
    parts = list(division.ratios)
    splits = {part: part for part in parts}
    if folds:
        splits = {
            f"{part}_{kind}": file for part in parts for kind, file in (("train", f"{part}_train"), ("val", part))
        }
    check_output(output, name, splits)
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{output.name}.", dir=output.parent) as scratch:
            folder = Path(scratch) / output.name
            for file, document in split_documents(pooled, division, folds=folds):
                write_json(folder / f"{file}.json", document)
            write_text(folder / "data.yaml", _description(pooled, output, name, splits))
            shutil.move(folder, output)
    except OSError as error:
        raise UserError(f"{output}: cannot be written ({error.strerror}); choose another output") from error


def split_documents(pooled: Pool, division: Division, *, folds: bool) -> Iterator[tuple[str, dict[str, Any]]]:
    """The name (without .json) and content of each file that `write_splits` writes for the parts."""
    members = {part: division.chosen[pooled.group] == number for number, part in enumerate(division.ratios)}
    for part, wanted in members.items():
        yield part, _document(pooled, wanted)
        if folds:
            yield f"{part}_train", _document(pooled, ~wanted)


def check_output(output: Path, name: str, splits: Sequence[str] | Mapping[str, str]) -> None:
    """Raises `UserError` if `output` exists, or if `name` with one of `splits` is already registered."""
    refuse_existing(output)
    if not NAME.fullmatch(name):
        raise UserError(f"{name!r} is not a name for a dataset; give one of letters and digits with --name")
    if taken := sorted({f"{name}_{split}" for split in splits} & set(DatasetCatalog.list())):
        raise UserError(f"{taken[0]} is another dataset; choose another name with --name")


def _document(pooled: Pool, wanted: np.ndarray) -> dict[str, Any]:
    """COCO's dict of the images `wanted` (N,) bool, numbered as in the whole pool."""
    numbers = np.flatnonzero(wanted)
    records = [pooled.records[number] | {"image_id": int(number) + 1} for number in numbers]
    for record in records:
        record["annotations"] = [
            annotation
            | {"category": pooled.names[annotation["category_id"]] if annotation["category_id"] >= 0 else None}
            for annotation in record["annotations"]
        ]
    return coco_document(Document(records, pooled.names, pooled.root))


def _description(pooled: Pool, output: Path, name: str, splits: Mapping[str, str]) -> str:
    images = Path(os.path.relpath(pooled.root, output.absolute())).as_posix()
    content: dict[str, Any] = {"name": name, "format": "coco", "classes": pooled.names}
    content |= {"centers": {"radius": pooled.radius}} if pooled.radius else {}
    places = {split: {"images": images, "annotations": f"{file}.json"} for split, file in splits.items()}
    return yaml.safe_dump(content | {"splits": places}, sort_keys=False, allow_unicode=True)


def table(pooled: Pool, division: Division) -> Iterator[str]:
    """Images, groups and boxes of each class in each part, with their shares; then a line for each missing class."""
    parts, counts, chosen = list(division.ratios), pooled.counts, division.chosen
    width = max(len("images"), *map(len, pooled.names))
    yield f"{'':{width}}  {'total':>7}" + "".join(f"  {part:>9} {division.ratios[part]:6.1%}" for part in parts)
    sums = held(np.hstack([np.ones((len(counts), 1), int), counts]), chosen, len(parts))
    for column, name in enumerate(["groups", "images", *pooled.names]):
        total = sums[:, column].sum()
        cells = "".join(f"  {value:9} {value / max(total, 1):6.1%}" for value in sums[:, column])
        yield f"{name:{width}}  {total:7}{cells}"
    for column, name in enumerate(pooled.names, start=1):
        lacking = [part for part, row in zip(parts, sums[:, 1 + column], strict=True) if row == 0]
        if lacking:
            groups = int((counts[:, column] > 0).sum())
            yield f"warning: no {name} in {', '.join(lacking)}: {groups} groups hold it, and groups are not divided"


def comparison(pooled: Pool, division: Division, draws: int) -> Iterator[str]:
    """How far the shares are from those asked for, here and in `draws` random divisions of the groups."""
    ratios = np.array(list(division.ratios.values()))
    own = 100 * deviation(pooled.counts, division.chosen, ratios)
    drawn = [random_division(pooled.counts, ratios, np.random.default_rng(seed)) for seed in range(draws)]
    others = 100 * np.array([deviation(pooled.counts, chosen, ratios) for chosen in drawn])
    labels = ["all", "images", *pooled.names]
    width = max(map(len, labels))
    yield "difference between the share reached and the share asked for, mean over the parts, in percentage points:"
    yield f"{'':{width}}   here   median and best of {draws} random divisions"
    for label, value, values in zip(labels, [own.mean(), *own], [others.mean(axis=1), *others.T], strict=True):
        yield f"{label:{width}}  {value:5.2f}  {np.median(values):7.2f} {values.min():8.2f}"
