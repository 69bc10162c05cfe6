"""The search for a learning rate: rates as asked for, a suggestion on the fall of the loss, nothing else written."""

import json
from pathlib import Path

import numpy as np
import pytest
from conftest import listing, tool
from small_model import SMALL
from test_trainer import trainer_of

from cervical_d2.engine.learning_rate import RangeTest, _smoothed, range_test
from cervical_d2.errors import UserError


def test_suggestion_is_on_the_steepest_fall_before_the_minimum():
    rates = np.geomspace(1e-5, 1, 51)
    falling = 2 - np.tanh((np.log10(rates) + 3) * 2)  # falls fastest at 1e-3
    losses = np.where(rates < 0.1, falling, falling + 50 * (rates - 0.1))
    found = RangeTest(rates, losses, losses)
    assert found.suggested() == pytest.approx(1e-3, rel=0.3)
    assert found.largest() == pytest.approx(rates[losses.argmin()] / 10)


def test_smoothing_by_hand():
    # 0.1 * 2 / 0.1 = 2; (0.9 * 0.2 + 0.1 * 4) / (1 - 0.81) = 0.58 / 0.19
    np.testing.assert_allclose(_smoothed(np.array([2.0, 4.0])), [2.0, 0.58 / 0.19])


def test_rates_grow_as_asked_for_and_reach_the_optimizer(tiny: Path):
    trainer = trainer_of(tiny, *SMALL, "SOLVER.BIAS_LR_FACTOR", 2)
    trainer.resume_or_load(resume=False)
    found = range_test(trainer, 1e-5, 1e-2, 12)
    np.testing.assert_allclose(found.rates, np.geomspace(1e-5, 1e-2, 12))
    assert np.isfinite(found.losses).all()
    # Weights at the last rate, biases at twice that.
    rates = {round(group["lr"], 9) for group in trainer._trainer.optimizer.param_groups}
    assert rates == {0.01, 0.02}


def test_divergence_ends_the_test(tiny: Path):
    trainer = trainer_of(tiny, *SMALL)
    trainer.resume_or_load(resume=False)
    assert len(range_test(trainer, 1e-4, 1e6, 60).rates) < 60
    trainer = trainer_of(tiny, *SMALL)
    with pytest.raises(UserError, match=r"not finite after \d iterations; start with a rate below 1e\+20"):
        range_test(trainer, 1e20, 1e25, 20)


def test_command_writes_the_figure_and_the_numbers_alone(tiny: Path, capsys):
    before = set(listing(tiny))
    words = ["--config-file", tiny / "config.yaml", "--output", tiny / "rates.png", "--iterations", 10, *SMALL]
    assert tool("find-lr", *words) == 0
    assert set(listing(tiny)) - before == {"rates.png", "rates.json"}
    assert len(json.loads((tiny / "rates.json").read_text())["rates"]) == 10
    assert "SOLVER.BASE_LR" in capsys.readouterr().out
