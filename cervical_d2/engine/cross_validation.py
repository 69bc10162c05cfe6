"""Cross-validation of a classifier: one training run per fold."""

import shlex
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

from detectron2.config import CfgNode
from detectron2.utils import comm

from cervical_d2.checkpoint.checkpoint import Checkpoint
from cervical_d2.config import differences
from cervical_d2.curation.folds import Part, divide
from cervical_d2.datasets.registry import resolve
from cervical_d2.engine.processes.ranks import on_all_ranks
from cervical_d2.engine.processes.signals import signals_passed_on
from cervical_d2.engine.run_folder import RunFolder
from cervical_d2.engine.setup import prepare
from cervical_d2.engine.starts import SAME_RUN
from cervical_d2.engine.tasks import CLASSIFICATION, task_of
from cervical_d2.errors import Interrupted, UserError
from cervical_d2.evaluation.classification_evaluator import TASK


def parts_of(cfg: CfgNode, *, train: bool, resume: bool) -> list[Part]:
    """The parts of the data that `cfg` trains on, one run each. Checks the whole config, then writes the part files.

    Raises:
        UserError: the config is not that of a classifier, or `prepare` or `divide` refuses it.
    """
    if task_of(cfg) is not CLASSIFICATION:
        raise UserError(
            f"MODEL.META_ARCHITECTURE {cfg.MODEL.META_ARCHITECTURE} is no classifier; `cervical-d2 train` trains "
            "detectors, configs/classifier/ has configs for this command"
        )
    if not (cfg.DATASETS.FOLDS or cfg.DATASETS.RATIOS):
        return divide(cfg)
    whole = cfg.clone()
    whole.DATASETS.FOLDS, whole.DATASETS.RATIOS = 0, ()
    if not whole.DATASETS.TEST:
        whole.DATASETS.TEST = () if train else whole.DATASETS.TRAIN
    prepare(whole, train=train, resume=resume)
    return divide(cfg)


def parts_on_all_ranks(cfg: CfgNode, *, train: bool, resume: bool) -> list[Part]:
    """`parts_of` in each process of a group. The main process writes the files."""

    def find() -> list[Part]:
        return parts_of(cfg, train=train, resume=resume)

    on_all_ranks(lambda: find() if comm.is_main_process() else [])
    return on_all_ranks(find)


def config_of(cfg: CfgNode, part: Part) -> CfgNode:
    """The config of the run on one part."""
    one = cfg.clone()
    data = one.DATASETS
    divided = bool(data.FOLDS or data.RATIOS)
    data.TRAIN, data.TEST, data.FOLDS, data.RATIOS = part.train, part.test, 0, ()
    one.OUTPUT_DIR = str(Path(cfg.OUTPUT_DIR) / part.folder)
    if len(part.test) > 1 and one.TEST.BEST_METRIC.startswith(f"{TASK}/"):
        one.TEST.BEST_METRIC = f"{resolve(part.test[0])}/{one.TEST.BEST_METRIC}"  # that of val, never of test
    if divided and data.LEAK_COPIES_ACROSS_SPLITS:  # the copies have them already
        one.DATALOADER.CLASS_REPEATS, one.INPUT.RANDOM_ROTATION, one.INPUT.RANDOM_TRANSLATION = (), 0.0, 0.0
    return one


def is_done(cfg: CfgNode, part: Part) -> bool:
    """Whether the run on `part` is complete, trained and evaluated with this config."""
    one = config_of(cfg, part)
    run = RunFolder(one.OUTPUT_DIR)
    if not run.is_finished(resolve(part.test[-1])):
        return False
    prepare(one, resume=True)
    return not [name for name, *_ in differences(run.cfg, one) if name not in (*SAME_RUN, "TEST.REPORT")]


def run_parts(
    cfg: CfgNode,
    parts: Sequence[Part],
    words: Callable[[Part], Sequence[str]],
    *,
    skip_done: bool,
    tell: Callable[[str], None],
    after: Callable[[list[Part]], None],
) -> None:
    """Run a command for each part, in its own process.

    Args:
        words: returns the command line of a part.
        tell: called with a line of progress for each part.
        after: called after each part with the list of parts that are done.

    Raises:
        UserError: a part failed. The message is empty, because the part's process has printed the reason.
        Interrupted: a signal came, and the part has stopped cleanly.
    """
    Checkpoint.release()  # frees memory: each part's process reads the checkpoint itself
    for number, part in enumerate(parts):
        what = f"{part.folder}, {number + 1} of {len(parts)}"
        if skip_done and is_done(cfg, part):
            tell(f"{what}: already done")
        else:
            command = words(part)
            tell(f"{what}: {shlex.join(command[1:])}")
            _run(command)
        after(list(parts[: number + 1]))


def _run(command: Sequence[str]) -> None:
    """Like `subprocess.run`, but on a signal it waits for the child, which writes a checkpoint first."""
    with subprocess.Popen(command) as child, signals_passed_on(lambda: [child.pid]) as passed:
        status = child.wait()
    if passed:
        raise Interrupted(passed[0])
    if status:
        error = UserError("")  # the child has already printed the reason
        error.status = status if status > 0 else 128 - status
        raise error
