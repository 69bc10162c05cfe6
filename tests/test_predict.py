"""`predict` and `Detector` with what people give them: nothing lost, nothing silently wrong, one line for a mistake."""

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import called, listing, write_tiny
from PIL import Image
from small_model import SMALL
from test_trainer import train

from cervical_d2 import Detector, draw
from cervical_d2.data.mapper import read_image
from cervical_d2.datasets.images import image_fault
from cervical_d2.errors import UserError
from cervical_d2.inference import batch


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    folder = write_tiny(tmp_path_factory.mktemp("predict"))
    train(folder, *SMALL, "SOLVER.MAX_ITER", 2, "TEST.EVAL_PERIOD", 0, "TEST.VAL_LOSS", False)
    shutil.copy(folder / "run/model_final.pth", folder / "model.pth")
    return folder


@pytest.fixture
def smears(tmp_path: Path, trained: Path) -> Path:
    """A folder with two whole images, beside the weights."""
    (tmp_path / "smears").mkdir()
    shutil.copy(trained / "model.pth", tmp_path / "model.pth")
    for name in ("a.png", "b.png"):
        shutil.copy(trained / "images/val1.png", tmp_path / "smears" / name)
    return tmp_path / "smears"


def predict(capfd, smears: Path, *words: object, output: object = None):
    folder = smears.parent
    return called(capfd, "tools/predict.py", *(words or (smears,)), "--weights", folder / "model.pth", "--output",
                  output or folder / "out", "--device", "cpu")  # fmt: skip


def test_what_cannot_be_read_is_listed_and_the_rest_goes_on(smears: Path, capfd):
    whole = (smears / "a.png").read_bytes()
    (smears / "cut.png").write_bytes(whole[:200])
    (smears / "text.jpg").write_text("no image")
    cv2.imwrite(str(smears / "deep.tif"), np.full((9, 9), 3000, np.uint16))
    for name in ("slide.svs", "old.gif", "notes.txt", ".DS_Store"):
        (smears / name).write_text("")
    run = predict(capfd, smears)
    assert run.returncode == 2
    errors = [line for line in run.stderr.splitlines() if line.startswith("error: ")]
    assert [line.split(": ")[1] for line in errors] == [
        str(smears), *(str(smears / name) for name in ("cut.png", "deep.tif", "text.jpg")),
    ]  # fmt: skip
    assert "of a format that is not read: 1 .gif, 1 .svs" in errors[0]
    assert f"note: {smears}: no images: 1 .txt" in run.stderr
    assert "in 2 images" in run.stdout
    document = json.loads((smears.parent / "out/predictions.json").read_text())
    assert [Path(image["file_name"]).name for image in document["images"]] == ["a.png", "b.png"]
    assert set(listing(smears.parent / "out")) == {"a.png", "b.png", "predictions.json"}


def test_the_same_command_again_replaces_what_it_wrote(smears: Path, capfd):
    assert predict(capfd, smears).returncode == 0
    (smears / "b.png").unlink()
    assert predict(capfd, smears).returncode == 0
    assert set(listing(smears.parent / "out")) == {"a.png", "predictions.json"}


@pytest.mark.parametrize(
    ("words", "output", "said"),
    [
        (["smears"], "smears", "smears: lies in"),
        (["smears"], "smears/out", "whose images are read; choose an output outside of it"),
        (["smears"], ".", "holds"),
        (["smears/a.png"], "smears", "smears: holds"),
        (["smears"], "model.pth", "model.pth: a file; name a folder as output"),
        (["smears"], "model.pth/out", "model.pth is not a folder"),
        (["smears"], "taken", "taken: holds something else (a.png); choose another output"),
        (["smears", "--opts", "MODEL.ROI_HEADS.NMS_TRESH_TEST", "1"], "out", "did you mean MODEL.ROI_HEADS.NMS_THRESH"),
        (["smears", "--opts", "TEST.SCORE"], "out", "'TEST.SCORE' has no value"),
        (["smears", "--opts", "TEST.SCORE", "50"], "out", "a score threshold of 50.0: scores are from 0 to 1"),
        (["slide.svs"], "out", "slide.svs: a whole slide, which is not read as one image; export fields of it"),
        (["empty"], "out", "empty: no image in this folder"),
        (["nowhere"], "out", "nowhere: no such image or folder; check the path"),
    ],
)  # fmt: skip
def test_mistakes_are_one_line_and_nothing_is_lost(smears: Path, capfd, monkeypatch, words, output, said):
    monkeypatch.chdir(smears.parent)
    Path("taken").mkdir()
    Path("empty").mkdir()
    shutil.copy("smears/a.png", "taken/a.png")
    shutil.copy("smears/a.png", "slide.svs")
    before = listing(Path())
    run = predict(capfd, smears, *words, output=output)
    assert run.returncode == 2
    (line,) = run.stderr.splitlines()
    assert line.startswith("error: ")
    assert said in line
    assert listing(Path()) == before


def test_an_image_as_large_as_a_slide_is_refused(smears: Path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(UserError, match=r"a\.png: has more than 2,000 pixels, like a whole slide; cut it into tiles"):
        read_image(str(smears / "a.png"), "RGB")


def test_a_disk_that_fills_while_it_predicts_leaves_no_half_output(smears: Path, capfd, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device", "b.png")

    monkeypatch.setattr(batch, "write_json", full)
    run = predict(capfd, smears)
    line = "error: b.png: No space left on device; free space, then run the same command again\n"
    assert (run.returncode, run.stderr) == (3, line)
    assert not (smears.parent / "out").exists()


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
@pytest.mark.parametrize("shape", [(8, 9), (8, 9, 3), (8, 9, 4)])
def test_more_than_8_bits_are_refused_by_the_check_and_by_the_reader(tmp_path: Path, name: str, shape):
    path = tmp_path / name
    cv2.imwrite(str(path), np.full(shape, 3000, np.uint16))  # 12-bit data: as 8 bits, 11 of 255
    assert image_fault(path, 9, 8)[0] == "not-8-bit"
    with pytest.raises(UserError, match=r"a\.\w+: has .*; convert it to 8 bits a channel"):
        read_image(str(path), "RGB")
    cv2.imwrite(str(path), np.full(shape, 200, np.uint8))
    assert image_fault(path, 9, 8) is None
    assert read_image(str(path), "RGB").shape == (8, 9, 3)


def test_one_threshold_for_python_and_the_command_line(trained: Path):
    assert Detector(trained / "model.pth", device="cpu").cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST == 0.5
    of_config = Detector(trained / "model.pth", device="cpu", options=["TEST.SCORE", "0.3"])
    assert of_config.cfg.MODEL.RETINANET.SCORE_THRESH_TEST == 0.3
    evaluated = Detector(trained / "model.pth", device="cpu", for_evaluation=True)
    assert evaluated.cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST == 0.05


def test_images_in_memory(trained: Path):
    detector = Detector(trained / "model.pth", device="cpu", score_threshold=0.0)
    path = trained / "images/val1.png"
    pixels = read_image(str(path), "RGB")
    expected = detector(path)
    assert expected
    assert detector(Image.open(path)) == expected
    assert detector(np.dstack([pixels, pixels[..., :1]])) == expected  # the fourth channel is not looked at
    gray = np.repeat(pixels[..., :1], 3, axis=2)
    assert detector(pixels[..., 0]) == detector(pixels[..., :1]) == detector(gray)


@pytest.mark.parametrize(
    ("image", "said"),
    [
        (np.zeros((3, 64, 96), np.uint8), r"an array of shape \(3, 64, 96\), uint8, is no image; give a path"),
        (np.zeros((64, 96, 3), np.uint16), r"\(64, 96, 3\), uint16"),
        (np.zeros((64, 96, 3)), r"\(64, 96, 3\), float64"),
        (np.zeros((64, 96, 3), bool), r"\(64, 96, 3\), bool"),
        (np.zeros((0, 96, 3), np.uint8), r"\(0, 96, 3\), uint8"),
        (np.zeros((1, 64, 96, 3), np.uint8), r"\(1, 64, 96, 3\), uint8"),
        (np.zeros((64, 96, 2), np.uint8), r"\(64, 96, 2\), uint8"),
        (np.zeros(5, np.uint8), r"\(5,\), uint8"),
        (b"\x89PNG", "bytes is no image; give a path, an image of Pillow's, or an array"),
        (None, "NoneType is no image"),
        (Image.new("I;16", (9, 9)), "the image has pixels of Pillow's mode I;16, .*; convert it to 8 bits"),
    ],
)
def test_what_is_no_image_in_memory_is_one_line(trained: Path, image, said: str):
    detector = Detector(trained / "model.pth", device="cpu")
    with pytest.raises(UserError, match=said):
        detector(image)


def test_labels_can_be_left_out(smears: Path, capfd, monkeypatch):
    written = []
    monkeypatch.setattr(draw, "_write", lambda canvas, item, size: written.append(item.label))
    assert predict(capfd, smears, smears, "--score", 0).returncode == 0
    assert {label.split()[0] for label in written} <= {"ascus", "hsil"}
    count = len(written)
    assert count > 5
    assert predict(capfd, smears, smears, "--score", 0, "--no-labels").returncode == 0
    assert len(written) == count
