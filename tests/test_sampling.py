"""Images of rare classes are repeated by exactly the given factors, and samples depend only on the iteration."""

import math
from pathlib import Path

import numpy as np
import pytest
from detectron2.data.samplers import RepeatFactorTrainingSampler

from cervical_d2.config import load_config
from cervical_d2.data.build import build_train_loader, train_records
from cervical_d2.data.loader import CHUNK, BatchPlan
from cervical_d2.data.sampling import repeat_factors
from cervical_d2.engine.setup import prepare
from cervical_d2.errors import UserError
from cervical_d2.randomness import Stream, generator

REPEATS = np.array([1, 1, 3.16, 1, 1.7, 1, 1, 2.0, 1, 1.25])  # sum 14.11: cycles of 14


def records_of(*classes):
    return [{"annotations": [{"category_id": label} for label in labels]} for labels in classes]


def presentations(plan, cycles):
    """Image indices of whole cycles, one row each, shapes and chunks undone by position."""
    batches = range(-(-cycles * plan.cycle // (plan.batch * CHUNK)) * CHUNK)
    by_position = dict(pair for iteration in batches for pair in plan.batch_at(iteration))
    return np.array([by_position[p] for p in range(cycles * plan.cycle)]).reshape(cycles, plan.cycle)


def test_factors_by_hand():
    # Eight images; class 0 in 4 (share 1/2), 1 in 2 (1/4), 2 in 1 (1/8); threshold 1/2:
    # factors 1, sqrt 2, 2; an image has its rarest class's, one without cells 1.
    records = records_of([0, 0], [0], [0, 1], [0], [1, 2], [], [], [])
    expected = [1, 1, math.sqrt(2), 1, 2, 1, 1, 1]
    np.testing.assert_allclose(repeat_factors(records, 0.5), expected)
    np.testing.assert_allclose(repeat_factors(records, 0.5, sqrt=False), [1, 1, 2, 1, 4, 1, 1, 1])


@pytest.mark.parametrize("threshold", [0.0, 0.01, 0.1, 0.7, 1.0])
def test_factors_are_those_of_upstream(threshold):
    rng = np.random.default_rng(0)
    rare = 1 / np.arange(1, 12) ** 2
    records = records_of(*(rng.choice(11, rng.integers(0, 5), p=rare / rare.sum()).tolist() for _ in range(500)))
    upstream = RepeatFactorTrainingSampler.repeat_factors_from_category_frequency(records, threshold)
    np.testing.assert_allclose(repeat_factors(records, threshold), upstream.numpy(), rtol=1e-6)


@pytest.mark.parametrize("mark", [{"iscrowd": 1}, {"ignore": 1}, {"category_id": -1}])
def test_what_is_not_learned_from_does_not_count(mark):
    # Class 1 in one of four images: factor sqrt(1 / (1/4)) = 2. A second image with it would make that sqrt 2.
    records = records_of([0, 1], [0], [0], [0])
    records[3]["annotations"].append({"category_id": 1, **mark})
    np.testing.assert_allclose(repeat_factors(records, 1.0), [2, 1, 1, 1])


@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize(("repeats", "length"), [(REPEATS, 14), (np.array([1, 1.1, 1.35]), 3)])
def test_each_cycle_rounds_up_or_down_and_the_mean_is_exact(batch, repeats, length):
    cycles = presentations(BatchPlan(len(repeats), batch, seed=0, repeats=repeats), 4000)
    assert cycles.shape[1] == length
    counts = np.stack([np.bincount(cycle, minlength=len(repeats)) for cycle in cycles])
    share = repeats * length / sum(repeats)
    assert (counts >= np.floor(share)).all()
    assert (counts <= np.ceil(share)).all()
    # A count is floor + Bernoulli, of a deviation of at most 1/2: five of its mean over 4000 cycles are 0.04.
    np.testing.assert_allclose(counts.mean(0), share, atol=0.04)


def test_selection_and_order_are_new_in_each_cycle_and_neighbors_are_not_tied():
    plan = BatchPlan(10, 5, seed=0, repeats=np.full(10, 1.5))
    cycles = presentations(plan, 2000)
    counts = np.stack([np.bincount(cycle, minlength=10) for cycle in cycles])
    assert len({tuple(row) for row in counts}) > 100  # of 252 ways to choose the five that come twice
    # Drawn without replacement: 5 of 10 gives each pair a correlation of -1/9. A comb along a fixed order gives
    # +-1 to neighbors.
    correlation = np.corrcoef(counts.T)[~np.eye(10, dtype=bool)]
    np.testing.assert_allclose(correlation, -1 / 9, atol=0.12)
    # Five pairs among 15 places in any order: 5 * 14 / 105 = 0.67 of them side by side.
    assert (np.diff(cycles) == 0).sum(1).mean() == pytest.approx(2 / 3, abs=0.1)
    other = BatchPlan(10, 5, seed=1, repeats=np.full(10, 1.5))
    assert presentations(other, 1).tolist() != presentations(plan, 1).tolist()


def test_a_plan_that_starts_late_gives_the_same_batches():
    wide = np.arange(10) % 3 == 0
    whole = BatchPlan(10, 4, seed=2, wide=wide, repeats=REPEATS)
    batches = [whole.batch_at(iteration) for iteration in range(200)]
    for iteration in (0, 31, 32, 77, 150, 199):
        late = BatchPlan(10, 4, seed=2, wide=wide, repeats=REPEATS)
        assert late.batch_at(iteration) == batches[iteration]


def test_without_repeats_the_plan_is_what_it_always_was():
    # Runs that were started before there were repeats must go on with their batches.
    plan = BatchPlan(37, 4, seed=5)
    orders = [generator(5, Stream.ORDER, epoch).permutation(37).tolist() for epoch in range(11)]
    expected = [(position, orders[position // 37][position % 37]) for position in range(400)]
    assert [pair for iteration in range(100) for pair in plan.batch_at(iteration)] == expected


def test_config_reaches_the_plan_and_the_epoch_stays_that_of_the_images(tiny: Path):
    options = ["DATALOADER.SAMPLER_TRAIN", "RepeatFactorTrainingSampler", "DATALOADER.REPEAT_THRESHOLD", "1"]
    cfg = load_config(str(tiny / "config.yaml"), options)
    # Six images, one without cells, five with both classes: factor sqrt(6/5) = 1.095, mean 1.079; sum 6.48, cycle 6.
    assert "repeat factors: 1.00 to 1.10, 1.08 on average" in prepare(cfg)
    plan = build_train_loader(cfg).plan
    np.testing.assert_allclose(np.sort(plan.repeats), [1] + [math.sqrt(1.2)] * 5)
    assert (plan.images, plan.cycle) == (6, 6)
    cfg.DATALOADER.SAMPLER_TRAIN = "TrainingSampler"
    assert build_train_loader(cfg).plan.repeats is None
    assert len(train_records(cfg)) == 6


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["DATALOADER.SAMPLER_TRAIN", "RandomSubsetTrainingSampler"], "allowed: TrainingSampler, RepeatFactorTraining"),
        (
            ["DATALOADER.SAMPLER_TRAIN", "RepeatFactorTrainingSampler", "DATALOADER.REPEAT_THRESHOLD", "1.5"],
            "DATALOADER.REPEAT_THRESHOLD is 1.5; allowed: 0 to 1",
        ),
    ],
)
def test_mistakes_are_told_before_anything_is_written(tiny: Path, options, words):
    with pytest.raises(UserError, match=words):
        prepare(load_config(str(tiny / "config.yaml"), options))
    assert not (tiny / "run").exists()
