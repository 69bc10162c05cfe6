"""Slides and large images of every format that can be written here: any region at any scale, damaged ones refused."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from slide_files import SIZE, image, write_slide, write_tiff

from cervical_d2.errors import MachineError, UserError
from cervical_d2.slides import slide as slides
from cervical_d2.slides.slide import Level, nearest_level, on_white, open_slide, slide_files

NAMES = ("a.svs", "a.tiff", "a.kfb", "a.png", "a.jpg", "a.bmp", "a.tif")
LOSS = {".kfb": 1.5, ".jpg": 2.0}  # mean gray levels that JPEG costs
PYRAMIDS = ("a.svs", "a.tiff", "a.kfb")


@pytest.mark.parametrize("name", NAMES)
def test_every_format_gives_the_same_pixels(tmp_path: Path, name: str):
    pixels = image()
    path = write_slide(tmp_path / name, pixels)
    with open_slide(path) as slide:
        assert slide.size == SIZE
        assert [level.width for level in slide.levels] == ([1300, 650, 325] if name in PYRAMIDS else [1300])
        loss = LOSS.get(path.suffix, 0)
        assert np.abs(slide.read_region(0, 0, *SIZE).astype(int) - pixels).mean() <= loss
        assert np.abs(slide.read_region(130, 70, 300, 200).astype(int) - pixels[70:270, 130:430]).mean() <= loss
        # Half the scale from the level of half the size, or by the mean of four pixels: the same.
        half = cv2.resize(pixels[60:460, 100:700], (300, 200), interpolation=cv2.INTER_AREA)
        assert np.abs(slide.read_region(100, 60, 600, 400, 0.5).astype(int) - half).mean() <= 1.5 * loss
        assert slide.read_region(10, 10, 100, 50, 2).shape == (100, 200, 3)
        assert slide.thumbnail(130).shape == (100, 130, 3)
    known = {"a.svs": (0.25, 40), "a.kfb": (0.25, 40)}
    assert (slide.mpp, slide.objective) == known.get(name, (None, None))


@pytest.mark.parametrize("name", NAMES)
def test_outside_of_the_slide_it_is_white(tmp_path: Path, name: str):
    """kfbslide returns transparent black there."""
    pixels = image()
    with open_slide(write_slide(tmp_path / name, pixels)) as slide:
        corner = slide.read_region(-100, -50, 300, 250)
        assert (corner[:50] == 255).all() and (corner[:, :100] == 255).all()
        assert np.abs(corner[50:, 100:].astype(int) - pixels[:200, :200]).mean() <= LOSS.get(slide.path.suffix, 0)
        end = slide.read_region(1250, 950, 100, 100)
        assert (end[50:] == 255).all() and (end[:, 50:] == 255).all() and (end[:49, :49] < 255).any()
        assert (slide.read_region(5000, 5000, 64, 32) == 255).all()


def test_where_nothing_was_scanned_a_slide_is_white():
    rgba = np.array([[[0, 0, 0, 0], [10, 20, 30, 255], [100, 100, 100, 51]]], np.uint8)
    # A fifth of 100 and four fifths of 255.
    assert on_white(rgba).tolist() == [[[255, 255, 255], [10, 20, 30], [224, 224, 224]]]


def test_the_level_is_the_smallest_that_is_fine_enough():
    levels = [Level(4000, 4000, 1.0), Level(1000, 1000, 4.0), Level(250, 250, 16.0)]
    assert [nearest_level(levels, scale) for scale in (2, 1, 0.5, 0.25, 0.2, 1 / 16, 0.01)] == [0, 0, 0, 1, 1, 2, 2]


def test_only_the_level_that_is_needed_is_read(tmp_path: Path, monkeypatch):
    path = write_slide(tmp_path / "a.svs", image())
    with open_slide(path) as slide:
        read, levels = slide._reader.read, []
        monkeypatch.setattr(slide._reader, "read", lambda level, *window: levels.append(level) or read(level, *window))
        slide.read_region(0, 0, 400, 400, 0.5)
        slide.read_region(0, 0, 400, 400, 0.3)
        slide.read_region(0, 0, 400, 400, mpp=1.0)
        assert levels == [1, 1, 2]


def test_a_large_region_is_read_in_blocks_that_join(tmp_path: Path, monkeypatch):
    pixels = image()
    with open_slide(write_slide(tmp_path / "a.svs", pixels)) as slide:
        whole, small = slide.read_region(0, 0, *SIZE), slide.read_region(-30, 20, 1000, 900, 0.4)
        monkeypatch.setattr(slides, "BLOCK", 250)
        assert np.array_equal(slide.read_region(0, 0, *SIZE), whole)
        # At borders of blocks a pixel of the level may be shared differently.
        assert np.abs(slide.read_region(-30, 20, 1000, 900, 0.4).astype(int) - small).mean() < 0.5


def test_micrometers_need_a_slide_that_states_its_own(tmp_path: Path):
    with open_slide(write_slide(tmp_path / "a.svs", image())) as slide:
        assert slide.read_region(0, 0, 400, 200, mpp=0.5).shape == (100, 200, 3)
    with (
        open_slide(write_slide(tmp_path / "a.bmp", image())) as plain,
        pytest.raises(UserError, match=r"a\.bmp: does not state micrometers per pixel; give a scale instead"),
    ):
        plain.read_region(0, 0, 400, 200, mpp=0.5)


def test_a_resolution_that_no_microscope_has_is_not_believed(tmp_path: Path):
    pytest.importorskip("openslide")
    for dpcm, expected in ((40000, 0.25), (28.35, None)):  # 72 dpi
        path = tmp_path / "a.tif"
        tifffile.imwrite(path, image(), tile=(256, 256), photometric="rgb", resolution=(dpcm, dpcm),
                         resolutionunit="CENTIMETER")  # fmt: skip
        with open_slide(path) as slide:
            assert slide.mpp == expected


@pytest.mark.parametrize("share", [0.1, 0.5, 0.98])
@pytest.mark.parametrize("name", NAMES)
def test_a_slide_that_is_cut_off_is_refused(tmp_path: Path, name: str, share: float):
    path = write_slide(tmp_path / name, image())
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(UserError, match=rf"{name}: .*copy it again"), open_slide(path) as slide:
        slide.read_region(0, 0, *SIZE)


@pytest.mark.parametrize("name", ["a.tif", "a.tiff", "a.png"])
def test_16_bits_are_refused(tmp_path: Path, name: str):
    pytest.importorskip("pyvips")
    deep = image().astype(np.uint16) * 257
    if name == "a.png":
        cv2.imwrite(str(tmp_path / name), deep)
    else:
        tifffile.imwrite(tmp_path / name, deep, photometric="rgb", tile=(256, 256) if name == "a.tiff" else None)
    with pytest.raises(UserError, match=rf"{name}: has .*convert it to 8 bits"):
        open_slide(tmp_path / name)


def test_what_is_no_slide_is_told_in_one_line(tmp_path: Path):
    for name, content, message in (
        ("a.txt", b"", "not the file name of a slide"),
        ("a.svs", b"", "not a complete slide"),
        ("a.kfb", b"x" * 500, "not a complete slide"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=rf"{name}: {message}"):
            open_slide(tmp_path / name)
    with pytest.raises(UserError, match=r"b\.svs: cannot be read \(No such file"):
        open_slide(tmp_path / "b.svs")


def test_a_slide_without_permission_is_told(tmp_path: Path, monkeypatch):
    path = write_slide(tmp_path / "a.bmp", image())

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)  # the administrator may read all
    with pytest.raises(UserError, match=r"a\.bmp: cannot be read \(Permission denied\); check"):
        open_slide(path)


@pytest.mark.parametrize("name, library", [("a.svs", "openslide"), ("a.kfb", "kfbslide"), ("a.png", "pyvips")])
def test_a_missing_library_is_told_with_the_cure(tmp_path: Path, monkeypatch, name: str, library: str):
    (tmp_path / name).write_bytes(b"x")

    def without(wanted: str, *args: object) -> object:
        if wanted == library:
            raise ImportError(f"No module named {library!r}")
        return real(wanted, *args)

    real = slides.importlib.import_module
    monkeypatch.setattr(slides.importlib, "import_module", without)
    with pytest.raises(UserError, match=rf'{name}: reading it needs {library} .*pip install "cervical-d2\[slides\]"'):
        open_slide(tmp_path / name)


def test_an_image_is_unpacked_once_into_the_scratch_folder(tmp_path: Path, monkeypatch):
    pytest.importorskip("pyvips")
    from cervical_d2.slides import plain

    path, scratch = write_slide(tmp_path / "a.png", image()), tmp_path / "scratch"
    with open_slide(path, scratch) as slide:
        assert not scratch.exists()
        first = slide.read_region(0, 0, 50, 50)
    (file,) = scratch.iterdir()
    assert file.stat().st_size == 1300 * 1000 * 3
    monkeypatch.setattr(plain.pyvips.Image, "rawsave", None)
    with open_slide(path, scratch) as slide:
        assert np.array_equal(slide.read_region(0, 0, 50, 50), first)


def test_no_space_to_unpack_is_told_before(tmp_path: Path, monkeypatch):
    pytest.importorskip("pyvips")
    from cervical_d2.slides import plain

    path = write_slide(tmp_path / "a.png", image())
    monkeypatch.setattr(plain, "SPARE", 1 << 62)
    with open_slide(path, tmp_path / "scratch") as slide, pytest.raises(MachineError, match=r"unpacking .* 0\.0 GB"):
        slide.thumbnail(100)
    assert list((tmp_path / "scratch").iterdir()) == []


def test_gray_and_transparent_images_become_rgb(tmp_path: Path):
    pytest.importorskip("pyvips")
    gray = image()[..., 0]
    cv2.imwrite(str(tmp_path / "gray.png"), gray)
    clear = np.dstack([image(), np.zeros_like(gray)])
    cv2.imwrite(str(tmp_path / "clear.png"), clear)
    with open_slide(tmp_path / "gray.png") as slide:
        assert np.array_equal(slide.read_region(0, 0, *SIZE), np.repeat(gray[..., None], 3, axis=2))
    with open_slide(tmp_path / "clear.png") as slide:
        assert (slide.read_region(0, 0, *SIZE) == 255).all()


def test_an_image_beyond_the_limit_of_pillow_is_read(tmp_path: Path):
    """60,000 px wide; Pillow refuses more than 179 million pixels."""
    pytest.importorskip("pyvips")
    wide = np.full((3100, 60000), 200, np.uint8)
    wide[3000:, 59000:] = 7
    cv2.imwrite(str(tmp_path / "wide.png"), wide)
    with open_slide(tmp_path / "wide.png") as slide:
        assert slide.size == (60000, 3100)
        assert (slide.read_region(58990, 2990, 1010, 110)[10:, 10:] == 7).all()


def test_label_and_macro_images_are_never_exposed(tmp_path: Path):
    """They show the patient's name; ours in the KFB are black."""
    with open_slide(write_slide(tmp_path / "a.kfb", image())) as slide:
        assert slide.thumbnail(64).min() > 90
        assert not [name for name in dir(slide) if "associated" in name or "label" in name or "macro" in name]


def test_slides_are_found_below_folders(tmp_path: Path):
    for name in ("b/x.svs", "a/y.KFB", "z.png", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    assert [path.name for path in slide_files([tmp_path])] == ["y.KFB", "x.svs", "z.png"]
    with pytest.raises(UserError, match="nothing: no slide there"):
        list(slide_files([tmp_path / "nothing"]))


def test_a_pyramid_is_not_read_whole(tmp_path: Path, monkeypatch):
    """A damaged tile is told when it is read, not before, and where."""
    path = write_tiff(tmp_path / "a.tif", image(), levels=1)
    with tifffile.TiffFile(path) as file:
        offset = file.pages.first.dataoffsets[-1]
    with path.open("r+b") as raw:
        raw.seek(offset)
        raw.write(b"\0" * 64)
    with open_slide(path) as slide:
        slide.read_region(0, 0, 200, 200)
        with pytest.raises(UserError, match=r"a\.tif: damaged at \(1285, 900\) of level 0"):
            slide.read_region(1285, 900, 10, 10)
