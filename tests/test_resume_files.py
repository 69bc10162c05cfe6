"""The contents of a checkpoint besides the weights, which files are kept, and which checkpoints are refused."""

from pathlib import Path

import pytest
import torch
from small_model import SMALL
from test_resume import history
from test_trainer import train, trainer_of

from cervical_d2.checkpoint.checkpoint import Checkpoint
from cervical_d2.config import load_config
from cervical_d2.engine.run import run_config
from cervical_d2.engine.run_folder import RunFolder
from cervical_d2.errors import UserError


def test_loss_scale_of_float16_is_kept(tiny: Path):
    half = (*SMALL, "SOLVER.AMP.ENABLED", True, "SOLVER.AMP.DTYPE", "float16", "SOLVER.MAX_ITER", 2)
    trainer = trainer_of(tiny, *half)
    trainer.resume_or_load(resume=False)
    trainer._trainer.scaler.scale(torch.ones(1))  # made at first use
    trainer._trainer.scaler.update(1024.0)
    trainer.train()
    resumed = trainer_of(tiny, *half, resume=True)
    resumed.resume_or_load(resume=True)
    assert resumed._trainer.scaler.state_dict() == trainer._trainer.scaler.state_dict()
    assert trainer._trainer.scaler.get_scale() == 1024


def test_early_stopped_run_stays_ended_unless_it_may_go_on(tiny: Path):
    # AP75 stays 0: the first evaluation is the best, the second is no gain.
    options = (*SMALL, "SOLVER.MAX_ITER", 6, "TEST.EVAL_PERIOD", 1, "TEST.BEST_METRIC", "bbox/AP75")
    train(tiny, *options, "TEST.EARLY_STOP_PATIENCE", 1)
    first = history(tiny / "run")
    assert [line["iteration"] for line in first] == [0, 1]
    train(tiny, *options, "TEST.EARLY_STOP_PATIENCE", 1, resume=True)
    assert history(tiny / "run") == first
    train(tiny, *options, "TEST.EARLY_STOP_PATIENCE", 9, resume=True)
    assert [line["iteration"] for line in history(tiny / "run")] == [0, 1, 2, 3, 4, 5]
    assert history(tiny / "run")[:2] == first


def test_only_the_newest_numbered_checkpoints_are_kept(tiny: Path):
    train(tiny, *SMALL, "SOLVER.MAX_ITER", 6, "SOLVER.CHECKPOINT_PERIOD", 1, "SOLVER.CHECKPOINT_KEEP", 2,
          "TEST.VAL_LOSS", False)  # fmt: skip
    names = sorted(path.stem for path in (tiny / "run").glob("*.pth"))
    assert names == ["model_0000003", "model_0000004", "model_best", "model_final"]


def stock(tiny: Path, trainer_state: dict) -> None:
    """A folder as Detectron2's own trainer leaves it."""
    model = trainer_of(tiny, *SMALL, "OUTPUT_DIR", tiny / "other").model
    (tiny / "run").mkdir()
    torch.save({"model": model.state_dict(), "trainer": trainer_state, "iteration": 1}, tiny / "run/model_0000001.pth")
    (tiny / "run/last_checkpoint").write_text("model_0000001.pth")


@pytest.mark.parametrize(
    "state",
    [
        {"iteration": 1, "hooks": {"LRScheduler": {}}},  # v0.6: no optimizer
        {"iteration": 1, "hooks": {"LRScheduler": {}}, "_trainer": {"iteration": 1, "optimizer": {}}},  # main
    ],
)
def test_checkpoints_of_detectron2s_own_trainer_are_refused_with_the_cure(tiny: Path, state):
    stock(tiny, state)
    before = (tiny / "run/model_0000001.pth").read_bytes()
    with pytest.raises(UserError, match=r"model_0000001\.pth: not of this trainer .* MODEL\.WEIGHTS .*OUTPUT_DIR"):
        trainer_of(tiny, *SMALL, resume=True).resume_or_load(resume=True)
    assert (tiny / "run/model_0000001.pth").read_bytes() == before
    # The cure works.
    weights = tiny / "run/model_0000001.pth"
    train(tiny, *SMALL, "SOLVER.MAX_ITER", 1, "MODEL.WEIGHTS", weights, "OUTPUT_DIR", tiny / "new")


def started(tiny: Path, *options: object, resume: bool = False) -> None:
    """`cervical-d2 train` in this process: with run.json, by which a run is known."""
    words = [str(word) for word in (*SMALL, "TEST.VAL_LOSS", False, "SOLVER.CHECKPOINT_PERIOD", 1, *options)]
    run_config(load_config(str(tiny / "config.yaml"), words), train=True, resume=resume)


def test_a_folder_with_checkpoints_is_no_place_for_a_new_run(tiny: Path):
    (tiny / "run").mkdir()
    (tiny / "run/model_0009999.pth").write_bytes(b"of another run")
    with pytest.raises(UserError, match="run: holds a run; go on with --resume, or choose another OUTPUT_DIR"):
        started(tiny, "SOLVER.MAX_ITER", 1)
    assert [path.name for path in (tiny / "run").iterdir()] == ["model_0009999.pth"]


def test_checkpoints_of_another_run_are_neither_deleted_nor_resumed_from(tiny: Path):
    started(tiny, "SOLVER.MAX_ITER", 5, "OUTPUT_DIR", tiny / "other", "SEED", 5)
    started(tiny, "SOLVER.MAX_ITER", 3, "SOLVER.CHECKPOINT_KEEP", 1)
    strangers = {name: (tiny / "other/model_final.pth").read_bytes() for name in ("model_0000000", "model_0009999")}
    for name, content in strangers.items():
        (tiny / f"run/{name}.pth").write_bytes(content)
    options = ("SOLVER.MAX_ITER", 6, "SOLVER.CHECKPOINT_KEEP", 2)
    (tiny / "run/last_checkpoint").unlink()  # what is newest are then the strangers
    started(tiny, *options, resume=True)
    numbered = sorted(path.stem for path in (tiny / "run").glob("model_0*.pth"))  # it went on from 3, not from 5
    assert numbered == ["model_0000000", "model_0000003", "model_0000004", "model_0009999"]
    assert {name: (tiny / f"run/{name}.pth").read_bytes() for name in strangers} == strangers
    assert Checkpoint.open(tiny / "run/model_final.pth").run == RunFolder(tiny / "run").run_id
    for name in ("model_final", "model_best", "model_0000003", "model_0000004"):
        (tiny / f"run/{name}.pth").unlink()
    fresh = trainer_of(tiny, *SMALL, resume=True)
    fresh.resume_or_load(resume=True)
    assert fresh.start_iter == 0
