"""Progress bars: on a terminal only, so that logs hold none, and of nothing that is done within seconds."""

from collections.abc import Iterable
from typing import Any

from tqdm import tqdm

DELAY = 3  # seconds before a bar appears


def progress_bar(items: Iterable[Any] | None = None, *, desc: str, unit: str, total: int | None = None) -> "tqdm[Any]":
    """`items` with a bar that says `desc`, how many of `total` are done, and how long the others take."""
    return tqdm(items, desc=desc, unit=unit, total=total, delay=DELAY, disable=None)
