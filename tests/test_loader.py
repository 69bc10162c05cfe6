"""Training samples depend only on (seed, iteration, image)."""

from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog
from detectron2.data import transforms as T

from cervical_d2.config import load_config
from cervical_d2.data.loader import CHUNK, BatchPlan, TrainLoader, quarter_turns
from cervical_d2.data.mapper import DetectionMapper, train_augmentations
from cervical_d2.data.rotation import RandomRot90
from cervical_d2.datasets.registry import resolve
from cervical_d2.errors import UserError
from cervical_d2.structures import sampling_seed

AUGMENTATIONS = [
    T.ResizeShortestEdge((64, 96), 128, "choice"),
    T.RandomFlip(),
    RandomRot90(),
]


def loader_of(tiny: Path, *, seed=3, batch=4, **options) -> TrainLoader:
    records = DatasetCatalog.get(resolve(f"{tiny}/data.yaml:train"))
    plan = BatchPlan(len(records), batch, seed, np.array([r["width"] > r["height"] for r in records]))
    return TrainLoader(records, DetectionMapper(AUGMENTATIONS, "RGB"), plan, **options)


def first_batches(loader: TrainLoader, count: int):
    batches = iter(loader)
    return [next(batches) for _ in range(count)]


def same(a, b) -> bool:
    """Two samples in every pixel and box."""
    return (
        a["image_id"] == b["image_id"]
        and torch.equal(a["image"], b["image"])
        and torch.equal(a["instances"].gt_boxes.tensor, b["instances"].gt_boxes.tensor)
    )


@pytest.mark.parametrize("images", [1, 5, 64, 300])
@pytest.mark.parametrize("wide", [False, True])
def test_every_image_comes_once_an_epoch(images, wide):
    # As many whole chunks as whole epochs: images * CHUNK batches of 3 hold 3 * CHUNK epochs.
    shapes = np.arange(images) % 3 == 0 if wide else None
    plan = BatchPlan(images, 3, seed=0, wide=shapes)
    seen = [pair for iteration in range(images * CHUNK) for pair in plan.batch_at(iteration)]
    assert sorted(position for position, _ in seen) == list(range(3 * images * CHUNK))
    for epoch in range(3 * CHUNK):
        members = sorted(index for position, index in seen if position // images == epoch)
        assert members == list(range(images))


def test_orders_differ_between_epochs_and_seeds():
    order = BatchPlan(50, 50, seed=0)
    epochs = [[index for _, index in order.batch_at(epoch)] for epoch in range(3)]
    assert len({tuple(epoch) for epoch in epochs}) == 3
    assert epochs[0] != [index for _, index in BatchPlan(50, 50, seed=1).batch_at(0)]


def test_shapes_are_kept_together():
    wide = np.arange(400) % 4 == 0
    plan = BatchPlan(400, 4, seed=0, wide=wide)
    mixed = sum(len({bool(wide[index]) for _, index in plan.batch_at(iteration)}) > 1 for iteration in range(200))
    assert mixed <= 200 // CHUNK + 1  # at most the one at the border, in each chunk
    # and wide ones do not all come first
    firsts = [bool(wide[plan.batch_at(iteration)[0][1]]) for iteration in range(CHUNK)]
    assert firsts != sorted(firsts)
    assert firsts != sorted(firsts, reverse=True)


def test_start_in_the_middle_gives_the_same_batches(tiny: Path):
    whole = first_batches(loader_of(tiny), 7)
    resumed = loader_of(tiny)
    resumed.start = 4
    for ours, theirs in zip(first_batches(resumed, 3), whole[4:], strict=True):
        assert all(map(same, ours, theirs))


def test_workers_and_the_state_of_numpy_do_not_matter(tiny: Path):
    alone = first_batches(loader_of(tiny), 4)
    np.random.seed(99)
    np.random.rand(17)
    with_workers = first_batches(loader_of(tiny, workers=2), 4)
    for ours, theirs in zip(alone, with_workers, strict=True):
        assert all(map(same, ours, theirs))


def test_loading_leaves_numpy_where_it_was(tiny: Path):
    np.random.seed(5)
    expected = np.random.rand()
    np.random.seed(5)
    first_batches(loader_of(tiny), 1)
    assert np.random.rand() == expected


def test_ranks_share_the_batch(tiny: Path):
    whole = first_batches(loader_of(tiny), 3)
    parts = [first_batches(loader_of(tiny, rank=rank, ranks=2), 3) for rank in (0, 1)]
    for iteration in range(3):
        assert all(map(same, parts[0][iteration], whole[iteration][0::2]))
        assert all(map(same, parts[1][iteration], whole[iteration][1::2]))


def test_an_image_is_augmented_anew_each_time(tiny: Path):
    by_image: dict[int, list] = {}
    for batch in first_batches(loader_of(tiny), 12):
        for sample in batch:
            by_image.setdefault(sample["image_id"], []).append(sample)
    assert all(not same(samples[0], samples[1]) or not same(samples[0], samples[2]) for samples in by_image.values())


def test_each_presentation_has_a_sampling_seed_of_its_own(tiny: Path):
    seeds = [[sampling_seed(item["instances"]) for item in batch] for batch in first_batches(loader_of(tiny), 12)]
    assert len({seed for batch in seeds for seed in batch}) == 48
    resumed = loader_of(tiny, workers=1)
    resumed.start = 9
    again = [[sampling_seed(item["instances"]) for item in batch] for batch in first_batches(resumed, 3)]
    assert again == seeds[9:]
    other = first_batches(loader_of(tiny, seed=4), 1)[0]
    assert not {sampling_seed(item["instances"]) for item in other} & set(seeds[0])


def test_boxes_stay_on_their_cells(tiny: Path):
    """The boxes' insides are the only dark pixels, and after any augmentation still are."""
    for batch in first_batches(loader_of(tiny), 12):
        for sample in batch:
            dark = (sample["image"].float().mean(0) < 150).numpy()
            painted = np.zeros_like(dark)
            for x1, y1, x2, y2 in sample["instances"].gt_boxes.tensor.round().int().tolist():
                assert dark[y1 + 1 : y2 - 1, x1 + 1 : x2 - 1].all()
                painted[max(0, y1 - 1) : y2 + 1, max(0, x1 - 1) : x2 + 1] = True
            assert not (dark & ~painted).any()


def test_crop_comes_before_the_resize_as_upstream(tiny: Path):
    cfg = load_config(str(tiny / "config.yaml"), ["INPUT.CROP.ENABLED", "True", "INPUT.CROP.TYPE", "relative"])
    cfg.INPUT.CROP.SIZE, cfg.INPUT.MIN_SIZE_TRAIN, cfg.INPUT.RANDOM_ROT90 = [0.5, 0.5], (64,), True
    mapper = DetectionMapper(train_augmentations(cfg), "RGB")
    sample = mapper(DatasetCatalog.get(resolve(f"{tiny}/data.yaml:train"))[1])
    assert sorted(sample["image"].shape[1:]) == [64, 96]  # 48 x 32 of 96 x 64, resized to a short edge of 64
    x1, y1, x2, y2 = sample["instances"].gt_boxes.tensor.T
    assert (x2 - x1 <= sample["image"].shape[2]).all()
    assert (y2 - y1 <= sample["image"].shape[1]).all()


def test_quarter_turns_all_occur_and_turn_counterclockwise():
    image = np.arange(6, dtype=np.uint8).reshape(2, 3, 1).repeat(3, axis=2)
    np.random.seed(0)
    seen = {RandomRot90().get_transform(image).apply_image(image)[:, :, 0].tobytes() for _ in range(40)}
    assert seen == {np.ascontiguousarray(np.rot90(image[:, :, 0], turns)).tobytes() for turns in range(4)}


def test_turned_images_go_with_others_of_their_shape(tiny: Path):
    """All images are landscapes; half are turned, and no more batches are mixed than one in a chunk."""
    records = [DatasetCatalog.get(resolve(f"{tiny}/data.yaml:train"))[1]] * 40
    plan = BatchPlan(len(records), 4, 3, np.ones(len(records), bool), turning=True)
    mapper = DetectionMapper([T.ResizeShortestEdge((64,), 96, "choice"), RandomRot90()], "RGB")
    loader = TrainLoader(records, mapper, plan)
    shapes = [[tuple(sample["image"].shape[1:]) for sample in batch] for batch in first_batches(loader, CHUNK)]
    assert sum(len(set(batch)) > 1 for batch in shapes) <= 1
    upright = sum(batch.count((64, 96)) for batch in shapes)
    assert upright + sum(batch.count((96, 64)) for batch in shapes) == 4 * CHUNK
    assert 0.35 < upright / (4 * CHUNK) < 0.65
    turns = [quarter_turns(3, position) for position in range(400)]
    assert all(70 < turns.count(turn) < 130 for turn in range(4))


def test_broken_image_is_told_in_one_line_from_a_worker_too(tiny: Path):
    path = tiny / "images/train2.png"
    path.write_bytes(path.read_bytes()[:60])
    for workers in (0, 1):
        with pytest.raises(UserError, match=r"train2\.png: not a complete, readable image") as error:
            first_batches(loader_of(tiny, workers=workers), 3)
        assert "Traceback" not in str(error.value)


def test_crowds_are_not_learned_from_and_empty_images_stay(tiny: Path):
    record = DatasetCatalog.get(resolve(f"{tiny}/data.yaml:train"))[1]
    record["annotations"][0]["iscrowd"] = 1
    sample = DetectionMapper([], "RGB")(record)
    assert len(sample["instances"]) == 1
    assert len(DetectionMapper([], "RGB")({**record, "annotations": []})["instances"]) == 0
