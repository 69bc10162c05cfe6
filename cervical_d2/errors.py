"""One exception for everything that a user can put right, and the one place where it becomes a line."""

import sys
from collections.abc import Callable

EXIT_OK, EXIT_OURS, EXIT_USER = 0, 1, 2


class UserError(Exception):
    """A mistake of the user's. The message is one line: place, finding, cure."""


def run_main(main: Callable[[], int | None]) -> int:
    """Run `main`; a `UserError` becomes one line on stderr and status 2, Ctrl-C status 130."""
    try:
        return main() or EXIT_OK
    except UserError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return EXIT_USER
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
