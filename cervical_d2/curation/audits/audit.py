"""The table of audits. A new audit is a module with a finding class and a row in `AUDITS`."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from detectron2.data import DatasetCatalog

from cervical_d2.curation.audits.boxes import find_box_pairs
from cervical_d2.curation.audits.groups import find_shared_groups
from cervical_d2.curation.audits.overlaps import Image, find_overlaps
from cervical_d2.datasets.formats import Record
from cervical_d2.datasets.registry import class_names, resolve_all
from cervical_d2.errors import UserError

Splits = Mapping[str, Sequence[Record]]


class Finding(Protocol):
    """A finding of an audit."""

    def line(self) -> str:
        """One line of text: place and problem."""

    def document(self) -> dict[str, Any]:
        """All data of the finding, for JSON."""


class Options(NamedTuple):
    """Input of an audit besides the records: class names, and whether pairs within a split count."""

    names: Sequence[str]
    within: bool = False


class Audit(NamedTuple):
    """One audit. `find` returns the findings, worst first; `found` describes them in text."""

    find: Callable[[Splits, Options], Sequence[Finding]]
    found: str


def _overlaps(splits: Splits, options: Options) -> Sequence[Finding]:
    images = [Image(record["file_name"], split) for split, records in splits.items() for record in records]
    return find_overlaps(images, options.within)


AUDITS: dict[str, Audit] = {
    "overlaps": Audit(_overlaps, "pairs of images with the same content"),
    "groups": Audit(lambda splits, options: find_shared_groups(splits), "groups in more than one split"),
    "boxes": Audit(lambda splits, options: find_box_pairs(splits, options.names), "pairs of boxes on one cell"),
}


def audit(datasets: Sequence[str], which: Sequence[str], within: bool = False) -> dict[str, Sequence[Finding]]:
    """Run the audits `which` on `datasets` (registered names or FILE.yaml:SPLIT) and return the findings of each.

    Raises:
        UserError: a name is unknown or repeated, the classes of the splits differ, or an image cannot be read.
    """
    names = resolve_all(datasets)
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise UserError(f"{twice[0]}: named twice; name each split once (--within looks inside a split)")
    options = Options(class_names(names), within)
    splits = {name: DatasetCatalog.get(name) for name in names}
    return {name: AUDITS[name].find(splits, options) for name in which}


def report(results: Mapping[str, Sequence[Finding]], limit: int) -> Iterator[str]:
    """Lines of text: a heading for each audit and its worst `limit` findings."""
    for name, findings in results.items():
        yield f"{name}: {len(findings) or 'none'} found ({AUDITS[name].found})"
        yield from (f"  {finding.line()}" for finding in findings[:limit])
        if len(findings) > limit:
            yield f"  and {len(findings) - limit} more in audit.json"
