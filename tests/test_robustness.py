"""Figures under corruption: those of the evaluator, kept through interruptions, of one model and split alone."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import listing, tool, write_tiny
from detectron2.evaluation import inference_on_dataset
from small_model import SMALL
from test_trainer import train

from cervical_d2.data.build import build_test_loader
from cervical_d2.data.corruptions import CORRUPTIONS, STRENGTHS
from cervical_d2.datasets.registry import resolve
from cervical_d2.evaluation.evaluator import CervicalCOCOEvaluator
from cervical_d2.evaluation.robustness import PLAN
from cervical_d2.inference.detector import Detector

IMAGES = 3  # of the split tiny_val


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """`tiny` with `model.pth`, trained until it finds something, and `whole`, what the tool made of it."""
    folder = write_tiny(tmp_path_factory.mktemp("robustness"))
    options = ("SOLVER.MAX_ITER", 150, "SOLVER.BASE_LR", 0.05, "SOLVER.CHECKPOINT_PERIOD", 1000, "TEST.EVAL_PERIOD", 0)
    train(folder, *SMALL, *options, "TEST.VAL_LOSS", False)
    shutil.copy(folder / "run/model_final.pth", folder / "model.pth")
    assert tool("robustness", *words(folder, "whole")) == 0
    return folder


def words(folder: Path, output: object, *more: object) -> list[str]:
    given = [folder / "model.pth", "--dataset", f"{folder}/data.yaml:val", "--output", folder / str(output)]
    return list(map(str, [*given, "--device", "cpu", *more]))


def rows(folder: Path) -> list[dict]:
    return json.loads((folder / "robustness.json").read_text())["results"]


@pytest.fixture
def calls(monkeypatch) -> list:
    """Grows by one with each image that a detector gets; `calls.limit` of them, then somebody interrupts."""

    class Calls(list):
        limit = 10**9

    seen, call = Calls(), Detector.__call__

    def counted(self, image):
        if len(seen) == seen.limit:
            raise KeyboardInterrupt
        seen.append(1)
        return call(self, image)

    monkeypatch.setattr(Detector, "__call__", counted)
    return seen


def test_every_corruption_and_strength_is_told(trained: Path):
    names = {"robustness.json", "robustness.txt", "robustness.png", "sheet.png"}
    assert set(listing(trained / "whole")) == names
    found = rows(trained / "whole")
    expected = [("none", 0), *((item.name, strength) for item in CORRUPTIONS for strength in STRENGTHS)]
    assert [(row["corruption"], row["strength"]) for row in found] == expected
    assert [row["value"] for row in found[1:6]] == list(CORRUPTIONS[0].values)
    assert found[0]["AP50"] > 20  # otherwise the figures below say nothing
    assert len({row["AP50"] for row in found}) > 5
    text = (trained / "whole/robustness.txt").read_text()
    assert "tiny_val: AP50 on 3 images" in text
    assert f"{found[0]['AP50']:.2f}" in text


def test_undisturbed_figures_are_the_evaluators(trained: Path):
    name = resolve(f"{trained}/data.yaml:val")
    detector = Detector(trained / "model.pth", device="cpu", for_evaluation=True)
    evaluator = CervicalCOCOEvaluator(name, distributed=False)
    expected = inference_on_dataset(detector.model, build_test_loader(detector.cfg, name), evaluator)["bbox"]
    row = rows(trained / "whole")[0]
    figures = {key: value for key, value in row.items() if key not in ("corruption", "strength")}
    assert {"AP", "AP50", "APs", "APl", "AR100"} <= set(figures)
    assert None in figures.values()  # no large cells
    for key, value in figures.items():
        assert (np.nan if value is None else value) == pytest.approx(expected[key], abs=1e-6, nan_ok=True), key


def test_an_interrupted_command_goes_on_where_it_was(trained: Path, calls, capsys):
    calls.limit = 1  # nothing is evaluated yet, and the folder is known as ours
    assert tool("robustness", *words(trained, "stopped")) == 130
    assert rows(trained / "stopped") == []
    calls.limit = 1 + 3 * IMAGES + 2  # in the middle of the fourth evaluation
    assert tool("robustness", *words(trained, "stopped")) == 130
    assert len(rows(trained / "stopped")) == 3
    calls.limit = 10**9
    calls.clear()
    assert tool("robustness", *words(trained, "stopped")) == 0
    assert len(calls) == (len(PLAN) - 3) * IMAGES
    assert "going on, 3 of 36 evaluations are there" in capsys.readouterr().out
    assert listing(trained / "stopped") == listing(trained / "whole")
    calls.clear()
    assert tool("robustness", *words(trained, "stopped")) == 0
    assert not calls
    assert listing(trained / "stopped") == listing(trained / "whole")


def other_weights(folder: Path) -> None:
    content = torch.load(folder / "model.pth", weights_only=True)
    torch.save({**content, "note": 1}, folder / "model.pth")


def moved_box(folder: Path) -> None:
    document = json.loads((folder / "val.json").read_text())
    document["annotations"][0]["bbox"][2] -= 1
    (folder / "val.json").write_text(json.dumps(document))


def other_strength(folder: Path) -> None:
    path = folder / "whole/robustness.json"
    path.write_text(path.read_text().replace("0.7,", "0.6,", 1))


def broken(folder: Path) -> None:
    path = folder / "whole/robustness.json"
    path.write_bytes(path.read_bytes()[:300])


def another_tools(folder: Path) -> None:
    (folder / "whole/.cervical_d2.json").unlink()


def as_it_is(folder: Path) -> None:
    """Nothing changes."""


@pytest.mark.parametrize(
    ("change", "more", "said"),
    [
        (other_weights, (), "whole/robustness.json: of other weights; choose another --output"),
        (moved_box, (), "of other annotations; choose"),
        (other_strength, (), "of other strengths; choose"),
        (as_it_is, ("--seed", 1), "of other seed; choose"),
        (as_it_is, ("--samples", 2), "of other images, annotations; choose"),
        (broken, (), "robustness.json: not a file of this tool"),
        (another_tools, (), "whole: holds something else (robustness.json); choose another output"),
    ],
)
def test_results_of_something_else_are_refused_and_kept(trained: Path, tmp_path, capsys, calls, change, more, said):
    folder = shutil.copytree(trained, tmp_path / "copy")
    change(folder)
    before = listing(folder)
    assert tool("robustness", *words(folder, "whole", *more)) == 2
    assert said in capsys.readouterr().err
    assert listing(folder) == before
    assert not calls


def without_images(folder: Path) -> None:
    path = folder / "data.yaml"
    path.write_text(path.read_text().replace("val: {images: images, ", "val: {"))


def without_classes(folder: Path) -> None:
    torch.save({"model": {"a": torch.ones(1)}}, folder / "model.pth")


def other_classes(folder: Path) -> None:
    path = folder / "data.yaml"
    path.write_text(path.read_text().replace("[{ascus: [ASC-US]}, hsil]", "[{asch: [ASC-US]}, hsil]"))


def no_weights(folder: Path) -> None:
    (folder / "model.pth").unlink()


@pytest.mark.parametrize(
    ("change", "more", "said"),
    [
        (as_it_is, ("--dataset", "bcd_test"), "no dataset is called 'bcd_test'; did you mean bccd_test?"),
        (as_it_is, ("--device", "nonsense"), "device nonsense: not usable here"),
        (as_it_is, ("--device", "meta"), "device meta: not usable here"),
        (as_it_is, ("--output", "{folder}/model.pth/new"), "model.pth is not a folder; choose another output"),
        (as_it_is, ("--output", "{folder}/model.pth"), "model.pth: a file; name a folder as output"),
        (without_images, (), "tiny_val: boxes without images"),
        (no_weights, (), "model.pth: no such weights file"),
        (without_classes, (), "model.pth: carries no config and classes; name a checkpoint of `cervical-d2 train`"),
        (other_classes, (), "tiny_val has the classes ['asch', 'hsil'], but the weights find ['ascus', 'hsil']; name"),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing(trained: Path, tmp_path: Path, capsys, change, more, said):
    folder = shutil.copytree(trained, tmp_path / "copy")
    change(folder)
    before = listing(folder)
    assert tool("robustness", *words(folder, "new", *(str(word).format(folder=folder) for word in more))) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert said in line
    assert listing(folder) == before


def test_bad_numbers_are_refused(capsys):
    for wrong in (("--samples", 0), ("--seed", -1)):
        with pytest.raises(SystemExit) as stop:
            tool("robustness", "w.pth", "--dataset", "d", "--output", "o", *wrong)
        assert stop.value.code == 2
    assert "argument --samples: '0' is not a whole number, 1 or more" in capsys.readouterr().err
