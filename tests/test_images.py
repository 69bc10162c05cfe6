"""Image files: found by their names, and looked at without a traceback whatever they hold."""

from pathlib import Path

import numpy as np
import pytest
from detectron2.data.detection_utils import read_image
from PIL import Image

from cervical_d2.datasets.images import ORIENTATION, Header, ImageFolder, image_fault, look_at, relative_name
from cervical_d2.datasets.problems import KINDS


@pytest.mark.parametrize(
    ("path", "root", "name"),
    [
        ("/d/images/a.jpg", "/d/images", "a.jpg"),
        ("/d/images/s1/../s2/a.jpg", "/d/images/", "s2/a.jpg"),
        ("/d/images/../x.jpg", "/d/images", None),
        ("/d/images2/a.jpg", "/d/images", None),
        ("/etc/x.jpg", "/d/images", None),
        ("images/a.jpg", "./images", "a.jpg"),
        ("a.jpg", ".", "a.jpg"),
        ("../a.jpg", ".", None),
        ("../../a.jpg", "..", None),
        ("/a.jpg", "/", "a.jpg"),
        ("../a.jpg", None, "../a.jpg"),  # no folder of images: nothing that could be left
    ],
)
def test_names_below_the_images_folder(path, root, name):
    assert relative_name(path, None if root is None else Path(root)) == name


def save(path: Path, mode: str = "RGB", size: tuple[int, int] = (30, 20), orientation: int = 1) -> Path:
    image = Image.effect_noise(size, 50).convert(mode)
    exif = image.getexif()
    exif[ORIENTATION] = orientation
    image.save(path, exif=exif)
    return path


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_upright_size_is_what_detectron2_reads(tmp_path: Path, suffix, orientation):
    path = save(tmp_path / f"a{suffix}", orientation=orientation)
    height, width = read_image(path, "BGR").shape[:2]
    assert look_at(path).size == (width, height) == ((30, 20) if orientation < 5 else (20, 30))
    fault = image_fault(path, 30, 20)
    expected = [None, "exif-ambiguous", "exif-rotated"][(orientation > 1) + (orientation > 4)]
    assert (fault and fault[0]) == expected
    assert orientation < 5 or image_fault(path, 20, 30) is None  # annotated upright


def test_square_image_does_not_tell_whether_it_was_turned(tmp_path: Path):
    assert image_fault(save(tmp_path / "a.jpg", size=(20, 20), orientation=6), 20, 20)[0] == "exif-ambiguous"


@pytest.mark.parametrize("orientation", range(1, 9))
def test_tiff_is_turned_twice_by_its_readers(tmp_path: Path, orientation):
    path = save(tmp_path / "a.tif", orientation=orientation)
    assert look_at(path).raw == (30, 20)
    fault = image_fault(path, 30, 20)
    assert (fault and fault[0]) == (None if orientation == 1 else "exif-rotated")


@pytest.mark.parametrize(
    ("name", "mode", "kind"),
    [
        ("a.png", "RGB", None),
        ("a.png", "L", None),
        ("a.png", "P", None),
        ("a.png", "1", None),
        ("a.png", "RGBA", None),
        ("a.jpg", "CMYK", None),
        ("a.bmp", "RGB", None),
        ("a.png", "I;16", "not-8-bit"),
        ("a.tif", "I;16", "not-8-bit"),
        ("a.tif", "I", "not-8-bit"),
        ("a.tif", "F", "not-8-bit"),
        ("a.tif", "LAB", "not-8-bit"),
    ],
)
def test_pixels_that_are_not_8_bit(tmp_path: Path, name, mode, kind):
    path = tmp_path / name
    deep = Image.fromarray(np.arange(600, dtype=np.uint16).reshape(20, 30) * 100)
    (deep if mode == "I;16" else Image.new(mode, (30, 20))).save(path)
    fault = image_fault(path, 30, 20, decode=True)
    assert (fault and fault[0]) == kind


def test_image_of_too_many_pixels_is_refused_and_of_many_is_taken_silently(tmp_path: Path, monkeypatch, recwarn):
    path = save(tmp_path / "a.png")  # 600 pixels
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 299)
    assert image_fault(path, 30, 20, decode=True) == ("huge-image", "has more than 598 pixels")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 300)  # Pillow warns from 300, refuses from 601
    assert image_fault(path, 30, 20, decode=True) is None
    assert not [warning for warning in recwarn if "bomb" in str(warning.message)]


def test_damage_in_the_middle_is_found_by_decoding_alone(tmp_path: Path):
    path = save(tmp_path / "a.png", size=(200, 200))
    content = bytearray(path.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 50] = bytes(50)
    path.write_bytes(content)
    assert image_fault(path, 200, 200) is None
    assert image_fault(path, 200, 200, decode=True)[0] == "truncated-image"


@pytest.mark.parametrize("suffix", [".bmp", ".tif"])
def test_formats_without_an_end_mark_are_read_whole(tmp_path: Path, suffix):
    path = save(tmp_path / f"a{suffix}")
    path.write_bytes(path.read_bytes()[:-300])
    assert image_fault(path, 30, 20)[0] in ("truncated-image", "unreadable-image")


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".bmp", ".tif"])
def test_no_bytes_end_in_a_traceback(tmp_path: Path, suffix):
    whole = save(tmp_path / f"a{suffix}", orientation=6).read_bytes()
    rng = np.random.default_rng(0)
    found = set()
    for _ in range(150):
        content = bytearray(whole)
        for place in rng.integers(0, min(len(whole), 400), 4):  # headers, where parsers trust most
            content[place] = rng.integers(256)
        (tmp_path / f"b{suffix}").write_bytes(content)
        fault = image_fault(tmp_path / f"b{suffix}", 30, 20, decode=True)
        found.add(fault and fault[0])
        seen = look_at(tmp_path / f"b{suffix}")
        assert min(seen.size) > 0 if isinstance(seen, Header) else seen[0] in KINDS
    assert found <= {None, *KINDS}
    assert len(found) > 1


def test_odd_names_find_no_image(tmp_path: Path):
    (tmp_path / "folder.jpg").mkdir()
    save(tmp_path / "b.PNG")
    folder = ImageFolder(tmp_path)
    for name in ("no.jpg", "x" * 5000, "b.PNG/c.jpg"):
        assert image_fault(folder.find(name), 8, 8)[0] in ("missing-image", "unreadable-image")
    assert image_fault(folder.find("folder.jpg"), 8, 8) == ("missing-image", "a folder, not an image")
    assert [folder.find(name).name for name in ("b", "b.png", "b.jpg")] == ["b.PNG"] * 3
    assert ImageFolder(None).find("b") == Path("b")  # no folder: nothing is looked for
