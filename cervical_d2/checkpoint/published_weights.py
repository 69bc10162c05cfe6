"""Published weights that configs start from: whose they are, and how to get the file that a config names."""

import functools
from pathlib import Path
from typing import NamedTuple

import yaml

TABLE = Path(__file__).with_name("weights.yaml")


class Weights(NamedTuple):
    """The `file` that configs name, whose it is, and the command that makes it of the published file."""

    file: str
    source: str
    command: str


@functools.cache
def read_weights() -> dict[str, Weights]:
    """By name."""
    spec = yaml.safe_load(TABLE.read_text(encoding="utf-8"))
    return {
        name: Weights(entry["file"], entry["source"], entry.get("command") or _conversion(entry))
        for name, entry in spec.items()
    }


def _conversion(entry: dict[str, str]) -> str:
    options = entry.get("options", "").split()
    return " ".join(["cervical-d2 convert-weights DOWNLOADED", entry["file"], *options])


def how_to_get(file: str) -> str:
    """Whose the weights in `file` are and how to make it, empty for a file that no config of ours names."""
    published = next((weights for weights in read_weights().values() if weights.file == file), None)
    return f"it is {published.source}: {published.command}" if published else ""
