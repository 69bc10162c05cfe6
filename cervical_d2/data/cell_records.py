"""Labels of single-cell images, and checks of a split for classifiers.

N images, K classes.
"""

from collections.abc import Sequence

import numpy as np

from cervical_d2.data.build import records_of
from cervical_d2.data.packed import PackedRecords
from cervical_d2.datasets.formats import Record, format_of
from cervical_d2.datasets.reading import source_of
from cervical_d2.datasets.registry import class_names, definition_of
from cervical_d2.errors import UserError


def label_of(record: Record) -> int | None:
    """The class of the image, or None if a label map has removed it.

    Raises:
        UserError: the image shows cells of several classes.
    """
    labels = {entry["category_id"] for entry in record["annotations"] if entry["category_id"] >= 0}
    if len(labels) > 1:
        file = record["file_name"]
        raise UserError(
            f"{file}: shows cells of {len(labels)} classes; a classifier needs images of one class each, "
            "so cut the cells out"
        )
    return next(iter(labels), None)


def labeled_records(names: Sequence[str]) -> PackedRecords:
    """The records of the registered splits `names` that have a label.

    Raises:
        UserError: `records_of` or `label_of` raises it, or no record has a label.
    """
    records = records_of(tuple(names))
    kept = [place for place, record in enumerate(records) if label_of(record) is not None]
    if not kept:
        raise UserError(f"{', '.join(names)}: no image has a class; check the dataset, and its label map if any")
    return records.chosen(kept)


def labels_of(records: Sequence[Record]) -> np.ndarray:
    """(N,) the classes of `records`, as returned by `labeled_records`."""
    return np.array([label_of(record) for record in records], np.int64)


def check_classes(where: str, counts: np.ndarray, classes: Sequence[str], cure: str) -> None:
    """Raise `UserError` unless every class has an image (`counts`, (K,)). The message has `where` and `cure`."""
    present = [name for name, count in zip(classes, counts, strict=True) if count]
    missing = [name for name, count in zip(classes, counts, strict=True) if not count]
    if len(present) == 1:
        raise UserError(f"{where}: only one class, {present[0]} ({int(counts.sum())} images); {cure}")
    if missing:
        raise UserError(f"{where}: no image of the class {', '.join(missing)}; {cure}")


def check_split(names: Sequence[str]) -> np.ndarray:
    """(K,) the number of images of each class in the registered splits `names` together.

    Raises:
        UserError: a class has no image, or the folder of a class is empty.
    """
    for name in names:
        _check_folders(name)
    classes = class_names(list(names))
    counts = np.bincount(labels_of(labeled_records(names)), minlength=len(classes))
    check_classes(", ".join(names), counts, classes, "add images, or take the class out of 'classes:' of the dataset")
    return counts


def _check_folders(name: str) -> None:
    """Raise `UserError` if the folder of a class has no image. A label map that merges classes would hide that."""
    try:
        definition = definition_of(name)
    except UserError:  # registered without a definition
        return
    empty_classes = format_of(definition.format).empty_classes
    for folder, label in empty_classes(source_of(definition)) if empty_classes else ():
        if definition.classes.index(label) is not None:
            raise UserError(
                f"{folder}: a class folder without images; put its images there, or remove the folder and take the "
                "class out of 'classes:' of the dataset"
            )
