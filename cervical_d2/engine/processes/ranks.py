"""Operations over all processes of a training. With a single process nothing is exchanged."""

import warnings
from collections.abc import Callable
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from detectron2.utils import comm
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from cervical_d2.errors import UserError

T = TypeVar("T")


def on_all_ranks(call: Callable[[], T]) -> T:
    """Call `call` in every process and return its result there.

    Raises:
        UserError: in all processes if one of them raised it. Only the main process's error has a message.
    """
    result, error = None, None
    try:
        result = call()
    except UserError as raised:
        error = raised
    first = next((other for other in comm.all_gather(error) if other), None)
    if first is not None:
        raise first if comm.is_main_process() else type(first)("")
    return result  # type: ignore[return-value]


def data_parallel(model: torch.nn.Module) -> torch.nn.Module:
    """`model`, wrapped in `DistributedDataParallel` if there are several processes, on any device."""
    if comm.get_world_size() == 1:
        return model
    on_gpu = next(model.parameters()).is_cuda
    options: dict[str, Any] = {"device_ids": [torch.cuda.current_device()]} if on_gpu else {}
    # With this option DDP keeps the gradient buckets of the first iteration, so sums over more than two processes have
    # the same order after a resume. The cost is negligible on a CPU.
    options["find_unused_parameters"] = not on_gpu and comm.get_world_size() > 2
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # the newest torch renames broadcast_buffers
        return DistributedDataParallel(model, broadcast_buffers=False, **options)


def unwrap_ddp(model: torch.nn.Module) -> torch.nn.Module:
    """The model inside a `DistributedDataParallel`, or `model` itself."""
    return model.module if isinstance(model, DistributedDataParallel) else model


def average_batch_norm(model: torch.nn.Module) -> None:
    """Replace the running statistics of BatchNorm by their mean over all processes.

    Each process updates them with its own images only, so without this the processes' models would differ.
    """
    if comm.get_world_size() == 1:
        return
    norms = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.training and m.track_running_stats]
    statistics = [value for norm in norms for value in (norm.running_mean, norm.running_var) if value is not None]
    if not statistics:
        return
    flat = torch.cat([value.flatten() for value in statistics])
    dist.all_reduce(flat)
    flat /= comm.get_world_size()
    for value, part in zip(statistics, flat.split([value.numel() for value in statistics]), strict=True):
        value.copy_(part.view_as(value))
