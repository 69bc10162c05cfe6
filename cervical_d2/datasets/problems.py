"""The table of all faults that a dataset is checked for, and the list of those found."""

import logging
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

from cervical_d2.errors import UserError

SHOWN = 10  # lines of one kind in a training log; `cervical-d2 check` shows all


class Kind(NamedTuple):
    """A kind of fault. "error": training stops; "warning": training handles it as `cure` says; "note": not a fault."""

    severity: str
    cure: str


KINDS = {
    "unreadable": Kind("error", "nothing else of this split was checked"),
    "malformed": Kind("error", "fix or remove it"),
    "bad-size": Kind("error", "write whole pixels, or leave the image out with --drop-invalid"),
    "bad-box": Kind("error", "write four finite numbers in pixels, or leave it out with --drop-invalid"),
    "unknown-class": Kind("error", "add it, or its spelling, under 'classes:' of the dataset, or under 'drop:'"),
    "class-out-of-range": Kind("error", "use an id of the file's categories, or leave it out with --drop-invalid"),
    "duplicate-class-id": Kind("error", "give each class its own id"),
    "duplicate-class-name": Kind("warning", "they are read as one class; list each once"),
    "classes-differ": Kind(
        "warning", "read by name here, by number in other programs; write the same list into every split"
    ),
    "no-such-image": Kind("error", "add the image to the file, or leave the box out with --drop-invalid"),
    "duplicate-image-id": Kind("error", "give each image its own id"),
    "duplicate-image-file": Kind("error", "list each file once"),
    "duplicate-annotation-id": Kind("warning", "both are kept; give each its own id"),
    "no-size": Kind(
        "error", "state 'centers: {box: 90 px}' in the dataset's file, or leave it out with --drop-invalid"
    ),
    "no-group": Kind("error", "fix the rule under 'groups:' of the dataset, or leave it out with --drop-invalid"),
    "no-area": Kind("warning", "training leaves it out; fix it, or leave it out with --drop-invalid"),
    "tiny-box": Kind("warning", "training leaves it out; fix it, or leave it out with --drop-invalid"),
    "outside": Kind("warning", "training leaves it out; fix it, or leave it out with --drop-invalid"),
    "partly-outside": Kind("warning", "training clips it; --drop-invalid writes it clipped"),
    "no-usable-box": Kind("error", "fix the numbers; docs/formats.md describes each format"),
    "misread-boxes": Kind("warning", "look at a few (cervical-d2 visualize), and fix the numbers"),
    "no-box": Kind("warning", "it can be used for testing, but not for training"),
    "missing-image": Kind("error", "check the images' folder, or leave the image out with --drop-invalid"),
    "unreadable-image": Kind("error", "copy it again, or leave the image out with --drop-invalid"),
    "no-permission": Kind("error", "allow reading it, or leave the image out with --drop-invalid"),
    "truncated-image": Kind("error", "copy it again, or leave the image out with --drop-invalid"),
    "huge-image": Kind("error", "cut it into tiles (cervical-d2 make-tiles), or leave it out with --drop-invalid"),
    "not-8-bit": Kind("error", "convert it to 8 bits per channel, or leave it out with --drop-invalid"),
    "size-differs": Kind("error", "fix the annotations, or leave the image out with --drop-invalid"),
    "exif-rotated": Kind("error", "rotate the pixels and remove the EXIF tag, or draw the boxes again"),
    "exif-ambiguous": Kind("warning", "check that its boxes lie on cells; rotate the pixels and remove the EXIF tag"),
    "leaves-root": Kind("error", "write a path below the images' folder"),
    "duplicate-content": Kind("warning", "both are kept; remove one, so that it is not counted twice"),
    "shared-image": Kind("warning", "a training image cannot be a test image; list each image in one split"),
    "stray-file": Kind("warning", "it is not read; remove it, or add the image it belongs to"),
    "stale-cache": Kind("warning", "it is not read here, but other programs read it; remove it"),
    "unnamed-image": Kind("note", "it is not read; annotate it, or list it as an image without boxes"),
    "repeated-box": Kind("note", "both are kept; remove one if it is a slip"),
    "empty-image": Kind("note", "trained on as background; set DATALOADER.FILTER_EMPTY_ANNOTATIONS to leave it out"),
}
SEVERITIES = ("error", "warning", "note")


class Place(NamedTuple):
    """Where a fault is: a file and, if known, the image and the box in it. `unit` is the format's word for a box."""

    file: str
    image: str | None = None
    box: int | str | None = None
    unit: str = "annotation"

    def __str__(self) -> str:
        if self.image is None:
            return self.file if self.box is None else f"{self.file}: {self.unit} {self.box}"
        if self.box is None:
            return f'{self.file}: image "{self.image}"'
        return f'{self.file}: {self.unit} {self.box} (image "{self.image}")'


class Problem(NamedTuple):
    """One fault: its `kind`, its place, and the `finding`."""

    kind: str
    place: Place
    finding: str

    @property
    def severity(self) -> str:
        """One of `SEVERITIES`."""
        return KINDS[self.kind].severity

    def __str__(self) -> str:
        # File names may contain anything, even line breaks.
        return " ".join(f"{self.place}: {self.finding}; {KINDS[self.kind].cure}".split())


class Problems(list[Problem]):
    """The faults found while reading a dataset, in the order of the files."""

    def add(self, kind: str, place: Place | str, finding: str) -> None:
        """Add a problem; a `place` given as text is a file."""
        self.append(Problem(kind, place if isinstance(place, Place) else Place(place), finding))

    def of(self, severity: str) -> list[Problem]:
        """The problems of one severity."""
        return [problem for problem in self if problem.severity == severity]

    def settle(self) -> None:
        """For training: log the warnings, the first `SHOWN` of each kind. Raises `UserError` with the first error."""
        if errors := self.of("error"):
            more = f" (and {len(errors) - 1} more; `cervical-d2 check` lists them)" if len(errors) > 1 else ""
            raise UserError(f"{errors[0]}{more}")
        for line in self.lines("warning"):
            logging.getLogger("detectron2.cervical_d2").warning(line)

    def lines(self, *severities: str) -> Iterator[str]:
        """A line for each problem of the severities: the first `SHOWN` of each kind, then how many more there are."""
        counts = Counter[str]()
        for problem in (problem for severity in severities for problem in self.of(severity)):
            counts[problem.kind] += 1
            if counts[problem.kind] <= SHOWN:
                yield str(problem)
        for kind, count in counts.items():
            if count > SHOWN:
                yield f"{kind}: {count - SHOWN} more; `cervical-d2 check` lists them"
