"""A classifier on the detector's engine: it learns, resumes exactly, and keeps to its schedule."""

from pathlib import Path

import numpy as np
import pytest
import torch
from classifier_scenes import config, forget_parts, write_cells
from detectron2.solver import build_lr_scheduler
from test_resume import Killed, history, kill_at, states, unequal

from cervical_d2.config import load_config
from cervical_d2.curation.folds import divide
from cervical_d2.data.cell_augmentation import CellMapper, resize
from cervical_d2.data.cell_records import labeled_records, labels_of
from cervical_d2.engine.cross_validation import config_of
from cervical_d2.engine.schedule import resolve_schedule
from cervical_d2.engine.setup import prepare
from cervical_d2.engine.trainer import Trainer
from cervical_d2.errors import UserError
from cervical_d2.evaluation.classification_evaluator import read_answers

pytest_plugins = ["classifier_fixture"]

# All that a resume could get wrong is on: dropout, repeats, weights, averages, drops of the rate, workers.
DEMANDING = (
    "SOLVER.MAX_ITER", 8, "SOLVER.CHECKPOINT_PERIOD", 3, "SOLVER.CHECKPOINT_KEEP", 0, "SOLVER.EMA_DECAY", 0.9,
    "SOLVER.LR_SCHEDULER_NAME", "WarmupMultiStepLR", "SOLVER.STEPS", (5, 7), "SOLVER.LR_FLOOR", 1e-3,
    "TEST.EVAL_PERIOD", 4, "DATALOADER.NUM_WORKERS", 2, "DATALOADER.CLASS_REPEATS", (2, 3),
    "MODEL.CLASSIFIER.CLASS_WEIGHTS", "('balanced',)", "MODEL.CLASSIFIER.FC_DIMS", (6,),
    "MODEL.CLASSIFIER.DROPOUT_ON_SCORES", True, "INPUT.STAIN_JITTER", 0.1, "INPUT.BLUR", 1,
)  # fmt: skip


def trainer_of(folder: Path, *options: object, resume: bool = False) -> Trainer:
    """Of the first fold."""
    forget_parts()
    cfg = config(folder, *options)
    cfg = config_of(cfg, divide(cfg)[0])
    prepare(cfg, resume=resume)
    Path(cfg.OUTPUT_DIR).mkdir(exist_ok=True, parents=True)
    torch.manual_seed(0)
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=resume)
    return trainer


def train(folder: Path, *options: object, resume: bool = False) -> Trainer:
    trainer = trainer_of(folder, *options, resume=resume)
    trainer.train()
    return trainer


def weights(trainer: Trainer) -> dict:
    return {name: value.clone() for name, value in trainer.model.state_dict().items()}


def test_it_learns_and_its_files_say_what_the_model_says(cells: Path):
    trainer = train(cells, "SOLVER.MAX_ITER", 60, "SOLVER.BASE_LR", 0.2, "TEST.EVAL_PERIOD", 30,
                    "SOLVER.IMS_PER_BATCH", 8, "SOLVER.REFERENCE_BATCH", 8)  # fmt: skip
    name = trainer.cfg.DATASETS.TEST[0]
    records = labeled_records([name])
    majority = np.bincount(labels_of(records)).max() / len(records)
    assert majority < 0.6
    results = trainer._last_eval_results["classification"]
    assert results["accuracy"] > 90
    answered = read_answers(cells / f"run/fold0/evaluation/{name}/predictions.json")
    mapper, model = CellMapper([resize(trainer.cfg)], "RGB"), trainer.model.eval()
    for record, row in zip(records, answered.rows, strict=True):
        assert row["file_name"] == record["file_name"]
        with torch.no_grad():
            scores = model([mapper(record)])[0]["scores"]
        assert row["scores"] == pytest.approx(scores.tolist(), abs=1e-5)
    lines = history(cells / "run/fold0")
    assert {"train_accuracy", "validation/total_loss", "classification/accuracy", "total_loss"} <= set(lines[-1])
    assert lines[-1]["classification/accuracy"] == pytest.approx(results["accuracy"])
    best = torch.load(cells / "run/fold0/model_best.pth", weights_only=True)
    assert best["cervical_d2"]["classes"] == ["normal", "abnormal"]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """The cells, and the demanding run on them that nobody kills."""
    folder = write_cells(tmp_path_factory.mktemp("cells"))
    train(folder, "OUTPUT_DIR", folder / "whole", *DEMANDING)
    yield folder
    forget_parts()


@pytest.mark.parametrize("moment", ["2 step", "5 step", "3 saved", "1 evaluation", "8 step"])
def test_a_killed_run_ends_as_one_that_was_not(uninterrupted: Path, moment):
    run = uninterrupted / moment.replace(" ", "-")
    trainer = trainer_of(uninterrupted, "OUTPUT_DIR", run, *DEMANDING)
    kill_at(trainer, moment)
    with pytest.raises(Killed):
        trainer.train()
    train(uninterrupted, "OUTPUT_DIR", run, *DEMANDING, resume=True)
    for name in ("model_final", "model_best", "model_0000002", "model_0000003"):
        found = [states(uninterrupted / folder / "fold0", name) for folder in ("whole", run.name)]
        assert unequal(*found) == []
    assert history(run / "fold0") == history(uninterrupted / "whole/fold0")


def test_the_weights_do_not_depend_on_the_workers_but_on_the_seed(uninterrupted: Path):
    whole = states(uninterrupted / "whole/fold0")
    for number, (same, options) in enumerate(((True, ("DATALOADER.NUM_WORKERS", 1)), (False, ("SEED", 1)))):
        found = train(uninterrupted, "OUTPUT_DIR", uninterrupted / f"again{number}", *DEMANDING, *options)
        torch.rand(7)
        ours = {f"/model/{name}": value for name, value in weights(found).items()}
        differing = unequal(ours, {name: whole[name] for name in ours})
        assert (differing == []) is same


def test_a_loss_that_is_not_finite_names_no_more_files_than_can_be_read(cells: Path):
    trainer = trainer_of(cells, "SOLVER.IMS_PER_BATCH", 20, "SOLVER.REFERENCE_BATCH", 20)
    with torch.no_grad():
        trainer.model.classifier.scores.bias.fill_(float("nan"))
    with pytest.raises(
        UserError, match=r"not finite at iteration 0 \(loss_cls nan\) on .*BMP and 12 more; lower"
    ) as error:
        trainer.train()
    assert str(error.value).count(".BMP") == 8


def test_frozen_stages_of_a_training_stay(cells: Path):
    resnet = ("MODEL.BACKBONE.NAME", "build_cervical_resnet_backbone", "MODEL.RESNETS.DEPTH", 18,
              "MODEL.RESNETS.RES2_OUT_CHANNELS", 64)  # fmt: skip
    short = ("SOLVER.MAX_ITER", 2, "TEST.EVAL_PERIOD", 0, "TEST.VAL_LOSS", False)
    trainer = trainer_of(cells, *resnet, *short, "MODEL.BACKBONE.FREEZE_STAGES", "('stem', 'res2', 'res5')")
    before = weights(trainer)
    trainer.train()
    moved = {name.split(".")[1] for name, value in weights(trainer).items() if not torch.equal(value, before[name])}
    assert moved == {"res3", "res4", "scores"}


def test_the_best_checkpoint_is_chosen_on_val_and_never_on_test(cells: Path):
    ratios = ("DATASETS.FOLDS", 0, "DATASETS.RATIOS", (0.5, 0.25, 0.25))
    trainer = train(cells, *ratios)
    assert trainer.cfg.TEST.BEST_METRIC == "cells_all_val@abnormal/classification/accuracy"
    assert (cells / "run/model_best.pth").is_file()
    assert list(trainer._last_eval_results) == ["cells_all_val@abnormal", "cells_all_test@abnormal"]


def rates(cfg) -> np.ndarray:
    """The learning rate of each iteration."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=cfg.SOLVER.BASE_LR)
    scheduler = build_lr_scheduler(cfg, optimizer)
    found = []
    for _ in range(cfg.SOLVER.MAX_ITER):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return np.array(found)


def test_the_published_schedule_and_its_floor():
    cfg = load_config("classifier/herlev_2_published.yaml")
    assert (cfg.SOLVER.IMS_PER_BATCH, cfg.SOLVER.BASE_LR, cfg.SOLVER.MOMENTUM) == (32, 0.01, 0.9)
    (line,) = resolve_schedule(cfg, 320)  # ten iterations an epoch
    assert cfg.SOLVER.MAX_ITER == 10_000
    assert cfg.SOLVER.STEPS == (500, 600, 700)
    assert "drops after 500, 600, 700;" in line
    found = rates(cfg)
    assert found[[0, 499, 500, 599, 600, 700, 9999]] == pytest.approx([1e-2, 1e-2, 1e-3, 1e-3, 1e-4, 1e-5, 1e-5])
    printed = load_config("classifier/herlev_2_published.yaml", ["SOLVER.LR_FLOOR", "0.0"])
    resolve_schedule(printed, 320)
    assert len(printed.SOLVER.STEPS) == 95
    # After 330 epochs 1e-2 has dropped 29 times.
    assert rates(printed)[3300] == pytest.approx(1e-31)


@pytest.mark.parametrize(("floor", "steps"), [(1e-2, ()), (5e-4, (50,)), (1e-5, (50, 60, 70)), (0.0, (50, 60, 70, 80))])
def test_no_drop_goes_below_the_floor(floor, steps):
    cfg = load_config("", ["SOLVER.STEPS", "(50, 60, 70, 80)", "SOLVER.BASE_LR", "0.01", "SOLVER.MAX_ITER", "100",
                           "SOLVER.LR_FLOOR", str(floor)])  # fmt: skip
    resolve_schedule(cfg, 100)
    assert steps == cfg.SOLVER.STEPS


@pytest.mark.parametrize("options", [("SOLVER.LR_FLOOR", 1), ("SOLVER.LR_SCHEDULER_NAME", "WarmupCosineLR")])
def test_a_floor_that_cannot_be_is_refused(options):
    words = ["SOLVER.BASE_LR", "0.01", "SOLVER.LR_FLOOR", "0.001", *map(str, options)]
    with pytest.raises(UserError, match=r"LR_FLOOR is .*; it needs WarmupMultiStepLR"):
        resolve_schedule(load_config("", words), 100)
