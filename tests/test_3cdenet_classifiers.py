"""3cDe-Net's tables of classifiers: each row's config says what the row says, and folds become rows of a table."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import ROOT, tool

from cervical_d2.config import differences, load_config
from cervical_d2.errors import UserError
from cervical_d2.papers import classifiers
from cervical_d2.papers.classifiers import done
from cervical_d2.papers.experiments import Job, jobs, make_plan, parse_table
from cervical_d2.papers.outcomes import document, markdown, outcomes, passed, runner_of
from cervical_d2.papers.tables import CLASSIFIERS, read_paper
from cervical_d2.report.confusion_plot import confusion_figure

PAPER = read_paper("3cdenet")
ROWS = {row.config: row for number in (2, 3) for row in PAPER.rows[number]}
TORCHVISION = {"inception_v3": ["inception_v3"], "concatenation": ["inception_v3", "resnet152"]}
ANSWERS = "evaluation/herlev_val/predictions.json"


@pytest.mark.parametrize("name", ROWS)
def test_a_leaf_is_short_and_says_what_its_row_says(name):
    assert len((ROOT / "configs" / name).read_text().splitlines()) <= 8
    cfg, kind = load_config(name), ROWS[name].facts["backbone"]
    backbone = cfg.MODEL.BACKBONE
    if kind in TORCHVISION:
        assert (backbone.NAME, list(backbone.NETWORKS)) == ("build_torchvision_backbone", TORCHVISION[kind])
    elif kind == "DC_59":
        assert backbone.NAME == "build_dc_resnet_backbone"
    else:
        assert (backbone.NAME, f"R_{cfg.MODEL.RESNETS.DEPTH}") == ("build_cervical_resnet_backbone", kind)
    assert (cfg.DATASETS.FOLDS, tuple(cfg.DATASETS.RATIOS)) == {2: (0, (0.8, 0.1, 0.1)), 3: (5, ())}[ROWS[name].table]
    assert (299 if kind == "inception_v3" else 224) == cfg.INPUT.SIDE
    assert not cfg.DATASETS.LEAK_COPIES_ACROSS_SPLITS
    assert name.removesuffix(".yaml") in cfg.OUTPUT_DIR


def test_rows_differ_by_their_network_alone():
    for number in (2, 3):
        first, *others = (load_config(row.config) for row in PAPER.rows[number])
        changed = {key for cfg in others for key, _, _ in differences(first, cfg)}
        assert changed <= {"OUTPUT_DIR", "MODEL.BACKBONE.NAME", "MODEL.BACKBONE.NETWORKS", "MODEL.RESNETS.DEPTH",
                           "INPUT.SIDE"}  # fmt: skip


def test_quick_rows_train_whole_networks_on_herlev():
    plan = make_plan(*parse_table("3cde:2"), quick="herlev")
    cfgs = [load_config(item.config, item.options) for item in plan.experiments]
    assert [cfg.MODEL.BACKBONE.NAME.split("_")[1] for cfg in cfgs] == ["cervical", "cervical", "dc"]
    assert [cfg.MODEL.RESNETS.DEPTH for cfg in cfgs[:2]] == [50, 101]
    assert [cfg.MODEL.RESNETS.RES2_OUT_CHANNELS for cfg in cfgs[:2]] == [256, 256]
    assert {(cfg.INPUT.SIDE, cfg.DATASETS.FOLDS, cfg.MODEL.WEIGHTS) for cfg in cfgs} == {(112, 5, "")}
    assert (plan.floor, plan.baseline.row.label) == (76, "R50")
    networks = make_plan(*parse_table("3cde:3"), quick="herlev").experiments
    assert networks[2].options[-1] == "('inception_v3', 'resnet152')"
    for table, quick, known in (("3cde:2", "bccd", "herlev"), ("3cde:4", "herlev", "bccd, cric, demo")):
        with pytest.raises(UserError, match=f"--quick {quick}: for .* there is {known}$"):
            make_plan(*parse_table(table), quick=quick)


def test_elsewhere_each_fold_is_a_training_of_its_own(capsys):
    assert tool("reproduce", "3cde:3", "--rows", "R152", "--print", "slurm") == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 5
    for fold, line in enumerate(lines):
        assert f"cervical-d2 train-classifier --fold {fold} --resume --config-file 3cdenet/table03_R_152.yaml" in line


def answer(job: Job, folds: list[str], first: int = 0) -> None:
    """As if trained and tested: letters are images, capital ones abnormal; of `x` and `X` the answer was wrong."""
    for number, text in enumerate(folds):
        folder = job.folder / f"fold{number}"
        (folder / "evaluation/herlev_val").mkdir(parents=True)
        (folder / "model_final.pth").touch()
        cfg = load_config(job.experiment.config, ["DATASETS.FOLDS", "0", "DATASETS.TEST", "('herlev_val',)"])
        (folder / "config.yaml").write_text(cfg.dump())
        rows = [
            {"file_name": "f", "image_id": first + place, "group_id": None, "label": int(letter.isupper()),
             "scores": [0.9, 0.1] if letter.isupper() == (letter in "xX") else [0.1, 0.9]}
            for place, letter in enumerate(text)
        ]  # fmt: skip
        (folder / ANSWERS).write_text(
            json.dumps({"dataset": "d", "classes": ["normal", "abnormal"], "positive": 1, "images": rows})
        )


def test_a_job_is_done_when_every_fold_is(tmp_path: Path):
    (job,) = jobs(make_plan(*parse_table("3cde:3"), ["R152"]), 1, tmp_path)
    answer(job, ["aA"] * 4)
    assert not done(job)
    answer(Job(job.experiment, 0, tmp_path / "whole"), ["aA"] * 5)
    assert done(Job(job.experiment, 0, tmp_path / "whole"))
    (tmp_path / "whole/fold3/model_final.pth").unlink()
    assert not done(Job(job.experiment, 0, tmp_path / "whole"))


def test_rows_are_means_of_folds_on_the_same_images(tmp_path: Path):
    plan = make_plan(*parse_table("3cde:3"), ["R152", "DC-ResNet-59"])
    base, other = todo = jobs(plan, 1, tmp_path)
    assert runner_of(plan).command == "train-classifier"
    # Half of the first fold's four cells are wrong, none of the second's; then one of four, none.
    answer(base, ["xxAA", "aaAA", "aaAA", "aaAA", "aaAA"])
    answer(other, ["axAA", "aaAA", "aaAA", "aaAA", "aaAA"])
    found = outcomes(plan, todo, 50)
    assert found[0].values["accuracy"] == [50, 100, 100, 100, 100]
    assert found[1].interval["accuracy"].value == pytest.approx(95)
    assert found[1].interval["specificity"].value == pytest.approx(90)
    change = found[1].difference["accuracy"]
    assert change.value == pytest.approx(5)
    assert 0 <= change.low <= 5 <= change.high
    assert passed(plan._replace(floor=89), found, "herlev")[0]
    reached, told = passed(plan._replace(floor=91), found, "herlev")
    assert (reached, told[:58]) == (False, "The baseline (R152): accuracy 90.0; its floor is 91. It is")
    text = markdown(plan._replace(floor=80), found, "herlev", "COMMAND")
    assert (
        "| row | trainings | accuracy | 95 % | sd | sensitivity | specificity | H-mean | F1 | AUROC | difference of"
        in text
    )
    assert "| DC-ResNet-59 | 5 | 95.0 |" in text
    assert "paper |" not in text  # nothing is printed
    assert document(plan._replace(floor=80), found, "herlev")["rows"][1]["values"]["h_mean"][1] == 100


def test_rows_of_other_images_are_refused(tmp_path: Path):
    plan = make_plan(*parse_table("3cde:3"), ["R152", "DC-ResNet-59"])
    base, other = todo = jobs(plan, 1, tmp_path)
    answer(base, ["aaAA"] * 5)
    answer(other, ["aaAA"] * 5, first=1)
    with pytest.raises(UserError, match=r"table03_DC_59/seed0: tested on other images than .*table03_R_152/seed0"):
        outcomes(plan, todo, 5)


def test_what_is_published_is_in_every_row():
    assert {PAPER.tasks[number] for number in (2, 3)} == {CLASSIFIERS}
    for name in ROWS:
        cfg = load_config(name)
        solver = cfg.SOLVER
        assert (solver.BASE_LR, solver.IMS_PER_BATCH, solver.MOMENTUM, solver.MAX_EPOCHS) == (0.01, 32, 0.9, 1000)
        assert tuple(solver.EPOCH_STEPS[:3]) == (50, 60, 70)
        assert tuple(cfg.DATALOADER.CLASS_REPEATS) == (20, 10)


def test_confusion_matrices_stand_side_by_side():
    few = {"one": np.array([[3, 1], [0, 6]]), "other": np.array([[0, 4], [2, 4]])}
    first, other = confusion_figure(few, ["normal", "abnormal"]).axes
    assert (first.get_title(), other.get_title()) == ("one", "other")
    assert [text.get_text() for text in first.texts] == ["3\n75.0 %", "1\n25.0 %", "0\n0.0 %", "6\n100.0 %"]
    assert [text.get_color() for text in first.texts] == ["white", "black", "black", "white"]
    assert [label.get_text() for label in first.get_yticklabels()] == ["normal", "abnormal"]
    many = confusion_figure({"all": np.eye(11, dtype=int) * 5}, [f"c{number}" for number in range(11)]).axes[0]
    assert [text.get_text() for text in many.texts].count("5") == 11
    assert [text.get_text() for text in many.texts].count("") == 110


def test_a_tables_picture_has_all_folds_of_each_row(tmp_path: Path, monkeypatch):
    plan = make_plan(*parse_table("3cde:3"), ["R152", "DC-ResNet-59"])
    base, other = jobs(plan, 1, tmp_path)
    answer(base, ["xxAA", "aaAA", "aaAA", "aaAA", "aaAA"])
    answer(other, ["axAA", "aaAA", "aaAA", "aaAA", "aaAX"])
    seen = []
    monkeypatch.setattr(classifiers, "confusion_figure", lambda *words: seen.append(words) or confusion_figure(*words))
    runner_of(plan).draw({"R152": base, "DC": other}, tmp_path / "pictures")
    ((matrices, classes),) = seen
    assert {name: matrix.tolist() for name, matrix in matrices.items()} == {
        "R152": [[8, 2], [0, 10]],
        "DC": [[9, 1], [1, 9]],
    }
    assert len(classes) == 2
    assert cv2.imread(str(tmp_path / "pictures/sheet.png")).shape[1] == 1000
