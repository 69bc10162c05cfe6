"""The same content in two images: found whatever was done to it, and not found where it is not."""

from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from cervical_d2.curation.audits import candidates
from cervical_d2.curation.audits.candidates import find_candidates
from cervical_d2.curation.audits.keypoints import Keypoints, describe, fingerprint
from cervical_d2.curation.audits.overlaps import Image, find_overlaps
from cervical_d2.curation.audits.registration import correlate, overlap_outline, register
from cervical_d2.demo.scenes import draw_scene
from tools.benchmarks import planted

FIELDS, SIZE = 4, 320


@pytest.fixture(scope="module")
def fields() -> list[np.ndarray]:
    return [draw_scene(7, "train", index, size=SIZE).image for index in range(FIELDS)]


@pytest.fixture
def files(fields: list[np.ndarray], tmp_path: Path) -> list[str]:
    return [save(tmp_path / f"field{index}.png", field) for index, field in enumerate(fields)]


def save(path: Path, image: np.ndarray) -> str:
    cv2.imwrite(str(path), cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    return str(path)


def test_every_planted_kind_is_found_and_nothing_else(files: list[str], tmp_path: Path):
    (tmp_path / "planted").mkdir()
    # Tiles that share 10 % of their area share 60 x 60 px here, one cell, which is not always enough.
    planted_kinds = {kind: how for kind, how in planted.KINDS.items() if how[1] >= 0.2}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(planted, "KINDS", planted_kinds)
        rows = list(planted.benchmark(files, FIELDS, tmp_path / "planted"))
    assert {row.kind: (row.found, row.false) for row in rows} == dict.fromkeys(planted_kinds, (FIELDS, 0))
    assert max(row.share_error for row in rows) < 0.02


def test_a_benchmark_counts_hits_and_false_pairs_of_what_the_search_answers(
    files: list[str], tmp_path: Path, monkeypatch
):
    """Two of four fields get a copy each; the search answers as it is told here."""

    def answered(images: list[Image], prints: list[str], within: bool) -> list[SimpleNamespace]:
        assert [f"print of {image.file}" for image in images] == prints
        if within:
            return [pair_of(files[0], files[1])]  # a real overlap, which counts for nothing
        assert [(Path(image.file).name, image.split) for image in images] == [
            ("field1.png", "left"), ("field2.png", "left"), ("0_a.png", "left"), ("3_a.png", "left"),
            ("0_b.png", "right"), ("3_b.png", "right"),
        ]  # fmt: skip
        zero, three = (str(tmp_path / f"{number}_b.png") for number in (0, 3))
        return [
            pair_of(zero.replace("b.png", "a.png"), zero, share=0.75),  # its own copy: 0.25 too much
            pair_of(three.replace("b.png", "a.png"), three, share=0.4),  # 0.1 too little
            pair_of(files[1], zero, share=0.95),  # known
            pair_of(files[2], zero),  # false
            pair_of(files[2], three),  # false
        ]

    def pair_of(one: str, other: str, share: float = 0.5) -> SimpleNamespace:
        return SimpleNamespace(first=Image(one, ""), second=Image(other, ""), share=share)

    monkeypatch.setattr(planted, "fingerprint", lambda file: f"print of {file}")
    monkeypatch.setattr(planted, "match_fingerprints", answered)
    monkeypatch.setattr(planted, "KINDS", {"copies": (lambda field, number: (field, field), 0.5)})
    (row,) = planted.benchmark(files, 2, tmp_path)
    assert row[:4] == ("copies", 2, 2, 2)
    assert row.share_error == pytest.approx(0.25)


def test_tiles_share_what_is_said():
    # Parts of side s of a field overlap by 2 s - 1: with s = 1 / (2 - sqrt(0.25)) = 2 / 3 by 1 / 3, and that is half of
    # s along each axis, a quarter of the area. 90 px: sides of 60 px, 30 px shared.
    field = np.arange(90 * 90).reshape(90, 90)
    one, other = planted.tiles(field, 0.25)
    assert one.shape == other.shape == (60, 60)
    assert np.intersect1d(one, other).size == 30 * 30


def test_outlines_mark_the_same_place_in_both_images(fields: list[np.ndarray], tmp_path: Path):
    # Tiles from x = 0..200 and x = 120..320 of one field share its x = 120..200: 80 of 200 px, 40 %.
    left = save(tmp_path / "left.png", fields[0][:, :200])
    right = save(tmp_path / "right.png", np.ascontiguousarray(fields[0][:, 120:]))
    (found,) = find_overlaps([Image(left, "a"), Image(right, "b")])
    assert found.share == pytest.approx(0.4, abs=0.01)
    assert found.correlation > 0.98
    expected = np.array([(120, 0), (200, 0), (200, 320), (120, 320)])
    for outline, shift in zip(found.outlines, (0, 120), strict=True):
        corners = outline + np.array((shift, 0))
        assert np.abs(corners[:, None] - expected).sum(axis=2).min(axis=0).max() < 4
    assert np.abs(found.outlines[0] - (found.outlines[1] + np.array((120, 0)))).max() < 4


def test_outline_of_a_mirrored_copy_is_mirrored(fields: list[np.ndarray], tmp_path: Path):
    # The copy is the left 240 px mirrored: its x' = 239 - x, so that the field's corner (0, 0) is the copy's (240, 0).
    whole = save(tmp_path / "whole.png", fields[1])
    copy = save(tmp_path / "copy.png", np.ascontiguousarray(fields[1][:, 239::-1]))
    (found,) = find_overlaps([Image(whole, "a"), Image(copy, "b")])
    assert found.mirrored
    assert found.share == pytest.approx(1.0, abs=0.01)
    one, other = found.outlines
    assert np.abs(one[:, 0] - (240 - other[:, 0])).max() < 4
    assert np.abs(one[:, 1] - other[:, 1]).max() < 4


def test_pairs_within_a_split_are_reported_only_if_asked_for(
    files: list[str], fields: list[np.ndarray], tmp_path: Path
):
    copy = save(tmp_path / "copy.png", planted.reencoded(fields[2]))
    images = [*(Image(file, "train") for file in files), Image(copy, "train")]
    assert find_overlaps(images) == []
    (found,) = find_overlaps(images, within=True)
    assert {found.first.file, found.second.file} == {files[2], copy}


def test_equal_images_without_any_keypoint_are_found(tmp_path: Path):
    blank = np.full((60, 80, 3), 200, np.uint8)
    one, other = save(tmp_path / "a.png", blank), save(tmp_path / "b.png", blank)
    different = save(tmp_path / "c.png", blank - 1)
    found = find_overlaps([Image(one, "a"), Image(other, "b"), Image(different, "b")])
    assert [(item.first.file, item.second.file, item.share) for item in found] == [(one, other, 1.0)]
    assert found[0].outlines[0].tolist() == [[0, 0], [80, 0], [80, 60], [0, 60]]


def test_a_copy_has_many_votes_for_one_pose_and_chance_few(files: list[str]):
    prints = [fingerprint(file) for file in files]
    best, *others = find_candidates([*prints, prints[2]], np.arange(FIELDS + 1))
    assert (best.first, best.second, best.mirrored) == (2, FIELDS, False)
    assert best.votes > 10 * max((item.votes for item in others), default=0)


def test_patches_that_are_alike_but_agree_on_no_pose_are_no_candidates(files: list[str]):
    first = fingerprint(files[0])
    order = np.random.default_rng(0).permutation(len(first.views[0].points))
    scattered = first._replace(views=(first.views[0]._replace(points=first.views[0].points[order]), first.views[1]))
    (same,) = find_candidates([first, first], np.arange(2))
    # Every patch still meets its equal; but scattered over some 6 x 6 bins of shift, a bin gets few of the meetings.
    assert same.votes > 300
    assert all(item.votes < same.votes / 10 for item in find_candidates([first, scattered], np.arange(2)))


@pytest.mark.parametrize("spare", [0, 1])
def test_a_bucket_that_overflows_is_left_out(spare: int, monkeypatch):
    # Three keypoints of equal descriptors in the index, and one that differs in its first bit; all four ask.
    monkeypatch.setattr(candidates, "MAX_BUCKET", 2 + spare)
    descriptors = np.zeros((4, 32), np.uint8)
    descriptors[3, 0] = 1
    stack = candidates._Stack(np.arange(4), np.zeros((4, 2)), np.zeros(4), np.zeros(4), descriptors)
    asking, met = candidates._encounters(stack, candidates._table(descriptors, np.arange(8)))
    alone = [(3, 3)]
    together = [(one, other) for one in range(3) for other in range(3)]
    assert sorted(zip(asking.tolist(), met.tolist(), strict=True)) == (together + alone if spare else alone)


def test_a_pair_is_taken_while_either_image_has_room(monkeypatch):
    monkeypatch.setattr(candidates, "PARTNERS", 1)
    votes = np.array([(0, 1, 0, 9), (0, 1, 1, 8), (0, 2, 1, 7), (1, 2, 0, 6), (2, 3, 0, 5)])
    # 0 has its partner by the first pair, 2 has none before the third; of 1 and 2 both have one then, of 2 and 3 one.
    assert [tuple(item) for item in candidates._partners(votes)] == [
        (0, 1, False, 9),
        (0, 2, True, 7),
        (2, 3, False, 5),
    ]


def test_candidates_are_limited_for_each_image(files: list[str], monkeypatch):
    # Five copies of one field: 10 pairs. With one partner an image, each pair taken is an image's first: at most 5.
    monkeypatch.setattr(candidates, "PARTNERS", 1)
    prints = [fingerprint(files[0])] * 5
    assert len(find_candidates(prints, np.arange(5))) <= 5
    assert find_candidates(prints, np.zeros(5, int)) == []


def test_alignment_by_a_known_transform(fields: list[np.ndarray]):
    image = cv2.cvtColor(fields[3], cv2.COLOR_RGB2GRAY)
    turn = cv2.getRotationMatrix2D((160, 160), 25, 0.9)
    other = cv2.warpAffine(image, turn, (320, 320), borderMode=cv2.BORDER_REPLICATE)
    found = register(describe(image), describe(other), image, other)
    assert found is not None
    assert found.same
    corners = np.array([[(0, 0), (320, 0), (320, 320), (0, 320)]], float)
    assert np.abs(cv2.transform(corners, found.transform) - cv2.transform(corners, turn)).max() < 3


def test_dust_of_the_camera_neither_makes_a_pair_nor_hides_one():
    # 40 keypoints at the same pixels of both pictures, as of dust, and 15 of content that moved by (60, 20).
    rng = np.random.default_rng(0)
    wide = cv2.GaussianBlur(rng.uniform(0, 255, (460, 460)).astype(np.float32), (0, 0), 4)
    wide = np.clip(128 + 12 * (wide - wide.mean()), 0, 255).astype(np.uint8)
    image, other = wide[20:420, 60:460].copy(), wide[:400, :400].copy()
    points = rng.uniform(20, 320, (55, 2)).astype(np.float32)
    moved = points + np.where(np.arange(55) < 40, 0, 1)[:, None] * np.array((60, 20))
    bits = rng.integers(0, 256, (55, 32), dtype=np.uint8)
    one, two = (Keypoints(each.astype(np.float32), np.zeros(55), np.zeros(55), bits) for each in (points, moved))
    found = register(one, two, image, other)
    assert found is not None
    assert found.same
    assert found.transform == pytest.approx(np.array([[1, 0, 60], [0, 1, 20]]), abs=1e-3)
    dust = [Keypoints(*(values[:40] for values in each)) for each in (one, two)]
    alone = register(*dust, image, other)
    assert alone is not None
    assert alone.overlap == pytest.approx(1)
    assert not alone.same


def test_correlation_ignores_brightness_and_shading():
    rng = np.random.default_rng(0)
    image = cv2.GaussianBlur(rng.uniform(0, 255, (200, 200)).astype(np.float32), (0, 0), 4) * 4 - 400
    everywhere = np.ones(image.shape, bool)
    shading = np.linspace(0, 80, 200, dtype=np.float32)
    assert correlate(image, 0.5 * image + 30 + shading, everywhere) > 0.97
    assert correlate(image, -image, everywhere) == pytest.approx(-1, abs=1e-5)
    assert abs(correlate(image, np.roll(image, 80, axis=0), everywhere)) < 0.2
    assert correlate(image, np.full_like(image, 7), everywhere) == 0


def test_outline_of_shifted_images():
    # (10, 8) px moved by (4, 2) covers x 4..10 of the other's 10, y 2..8 of its 8.
    outline = overlap_outline(np.array([[1.0, 0, 4], [0, 1, 2]]), (10, 8), (10, 8))
    assert outline is not None
    assert sorted(map(tuple, outline.round(3).tolist())) == [(4, 2), (4, 8), (10, 2), (10, 8)]
    assert overlap_outline(np.array([[1.0, 0, 40], [0, 1, 0]]), (10, 8), (10, 8)) is None
