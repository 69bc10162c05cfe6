"""A run that was killed anywhere and resumed equals an uninterrupted one exactly: weights, states, metrics."""

import json
import math
from pathlib import Path

import pytest
import torch
from small_model import RETINANET, SMALL
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from test_trainer import train, trainer_of

from cervical_d2.checkpoint.safe_load import load_file
from cervical_d2.engine.trainer import Trainer

CLOCK = {"time", "data_time", "eta_seconds"}

# All that a resume could get wrong is on. AP75 stays at 0 for so long, so that the second evaluation is no gain.
DEMANDING = (
    *SMALL,
    "SOLVER.MAX_ITER", 8, "SOLVER.CHECKPOINT_PERIOD", 3, "SOLVER.CHECKPOINT_KEEP", 0, "SOLVER.EMA_DECAY", 0.9,
    "SOLVER.CLIP_NORM", 5, "SOLVER.STEPS", (6,), "TEST.EVAL_PERIOD", 4, "TEST.EARLY_STOP_PATIENCE", 9,
    "TEST.BEST_METRIC", "bbox/AP75",
    "DATALOADER.NUM_WORKERS", 2, "DATALOADER.ASPECT_RATIO_GROUPING", True, "DATALOADER.REPEAT_THRESHOLD", 1,
    "DATALOADER.SAMPLER_TRAIN", "RepeatFactorTrainingSampler", "INPUT.RANDOM_ROTATION", 30, "INPUT.STAIN_JITTER", 0.1,
    "INPUT.RANDOM_ROT90", True, "INPUT.BLUR", 2, "INPUT.JPEG_QUALITY", 60, "INPUT.MIN_VISIBLE", 0.3,
)  # fmt: skip


class Killed(Exception):
    """Stands for SIGKILL: nothing of ours runs after it but what reads the folder."""


def history(folder: Path) -> list[dict]:
    """The lines of metrics.json without what a clock says; NaN cannot be compared."""
    lines = [json.loads(line) for line in (folder / "metrics.json").read_text().splitlines()]
    assert not any(isinstance(value, float) and math.isnan(value) for line in lines for value in line.values())
    return [{name: value for name, value in line.items() if name not in CLOCK} for line in lines]


def states(folder: Path, name: str = "model_final") -> dict[str, object]:
    """Everything in a checkpoint, flat, but for what a clock says."""
    flat: dict[str, object] = {}

    def walk(value, path):
        if isinstance(value, dict):
            for key, part in value.items():
                # A run that was interrupted has other numbered checkpoints beside it.
                if key not in CLOCK | {"bytes", "config", "numbered"}:
                    walk(part, f"{path}/{key}")
        else:
            flat[path] = value

    walk(load_file(str(folder / f"{name}.pth")), "")
    return flat


def unequal(one: dict, other: dict) -> list[str]:
    assert one.keys() == other.keys()
    same = {
        key: torch.equal(a, other[key]) if isinstance(a, torch.Tensor) else a == other[key] for key, a in one.items()
    }
    return [key for key, equal in same.items() if not equal]


def kill_at(trainer: Trainer, moment: str) -> None:
    """Make the trainer raise `Killed` at "NUMBER step", "... save", "... saved", "... evaluation" or "... best"."""
    number, where = moment.split()
    calls = {"step": (trainer, "run_step"), "evaluation": (trainer, "test")}
    after = where == "saved"
    count = iter(range(1, 1000))
    if where in calls:
        owner, name = calls[where]
        original = getattr(owner, name)

        def wrapped(*arguments):
            if next(count) == int(number):
                raise Killed
            return original(*arguments)

        setattr(owner, name, wrapped)
        return
    original = trainer.checkpointer.save

    def save(name):
        if (where == "best") != (name == "model_best"):
            return original(name)
        due = next(count) == int(number)
        if due and not after:
            (Path(trainer.cfg.OUTPUT_DIR) / f"{name}.pth.partial").write_bytes(b"half")
            raise Killed
        original(name)
        if due:
            raise Killed
        return None

    for hook in trainer._hooks:
        for attribute in ("save", "secure"):
            if hasattr(hook, attribute):
                setattr(hook, attribute, save)


def killed(folder: Path, moment: str, *options: object) -> None:
    trainer = trainer_of(folder, *options)
    trainer.resume_or_load(resume=False)
    kill_at(trainer, moment)
    with pytest.raises(Killed):
        trainer.train()


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """A tiny set, and the demanding run on it that nobody kills."""
    import conftest

    folder = tmp_path_factory.mktemp("resume")
    conftest.write_tiny(folder)
    train(folder, "OUTPUT_DIR", folder / "whole", *DEMANDING)
    return folder


# Eight iterations; checkpoints after 3 and 6, before and after the evaluations of 4 and 8.
MOMENTS = (
    "1 step",
    "5 step",
    "8 step",
    "1 save",
    "2 save",
    "3 saved",
    "1 evaluation",
    "2 evaluation",
    "1 best",
    "4 saved",
)


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_killed_run_ends_as_one_that_was_not(uninterrupted: Path, moment):
    run = uninterrupted / moment.replace(" ", "-")
    killed(uninterrupted, moment, "OUTPUT_DIR", run, *DEMANDING)
    train(uninterrupted, "OUTPUT_DIR", run, *DEMANDING, resume=True)
    for name in ("model_final", "model_best", "model_0000003", "model_0000005"):
        assert unequal(states(uninterrupted / "whole", name), states(run, name)) == []
    assert history(run) == history(uninterrupted / "whole")


def test_history_has_a_line_for_each_evaluation_and_no_double(uninterrupted: Path):
    lines = history(uninterrupted / "whole")
    assert [line["iteration"] for line in lines] == [3, 7]
    assert all(
        {"total_loss", "bbox/AP50", "validation/total_loss", "lr", "gradient_norm"} <= set(line) for line in lines
    )


@pytest.mark.parametrize("moment", ["5 step", "8 step"])
def test_tensorboard_shows_no_line_twice(uninterrupted: Path, moment):
    """At the first moment the line of the evaluation was written after the checkpoint, at the second before it."""
    run = uninterrupted / f"board-{moment.replace(' ', '-')}"
    killed(uninterrupted, moment, "OUTPUT_DIR", run, *DEMANDING)
    train(uninterrupted, "OUTPUT_DIR", run, *DEMANDING, resume=True)
    events = EventAccumulator(str(run))
    events.Reload()
    lines = history(uninterrupted / "whole")
    for name in ("total_loss", "bbox/AP50", "lr"):
        found = [(event.step, event.value) for event in events.Scalars(name)]
        assert found == [(line["iteration"], pytest.approx(line[name])) for line in lines]


# Whatever a checkpoint holds: (what is lost, the file it is lost from).
PIECES = {
    "model": lambda saved: saved["model"].update({k: v * 0 for k, v in saved["model"].items() if "box_head.fc1" in k}),
    "momentum": lambda saved: saved["trainer"]["_trainer"]["optimizer"].update(state={}),
    "scheduler": lambda saved: saved["trainer"]["hooks"]["LRScheduler"].update(last_epoch=0),
    "iteration, and with it the random streams": lambda saved: saved["trainer"].update(iteration=2),
    "best metric": lambda saved: saved["trainer"]["hooks"]["Evaluate"].update(best=None),
    "early stopping": lambda saved: saved["trainer"]["hooks"]["Evaluate"].update(without_gain=7),
    "evaluations done": lambda saved: saved["trainer"]["hooks"]["Evaluate"].update(done=0),
    "length of the history": lambda saved: saved["trainer"]["hooks"]["Metrics"].update(bytes=0),
    "scalars to be smoothed": lambda saved: saved["trainer"]["hooks"]["Metrics"].update(scalars={}),
    "average": lambda saved: saved["ema"].update(updates=0),
}


@pytest.mark.parametrize("piece", PIECES)
def test_each_piece_of_a_checkpoint_is_needed(uninterrupted: Path, piece):
    """With it left out, what the test above compares differs: the comparison would see it, and no piece is idle."""
    run = uninterrupted / f"without-{piece.replace(' ', '-')}"
    options = (*DEMANDING, "OUTPUT_DIR", run, "SOLVER.CHECKPOINT_PERIOD", 4)
    killed(uninterrupted, "6 step", *options)
    assert (run / "last_checkpoint").read_text() == "model_0000003.pth"  # from after the evaluation
    saved = torch.load(run / "model_0000003.pth", weights_only=True)
    PIECES[piece](saved)
    torch.save(saved, run / "model_0000003.pth")
    train(uninterrupted, *options, resume=True)
    same = history(run) == history(uninterrupted / "whole")
    assert not same or unequal(states(uninterrupted / "whole"), states(run))


def test_broken_last_checkpoint_falls_back_to_the_one_before(uninterrupted: Path, caplog):
    run = uninterrupted / "broken"
    killed(uninterrupted, "8 step", "OUTPUT_DIR", run, *DEMANDING)
    last = run / (run / "last_checkpoint").read_text()
    last.write_bytes(last.read_bytes()[:-1000])
    with caplog.at_level("WARNING", "detectron2.cervical_d2"):
        train(uninterrupted, "OUTPUT_DIR", run, *DEMANDING, resume=True)
    assert f"{last}: not a whole file" in caplog.text
    assert "going on from the checkpoint before it" in caplog.text
    assert unequal(states(uninterrupted / "whole"), states(run)) == []
    assert history(run) == history(uninterrupted / "whole")


def test_retinanet_resumes_exactly_with_its_normalizer(tiny: Path):
    """Its normalizer is a number of no checkpoint of upstream's, and its compiled loss rounds otherwise at first."""
    whole = train(tiny, "OUTPUT_DIR", tiny / "whole", *DEMANDING, *RETINANET)
    killed(tiny, "8 step", "OUTPUT_DIR", tiny / "run", *DEMANDING, *RETINANET)
    assert whole.model.loss_normalizer < 99  # it has moved from its initial 100
    train(tiny, "OUTPUT_DIR", tiny / "run", *DEMANDING, *RETINANET, resume=True)
    assert unequal(states(tiny / "whole"), states(tiny / "run")) == []
    assert history(tiny / "run") == history(tiny / "whole")
