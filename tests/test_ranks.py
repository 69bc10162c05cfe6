"""Several processes on the CPU train as one does, evaluate every image once, and none outlives another."""

import json
import multiprocessing
from argparse import Namespace
from pathlib import Path

import pytest
import rank_jobs
import torch
from conftest import command
from rank_jobs import on_ranks
from small_model import RETINANET, SMALL
from torch.multiprocessing.spawn import ProcessExitedException

from cervical_d2.checkpoint.safe_load import load_file
from cervical_d2.engine.processes import launch as launching
from cervical_d2.engine.processes.endings import Report, error_of_ranks, report_of
from cervical_d2.engine.processes.launch import Place, first_host, launch, place_from, restarted
from cervical_d2.errors import MachineError, UserError

# Four images in a batch; without BatchNorm, whose statistics are those of a process's own images, and all of one size,
# as the padding to the largest image of a process holds anchors that are sampled too. The weights move in the second
# iteration alone, the last: float32 rounds by the number of images in a forward pass, and once weights have moved that
# decides which of nearly equal proposals are sampled, so that equal code ends in other weights (seen with AVX-512).
FOUR = (
    *SMALL, "MODEL.RESNETS.NORM", "", "SOLVER.IMS_PER_BATCH", 4, "SOLVER.REFERENCE_BATCH", 4, "SOLVER.MAX_ITER", 2,
    "SOLVER.LR_SCHEDULER_NAME", "WarmupMultiStepLR", "SOLVER.WARMUP_ITERS", 1, "SOLVER.BASE_LR", 0.002,
    "TEST.EVAL_PERIOD", 0, "TEST.VAL_LOSS", False, "MODEL.RPN.BATCH_SIZE_PER_IMAGE", 16,
    "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE", 16, "INPUT.MIN_SIZE_TRAIN", (64,),
    "INPUT.CROP.ENABLED", True, "INPUT.CROP.TYPE", "absolute", "INPUT.CROP.SIZE", [64, 64],
)  # fmt: skip


def ended(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(str(folder / "model_final.pth"))["model"]


def largest_difference(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    return max((one[name].double() - other[name].double()).abs().max().item() for name in one)


@pytest.mark.parametrize(("ranks", "machines"), [(1, 1), (2, 1), (1, 2), (2, 2)])
def test_ranks_are_started_where_there_is_more_than_one_on_all_machines_together(ranks, machines, monkeypatch):
    started = []
    monkeypatch.setattr(launching, "_spawn", lambda main, args, device: started.append(args.num_gpus))
    args = Namespace(num_gpus=ranks, num_machines=machines, machine_rank=machines - 1, dist_url="tcp://host:1234")
    launch(lambda args: started.append("alone"), args, "cpu")
    assert started == (["alone"] if ranks * machines == 1 else [ranks])


@pytest.mark.parametrize(
    ("rank", "url", "message"),
    [
        (1, "auto", "--num-machines 2 needs --dist-url tcp://HOST:PORT"),
        (2, "tcp://host:1234", "--machine-rank 2: machines count from 0 to 1"),
    ],
)
def test_machines_that_cannot_meet_are_refused(rank, url, message, monkeypatch):
    monkeypatch.setattr(launching, "_spawn", lambda *_: None)
    args = Namespace(num_gpus=1, num_machines=2, machine_rank=rank, dist_url=url)
    with pytest.raises(UserError, match=message):
        launch(print, args, "cpu")


@pytest.mark.parametrize("detector", [(), RETINANET], ids=["rcnn", "retinanet"])
def test_two_ranks_train_as_one_does(tiny: Path, detector):
    for ranks in (1, 2):
        options = [*FOUR, *detector, "OUTPUT_DIR", tiny / f"ranks{ranks}"]
        on_ranks(ranks, rank_jobs.train, folder=tiny, options=options)
    alone, both = (json.loads((tiny / f"ranks{ranks}/losses.json").read_text()) for ranks in (1, 2))
    assert len(alone) == 2
    for ours, theirs in zip(both, alone, strict=True):
        assert ours == pytest.approx(theirs, abs=1e-5)
    assert largest_difference(ended(tiny / "ranks1"), ended(tiny / "ranks2")) < 1e-5
    # and the training went somewhere: otherwise equal weights would say nothing
    options = [*FOUR, *detector, "SOLVER.MAX_ITER", 1, "OUTPUT_DIR", tiny / "short"]
    on_ranks(1, rank_jobs.train, folder=tiny, options=options)
    assert largest_difference(ended(tiny / "ranks1"), ended(tiny / "short")) > 1e-3


@pytest.mark.parametrize("parts", [2, 4])
def test_accumulated_gradients_are_those_of_the_large_batch(tiny: Path, parts):
    for accumulate in (1, parts):
        options = [*FOUR, "SOLVER.ACCUMULATE", accumulate, "OUTPUT_DIR", tiny / f"parts{accumulate}"]
        on_ranks(1, rank_jobs.train, folder=tiny, options=options)
    assert largest_difference(ended(tiny / "parts1"), ended(tiny / f"parts{parts}")) < 1e-5
    whole, divided = (json.loads((tiny / f"parts{n}/losses.json").read_text()) for n in (1, parts))
    assert divided[-1] == pytest.approx(whole[-1], abs=1e-5)


@pytest.mark.parametrize("ranks", [2, 4])
def test_evaluation_has_every_image_once(tiny: Path, ranks):
    """Three images: uneven for two ranks, and one of four has none."""
    for number in (1, ranks):
        options = [*SMALL, "SOLVER.IMS_PER_BATCH", 4, "OUTPUT_DIR", tiny / f"ranks{number}"]
        on_ranks(number, rank_jobs.evaluate, folder=tiny, options=options)
    found, validation = [], []
    for number in (1, ranks):
        folder = tiny / f"ranks{number}"
        rows = json.loads((folder / "evaluation/tiny_val/predictions.json").read_text())
        found.append(sorted((row["image_id"], row["category_id"], row["score"], *row["bbox"]) for row in rows))
        validation.append(json.loads((folder / "validation.json").read_text()))
    assert len({row[0] for row in found[0]}) == 3
    assert found[0] == found[1]
    assert validation[1] == pytest.approx(validation[0], rel=1e-6)


def test_batch_norm_is_the_same_in_all_ranks_and_a_resume_exact(tiny: Path):
    """`rank_jobs.train` compares the running statistics of the ranks at its end."""
    options = [*FOUR, "MODEL.RESNETS.NORM", "BN", "SOLVER.CHECKPOINT_PERIOD", 2, "SOLVER.MAX_ITER", 4]
    on_ranks(2, rank_jobs.train, folder=tiny, options=[*options, "OUTPUT_DIR", tiny / "whole"])
    with pytest.raises(MachineError):
        on_ranks(
            2,
            rank_jobs.die,
            folder=tiny,
            options=[*options, "OUTPUT_DIR", tiny / "cut", "SOLVER.CHECKPOINT_PERIOD", 1],
            way="SIGKILL",
        )
    on_ranks(2, rank_jobs.train, folder=tiny, options=[*options, "OUTPUT_DIR", tiny / "cut"], resume=True)
    assert largest_difference(ended(tiny / "whole"), ended(tiny / "cut")) == 0


@pytest.mark.parametrize(
    ("way", "error", "words"),
    [
        ("SIGKILL", MachineError, "rank 1 died of SIGKILL, and the others were stopped; .*--resume"),
        ("exit", MachineError, "rank 1 died, and the others were stopped"),
        ("mistake", UserError, "^rank 1 alone has found this$"),
        ("fault", Exception, "KeyError: 'a fault of ours'"),
    ],
)
def test_the_end_of_a_rank_is_named_and_ends_the_others(tiny: Path, way, error, words):
    with pytest.raises(error, match=words):
        on_ranks(2, rank_jobs.die, folder=tiny, options=[*FOUR, "OUTPUT_DIR", tiny / "run"], way=way)


def test_data_workers_start_in_a_rank_as_elsewhere(tmp_path: Path):
    """Spawned as ranks are, each would import all anew, at each evaluation."""
    on_ranks(2, rank_jobs.start_method, folder=tmp_path)
    assert {path.read_text() for path in tmp_path.iterdir()} == {multiprocessing.get_start_method()}


def test_a_mistake_that_one_rank_finds_ends_all_and_is_told_once(tiny: Path, capfd):
    with pytest.raises(UserError, match=r"^the images of rank 1 are missing$"):
        on_ranks(2, rank_jobs.disagree)
    with pytest.raises(UserError, match=r"the loss is not finite at iteration 0 .*train.*--resume"):
        on_ranks(2, rank_jobs.poison, folder=tiny, options=[*FOUR, "OUTPUT_DIR", tiny / "run"])
    assert "Traceback" not in capfd.readouterr().err


def test_a_killed_rank_is_named_before_what_another_said_of_it(tmp_path: Path):
    report_of(tmp_path, 0).write_text(json.dumps(Report("UserError", 2, "a mistake")))
    killed = ProcessExitedException("", error_index=1, error_pid=9, exit_code=-9, signal_name="SIGKILL")
    assert "rank 1 died of SIGKILL" in str(error_of_ranks(killed, tmp_path, range(2), []))
    ended = ProcessExitedException("", error_index=1, error_pid=9, exit_code=2)
    assert str(error_of_ranks(ended, tmp_path, range(2), [])) == "a mistake"


def test_of_ranks_that_said_nothing_the_one_that_ended_first_is_named(tmp_path: Path):
    ended = ProcessExitedException("", error_index=1, error_pid=9, exit_code=7)
    assert "rank 1 died" in str(error_of_ranks(ended, tmp_path, range(2), []))
    report_of(tmp_path, 1).write_text(json.dumps(Report("CompanionLost", 3, "another is gone")))
    assert "rank 0 died" in str(error_of_ranks(ended, tmp_path, range(2), []))


def test_ranks_leave_together(tmp_path: Path):
    on_ranks(2, rank_jobs.linger, folder=tmp_path)
    done, *left = (float((tmp_path / name).read_text()) for name in ("done", "left0", "left1"))
    assert min(left) >= done  # one that left before would find the other still in the group


def test_ranks_end_without_taking_their_group_apart(tmp_path: Path):
    """gloo aborts now and then where ranks close their connections at the same time."""
    on_ranks(2, rank_jobs.abort_at_exit, folder=tmp_path)
    with pytest.raises(UserError, match=r"^rank 1 alone has found this$"):
        on_ranks(2, rank_jobs.abort_at_exit, folder=tmp_path, way="mistake")
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", 2)
    done = command(*torchrun, "tests/rank_jobs.py", "abort_at_exit", tmp_path)
    assert done.returncode == 0, done.stderr


def test_torchrun_trains_on_two_processes(tiny: Path):
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", 2)
    done = command(*torchrun, "tests/rank_jobs.py", "train", tiny, *FOUR, "OUTPUT_DIR", tiny / "torchrun")
    assert done.returncode == 0, done.stderr
    on_ranks(1, rank_jobs.train, folder=tiny, options=[*FOUR, "OUTPUT_DIR", tiny / "alone"])
    assert largest_difference(ended(tiny / "torchrun"), ended(tiny / "alone")) < 1e-5


TORCHRUN = {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}
SLURM = {
    "SLURM_PROCID": "5", "SLURM_STEP_NUM_TASKS": "6", "SLURM_LOCALID": "1", "SLURM_STEP_TASKS_PER_NODE": "2(x3)",
    "SLURM_STEP_NODELIST": "gpu[07-09]", "SLURM_JOB_ID": "1234567",
}  # fmt: skip


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, None),
        (TORCHRUN, Place(3, 4, 1, 2, "env://")),
        (TORCHRUN | {"WORLD_SIZE": "1"}, None),
        (SLURM, Place(5, 6, 1, 2, "tcp://gpu07:24567")),
        (SLURM | {"MASTER_ADDR": "a", "MASTER_PORT": "9"}, Place(5, 6, 1, 2, "tcp://a:9")),
        (SLURM | {"SLURM_STEP_TASKS_PER_NODE": "6"}, Place(5, 6, 1, 6, "tcp://gpu07:24567")),
        # a batch script that runs python itself: the job's variables, but no step
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "4", "SLURM_LOCALID": "0"}, None),
    ],
)
def test_place_among_the_processes(environment, expected):
    assert place_from(environment) == expected


@pytest.mark.parametrize(
    ("nodes", "first"),
    [("n1", "n1"), ("n1,n2", "n1"), ("n[1-3]", "n1"), ("gpu-b[007,9],x", "gpu-b007"), ("r[1-2]-ib0", "r1-ib0")],
)
def test_first_host_of_a_list(nodes, first):
    assert first_host(nodes) == first


def test_an_elastic_restart_resumes_by_itself():
    assert not restarted({})
    assert not restarted({"TORCHELASTIC_RESTART_COUNT": "0", "SLURM_RESTART_COUNT": ""})
    assert restarted({"TORCHELASTIC_RESTART_COUNT": "2"})
    assert restarted({"SLURM_RESTART_COUNT": "1"})
