"""Reading configs: ours are complete, and errors name their cause."""

from pathlib import Path

import pytest
import yaml
from conftest import ROOT
from detectron2.config import get_cfg

from cervical_d2.config import add_cervical_config, load_config, load_dumped_config, packaged_configs
from cervical_d2.config_keys import KEYS
from cervical_d2.datasets.registry import resolve
from cervical_d2.engine.schedule import resolve_schedule
from cervical_d2.errors import UserError


def test_every_key_of_ours_is_in_the_config_and_explained():
    cfg = load_config()
    for key in KEYS:
        value = cfg
        for part in key.name.split("."):
            value = value[part]
        assert value == key.default
        assert key.meaning


@pytest.mark.parametrize("name", packaged_configs())
def test_packaged_configs_load_and_name_known_data_sets(name):
    cfg = load_config(name)
    for split in (*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST):
        assert resolve(split) == split
    assert cfg.INPUT.FORMAT == "RGB"
    mean = list(cfg.MODEL.PIXEL_MEAN)
    assert mean == [] or mean[0] > mean[2]  # to be computed first, or red first, as the format says


def test_there_are_the_configs_that_the_readme_promises():
    expected = {f"faster_rcnn_R_{depth}_FPN.yaml" for depth in (50, 101)} | {"retinanet_R_50_FPN.yaml"}
    expected |= {f"quick/{name}.yaml" for name in ("demo", "bccd", "cric")}
    assert expected <= set(packaged_configs())


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("configs/classifier/quick_herlev.yaml", "nearest: classifier/quick_herlev_"),
        ("quick/bcd.yaml", "nearest: quick/bccd.yaml"),
        ("no.yaml", "nearest: quick/demo.yaml"),
        ("/tmp/3cdenet/table02_DC/nowhere.yaml", "nearest: quick/demo.yaml"),
    ],
)
def test_a_config_that_is_not_there_is_told_with_the_nearest_and_where_all_are(name, nearest):
    with pytest.raises(UserError) as error:
        load_config(name)
    told = str(error.value)
    assert told.startswith(f"{name}: no such config file; of the {len(packaged_configs())} in {ROOT / 'configs'}, ")
    assert nearest in told
    assert len(told) < 300


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["SOLVER.BASE_LRR", "0.1"], ["SOLVER.BASE_LRR", "did you mean SOLVER.BASE_LR?"]),
        (["SOLVER.BASE_LR"], ["KEY VALUE"]),
        (["SOLVER.BASE_LR", "fast"], ["SOLVER.BASE_LR", "fast"]),
        (["SOLVER.AMP.DTYPE", "float8"], ["SOLVER.AMP.DTYPE", "'bfloat16'"]),
    ],
)
def test_mistakes_on_the_command_line_are_named(options, words):
    with pytest.raises(UserError) as error:
        load_config("", options)
    assert all(word in str(error.value) for word in words)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("SOLVER:\n  BASE_LRR: 0.1\n", ["unknown key SOLVER.BASE_LRR", "SOLVER.BASE_LR?"]),
        ("SOLVR:\n  BASE_LR: 0.1\n", ["unknown key SOLVR.BASE_LR", "SOLVER.BASE_LR?"]),
        ("SOLVER: [1\n", ["not a readable YAML"]),
        ("_BASE_: nowhere.yaml\n", ["nowhere.yaml"]),
        ("SOLVER:\n  MAX_ITER: many\n", ["SOLVER.MAX_ITER"]),
    ],
)
def test_mistakes_in_a_file_are_named_with_the_file(tmp_path: Path, text, words):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(UserError) as error:
        load_config(str(path))
    assert all(word in str(error.value) for word in ["mine.yaml", *words])


def test_missing_config_names_the_packaged_ones():
    with pytest.raises(UserError, match=r"quick/demo\.yaml"):
        load_config("quick/dmeo.yaml")


def test_whole_numbers_are_taken_for_floats(tmp_path: Path):
    path = tmp_path / "mine.yaml"
    path.write_text("SOLVER:\n  MAX_EPOCHS: 12\n")
    assert load_config(str(path)).SOLVER.MAX_EPOCHS == 12.0
    assert load_config("", ["SOLVER.MAX_EPOCHS", "7"]).SOLVER.MAX_EPOCHS == 7.0


def test_dumped_config_comes_back_equal():
    cfg = load_config("quick/demo.yaml", ["SOLVER.BASE_LR", "0.003"])
    again = load_dumped_config(cfg.dump(), "a checkpoint")
    assert yaml.safe_load(again.dump()) == yaml.safe_load(cfg.dump())  # as data: YAML has no tuples
    assert again.SOLVER.BASE_LR == 0.003


def test_dump_of_another_version_is_read_without_its_own_keys(caplog):
    text = load_config("quick/demo.yaml").dump() + "FLOAT64_PRECISION: high\n"
    with caplog.at_level("WARNING", "detectron2.cervical_d2"):
        cfg = load_dumped_config(text, "model_best.pth")
    assert cfg.MODEL.RESNETS.DEPTH == 18
    assert "model_best.pth" in caplog.text
    assert "FLOAT64_PRECISION" in caplog.text


def test_adding_our_keys_keeps_every_key_of_upstream():
    ours = get_cfg()
    add_cervical_config(ours)
    for section, value in get_cfg().items():
        assert section in ours
        if hasattr(value, "keys"):
            assert set(value) <= set(ours[section])


def schedule(images: int, **solver):
    cfg = load_config()
    for name, value in solver.items():
        cfg.SOLVER[name] = value
    resolve_schedule(cfg, images)
    return cfg


def test_epochs_become_iterations():
    # 100 images in batches of 8: 12.5 iterations an epoch.
    cfg = schedule(100, IMS_PER_BATCH=8, MAX_EPOCHS=24.0, EPOCH_STEPS=(16, 22))
    assert (cfg.SOLVER.MAX_ITER, cfg.SOLVER.STEPS) == (300, (200, 275))


def test_learning_rate_and_iterations_scale_with_the_batch():
    given = {"REFERENCE_BATCH": 2, "BASE_LR": 0.0025, "MAX_ITER": 1000, "STEPS": (600, 900), "WARMUP_ITERS": 500}
    cfg = schedule(100, IMS_PER_BATCH=8, **given)
    solver = cfg.SOLVER
    assert pytest.approx(0.01) == solver.BASE_LR
    assert (solver.MAX_ITER, solver.STEPS, solver.WARMUP_ITERS) == (250, (150, 225), 125)
    before = cfg.dump()
    resolve_schedule(cfg, 100)
    assert cfg.dump() == before  # a run's own config.yaml is not scaled again


def test_batch_of_the_reference_changes_nothing():
    cfg = schedule(100, IMS_PER_BATCH=2, REFERENCE_BATCH=2, BASE_LR=0.0025, MAX_ITER=1000, STEPS=(600, 900))
    assert (cfg.SOLVER.BASE_LR, cfg.SOLVER.MAX_ITER, cfg.SOLVER.STEPS) == (0.0025, 1000, (600, 900))
