"""One folder per class with images of single cells, as Herlev and the crops of ComparisonDetector are published.

Each image becomes one box of its whole size. Herlev's masks (`NAME-d.bmp`) are skipped.
"""

from pathlib import Path, PurePosixPath

from cervical_d2.datasets.formats import Document, Format, Source, stem_of
from cervical_d2.datasets.formats.per_image import image_record, listed, progress, whole_image
from cervical_d2.datasets.images import ImageFolder
from cervical_d2.datasets.problems import Problems
from cervical_d2.errors import UserError

MASK = "-d.bmp"


def read(source: Source, problems: Problems) -> Document:
    """One record per image, by folder and name; `source.annotations` is the folder of the classes' folders.

    Raises:
        UserError: there is no such folder, or no image in its subfolders.
    """
    root = source.annotations
    if not root.is_dir():
        raise UserError(f"{root}: no such folder; name the folder that holds one folder per class")
    names = [PurePosixPath(name) for name in ImageFolder(root).names() if not name.lower().endswith(MASK)]
    if not any(len(name.parts) > 1 for name in names):
        raise UserError(f"{root}: has no image in a subfolder; put the images into one folder per class")
    records = []
    for name in progress(names):
        if len(name.parts) == 1:
            problems.add("stray-file", str(root / name), "an image outside the class folders")
            continue
        record = image_record(root / name, stem_of(str(name)), root, problems)
        if record is not None:
            record["annotations"] = [whole_image(record, name.parts[0])]
            records.append(record)
    classes = dict.fromkeys(name.parts[0] for name in names if len(name.parts) > 1)
    return Document(listed(records, source._replace(images=root), problems), list(classes), root)


def empty_classes(source: Source) -> list[tuple[Path, str]]:
    """The class folders without an image, with their class names."""
    folders = [child for child in sorted(source.annotations.iterdir()) if child.is_dir()]
    return [(folder, folder.name) for folder in folders if not ImageFolder(folder).names()]


FORMAT = Format("image", read, None, frozenset(("class list", "boxes")), empty_classes=empty_classes)
