"""Work at an evaluation: validation losses, the best checkpoint, early stopping."""

from pathlib import Path

import pytest
import torch
from test_trainer import differing, trainer_of, weights

from cervical_d2.config import load_config
from cervical_d2.engine.hooks import Evaluate
from cervical_d2.engine.setup import prepare
from cervical_d2.engine.trainer import Trainer
from cervical_d2.engine.validation import validation_losses


def test_validation_loss_changes_nothing_and_is_the_same_each_time(tiny: Path):
    trainer = trainer_of(tiny)
    loader = trainer.build_test_loader(trainer.cfg, trainer.cfg.DATASETS.TEST[0])
    before = weights(trainer)
    first = validation_losses(trainer.model, loader, seed=0)
    torch.rand(3)
    assert validation_losses(trainer.model, loader, seed=0) == first
    assert differing(before, weights(trainer)) == []
    assert first["total_loss"] == pytest.approx(sum(value for name, value in first.items() if name != "total_loss"))
    assert set(first) == {"loss_cls", "loss_box_reg", "loss_rpn_cls", "loss_rpn_loc", "total_loss"}


def test_validation_loss_normalizes_as_inference_does(tiny: Path):
    """With the running statistics: a batch's own would make the loss blind to them."""
    trainer = trainer_of(tiny)
    loader = trainer.build_test_loader(trainer.cfg, trainer.cfg.DATASETS.TEST[0])
    first = validation_losses(trainer.model, loader, seed=0)
    trainer.model.backbone.bottom_up.stem.conv1.norm.running_mean += 1
    assert validation_losses(trainer.model, loader, seed=0)["total_loss"] != first["total_loss"]


class _FakeTrainer:
    """Counts iterations and keeps scalars, as much as `Evaluate` sees of a trainer."""

    def __init__(self, end: int):
        self.iter, self.max_iter, self.storage = 0, end, self

    def put_scalars(self, **scalars):
        self.last = scalars


def drive(values: list[float], metric="bbox/AP50", patience=0, end=None) -> tuple[list[str], int]:
    """Evaluate at each iteration with these values; the names saved, and the iterations done."""
    queue, saved = list(values), []
    section, _, name = metric.rpartition("/")
    hook = Evaluate(1, lambda: {section: {name: queue.pop(0)}}, metric=metric, patience=patience, save=saved.append)
    hook.trainer = _FakeTrainer(end or len(values))
    while hook.trainer.iter < hook.trainer.max_iter:
        hook.after_step()
        hook.trainer.iter += 1
    return saved, hook.trainer.iter


def test_best_checkpoint_follows_the_metric():
    assert drive([1, 3, 2, 4]) == (["model_best"] * 3, 4)
    assert drive([4, 3, 5, 2], "validation/total_loss") == (["model_best"] * 3, 4)
    assert drive([float("nan"), 1, float("nan")]) == (["model_best"], 3)


@pytest.mark.parametrize("metric", ["calibration/ECE", "severity/cost", "validation/loss_cls"])
def test_of_errors_and_costs_the_least_is_kept_and_early_stopping_counts_from_it(metric):
    assert drive([10, 5, 7], metric) == (["model_best"] * 2, 3)
    assert drive([10, 5, 7, 6, 1], metric, patience=2) == (["model_best"] * 2, 4)


def test_a_figure_of_one_of_several_splits_is_found_behind_its_name():
    assert drive([10, 5, 7], "bccd_val/calibration/ECE")[0] == ["model_best"] * 2
    assert drive([10, 5, 17], "bccd_val/coco/AP")[0] == ["model_best"] * 2
    assert drive([10, 5, 17], "somebody/else")[0] == ["model_best"] * 2  # unknown names are maximized


def test_early_stopping_counts_evaluations_without_gain():
    assert drive([1, 2, 2, 1, 9], patience=2)[1] == 4  # 2 and 1 bring nothing: stop before the 9
    assert drive([1, 2, 2, 3, 3], patience=2)[1] == 5


def test_early_stopped_run_still_ends_in_model_final(tiny: Path):
    trainer = trainer_of(tiny, "SOLVER.MAX_ITER", 6, "TEST.EVAL_PERIOD", 1, "TEST.EARLY_STOP_PATIENCE", 1,
                         "TEST.VAL_LOSS", False)  # fmt: skip
    values = iter([5.0, 4.0, 9.0])
    hook = next(hook for hook in trainer._hooks if isinstance(hook, Evaluate))
    hook.evaluate = lambda: {"bbox": {"AP50": next(values)}}
    trainer.resume_or_load(resume=False)
    trainer.train()
    assert (tiny / "run/model_final.pth").exists()
    assert torch.load(tiny / "run/model_final.pth", weights_only=True)["trainer"]["iteration"] == 1


def test_retinanet_trains_and_its_validation_leaves_the_normalizer(tiny: Path):
    cfg = load_config("retinanet_R_50_FPN.yaml", ["MODEL.DEVICE", "cpu", "OUTPUT_DIR", str(tiny / "run")])
    cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = (f"{tiny}/data.yaml:train",), (f"{tiny}/data.yaml:val",)
    cfg.INPUT.MIN_SIZE_TRAIN, cfg.INPUT.MIN_SIZE_TEST = (64,), 64
    cfg.SOLVER.MAX_EPOCHS, cfg.SOLVER.MAX_ITER, cfg.TEST.EVAL_EPOCHS = 0.0, 1, 0.0
    prepare(cfg)
    (tiny / "run").mkdir()
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=False)
    assert {"bbox", "coco", "froc_image"} <= set(trainer.train())
    before = trainer.model.loss_normalizer
    loader = trainer.build_test_loader(cfg, cfg.DATASETS.TEST[0])
    assert set(validation_losses(trainer.model, loader, 0)) == {"loss_cls", "loss_box_reg", "total_loss"}
    assert trainer.model.loss_normalizer == before
