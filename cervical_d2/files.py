"""Writing files that are whole or not there."""

import json
import os
from pathlib import Path
from typing import Any


def write_bytes(path: Path, content: bytes) -> None:
    """Write under a temporary name beside `path`, then rename: a reader never meets half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        partial.write_bytes(content)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """`text` in UTF-8, as by `write_bytes`."""
    write_bytes(path, text.encode())


def write_json(path: Path, data: Any, indent: int | None = None) -> None:
    """`data` as strict JSON; NaN, which JSON has not, must have been replaced by the caller."""
    write_text(path, json.dumps(data, allow_nan=False, indent=indent) + "\n")
