"""Jobs of the ranks in tests, as functions that a spawned process can import."""

import atexit
import json
import multiprocessing
import os
import signal
import sys
import time
from argparse import Namespace
from pathlib import Path

import small_model  # noqa: F401  registers the backbone, in each process
import torch
from detectron2.engine import HookBase
from detectron2.utils import comm

from cervical_d2.config import load_config
from cervical_d2.engine.processes import launch as launch_module
from cervical_d2.engine.processes.faults import told_in_one_line
from cervical_d2.engine.processes.launch import launch
from cervical_d2.engine.processes.ranks import on_all_ranks
from cervical_d2.engine.setup import prepare
from cervical_d2.engine.trainer import Trainer
from cervical_d2.errors import UserError


def on_ranks(ranks: int, job, **values: object) -> None:
    """Run `job` in `ranks` processes; `values` become attributes of its argument."""
    place = {"num_gpus": ranks, "num_machines": 1, "machine_rank": 0, "dist_url": "auto"}
    launch(job, Namespace(**place, **values), "cpu")


class Losses(HookBase):
    """Keeps the losses of every iteration."""

    def __init__(self):
        self.lines: list[dict[str, float]] = []

    def after_step(self):
        latest = self.trainer.storage.latest()
        self.lines.append({name: value for name, (value, _) in latest.items() if "loss" in name})


def trainer_for(args: Namespace) -> Trainer:
    torch.set_num_threads(1)
    cfg = load_config(str(args.folder / "config.yaml"), [str(word) for word in args.options])
    on_all_ranks(lambda: prepare(cfg, resume=True))
    Path(cfg.OUTPUT_DIR).mkdir(exist_ok=True, parents=True)
    torch.manual_seed(0)
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=getattr(args, "resume", False))
    return trainer


def train(args: Namespace) -> None:
    """Train; write losses.json and model_final.pth."""
    trainer = trainer_for(args)
    losses = Losses()
    trainer.register_hooks([losses])
    trainer.train()
    if comm.is_main_process():
        (Path(trainer.cfg.OUTPUT_DIR) / "losses.json").write_text(json.dumps(losses.lines))
    batch_norm = [value for name, value in trainer.model.state_dict().items() if "running" in name]
    everyone = comm.all_gather(torch.cat([value.flatten() for value in batch_norm]) if batch_norm else torch.zeros(1))
    assert all(torch.equal(one, everyone[0]) for one in everyone)


def evaluate(args: Namespace) -> None:
    """Evaluate the initial model; write the evaluator's files and validation.json."""
    trainer = trainer_for(args)
    results = trainer.evaluate()
    if comm.is_main_process():
        (Path(trainer.cfg.OUTPUT_DIR) / "validation.json").write_text(json.dumps(results["validation"]))


class Die(HookBase):
    """Ends rank 1 in its second iteration, in the way that the job's arguments name."""

    def __init__(self, way: str):
        self.way = way

    def before_step(self):
        if comm.get_rank() == 1 and self.trainer.iter == 1:
            if self.way == "SIGKILL":
                os.kill(os.getpid(), signal.SIGKILL)
            if self.way == "exit":
                os._exit(7)
            if self.way == "mistake":
                raise UserError("rank 1 alone has found this")
            raise KeyError("a fault of ours")


def die(args: Namespace) -> None:
    """Train until rank 1 dies."""
    with told_in_one_line():
        trainer = trainer_for(args)
        trainer.register_hooks([Die(args.way)])
        trainer.train()


def start_method(args: Namespace) -> None:
    """Write how this process would start its data workers."""
    (args.folder / f"rank{comm.get_rank()}").write_text(multiprocessing.get_start_method())


def disagree(args: Namespace) -> None:
    """Raise a `UserError` in rank 1 before anything is exchanged."""

    def check() -> None:
        if comm.get_rank() == 1:
            raise UserError("the images of rank 1 are missing")

    on_all_ranks(check)


def linger(args: Namespace) -> None:
    """Rank 0 has extra work at the end. Each rank writes the time at which it leaves the group."""
    end = launch_module.end_process

    def tell_and_end(status: int) -> None:
        (args.folder / f"left{comm.get_rank()}").write_text(str(time.monotonic()))
        end(status)

    launch_module.end_process = tell_and_end
    if comm.get_rank() == 0:
        time.sleep(1)
        (args.folder / "done").write_text(str(time.monotonic()))


def abort_at_exit(args: Namespace) -> None:
    """Make the interpreter's cleanup at exit abort the process; with `args.way`, after a `UserError` in rank 1."""
    atexit.register(os.abort)
    torch.distributed.destroy_process_group = os.abort
    if getattr(args, "way", "") == "mistake" and comm.get_rank() == 1:
        raise UserError("rank 1 alone has found this")


def poison(args: Namespace) -> None:
    """Make the loss of rank 1 not finite."""
    trainer = trainer_for(args)
    if comm.get_rank() == 1:
        torch.nn.init.constant_(trainer.model.module.roi_heads.box_predictor.cls_score.bias, float("nan"))
    trainer.train()


if __name__ == "__main__":  # as torchrun starts it: JOB FOLDER OPTION ...
    from cervical_d2.errors import run_main

    arguments = Namespace(num_gpus=1, num_machines=1, folder=Path(sys.argv[2]), options=sys.argv[3:])
    sys.exit(run_main(lambda: launch(globals()[sys.argv[1]], arguments, "cpu")))
