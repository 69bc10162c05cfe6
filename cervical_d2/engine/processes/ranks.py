"""What the processes of one training share. One process is a group of one: nothing is exchanged."""

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
    """The result of `call` in each process; a `UserError` of one ends all, and the main process alone tells it."""
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
    """`model`, or its `DistributedDataParallel` where there are several processes, on any device."""
    if comm.get_world_size() == 1:
        return model
    on_gpu = next(model.parameters()).is_cuda
    options: dict[str, Any] = {"device_ids": [torch.cuda.current_device()]} if on_gpu else {}
    # So gradients stay in the buckets of the first iteration, and those of more than two processes are added in the
    # same order after a resume; on a CPU the cost does not show.
    options["find_unused_parameters"] = not on_gpu and comm.get_world_size() > 2
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # the newest torch renames broadcast_buffers
        return DistributedDataParallel(model, broadcast_buffers=False, **options)


def unwrap_ddp(model: torch.nn.Module) -> torch.nn.Module:
    """The model inside of `data_parallel`'s."""
    return model.module if isinstance(model, DistributedDataParallel) else model


def average_batch_norm(model: torch.nn.Module) -> None:
    """Give every process the mean of all processes' running statistics.

    Each normalizes by the images that it sees, and would be evaluated and saved with a running mean of its own.
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
