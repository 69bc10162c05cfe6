"""What is looked at before every training: that files are there and whole, that boxes have an area."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from detectron2.structures import BoxMode
from PIL import Image, UnidentifiedImageError
from tqdm import tqdm

from cervical_d2.data.formats import Record
from cervical_d2.errors import UserError

# The last bytes of a whole file; a copy that broke off lacks them. Some writers pad a JPEG, so a window is searched.
ENDINGS = {"JPEG": b"\xff\xd9", "PNG": b"IEND"}
ENDING_WINDOW = 4096


def drop_boxes_without_area(records: Iterable[Record]) -> Iterator[str]:
    """Remove such boxes in place (nothing can be learned from or matched with one); a line for each."""
    for record in records:
        kept = []
        for annotation in record["annotations"]:
            _, _, width, height = BoxMode.convert(annotation["bbox"], annotation["bbox_mode"], BoxMode.XYWH_ABS)
            if width > 0 and height > 0:
                kept.append(annotation)
            else:
                yield f"{record['file_name']}: box {annotation['bbox']} has no area; left out"
        record["annotations"] = kept


def check_images(records: list[Record]) -> None:
    """Open every image's header. Raises `UserError` with the first that is missing, broken off or of another size."""
    problems = [
        line for record in tqdm(records, desc="checking images", unit="image", delay=3) if (line := _problem(record))
    ]
    if problems:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise UserError(problems[0] + more)


def _problem(record: Record) -> str | None:
    path = Path(record["file_name"])
    try:
        with Image.open(path) as image:
            size, kind = _upright_size(image), image.format
        with path.open("rb") as file:
            file.seek(-min(ENDING_WINDOW, path.stat().st_size), os.SEEK_END)
            ending = file.read()
    except FileNotFoundError:
        return f"{path}: no such image; it is named in the annotations, check the images' folder"
    except (UnidentifiedImageError, OSError, Image.DecompressionBombError) as error:
        return f"{path}: not a whole, readable image ({type(error).__name__}); copy it again"
    if ENDINGS.get(kind or "", b"") not in ending:
        return f"{path}: broken off (truncated image); copy it again"
    if size != (record["width"], record["height"]):
        return (
            f"{path}: is {size[0]} x {size[1]} px, but its annotations say {record['width']} x {record['height']}; "
            "mend the annotations"
        )
    return None


def _upright_size(image: Image.Image) -> tuple[int, int]:
    """(width, height) after the EXIF rotation, which is what the reader returns."""
    transposed = image.getexif().get(0x0112, 1) >= 5
    return (image.size[1], image.size[0]) if transposed else image.size
