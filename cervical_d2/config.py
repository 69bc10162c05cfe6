"""Every configuration key of ours, in one table, and the reading of configuration files.

The keys of Detectron2 stay what they are (`detectron2.config.defaults`); ours stand beside them in the same sections.
"""

import difflib
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from detectron2.config import CfgNode, get_cfg
from yaml import YAMLError

from cervical_d2.errors import UserError


class Key(NamedTuple):
    """One configuration key: its default, what it means and in which unit, and the allowed values if they are few."""

    name: str
    default: Any
    meaning: str
    choices: tuple[Any, ...] = ()


KEYS = (
    Key("INPUT.RANDOM_ROT90", False, "rotate by 0, 90, 180 or 270 degrees, each with probability 1/4"),
    Key(
        "INPUT.RANDOM_ROTATION",
        0.0,
        "rotate by an angle in +- so many degrees, up to 180; boxes turn as ellipses",
    ),
    Key("INPUT.STAIN_JITTER", 0.0, "scale the density of each stain by 1 +- so much, up to 1, and shift it a little"),
    Key("INPUT.BRIGHTNESS", 0.0, "multiply by a factor in 1 +- so much, up to 1"),
    Key("INPUT.DEFOCUS", 0.0, "defocus half of the images: largest radius in px, up to 20"),
    Key("INPUT.BLUR", 0.0, "blur half of the images: largest sigma of a Gaussian in px, up to 20"),
    Key("INPUT.JPEG_QUALITY", 0, "compress with a quality from so much, 1 to 100, to 100; 0: not at all"),
    Key("INPUT.MIN_VISIBLE", 0.0, "share of a cell that crop and rotation must leave in view; of less none is learned"),
    Key("MODEL.CHANNELS_LAST", False, "keep activations as NHWC in memory; the same numbers, often faster"),
    Key(
        "MODEL.UNLABELED_SCORE",
        0.0,
        "background that the model scores this high is not punished: for sparsely labeled sets; 0: all is",
    ),
    Key("SOLVER.MAX_EPOCHS", 0.0, "length of the training in epochs; 0: SOLVER.MAX_ITER counts"),
    Key("SOLVER.EPOCH_STEPS", (), "epochs after which the learning rate drops; empty: SOLVER.STEPS counts"),
    Key(
        "SOLVER.REFERENCE_BATCH",
        0,
        "images per batch for which BASE_LR and the iterations are meant; 0: as given",
    ),
    Key("SOLVER.ACCUMULATE", 1, "parts of a batch that pass through the model one after the other, to save memory"),
    Key("SOLVER.CLIP_NORM", 0.0, "largest norm of all gradients together; 0: any. CLIP_GRADIENTS clips each tensor's"),
    Key("SOLVER.EMA_DECAY", 0.0, "evaluate and keep the moving average of the weights, 0.999 say; 0: none"),
    Key("SOLVER.CHECKPOINT_KEEP", 3, "numbered checkpoints to keep, model_best and model_final beside them; 0: all"),
    Key(
        "SOLVER.AMP.DTYPE",
        "auto",
        "auto: float16 on CUDA, bfloat16 on a CPU that has it",
        ("auto", "float16", "bfloat16"),
    ),
    Key("TEST.EVAL_EPOCHS", 0.0, "epochs between evaluations; 0: TEST.EVAL_PERIOD (iterations) counts"),
    Key(
        "TEST.BEST_METRIC",
        "bbox/AP50",
        "scalar that model_best.pth maximizes; one with 'loss' in it is minimized",
    ),
    Key(
        "TEST.EARLY_STOP_PATIENCE",
        0,
        "evaluations without a better BEST_METRIC after which to stop; 0: never",
    ),
    Key("TEST.SCORE", 0.5, "score from which a detection counts in figures at one threshold, and is shown"),
    Key("TEST.SEVERITY", "", "YAML file of lesions and costs, as cervical_d2/evaluation/severity.yaml; empty: that"),
    Key("TEST.REPORT", False, "write OUTPUT_DIR/report, the page of tools/report.py, after training and --eval-only"),
    Key("TEST.VAL_LOSS", True, "compute the losses on the first test split at each evaluation"),
)

# Where our defaults differ from upstream's, and why.
DEFAULTS = {
    "SEED": 0,  # every run can be repeated; -1 draws a seed and writes it into the run's config
    "DATALOADER.FILTER_EMPTY_ANNOTATIONS": False,  # fields without an abnormal cell are most of a smear
}

CONFIG_ROOTS = (Path(__file__).parent / "configs", Path(__file__).parents[1] / "configs")


def add_cervical_config(cfg: CfgNode) -> None:
    """Add our keys to a Detectron2 `cfg`, in place."""
    for key in KEYS:
        section, leaf = _section(cfg, key.name)
        section[leaf] = key.default
    for name, value in DEFAULTS.items():
        section, leaf = _section(cfg, name)
        section[leaf] = value


def config_path(name: str) -> Path:
    """The file `name`: a path, or one relative to the configs that come with the package (`quick/demo.yaml`)."""
    for path in (Path(name), *(root / name for root in CONFIG_ROOTS)):
        if path.is_file():
            return path
    raise UserError(f"{name}: no such config file; the package's own are {', '.join(packaged_configs())}")


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
    known = set(_flatten(cfg))
    if config_file:
        path = config_path(config_file)
        _merge_file(cfg, path, known)
    _merge_options(cfg, list(options), known)
    _check_choices(cfg)
    return cfg


def load_dumped_config(text: str, where: str) -> CfgNode:
    """The config that a checkpoint carries, as text: a complete dump, so it holds the keys of its own Detectron2.

    Those that the installed version does not know are left out, and the log says so.
    """
    cfg = get_cfg()
    add_cervical_config(cfg)
    known, dumped = set(_flatten(cfg)), CfgNode.load_cfg(text)
    if foreign := [name for name in _flatten(dumped) if name not in known]:
        logging.getLogger("detectron2.cervical_d2").warning(
            "%s: of another Detectron2; left out %s, which this one has not", where, ", ".join(foreign)
        )
    for name in foreign:
        section, leaf = _section(dumped, name)
        del section[leaf]
    cfg.merge_from_other_cfg(dumped)
    return cfg


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


def _merge_options(cfg: CfgNode, options: list[str], known: set[str]) -> None:
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
