"""Finds all faults of datasets in one run, for `cervical-d2 check`."""

import functools
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from cervical_d2.curation import conversion
from cervical_d2.curation.conversion import Reading
from cervical_d2.datasets.checks import (
    check_classes,
    check_content,
    check_images,
    check_shared,
    place_of,
    stale_caches,
)
from cervical_d2.datasets.classes import ClassTable
from cervical_d2.datasets.formats import FORMATS, Document, Record, Source, format_of
from cervical_d2.datasets.images import ImageFolder
from cervical_d2.datasets.problems import KINDS, SEVERITIES, Problems
from cervical_d2.datasets.reading import Split, read_source, read_split, source_of
from cervical_d2.datasets.registry import definition_of, name_and_maps, splits_of
from cervical_d2.errors import UserError
from cervical_d2.files import refuse_existing, write_json

OF_FOLDERS = ("yolo",)  # formats that cannot leave out an image of their folder


class Target(NamedTuple):
    """A split to check. Those of one `group` are splits of one dataset.

    `usable`: the split without its faults, as in its files: no boxes built around centers.
    `whole`: all splits that share its image folder are checked, so images that no annotation names are reported.
    """

    name: str
    format: str
    source: Source
    read: Callable[[], Split]
    usable: Callable[[], Reading]
    group: str
    whole: bool


class Checked(NamedTuple):
    """A split after its check: the numbers of images and boxes in its files; `read`: whether they could be read."""

    target: Target
    read: bool
    images: int
    boxes: int

    def __str__(self) -> str:
        read = f"{self.images} images, {self.boxes} boxes" if self.read else "not read"
        return f"{self.target.name}: {read}, {self.target.format}"


class Report(NamedTuple):
    """The checked splits and their problems."""

    splits: list[Checked]
    problems: Problems

    @property
    def clean(self) -> bool:
        """Whether there are only notes."""
        return len(self.problems.of("note")) == len(self.problems)

    def lines(self) -> Iterator[str]:
        """One line per split, one line per problem, and counts by kind and by severity."""
        yield from map(str, self.splits)
        for problem in self.problems:
            yield f"{problem.severity}: {problem}"
        for kind, count in Counter(problem.kind for problem in self.problems).most_common():
            yield f"{count:8d} {kind} ({KINDS[kind].severity})"
        counts = ", ".join(f"{severity}s: {len(self.problems.of(severity))}" for severity in SEVERITIES)
        images, boxes = (sum(getattr(split, count) for split in self.splits) for count in ("images", "boxes"))
        yield f"{counts}; images: {images}, boxes: {boxes}"

    def as_dict(self) -> dict[str, Any]:
        """The same as a dict, for JSON."""
        splits = [
            {"name": split.target.name, "format": split.target.format, "images": split.images, "boxes": split.boxes}
            for split in self.splits
        ]
        problems = [
            {"kind": problem.kind, "severity": problem.severity, **problem.place._asdict()}
            | {"finding": problem.finding, "cure": KINDS[problem.kind].cure}
            for problem in self.problems
        ]
        return {"splits": splits, "problems": problems}


def targets_named(names: Iterable[str]) -> list[Target]:
    """The splits named by `names`; a dataset's name means all of its splits. `UserError` for an unknown name."""
    splits = {split: "@".join(name_and_maps(split)[1:]) for split in splits_of(names)}
    chosen = [definition_of(split).place for split in splits]
    targets = []
    for split, label_map in splits.items():
        known = definition_of(split)
        sharing = [place for place in known.splits.values() if place.get("images") == known.place.get("images")]
        read = functools.partial(read_split, known)
        group, whole = f"{known.path}@{label_map}", all(any(place is one for one in chosen) for place in sharing)
        usable = functools.partial(conversion.read_dataset, split, drop_invalid=True)
        targets.append(Target(split, known.format, source_of(known), read, usable, group, whole))
    return targets


def target_of_files(source: Source, format_name: str, classes: Sequence[str] = ()) -> Target:
    """Files that no dataset describes; without `classes` those in the files are used."""
    if format_name not in FORMATS:
        raise UserError(f"unknown format {format_name!r}; choose from {', '.join(FORMATS)}")
    table = ClassTable(classes, "--classes") if classes else None
    source = source._replace(classes=table)
    read = functools.partial(read_source, source, format_name, table)
    usable = functools.partial(conversion.read_files, source, format_name, classes=classes, drop_invalid=True)
    return Target(source.name, format_name, source, read, usable, source.name, source.subset is None)


def check_all(targets: Iterable[Target]) -> Report:
    """Read and check each of `targets`, with every pixel, and compare the targets of one group with each other."""
    report, groups = Report([], Problems()), defaultdict(list)
    for target in targets:
        groups[target.group].append(target)
    for group in groups.values():
        _check_group(group, report)
    return report


def _check_group(targets: Sequence[Target], report: Report) -> None:
    problems, records, classes = report.problems, dict[str, list[Record]](), {}
    named, whole = defaultdict[Path, set[str]](set), all(target.whole for target in targets)
    for target in targets:
        try:
            split = target.read()
        except UserError as error:
            problems.add("unreadable", target.name, str(error))
            report.splits.append(Checked(target, False, 0, 0))
            whole = False
            continue
        problems += split.problems
        _check_repeats(split.document, format_of(target.format).unit, problems)
        kept, root = split.document.records, split.document.images
        if root is not None:
            kept = check_images(kept, problems, decode=True)
            records[target.name] = kept
            named[root].update(split.files)
        if "class list" in format_of(target.format).holds:
            classes[target.name] = split.classes
        report.splits.append(Checked(target, True, len(split.files), split.boxes))
    check_classes(classes, problems)
    check_shared(records, problems)
    check_content([record for kept in records.values() for record in kept], problems)
    _check_caches(targets, problems)
    if whole:
        _check_unnamed(named, problems)


def _check_repeats(document: Document, unit: str, problems: Problems) -> None:
    for record in document.records:
        for annotation in conversion.repeated(record):
            problems.add("repeated-box", place_of(record, annotation, unit), "repeats an earlier box of the same class")


def _check_caches(targets: Sequence[Target], problems: Problems) -> None:
    caches = {cache for target in targets for cache in stale_caches(target.source.annotations)}
    for path, finding in sorted(caches):
        problems.add("stale-cache", str(path), finding)


def _check_unnamed(named: Mapping[Path, set[str]], problems: Problems) -> None:
    """Report images in the folders that no annotation names and that have no other problem."""
    # A broken annotation file belongs to the image with its stem.
    reported = {Path(problem.place.file).stem for problem in problems}
    for root, files in named.items():
        for name in ImageFolder(root).names():
            if str(root / name) not in files and Path(name).stem not in reported:
                problems.add("unnamed-image", str(root / name), "no annotation names it")


def refuse_outputs(report_file: Path | None, repaired: Path | None, targets: Sequence[Target]) -> None:
    """Raises `UserError` if an output exists, or if a repaired copy of several splits is requested."""
    for path in filter(None, (report_file, repaired)):
        refuse_existing(path)
    if repaired and len(targets) != 1:
        names = ", ".join(target.name for target in targets)
        raise UserError(f"--drop-invalid writes one split, but {names} are given; name one")


def write_findings(report: Report, path: Path) -> None:
    """`report` as JSON."""
    write_json(path, report.as_dict(), indent=1)


def write_repaired(report: Report, path: Path) -> str:
    """Write the split of `report` without its faults, in its own format if that can hold it, else as COCO JSON.

    Returns a line with the counts. Raises `UserError` if nothing could be read, or `path` exists.
    """
    (split,) = report.splits
    if not split.read:
        raise UserError(f"{split.target.name}: could not be read, so nothing can be written")
    reading, name = split.target.usable(), split.target.format
    document = reading.document._replace(records=_faultless(reading.document.records, report.problems))
    reading = reading._replace(document=document)
    whole = name not in OF_FOLDERS or len(document.records) == len(ImageFolder(document.images).names())
    if format_of(name).write is None or not whole:
        name = "coco"
    return f"{conversion.write(reading, conversion.writer_of(name, path), path)}, {name}"


def _faultless(records: Iterable[Record], problems: Problems) -> list[Record]:
    """Copies of `records` without faulty images, centers without a size, and duplicate ids."""
    faulty = {problem.place.file for problem in problems if problem.severity != "note"}
    sized = any(problem.kind == "no-size" for problem in problems)
    ids: set[object] = set()
    kept = []
    for record in records:
        if record["file_name"] in faulty:
            continue
        annotations = []
        for entry in record["annotations"]:
            if "bbox" in entry or not sized:
                annotations.append(entry | {"id": None} if entry["id"] in ids else entry)
                ids.add(entry["id"])
        kept.append(record | {"annotations": annotations})
    return kept
