"""Cutting tiles that was stopped, in several processes, on a full disk: the files are the same in the end."""

import errno
import signal
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import listing
from tile_scenes import make, plant

from cervical_d2.curation import tile_work, tiles

pytest.importorskip("kfbslide")


def test_several_processes_write_the_same(tmp_path: Path, capfd):
    """Threads of OpenCV that run already do not hang the processes that are forked."""
    plant(tmp_path)
    cv2.setNumThreads(2)
    cv2.GaussianBlur(np.zeros((3000, 3000, 3), np.uint8), (0, 0), 3)
    signal.signal(signal.SIGALRM, signal.default_int_handler)
    signal.alarm(120)
    options = ("--ratios", "train=0.7,test=0.3", "--empty-rate", 0.5, "--min-tissue", 0, "--name", "set")
    assert make(capfd, tmp_path, *options, output="one").returncode == 0
    assert make(capfd, tmp_path, *options, output="two", processes=2).returncode == 0
    signal.alarm(0)
    assert listing(tmp_path / "one") == listing(tmp_path / "two")
    assert not [path for path in tmp_path.iterdir() if "partial" in path.name]


def test_stopped_anywhere_the_same_command_ends_with_the_same_files(tmp_path: Path, capfd, monkeypatch):
    plant(tmp_path)
    monkeypatch.setattr(tile_work, "CHUNK", 2)
    options = ("--ratios", "train=0.7,test=0.3", "--empty-rate", 0.5, "--min-tissue", 0, "--name", "set")
    writes = []
    for module in (tile_work, tiles):
        real = module.write_bytes
        monkeypatch.setattr(module, "write_bytes", lambda *given, real=real: (writes.append(given[0]), real(*given)))
    assert make(capfd, tmp_path, *options, output="whole").returncode == 0
    wanted, count = listing(tmp_path / "whole"), len(writes)
    assert count == 30  # 24 tiles, 3 overviews, 3 pictures
    for stop in range(1, count, 5):
        left = [stop]

        def write(*given, left=left):
            left[0] -= 1
            if left[0] == 0:
                raise KeyboardInterrupt
            real(*given)

        with monkeypatch.context() as patch:
            patch.setattr(tile_work, "write_bytes", write)
            patch.setattr(tiles, "write_bytes", write)
            assert make(capfd, tmp_path, *options).returncode == 130
        assert not (tmp_path / "tiles").exists()
        (tmp_path / "tiles.partial/.a.jpg.4711").write_bytes(b"a kill leaves this")
        writes.clear()
        assert make(capfd, tmp_path, *options).returncode == 0
        assert listing(tmp_path / "tiles") == wanted
        # Not written again is what stood already, but for the chunk that was begun and the overviews.
        assert len(writes) <= count - stop + 1 + 2 + 3
        (tmp_path / "tiles").rename(tmp_path / f"stopped{stop}")


def test_killed_before_the_work_was_removed_it_is_whole(tmp_path: Path, capfd, monkeypatch):
    plant(tmp_path, ["a"])
    monkeypatch.setattr(tiles.shutil, "rmtree", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    assert make(capfd, tmp_path).returncode == 130
    monkeypatch.undo()
    assert (tmp_path / "tiles/work").is_dir()
    assert make(capfd, tmp_path).returncode == 0
    assert not (tmp_path / "tiles/work").exists() and (tmp_path / "tiles/all.json").is_file()


def test_a_full_disk_is_a_line_and_the_work_goes_on(tmp_path: Path, capfd, monkeypatch):
    plant(tmp_path, ["a"])
    real, left = tile_work.write_bytes, [3]

    def write(path: Path, content: bytes) -> None:
        left[0] -= 1
        if left[0] <= 0:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        real(path, content)

    monkeypatch.setattr(tile_work, "write_bytes", write)
    result = make(capfd, tmp_path)
    assert result.returncode == 3
    last = result.stderr.splitlines()[-1]
    assert last.startswith("error: ") and "No space left on device" in last and "run this again to continue" in last
    assert not (tmp_path / "tiles").exists()
    monkeypatch.undo()
    assert make(capfd, tmp_path).returncode == 0
