"""Everything that can be wrong with data sets, looked for at once: the work of tools/check_dataset.py."""

import functools
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from cervical_d2.data.checks import check_classes, check_content, check_images, stale_caches
from cervical_d2.data.classes import ClassTable
from cervical_d2.data.formats import Document, Format, Source, format_of
from cervical_d2.data.images import ImageFolder
from cervical_d2.data.problems import KINDS, SEVERITIES, Problems
from cervical_d2.data.reading import Split, read_source, read_split, source_of
from cervical_d2.data.registry import definition_of, splits_of
from cervical_d2.errors import UserError
from cervical_d2.files import write_json


class Target(NamedTuple):
    """A split to check. Those of one `group` are splits of one data set.

    `whole`: all splits that share its images' folder are checked, so that an image that none of them names is told.
    """

    name: str
    format: str
    source: Source
    read: Callable[[], Split]
    group: str
    whole: bool


class Checked(NamedTuple):
    """A split after its check: `document` is what is left of it, None if it could not be read at all."""

    target: Target
    images: int
    boxes: int
    document: Document | None

    def __str__(self) -> str:
        read = f"{self.images} images, {self.boxes} boxes" if self.document else "not read"
        return f"{self.target.name}: {read}, {self.target.format}"


class Report(NamedTuple):
    """What was read and what was found."""

    splits: list[Checked]
    problems: Problems

    @property
    def clean(self) -> bool:
        """Whether there is nothing but notes."""
        return len(self.problems.of("note")) == len(self.problems)

    def lines(self) -> Iterator[str]:
        """A line a split, a line a problem, and counts by kind and by severity."""
        yield from map(str, self.splits)
        for problem in self.problems:
            yield f"{problem.severity}: {problem}"
        for kind, count in Counter(problem.kind for problem in self.problems).most_common():
            yield f"{count:8d} {kind} ({KINDS[kind].severity})"
        counts = ", ".join(f"{len(self.problems.of(severity))} {severity}s" for severity in SEVERITIES)
        images, boxes = (sum(getattr(split, count) for split in self.splits) for count in ("images", "boxes"))
        yield f"{counts} in {images} images with {boxes} boxes"

    def as_dict(self) -> dict[str, Any]:
        """The same for programs."""
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
    """The splits that `names` stand for, a data set's name for all of its splits; `UserError` for an unknown one."""
    splits = {split: "@".join(name.split("@")[1:]) for name in names for split in splits_of(name)}
    chosen = [definition_of(split).place for split in splits]
    targets = []
    for split, label_map in splits.items():
        found = definition_of(split)
        sharing = [place for place in found.splits.values() if place.get("images") == found.place.get("images")]
        read = functools.partial(read_split, found)
        group, whole = f"{found.path}@{label_map}", all(any(place is one for one in chosen) for place in sharing)
        targets.append(Target(split, found.format, source_of(found), read, group, whole))
    return targets


def target_of_files(source: Source, format_name: str, classes: Sequence[str] = ()) -> Target:
    """Files that no data set describes; without `classes` those that the files list are taken."""
    table = ClassTable(classes, "--classes") if classes else None
    read = functools.partial(read_source, source, format_name, table)
    return Target(source.name, format_name, source, read, source.name, source.subset is None)


def check_all(targets: Iterable[Target]) -> Report:
    """Read and check each of `targets`, every pixel of its images, and those of one group against each other."""
    report, groups = Report([], Problems()), defaultdict(list)
    for target in targets:
        groups[target.group].append(target)
    for group in groups.values():
        _check_group(group, report)
    return report


def _check_group(targets: Sequence[Target], report: Report) -> None:
    problems, records, classes = report.problems, [], {}
    named: dict[Path, set[str]] = {}
    for target in targets:
        root = target.source.images
        try:
            split = target.read()
        except UserError as error:
            problems.add("unreadable", target.name, str(error))
            report.splits.append(Checked(target, 0, 0, None))
            continue
        problems += split.problems
        kept = split.document.records
        if root is not None:
            kept = check_images(kept, problems, decode=True)
            records += kept
            named.setdefault(root, set()).update(split.files)
        if "class list" in format_of(target.format).holds:
            classes[target.name] = split.classes
        report.splits.append(Checked(target, len(split.files), split.boxes, split.document._replace(records=kept)))
    check_classes(classes, problems)
    check_content(records, problems)
    _check_folders(targets, named, problems)


def _check_folders(targets: Sequence[Target], named: dict[Path, set[str]], problems: Problems) -> None:
    """Caches beside the annotations; images that no split names, where all splits of their folder were read."""
    caches = {found for target in targets for found in stale_caches(target.source.annotations)}
    for path, finding in sorted(caches):
        problems.add("stale-cache", str(path), finding)
    for root, files in named.items():
        if all(target.whole for target in targets if target.source.images == root):
            for name in ImageFolder(root).names():
                if str(root / name) not in files:
                    problems.add("unnamed-image", str(root / name), "no annotation file names it")


def refuse_outputs(report_file: Path | None, repaired: Path | None, targets: Sequence[Target]) -> None:
    """Raises `UserError` if an output exists, or if a repaired copy of other than one split is asked for."""
    for path in filter(None, (report_file, repaired)):
        if path.exists():
            raise UserError(f"{path}: exists already; choose another output")
    if repaired and len(targets) != 1:
        names = ", ".join(target.name for target in targets)
        raise UserError(f"--drop-invalid writes one split, but {names} are given; name one")


def write_report(report: Report, path: Path) -> None:
    """`report` as JSON."""
    write_json(path, report.as_dict(), indent=1)


def write_repaired(report: Report, path: Path) -> str:
    """What is left of the one split of `report`, in its own format if that can be written, else COCO JSON.

    Returns a line that says what was written. Raises `UserError` if nothing could be read, or `path` exists.
    """
    (split,) = report.splits
    if split.document is None:
        raise UserError(f"{split.target.name}: could not be read, so that nothing of it can be written")
    faulty = {problem.place.file for problem in report.problems if problem.severity != "note"}
    records = [record for record in split.document.records if record["file_name"] not in faulty]
    name, writer = _writer(split.target.format)
    writer(split.document._replace(records=records), path)
    boxes = sum(len(record["annotations"]) for record in records)
    left = f"left out {split.images - len(records)} images, {split.boxes - boxes} boxes"
    return f"{path}: {len(records)} images, {boxes} boxes, {name}; {left}"


def _writer(format_name: str) -> tuple[str, Callable[[Document, Path], None]]:
    for name in (format_name, "coco"):
        chosen: Format = format_of(name)
        if chosen.write:
            return name, chosen.write
    raise AssertionError("COCO can be written")
