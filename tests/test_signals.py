"""Early termination: by a signal, a full disk, a dead data worker, or another run in the same folder."""

import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from conftest import ROOT, command, environment, write_tiny
from detectron2.utils.events import EventStorage
from forked import Running
from small_model import SMALL
from test_resume import history, states, unequal
from test_trainer import train, trainer_of

from cervical_d2.checkpoint.safe_load import load_file
from cervical_d2.engine.metrics import JsonLines
from cervical_d2.engine.processes import signals
from cervical_d2.engine.processes.faults import told_in_one_line
from cervical_d2.engine.processes.signals import StopRequest
from cervical_d2.errors import Interrupted, MachineError, UserError

LONG = (*SMALL, "SOLVER.MAX_ITER", 6, "SOLVER.CHECKPOINT_PERIOD", 5, "TEST.EVAL_PERIOD", 3, "DATALOADER.NUM_WORKERS", 2)


ELASTIC = ("TEST.EVAL_PERIOD", 0, "TEST.VAL_LOSS", False, "SOLVER.CHECKPOINT_PERIOD", 2)


def raise_signal_in(trainer, name: str, count: int, signum: int = signal.SIGTERM, group: bool = False) -> None:
    """Send `signum` to this process (or its data workers too) at the `count`-th call of a method of `trainer`."""
    original, calls = getattr(trainer, name), iter(range(1, 100))

    def wrapped(*arguments):
        if next(calls) == count:
            for worker in torch.multiprocessing.active_children() if group else ():
                os.system(f"kill -{int(signum)} {worker.pid}")  # by another process than their parent
            signal.raise_signal(signum)
        return original(*arguments)

    setattr(trainer, name, wrapped)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """A tiny set, and the run on it that no signal ends."""
    folder = write_tiny(tmp_path_factory.mktemp("signals"))
    train(folder, *LONG, "OUTPUT_DIR", folder / "whole")
    return folder


@pytest.mark.parametrize("signum", signals.SIGNALS)
@pytest.mark.parametrize(("method", "count", "saved"), [("run_step", 2, 1), ("run_step", 6, 5), ("test", 1, 2)])
def test_signal_leaves_a_checkpoint_from_which_the_run_goes_on(uninterrupted: Path, signum, method, count, saved):
    run = uninterrupted / f"{method}{count}-{signum}"
    trainer = trainer_of(uninterrupted, *LONG, "OUTPUT_DIR", run)
    trainer.resume_or_load(resume=False)
    raise_signal_in(trainer, method, count, signum, group=True)
    with pytest.raises(Interrupted) as stop:
        trainer.train()
    assert stop.value.status == 128 + signum
    assert "--resume" in stop.value.message
    assert (run / "last_checkpoint").read_text() == f"model_{saved:07d}.pth"
    assert load_file(str(run / f"model_{saved:07d}.pth"))["trainer"]["iteration"] == saved
    train(uninterrupted, *LONG, "OUTPUT_DIR", run, resume=True)
    assert unequal(states(uninterrupted / "whole"), states(run)) == []
    assert history(run) == history(uninterrupted / "whole")


def test_handlers_are_those_of_before_when_training_is_over(tiny: Path):
    before = [signal.getsignal(number) for number in signals.SIGNALS]
    train(tiny, *LONG, "SOLVER.MAX_ITER", 1)
    assert [signal.getsignal(number) for number in signals.SIGNALS] == before


def test_second_signal_ends_at_once_but_not_an_echo_of_the_first(monkeypatch):
    now = iter([100.0, 100.5, 101.5])
    monkeypatch.setattr(signals.time, "monotonic", lambda: next(now))
    with StopRequest() as stop:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)  # half a second later: the terminal's and the parent's
        assert stop.signum == signal.SIGINT
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_error_of_a_companion_that_was_stopped_too_is_no_error():
    with StopRequest() as stop, pytest.raises(Interrupted), stop.at_once():
        stop.signum = signal.SIGTERM
        raise RuntimeError("Connection closed by peer")
    with pytest.raises(RuntimeError, match="shape"), StopRequest().at_once():
        raise RuntimeError("shape mismatch")


def start(*words: object, **options) -> subprocess.Popen:
    """A fresh interpreter with options of its own."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([sys.executable, *map(str, words)], cwd=ROOT, env=environment(), **pipes, **options)


def wait_until(condition, running: subprocess.Popen | Running) -> None:
    while not condition():
        assert running.poll() is None, running.communicate()[1]
        time.sleep(0.01)


def training(tiny: Path, *options: object, **kwargs) -> Running:
    return Running(
        "train_net.py", "--config-file", tiny / "config.yaml", *options, cwd=ROOT, env=environment(), **kwargs
    )


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs /proc to find the ranks")
def test_elastic_restart_goes_on_by_itself(tiny: Path):
    """torchrun starts all ranks anew when one was killed; nobody says --resume."""
    train(tiny, "SOLVER.MAX_ITER", 9, *ELASTIC, "OUTPUT_DIR", tiny / "whole")
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", 1, "--max-restarts", 1)
    options = ("SOLVER.MAX_ITER", 9, *ELASTIC)
    running = start(*torchrun, "train_net.py", "--config-file", tiny / "config.yaml", *options)
    wait_until((tiny / "run/last_checkpoint").exists, running)
    children = Path(f"/proc/{running.pid}/task/{running.pid}/children").read_text().split()
    (rank,) = [child for child in children if b"train_net.py" in Path(f"/proc/{child}/cmdline").read_bytes()]
    os.kill(int(rank), signal.SIGKILL)
    _, said = running.communicate(timeout=150)
    assert running.returncode == 0, said
    assert [one["resumes"] for one in json.loads((tiny / "run/run.json").read_text())["starts"]] == [False, True]
    assert history(tiny / "run") == history(tiny / "whole")


@pytest.mark.parametrize("ranks", [1, 2])
def test_sigterm_to_the_real_command_and_a_lock_against_a_second(tiny: Path, ranks):
    options = ("--num-gpus", ranks, "SOLVER.MAX_ITER", 500, "TEST.EVAL_PERIOD", 0, "SOLVER.CHECKPOINT_PERIOD", 0)
    running = training(tiny, *options)
    log = tiny / "run/metrics.json"
    wait_until(log.exists, running)
    second = command("train_net.py", "--config-file", tiny / "config.yaml", "OUTPUT_DIR", tiny / "run")
    assert second.returncode == 2
    assert "is writing there; wait for it, or choose another OUTPUT_DIR" in second.stderr.splitlines()[-1]
    assert f"process {running.pid} on " in second.stderr or ranks > 1
    running.send_signal(signal.SIGTERM)
    _, said = running.communicate(timeout=120)
    assert running.returncode == 143, said
    last = [line for line in said.splitlines() if line.strip()][-1]
    assert last.startswith("interrupted by SIGTERM: ")
    assert last.endswith("go on with --resume")
    assert "Traceback" not in said
    saved = (tiny / "run/last_checkpoint").read_text()
    assert saved in last
    done = command("train_net.py", "--resume", "--config-file", tiny / "config.yaml", "--num-gpus", ranks,
                   "SOLVER.MAX_ITER", load_file(str(tiny / "run" / saved))["trainer"]["iteration"] + 2)  # fmt: skip
    assert done.returncode == 0, done.stderr
    starts = json.loads((tiny / "run/run.json").read_text())["starts"]
    assert [(one["resumes"], one["processes"]) for one in starts] == [(False, ranks), (True, ranks)]


def limited() -> None:
    """Files may grow to 2 MB: the logs of the run fit, a checkpoint of R18 does not."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, 2_000_000))


def test_full_disk_is_one_line_and_leaves_nothing_half_written(tiny: Path):
    running = training(tiny, "SOLVER.MAX_ITER", 2, before=limited)
    _, said = running.communicate(timeout=120)
    assert running.returncode == 3, said
    (line,) = [line for line in said.splitlines() if line.startswith("error")]
    assert "model_final.pth: could not be written" in line
    assert "free space, then go on with --resume" in line
    assert "Traceback" not in said
    assert not [path.name for path in (tiny / "run").iterdir() if path.name.startswith(("model_", "last_"))]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, a disk that is always full")
def test_full_disk_while_metrics_are_written():
    with (
        pytest.raises(MachineError, match=r"^\[Errno 28\] No space left on device: free space; go on .*--resume$"),
        told_in_one_line(),
        EventStorage() as storage,
    ):
        storage.put_scalar("total_loss", 1.0)
        JsonLines(Path("/dev/full"), -1).write()


def test_dead_data_worker_is_one_line_and_leaves_the_checkpoint(tiny: Path):
    trainer = trainer_of(tiny, *LONG, "SOLVER.CHECKPOINT_PERIOD", 1)
    trainer.resume_or_load(resume=False)
    step, calls = trainer.run_step, iter(range(100))

    def kill_worker_in_third() -> None:
        if next(calls) == 2:
            for worker in torch.multiprocessing.active_children():
                os.kill(worker.pid, signal.SIGKILL)
                worker.join()
        step()

    trainer.run_step = kill_worker_in_third
    with pytest.raises(MachineError, match=r"worker .*NUM_WORKERS.* with --resume"), told_in_one_line():
        trainer.train()
    last = (
        tiny / "run/last_checkpoint"
    ).read_text()  # of the batches that were loaded, one or more were still trained on
    assert load_file(str(tiny / "run" / last))["trainer"]["iteration"] == int(last[6:13]) >= 1


def test_what_is_no_fault_of_the_machine_stays_what_it_is():
    for error in (RuntimeError("size mismatch"), OSError(2, "No such file"), UserError("mine")):
        with pytest.raises(type(error)) as raised, told_in_one_line():
            raise error
        assert raised.value is error
