"""Machine failures (full disk, lost worker, out of memory), reported in one line instead of a traceback."""

import contextlib
import logging
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch

from cervical_d2.errors import NO_SPACE, CompanionLost, MachineError


class Fault(NamedTuple):
    """A known failure: `is_it` recognizes the exception, `cure` says what to do, `kind` is the error to raise."""

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
        "another process of this run has ended; see its message for the reason",
        CompanionLost,
    ),
)


@contextlib.contextmanager
def told_in_one_line() -> Iterator[None]:
    """A context that turns the failures in `FAULTS` into a `MachineError`."""
    logging.raiseExceptions = False  # report a full disk once, not at every line of a log
    try:
        yield
    except (OSError, RuntimeError) as error:
        for fault in FAULTS:
            if fault.is_it(error):
                said = str(error).strip().splitlines()[0]
                raise fault.kind(f"{said}: {fault.cure}; go on from the last checkpoint with --resume") from error
        raise
