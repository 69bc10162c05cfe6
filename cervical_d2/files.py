"""Writing files that are whole or not there."""

import contextlib
import json
import math
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from cervical_d2.errors import UserError


def write_bytes(path: Path, content: bytes) -> None:
    """Write under a temporary name beside `path`, then rename: a reader never meets half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        partial.write_bytes(content)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def sync_folder(path: Path) -> None:
    """Make the renames in the folder last through a loss of power, where the system offers that."""
    if os.name == "posix":
        folder = os.open(path, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def write_text(path: Path, text: str) -> None:
    """`text` in UTF-8, as by `write_bytes`."""
    write_bytes(path, text.encode())


def write_json(path: Path, data: Any, indent: int | None = None) -> None:
    """`data` as strict JSON, which has no NaN: the caller replaces it by `plain`."""
    write_text(path, json.dumps(data, allow_nan=False, indent=indent) + "\n")


def plain(value: Any, digits: int | None = None) -> Any:
    """`value` for `write_json`: NaN and infinities as None, other floats rounded to `digits`.

    Arrays become lists, and named tuples become objects, at any depth.
    """
    if isinstance(value, float):  # numpy's float64 is one
        return None if not math.isfinite(value) else float(value) if digits is None else round(float(value), digits)
    if hasattr(value, "_asdict"):
        value = value._asdict()
    if isinstance(value, Mapping):
        return {key: plain(item, digits) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item, digits) for item in value]
    return plain(value.tolist(), digits) if hasattr(value, "tolist") else value


def unique_names(stems: Sequence[str]) -> list[str]:
    """`stems` as names of files in one folder: repeated ones get a number, also where case alone differs."""
    taken: set[str] = set()
    names = []
    for stem in stems:
        name, number = stem, 1
        while name.casefold() in taken:
            number += 1
            name = f"{stem}-{number}"
        taken.add(name.casefold())
        names.append(name)
    return names


@contextlib.contextmanager
def replaced_folder(path: Path, mark: str) -> Iterator[Path]:
    """A new folder to write into, which takes the place of `path` when all went well.

    Raises:
        UserError: `path` is there and is no folder that holds a file `mark`, as ours do.
    """
    if path.exists() and not (path / mark).is_file() and (not path.is_dir() or any(path.iterdir())):
        raise UserError(f"{path}: holds something else (no {mark}); choose another output")
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
        if path.exists():
            shutil.rmtree(path)
        partial.rename(path)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def refuse_existing(path: Path) -> None:
    """Raises `UserError` if there is anything at `path`."""
    if path.exists() or path.is_symlink():
        raise UserError(f"{path}: exists already; choose another output")


def write_folder(path: Path, files: Iterable[tuple[str, str]]) -> None:
    """The folder `path` with `files`, (name below it, text) each; it appears when all are written.

    Raises:
        UserError: `path` exists.
    """
    refuse_existing(path)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.mkdir(parents=True)
    try:
        for name, text in files:
            file = partial / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")
        partial.rename(path)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
