"""Pascal VOC XML: a file an image, a text file of stems a split."""

import math
from pathlib import Path
from xml.etree.ElementTree import Element, ParseError

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import parse
from detectron2.structures import BoxMode

from cervical_d2.data.formats import Record, Source
from cervical_d2.errors import UserError

CORNERS = ("xmin", "ymin", "xmax", "ymax")


def read(source: Source) -> list[Record]:
    """One record a stem of `source.subset` (or an XML file of the folder), in that order.

    VOC counts pixels from 1; the widths of most collections, BCCD's too, were written as x2 - x1 from 0, so that
    coordinates are taken as they stand.
    """
    found = source.annotations.glob("*.xml")
    stems = _lines(source.subset) if source.subset else sorted(path.stem for path in found)
    if not stems:
        raise UserError(f"{source.subset or source.annotations}: lists no image; check the data set's paths")
    return [_record(source, stem) for stem in stems]


def _lines(path: Path) -> list[str]:
    try:
        return [line.split()[0] for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); check the data set's paths") from error


def _record(source: Source, stem: str) -> Record:
    path = source.annotations / f"{stem}.xml"
    try:
        root = parse(path).getroot()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); it is listed in {source.subset}") from error
    except (ParseError, DefusedXmlException) as error:
        raise UserError(f"{path}: not safe, valid XML ({error}); write it again") from error
    return {
        "file_name": str(source.images / _text(root, "filename", path)),
        "image_id": stem,
        "height": int(_number(root, "size/height", path)),
        "width": int(_number(root, "size/width", path)),
        "annotations": [_annotation(item, source, path) for item in root.iterfind("object")],
    }


def _annotation(item: Element, source: Source, path: Path) -> Record:
    return {
        "bbox": [_number(item, f"bndbox/{corner}", path) for corner in CORNERS],
        "bbox_mode": BoxMode.XYXY_ABS,
        "category_id": source.classes.index(_text(item, "name", path), str(path)),
        "iscrowd": 0,
    }


def _text(element: Element, name: str, path: Path) -> str:
    text = element.findtext(name)
    if not text:
        raise UserError(f"{path}: no <{name}> in <{element.tag}>; add it")
    return text.strip()


def _number(element: Element, name: str, path: Path) -> float:
    text = _text(element, name, path)
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise UserError(f"{path}: <{name}> is {text!r}, not a finite number; mend it")
    return value
