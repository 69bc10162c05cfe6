"""The reading of configuration files.

The keys of Detectron2 stay what they are (`detectron2.config.defaults`); ours (`config_keys`) stand
beside them in the same sections.
"""

import difflib
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode, get_cfg
from yaml import YAMLError

from cervical_d2.config_keys import DEFAULTS, KEYS
from cervical_d2.errors import UserError

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
    """The file `name`: a path, or one relative to the configs that come with the package (`quick/demo.yaml`)."""
    for path in (Path(name), *(root / name for root in CONFIG_ROOTS)):
        if path.is_file():
            return path
    own = packaged_configs()
    wanted = Path(name).name if Path(name).is_absolute() else name.removeprefix("configs/")  # their folders are no hint
    meant = difflib.get_close_matches(wanted, own, n=3) or ["quick/demo.yaml"]
    places = " and ".join(str(root) for root in CONFIG_ROOTS if root.is_dir())
    raise UserError(f"{name}: no such config file; of the {len(own)} in {places}, the nearest: {', '.join(meant)}")


def packaged_configs() -> list[str]:
    """Names of the leaf configs that come with the package."""
    found = {
        str(path.relative_to(root)): None
        for root in CONFIG_ROOTS
        for path in sorted(root.rglob("*.yaml"))
        if not path.name.startswith("Base-")
    }
    return list(found)


def load_config(config_file: str = "", options: Sequence[str] = ()) -> CfgNode:
    """Defaults, then `config_file`, then `options` (KEY VALUE ...). Raises `UserError` for anything unknown."""
    cfg = get_cfg()
    add_cervical_config(cfg)
    if config_file:
        _merge_file(cfg, config_path(config_file), set(_flatten(cfg)))
    merge_options(cfg, options)
    return cfg


def load_dumped_config(text: str, where: str) -> CfgNode:
    """The config that a checkpoint or a run carries: a complete dump, so it holds the keys of its own Detectron2.

    Those that the installed version does not know are left out, and the log says so.

    Raises:
        UserError: `text` is no such dump; the message begins with `where`.
    """
    cfg = get_cfg()
    add_cervical_config(cfg)
    known, dumped = set(_flatten(cfg)), _parsed_dump(text, where)
    if foreign := [name for name in _flatten(dumped) if name not in known]:
        logging.getLogger("detectron2.cervical_d2").warning(
            "%s: of another Detectron2; left out %s, which this one has not", where, ", ".join(foreign)
        )
    for name in foreign:
        section, leaf = _section(dumped, name)
        del section[leaf]
    try:
        cfg.merge_from_other_cfg(dumped)
    except (KeyError, ValueError, AssertionError) as error:
        raise UserError(f"{where}: {_first_line(error)}") from error
    return cfg


def _parsed_dump(text: str, where: str) -> CfgNode:
    try:
        if dumped := CfgNode.load_cfg(text):
            return dumped
        reason = "it is empty"
    except (YAMLError, AttributeError, TypeError, AssertionError) as error:
        reason = _first_line(error)
    raise UserError(f"{where}: not a config in YAML ({reason}); restore it, or take another run")


def _merge_file(cfg: CfgNode, path: Path, known: set[str]) -> None:
    try:
        loaded = CfgNode(CfgNode.load_yaml_with_base(str(path)))
    except (YAMLError, OSError, AttributeError, TypeError, UnicodeDecodeError, AssertionError) as error:
        raise UserError(f"{path}: not a readable YAML config ({_first_line(error)})") from error
    _refuse_unknown(loaded, known, str(path))
    try:
        cfg.merge_from_other_cfg(_with_floats(loaded, cfg))
    except (KeyError, ValueError, AssertionError) as error:
        raise UserError(f"{path}: {_first_line(error)}") from error


def _with_floats(loaded: CfgNode, cfg: CfgNode) -> CfgNode:
    """`loaded` with 12 written as 12.0 where the default is a float, which yacs would refuse."""
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
    near = difflib.get_close_matches(name, sorted(known | sections), n=1, cutoff=0.5)
    return f"unknown key {name}" + (f"; did you mean {near[0]}?" if near else "")


def _check_choices(cfg: CfgNode) -> None:
    for key in KEYS:
        section, leaf = _section(cfg, key.name)
        if key.choices and section[leaf] not in key.choices:
            raise UserError(f"{key.name} is {section[leaf]!r}; allowed: {', '.join(map(repr, key.choices))}")


def set_num_classes(cfg: CfgNode, count: int) -> None:
    """Upstream leaves 80, and RetinaNet does not look at ROI_HEADS at all."""
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = cfg.MODEL.RETINANET.NUM_CLASSES = cfg.MODEL.CLASSIFIER.NUM_CLASSES = count


def differences(one: CfgNode, other: CfgNode) -> list[tuple[str, Any, Any]]:
    """(key, value here, value there) of all keys whose values differ; None where a key is missing."""
    names = dict.fromkeys([*_flatten(one), *_flatten(other)])
    pairs = [(name, _value_or_none(one, name), _value_or_none(other, name)) for name in names]
    return [(name, ours, theirs) for name, ours, theirs in pairs if _as_tuples(ours) != _as_tuples(theirs)]


def _as_tuples(value: Any) -> Any:
    """YAML knows no tuples, so that a config comes back from a file with lists."""
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
    # A KeyError's text is quoted; its argument is not.
    text = str(error.args[0] if isinstance(error, KeyError) and error.args else error).strip()
    return text.splitlines()[0] if text else type(error).__name__
