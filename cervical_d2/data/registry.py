"""Data sets by name. One YAML file describes a data set: ours in `catalog/`, a user's anywhere.

A file's keys: name, format, root (ours: under DETECTRON2_DATASETS; a user's: beside the file), classes, and splits
with images, annotations and, where the format has it, subset. The split `train` of `bccd` is `bccd_train`.
"""

import difflib
import functools
import logging
import os
from pathlib import Path
from typing import Any

import yaml
from detectron2.data import DatasetCatalog, MetadataCatalog

from cervical_d2.data.checks import drop_boxes_without_area
from cervical_d2.data.classes import ClassTable
from cervical_d2.data.formats import FORMATS, Record, Source, reader
from cervical_d2.errors import UserError

CATALOG = Path(__file__).parent / "catalog"
KEYS = {"name", "format", "root", "classes", "splits"}
SPLIT_KEYS = {"images", "annotations", "subset"}


def register_all() -> None:
    """Register every data set of the catalog. Reads no data; safe to call again."""
    for path in sorted(CATALOG.glob("*.yaml")):
        register_file(path, under_datasets_root=True)


def register_file(path: Path, *, under_datasets_root: bool = False) -> list[str]:
    """Register the splits that a YAML file describes, and return their names. Safe to call again."""
    spec = _load(path)
    classes = ClassTable(spec["classes"], str(path))
    names = []
    for split, place in spec["splits"].items():
        name = f"{spec['name']}_{split}"
        names.append(name)
        load = functools.partial(_read, name, spec, place, classes, None if under_datasets_root else path.parent)
        if name in DatasetCatalog.list():
            DatasetCatalog.remove(name)
            MetadataCatalog.remove(name)
        DatasetCatalog.register(name, load)
        MetadataCatalog.get(name).set(thing_classes=classes.names, evaluator_type="coco")
    return names


def resolve(name: str) -> str:
    """The registered name for `name`, which may also be `FILE.yaml:SPLIT`, a user's own data set.

    Raises:
        UserError: nothing of that name, with the nearest that there is.
    """
    path, _, split = name.rpartition(":")
    if path.endswith((".yaml", ".yml")):
        names = register_file(Path(path))
        wanted = f"{_load(Path(path))['name']}_{split}"
        if wanted not in names:
            raise UserError(f"{path}: no split {split!r}; it has {', '.join(names)}")
        return wanted
    if name not in DatasetCatalog.list():
        near = difflib.get_close_matches(name, DatasetCatalog.list(), n=1)
        hint = f"did you mean {near[0]}?" if near else "see cervical_d2/data/catalog"
        raise UserError(f"no data set is called {name!r}; {hint} Your own: FILE.yaml:SPLIT")
    return name


def class_names(names: list[str]) -> list[str]:
    """The classes that all of `names` (registered) share, in order; `UserError` where two differ."""
    first = MetadataCatalog.get(names[0]).get("thing_classes")
    for name in names[1:]:
        other = MetadataCatalog.get(name).get("thing_classes")
        if other != first:
            raise UserError(f"{name} has the classes {other}, but {names[0]} has {first}; use splits of one data set")
    return list(first)


def _read(
    name: str, spec: dict[str, Any], place: dict[str, str], classes: ClassTable, root: Path | None
) -> list[Record]:
    base = Path(os.environ.get("DETECTRON2_DATASETS", "datasets")) if root is None else root
    base = base / spec.get("root", ".")
    if root is None and spec["format"] != "synthetic" and not base.is_dir():
        raise UserError(f"{base}: no such folder, wanted for {name}; put the data there or set DETECTRON2_DATASETS")
    subset = base / place["subset"] if "subset" in place else None
    source = Source(name, base / place["images"], base / place["annotations"], subset, classes)
    records = reader(spec["format"])(source)
    for line in drop_boxes_without_area(records):
        logging.getLogger("detectron2.cervical_d2").warning(line)
    return records


def _load(path: Path) -> dict[str, Any]:
    try:
        spec = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); a data set is a YAML file") from error
    except yaml.YAMLError as error:
        raise UserError(f"{path}: not valid YAML ({error})") from error
    if not isinstance(spec, dict) or KEYS - {"root"} - spec.keys():
        raise UserError(f"{path}: a data set needs {', '.join(sorted(KEYS - {'root'}))}")
    if unknown := sorted(spec.keys() - KEYS):
        raise UserError(f"{path}: unknown key {unknown[0]!r}; allowed: {', '.join(sorted(KEYS))}")
    if spec["format"] not in FORMATS:
        raise UserError(f"{path}: format {spec['format']!r}; there are {', '.join(FORMATS)}")
    for split, place in spec["splits"].items():
        if not isinstance(place, dict) or not {"images", "annotations"} <= place.keys() <= SPLIT_KEYS:
            raise UserError(f"{path}: split {split!r} needs images and annotations, may have subset, and no more")
    return spec
