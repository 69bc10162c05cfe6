"""GeoJSON as QuPath 0.2 to 0.5 writes and reads it: one file per image, in pixels of the full image.

A FeatureCollection or a bare list of Features; children in `properties.childObjects`. A polygon is read as the
box around it, a point as a center; of the measurements only `score` and `area`. Classes that end in "*", such as
QuPath's "Ignore*" and "Region*", are ignore regions. The written `id` is a UUID that encodes the annotation's number,
because QuPath (from 0.4) keeps it when an object is changed.
https://qupath.readthedocs.io/en/0.5/docs/advanced/exporting_annotations.html
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from detectron2.structures import BoxMode

from cervical_d2.colors import COLORS
from cervical_d2.datasets.formats import MEASURES, Document, Format, Record, Source, measures, number, stem_of, tidy
from cervical_d2.datasets.formats.per_image import (
    annotation_files,
    by_stem,
    image_record,
    images_folder,
    load_json,
    progress,
)
from cervical_d2.datasets.images import ImageFolder
from cervical_d2.datasets.problems import Place, Problems
from cervical_d2.files import write_folder

SUFFIX = ".geojson"
IGNORE, GRAY = "Ignore*", (180, 180, 180)  # QuPath's name and color for regions that it ignores
DERIVED = ": "  # separates the parts of a QuPath class ("Tumor: Positive")
NESTING = {
    "Polygon": 1,
    "MultiPolygon": 2,
    "LineString": 0,
    "MultiLineString": 1,
}  # depth of the lists around the corners
OURS = re.compile(r"cd2b0c5e-([0-9a-f]{4})-8([0-9a-f]{3})-8([0-9a-f]{3})-([0-9a-f]{12})")  # a UUID of version 8
DIGITS = 22  # hexadecimal digits of it that hold the number


def read(source: Source, problems: Problems) -> Document:
    """One record per GeoJSON file (`STEM.geojson` or `IMAGE.EXTENSION.geojson`); sizes from the image headers.

    Raises:
        UserError: there are no GeoJSON files, or no folder of images.
    """
    root = images_folder(source)
    folder = ImageFolder(root)
    records = []
    for stem, path in progress(annotation_files(source.annotations, SUFFIX, source.subset).items()):
        try:
            features = _features(load_json(path))
        except ValueError as error:
            problems.add("malformed", str(path), str(error))
            continue
        record = image_record(folder.find(stem), stem_of(stem), path, problems)
        if record is not None:
            record["annotations"] = list(_annotations(features, path, problems))
            records.append(record)
    names = {entry["category"]: None for record in records for entry in record["annotations"] if entry["category"]}
    return Document(records, list(names), root)


def _annotations(features: list[Any], path: Path, problems: Problems) -> Iterator[Record]:
    waiting = [(str(place), feature) for place, feature in enumerate(features, start=1)][::-1]
    while waiting:
        place, feature = waiting.pop()
        try:
            yield from _objects(feature)
        except ValueError as error:
            problems.add("malformed", Place(str(path), None, place, "object"), str(error))
        children = _table(_table(feature).get("properties")).get("childObjects")
        if isinstance(children, list):
            waiting += [(f"{place}.{inner}", child) for inner, child in enumerate(children, start=1)][::-1]


def _features(document: Any) -> list[Any]:
    """Raises `ValueError` for what is not GeoJSON."""
    kind = str(_table(document).get("type"))
    features = {"FeatureCollection": _table(document).get("features"), "Feature": [document]}.get(kind, document)
    if not isinstance(features, list):
        raise ValueError("neither a FeatureCollection nor a list of Features")
    return features


def _table(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _objects(feature: Any) -> Iterator[Record]:
    """The annotations of one object: one, or one for each point. Raises `ValueError` if it cannot be read."""
    geometry, properties = _table(_table(feature).get("geometry")), _table(_table(feature).get("properties"))
    places = _places(geometry)
    name = _class_name(properties.get("classification"))
    if name is None:
        raise ValueError("has no class; set one in QuPath, or delete the object")
    ignored = name.endswith("*")
    number_ = _number(_table(feature).get("id"))
    for place in places:
        annotation: Record = {"category": None if ignored else name, "iscrowd": int(ignored)}
        # The points of one object share its id, so it cannot identify them.
        annotation |= {"id": number_ if len(places) == 1 else str(feature.get("id"))} | place
        annotation |= measures(_measured(properties.get("measurements")).get, annotation.get("bbox"))
        yield annotation | ({"ignore": 1} if ignored else {})


def _measured(measurements: Any) -> dict[str, Any]:
    """QuPath's table of measurements; before 0.4 a list of `{"name": , "value": }`."""
    if isinstance(measurements, list):
        return {str(_table(entry).get("name")): _table(entry).get("value") for entry in measurements}
    return _table(measurements)


def _class_name(classification: Any) -> str | None:
    """QuPath's `{"name": ...}`, from 0.5 also `{"names": [...]}` for derived classes."""
    parts = _table(classification).get("names")
    name = DERIVED.join(map(str, parts)) if isinstance(parts, list) else _table(classification).get("name")
    return name if isinstance(name, str) and name.strip() else None


def _places(geometry: dict[str, Any]) -> list[Record]:
    kind, coordinates = geometry.get("type"), geometry.get("coordinates")
    if kind in ("Point", "MultiPoint"):
        points = coordinates if kind == "MultiPoint" else [coordinates]
        return [{"point": list(point)} for point in _corners(points, 0)]
    if kind not in NESTING:
        raise ValueError(f"geometry {kind!r} is not one of Point, MultiPoint, {', '.join(NESTING)}")
    xs, ys = zip(*_corners(coordinates, NESTING[kind]), strict=True)
    # min and max ignore NaN.
    corners = [min(xs), min(ys), max(xs), max(ys)] if all(x == x for x in xs + ys) else [float("nan")] * 4
    return [{"bbox": corners, "bbox_mode": BoxMode.XYXY_ABS}]


def _corners(coordinates: Any, nesting: int) -> list[tuple[float, float]]:
    """All (x, y) in lists `nesting` deep. Raises `ValueError` for anything else, or if there are none."""
    for _ in range(nesting):
        if not isinstance(coordinates, list) or not all(isinstance(inner, list) for inner in coordinates):
            raise ValueError("its coordinates are not lists of corners")
        coordinates = [corner for inner in coordinates for corner in inner]
    if not isinstance(coordinates, list) or not coordinates:
        raise ValueError("has no coordinates")
    if not all(isinstance(corner, list) and len(corner) >= 2 for corner in coordinates):
        raise ValueError("its coordinates are not pairs of numbers")
    return [(number(corner[0]), number(corner[1])) for corner in coordinates]


def _number(uuid: Any) -> int | str:
    """The annotation's number in a UUID of ours; otherwise the text of the id."""
    match = OURS.fullmatch(uuid) if isinstance(uuid, str) else None
    return int("".join(match.groups()), 16) if match else str(uuid)


def _uuid(number_: Any) -> dict[str, str]:
    if not isinstance(number_, int) or not 0 <= number_ < 16**DIGITS:
        return {}
    digits = f"{number_:0{DIGITS}x}"
    return {"id": f"cd2b0c5e-{digits[:4]}-8{digits[4:7]}-8{digits[7:10]}-{digits[10:]}"}


def write(document: Document, path: Path) -> None:
    """A folder with one GeoJSON file per image, to be dragged onto the image in QuPath.

    Raises:
        UserError: `path` exists.
    """
    colors = {name: COLORS[place % len(COLORS)] for place, name in enumerate(document.classes)}

    def text_of(record: Record) -> str:
        features = [_feature(annotation, colors) for annotation in record["annotations"]]
        return json.dumps({"type": "FeatureCollection", "features": features}) + "\n"

    write_folder(path, ((f"{stem}{SUFFIX}", text_of(record)) for stem, record in by_stem(document)))


def _feature(annotation: Record, colors: dict[str, tuple[int, int, int]]) -> Record:
    if "bbox" in annotation:
        x1, y1, x2, y2 = (tidy(value) for value in annotation["bbox"])
        ring = [[x1, y1], [x2, y1], [x2, y2], [x1, y2], [x1, y1]]
        geometry: Record = {"type": "Polygon", "coordinates": [ring]}
    else:
        geometry = {"type": "Point", "coordinates": [tidy(value) for value in annotation["point"]]}
    name = IGNORE if annotation.get("ignore") else annotation["category"]
    classification = {"name": name, "color": colors.get(name, GRAY)}
    properties = {"objectType": "annotation", "classification": classification}
    if kept := {name: annotation[name] for name in MEASURES if name in annotation}:
        properties["measurements"] = kept
    own = _uuid(annotation.get("id"))
    return {"type": "Feature", **own, "geometry": geometry, "properties": properties}


HOLDS = ("empty images", "annotation ids", "ignore regions", "points", "repeated boxes", "scores", "areas", "boxes")

FORMAT = Format("object", read, write, frozenset(HOLDS))
