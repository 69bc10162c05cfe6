"""How the ranks of a run ended, reported in one line by the process that started them."""

import json
from pathlib import Path
from typing import NamedTuple

from torch.multiprocessing.spawn import ProcessExitedException, ProcessRaisedException

from cervical_d2.errors import CompanionLost, Interrupted, MachineError, UserError


class Report(NamedTuple):
    """How a rank ended: the name of the exception, its exit code, its message."""

    kind: str
    status: int
    line: str

    def error(self) -> BaseException:
        """The exception, restored."""
        if self.kind == Interrupted.__name__:
            return Interrupted(self.status - 128, self.line)
        return (MachineError if self.status == MachineError.status else UserError)(self.line)


def error_of_ranks(
    failure: ProcessRaisedException | ProcessExitedException, folder: Path, place: range, passed: list[int]
) -> BaseException | None:
    """The error to report for the ranks `place` of this machine, or None for a bug, which keeps its traceback.

    Args:
        failure: the failure that torch reports.
        folder: folder with the reports of the ranks.
        place: the ranks of this machine.
        passed: the signals that were passed on to the ranks.
    """
    reports = {
        rank: Report(*json.loads(path.read_text())) for rank in place if (path := report_of(folder, rank)).exists()
    }
    killed = getattr(failure, "signal_name", None)
    said = [report for report in reports.values() if report.line and report.kind != CompanionLost.__name__]
    if said and not killed:
        return said[0].error()
    if passed:
        return Interrupted(passed[0], "go on from the last checkpoint with --resume")
    silent = [rank for rank in place if rank not in reports]
    if isinstance(failure, ProcessRaisedException) and place[failure.error_index] in silent:
        return None
    first = place[failure.error_index]
    # torch may report a rank that only lost its connection. The rank that died first has left no report.
    rank = first if killed or first in silent or not silent else silent[0]
    return MachineError(
        f"rank {rank} died{f' of {killed}' if killed else ''}, and the others were stopped; "
        "the last checkpoint is complete: go on with --resume"
    )


def report_of(folder: Path, rank: int) -> Path:
    """The file with the report of a rank for its parent process."""
    return folder / f"rank{rank}.json"
