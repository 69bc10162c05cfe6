"""Reads and checks the YAML file of a dataset. `docs/data.md` explains the keys to users."""

import difflib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from cervical_d2.datasets.classes import ClassTable
from cervical_d2.datasets.formats import FORMATS
from cervical_d2.errors import UserError
from cervical_d2.yaml_text import parse_yaml

REQUIRED = ("name", "format", "classes", "splits")
OPTIONAL = ("root", "ignore", "drop", "centers", "micrometers_per_pixel", "groups", "xy")
SPLIT_KEYS = ("images", "annotations", "subset")
XY = ("corner", "center")
"""The meanings of x, y in a CSV with width and height."""
ULTRALYTICS = {"names": "classes", "path": "root"}  # its keys, for users who start from its files
LABEL_MAPS = Path(__file__).parent / "label_maps"


class Centers(NamedTuple):
    """For labels that are cell centers, in pixels: the side of the `box` to train with, the matching `radius`."""

    box: float | None
    radius: float | None


class Groups(NamedTuple):
    """The source of an image's slide or patient: a `pattern` for the file name, or a CSV `file`."""

    pattern: re.Pattern[str] | None
    file: str | None


class Definition(NamedTuple):
    """One split of a dataset. `splits` holds the places of all splits, `place` that of this one.

    `classes`: after label maps; `listed`: as in the YAML file; `xy`: one of `XY`, None if not given.
    """

    name: str
    format: str
    root: str
    path: Path
    place: dict[str, str]
    splits: dict[str, dict[str, str]]
    classes: ClassTable
    centers: Centers | None
    groups: Groups | None
    listed: ClassTable
    xy: str | None


def read_definitions(path: Path) -> dict[str, Definition]:
    """The splits that the YAML file describes, by their registered names.

    Raises:
        UserError: the file cannot be read, or a key or value cannot be used.
    """
    spec = load_yaml(path, "a dataset", REQUIRED, OPTIONAL)
    name, form, root = (_text(spec.get(key, "."), path, f"{key}:") for key in ("name", "format", "root"))
    if form not in FORMATS:
        raise UserError(f"{path}: unknown format {form!r}; choose from {', '.join(FORMATS)}")
    if "@" in name:
        raise UserError(f"{path}: name: {name!r}: an @ introduces a label map; choose a name without it")
    classes = ClassTable(spec["classes"] or (), str(path), spec.get("ignore") or (), spec.get("drop") or ())
    places = _places(spec["splits"], path)
    centers, groups, xy = _centers(spec, path), _groups(spec, path), spec.get("xy")
    if xy is not None and (form != "csv" or xy not in XY):
        raise UserError(f"{path}: xy: {xy!r:.80}; write xy: {' or xy: '.join(XY)}, only with format: csv")
    return {
        f"{name}_{split}": Definition(
            f"{name}_{split}", form, root, path, place, places, classes, centers, groups, classes, xy
        )
        for split, place in places.items()
    }


def _places(splits: Any, path: Path) -> dict[str, dict[str, str]]:
    """The checked table of splits."""
    if not isinstance(splits, dict) or not splits:
        raise UserError(f"{path}: 'splits' is not a table of splits; write train: {{images: ..., annotations: ...}}")
    for split, place in splits.items():
        _text(split, path, "splits:")
        if not isinstance(place, dict) or "annotations" not in place or not place.keys() <= set(SPLIT_KEYS):
            wrong = sorted(place.keys() - set(SPLIT_KEYS), key=str) if isinstance(place, dict) else []
            hint = f"; {_wrong_key(wrong[0], SPLIT_KEYS)}" if wrong else ""
            raise UserError(
                f"{path}: split {split!r} needs annotations, and may have images and subset, nothing else{hint}"
            )
    return {
        str(split): {key: _text(value, path, f"{split}: {key}:") for key, value in place.items()}
        for split, place in splits.items()
    }


def _text(value: Any, path: Path, key: str) -> str:
    """`value` of `key` as text; `UserError` unless it is text or a number."""
    if isinstance(value, bool):
        raise UserError(f"{path}: {key} YAML reads yes, no, on and off as true and false; write the word in quotes")
    if value is None or isinstance(value, list | dict) or not str(value).strip():
        raise UserError(f"{path}: {key} {value!r:.80} is not text; write a name")
    return str(value)


def _wrong_key(key: Any, allowed: Sequence[str]) -> str:
    near = [ULTRALYTICS[key]] if key in ULTRALYTICS else difflib.get_close_matches(str(key), allowed, n=1)
    return f"unknown key {key!r:.80}" + (f", did you mean {near[0]!r}?" if near else "")


def read_label_map(name: str) -> ClassTable:
    """The label map `name`: a packaged one, or a path to a YAML file with classes and optional ignore and drop."""
    own = LABEL_MAPS / f"{name}.yaml"
    path = own if own.is_file() else Path(name)
    if path is not own and path.suffix not in (".yaml", ".yml"):
        ours = [file.stem for file in sorted(LABEL_MAPS.glob("*.yaml"))]
        near = difflib.get_close_matches(name, ours, n=1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(ours)}"
        raise UserError(f"no label map is called {name!r}; {hint} Your own: a path to a YAML file")
    spec = load_yaml(path, "a label map", ("classes",), ("ignore", "drop"))
    return ClassTable(spec["classes"] or (), str(path), spec.get("ignore") or (), spec.get("drop") or ())


def load_yaml(path: Path, what: str, required: tuple[str, ...], optional: tuple[str, ...]) -> dict[str, Any]:
    """The table in `path`; `UserError` unless it has all `required` keys and no others but `optional` ones."""
    try:
        spec = parse_yaml(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); {what} is a YAML file") from error
    except ValueError as error:
        raise UserError(f"{path}: not valid YAML ({error})") from error
    if not isinstance(spec, dict):
        raise UserError(f"{path}: {what} needs {', '.join(required)}")
    allowed = (*required, *optional)
    if unknown := sorted(spec.keys() - set(allowed), key=str):
        raise UserError(f"{path}: {_wrong_key(unknown[0], allowed)}; allowed: {', '.join(allowed)}")
    if missing := [key for key in required if key not in spec]:
        raise UserError(f"{path}: {what} needs {', '.join(required)}; {missing[0]} is missing")
    return spec


def _centers(spec: dict[str, Any], path: Path) -> Centers | None:
    given = spec.get("centers")
    if given is None:
        return None
    if not isinstance(given, dict) or not given or set(given) - {"box", "radius"}:
        raise UserError(
            f"{path}: centers: {given!r:.80}; write box and radius, for example {{box: 90 px, radius: 45 px}}"
        )
    scale = spec.get("micrometers_per_pixel")
    return Centers(*(_pixels(given[key], scale, path, key) if key in given else None for key in ("box", "radius")))


def _pixels(length: object, micrometers_per_pixel: object, path: Path, key: str) -> float:
    """`length` as "90 px", "22.5 um" or a number of pixels."""
    parts = re.fullmatch(r"(\d+(?:\.\d+)?) ?(px|um|µm|)", str(length))
    pixels = float(parts[1]) if parts else 0.0
    if parts and parts[2] in ("um", "µm"):
        if not (isinstance(micrometers_per_pixel, int | float) and micrometers_per_pixel > 0):
            raise UserError(f"{path}: centers.{key} is {length!r}; add micrometers_per_pixel")
        pixels /= micrometers_per_pixel
    if pixels <= 0:
        raise UserError(f"{path}: centers.{key} is {length!r}; write a positive length such as 90 px or 22.5 um")
    return pixels


def _groups(spec: dict[str, Any], path: Path) -> Groups | None:
    given = spec.get("groups")
    if given is None:
        return None
    if not isinstance(given, dict) or len(given) != 1 or not set(given) <= {"pattern", "file"}:
        raise UserError(f"{path}: groups: {given!r:.80}; write either pattern: REGEX or file: CSV")
    if "file" in given:
        return Groups(None, _text(given["file"], path, "groups: file:"))
    try:
        pattern = re.compile(str(given["pattern"]))
    except re.error as error:
        raise UserError(f"{path}: groups.pattern {given['pattern']!r} is not a regular expression ({error})") from error
    if pattern.groups != 1:
        raise UserError(f"{path}: groups.pattern {given['pattern']!r} needs one pair of parentheses around the group")
    return Groups(pattern, None)
