"""The faults that any format can carry: cheap ones before every training, all of them in tools/check_dataset.py.

M annotations of all images together; boxes are XYXY in pixels.
"""

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from cervical_d2.data.formats import Document, Record
from cervical_d2.data.images import decode_fault, image_fault, leaves_root
from cervical_d2.data.problems import Problems

TINY = 1.0  # px: a side of so much or less is a slip of the mouse
SLACK = 1.0  # px: by so much a box may leave its image, since some tools count pixels from 1
CACHES = (".cache", "_coco_format.json")  # ultralytics', Detectron2's
FINDINGS = {
    "bad-box": "is not four finite numbers (x, y, width, height)",
    "no-area": "has no area",
    "tiny-box": "is 1 px or less in width or height",
    "outside": "is outside of the image of {width} x {height} px",
    "partly-outside": "reaches out of the image of {width} x {height} px",
}


def place_of(record: Record, annotation: Record | None = None, unit: str = "") -> str:
    """File, image and, where it is one, annotation, as every message names them."""
    image = f'image "{Path(record["file_name"]).name}"'
    if annotation is None:
        return f"{record['source']}: {image}"
    return f"{record['source']}: {unit} {annotation.get('id')} ({image})"


def check_records(records: list[Record], problems: Problems, unit: str, root: Path | None) -> list[Record]:
    """What is left of `records` after leaving out, and telling to `problems`, what cannot be used. Opens no image."""
    kept = _without_doubles(records, problems, root)
    _check_boxes(kept, problems, unit)
    for record in kept:
        if not record["annotations"]:
            problems.add("empty-image", place_of(record), "has no annotation")
    return kept


def _check_boxes(records: list[Record], problems: Problems, unit: str) -> None:
    """Clip boxes that reach over their image, and take away those that cannot be used, in place."""
    pairs = [(record, annotation) for record in records for annotation in record["annotations"]]
    box = np.array([annotation["bbox"] for _, annotation in pairs], float).reshape(-1, 4)
    point = np.array([annotation.get("point", (0, 0)) for _, annotation in pairs], float).reshape(-1, 2)
    size = np.array([(record["width"], record["height"]) for record, _ in pairs], float).reshape(-1, 2)
    faults = box_faults(box, point, size)
    gone = set()
    for row in np.flatnonzero(faults != ""):
        (record, annotation), kind = pairs[row], str(faults[row])
        x1, y1, x2, y2 = box[row]
        spelled = f"box ({x1:g}, {y1:g}, {x2 - x1:g}, {y2 - y1:g})"
        problems.add(kind, place_of(record, annotation, unit), f"{spelled} {FINDINGS[kind].format_map(record)}")
        if kind == "partly-outside":
            annotation["bbox"] = np.clip(box[row], 0, np.tile(size[row], 2)).tolist()
        else:
            gone.add(id(annotation))
    for record in records if gone else ():
        record["annotations"] = [annotation for annotation in record["annotations"] if id(annotation) not in gone]


def box_faults(box: np.ndarray, point: np.ndarray, size: np.ndarray) -> np.ndarray:
    """The kind of fault of each box, "" for none. `box` (M, 4), `point` (M, 2), `size` (M, 2) width and height."""
    with np.errstate(invalid="ignore"):
        side = box[:, 2:] - box[:, :2]
        width_height = np.tile(size, 2)
        beyond = np.maximum(-box, box - width_height).max(axis=1)
        outside = (box[:, 2:] <= 0).any(axis=1) | (box[:, :2] >= size).any(axis=1)
        conditions = {
            "bad-box": ~(np.isfinite(box).all(axis=1) & np.isfinite(point).all(axis=1)),
            "no-area": (side <= 0).any(axis=1),
            "tiny-box": (side <= TINY).any(axis=1),
            "outside": outside,
            "partly-outside": beyond > SLACK,
        }
    return np.select(list(conditions.values()), list(conditions), "")


def _without_doubles(records: Sequence[Record], problems: Problems, root: Path | None) -> list[Record]:
    """Without images that leave `root`, and with the first alone of those with one id or one file."""
    ids: set[object] = set()
    files: set[str] = set()
    kept = []
    for record in records:
        name, number = record["file_name"], record["image_id"]
        if root is not None and leaves_root(name, root):
            problems.add("leaves-root", place_of(record), f"{name} is not below {root}")
        elif number in ids:
            problems.add("duplicate-image-id", place_of(record), f"the image id {number!r} is given twice")
        elif name in files:
            problems.add("duplicate-image-file", place_of(record), "the file is listed twice")
        else:
            kept.append(record)
        ids.add(number)
        files.add(name)
    return kept


def check_images(records: Sequence[Record], problems: Problems, *, decode: bool = False) -> list[Record]:
    """The records whose image is there, whole and of the size that is annotated; the others go to `problems`.

    `decode`: read every pixel, rather than the header and the end of each file.
    """
    kept = []
    for record in tqdm(records, desc="checking images", unit="image", delay=3):
        path = Path(record["file_name"])
        fault = image_fault(path, record["width"], record["height"])
        fault = fault or (decode_fault(path) if decode else None)
        if fault:
            problems.add(fault[0], str(path), fault[1])
        else:
            kept.append(record)
    return kept


def check_content(records: Sequence[Record], problems: Problems) -> None:
    """Files that are byte for byte the same under two names."""
    by_size: dict[int, list[Path]] = defaultdict(list)
    for record in records:
        path = Path(record["file_name"])
        by_size[path.stat().st_size].append(path)
    for paths in by_size.values():
        first: dict[bytes, Path] = {}
        for path in paths if len(paths) > 1 else ():
            digest = hashlib.sha256(path.read_bytes()).digest()
            if digest in first:
                problems.add("duplicate-content", str(path), f"has the same content as {first[digest]}")
            first.setdefault(digest, path)


def check_classes(splits: Mapping[str, Document], problems: Problems) -> None:
    """Splits whose files list other classes, or in another order. `splits`: documents as their readers return them."""
    (first, wanted), *others = splits.items()
    for name, document in others:
        if document.classes != wanted.classes:
            problems.add("classes-differ", name, f"has the classes {document.classes}, {first} has {wanted.classes}")


def stale_caches(annotations: Path) -> Iterator[tuple[Path, str]]:
    """Other programs' caches in and beside the folder of the annotations, where these are newer; with the finding."""
    folder = annotations if annotations.is_dir() else annotations.parent
    files = [path for place in (folder, folder.parent) if place.is_dir() for path in place.iterdir() if path.is_file()]
    caches = [path for path in files if path.name.endswith(CACHES)]
    newest = max((path.stat().st_mtime_ns for path in files if path not in caches and path.parent == folder), default=0)
    for path in sorted(caches):
        if path.stat().st_mtime_ns < newest:
            yield path, "a cache older than the annotations"
