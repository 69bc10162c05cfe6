"""Datasets by name. One YAML file describes a dataset: ours are in `catalog/`, a user's can be anywhere.

The split `train` of `bccd` is `bccd_train`; `bccd_train@MAP` is the same images under a label map; `FILE.yaml:SPLIT`
is a user's own.
"""

import difflib
from collections.abc import Iterable, Mapping
from pathlib import Path

from detectron2.data import DatasetCatalog, MetadataCatalog

from cervical_d2.datasets.definition import Definition, read_definitions, read_label_map
from cervical_d2.datasets.formats import Document, Record
from cervical_d2.datasets.reading import CATALOG, read_split
from cervical_d2.errors import UserError

YAML = (".yaml", ".yml")
_DEFINITIONS: dict[str, Definition] = {}


def register_all() -> None:
    """Register every dataset of the catalog. Reads no data; safe to call again."""
    for path in sorted(CATALOG.glob("*.yaml")):
        register_file(path)


def register_file(path: Path) -> list[str]:
    """Register the splits that a YAML file describes, and return their names. Safe to call again."""
    return _register_each(read_definitions(path))


def resolve(name: str) -> str:
    """The registered name for `name`, which may also be `FILE.yaml:SPLIT`, or `FILE.yaml` alone if it has one split.

    Each `@MAP` after it is a label map.

    Raises:
        UserError: there is no such split; the message suggests a similar name.
    """
    plain, *maps = name_and_maps(name)
    if plain.endswith(YAML):
        each = _each_split(plain)
        if len(each) > 1:
            raise UserError(f"{plain}: has {len(each)} splits; name one: {' or '.join(each)}")
        plain = each[0]
    path, _, split = plain.rpartition(":")
    if path.endswith(YAML):
        definitions = read_definitions(Path(path))
        plain = next((known for known, one in definitions.items() if one.place is one.splits.get(split)), "")
        if not plain:
            splits = next(iter(definitions.values())).splits
            raise UserError(
                f"{path}: no split {split!r}; it has {', '.join(splits)}: write {path}:{next(iter(splits))}"
            )
        _register_each(definitions)
    if plain not in DatasetCatalog.list():
        near = difflib.get_close_matches(plain, DatasetCatalog.list(), n=1)
        hint = f"did you mean {near[0]}?" if near else "see cervical_d2/datasets/catalog."
        raise UserError(f"no dataset is called {plain!r}; {hint} Your own: FILE.yaml:SPLIT")
    for label_map in maps:
        definition = definition_of(plain)
        table = definition.classes.then(read_label_map(label_map))
        plain = f"{plain}@{label_map}"
        _register(definition._replace(name=plain, classes=table))
    return plain


def each_split(names: Iterable[str]) -> list[str]:
    """`names`, with `FILE.yaml:SPLIT` for each split of a `FILE.yaml` among them. Raises `UserError` as `resolve`."""
    return [each for name in names for each in _each_split(name)]


def _each_split(name: str) -> list[str]:
    plain, *maps = name_and_maps(name)
    if not plain.endswith(YAML):
        return [name]
    splits = next(iter(read_definitions(Path(plain)).values())).splits
    return ["@".join([f"{plain}:{split}", *maps]) for split in splits]


def name_and_maps(name: str) -> list[str]:
    """The parts of `NAME@MAP@...`. An @ inside a path does not split it: the part before it is not a file."""
    parts: list[str] = []
    for part in name.split("@"):
        before = parts[-1] if parts else ""
        if "/" in before and not Path(before.rpartition(":")[0] or before).is_file():
            parts[-1] += f"@{part}"
        else:
            parts.append(part)
    return parts


def resolve_all(names: Iterable[str]) -> list[str]:
    """The registered names for `names`, which are used together: see `resolve`.

    Raises:
        UserError: as `resolve`; or two files give their datasets the same name.
    """
    return _one_file_each((registered, _file(registered)) for registered in map(resolve, names))


def splits_of(names: Iterable[str]) -> list[str]:
    """The registered names of all splits of the datasets `names` (`bccd`, `FILE.yaml`), or of the splits themselves.

    Each `@MAP` after one is a label map. Raises `UserError` like `resolve_all`.
    """
    return _one_file_each((split, _file(split)) for name in names for split in _splits_of(name))


def _splits_of(name: str) -> list[str]:
    plain, *maps = name_and_maps(name)
    if plain.endswith(YAML):
        splits = register_file(Path(plain))
    else:
        splits = [split for split, known in _DEFINITIONS.items() if split in {f"{plain}_{key}" for key in known.splits}]
    return [resolve("@".join([split, *maps])) for split in splits or [plain]]


def _one_file_each(registered: Iterable[tuple[str, Path | None]]) -> list[str]:
    """The names of `registered` (name, file); `UserError` if a later registration has replaced one."""
    pairs = list(registered)
    for name, path in pairs:
        if (other := _file(name)) != path:
            raise UserError(f"{path} and {other} both describe {name}; give one of the datasets another 'name:'")
    return [name for name, _ in pairs]


def _file(name: str) -> Path | None:
    """The YAML file that describes the registered split `name`; None if there is none."""
    return _DEFINITIONS[name].path.resolve() if name in _DEFINITIONS else None


def definition_of(name: str) -> Definition:
    """The definition of the registered split `name`.

    Raises:
        UserError: it was not registered from a YAML file.
    """
    if name not in _DEFINITIONS:
        raise UserError(f"{name}: not described by a YAML file, so its files are not known")
    return _DEFINITIONS[name]


def has_images(name: str) -> bool:
    """Whether the registered split `name` has images, not only boxes."""
    return name not in _DEFINITIONS or "images" in _DEFINITIONS[name].place


def class_names(names: list[str]) -> list[str]:
    """The classes of all registered splits `names`, in order; `UserError` if two differ."""
    first = MetadataCatalog.get(names[0]).get("thing_classes")
    for name in names[1:]:
        other = MetadataCatalog.get(name).get("thing_classes")
        if other != first:
            raise UserError(
                f"{name} has the classes {other}, but {names[0]} has {first}; use splits of one dataset, or a label "
                "map: NAME@MAP"
            )
    return list(first)


def _register_each(definitions: Mapping[str, Definition]) -> list[str]:
    for definition in definitions.values():
        _register(definition)
    return list(definitions)


def _register(definition: Definition) -> None:
    name = definition.name
    if name in DatasetCatalog.list():
        if _DEFINITIONS.get(name) == definition:
            return
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)
    DatasetCatalog.register(name, SplitReader(definition))
    radius = definition.centers.radius if definition.centers else None
    MetadataCatalog.get(name).set(thing_classes=definition.classes.names, evaluator_type="coco", center_radius=radius)
    _DEFINITIONS[name] = definition


class SplitReader:
    """Reads a split that a YAML file describes. `DatasetCatalog` calls it for the records."""

    def __init__(self, definition: Definition):
        self.definition = definition

    def __call__(self) -> list[Record]:
        """The records, without the keys that only the reading needs. Raises `UserError` like `read_split`."""
        return self.read().records

    def read(self) -> Document:
        """The records, with the other content of the files."""
        split = read_split(self.definition)
        split.problems.settle()
        for record in split.document.records:
            del record["source"], record["name"]
            for annotation in record["annotations"]:
                del annotation["category"], annotation["id"]
        return split.document
