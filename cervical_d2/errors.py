"""One exception for everything that a user can put right, and the one place where it becomes a line."""

import os
import sys
import warnings
from collections.abc import Callable

EXIT_OK, EXIT_OURS, EXIT_USER, EXIT_PIPE = 0, 1, 2, 141


class UserError(Exception):
    """A mistake of the user's. The message is one line: place, finding, cure."""


def run_main(main: Callable[[], int | None]) -> int:
    """Run `main`; a `UserError` becomes one line on stderr and status 2, Ctrl-C status 130."""
    # Detectron2 calls torch in ways that torch warns about, and whoever runs a command cannot mend that.
    for category in (FutureWarning, DeprecationWarning, UserWarning):
        warnings.filterwarnings("ignore", category=category, module=r"torch\.")
    try:
        status = main() or EXIT_OK
        sys.stdout.flush()
        return status
    except UserError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return EXIT_USER
    except BrokenPipeError:
        # Whoever reads our output has seen enough (`| head`); Python would complain once more when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_PIPE
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
