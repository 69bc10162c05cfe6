"""Corruptions do what their units say, more at each strength, and their noise repeats."""

import math

import cv2
import numpy as np
import pytest

from cervical_d2.data.corruptions import CORRUPTIONS, STRENGTHS, corrupted

BY_NAME = {corruption.name: corruption for corruption in CORRUPTIONS}
GRAY = np.full((100, 120, 3), 128, np.uint8)
# Ruifrok and Johnston (2001): densities of a unit of hematoxylin and of eosin in red, green, blue.
HEMATOXYLIN, EOSIN = (0.65, 0.70, 0.29), (0.07, 0.99, 0.11)


def seen(image, name, strength, seed=0, number=0):
    return corrupted(image, BY_NAME[name], strength, seed=seed, number=number)


def cells():
    """Colored disks on a light background, a little grainy: something that each corruption changes."""
    image = np.full((160, 200, 3), (225, 222, 230), np.uint8)
    for x, y, color in ((50, 60, (110, 70, 150)), (140, 50, (205, 120, 165)), (100, 120, (150, 90, 160))):
        cv2.circle(image, (x, y), 30, color, cv2.FILLED)
    return (image + np.random.default_rng(0).integers(-8, 9, image.shape)).astype(np.uint8)


def test_noise_has_its_deviation_in_each_channel_alone():
    for strength, deviation in zip(STRENGTHS, (4, 8, 14, 22, 32), strict=True):
        noise = seen(GRAY, "noise", strength).reshape(-1, 3) - 128.0
        # 12000 values: the standard error of the deviation is 0.65 %, that of a correlation 0.009.
        np.testing.assert_allclose(noise.std(axis=0), deviation, rtol=0.03)
        assert abs(noise.mean()) < deviation / 50
        assert np.abs(np.corrcoef(noise.T) - np.eye(3)).max() < 0.04


def test_noise_is_cut_off_where_gray_levels_end():
    white = seen(np.full((50, 50, 3), 255, np.uint8), "noise", 5)
    assert white.max() == 255
    assert white.min() > 100  # what is above 255 must not start again at 0


def test_noise_is_of_the_seed_and_the_image_alone():
    first = seen(GRAY, "noise", 3, seed=1, number=7)
    seen(GRAY, "noise", 3, seed=1, number=8)
    np.random.seed(5)
    np.testing.assert_array_equal(seen(GRAY, "noise", 3, seed=1, number=7), first)
    assert (seen(GRAY, "noise", 3, seed=1, number=8) != first).mean() > 0.9
    assert (seen(GRAY, "noise", 3, seed=2, number=7) != first).mean() > 0.9


def test_strengths_share_one_pattern_of_noise():
    weak, strong = (seen(GRAY, "noise", strength, number=3) - 128.0 for strength in (2, 4))
    np.testing.assert_allclose(strong / 22, weak / 8, atol=0.5 / 22 + 0.5 / 8 + 1e-6)  # each is rounded


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("darker", (118, 108, 96, 83, 64)),  # 128 times 0.92, 0.84, 0.75, 0.65, 0.5
        ("brighter", (138, 148, 160, 173, 192)),  # 128 times 1.08, 1.16, 1.25, 1.35, 1.5
    ],
)
def test_brightness_is_a_factor(name, expected):
    for strength, level in zip(STRENGTHS, expected, strict=True):
        assert (seen(GRAY, name, strength) == level).all()
    assert (seen(np.full((2, 2, 3), 250, np.uint8), "brighter", 5) == 255).all()


def test_blur_is_opencvs_gaussian():
    for strength, sigma in zip(STRENGTHS, (0.7, 1.2, 2.0, 3.0, 4.5), strict=True):
        np.testing.assert_array_equal(seen(cells(), "blur", strength), cv2.GaussianBlur(cells(), (0, 0), sigma))


def test_jpeg_is_opencvs_and_knows_its_colors():
    bgr = cells()[..., ::-1]
    for strength, quality in zip(STRENGTHS, (70, 45, 25, 15, 8), strict=True):
        stored = cv2.imencode(".jpg", np.ascontiguousarray(bgr), [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
        expected = cv2.imdecode(stored, cv2.IMREAD_COLOR)[..., ::-1]
        np.testing.assert_array_equal(seen(cells(), "JPEG", strength), expected)


def test_stain_keeps_white_and_is_nothing_at_factor_one():
    white = np.full((4, 4, 3), 255, np.uint8)
    for name in ("more hematoxylin", "more eosin"):
        assert all(seen(white, name, strength).min() >= 254 for strength in STRENGTHS)
        same = BY_NAME[name].apply(cells(), 1.0, np.random.default_rng(0))
        assert np.abs(same.astype(int) - cells()).max() <= 1


@pytest.mark.parametrize(
    ("name", "strength", "hematoxylin", "eosin"),
    [("more hematoxylin", 4, 1.5, 1 / 1.5), ("more eosin", 3, 0.75, 1 / 0.75)],
)
def test_one_stain_grows_as_the_other_fades(name, strength, hematoxylin, eosin):
    for stain, factor in ((HEMATOXYLIN, hematoxylin), (EOSIN, eosin)):
        before, after = (
            np.array([[[256 * math.exp(-0.8 * times * density) - 1 for density in stain]]]) for times in (1, factor)
        )
        found = seen(before.round().astype(np.uint8), name, strength)
        np.testing.assert_allclose(found, after, atol=2)  # half a gray level of `before`, mixed into the others


@pytest.mark.parametrize("name", BY_NAME)
def test_each_strength_is_further_from_the_original(name):
    image = cells()
    distances = []
    for strength in STRENGTHS:
        changed = seen(image, name, strength)
        assert changed.dtype == np.uint8
        assert changed.shape == image.shape
        distances.append(np.abs(changed.astype(int) - image).mean())
    np.testing.assert_array_equal(image, cells())  # the caller's stays as it is
    assert distances[0] > 0.5
    assert sorted(set(distances)) == distances
