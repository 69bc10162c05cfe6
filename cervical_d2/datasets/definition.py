"""What a data set's YAML file says, checked. `docs/data.md` explains the keys to users."""

import difflib
import re
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from cervical_d2.datasets.classes import ClassTable
from cervical_d2.datasets.formats import FORMATS
from cervical_d2.errors import UserError

REQUIRED = ("name", "format", "classes", "splits")
OPTIONAL = ("root", "ignore", "drop", "centers", "micrometers_per_pixel", "groups")
SPLIT_KEYS = ("images", "annotations", "subset")
LABEL_MAPS = Path(__file__).parent / "label_maps"


class Centers(NamedTuple):
    """Labels that are centers of cells, in pixels: the side of the `box` to train with, the `radius` to match by."""

    box: float | None
    radius: float | None


class Groups(NamedTuple):
    """Where an image's slide or patient is known from: a `pattern` on the file's name, or a CSV `file`, or None."""

    pattern: re.Pattern[str] | None
    file: str | None


class Definition(NamedTuple):
    """One split of a data set. `splits` are the places of all its splits, `place` that of this one."""

    name: str
    format: str
    root: str
    path: Path
    place: dict[str, str]
    splits: dict[str, dict[str, str]]
    classes: ClassTable
    centers: Centers | None
    groups: Groups | None


def read_definitions(path: Path) -> dict[str, Definition]:
    """The splits that the YAML file describes, by their registered names.

    Raises:
        UserError: for a file that cannot be read, and for any key or value that cannot be used.
    """
    spec = load_yaml(path, "a data set", REQUIRED, OPTIONAL)
    if spec["format"] not in FORMATS:
        raise UserError(f"{path}: format {spec['format']!r}; there are {', '.join(FORMATS)}")
    if not isinstance(spec["splits"], dict):
        raise UserError(f"{path}: 'splits' is not a table of splits; write train: {{images: ..., annotations: ...}}")
    for split, place in spec["splits"].items():
        if not isinstance(place, dict) or not {"annotations"} <= place.keys() <= set(SPLIT_KEYS):
            raise UserError(f"{path}: split {split!r} needs annotations, may have images and subset, and no more")
    classes = ClassTable(spec["classes"] or (), str(path), spec.get("ignore") or (), spec.get("drop") or ())
    centers, groups = _centers(spec, path), _groups(spec, path)
    root, places = str(spec.get("root", ".")), spec["splits"]
    return {
        f"{spec['name']}_{split}": Definition(
            f"{spec['name']}_{split}", spec["format"], root, path, place, places, classes, centers, groups
        )
        for split, place in places.items()
    }


def read_label_map(name: str) -> ClassTable:
    """The label map `name`: one of ours, or a path to a YAML file with classes, and ignore and drop where wanted."""
    own = LABEL_MAPS / f"{name}.yaml"
    path = own if own.is_file() else Path(name)
    if path is not own and path.suffix not in (".yaml", ".yml"):
        ours = [found.stem for found in sorted(LABEL_MAPS.glob("*.yaml"))]
        near = difflib.get_close_matches(name, ours, n=1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(ours)}"
        raise UserError(f"no label map is called {name!r}; {hint} Your own: a path to a YAML file")
    spec = load_yaml(path, "a label map", ("classes",), ("ignore", "drop"))
    return ClassTable(spec["classes"] or (), str(path), spec.get("ignore") or (), spec.get("drop") or ())


def load_yaml(path: Path, what: str, required: tuple[str, ...], optional: tuple[str, ...]) -> dict[str, Any]:
    """The table in `path` with all of the keys `required` and none beside `optional`; `UserError` otherwise."""
    try:
        spec = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); {what} is a YAML file") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not valid YAML ({error})") from error
    if not isinstance(spec, dict) or set(required) - spec.keys():
        raise UserError(f"{path}: {what} needs {', '.join(required)}")
    if unknown := sorted(spec.keys() - {*required, *optional}, key=str):
        raise UserError(f"{path}: unknown key {unknown[0]!r}; allowed: {', '.join((*required, *optional))}")
    return spec


def _centers(spec: dict[str, Any], path: Path) -> Centers | None:
    given = spec.get("centers")
    if given is None:
        return None
    if not isinstance(given, dict) or not given or set(given) - {"box", "radius"}:
        raise UserError(f"{path}: centers: {given!r}; write box and radius, for example {{box: 90 px, radius: 45 px}}")
    scale = spec.get("micrometers_per_pixel")
    return Centers(*(_pixels(given[key], scale, path, key) if key in given else None for key in ("box", "radius")))


def _pixels(length: object, micrometers_per_pixel: object, path: Path, key: str) -> float:
    """`length` as "90 px", "22.5 um" or a number of pixels."""
    parts = re.fullmatch(r"(\d+(?:\.\d+)?) ?(px|um|µm|)", str(length))
    pixels = float(parts[1]) if parts else 0.0
    if parts and parts[2] in ("um", "µm"):
        if not (isinstance(micrometers_per_pixel, int | float) and micrometers_per_pixel > 0):
            raise UserError(f"{path}: centers.{key} is {length!r}; state micrometers_per_pixel beside it")
        pixels /= micrometers_per_pixel
    if pixels <= 0:
        raise UserError(f"{path}: centers.{key} is {length!r}; write a positive length such as 90 px or 22.5 um")
    return pixels


def _groups(spec: dict[str, Any], path: Path) -> Groups | None:
    given = spec.get("groups")
    if given is None:
        return None
    if not isinstance(given, dict) or len(given) != 1 or not set(given) <= {"pattern", "file"}:
        raise UserError(f"{path}: groups: {given!r}; write either pattern: REGEX or file: CSV")
    if "file" in given:
        return Groups(None, str(given["file"]))
    try:
        pattern = re.compile(str(given["pattern"]))
    except re.error as error:
        raise UserError(f"{path}: groups.pattern {given['pattern']!r} is no regular expression ({error})") from error
    if pattern.groups != 1:
        raise UserError(f"{path}: groups.pattern {given['pattern']!r} needs one pair of parentheses around the group")
    return Groups(pattern, None)
