"""Shared by the formats with one annotation file per image: image lists, annotation files, records from headers."""

import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from detectron2.structures import BoxMode

from cervical_d2.datasets.formats import Document, Record, Source, stem_of
from cervical_d2.datasets.images import Header, files_below, look_at
from cervical_d2.datasets.problems import Problems
from cervical_d2.errors import UserError
from cervical_d2.progress import progress_bar
from cervical_d2.slides.slide import open_slide


def subset_stems(path: Path) -> list[str]:
    """The stems that a file lists, one per line; VOC's 1 or -1 after them and image extensions are ignored.

    Raises:
        UserError: it cannot be read, or lists nothing.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); check the dataset's paths") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not a text file ({error}); list the images, one per line") from error
    stems = [stem_of(re.sub(r"\s+-?[01]$", "", line.strip())) for line in lines if line.strip()]
    if not stems:
        raise UserError(f"{path}: lists no image; check the dataset's paths")
    return stems


def annotation_files(folder: Path, suffix: str, subset: Path | None = None) -> dict[str, Path]:
    """The files by their stems relative to `folder`: those of `subset`, even if missing, or all below `folder`, sorted.

    Raises:
        UserError: there is no such folder, or no such file in it.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; name the folder that holds the {suffix} files")
    if subset:
        return {stem: folder / f"{stem}{suffix}" for stem in subset_stems(subset)}
    files = [path for path in files_below(folder) if path.name.endswith(suffix)]
    if not files:
        raise UserError(f"{folder}: lists no image: no {suffix} file in it; check the dataset's paths")
    return {path.relative_to(folder).as_posix().removesuffix(suffix): path for path in files}


def progress(items: Iterable[Any]) -> Iterable[Any]:
    """`items` with a progress bar if reading takes more than a moment."""
    return progress_bar(items, desc="reading annotations", unit="file")


def listed(records: list[Record], source: Source, problems: Problems) -> list[Record]:
    """The records that `source.subset` lists, in its order, for formats with one file for all images."""
    if not source.subset:
        return records
    root = Document(records, [], source.images)
    by_stem = {root.stem(record): record for record in records}
    kept = []
    for stem in subset_stems(source.subset):
        if stem in by_stem:
            kept.append(by_stem[stem])
        else:
            problems.add("missing-image", str(source.subset), f"{stem} is not in {source.annotations}")
    return kept


def load_json(path: Path) -> Any:
    """The file's content.

    Raises:
        ValueError: the file cannot be read or is not JSON.
    """
    try:
        return json.loads(path.read_bytes())
    except OSError as error:
        raise ValueError(f"cannot be read ({error.strerror})") from error
    except RecursionError as error:
        raise ValueError("not valid JSON (nested too deeply)") from error
    except ValueError as error:
        raise ValueError(f"not valid JSON ({error})") from error


def images_folder(source: Source) -> Path:
    """The image folder, for formats whose files do not give image sizes.

    Raises:
        UserError: no folder is named, or it does not exist.
    """
    if source.images is None:
        raise UserError(f"{source.annotations}: these files do not give image sizes; name the image folder")
    if not source.images.is_dir():
        raise UserError(f"{source.images}: no such folder; name the folder that holds the images")
    return source.images


def image_record(image: Path, image_id: str, annotations: Path, problems: Problems) -> Record | None:
    """A record without annotations, its size from the image header; None and a problem if that cannot be read.

    Raises:
        UserError: a slide, or an image as large as one, that cannot be opened.
    """
    header = look_at(image)
    if isinstance(header, Header):
        width, height = header.size
    elif header[0] == "huge-image":  # it can be cut into tiles, which needs its size
        with open_slide(image) as slide:
            width, height = slide.size
    else:
        kind, finding = header
        problems.add(kind, str(image), f"{finding}, named by {annotations}")
        return None
    return {
        "file_name": str(image),
        "image_id": image_id,
        "height": height,
        "width": width,
        "annotations": [],
        "source": str(annotations),
    }


def whole_image(record: Record, label: str, number: int = 1) -> Record:
    """The annotation of an image that shows a single cell: a box of the whole image."""
    box = [0, 0, record["width"], record["height"]]
    return {"bbox": box, "bbox_mode": BoxMode.XYXY_ABS, "category": label, "iscrowd": 0, "id": number}


def by_stem(document: Document) -> Iterator[tuple[str, Record]]:
    """Each record with the name of its annotation file, without the suffix.

    Raises:
        UserError: two images differ only in their extension.
    """
    seen: set[str] = set()
    for record in progress_bar(document.records, desc="writing annotations", unit="file"):
        stem = document.stem(record)
        if stem.casefold() in seen:
            raise UserError(
                f"{record['file_name']}: another image is also called {stem}, and both need one file; rename one"
            )
        seen.add(stem.casefold())
        yield stem, record
