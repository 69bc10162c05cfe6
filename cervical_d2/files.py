"""Writing files that are whole or not there, and only where nothing of the user's is lost.

A command writes a folder that is new, empty, or holds nothing but what the same command wrote before, as the list
`WRITTEN` in it says. A file that exists is written only with --overwrite.
"""

import contextlib
import json
import math
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from cervical_d2.errors import UserError

WRITTEN = ".cervical_d2.json"  # in a folder of output: who wrote it, and which files


def write_bytes(path: Path, content: bytes) -> None:
    """Write under a temporary name beside `path`, sync, then rename: a reader never meets half a file.

    Raises:
        OSError: the file cannot be written; it names `path`, and `run_main` makes one line of it.
    """
    partial = path.with_name(f".{path.name[:50]}.{os.getpid()}")  # a name has at most 255 bytes
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())  # some systems tell only now that the disk is full
        partial.replace(path)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink()


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


def unique_names(stems: Sequence[str], reserved: Sequence[str] = ()) -> list[str]:
    """`stems` as names of files in one folder: repeated ones get a number, also where case alone differs.

    None is one of `reserved`, which are in lower case.
    """
    taken = set(reserved)
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
def output_folder(path: Path, command: str, inputs: Iterable[str | Path] = ()) -> Iterator[Path]:
    """A folder to write into, whose files go to `path` when all went well, in place of those of the run before.

    Raises:
        UserError: as `check_output`.
    """
    before = check_output(path, command, inputs)
    made = [folder for folder in (path, *path.parents) if not folder.exists()]
    for stale in path.glob(".partial.*"):  # a killed run left it
        shutil.rmtree(stale, ignore_errors=True)
    partial = path / f".partial.{os.getpid()}"
    make_folder(path)
    partial.mkdir()
    try:
        yield partial
        _move_in(partial, path, command, before)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        with contextlib.suppress(OSError):
            for folder in made:  # in vain; one that holds something stays
                folder.rmdir()


def _move_in(partial: Path, path: Path, command: str, before: set[str]) -> None:
    after = set(_names_below(partial))
    record_output(path, command, before | after)
    for name in sorted(after):
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (partial / name).replace(path / name)
    for name in before - after:
        (path / name).unlink(missing_ok=True)
    for folder in sorted({(path / name).parent for name in before - after} - {path}, reverse=True):
        with contextlib.suppress(OSError):  # not empty, or gone
            folder.rmdir()
    record_output(path, command, after)
    sync_folder(path)


def record_output(path: Path, command: str, names: Iterable[str]) -> None:
    """Note in the folder `path` that `command` writes the files `names`, so that it may replace them later."""
    write_json(path / WRITTEN, {"written by": command, "files": sorted(names)}, indent=1)


def check_output(
    path: Path, command: str, inputs: Iterable[str | Path] = (), only: Sequence[str] | None = None
) -> set[str]:
    """The files below the folder `path` that `command` wrote before; none if it is new or empty.

    Hidden files in it do not matter; with `only`, no other files than these. Writes nothing.

    Raises:
        UserError: `path` holds one of `inputs` or any file that `command` did not write, or it cannot be a folder.
    """
    _check_place(path)
    if path.exists() and not path.is_dir():
        raise UserError(f"{path}: a file; name a folder as output")
    real = os.path.realpath(path)
    for file in map(Path, inputs):
        places = os.path.realpath(file.parent), os.path.realpath(file)
        if any(os.path.commonpath([real, place]) == real for place in places):
            raise UserError(f"{path}: holds {file}, which is read; choose another output")
    writer, known = _written(path)
    for name in _names_below(path) if only is None else (name for name in only if os.path.lexists(path / name)):
        if name not in known:
            raise UserError(f"{path}: holds something else ({name}); choose another output")
        if writer != command:
            raise UserError(f"{path}: holds what `{writer}` wrote; choose another output")
    return known if writer == command else set()


def _check_place(path: Path) -> None:
    """Raises `UserError` if nothing can be written at `path`, whatever it is."""
    if path.is_symlink() and not path.exists():
        raise UserError(f"{path}: a link that leads nowhere; choose another output")
    nearest = next(place for place in (path.absolute(), *path.absolute().parents) if os.path.lexists(place))
    if nearest != path.absolute() and not nearest.is_dir():
        raise UserError(f"{path}: {nearest} is not a folder; choose another output")
    if not os.access(nearest, os.W_OK):
        raise UserError(f"{path}: {nearest} cannot be written; allow it, or choose another output")


def make_folder(path: Path) -> None:
    """Make the folder `path` unless it is there. Raises `UserError` where none can be, as in /proc."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except FileNotFoundError as error:
        raise UserError(f"{path}: no folder can be made here ({error.strerror}); choose another output") from error


def _names_below(folder: Path) -> Iterator[str]:
    """Every file below `folder`, relative to it, but hidden ones."""
    for place, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if not name.startswith("."):
                yield os.path.relpath(os.path.join(place, name), folder)


def _written(path: Path) -> tuple[str, set[str]]:
    """What the list in `path` says: who wrote, and which files. Nothing where there is no list, or not one of ours."""
    try:
        document = json.loads((path / WRITTEN).read_bytes())
        names = {str(name) for name in document["files"]}
        writer = str(document["written by"])
    except (OSError, ValueError, LookupError, TypeError):
        return "", set()
    outside = any(os.path.isabs(name) or os.pardir in Path(name).parts for name in names)
    return ("", set()) if outside else (writer, names)


def check_file(path: Path, suffix: str, overwrite: bool) -> None:
    """Raises `UserError` if the file `path` cannot be written: another suffix, or there is one and no `overwrite`."""
    _check_place(path)
    if path.suffix.lower() != suffix or path.is_dir():
        raise UserError(f"{path}: not the name of a {suffix} file; name one as output")
    if path.exists() and not overwrite:
        raise UserError(f"{path}: exists already; choose another output, or add --overwrite")


def refuse_existing(path: Path) -> None:
    """Raises `UserError` if there is anything at `path`, or nothing can be written there."""
    if path.exists() or path.is_symlink():
        raise UserError(f"{path}: exists already; choose another output")
    _check_place(path)


def write_folder(path: Path, files: Iterable[tuple[str, str]]) -> None:
    """The folder `path` with `files`, (name below it, text) each; it appears when all are written.

    Raises:
        UserError: `path` exists.
    """
    refuse_existing(path)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    make_folder(partial)
    try:
        for name, text in files:
            write_text(partial / name, text)
        partial.rename(path)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
