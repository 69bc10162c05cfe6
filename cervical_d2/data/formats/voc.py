"""Pascal VOC XML: a file an image, a text file of stems a split.

VOC counts pixels from 1; the widths of most collections, BCCD's too, were written as x2 - x1 from 0, so that
coordinates are taken as they stand. Beyond VOC: <group_id> of an image.
"""

from pathlib import Path
from xml.etree.ElementTree import Element, ParseError

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import parse
from detectron2.structures import BoxMode

from cervical_d2.data.formats import Document, Format, Record, Source, number
from cervical_d2.data.images import ImageFolder
from cervical_d2.data.problems import Problems
from cervical_d2.errors import UserError

CORNERS = ("xmin", "ymin", "xmax", "ymax")


def read(source: Source, problems: Problems) -> Document:
    """One record a stem of `source.subset` (or an XML file of the folder), in that order.

    Raises:
        UserError: there is no such folder or list, or nothing in it.
    """
    stems = _lines(source.subset) if source.subset else sorted(path.stem for path in source.annotations.glob("*.xml"))
    if not stems:
        raise UserError(f"{source.subset or source.annotations}: lists no image; check the data set's paths")
    folder = ImageFolder(source.images)
    records = []
    for stem in stems:
        path = source.annotations / f"{stem}.xml"
        try:
            records.append(_record(parse(path).getroot(), path, folder))
        except OSError as error:
            problems.add("malformed", str(path), f"cannot be read ({error.strerror}), it is listed in {source.subset}")
        except (ParseError, DefusedXmlException) as error:
            problems.add("malformed", str(path), f"not safe, valid XML ({error})")
        except ValueError as error:
            problems.add("malformed", str(path), str(error))
    names = {annotation["category"]: None for record in records for annotation in record["annotations"]}
    return Document(records, list(names))


def _lines(path: Path) -> list[str]:
    try:
        return [line.split()[0] for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); check the data set's paths") from error


def _record(root: Element, path: Path, folder: ImageFolder) -> Record:
    width, height = (number(_text(root, f"size/{key}")) for key in ("width", "height"))
    if not (width > 0 and height > 0):
        raise ValueError(f"<size> is {width:g} x {height:g}")
    record = {
        "file_name": str(folder.find(_text(root, "filename"))),
        "image_id": path.stem,
        "height": int(height),
        "width": int(width),
        "annotations": [_annotation(item, place) for place, item in enumerate(root.iterfind("object"), start=1)],
        "source": str(path),
    }
    return record | ({"group_id": _text(root, "group_id")} if root.findtext("group_id") else {})


def _annotation(item: Element, place: int) -> Record:
    return {
        "bbox": [number(item.findtext(f"bndbox/{corner}")) for corner in CORNERS],
        "bbox_mode": BoxMode.XYXY_ABS,
        "category": _text(item, "name"),
        "iscrowd": 0,
        "id": place,
    }


def _text(element: Element, name: str) -> str:
    text = (element.findtext(name) or "").strip()
    if not text:
        raise ValueError(f"no <{name}> in <{element.tag}>")
    return text


FORMAT = Format("object", read, None, frozenset(("image sizes", "group ids", "empty images", "boxes")))
