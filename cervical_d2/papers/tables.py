"""Reads the papers' tables from the YAML files in this folder."""

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml

HERE = Path(__file__).parent
DETECTORS, CLASSIFIERS = "detection", "classification"
OF_ROWS = {"label", "config", "printed", "parameters", "not_ours"}


class Row(NamedTuple):
    """An experiment: its printed figures in %, and the config (a name in configs/) that reproduces it.

    `facts`: settings that the config must have. `printed`: only figures that the paper gives. `parameters`: trainable
    parameters in millions, if printed. `not_ours`: the reason why a row has no config.
    """

    table: int
    label: str
    printed: dict[str, float]
    config: str | None = None
    facts: Mapping[str, Any] = {}
    parameters: float | None = None
    not_ours: str = ""


class Paper(NamedTuple):
    """A paper: by table number its `titles`, `rows`, `tasks` (a name in `outcomes.RUNNERS`) and `baselines` (configs).

    `floors`: by task, the least first figure of a baseline: `full` on the paper's own data, else by the name of the
    quick set. `quick`: keys of all quick detectors. `same`: groups of configs that are one experiment and resolve to
    the same values.
    """

    name: str
    title: str
    figures: list[str]
    titles: dict[int, str]
    rows: dict[int, list[Row]]
    tasks: dict[int, str]
    baselines: dict[int, str]
    floors: dict[str, dict[str, float]]
    same: list[list[str]]
    quick: dict[str, Any]


@functools.cache
def read_paper(name: str) -> Paper:
    """The tables of the paper `name`, such as xu2022."""
    spec = yaml.safe_load((HERE / f"{name}.yaml").read_text(encoding="utf-8"))
    rows: dict[int, list[Row]] = {}
    tasks = {number: table.get("task", DETECTORS) for number, table in spec["tables"].items()}
    for number, table in spec["tables"].items():
        common = {**(spec["facts"] if tasks[number] == DETECTORS else {}), **table.get("facts", {})}
        rows[number] = [_row(number, row, common, spec["figures"], name) for row in table["rows"]]
    titles = {number: table["title"] for number, table in spec["tables"].items()}
    same = [[f"{name}/{config}.yaml" for config in group] for group in spec["same"]]
    baselines = {number: f"{name}/{table['baseline']}.yaml" for number, table in spec["tables"].items()}
    floors, quick = spec["floors"], spec["quick"]
    return Paper(name, spec["title"], spec["figures"], titles, rows, tasks, baselines, floors, same, quick)


def _row(number: int, row: dict[str, Any], common: dict[str, Any], figures: list[str], name: str) -> Row:
    facts = {**common, **{key: value for key, value in row.items() if key not in OF_ROWS}}
    printed = dict(zip(figures, row["printed"], strict=True)) if "printed" in row else {}
    config = f"{name}/{row['config']}.yaml" if "config" in row else None
    return Row(number, row["label"], printed, config, facts, row.get("parameters"), row.get("not_ours", ""))
