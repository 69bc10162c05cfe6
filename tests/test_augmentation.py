"""Augmentations of color, focus and storage do what they say; values out of range are refused."""

import math
from pathlib import Path

import numpy as np
import pytest
from detectron2.data import DatasetCatalog
from detectron2.data import transforms as T

from cervical_d2.config import config_value, load_config
from cervical_d2.config_keys import KEYS
from cervical_d2.data.augmentation import (
    AUGMENTATIONS,
    RandomBlur,
    RandomDefocus,
    RandomJpeg,
    StainJitter,
    cytology_augmentations,
    disk,
    restain,
    values_of,
)
from cervical_d2.data.build import build_train_loader
from cervical_d2.data.mapper import DetectionMapper, train_augmentations
from cervical_d2.datasets.registry import resolve
from cervical_d2.engine.setup import prepare
from cervical_d2.errors import UserError

PHOTOMETRIC = {
    "INPUT.STAIN_JITTER": "0.3", "INPUT.BRIGHTNESS": "0.5", "INPUT.DEFOCUS": "4.0", "INPUT.BLUR": "3.0",
    "INPUT.JPEG_QUALITY": "5",
}  # fmt: skip
ALL = ["INPUT.RANDOM_ROTATION", "180", *(word for item in PHOTOMETRIC.items() for word in item)]
# Ruifrok and Johnston (2001): hematoxylin, eosin, DAB in red, green, blue.
STAINS = [[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]]


def restained(pixel, scale, shift):
    """One RGB pixel, stain by stain: densities by Cramer's rule, then Beer's law."""
    density = [-math.log((value + 1) / 256) for value in pixel]
    columns = np.array(STAINS).T
    stains = []
    for number in range(3):
        replaced = columns.copy()
        replaced[:, number] = density
        stains.append(np.linalg.det(replaced) / np.linalg.det(columns) * scale[number] + shift[number])
    light = [256 * math.exp(-sum(stains[n] * STAINS[n][color] for n in range(3))) - 1 for color in range(3)]
    return [min(255, max(0, value)) for value in light]


def test_stains_are_scaled_and_shifted_one_by_one():
    image = np.random.default_rng(1).integers(0, 256, (9, 7, 3), np.uint8)
    scale, shift = np.array([1.2, 0.85, 1.05]), np.array([0.02, -0.03, 0.01])
    expected = np.array([[restained(pixel, scale, shift) for pixel in row] for row in image.tolist()])
    np.testing.assert_allclose(restain(image, scale, shift), expected, atol=0.51)
    np.testing.assert_allclose(restain(image[..., ::-1], scale, shift, rgb=False), expected[..., ::-1], atol=0.51)


def test_without_jitter_an_image_comes_back_and_white_stays_white():
    image = np.random.default_rng(2).integers(0, 256, (50, 60, 3), np.uint8)
    same = StainJitter(0.0, rgb=True).get_transform(image).apply_image(image)
    assert np.abs(same.astype(int) - image).max() <= 1
    white = np.full((4, 4, 3), 255, np.uint8)
    assert restain(white, np.array([1.3, 0.7, 1.2]), np.zeros(3)).min() >= 254


def test_jitter_draws_each_stain_alone_within_its_limits():
    # A pixel of hematoxylin alone, of density 1: at s = 0.2 it becomes 1 +- 0.2 and moves by 0.1 * 0.2 at most;
    # the other stains have nothing to scale. Rounding to gray levels adds up to 0.04 to a density.
    pixel = np.array([[[256 * math.exp(-x) - 1 for x in STAINS[0]]]]).round().astype(np.uint8)
    np.random.seed(0)
    stains = []
    for _ in range(300):
        seen = StainJitter(0.2, rgb=True).get_transform(pixel).apply_image(pixel)[0, 0]
        stains.append(np.linalg.solve(np.array(STAINS).T, [-math.log((int(x) + 1) / 256) for x in seen]))
    low, high = np.min(stains, axis=0), np.max(stains, axis=0)
    assert (low >= [0.74, -0.06, -0.06]).all()
    assert (high <= [1.26, 0.06, 0.06]).all()
    assert low[0] < 0.85
    assert high[0] > 1.15


def test_blur_of_an_edge_is_the_normal_distribution():
    edge = np.zeros((30, 60, 3), np.uint8)
    edge[:, 30:] = 250
    np.random.seed(0)
    sigma = np.random.uniform(0, 4)
    np.random.seed(0)
    blurred = RandomBlur(4.0).get_transform(edge).apply_image(edge)[15, :, 0]
    assert sigma > 1  # a kernel sampled at whole pixels follows the formula from about there
    expected = [125 * (1 + math.erf((x + 0.5 - 30) / sigma / math.sqrt(2))) for x in range(60)]
    np.testing.assert_allclose(blurred, expected, atol=3)


@pytest.mark.parametrize("radius", [0.0, 0.4, 1.0, 1.7, 2.5, 6.3])
def test_disk_covers_what_a_disk_covers(radius):
    kernel = disk(radius)
    reach = len(kernel) // 2
    assert kernel.sum() == pytest.approx(1)
    if radius <= 0.5:
        assert kernel[reach, reach] == pytest.approx(1)  # inside one pixel: nothing moves
        return
    fine = (np.arange(len(kernel) * 50) + 0.5) / 50 - reach - 0.5
    covered = (np.hypot(fine, fine[:, None]) <= radius).reshape(len(kernel), 50, len(kernel), 50).mean((1, 3))
    np.testing.assert_allclose(kernel, covered / covered.sum(), atol=0.15 / covered.sum())


def test_defocus_spreads_a_point_into_a_disk():
    point = np.zeros((31, 31, 3), np.uint8)
    point[15, 15] = 255
    np.random.seed(1)
    radius = np.random.uniform(0, 5)
    np.random.seed(1)
    seen = RandomDefocus(5.0).get_transform(point).apply_image(point)[..., 0]
    assert seen.sum() == pytest.approx(255, abs=len(np.nonzero(seen)[0]) / 2)
    rows, columns = np.nonzero(seen)
    assert np.hypot(rows - 15, columns - 15).max() == pytest.approx(radius, abs=0.75)


def test_jpeg_knows_its_colors_and_its_quality():
    y, x = np.mgrid[:64, :64]
    image = np.stack([4 * x, 4 * y, 255 - 4 * x], 2).astype(np.uint8)
    loss = {}
    for quality in (5, 60, 100):
        # a range from `quality` to 100 is drawn from; the lowest of many draws is the quality asked for
        np.random.seed(0)
        losses = [
            np.abs(RandomJpeg(quality, True).get_transform(image).apply_image(image).astype(int) - image).mean()
            for _ in range(300)
        ]
        loss[quality] = max(losses)
        assert min(losses) < 1.5
    assert loss[5] > 2 * loss[60] > 2 * loss[100]
    for rgb in (True, False):
        np.random.seed(3)
        seen = RandomJpeg(10, rgb).get_transform(image).apply_image(image[..., :: 1 if rgb else -1].copy())
        loss[rgb] = seen[..., :: 1 if rgb else -1]
    np.testing.assert_array_equal(loss[True], loss[False])


@pytest.mark.parametrize("key", PHOTOMETRIC)
def test_photometric_ones_change_colors_and_nothing_else(tiny: Path, key):
    record = DatasetCatalog.get(resolve(f"{tiny}/data.yaml:train"))[1]
    plain = DetectionMapper([], "RGB")(record)
    chosen = cytology_augmentations(load_config("", [key, PHOTOMETRIC[key], "INPUT.FORMAT", "RGB"]))
    assert len(chosen) == 1
    np.random.seed(0)
    changed = 0
    for _ in range(40):
        sample = DetectionMapper(chosen, "RGB")(record)
        assert sample["image"].shape == plain["image"].shape
        assert sample["image"].dtype == plain["image"].dtype
        assert sample["instances"].gt_boxes.tensor.tolist() == plain["instances"].gt_boxes.tensor.tolist()
        changed += bool((sample["image"] != plain["image"]).any())
    # Half of the images for blur and defocus (some draws are too small to see), nearly all for the others.
    assert (8 <= changed <= 28) if key in ("INPUT.BLUR", "INPUT.DEFOCUS") else changed >= 36


def test_brightness_is_a_factor_and_clips():
    (bright,) = cytology_augmentations(load_config("", ["INPUT.BRIGHTNESS", "0.5"]))
    np.random.seed(0)
    seen = np.stack(
        [bright(T.AugInput(image)).apply_image(image) for image in [np.full((1, 2, 3), 200, np.uint8)] * 99]
    )
    assert seen.min() >= 100  # 200 * 0.5; what is above 255 must not start again at 0
    assert seen.min() < 110
    assert seen.max() == 255


@pytest.mark.parametrize("row", AUGMENTATIONS, ids=lambda row: row.key)
def test_each_row_has_its_key_default_and_range(row):
    (key,) = (key for key in KEYS if key.name == row.key)
    assert key.default == row.default == config_value(load_config(), row.key)
    assert not row.default
    assert row.meaning in key.meaning
    cfg = load_config()
    for value, is_allowed in ((row.most, True), (row.most + 0.01, False), (-0.01, False)):
        section, leaf = row.key.split(".")
        cfg[section][leaf] = value
        if is_allowed:
            assert len(cytology_augmentations(cfg)) == (row.build is not None)
            assert len(cytology_augmentations(cfg, moving=False)) == (row.build is not None and not row.moves)
        else:
            with pytest.raises(UserError, match=f"{row.key} is {value}; allowed: 0 .off. to {row.most}"):
                values_of(cfg)


def test_all_are_off_unless_asked_for():
    assert cytology_augmentations(load_config()) == []


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["INPUT.RANDOM_ROTATION", "181"], "INPUT.RANDOM_ROTATION is 181.0; allowed: 0 .off. to 180"),
        (["INPUT.STAIN_JITTER", "-0.1"], "INPUT.STAIN_JITTER is -0.1; allowed"),
        (["INPUT.BLUR", "20.5"], "INPUT.BLUR is 20.5"),
        (["INPUT.DEFOCUS", "30"], "INPUT.DEFOCUS is 30.0"),
        (["INPUT.BRIGHTNESS", "1.5"], "INPUT.BRIGHTNESS is 1.5"),
        (["INPUT.JPEG_QUALITY", "101"], "INPUT.JPEG_QUALITY is 101"),
        (["INPUT.STAIN_JITTER", "0.1", "INPUT.FORMAT", "YUV-BT.601"], "INPUT.FORMAT.*INPUT.STAIN_JITTER"),
    ],
)
def test_what_is_out_of_range_is_refused_before_anything_is_written(tiny: Path, options, words):
    cfg = load_config(str(tiny / "config.yaml"), options)
    with pytest.raises(UserError, match=words):
        prepare(cfg)
    assert not (tiny / "run").exists()


def test_order_is_crop_resize_flip_turns_then_colors(tiny: Path):
    options = [word for key, value in PHOTOMETRIC.items() for word in (key, value)]
    cfg = load_config(
        str(tiny / "config.yaml"), [*options, "INPUT.RANDOM_ROTATION", "180", "INPUT.RANDOM_ROT90", "True"]
    )
    cfg.INPUT.CROP.ENABLED = True
    names = [type(getattr(item, "aug", item)).__name__ for item in train_augmentations(cfg)]
    assert names == [
        "RandomCrop", "ResizeShortestEdge", "RandomFlip", "RandomRot90", "RandomCellRotation",
        "StainJitter", "RandomBrightness", "RandomDefocus", "RandomBlur", "RandomJpeg",
    ]  # fmt: skip


def test_workers_draw_what_the_main_process_draws(tiny: Path):
    cfg = load_config(str(tiny / "config.yaml"), ALL)
    cfg.DATASETS.TRAIN = tuple(map(resolve, cfg.DATASETS.TRAIN))
    seen = []
    for cfg.DATALOADER.NUM_WORKERS in (0, 2):
        batches = iter(build_train_loader(cfg))
        seen.append([sample for _ in range(4) for sample in next(batches)])
    for alone, worker in zip(*seen, strict=True):
        assert (alone["image"] == worker["image"]).all()
        assert alone["instances"].gt_boxes.tensor.tolist() == worker["instances"].gt_boxes.tensor.tolist()
