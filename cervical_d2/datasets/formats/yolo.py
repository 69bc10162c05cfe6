"""YOLO text files: one line per box, in fractions of the image. https://docs.ultralytics.com/datasets/detect/

    labels/a.txt     CLASS CX CY WIDTH HEIGHT [CONFIDENCE], or CLASS X1 Y1 X2 Y2 X3 Y3 ... (a polygon, read as its box)
    data.yaml        names: [ascus, hsil], or {0: ascus, 1: hsil}

An image without a label file has no cells.
"""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from detectron2.structures import BoxMode

from cervical_d2.datasets.classes import ClassTable, spelling_key
from cervical_d2.datasets.formats import Document, Format, Record, Source, number, stem_of, tidy
from cervical_d2.datasets.formats.per_image import (
    annotation_files,
    by_stem,
    image_record,
    images_folder,
    progress,
    subset_stems,
)
from cervical_d2.datasets.images import EXTENSIONS, ImageFolder, files_below
from cervical_d2.datasets.problems import Place, Problems
from cervical_d2.errors import UserError
from cervical_d2.files import write_folder
from cervical_d2.yaml_text import LARGEST, parse_yaml

BESIDE = ("classes.txt", "README*", "*.cache", "*.yaml", "*.yml")  # files among the labels that are not label files
PARTS = 4  # numbers of a box


def read(source: Source, problems: Problems) -> Document:
    """One record per image of the folder (or of `source.subset`), sorted; sizes from the image headers.

    Raises:
        UserError: there are no labels, images or class names, or no label belongs to an image.
    """
    inner = source.annotations / "labels"
    folder = inner if inner.is_dir() else source.annotations
    labels = {s: path for s, path in annotation_files(folder, ".txt").items() if not _beside(path)}
    classes = _class_names(folder, source.classes)
    root = images_folder(source)
    names = {stem_of(name): name for name in ImageFolder(root).names()}
    stems = list(names) if source.subset is None else [_known(stem, names) for stem in subset_stems(source.subset)]
    if labels and not labels.keys() & set(stems):
        raise UserError(f"{folder}: no label belongs to an image of {root}; name folders of the same split")
    records = []
    for stem in progress(stems):
        path = labels.get(stem, folder / f"{stem}.txt")
        record = image_record(root / names.get(stem, stem), stem, path, problems)
        if record is not None:
            record["annotations"] = list(_boxes(path, record, classes, problems)) if stem in labels else []
            records.append(record)
    _report_strays(folder, labels, names, problems)
    return Document(records, list(classes.values()), root)


def _known(stem: str, names: dict[str, str]) -> str:
    """The stem among `names`: ultralytics' lists hold paths relative to another folder (`./images/train/a.jpg`)."""
    return stem if stem in names else Path(stem).name


def _beside(path: Path) -> bool:
    return any(path.match(pattern) for pattern in BESIDE)


def _report_strays(folder: Path, labels: dict[str, Path], names: dict[str, str], problems: Problems) -> None:
    for stem, path in labels.items():
        if stem not in names:
            problems.add("stray-file", str(path), "no image of that name")
    for path in files_below(folder):
        if path.suffix.lower() not in (".txt", *EXTENSIONS) and not _beside(path):
            problems.add("stray-file", str(path), "not a label file")


def _class_names(folder: Path, own: ClassTable | None) -> dict[int, str]:
    """The classes by their numbers, from data.yaml or classes.txt in `folder` or one of the two above.

    If lists contradict each other, the one that matches the dataset's `own` classes is used.

    Raises:
        UserError: there is no list, or it is unclear which one to use.
    """
    places = (folder, *folder.resolve().parents[:2])
    paths = [place / name for name in ("data.yaml", "classes.txt") for place in places]
    named = {path: names for path in paths if path.is_file() and (names := _listed(path))}
    if not named:
        empty = [path for path in paths if path.is_file()]
        if empty:
            raise UserError(f"{empty[0]}: no class names; list them under 'names:'")
        raise UserError(f"{folder}: no data.yaml with 'names:' and no classes.txt, here or above; add one")
    (first, names), *others = named.items()
    other = next((path for path, its in others if _contradict(names, its)), None)
    if other is None:
        return names
    for its in named.values():
        if own is not None and [own.index(name) for name in its.values()] == list(range(len(own.names))):
            return its
    lists = " and ".join(f"{path} ({', '.join(named[path].values())})" for path in (first, other))
    raise UserError(f"{folder}: {lists} contradict each other; remove the wrong one")


def _contradict(names: dict[int, str], others: dict[int, str]) -> bool:
    return any(spelling_key(names[place]) != spelling_key(others[place]) for place in names.keys() & others.keys())


def _listed(path: Path) -> dict[int, str]:
    try:
        text = path.read_text(encoding="utf-8-sig")
        names = _yaml_names(parse_yaml(text)) if path.suffix == ".yaml" else text.split("\n")
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); it lists the classes") from error
    except ValueError as error:
        raise UserError(f"{path}: cannot be read ({error}); list the classes under 'names:'") from error
    return {place: name.strip() for place, name in enumerate(names) if name.strip()}


def _yaml_names(spec: Any) -> list[str]:
    """The names as a list; gaps in a table of names by number become ""."""
    names = spec.get("names") if isinstance(spec, dict) else None
    if isinstance(names, dict):
        if not all(type(key) is int and 0 <= key < LARGEST for key in names):
            raise ValueError("under 'names:' a key is not a whole number from 0")
        names = [names.get(place, "") for place in range(max(names, default=-1) + 1)]
    if not isinstance(names, list):
        return []
    if any(isinstance(name, bool) for name in names):
        raise ValueError("YAML reads yes, no, on and off as true and false; write such a name in quotes")
    return [str(name) for name in names]


def _boxes(path: Path, record: Record, classes: dict[int, str], problems: Problems) -> Iterator[Record]:
    try:
        lines = path.read_text(encoding="utf-8-sig", errors="replace").splitlines()
    except OSError as error:
        problems.add("malformed", str(path), f"cannot be read ({error.strerror})")
        return
    for place, line in enumerate(lines, start=1):
        fields = [number(field) for field in line.split()]
        if not fields:
            continue
        corners = _corners(fields[1:], record["width"], record["height"])
        if corners is None or not fields[0].is_integer():
            finding = f"{line[:60]!r} is neither CLASS CX CY WIDTH HEIGHT nor CLASS and a polygon"
            problems.add("malformed", Place(str(path), None, place, "line"), finding)
        elif int(fields[0]) not in classes:
            finding = f"class {int(fields[0])} is out of range; the classes are {', '.join(map(str, classes))}"
            problems.add("class-out-of-range", Place(str(path), None, place, "line"), finding)
        else:
            name = classes[int(fields[0])]
            annotation = {"bbox": corners, "bbox_mode": BoxMode.XYXY_ABS, "category": name, "iscrowd": 0, "id": place}
            score = fields[1 + PARTS :] if len(fields) == PARTS + 2 else []
            yield annotation | ({"score": score[0]} if score and math.isfinite(score[0]) else {})


def _corners(parts: list[float], width: int, height: int) -> list[float] | None:
    """XYXY in pixels of a box (its center and size) or a polygon; None if it is neither."""
    if PARTS <= len(parts) <= PARTS + 1:
        cx, cy, w, h = parts[:PARTS]
        edges = (cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2)
    elif len(parts) >= 6 and len(parts) % 2 == 0:
        xs, ys = parts[::2], parts[1::2]
        edges = (min(xs), min(ys), max(xs), max(ys))
    else:
        return None
    return [tidy(part * side) for part, side in zip(edges, (width, height) * 2, strict=True)]


def write(document: Document, path: Path) -> None:
    """`path/labels` with one file per image, including empty ones, and `path/data.yaml`.

    Raises:
        UserError: `path` exists.
    """

    def files() -> Iterator[tuple[str, str]]:
        names = [f"  {place}: {json.dumps(name)}" for place, name in enumerate(document.classes)]
        # ultralytics searches for images/ beside labels/
        yield "data.yaml", "\n".join(["path: .", "train: images", "val: images", "names:", *names, ""])
        for stem, record in by_stem(document):
            lines = [_line(annotation, record, document.classes) for annotation in record["annotations"]]
            yield f"labels/{stem}.txt", "".join(lines)

    write_folder(path, files())


def _line(annotation: Record, record: Record, classes: list[str]) -> str:
    x1, y1, x2, y2 = annotation["bbox"]
    width, height = record["width"], record["height"]
    # 12 digits keep a millionth of a pixel in an image of 100,000 px.
    parts = ((x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height)
    return " ".join([str(classes.index(annotation["category"])), *(f"{part:.12f}" for part in parts)]) + "\n"


HOLDS = ("empty images", "class list", "repeated boxes", "boxes")

FORMAT = Format("line", read, write, frozenset(HOLDS))
