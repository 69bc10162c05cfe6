"""A checkpoint file, opened: its weights, and the config and class names that it carries."""

import functools
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from cervical_d2.checkpoint.safe_load import load_file
from cervical_d2.errors import UserError

KEY = "cervical_d2"
"""Under which a file carries its config and class names."""
PARTS: dict[str, tuple[str, ...]] = {"ema": ("average",), "trainer": ()}
"""Dictionaries in our files, and what has to be in them."""
NUMBERED = "numbered"
"""Under which, within that, it names the periodic checkpoints that its run keeps."""


class Checkpoint(NamedTuple):
    """A weights file of any kind that `load_file` reads.

    `content` is all of the file; loading it into a model takes parts out. `config` (YAML text) and `classes` are those
    of its training, empty where the file does not carry them.
    """

    path: str
    content: dict[str, Any]
    config: str
    classes: list[str]

    @property
    def run(self) -> str:
        """Which run it is of (`RunFolder.run_id`), empty where it does not say so."""
        return str((self.content.get(KEY) or {}).get("run") or "")

    @property
    def numbered(self) -> list[str]:
        """The periodic checkpoints of its run that were there when it was written, oldest first."""
        return [Path(str(name)).name for name in (self.content.get(KEY) or {}).get(NUMBERED) or ()]

    @staticmethod
    def open(path: str | Path) -> "Checkpoint":
        """Read `path`, without running code from it.

        The last one is kept until `release`, which `CervicalCheckpointer.load` calls: a file that is looked at first
        and then loaded is read once. A file that has changed since is read again.

        Raises:
            UserError: as `load_file`; or the weights, config or classes are of another type than in our files.
        """
        try:
            state = os.stat(path)
        except OSError as error:
            raise UserError(f"{path}: no such weights file; check the path") from error
        return _opened(str(path), state.st_mtime_ns, state.st_size)

    @staticmethod
    def release() -> None:
        """Forget the file that is kept."""
        _opened.cache_clear()


@functools.lru_cache(maxsize=1)
def _opened(path: str, modified: int, size: int) -> Checkpoint:
    content = load_file(path)
    about = content.get(KEY) or {}
    if not isinstance(about, Mapping):
        raise _wrong(path, f"{KEY!r} is", about, "a dictionary")
    config, classes = about.get("config") or "", about.get("classes") or []
    if not isinstance(config, str):
        raise _wrong(path, "its config is", config, "text")
    if not isinstance(classes, list | tuple) or not all(isinstance(name, str) for name in classes):
        raise _wrong(path, "its classes are", classes, "a list of names")
    if len(set(classes)) < len(classes):
        raise _wrong(path, "its classes are", classes, "names that differ")
    for key, parts in PARTS.items() if KEY in content else ():
        value = content.get(key, {})
        if not isinstance(value, Mapping) or (key in content and set(parts) - value.keys()):
            raise _wrong(
                path, f"{key!r} is", value, " ".join(["a dictionary with", *parts] if parts else ["a dictionary"])
            )
    weights = [content.get("model", {}), content["ema"]["average"] if KEY in content and "ema" in content else {}]
    if wrong := [part for part in weights if not isinstance(part, Mapping)]:
        raise _wrong(path, "'model' is", wrong[0], "a dictionary of weights")
    return Checkpoint(path, content, config, list(classes))


def _wrong(path: str, what: str, value: object, wanted: str) -> UserError:
    return UserError(f"{path}: {what} {value!r:.60}, not {wanted}; take the checkpoint as its training wrote it")
