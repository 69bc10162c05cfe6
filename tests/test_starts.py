"""The tables of initial weights: configs match their rows, and quick rows have the right initial weights."""

import pytest
from conftest import ROOT
from detectron2.modeling import build_model

from cervical_d2.checkpoint.published_weights import read_weights
from cervical_d2.config import config_path, differences, load_config, set_num_classes
from cervical_d2.errors import UserError
from cervical_d2.papers.experiments import make_plan, parse_table
from cervical_d2.papers.tables import read_paper

PAPER = read_paper("starts")
ROWS = {row.config: row for rows in PAPER.rows.values() for row in rows}
START = {"OUTPUT_DIR", "MODEL.WEIGHTS", "MODEL.RESNETS.NORM", "MODEL.BACKBONE.FREEZE_STAGES"}


def file_of(start: str) -> str:
    return "" if start == "none" else read_weights()[start].file


def test_every_row_has_a_config_and_no_config_is_of_no_row():
    leaves = {path.name for path in (ROOT / "configs/starts").glob("*.yaml")}
    assert {f"starts/{name}" for name in leaves if not name.startswith("Base-")} == set(ROWS)


@pytest.mark.parametrize("name", ROWS)
def test_a_leaf_is_short_and_says_what_its_row_says(name):
    assert len(config_path(name).read_text().splitlines()) <= 8
    cfg, facts = load_config(name), ROWS[name].facts
    assert (file_of(facts["initialization"]), facts["norm"]) == (cfg.MODEL.WEIGHTS, cfg.MODEL.RESNETS.NORM)
    kind = "DC_59" if "dc_resnet" in cfg.MODEL.BACKBONE.NAME else f"R_{cfg.MODEL.RESNETS.DEPTH}"
    assert kind == facts.get("backbone", f"R_{facts.get('depth')}")
    assert (cfg.MODEL.BACKBONE.FREEZE_AT, list(cfg.MODEL.BACKBONE.FREEZE_STAGES)) == (0, facts["frozen"])
    assert name.removesuffix(".yaml") in cfg.OUTPUT_DIR


def test_a_start_changes_nothing_else():
    classifiers, detectors = ({row.label: load_config(row.config) for row in PAPER.rows[number]} for number in (1, 2))
    for one, other in (("R18", "R18, ImageNet"), ("R50", "R50, ImageNet")):
        assert {key for key, _, _ in differences(classifiers[one], classifiers[other])} == START
    changed = {other: {key for key, _, _ in differences(detectors["none"], detectors[other])} for other in detectors}
    assert changed["classifier of cells"] == {"OUTPUT_DIR", "MODEL.WEIGHTS"}
    assert changed["ImageNet, nothing frozen"] == {"OUTPUT_DIR", "MODEL.WEIGHTS"}
    assert changed["classifier of cells, frozen"] == changed["ImageNet"] == START
    networks = {key for key, _, _ in differences(classifiers["R50"], classifiers["DC-ResNet-59"])}
    assert networks == {"OUTPUT_DIR", "MODEL.BACKBONE.NAME"}


def test_quick_classifiers_are_those_of_the_rows():
    plan = make_plan(*parse_table("starts:1"), quick="herlev")
    for item in plan.experiments:
        cfg, full = load_config(item.config, item.options), load_config(str(item.row.config))
        assert cfg.MODEL.BACKBONE.NAME == full.MODEL.BACKBONE.NAME
        assert (cfg.MODEL.WEIGHTS, cfg.MODEL.RESNETS.NORM) == (full.MODEL.WEIGHTS, full.MODEL.RESNETS.NORM)
        assert cfg.MODEL.BACKBONE.FREEZE_STAGES == full.MODEL.BACKBONE.FREEZE_STAGES
        if item.row.label != "DC-ResNet-59":
            assert (cfg.MODEL.RESNETS.DEPTH, cfg.MODEL.RESNETS.RES2_OUT_CHANNELS) == (
                full.MODEL.RESNETS.DEPTH, full.MODEL.RESNETS.RES2_OUT_CHANNELS)  # fmt: skip
        assert (cfg.INPUT.SIDE, cfg.DATASETS.FOLDS) == (112, 5)
    assert (plan.baseline.row.label, plan.floor, plan.left_out) == ("R18", 76, {})


def test_quick_detectors_start_where_their_rows_say():
    plan = make_plan(*parse_table("starts:2"), quick="cric", pretrained=True)
    cfgs = [load_config(item.config, [*item.options, "MODEL.DEVICE", "cpu"]) for item in plan.experiments]
    cells, imagenet = ["weights/R_18_cells.pth"] * 2, ["weights/R_18_imagenet.pth"] * 2
    assert [cfg.MODEL.WEIGHTS for cfg in cfgs] == ["", *cells, *imagenet]
    assert [cfg.MODEL.RESNETS.NORM for cfg in cfgs] == ["BN", "BN", "EvalBN", "BN", "EvalBN"]
    frozen = [bool(cfg.MODEL.BACKBONE.FREEZE_STAGES) for cfg in cfgs]
    assert frozen == [False, False, True, False, True]
    assert (plan.baseline.row.label, plan.floor) == ("none", 30)
    assert make_plan(*parse_table("starts:2"), quick="cric").left_out == {
        "classifier of cells": "the same as 'none' at this size",
        "classifier of cells, frozen": "frozen stages with random weights are noise; --pretrained starts from a "
        "classifier",
    }
    # The classifier that the message names has every weight of this backbone.
    cells = load_config("classifier/quick_R_18.yaml", ["MODEL.DEVICE", "cpu"])
    assert "classifier/quick_R_18.yaml" in read_weights()["R_18_cells"].command
    for cfg, count in ((cfgs[1], 6), (cells, 11)):
        set_num_classes(cfg, count)
    bottom_up, backbone = build_model(cfgs[1]).backbone.bottom_up, build_model(cells).backbone
    shapes = [{name: value.shape for name, value in part.state_dict().items()} for part in (bottom_up, backbone)]
    assert shapes[0] == shapes[1]


@pytest.mark.parametrize("table", ["xu:3", "starts:1"])
def test_a_table_without_classifiers_of_cells_has_none_to_start_from(table):
    paper, number = parse_table(table)
    with pytest.raises(UserError, match=f"^--pretrained: no row of table {number} starts from a classifier of cells$"):
        make_plan(paper, number, quick="herlev" if paper.name == "starts" else "cric", pretrained=True)
