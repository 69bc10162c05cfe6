"""Pascal VOC XML: one file per image, and a text file of stems per split. http://host.robots.ox.ac.uk/pascal/VOC/

VOC counts pixels from 1, but most collections (also BCCD) were written from 0 with width x2 - x1, so coordinates are
read as they are. Beyond VOC: <group_id> of an image.
"""

import math
import re
from pathlib import Path
from xml.etree.ElementTree import Element, ParseError, SubElement, indent, tostring

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import parse
from detectron2.structures import BoxMode

from cervical_d2.datasets.formats import Document, Format, Record, Source, met, number, tidy
from cervical_d2.datasets.formats.per_image import annotation_files, by_stem, progress
from cervical_d2.datasets.images import ImageFolder
from cervical_d2.datasets.problems import Problems
from cervical_d2.errors import UserError
from cervical_d2.files import write_folder

CORNERS = ("xmin", "ymin", "xmax", "ymax")
UNWRITABLE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")  # https://www.w3.org/TR/xml/#charsets


def read(source: Source, problems: Problems) -> Document:
    """One record per stem in `source.subset` (or per XML file in the folder), in that order.

    Raises:
        UserError: there is no such folder or list, or it is empty.
    """
    folder = ImageFolder(source.images)
    records = []
    for stem, path in progress(annotation_files(source.annotations, ".xml", source.subset).items()):
        try:
            records.append(_record(parse(path).getroot(), stem, path, folder))
        except OSError as error:
            listed = f", it is listed in {source.subset}" if source.subset else ""
            problems.add("malformed", str(path), f"cannot be read ({error.strerror}){listed}")
        except (ParseError, DefusedXmlException) as error:
            problems.add("malformed", str(path), f"not safe, valid XML ({error})")
        except (ValueError, LookupError) as error:
            problems.add("malformed", str(path), str(error))
    names = {annotation["category"]: None for record in records for annotation in record["annotations"]}
    return Document(records, list(names), source.images)


def _record(root: Element, stem: str, path: Path, folder: ImageFolder) -> Record:
    width, height = (tidy(number(_text(root, f"size/{key}"))) for key in ("width", "height"))
    record = {
        "file_name": str(folder.find(_text(root, "filename"))),
        "image_id": stem,
        "height": height,
        "width": width,
        "annotations": [_annotation(item, place) for place, item in enumerate(root.iterfind("object"), start=1)],
        "source": str(path),
    }
    return record | ({"group_id": _text(root, "group_id")} if root.findtext("group_id") else {})


def _annotation(item: Element, place: int) -> Record:
    texts = [item.findtext(f"bndbox/{corner}") for corner in CORNERS]
    box = list(map(number, texts))
    annotation = {
        "bbox": box,
        "bbox_mode": BoxMode.XYXY_ABS,
        "category": _text(item, "name"),
        "iscrowd": 0,
        "id": place,
    }
    return annotation | ({"met": met(texts)} if any(map(math.isnan, box)) else {})


def _text(element: Element, name: str) -> str:
    text = (element.findtext(name) or "").strip()
    if not text:
        raise ValueError(f"no <{name}> in <{element.tag}>")
    return text


def write(document: Document, path: Path) -> None:
    """A folder with one XML file per image; <filename> is the image's path below the image folder.

    Raises:
        UserError: `path` exists, or XML cannot hold a name.
    """
    write_folder(path, ((f"{stem}.xml", _xml(document, record)) for stem, record in by_stem(document)))


def _xml(document: Document, record: Record) -> str:
    root = Element("annotation")
    _add(root, "filename", document.name(record))
    size = SubElement(root, "size")
    for key, value in (("width", record["width"]), ("height", record["height"]), ("depth", 3)):
        _add(size, key, value)
    if "group_id" in record:
        _add(root, "group_id", record["group_id"])
    for annotation in record["annotations"]:
        item = SubElement(root, "object")
        _add(item, "name", annotation["category"])
        box = SubElement(item, "bndbox")
        for corner, value in zip(CORNERS, annotation["bbox"], strict=True):
            _add(box, corner, tidy(value))
    indent(root, "\t")
    return tostring(root, encoding="unicode") + "\n"


def _add(parent: Element, name: str, value: object) -> None:
    text = str(value)
    if UNWRITABLE.search(text):
        raise UserError(f"<{name}> {text!r}: XML cannot hold this character; rename it")
    SubElement(parent, name).text = text


HOLDS = ("image sizes", "group ids", "empty images", "repeated boxes", "boxes")

FORMAT = Format("object", read, write, frozenset(HOLDS))
