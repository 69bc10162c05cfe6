"""Pools the images of several datasets into groups that must stay whole."""

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from detectron2.data import DatasetCatalog, MetadataCatalog

from cervical_d2.datasets.formats import Record
from cervical_d2.datasets.registry import class_names, resolve_all
from cervical_d2.errors import UserError


class Pool(NamedTuple):
    """All images, sorted by `files` (relative to the folder `root` of all); `group` (N,): each image's number in
    `counts` (G, 1 + classes), the images and the boxes of each class that a group holds; `radius` of center labels."""

    records: list[Record]
    files: list[str]
    root: Path
    names: list[str]
    group: np.ndarray
    counts: np.ndarray
    radius: float | None


def pool(datasets: Sequence[str], audit: Path | None = None) -> Pool:
    """The images of `datasets` (registered names or FILE.yaml:SPLIT) together, sorted by file.

    Images with the same `group_id` form a group; an image without one is its own group. `audit`: an audit.json;
    images that overlap, directly or through others, join one group too.

    Raises:
        UserError: an unknown name, differing classes, no image, one image in two datasets, or no such audit.
    """
    names = resolve_all(datasets)
    classes = class_names(names)
    source: dict[str, str] = {}
    records: dict[str, Record] = {}
    for name in names:
        for record in DatasetCatalog.get(name):
            file = os.path.abspath(record["file_name"])
            if file in records:
                raise UserError(f"{file}: is in {source[file]} and in {name}; pool datasets that share no image")
            # Absolute, like `root`: relative names would depend on the working folder.
            source[file], records[file] = name, record | {"file_name": file}
    if not records:
        raise UserError(f"{', '.join(datasets)}: no image; check the dataset's paths")
    root = Path(os.path.commonpath([os.path.dirname(file) for file in records]))
    files = sorted(Path(file).relative_to(root).as_posix() for file in records)
    ordered = [records[str(root / file)] for file in files]
    keys = {str(root / file): _group(record, file) for record, file in zip(ordered, files, strict=True)}
    joined = _joined(keys, _known_overlaps(audit, keys) if audit else ())
    group = np.unique([joined[str(root / file)] for file in files], return_inverse=True)[1].reshape(-1)
    radius = MetadataCatalog.get(names[0]).get("center_radius")
    return Pool(ordered, files, root, classes, group, _counts(ordered, group, len(classes)), radius)


def _group(record: Record, file: str) -> str:
    group = record.get("group_id")
    return f"group {group}" if group is not None else f"image {file}"


def _known_overlaps(audit: Path, files: Mapping[str, str]) -> list[tuple[str, str]]:
    """The pairs of `audit` that are among `files`; `UserError` if it lists pairs, but none of these."""
    pairs = list(_overlaps(audit))
    known = [pair for pair in pairs if pair[0] in files and pair[1] in files]
    if pairs and not known:
        raise UserError(
            f"{audit}: none of its {len(pairs)} pairs, such as {pairs[0][0]}, is in these datasets; audit these, or "
            "work in the folder where the audit was made"
        )
    return known


def _overlaps(audit: Path) -> Iterator[tuple[str, str]]:
    try:
        for item in json.loads(audit.read_bytes())["overlaps"]:
            yield os.path.abspath(item["first"]["file"]), os.path.abspath(item["second"]["file"])
    except OSError as error:
        raise UserError(f"{audit}: cannot be read ({error.strerror}); `cervical-d2 audit` writes it") from error
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(f"{audit}: not an audit of overlaps; `cervical-d2 audit --within` writes one") from error


def _joined(keys: Mapping[str, str], pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """The group of each file after the groups of all `pairs` of files have been joined (union-find)."""
    parent = {key: key for key in keys.values()}

    def root(key: str) -> str:
        while parent[key] != key:
            parent[key] = key = parent[parent[key]]
        return key

    for first, second in pairs:
        low, high = sorted((root(keys[first]), root(keys[second])))
        parent[high] = low
    return {file: root(key) for file, key in keys.items()}


def _counts(records: Sequence[Record], group: np.ndarray, classes: int) -> np.ndarray:
    counts = np.zeros((group.max() + 1, 1 + classes), int)
    for record, row in zip(records, group, strict=True):
        counts[row, 0] += 1
        for annotation in record["annotations"]:
            if annotation["category_id"] >= 0 and not annotation.get("iscrowd", 0):
                counts[row, 1 + annotation["category_id"]] += 1
    return counts
