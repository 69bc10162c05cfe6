"""Signals ask a run to end; it ends where nothing is lost."""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from types import FrameType

from detectron2.utils import comm

from cervical_d2.errors import Interrupted

# Ctrl-C; what kill and most schedulers send; what SLURM sends ahead of time with --signal=USR1@SECONDS.
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
REPEAT = 1.0  # seconds: the same Ctrl-C may arrive twice, from the terminal and from a parent


@contextlib.contextmanager
def signals_passed_on(children: Callable[[], Iterable[int]]) -> Iterator[list[int]]:
    """Within, signals go to child processes, which end in good order, instead of ending this one.

    `children` returns their process ids; it is called when a signal comes. Yields the numbers of those that came.
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
    """Whether and by which signal (0: none) the process was asked to end; a second one ends it at once.

    Within the context (in the main thread) signals are noted here instead of ending the process.
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
        told = "the checkpoint from before the evaluation is there; go on with --resume"
        raise Interrupted(self.signum, told if comm.is_main_process() else "")

    @contextlib.contextmanager
    def at_once(self) -> Iterator[None]:
        """Within, nothing can be lost: a signal raises `Interrupted` where the program is."""
        self._at_once = True
        try:
            if self.signum:
                self._interrupt()
            yield
        except RuntimeError:
            # Another process was asked to end as well and has left a collective operation.
            if self.signum:
                self._interrupt()
            raise
        finally:
            self._at_once = False
