"""Class names and their other spellings: one table a data set, read from its catalog file."""

import difflib
import re
from collections.abc import Iterable
from typing import Any

from cervical_d2.errors import UserError


def _normal(name: str) -> str:
    """Spellings that differ in case, blanks, dashes or underscores are one."""
    return re.sub(r"[\s_-]+", "", str(name)).casefold()


class ClassTable:
    """The classes of a data set in their order. `names[i]` is the class with the contiguous id `i`."""

    def __init__(self, entries: Iterable[Any], where: str):
        """`entries`: a name, or `{name: [other spellings]}`, each; `where` is named in errors."""
        self.where = where
        self.names: list[str] = []
        self._index: dict[str, int] = {}
        for entry in entries:
            name, aliases = next(iter(entry.items())) if isinstance(entry, dict) else (str(entry), ())
            self.names.append(str(name))
            for spelling in (name, *aliases):
                if self._index.setdefault(_normal(spelling), len(self.names) - 1) != len(self.names) - 1:
                    raise UserError(f"{where}: the class name {spelling!r} stands for two classes; rename one")
        if not self.names:
            raise UserError(f"{where}: no classes; list them under 'classes:'")

    def index(self, name: str, place: str) -> int:
        """Contiguous id of `name` in any of its spellings; `UserError` naming `place` otherwise."""
        try:
            return self._index[_normal(name)]
        except KeyError:
            near = difflib.get_close_matches(_normal(name), self._index, n=1)
            hint = f" (did you mean {self.names[self._index[near[0]]]!r}?)" if near else ""
            raise UserError(
                f"{place}: unknown class {name!r}{hint}; the classes are {', '.join(self.names)}: "
                f"add it, or its spelling, under 'classes:' in {self.where}"
            ) from None
