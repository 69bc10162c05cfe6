"""Colors, sizes, panels and axes for all plots."""

import io
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from cervical_d2.draw import COLORS

RGB: tuple[tuple[float, float, float], ...] = tuple((red / 255, green / 255, blue / 255) for red, green, blue in COLORS)
GRAY = "0.45"
DPI = 100
MATPLOTLIBS_OWN = r"\mathdefault"  # in the formulas that matplotlib writes on ticks
WIDTHS = (6.5, 10.0, 12.5)  # inches, for one, two and three panels
ROUND = ((1, 1.5, 2, 3, 4, 5, 7), (1, 2, 3, 5), (1, 2, 5), (1, 3), (1,))  # leading digits of ticks, finest first


def panels(count: int, height: float) -> tuple[Figure, list[Axes]]:
    """A figure with `count` axes, up to three per row, each `height` inches high."""
    columns = min(count, len(WIDTHS))
    rows = -(-count // columns)
    figure = Figure((WIDTHS[columns - 1], height * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel().tolist()
    for ax in axes[count:]:
        ax.remove()
    return figure, axes[:count]


def png(figure: Figure) -> bytes:
    """The figure as the bytes of a PNG file."""
    return rendered(figure, format="png", dpi=DPI)


def rendered(figure: Figure, **options: Any) -> bytes:
    """The figure as a file; `options` are those of `savefig`. A $ in a name is drawn as it is, not as a formula."""
    for axis in (axis for ax in figure.axes for axis in (ax.xaxis, ax.yaxis)):
        axis.get_ticklabels()  # gives the ticks their texts
    for text in figure.findobj(Text):
        if isinstance(text, Text) and "$" in text.get_text() and MATPLOTLIBS_OWN not in text.get_text():
            text.set_parse_math(False)
    buffer = io.BytesIO()
    figure.savefig(buffer, **options)
    return buffer.getvalue()


def in_legend(name: str) -> str:
    """`name` as the label of a line; Matplotlib leaves those that begin with _ out of legends."""
    return f" {name}" if name.startswith("_") else name


def log_axis(ax: Axes, axis: str, low: float, high: float, most: int = 6) -> None:
    """Make `axis` ("x" or "y") logarithmic, with ticks at up to `most` round numbers from `low` to `high`."""
    getattr(ax, f"set_{axis}scale")("log")
    line = getattr(ax, f"{axis}axis")
    decades = 10.0 ** np.arange(np.floor(np.log10(low)), np.ceil(np.log10(high)) + 1)
    for leads in ROUND:
        ticks = np.outer(decades, leads).ravel()
        ticks = ticks[(ticks >= low) & (ticks <= high)]
        if len(ticks) <= most:
            break
    line.set_major_locator(FixedLocator(ticks.tolist()))
    line.set_minor_locator(NullLocator())
    line.set_major_formatter(FuncFormatter(short))


def short(value: float, _: int) -> str:
    """1500000 as 1.5M, 20000 as 20k, 0.5 as 0.5."""
    for size, letter in ((1_000_000, "M"), (1000, "k")):
        if value >= size:
            return f"{value / size:g}{letter}"
    return f"{value:g}"
