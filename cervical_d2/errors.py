"""One exception for everything that a user can put right, and the one place where it becomes a line."""

import errno
import os
import signal
import sys
import warnings
from collections.abc import Callable

EXIT_OK, EXIT_OURS, EXIT_USER, EXIT_MACHINE, EXIT_PIPE = 0, 1, 2, 3, 141

NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# What the system says of a file, with the exit code and the cure. Another OSError is a bug, and keeps its traceback.
REFUSALS = {
    **dict.fromkeys(NO_SPACE, (EXIT_MACHINE, "free space, then run the same command again")),
    errno.EIO: (EXIT_MACHINE, "check the disk, then run the same command again"),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), (EXIT_USER, "allow it, or choose another place")),
    **dict.fromkeys((errno.EEXIST, errno.ENOTDIR, errno.EISDIR), (EXIT_USER, "choose another place")),
    **dict.fromkeys((errno.ENAMETOOLONG, errno.ELOOP), (EXIT_USER, "choose another name")),
}


class UserError(Exception):
    """A mistake of the user's. The message is one line: place, finding, cure; empty where another process tells it."""

    status = EXIT_USER


class MachineError(UserError):
    """Something around the program gave way: a disk, a data worker, another process. The same command may succeed."""

    status = EXIT_MACHINE


class CompanionLost(MachineError):
    """Another process of the same run has ended, and tells why itself."""


class Interrupted(Exception):
    """A signal ended the work in good order. The message says what is left behind."""

    def __init__(self, signum: int, message: str = ""):
        super().__init__(signum, message)
        self.status, self.message = 128 + signum, message
        self.name = signal.Signals(signum).name


def hush_torch() -> None:
    """Detectron2 calls torch in ways that torch warns about, and whoever runs a command cannot mend that."""
    for category in (FutureWarning, DeprecationWarning, UserWarning):
        warnings.filterwarnings("ignore", category=category, module=r"(torch|detectron2)\.")


def run_main(main: Callable[[], int | None]) -> int:
    """Run `main`; an error for the user becomes one line on stderr and its status, a signal 128 and its number."""
    hush_torch()
    try:
        status = main() or EXIT_OK
        sys.stdout.flush()
        return status
    except UserError as error:
        if line := " ".join(str(error).split()):
            print(f"error: {line}", file=sys.stderr)
        return error.status
    except BrokenPipeError:
        # Whoever reads our output has seen enough (`| head`); Python would complain once more when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_PIPE
    except OSError as error:
        if error.errno not in REFUSALS:
            raise
        status, cure = REFUSALS[error.errno]
        print(f"error: {f'{error.filename}: ' if error.filename else ''}{error.strerror}; {cure}", file=sys.stderr)
        return status
    except Interrupted as stop:
        if stop.message:
            print(f"interrupted by {stop.name}: {stop.message}", file=sys.stderr)
        return stop.status
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 128 + signal.SIGINT
