#!/usr/bin/env python
"""What this trainer costs beside Detectron2's own: iterations and checkpoints of both in turn, in one process.

Both train the same model on the same batches, loaded beforehand, with all hooks that do not evaluate. Prints medians
over pairs, with intervals of 95 % by bootstrap.
"""

import argparse
import contextlib
import io
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Answers --help without importing torch."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config-file", default="quick/demo.yaml", metavar="FILE")
    parser.add_argument("--iterations", type=int, default=100, help="pairs, after 5 that do not count (default 100)")
    parser.add_argument("--checkpoints", type=int, default=10, help="pairs (default 10)")
    parser.add_argument("opts", nargs=argparse.REMAINDER, metavar="KEY VALUE", help="overrides of config keys")
    return parser.parse_args(argv)


def both(args: argparse.Namespace, folder: Path) -> tuple[Any, Any]:
    """Our trainer and Detectron2's, ready for their first iteration, with the same batches."""
    from detectron2.engine import DefaultTrainer
    from detectron2.utils.env import seed_all_rng
    from detectron2.utils.events import EventStorage

    from cervical_d2.config import load_config
    from cervical_d2.engine.setup import prepare
    from cervical_d2.engine.trainer import Trainer

    trainers: list[Any] = []
    batches: list[Any] = []
    for name in ("ours", "theirs"):
        # Alike in both: Detectron2's trainer knows no NHWC, and mixed precision on CUDA alone.
        options = ["DATASETS.TEST", "()", "SOLVER.CHECKPOINT_PERIOD", "0", "MODEL.CHANNELS_LAST", "False"]
        cfg = load_config(args.config_file, [*args.opts, *options, "OUTPUT_DIR", str(folder / name)])
        prepare(cfg)
        cfg.SOLVER.AMP.ENABLED = cfg.SOLVER.AMP.ENABLED and cfg.MODEL.DEVICE.startswith("cuda")
        if name == "theirs":
            cfg.SOLVER.CHECKPOINT_PERIOD = cfg.SOLVER.MAX_ITER  # it takes no 0
        (folder / name).mkdir()
        seed_all_rng(cfg.SEED)
        kind = Trainer if name == "ours" else _stock(DefaultTrainer, batches)
        with contextlib.redirect_stdout(io.StringIO()):  # Detectron2's prints the whole model
            trainer = kind(cfg)
        trainer.resume_or_load(resume=False)
        if name == "ours":
            loading = iter(trainer.train_loader)
            batches += [next(loading) for _ in range(8)]
            trainer._trainer._data_loader_iter_obj = _forever(batches)
        trainer.iter, trainer.storage = 0, EventStorage(0)
        with trainer.storage:
            if name == "ours":
                trainer.metrics.open(trainer.storage, 0)
            trainer.before_train()
        trainers.append(trainer)
    return trainers[0], trainers[1]


def _stock(base: type, batches: list[Any]) -> type:
    """Detectron2's trainer with these batches."""
    return type("Stock", (base,), {"build_train_loader": classmethod(lambda cls, cfg: _forever(batches))})


def _forever(batches: list[Any]) -> Any:
    while True:
        yield from batches


def iteration(trainer: Any) -> None:
    """One, with its hooks."""
    with trainer.storage:
        trainer.before_step()
        trainer.run_step()
        trainer.after_step()
    trainer.iter += 1


def seconds(call: Callable[[], Any]) -> float:
    """How long it takes."""
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


def pairs(first: Callable[[], Any], second: Callable[[], Any], count: int, title: str) -> Any:
    """(count, 2) seconds; who begins changes from pair to pair."""
    import numpy as np
    from tqdm import tqdm

    rows = []
    for number in tqdm(range(count), title):
        calls = (first, second) if number % 2 else (second, first)
        row = [seconds(call) for call in calls]
        rows.append(row if number % 2 else row[::-1])
    return np.array(rows)


def summary(times: Any) -> str:
    """Medians, and the ratio of ours to theirs with its interval."""
    import numpy as np

    rng = np.random.default_rng(0)
    ratio = times[:, 0] / times[:, 1]
    means = np.median(ratio[rng.integers(0, len(ratio), (2000, len(ratio)))], axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    ours, theirs = np.median(times, axis=0)
    found = f"ratio {np.median(ratio):.4f} ({low:.4f} to {high:.4f})"
    return f"{1000 * ours:.1f} ms, Detectron2's {1000 * theirs:.1f} ms, {found}"


def run(args: argparse.Namespace) -> None:
    """Time both and print."""
    with tempfile.TemporaryDirectory() as folder:
        ours, theirs = both(args, Path(folder))
        pairs(lambda: iteration(ours), lambda: iteration(theirs), 5, "warm-up")
        times = pairs(lambda: iteration(ours), lambda: iteration(theirs), args.iterations, "iterations")
        print(f"iteration: {summary(times)}")
        with ours.storage:
            saving = lambda: ours.checkpointer.save("model_0000001")  # noqa: E731
            kept = lambda: theirs.checkpointer.save("model_0000001")  # noqa: E731
            times = pairs(saving, kept, args.checkpoints, "checkpoints")
        sizes = [(Path(folder) / name / "model_0000001.pth").stat().st_size / 2**20 for name in ("ours", "theirs")]
        print(f"checkpoint: {summary(times)}; {sizes[0]:.0f} MiB, Detectron2's {sizes[1]:.0f} MiB")


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status."""
    args = parse_args(argv)
    from cervical_d2.errors import run_main

    return run_main(lambda: run(args))


if __name__ == "__main__":
    sys.exit(main())
