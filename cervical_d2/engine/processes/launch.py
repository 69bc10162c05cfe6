"""Starts one process, or several on one or more machines, on GPUs (NCCL) or on the CPU (gloo).

Several processes are started by --num-gpus, by torchrun, or by SLURM's srun. With --num-gpus, a parent process waits
for the ranks, passes signals on, and reports in one line why they ended. torchrun and srun do this themselves.
"""

import json
import logging
import multiprocessing
import os
import re
import sys
import tempfile
from argparse import Namespace
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import NamedTuple, NoReturn

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from detectron2.engine import launch as launch_on_gpus
from detectron2.utils import comm
from torch.multiprocessing.spawn import ProcessExitedException, ProcessRaisedException

from cervical_d2.engine.processes.endings import Report, error_of_ranks, report_of
from cervical_d2.engine.processes.signals import signals_passed_on
from cervical_d2.errors import EXIT_OK, Interrupted, UserError, hush_torch
from cervical_d2.files import write_text

Main = Callable[[Namespace], None]

# If the system can fork, ranks on the CPU are forked from a server that has already imported the package.
START_METHOD = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
PRELOADED = ["cervical_d2.engine.trainer"]

TIMEOUT = timedelta(minutes=30)  # of a collective operation, as in Detectron2; an evaluation may take unequal times


class Place(NamedTuple):
    """A process's place in the group: rank and number of ranks, in total and on its machine; `url` to connect to."""

    rank: int
    ranks: int
    local_rank: int
    local_ranks: int
    url: str


def place_from(environment: Mapping[str, str]) -> Place | None:
    """The place given by torchrun or SLURM's srun; None without them, or if there is only one process."""
    env = environment
    if {"RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"} <= set(env):
        rank, ranks = int(env["RANK"]), int(env["WORLD_SIZE"])
        place = Place(rank, ranks, int(env["LOCAL_RANK"]), int(env["LOCAL_WORLD_SIZE"]), "env://")
    # Variables of an srun step. A batch script that calls python directly has only the job's variables.
    elif {"SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID", "SLURM_STEP_TASKS_PER_NODE"} <= set(env):
        # "2(x3)": two on each of three machines. Uneven numbers are not supported, by Detectron2 neither.
        on_each = int(re.split(r"\D", env["SLURM_STEP_TASKS_PER_NODE"])[0])
        host = env.get("MASTER_ADDR") or first_host(env.get("SLURM_STEP_NODELIST", "127.0.0.1"))
        port = env.get("MASTER_PORT") or 20000 + int(env.get("SLURM_JOB_ID", "0")) % 10000
        rank, ranks, local_rank = (int(env[f"SLURM_{name}"]) for name in ("PROCID", "STEP_NUM_TASKS", "LOCALID"))
        place = Place(rank, ranks, local_rank, on_each, f"tcp://{host}:{port}")
    else:
        return None
    return place if place.ranks > 1 else None


def first_host(nodes: str) -> str:
    """The first host of SLURM's node list: `n[07-09,12],m3` -> `n07`."""
    host = re.match(r"([^,\[]+)(?:\[(\d+)[^\]]*\]([^,]*))?", nodes)
    return "".join(part or "" for part in host.groups()) if host else nodes


def restarted(environment: Mapping[str, str]) -> bool:
    """Whether torchrun or SLURM has restarted this run, which then resumes automatically."""
    counts = ("TORCHELASTIC_RESTART_COUNT", "SLURM_RESTART_COUNT")
    return any(int(environment.get(name) or 0) > 0 for name in counts)


def launch(main: Main, args: Namespace, device: str) -> None:
    """Run `main(args)` in the number of processes that the environment or `args` specify.

    Args:
        main: the function to run in each process.
        args: has num_gpus, num_machines, machine_rank and dist_url, as in Detectron2.
        device: value of MODEL.DEVICE.

    Raises:
        UserError: the numbers do not fit the machine, or a process raised a `UserError`.
        MachineError: a process died.
    """
    device = torch.device(device).type
    if place := place_from(os.environ):
        join_group(place, device)
        main(args)
        leave_group()
        end_process(EXIT_OK)
    elif args.num_gpus * args.num_machines == 1:
        main(args)
    else:
        _check(args, device)
        _spawn(main, args, device)


def _check(args: Namespace, device: str) -> None:
    if device == "cuda" and args.num_gpus > torch.cuda.device_count():
        raise UserError(f"--num-gpus {args.num_gpus}: this machine has {torch.cuda.device_count()}")
    if args.num_machines > 1 and args.dist_url == "auto":
        raise UserError(
            f"--num-machines {args.num_machines} needs --dist-url tcp://HOST:PORT, the same on every machine"
        )
    if not 0 <= args.machine_rank < args.num_machines:
        raise UserError(f"--machine-rank {args.machine_rank}: machines count from 0 to {args.num_machines - 1}")


def join_group(place: Place, device: str) -> None:
    """Join the process group as `place`."""
    if device == "cuda":
        torch.cuda.set_device(place.local_rank)
    elif "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, _cores() // place.local_ranks))  # more threads than cores are slower
    if place.ranks == place.local_ranks and sys.platform == "linux":
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # the host name may not resolve
    backend = "nccl" if device == "cuda" else "gloo"
    dist.init_process_group(backend, init_method=place.url, world_size=place.ranks, rank=place.rank, timeout=TIMEOUT)
    if hasattr(comm, "create_local_process_group"):
        comm.create_local_process_group(place.local_ranks)
    else:  # v0.6 does the same inside its launch()
        for first in range(0, place.ranks, place.local_ranks):
            group = dist.new_group(list(range(first, first + place.local_ranks)))
            if first <= place.rank < first + place.local_ranks:
                comm._LOCAL_PROCESS_GROUP = group
    comm.synchronize()


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _spawn(main: Main, args: Namespace, device: str) -> None:
    """Start the ranks of this machine and wait for them. If one fails, torch stops the others within 30 s."""
    logging.getLogger("torch.multiprocessing.spawn").setLevel(logging.ERROR)  # failures are reported in one line below
    with tempfile.TemporaryDirectory() as folder, signals_passed_on(_children) as passed:
        ranked = Ranked(main, folder)
        try:
            if device == "cuda":
                launch_on_gpus(
                    ranked, args.num_gpus, args.num_machines, args.machine_rank, args.dist_url, (args,), TIMEOUT
                )
            else:
                url = f"file://{folder}/meeting" if args.dist_url == "auto" else args.dist_url
                multiprocessing.set_forkserver_preload(PRELOADED)
                mp.start_processes(_on_cpu, (ranked, args, url), nprocs=args.num_gpus, start_method=START_METHOD)
        except (ProcessRaisedException, ProcessExitedException) as failure:
            first = args.machine_rank * args.num_gpus
            if error := error_of_ranks(failure, Path(folder), range(first, first + args.num_gpus), passed):
                raise error from failure
            raise


def _children() -> list[int]:
    return [child.pid for child in multiprocessing.active_children() if child.pid]


def _on_cpu(local_rank: int, main: Main, args: Namespace, url: str) -> None:
    rank = args.machine_rank * args.num_gpus + local_rank
    join_group(Place(rank, args.num_machines * args.num_gpus, local_rank, args.num_gpus, url), "cpu")
    main(args)


def leave_group() -> None:
    """Wait for all processes: a collective operation fails if another process has already exited."""
    comm.synchronize()


def end_process(status: int) -> NoReturn:
    """Exit this process of a group without closing its gloo connections.

    If they are closed while other processes exit, gloo sometimes aborts the process (SIGABRT).
    """
    if dist.is_initialized() and dist.get_backend() != "gloo":
        dist.destroy_process_group()
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


class Ranked(NamedTuple):
    """Runs `main` in a rank, and writes how it ended to a file in `folder` for the parent process."""

    main: Main
    folder: str

    def __call__(self, args: Namespace) -> None:
        hush_torch()
        # A spawned process would also spawn its data workers, which would import everything at each evaluation.
        multiprocessing.set_start_method(None, force=True)
        status = EXIT_OK
        try:
            self.main(args)
            leave_group()
        except (UserError, Interrupted) as error:
            line = error.message if isinstance(error, Interrupted) else str(error)
            report = Report(type(error).__name__, error.status, line)
            write_text(report_of(Path(self.folder), comm.get_rank()), json.dumps(report))
            status = error.status
        # Outside of `except`: there the exception still references the data loader, whose workers must stop first.
        end_process(status)
