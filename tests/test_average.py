"""The moving average of the weights: as defined, evaluated, kept, used; and clipping by the norm of all gradients."""

from pathlib import Path

import pytest
import torch
from small_model import SMALL
from test_trainer import differing, train, trainer_of, weights

from cervical_d2.checkpoint.checkpointer import CervicalCheckpointer
from cervical_d2.checkpoint.safe_load import load_file
from cervical_d2.config import load_config
from cervical_d2.engine.average import WeightAverage
from cervical_d2.engine.setup import prepare
from cervical_d2.errors import UserError


def test_average_by_hand():
    model = torch.nn.BatchNorm1d(1)
    average = WeightAverage(model, 0.25)
    # d = min(0.25, (1 + n) / (10 + n)): 0.1, 2/11, 0.25, 0.25 for n = 0, 1, 2, 3.
    expected = 1.0
    for value, decay in ((2.0, 0.1), (4.0, 2 / 11), (-3.0, 0.25), (0.0, 0.25)):
        model.weight.data.fill_(value)
        model.running_mean.fill_(10 * value)
        model.num_batches_tracked += 1
        average.update()
        expected = decay * expected + (1 - decay) * value
        assert average.average["weight"].item() == pytest.approx(expected)
    assert average.average["num_batches_tracked"] == 4  # counted, not averaged
    with average.applied():
        assert model.weight.item() == pytest.approx(expected)
    assert model.weight.item() == 0


def test_average_begins_with_the_weights_that_are_trained_on(tiny: Path):
    train(tiny, *SMALL, "SOLVER.MAX_ITER", 2, "OUTPUT_DIR", tiny / "first")
    trainer = trainer_of(tiny, *SMALL, "SOLVER.EMA_DECAY", 0.9, "MODEL.WEIGHTS", tiny / "first/model_final.pth")
    trainer.resume_or_load(resume=False)
    assert differing(trainer.average.average, weights(trainer)) == []


def test_average_is_evaluated_and_used_afterwards_but_not_trained_on(tiny: Path):
    plain = train(tiny, *SMALL, "OUTPUT_DIR", tiny / "plain")
    trainer = train(tiny, *SMALL, "SOLVER.EMA_DECAY", 0.9, "OUTPUT_DIR", tiny / "ema")
    assert differing(weights(plain), weights(trainer)) == []
    saved = load_file(str(tiny / "ema/model_final.pth"))
    assert differing(saved["model"], weights(trainer)) == []
    assert differing(saved["ema"]["average"], saved["model"])
    with trainer.average.applied():
        averaged = trainer.test(trainer.cfg, trainer.model)
    assert repr(averaged) == repr(trainer._last_eval_results)
    # --eval-only, predictions and fine-tuning take what was evaluated.
    fresh = trainer_of(tiny, *SMALL, "OUTPUT_DIR", tiny / "fresh")
    CervicalCheckpointer(fresh.model, strict=True).load(str(tiny / "ema/model_final.pth"))
    assert differing(weights(fresh), saved["ema"]["average"]) == []
    tuned = trainer_of(tiny, *SMALL, "OUTPUT_DIR", tiny / "tuned", "MODEL.WEIGHTS", tiny / "ema/model_final.pth")
    tuned.resume_or_load(resume=False)
    assert differing(weights(tuned), saved["ema"]["average"]) == []


def one_step(tiny: Path, *options: object) -> tuple[torch.Tensor, torch.Tensor]:
    """All weights, flat, before and after the first iteration of plain SGD without momentum and decay."""
    plain = ("SOLVER.WARMUP_ITERS", 0, "SOLVER.MOMENTUM", 0, "SOLVER.WEIGHT_DECAY", 0, "SOLVER.BASE_LR", 0.1)
    trainer = trainer_of(tiny, *SMALL, *plain, "MODEL.RESNETS.NORM", "", "TEST.VAL_LOSS", False, "TEST.EVAL_PERIOD", 0,
                         "SOLVER.MAX_ITER", 1, *options)  # fmt: skip
    trainer.resume_or_load(resume=False)
    flat = [torch.cat([value.detach().flatten().clone() for value in trainer.model.parameters()])]
    trainer.train()
    flat.append(torch.cat([value.detach().flatten() for value in trainer.model.parameters()]))
    return flat[0], flat[1]


def test_norm_of_all_gradients_is_clipped(tiny: Path):
    before, after = one_step(tiny, "OUTPUT_DIR", tiny / "free")
    free = (before - after) / 0.1
    assert free.norm() > 0.05
    before, after = one_step(tiny, "SOLVER.CLIP_NORM", 0.05, "OUTPUT_DIR", tiny / "clipped")
    clipped = (before - after) / 0.1
    assert clipped.norm().item() == pytest.approx(0.05, rel=1e-3)
    torch.testing.assert_close(clipped / clipped.norm(), free / free.norm(), rtol=1e-2, atol=1e-4)


@pytest.mark.parametrize(
    "clip",
    [("SOLVER.CLIP_NORM", 0.05), ("SOLVER.CLIP_GRADIENTS.ENABLED", True, "SOLVER.CLIP_GRADIENTS.CLIP_VALUE", 0.01)],
)
def test_gradients_are_clipped_without_the_scale_of_float16(tiny: Path, clip):
    """Losses are multiplied by 65,536 there; clipped before the division, steps would be 65,536 times too small."""
    before, after = one_step(tiny, *clip, "OUTPUT_DIR", tiny / "full")
    half = ("SOLVER.AMP.ENABLED", True, "SOLVER.AMP.DTYPE", "float16", "OUTPUT_DIR", tiny / "half")
    _, after_half = one_step(tiny, *clip, *half)
    assert (before - after_half).norm().item() == pytest.approx((before - after).norm().item(), rel=0.1)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("SOLVER.ACCUMULATE", 0), "SOLVER.IMS_PER_BATCH 2 cannot be divided by 1 processes times SOLVER.ACCUMULATE 0"),
        (("SOLVER.ACCUMULATE", 3), "cannot be divided by 1 processes times SOLVER.ACCUMULATE 3"),
        (("SOLVER.EMA_DECAY", 1), r"SOLVER.EMA_DECAY is 1.0; allowed: 0 \(off\) to less than 1"),
        (("SOLVER.CLIP_NORM", -1), "cannot be negative"),
    ],
)
def test_settings_out_of_range_are_refused(tiny: Path, options, words):
    with pytest.raises(UserError, match=words):
        prepare(load_config(str(tiny / "config.yaml"), list(map(str, options))))
