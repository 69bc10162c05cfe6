"""The metrics of one evaluation as text for people."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from tabulate import tabulate


def metrics_text(title: str, overall: Mapping[str, float], columns: Mapping[str, Sequence[Any]]) -> str:
    """`title`, the `overall` numbers, and `columns` of one row per class; "-" stands for NaN."""
    rows = list(zip(*columns.values(), strict=True))
    return "\n\n".join([title, aligned(list(overall), [list(overall.values())]), aligned(list(columns), rows)])


def aligned(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """`rows` (at least one) below `header`, words to the left and numbers to the right; "-" stands for NaN."""
    align = ["left" if isinstance(cell, str) else "right" for cell in rows[0]]
    # Numbers are spelled here: one "-" in a column, and tabulate would take the others for text.
    return tabulate([[cell_text(cell) for cell in row] for row in rows], header, disable_numparse=True, colalign=align)


def cell_text(value: str | int | float) -> str:
    """A cell as people read it: floats with two decimals, NaN as "-"."""
    if isinstance(value, float):
        return "-" if math.isnan(value) else f"{value:.2f}"
    return str(value)
