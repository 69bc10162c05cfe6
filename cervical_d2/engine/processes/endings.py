"""How the ranks of a run ended, told in one line by the process that started them."""

import json
from pathlib import Path
from typing import NamedTuple

from torch.multiprocessing.spawn import ProcessExitedException, ProcessRaisedException

from cervical_d2.errors import CompanionLost, Interrupted, MachineError, UserError


class Report(NamedTuple):
    """How a rank ended: the exception's name, its exit status, its line."""

    kind: str
    status: int
    line: str

    def error(self) -> BaseException:
        """The exception again."""
        if self.kind == Interrupted.__name__:
            return Interrupted(self.status - 128, self.line)
        return (MachineError if self.status == MachineError.status else UserError)(self.line)


def error_of_ranks(
    failure: ProcessRaisedException | ProcessExitedException, folder: Path, place: range, passed: list[int]
) -> BaseException | None:
    """One line for what ended the ranks `place` of this machine: how one was killed, else what one of them said.

    None for a fault of ours, which keeps its traceback.
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
    # One that heard of another's end may be found first; one that was ended for it has said nothing either.
    rank = first if killed or first in silent or not silent else silent[0]
    return MachineError(
        f"rank {rank} died{f' of {killed}' if killed else ''}, and the others were ended; "
        "the last checkpoint is whole: go on with --resume"
    )


def report_of(folder: Path, rank: int) -> Path:
    """The file that the rank leaves for its parent."""
    return folder / f"rank{rank}.json"
