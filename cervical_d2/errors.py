"""Exceptions for errors that the user can fix, and the one place that prints them.

Exit codes: 0 success, 2 invalid input (nothing was written), 3 machine failure, 1 bug, 141 closed pipe, 128 + the
number of a signal.
"""

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
    """Invalid input. The message is one line: place, problem, fix. It is empty if another process prints it."""

    status = EXIT_USER


class MachineError(UserError):
    """A failure outside of the program: a disk, a data worker, another process. The same command may succeed later."""

    status = EXIT_MACHINE


class CompanionLost(MachineError):
    """Another process of the same run has ended. It prints the reason itself."""


class Interrupted(Exception):
    """A signal stopped the work cleanly. The message says what was saved."""

    def __init__(self, signum: int, message: str = ""):
        super().__init__(signum, message)
        self.status, self.message = 128 + signum, message
        self.name = signal.Signals(signum).name


def hush_torch() -> None:
    """Silence torch's warnings about how Detectron2 calls it. The user cannot fix these."""
    for category in (FutureWarning, DeprecationWarning, UserWarning):
        warnings.filterwarnings("ignore", category=category, module=r"(torch|detectron2)\.")


def run_main(main: Callable[[], int | None]) -> int:
    """Run `main` and return the exit code. A `UserError` is printed as one line on stderr; a signal returns 128 + n."""
    hush_torch()
    try:
        status = main() or EXIT_OK
        sys.stdout.flush()
        return status
    except UserError as error:
        if line := " ".join(str(error).split()):
            print(f"error: {line}", file=sys.stderr)
        return error.status
    except PermissionError as error:
        print(f"error: {error.filename}: {error.strerror}; allow it, or choose another place", file=sys.stderr)
        return EXIT_USER
    except BrokenPipeError:
        # The reader closed the pipe (`| head`). Without this, Python would print another error when it flushes at exit.
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
