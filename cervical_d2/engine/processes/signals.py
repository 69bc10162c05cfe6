"""Signal handling: a run stops at a point where nothing is lost."""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from types import FrameType

from detectron2.utils import comm

from cervical_d2.errors import Interrupted

# Ctrl-C; the default of kill and most schedulers; SLURM's early warning with --signal=USR1@SECONDS.
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
REPEAT = 1.0  # seconds; one Ctrl-C may arrive twice, from the terminal and from the parent process


@contextlib.contextmanager
def signals_passed_on(children: Callable[[], Iterable[int]]) -> Iterator[list[int]]:
    """A context in which signals are passed on to child processes, which stop cleanly, instead of ending this one.

    `children` returns the process ids; it is called when a signal comes. Yields the list of signals received so far.
    """
    passed: list[int] = []

    def pass_on(signum: int, _: FrameType | None) -> None:
        passed.append(signum)
        for child in children():
            os.kill(child, signum)

    before = {number: signal.signal(number, pass_on) for number in SIGNALS}
    try:
        yield passed
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class StopRequest:
    """A context (in the main thread) in which a signal is only recorded in `signum` (0: none).

    A second signal ends the process immediately.
    """

    def __init__(self) -> None:
        self.signum = 0
        self._since, self._at_once = 0.0, False
        self._before: dict[signal.Signals, object] = {}

    def __enter__(self) -> "StopRequest":
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _note(self, signum: int, _: FrameType | None) -> None:
        if not self.signum:
            self.signum, self._since = signum, time.monotonic()
        elif time.monotonic() - self._since > REPEAT:
            raise KeyboardInterrupt
        if self._at_once:
            self._interrupt()

    def _interrupt(self) -> None:
        message = "the checkpoint from before the evaluation is saved; go on with --resume"
        raise Interrupted(self.signum, message if comm.is_main_process() else "")

    @contextlib.contextmanager
    def at_once(self) -> Iterator[None]:
        """A context in which a signal raises `Interrupted` immediately, because no work can be lost."""
        self._at_once = True
        try:
            if self.signum:
                self._interrupt()
            yield
        except RuntimeError:
            # Another process received the signal too and has left a collective operation.
            if self.signum:
                self._interrupt()
            raise
        finally:
            self._at_once = False
