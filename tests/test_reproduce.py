"""Repeating a table: which trainings that is, and what is told of them."""

import json
import subprocess
from pathlib import Path

import cv2
import forked
import pytest
import torch
from conftest import real_data, tool
from detectron2.modeling import build_model

from cervical_d2.config import load_config
from cervical_d2.engine.run_folder import RunFolder
from cervical_d2.errors import UserError
from cervical_d2.papers import quick
from cervical_d2.papers.detectors import done, split_of
from cervical_d2.papers.experiments import Job, jobs, make_plan, parse_table, run_jobs
from cervical_d2.papers.outcomes import markdown
from cervical_d2.papers.tables import DETECTORS
from cervical_d2.report.pictures import GAP


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("xu", "name a paper"),
        ("yu:3", r"name a paper \(xu, 3cde, starts\)"),
        ("xu:2", "has the tables 3, 4, 5, 6, 7, 8, 9, 10, 11"),
    ],
)
def test_unknown_tables_are_refused(text, message):
    with pytest.raises(UserError, match=message):
        parse_table(text)


def test_a_table_at_the_papers_size_is_its_rows_configs():
    plan = make_plan(*parse_table("xu:5"))
    assert len(plan.experiments) == 9
    assert plan.baseline.row.label == "stem, 1st"
    assert {item.options for item in plan.experiments} == {()}
    assert plan.experiments[-1].config == "xu2022/table05_R_50_freeze_stem_res5.yaml"
    assert (plan.floor, plan.left_out) == (50, {})


def test_rows_of_other_methods_are_left_out_with_a_reason():
    plan = make_plan(*parse_table("xu:11"))
    assert list(plan.left_out) == ["ComparisonDetector"]
    assert len(plan.experiments) == 4


def test_some_rows_bring_their_baseline_and_unknown_ones_are_refused():
    paper, table = parse_table("xu:5")
    plan = make_plan(paper, table, ["stem, first 4"])
    assert [item.row.label for item in plan.experiments] == ["stem, 1st", "stem, first 4"]
    with pytest.raises(UserError, match="no row 'first 9' in table 5; there are none; stem; stem, 1st"):
        make_plan(paper, table, ["first 9"])
    with pytest.raises(UserError, match="--quick coco: for detection there is bccd, cric, demo"):
        make_plan(paper, table, quick="coco")


def options(item):
    return dict(zip(item.options[::2], item.options[1::2], strict=True))


def test_quick_rows_change_what_the_paper_changes():
    plan = make_plan(*parse_table("xu:8"), quick="bccd")
    losses = [options(item)["MODEL.ROI_BOX_HEAD.BBOX_REG_LOSS_TYPE"] for item in plan.experiments]
    assert losses == ["l1", "smooth_l1", "iou", "giou"]
    assert [options(item)["MODEL.ROI_BOX_HEAD.BBOX_REG_LOSS_WEIGHT"] for item in plan.experiments] == [
        "1.0", "1.0", "10.0", "10.0",
    ]  # fmt: skip
    rest = [{k: v for k, v in options(item).items() if "BBOX_REG_LOSS" not in k} for item in plan.experiments]
    assert all(other == rest[0] for other in rest)
    assert rest[0]["MODEL.WEIGHTS"] == "weights/R_18_imagenet.pth"
    assert plan.floor == 60
    five = make_plan(*parse_table("xu:5"), ["none", "stem, first 4"], quick="cric")
    assert [options(item)["MODEL.BACKBONE.FREEZE_STAGES"] for item in five.experiments] == [
        "()", "('stem', 'res2')", "('stem', 'res2', 'res3', 'res4', 'res5')",
    ]  # fmt: skip


def test_settings_are_those_of_all_rows_and_no_factor():
    plan, same = (make_plan(*parse_table("xu:8"), quick="bccd", settings=words) for words in (["SEED", "7"], []))
    for item, other in zip(plan.experiments, same.experiments, strict=True):
        assert item.options == (*other.options, "SEED", "7")
    assert plan.baseline is plan.experiments[0]
    with pytest.raises(UserError, match=r"--set MODEL.ROI_BOX_HEAD.BBOX_REG_LOSS_TYPE: the rows of the table differ"):
        make_plan(*parse_table("xu:8"), settings=["MODEL.ROI_BOX_HEAD.BBOX_REG_LOSS_TYPE", "l2"])
    with pytest.raises(UserError, match=r"unknown key SOLVER.MAX_EPOCS; did you mean SOLVER.MAX_EPOCHS"):
        make_plan(*parse_table("xu:8"), settings=["SOLVER.MAX_EPOCS", "4"])


def test_quick_rows_that_are_the_same_at_that_size_are_trained_once():
    plan = make_plan(*parse_table("xu:3"), quick="bccd")
    assert [item.row.label for item in plan.experiments] == ["R50, none", "R50, ImageNet"]
    assert plan.baseline.row.label == "R50, ImageNet"  # in place of COCO's
    assert plan.left_out["R50, COCO 1x"] == "the same as 'R50, ImageNet' at this size"
    assert options(plan.experiments[0])["MODEL.WEIGHTS"] == ""
    assert options(plan.baseline)["INPUT.MIN_SIZE_TRAIN"] == "(320,)"  # one scale, the largest


@real_data
def test_quick_statistics_are_the_datas_own_and_cocos_left_out(monkeypatch):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(Path(__file__).parents[2] / "shared/data"))
    plan = make_plan(*parse_table("xu:10"), quick="bccd")
    assert [item.row.label for item in plan.experiments] == ["ImageNet", "self"]
    # As `cervical-d2 mean-std` prints for bccd_train.
    assert options(plan.experiments[1])["MODEL.PIXEL_MEAN"] == "[188.008, 177.519, 182.28]"
    assert plan.left_out == {"COCO": "the COCO images are not available"}


def test_jobs_go_seed_by_seed_with_the_baseline_first(tmp_path: Path):
    plan = make_plan(*parse_table("xu:8"), ["GIoU"])
    todo = jobs(plan, 2, tmp_path)
    assert [(job.experiment.row.label, job.seed) for job in todo] == [("L1", 0), ("GIoU", 0), ("L1", 1), ("GIoU", 1)]
    assert todo[1].words == ["--resume", "--config-file", "xu2022/table08_R_50_giou.yaml", "SEED", "0", "OUTPUT_DIR",
                             str(tmp_path / "table08_R_50_giou/seed0")]  # fmt: skip


def on_tiny(tiny: Path, labels):
    """Table 8 at the paper's size, evaluated on the tiny dataset."""
    return make_plan(*parse_table("xu:8"), labels, settings=["DATASETS.TEST", f"('{tiny / 'data.yaml'}:val',)"])


def finish(job: Job, rows) -> int:
    """As if `job` had been trained, and found `rows`."""
    run = RunFolder(job.folder)
    path = run.predictions(split_of(job))
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(rows))
    run.final.touch()
    return 0


def test_what_is_done_is_not_done_again_and_a_failure_stops(tmp_path: Path):
    todo = jobs(make_plan(*parse_table("xu:8")), 1, tmp_path)
    finish(todo[1], [])
    trained, told = [], []

    def train(job):
        trained.append(job.experiment.row.label)
        return 3 if len(trained) == 2 else finish(job, [])

    with pytest.raises(UserError, match=r"table08_R_50_iou/seed0: the training ended with exit code 3"):
        run_jobs(todo, done, train, told.append)
    assert trained == ["L1", "IoU"]
    assert told[1] == "2/4 SmoothL1, seed 0: already done"
    run_jobs(todo, done, lambda job: finish(job, []), told.append)
    assert [line.split(": ")[1] for line in told[4:]][:3] == [
        "already done",
        "already done",
        f"training into {todo[2].folder}",
    ]


def test_a_training_that_diverges_is_told_and_the_others_are_trained(tmp_path: Path):
    plan = make_plan(*parse_table("xu:8"))
    todo, trained, told = jobs(plan, 1, tmp_path), [], []

    def train(job):
        trained.append(job.experiment.row.label)
        return 2 if job.experiment.row.label == "IoU" else finish(job, [])

    with pytest.raises(UserError, match=r"table08_R_50_iou/seed0: the training ended with exit code 2; see above$"):
        run_jobs(todo, done, train, told.append)
    assert trained == [job.experiment.row.label for job in todo]
    missing = [job for job in todo if not done(job)]
    assert "- IoU: seed 0 has no result." in markdown(plan, [], "", "", missing).splitlines()


def test_the_tool_trains_reports_and_goes_on(tiny: Path, monkeypatch, capfd):
    config = (tiny / "config.yaml").read_text()
    (tiny / "config.yaml").write_text(config.replace("MAX_ITER: 4", "MAX_ITER: 1") + "SEED: 0\n")
    monkeypatch.setitem(quick.QUICK[DETECTORS], "tiny", str(tiny / "config.yaml"))
    monkeypatch.setitem(parse_table("xu:8")[0].floors[DETECTORS], "tiny", 0)
    (tiny / "weights").mkdir()
    baseline = make_plan(*parse_table("xu:8"), quick="tiny").baseline
    model = build_model(load_config(baseline.config, baseline.options))
    torch.save({"model": model.state_dict()}, tiny / "weights/R_18_imagenet.pth")
    monkeypatch.chdir(tiny)
    monkeypatch.setattr(subprocess, "run", forked.run)  # what the child's first words start is shown in test_cli.py
    words = ["xu:8", "--quick", "tiny", "--rows", "GIoU", "--samples", "5", "--output", str(tiny / "out")]
    assert tool("reproduce", *words) == 0
    text = (tiny / "out/results.md").read_text()
    assert "# Xu et al. 2022, Table 8: Box losses at the size of tiny" in text
    assert "cervical-d2 reproduce xu:8 --quick tiny" in text
    assert "| L1 |" in text
    assert "| GIoU |" in text
    sheet = cv2.imread(str(tiny / "out/pictures/sheet.png"))
    picture = cv2.imread(str(tiny / "out/pictures/val1.png"))
    assert picture.shape[1] == 3 * 96 + 2 * GAP  # truth, L1, GIoU
    assert sheet.shape[1] == 1400
    capfd.readouterr()
    assert tool("reproduce", *words) == 0
    assert capfd.readouterr().out.count("already done") == 2


def test_bad_numbers_are_refused():
    with pytest.raises(SystemExit) as refused:
        tool("reproduce", "xu:5", "--seeds", 0)
    assert refused.value.code == 2
