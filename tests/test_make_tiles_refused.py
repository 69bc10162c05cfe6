"""Mistakes in what is to be cut: one line each, and nothing is written."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from slide_files import smear, write_kfb, write_plain, write_tianchi
from tile_scenes import CELLS, SIZE, make, plant

from cervical_d2.curation import tiles

pytest.importorskip("kfbslide")


def refuse(capfd, folder: Path, *words: object) -> str:
    """The one line of a mistake; nothing is left behind but what was there."""
    before = set(folder.rglob("*"))
    result = make(capfd, folder, *words)
    (line,) = [line for line in result.stderr.splitlines() if "error: " in line]
    assert result.returncode == 2 and "Traceback" not in result.stderr
    assert set(folder.rglob("*")) == before
    return line


def test_a_truncated_slide(tmp_path: Path, capfd):
    path = plant(tmp_path) / "slides/b.kfb"
    path.write_bytes(path.read_bytes()[:-2000])
    assert "b.kfb: cut off" in refuse(capfd, tmp_path)


def test_no_scale_in_micrometers(tmp_path: Path, capfd):
    plant(tmp_path, ["a"])
    write_plain(tmp_path / "slides/a.bmp", smear(SIZE, CELLS))
    assert "a.bmp: does not state micrometers per pixel; give a scale" in refuse(capfd, tmp_path, "--mpp", 0.5)


def test_labels_without_a_slide(tmp_path: Path, capfd):
    plant(tmp_path)
    (tmp_path / "slides/c.kfb").rename(tmp_path / "slides/d.kfb")
    assert "c: no such image, named by" in refuse(capfd, tmp_path)


def test_labels_outside_of_their_slide(tmp_path: Path, capfd):
    plant(tmp_path)
    write_tianchi(tmp_path / "labels", {"b": [("pos", 5000, 40, 30, 30)]})
    line = refuse(capfd, tmp_path)
    assert "b.json" in line and "labels of another slide or scale?" in line
    assert make(capfd, tmp_path, "--drop-invalid").returncode == 0


def test_a_slide_of_16_bits(tmp_path: Path, capfd):
    pytest.importorskip("pyvips")
    plant(tmp_path, ["a"])
    (tmp_path / "slides/a.kfb").unlink()
    cv2.imwrite(str(tmp_path / "slides/a.png"), smear(SIZE, CELLS).astype(np.uint16) * 257)
    assert "a.png: has pixels of the type ushort; convert it to 8 bits" in refuse(capfd, tmp_path)


def test_two_slides_of_one_name(tmp_path: Path, capfd):
    plant(tmp_path)
    write_kfb(tmp_path / "a.kfb", smear(SIZE, []))
    assert "has the name of" in refuse(capfd, tmp_path, "--negatives", tmp_path / "a.kfb")


def test_more_splits_than_slides(tmp_path: Path, capfd):
    assert "1 slides cannot be divided into 2 splits" in refuse(
        capfd, plant(tmp_path, ["a"]), "--ratios", "train=0.5,val=0.5"
    )


def test_an_output_that_exists(tmp_path: Path, capfd):
    plant(tmp_path)
    (tmp_path / "tiles").mkdir()
    assert "tiles: exists already" in refuse(capfd, tmp_path)


def test_what_was_begun_with_other_settings(tmp_path: Path, capfd, monkeypatch):
    plant(tmp_path)
    monkeypatch.setattr(tiles, "write_set", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    assert make(capfd, tmp_path).returncode == 130
    monkeypatch.undo()
    assert "tiles.partial: started with other slides, labels or settings" in refuse(capfd, tmp_path, "--overlap", 20)


@pytest.mark.parametrize(
    "words, message",
    [
        (("--overlap", 200), "must be less than --size"),
        (("--empty-rate", 2), "is not a number from 0 to 1"),
        (("--scale", 0), "is not a number above 0"),
        (("--jpeg-quality", 101), "must be 100 or less"),
    ],
)
def test_options_out_of_range(tmp_path: Path, capfd, words: tuple, message: str):
    with pytest.raises(SystemExit) as stop:
        make(capfd, tmp_path, *words)
    assert stop.value.code == 2 and message in capfd.readouterr().err
