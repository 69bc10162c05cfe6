"""Class names, their other spellings, and their ids: one table for each dataset or label map."""

import re
from collections.abc import Iterable
from typing import Any

from cervical_d2.errors import UserError

IGNORED, DROPPED = -1, -2
"""Instead of a class id: an ignore region (neither trained on nor scored), or an annotation that is not read."""


def spelling_key(name: str) -> str:
    """The same text for spellings that differ only in case, spaces, dashes or underscores."""
    return re.sub(r"[\s_-]+", "", str(name)).casefold()


class ClassTable:
    """The classes of a dataset in their order. `names[i]` is the class with the contiguous id `i`."""

    def __init__(self, entries: Iterable[Any], where: str, ignore: Iterable[str] = (), drop: Iterable[str] = ()):
        """`entries`: names or `{name: [other spellings]}`; `where` is named in errors.

        `ignore`: names whose boxes become ignore regions; `drop`: names whose boxes are not read.
        """
        self.where = where
        self.names: list[str] = []
        self._index: dict[str, int] = {}
        for number, entry in enumerate(_listed(entries, "classes", where)):
            name, aliases = next(iter(entry.items())) if isinstance(entry, dict) and len(entry) == 1 else (entry, ())
            self.names.append(_name(name, "classes", where))
            aliases = [aliases] if isinstance(aliases, str) else _listed(aliases or (), f"classes: {name}", where)
            self._add((name, *aliases), number, "classes")
        if not self.names:
            raise UserError(f"{where}: no classes; list them under 'classes:'")
        self._add(_listed(ignore, "ignore", where), IGNORED, "ignore")
        self._add(_listed(drop, "drop", where), DROPPED, "drop")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ClassTable) and vars(self) == vars(other)

    @classmethod
    def of_files(cls, names: Iterable[str], where: str) -> "ClassTable":
        """The classes that files list, with other spellings under the first one; "cell" if they list none."""
        spellings: dict[str, list[str]] = {}
        for name in names:
            spellings.setdefault(spelling_key(name), []).append(name)
        return cls([{first: others} for first, *others in spellings.values()] or ["cell"], where)

    def _add(self, spellings: Iterable[Any], number: int, key: str) -> None:
        for spelling in spellings:
            if self._index.setdefault(spelling_key(_name(spelling, key, self.where)), number) != number:
                raise UserError(f"{self.where}: the class name {spelling!r} names two classes; rename one")

    def index(self, name: str) -> int | None:
        """The contiguous id of `name` in any spelling, `IGNORED`, `DROPPED`, or None if unknown."""
        return self._index.get(spelling_key(name))

    def unknown(self, name: str) -> str:
        """The message for an unknown `name`. It suggests no other class: HSIL is one letter from LSIL."""
        return f"unknown class {name!r}, {self.where} has {', '.join(self.names)}"

    def then(self, label_map: "ClassTable") -> "ClassTable":
        """This table followed by `label_map`: the same spellings, the map's classes.

        Raises:
            UserError: the map has no entry for one of this table's classes.
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


def _listed(values: Iterable[Any], key: str, where: str) -> list[Any]:
    """`values` of the YAML key `key`; `UserError` for a table, or for text, which would be split into letters."""
    if isinstance(values, str | dict) or not isinstance(values, Iterable):
        raise UserError(f"{where}: {key}: {values!r:.80} is not a list; write [NAME, ...]")
    return list(values)


def _name(value: Any, key: str, where: str) -> str:
    """One name under `key`."""
    if isinstance(value, bool):
        word = "yes, on or true" if value else "no, off or false"
        raise UserError(f'{where}: {key}: YAML reads {word} as {value}, not as a name; write it in quotes: "no"')
    name = str(value).strip()
    if value is None or isinstance(value, list | dict) or not name:
        raise UserError(f"{where}: {key}: {value!r:.80} is not a name; write NAME, or NAME: [OTHER SPELLING, ...]")
    return name
