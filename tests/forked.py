"""Commands in separate processes, forked from a server that has imported torch and Detectron2 once.

A process that starts Python anew waits seconds for these imports. What only a fresh interpreter shows, such as what is
imported when, is tested with `conftest.command`.
"""

import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from cervical_d2.engine.processes.launch import PRELOADED

FRESH_RUN = subprocess.run
SERVER = multiprocessing.get_context("forkserver")
multiprocessing.set_forkserver_preload(PRELOADED)


class Running:
    """A running script, with the methods of `subprocess.Popen` that tests use."""

    def __init__(self, *words: object, cwd: Path, env: dict[str, str], before: Callable[[], None] | None = None):
        """`before` is called in the new process, so it and its values must be importable there."""
        self.words, self.folder = [str(word) for word in words], tempfile.TemporaryDirectory()
        self.files = [str(Path(self.folder.name) / name) for name in ("out", "err")]
        self.process = SERVER.Process(target=_run, args=(self.words, str(cwd), env, self.files, before))
        self.process.start()
        self.pid = self.process.pid

    @property
    def returncode(self) -> int | None:
        """The exit code, minus the number of the signal that ended it, or None while it runs."""
        return self.process.exitcode

    def poll(self) -> int | None:
        return self.returncode

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def communicate(self, timeout: float = 300) -> tuple[str, str]:
        """Wait until it ends; return its stdout and stderr."""
        self.process.join(timeout)
        if self.returncode is None:
            self.process.kill()
            raise subprocess.TimeoutExpired(self.words, timeout)
        out, err = (Path(file).read_text() for file in self.files)
        return out, err


def run(words: Sequence[str], **options: Any) -> subprocess.CompletedProcess:
    """In place of `subprocess.run`: a Python script is forked, what it says goes where the test's own output goes."""
    if words[0] != sys.executable:
        return FRESH_RUN(words, **options)
    running = Running(*words[1:], cwd=Path.cwd(), env=dict(os.environ))
    out, err = running.communicate()
    sys.stdout.write(out)
    sys.stderr.write(err)
    return subprocess.CompletedProcess(words, running.returncode)


def _run(words: list[str], cwd: str, env: dict[str, str], files: list[str], before: Callable[[], None] | None) -> None:
    for number, file in enumerate(files, 1):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT), number)
    os.setsid()  # signals to its group must not reach the tests
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    warnings.simplefilter("ignore")
    if before:
        before()
    sys.argv = words
    sys.path.insert(0, str(Path(words[0]).parent.resolve()))
    runpy.run_path(words[0], run_name="__main__")  # SystemExit sets the exit code
