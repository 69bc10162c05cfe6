"""Slides or patients with images in several splits, which leak information between the splits."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from cervical_d2.datasets.formats import Record


class SharedGroup(NamedTuple):
    """A `group_id` that occurs in more than one split, and its files in each split."""

    group: str
    files: dict[str, list[str]]

    def line(self) -> str:
        """One line of text."""
        counts = ", ".join(f"{len(files)} in {split}" for split, files in self.files.items())
        return f"group {self.group}: images in {len(self.files)} splits ({counts})"

    def document(self) -> dict[str, Any]:
        """All data, for JSON."""
        return self._asdict()


def find_shared_groups(splits: Mapping[str, Sequence[Record]]) -> list[SharedGroup]:
    """The groups in more than one of `splits`, those with most images first. 7 and "7" are the same group."""
    groups: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for split, records in splits.items():
        for record in records:
            if record.get("group_id") is not None:
                groups[str(record["group_id"])][split].append(record["file_name"])
    shared = [SharedGroup(group, dict(files)) for group, files in groups.items() if len(files) > 1]
    return sorted(shared, key=lambda item: (-sum(map(len, item.files.values())), item.group))
