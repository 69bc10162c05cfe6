"""Differences between runs (settings, code, data, machine), and their curves in one plot."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure
from tabulate import tabulate

from cervical_d2.config import differences
from cervical_d2.engine.run_folder import RunFolder
from cervical_d2.errors import UserError
from cervical_d2.evaluation.table import aligned
from cervical_d2.report.axes import RGB, in_legend, panels

CURVES = ("total_loss", "validation/total_loss", "bbox/AP50", "bbox/AP", "classification/accuracy", "lr", "time")
FIGURES = ("bbox/AP", "bbox/AP50", "bbox/mAP", "bbox/AR", "validation/total_loss", "total_loss")
NAMES = {"lr": "learning rate", "time": "seconds per iteration"}
OF_EVERY_START = ("time", "command", "directory", "resumes")  # always different, and shown separately
WIDEST = 60  # characters of a value in a table
FEW = 30  # curves with fewer points get markers
STYLES = ("-", "--", ":", "-.")


def comparison(runs: Sequence[RunFolder]) -> str:
    """Text: how each run was started, what differs, and the last figures."""
    begun = [(run.name, begin["time"], begin["command"]) for run in runs for begin in run.starts]
    parts = [_titled("starts", tabulate(begun, ("run", "time", "command")))] if begun else []
    rows = list(_different(runs))
    head = ("what", *(run.name for run in runs))
    parts.append(_titled("what differs", tabulate(rows, head) if rows else "nothing that was recorded"))
    figures = [(run.name, *_progress(run)) for run in runs]
    parts.append(_titled("last figures", aligned(("run", "iterations", *FIGURES), figures)))
    return "\n\n".join(parts)


def _titled(title: str, text: str) -> str:
    return f"{title}:\n{text}"


def _different(runs: Sequence[RunFolder]) -> Iterator[tuple[str, ...]]:
    """(name, value in each run ...) for each setting and each fact of the last start that differs between the runs."""
    keys = dict.fromkeys(name for run in runs[1:] for name, *_ in differences(runs[0].cfg, run.cfg))
    facts = [dict(_flat(run.starts[-1] if run.starts else {})) for run in runs]
    names = dict.fromkeys(name for fact in facts for name in fact if name not in OF_EVERY_START)
    for key in keys:
        yield (key, *(_short(_value(run.cfg, key)) for run in runs))
    for name in names:
        values = [fact.get(name) for fact in facts]
        if any(value != values[0] for value in values):
            yield (name, *map(_short, values))


def _value(cfg: Any, name: str) -> Any:
    for part in name.split("."):
        cfg = cfg.get(part) if isinstance(cfg, Mapping) else None
    return cfg


def _flat(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, part in value.items():
        if isinstance(part, Mapping):
            yield from _flat(part, f"{prefix}{name}: ")
        else:
            yield f"{prefix}{name}", part


def _short(value: Any) -> str:
    text = "-" if value is None else ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
    return text if len(text) <= WIDEST else f"{text[: WIDEST - 3]}..."


def _progress(run: RunFolder) -> list[float | int]:
    """Iterations done, and the last value of each of `FIGURES`, or NaN."""
    last = {name: value for line in run.metrics for name, value in line.items()}
    return [last.get("iteration", -1) + 1, *(float(last.get(name, float("nan"))) for name in FIGURES)]


def _shown(runs: Sequence[RunFolder]) -> list[str]:
    return [name for name in CURVES if any(name in line for run in runs for line in run.metrics)]


def has_curves(runs: Sequence[RunFolder]) -> bool:
    """Whether any run has values for `curves`."""
    return bool(_shown(runs))


def curves(runs: Sequence[RunFolder]) -> Figure:
    """A panel for each of `CURVES` with values, over iterations, with a line for each run.

    Raises:
        UserError: no run has values.
    """
    shown = _shown(runs)
    if not shown:
        raise UserError(f"{', '.join(run.name for run in runs)}: metrics.json has no values to plot yet")
    figure, axes = panels(len(shown), 2.8)
    for ax, name in zip(axes, shown, strict=True):
        for number, run in enumerate(runs):
            points = [(line["iteration"] + 1, line[name]) for line in run.metrics if name in line]
            (line,) = ax.plot(*zip(*points, strict=True)) if points else ax.plot([], [])
            line.set(color=RGB[number % len(RGB)], linestyle=STYLES[number % len(STYLES)], label=in_legend(run.name))
            line.set_marker("." if len(points) < FEW else "")
        ax.set_title(NAMES.get(name, name))
        ax.set_xlabel("iterations")
        ax.grid(alpha=0.3)
    axes[0].legend(fontsize=8)
    return figure
