"""Bars are for people: on a terminal, after a few seconds, and through one place."""

import io
import sys
from pathlib import Path

import cervical_d2
from cervical_d2 import progress


class Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_bar_is_on_a_terminal_alone(monkeypatch):
    monkeypatch.setattr(progress, "DELAY", 0)
    for stream, shown in ((Screen(), True), (io.StringIO(), False)):
        monkeypatch.setattr(sys, "stderr", stream)
        assert list(progress.progress_bar(range(3), desc="drawing", unit="image")) == [0, 1, 2]
        assert ("drawing: 100%" in stream.getvalue()) == shown


def test_what_is_done_at_once_has_no_bar(monkeypatch):
    screen = Screen()
    monkeypatch.setattr(sys, "stderr", screen)
    list(progress.progress_bar(range(3), desc="drawing", unit="image"))
    assert screen.getvalue() == ""


def test_every_bar_comes_from_there():
    root = Path(cervical_d2.__file__).parent
    others = [path for path in root.rglob("*.py") if "tqdm" in path.read_text() and path.name != "progress.py"]
    assert others == []
