"""Class names, their other spellings, and what becomes of them: one table a data set or label map."""

import difflib
import re
from collections.abc import Iterable
from typing import Any

from cervical_d2.errors import UserError

IGNORED, DROPPED = -1, -2
"""In place of a class's number: an ignore region (neither learned from nor scored), or no annotation at all."""


def spelling_key(name: str) -> str:
    """Spellings that differ in case, blanks, dashes or underscores are one."""
    return re.sub(r"[\s_-]+", "", str(name)).casefold()


class ClassTable:
    """The classes of a data set in their order. `names[i]` is the class with the contiguous id `i`."""

    def __init__(self, entries: Iterable[Any], where: str, ignore: Iterable[str] = (), drop: Iterable[str] = ()):
        """`entries`: a name, or `{name: [other spellings]}`, each; `where` is named in errors.

        `ignore` and `drop`: names in the files whose boxes become ignore regions, or are not read.
        """
        self.where = where
        self.names: list[str] = []
        self._index: dict[str, int] = {}
        for number, entry in enumerate(entries):
            name, aliases = next(iter(entry.items())) if isinstance(entry, dict) else (str(entry), ())
            self.names.append(str(name))
            self._add((name, *([aliases] if isinstance(aliases, str) else aliases)), number)
        if not self.names:
            raise UserError(f"{where}: no classes; list them under 'classes:'")
        self._add(ignore, IGNORED)
        self._add(drop, DROPPED)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ClassTable) and vars(self) == vars(other)

    @classmethod
    def of_files(cls, names: Iterable[str], where: str) -> "ClassTable":
        """The classes as files list them, spellings of one under the first; "cell" where they list none."""
        spellings: dict[str, list[str]] = {}
        for name in names:
            spellings.setdefault(spelling_key(name), []).append(name)
        return cls([{first: others} for first, *others in spellings.values()] or ["cell"], where)

    def _add(self, spellings: Iterable[str], number: int) -> None:
        for spelling in spellings:
            if self._index.setdefault(spelling_key(spelling), number) != number:
                raise UserError(f"{self.where}: the class name {spelling!r} stands for two classes; rename one")

    def index(self, name: str) -> int | None:
        """Contiguous id of `name` in any of its spellings, `IGNORED`, `DROPPED`, or None if it is unknown."""
        return self._index.get(spelling_key(name))

    def unknown(self, name: str) -> str:
        """What to say of a `name` that is unknown."""
        near = difflib.get_close_matches(spelling_key(name), self._index, n=1)
        known = near and self._index[near[0]] >= 0
        hint = f" (did you mean {self.names[self._index[near[0]]]!r}?)" if known else ""
        return f"unknown class {name!r}{hint}, {self.where} has {', '.join(self.names)}"

    def then(self, label_map: "ClassTable") -> "ClassTable":
        """This table followed by `label_map`: the same spellings, the map's classes.

        Raises:
            UserError: the map has no place for one of this table's classes.
        """
        places = [label_map.index(name) for name in self.names]
        for name, place in zip(self.names, places, strict=True):
            if place is None:
                raise UserError(
                    f"{label_map.where}: no class for {name!r} of {self.where}; add it, or list it in drop:"
                )
        mapped = object.__new__(ClassTable)
        mapped.where, mapped.names = label_map.where, label_map.names
        mapped._index = {
            spelling: number if number < 0 else places[number]  # type: ignore[misc]
            for spelling, number in self._index.items()
        }
        return mapped
