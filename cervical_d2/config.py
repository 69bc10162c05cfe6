"""Reading config files.

Detectron2's keys keep their meaning (`detectron2.config.defaults`); ours (`config_keys`) are added to their sections.
"""

import difflib
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode, get_cfg

from cervical_d2.config_keys import DEFAULTS, KEYS
from cervical_d2.errors import UserError
from cervical_d2.yaml_text import parse_yaml

MOST_BASES = 50  # files that one config may be made of
CONFIG_ROOTS = (Path(__file__).parent / "configs", Path(__file__).parents[1] / "configs")


def add_cervical_config(cfg: CfgNode) -> None:
    """Add our keys to a Detectron2 `cfg`, in place."""
    for key in KEYS:
        *sections, leaf = key.name.split(".")
        section = cfg
        for name in sections:
            section = section.setdefault(name, CfgNode())
        section[leaf] = key.default
    for name, value in DEFAULTS.items():
        section, leaf = _section(cfg, name)
        section[leaf] = value


def config_path(name: str) -> Path:
    """The path of a config file. `name` is a path, or relative to the package's configs (`quick/demo.yaml`).

    Raises:
        UserError: there is no such file.
    """
    for path in (Path(name), *(root / name for root in CONFIG_ROOTS)):
        if path.is_file():
            return path
    own = packaged_configs()
    wanted = Path(name).name if Path(name).is_absolute() else name.removeprefix("configs/")
    meant = difflib.get_close_matches(wanted, own, n=3) or ["quick/demo.yaml"]
    places = " and ".join(str(root) for root in CONFIG_ROOTS if root.is_dir())
    raise UserError(f"{name}: no such config file; of the {len(own)} in {places}, the nearest: {', '.join(meant)}")


def packaged_configs() -> list[str]:
    """Names of the configs that come with the package, without the `Base-` files."""
    names = {
        str(path.relative_to(root)): None
        for root in CONFIG_ROOTS
        for path in sorted(root.rglob("*.yaml"))
        if not path.name.startswith("Base-")
    }
    return list(names)


def load_config(config_file: str = "", options: Sequence[str] = ()) -> CfgNode:
    """Defaults, then `config_file`, then `options` (KEY VALUE ...). Raises `UserError` for anything unknown."""
    cfg = get_cfg()
    add_cervical_config(cfg)
    if config_file:
        _merge_file(cfg, config_path(config_file), set(_flatten(cfg)))
    merge_options(cfg, options)
    return cfg


def load_dumped_config(text: str, where: str) -> CfgNode:
    """The config stored in a checkpoint or a run folder: a complete dump with all keys of its Detectron2 version.

    Keys unknown to the installed version are dropped with a warning.

    Raises:
        UserError: `text` is not such a dump. The message begins with `where`.
    """
    cfg = get_cfg()
    add_cervical_config(cfg)
    known, dumped = set(_flatten(cfg)), _parsed_dump(text, where)
    if foreign := [name for name in _flatten(dumped) if name not in known]:
        logging.getLogger("detectron2.cervical_d2").warning(
            "%s: written by another Detectron2 version; ignored %s, unknown here", where, ", ".join(foreign)
        )
    try:
        for name in foreign:
            section, leaf = _section(dumped, name)
            del section[leaf]
        cfg.merge_from_other_cfg(dumped)
    except (KeyError, ValueError, AssertionError) as error:
        raise UserError(f"{where}: {_first_line(error)}") from error
    return cfg


def _parsed_dump(text: str, where: str) -> CfgNode:
    try:
        if dumped := parse_yaml(text):
            return CfgNode(dumped)
        reason = "it is empty"
    except (ValueError, AttributeError, TypeError, AssertionError, RecursionError) as error:
        reason = _first_line(error)
    raise UserError(f"{where}: not a config in YAML ({reason}); restore it, or take another run")


def _merge_file(cfg: CfgNode, path: Path, known: set[str]) -> None:
    try:
        _check_bases(path, (), [])
        loaded = CfgNode(CfgNode.load_yaml_with_base(str(path)))
    except (ValueError, OSError, AttributeError, TypeError, AssertionError, RecursionError) as error:
        raise UserError(f"{path}: not a readable YAML config ({_first_line(error)})") from error
    _refuse_unknown(loaded, known, str(path))
    try:
        cfg.merge_from_other_cfg(_with_floats(loaded, cfg))
    except (KeyError, ValueError, AssertionError) as error:
        raise UserError(f"{path}: {_first_line(error)}") from error


def _check_bases(path: Path, above: tuple[Path, ...], read: list[Path]) -> None:
    """Parse `path` and the local files below its `_BASE_`, so that Detectron2, which just follows it, ends.

    `above`: the files that led here; `read`: all that were read. Raises `ValueError` for a circle and for too many.
    """
    path = path.resolve()
    read.append(path)
    if path in above:
        raise ValueError("_BASE_ goes in a circle: " + " -> ".join(file.name for file in (*above, path)))
    if len(read) > MOST_BASES:
        raise ValueError(f"its _BASE_ lead to more than {MOST_BASES} files")
    spec = parse_yaml(path.read_text(encoding="utf-8"))
    if not isinstance(spec, dict):
        raise ValueError(f"{path.name} is no table of settings, such as SEED: 1")
    bases = spec.get("_BASE_", [])
    for base in bases if isinstance(bases, list) else [bases]:
        if not isinstance(base, str):
            raise ValueError(f"_BASE_ is {base!r:.60}, not the name of a file")
        if "://" not in base:
            _check_bases(path.parent / Path(base).expanduser(), (*above, path), read)


def _with_floats(loaded: CfgNode, cfg: CfgNode) -> CfgNode:
    """`loaded` with integers converted to floats where the default is a float: yacs refuses 12 for 12.0."""
    for name, value in loaded.items():
        default = cfg.get(name)
        if isinstance(value, CfgNode) and isinstance(default, CfgNode):
            _with_floats(value, default)
        elif isinstance(default, float) and type(value) is int:
            loaded[name] = float(value)
    return loaded


def merge_options(cfg: CfgNode, options: Sequence[str]) -> None:
    """Set KEY VALUE ... in `cfg`, in place. Raises `UserError` for an unknown key and a value that is not allowed."""
    known = set(_flatten(cfg))
    if len(options) % 2:
        raise UserError(f"command line: options come as KEY VALUE pairs; {options[-1]!r} has no value")
    for name, value in zip(options[::2], options[1::2], strict=True):
        if name not in known:
            raise UserError(f"command line: {_unknown_key(name, known)}")
        section, leaf = _section(cfg, name)
        if isinstance(section[leaf], float) and value.lstrip("+-").isdigit():
            value = f"{value}.0"
        try:
            cfg.merge_from_list([name, value])
        except (KeyError, ValueError, AssertionError, SyntaxError) as error:
            raise UserError(f"command line: {name} {value}: {_first_line(error)}") from error
    _check_choices(cfg)


def _refuse_unknown(loaded: CfgNode, known: set[str], where: str) -> None:
    for name in _flatten(loaded):
        if name not in known and not any(name.startswith(f"{key}.") for key in known):
            raise UserError(f"{where}: {_unknown_key(name, known)}")


def _unknown_key(name: str, known: set[str]) -> str:
    sections = {key.rsplit(".", depth)[0] for key in known for depth in range(key.count(".") + 1)}
    if name in sections:
        return f"{name} is a section; write its keys below it"
    near = difflib.get_close_matches(name, sorted(known | sections), n=1, cutoff=0.5)
    return f"unknown key {name}" + (f"; did you mean {near[0]}?" if near else "")


def _check_choices(cfg: CfgNode) -> None:
    for key in KEYS:
        section, leaf = _section(cfg, key.name)
        if key.choices and section[leaf] not in key.choices:
            raise UserError(f"{key.name} is {section[leaf]!r}; allowed: {', '.join(map(repr, key.choices))}")


def set_num_classes(cfg: CfgNode, count: int) -> None:
    """Set the number of classes of every head. Detectron2's default is 80, and RetinaNet has a key of its own."""
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = cfg.MODEL.RETINANET.NUM_CLASSES = cfg.MODEL.CLASSIFIER.NUM_CLASSES = count


def differences(one: CfgNode, other: CfgNode) -> list[tuple[str, Any, Any]]:
    """(key, value in `one`, value in `other`) for all keys whose values differ; None if a key is missing."""
    names = dict.fromkeys([*_flatten(one), *_flatten(other)])
    pairs = [(name, _value_or_none(one, name), _value_or_none(other, name)) for name in names]
    return [(name, ours, theirs) for name, ours, theirs in pairs if _as_tuples(ours) != _as_tuples(theirs)]


def _as_tuples(value: Any) -> Any:
    """Convert lists to tuples: YAML has no tuples, so a config read from a file has lists instead."""
    return tuple(map(_as_tuples, value)) if isinstance(value, list | tuple) else value


def _value_or_none(cfg: CfgNode, name: str) -> Any:
    try:
        return config_value(cfg, name)
    except KeyError:
        return None


def config_value(cfg: CfgNode, name: str) -> Any:
    """The value of a dotted key."""
    section, leaf = _section(cfg, name)
    return section[leaf]


def _section(cfg: CfgNode, name: str) -> tuple[CfgNode, str]:
    *sections, leaf = name.split(".")
    for section in sections:
        cfg = cfg[section]
    return cfg, leaf


def _flatten(cfg: CfgNode, prefix: str = "") -> Iterator[str]:
    for name, value in cfg.items():
        if isinstance(value, CfgNode):
            yield from _flatten(value, f"{prefix}{name}.")
        elif f"{prefix}{name}" != "_BASE_":
            yield f"{prefix}{name}"


def _first_line(error: BaseException) -> str:
    # str() of a KeyError adds quotes.
    text = str(error.args[0] if isinstance(error, KeyError) and error.args else error).strip()
    return text.splitlines()[0] if text else type(error).__name__
