"""What a machine does to a run, told in one line instead of a traceback."""

import contextlib
import logging
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch

from cervical_d2.errors import NO_SPACE, CompanionLost, MachineError


class Fault(NamedTuple):
    """`is_it` recognizes the exception; then `cure` says what to do, in an error of `kind`."""

    is_it: Callable[[BaseException], bool]
    cure: str
    kind: type[MachineError] = MachineError


FAULTS = (
    Fault(lambda error: isinstance(error, OSError) and error.errno in NO_SPACE, "free space"),
    Fault(
        lambda error: isinstance(error, RuntimeError) and "DataLoader worker" in str(error),
        "if memory ran out, lower DATALOADER.NUM_WORKERS",
    ),
    Fault(
        lambda error: isinstance(error, torch.cuda.OutOfMemoryError),
        "raise SOLVER.ACCUMULATE, which divides each batch, or lower SOLVER.IMS_PER_BATCH",
    ),
    Fault(
        lambda error: isinstance(error, RuntimeError) and any(word in str(error) for word in ("gloo", "NCCL")),
        "another process of this run has ended; its own message says why",
        CompanionLost,
    ),
)


@contextlib.contextmanager
def told_in_one_line() -> Iterator[None]:
    """Within, what `FAULTS` recognizes is raised as a `MachineError`."""
    logging.raiseExceptions = False  # a full disk is told once, not at each line of a log
    try:
        yield
    except (OSError, RuntimeError) as error:
        for fault in FAULTS:
            if fault.is_it(error):
                said = str(error).strip().splitlines()[0]
                raise fault.kind(f"{said}: {fault.cure}; go on from the last checkpoint with --resume") from error
        raise
