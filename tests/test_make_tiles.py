"""Slides to tiles: every planted cell where the rule says, whatever stopped the work in between; mistakes in a line."""

import errno
import json
import signal
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import called, listing
from slide_files import APERIO, smear, write_kfb, write_plain, write_tianchi, write_tiff

from cervical_d2.curation import tile_work, tiles
from cervical_d2.datasets.registry import resolve
from cervical_d2.slides.slide import open_slide

pytest.importorskip("openslide")
pytest.importorskip("kfbslide")

SIZE = (700, 520)
SIDE = 200
# XYWH; the second lies on the border at 200 px, three quarters of it to the left; the last is where the last tiles,
# which are moved inward, overlap.
CELLS = [(40, 40, 40, 30), (170, 90, 40, 40), (300, 280, 60, 50), (560, 150, 30, 30), (610, 370, 50, 60)]


def plant(folder: Path, slides: Sequence[str] = ("a", "b", "c"), regions: Sequence[tuple] = ()) -> Path:
    """`slides/` with a KFB for each name, each with all of `CELLS`, and their labels."""
    (folder / "slides").mkdir(parents=True)
    for name in slides:
        write_kfb(folder / "slides" / f"{name}.kfb", smear(SIZE, CELLS))
    write_tianchi(folder / "labels", {name: [("pos", *cell) for cell in CELLS] + list(regions) for name in slides})
    return folder


def make(capfd, folder: Path, *words: object, output: str = "tiles", processes: int = 1):
    """Run the tool on what `plant` has written."""
    source = ("--slides", folder / "slides", "--labels", folder / "labels", "--format", "tianchi")
    where = ("--output", folder / output, "--processes", processes)
    return called(capfd, "tools/make_tiles.py", *source, "--size", SIDE, *where, *words)


def documents(folder: Path, split: str = "all") -> tuple[dict[str, dict], dict[str, list[dict]]]:
    """Of a split: its images and their annotations, by file name."""
    document = json.loads((folder / f"{split}.json").read_text())
    images = {image["file_name"]: image for image in document["images"]}
    names = {image["id"]: image["file_name"] for image in document["images"]}
    annotations: dict[str, list[dict]] = {name: [] for name in images}
    for annotation in document["annotations"]:
        annotations[names[annotation["image_id"]]].append(annotation)
    return images, annotations


def expected(rule: str, share: float = 0.5) -> dict[tuple[int, int], list[tuple]]:
    """Written anew from the words of the rules: (cell, clipped XYWH) of each tile, by its corner."""
    found: dict[tuple[int, int], list[tuple]] = {}
    for top in (0, 200, 320):
        for left in (0, 200, 400, 500):
            for number, (x, y, w, h) in enumerate(CELLS):
                shown_w = min(x + w, left + SIDE) - max(x, left)
                shown_h = min(y + h, top + SIDE) - max(y, top)
                part = max(shown_w, 0) * max(shown_h, 0) / (w * h)
                member = {
                    "inside": part == 1,
                    "corner": left <= x < left + SIDE and top <= y < top + SIDE,
                    "share": part > share,
                }[rule]
                if member:
                    box = (max(x, left) - left, max(y, top) - top, shown_w, shown_h)
                    found.setdefault((left, top), []).append((number, box))
    return found


@pytest.mark.parametrize("rule", ["inside", "corner", "share"])
def test_every_cell_is_in_exactly_the_tiles_of_the_rule(tmp_path: Path, capfd, rule: str):
    result = make(capfd, plant(tmp_path, ["a"]), "--membership", rule)
    assert result.returncode == 0, result.stderr
    images, annotations = documents(tmp_path / "tiles")
    held = {
        (images[name]["x"], images[name]["y"]): [(e["cell"], tuple(e["bbox"])) for e in entries if "cell" in e]
        for name, entries in annotations.items()
    }
    assert held == expected(rule)
    lost = {"inside": 1, "corner": 0, "share": 0}[rule]
    assert ("1 of 5 cells are in no tile" in result.stdout) == bool(lost)


def test_tiles_hold_the_pixels_of_their_place(tmp_path: Path, capfd):
    plant(tmp_path, ["a"])
    assert make(capfd, tmp_path, "--png").returncode == 0
    images, _ = documents(tmp_path / "tiles")
    with open_slide(tmp_path / "slides/a.kfb") as slide:
        for name, image in images.items():
            pixels = cv2.imread(str(tmp_path / "tiles/images" / name))[..., ::-1]
            assert np.array_equal(pixels, slide.read_region(image["x"], image["y"], SIDE, SIDE))


def test_parts_of_cells_are_ignored_or_background(tmp_path: Path, capfd):
    plant(tmp_path, ["a"])
    make(capfd, tmp_path, "--membership", "inside", "--empty-rate", 1, "--min-tissue", 0)
    images, annotations = documents(tmp_path / "tiles")
    regions = {
        (images[name]["x"], images[name]["y"]): [(e["bbox"], e["iscrowd"]) for e in entries if e.get("ignore")]
        for name, entries in annotations.items()
    }
    # A tile that shows nothing but a part of a cell is left out.
    assert (200, 0) not in regions and (200, 320) not in regions
    # Of the second cell 30 of 40 px.
    assert regions[0, 0] == [([170, 90, 30, 40], 1)]
    make(capfd, tmp_path, "--membership", "inside", "--cut-cells", "background", output="other")
    assert not [e for entries in documents(tmp_path / "other")[1].values() for e in entries if e.get("ignore")]


def test_the_registry_reads_what_is_written_and_no_slide_is_in_two_splits(tmp_path: Path, capfd):
    plant(tmp_path, [f"s{number}" for number in range(10)])
    result = make(capfd, tmp_path, "--ratios", "train=0.6,val=0.2,test=0.2", "--name", "planted")
    assert result.returncode == 0, result.stderr
    from detectron2.data import DatasetCatalog

    slides = {}
    for split in ("train", "val", "test"):
        records = DatasetCatalog.get(resolve(f"{tmp_path}/tiles/data.yaml:{split}"))
        slides[split] = {record["group_id"] for record in records}
        assert all(Path(record["file_name"]).is_file() for record in records)
        assert {entry["category_id"] for record in records for entry in record["annotations"]} <= {0, -1}
    assert [len(names) for names in slides.values()] == [6, 2, 2]
    assert set.union(*slides.values()) == {f"s{number}" for number in range(10)}


def test_regions_decide_what_is_cut_and_the_rest_is_ignored(tmp_path: Path, capfd):
    """Two of the three regions are the same; together they cover x < 250."""
    regions = [("roi", 0, 0, 250, 520), ("roi", 0, 0, 250, 520), ("roi", 100, 100, 150, 300)]
    plant(tmp_path, ["a"], regions)
    options = ("--empty-rate", 1, "--min-tissue", 0, "--roi-share", 0.2, "--cut-cells", "background")
    assert make(capfd, tmp_path, *options).returncode == 0
    images, annotations = documents(tmp_path / "tiles")
    assert {image["x"] for image in images.values()} == {0, 200}
    for name, entries in annotations.items():
        regions_ = [entry["bbox"] for entry in entries if entry.get("ignore")]
        assert regions_ == ([] if images[name]["x"] == 0 else [[50, 0, 150, 200]])
    assert {entry.get("category_id") for entries in annotations.values() for entry in entries} <= {1, None}


def test_of_tiles_without_cells_a_share_is_kept(tmp_path: Path, capfd):
    plant(tmp_path, ["a"])
    write_kfb(tmp_path / "empty.kfb", np.full((2000, 3000, 3), 235, np.uint8))
    options = ("--negatives", tmp_path / "empty.kfb", "--min-tissue", 0, "--empty-rate")
    make(capfd, tmp_path, *options, 0.3, output="few")
    make(capfd, tmp_path, *options, 0.3, "--seed", 1, output="others")
    make(capfd, tmp_path, *options, 0.6, output="more")
    few, others, more = (
        {name for name in documents(tmp_path / output)[0] if name.startswith("empty/")}
        for output in ("few", "others", "more")
    )
    # 150 tiles: a standard deviation of 5.6.
    assert 45 - 17 < len(few) < 45 + 17 and 90 - 18 < len(more) < 90 + 18
    assert few < more and few != others


def test_tissue_and_focus_leave_out_tiles_without_cells_only(tmp_path: Path, capfd):
    plant(tmp_path, ["a"])
    sharp = smear((600, 200), [(50, 50, 80, 80), (250, 60, 80, 80)])
    sharp[:, 200:400] = cv2.GaussianBlur(sharp[:, 200:400], (0, 0), 8)
    write_kfb(tmp_path / "n.kfb", sharp)
    options = ("--negatives", tmp_path / "n.kfb", "--empty-rate", 1, "--min-tissue", 0.05, "--min-focus", 10)
    make(capfd, tmp_path, *options)
    about = {slide["slide"]: slide for slide in json.loads((tmp_path / "tiles/tiles.json").read_text())["slides"]}
    told = about["n"]["tiles"]
    assert (told["empty"], told["glass"], told["blurred"]) == (1, 1, 1)
    assert about["a"]["tiles"]["cells"] == len(expected("share"))
    assert [name for name in documents(tmp_path / "tiles")[0] if name.startswith("n/")] == ["n/n_000000_000000.jpg"]
    assert (tmp_path / "tiles/pictures/n.png").is_file()


def test_micrometers_per_pixel_scale_tiles_and_boxes(tmp_path: Path, capfd):
    plant(tmp_path, ["a"])
    write_tiff(tmp_path / "slides/a.svs", smear(SIZE, CELLS), 1, APERIO)
    (tmp_path / "slides/a.kfb").unlink()
    make(capfd, tmp_path, "--mpp", 0.5, "--png")  # 0.25 in the slide
    images, annotations = documents(tmp_path / "tiles")
    # 350 x 260 px at half the size: two columns and two rows.
    assert {(image["x"], image["y"]) for image in images.values()} <= {(0, 0), (300, 0), (0, 120), (300, 120)}
    first = annotations["a/a_000000_000000.png"]
    assert [entry["bbox"] for entry in first if entry.get("cell") == 1] == [[85, 45, 20, 20]]
    pixels = cv2.imread(str(tmp_path / "tiles/images/a/a_000000_000000.png"))[..., ::-1]
    half = cv2.resize(smear(SIZE, CELLS)[:400, :400], (200, 200), interpolation=cv2.INTER_AREA)
    assert np.abs(pixels.astype(int) - half).mean() < 0.5


def test_crops_around_cells_are_a_set_for_the_classifier(tmp_path: Path, capfd):
    plant(tmp_path)
    result = make(capfd, tmp_path, "--around-cells", 0.5, "--ratios", "train=0.7,test=0.3", "--png", output="crops")
    assert result.returncode == 0, result.stderr
    from detectron2.data import DatasetCatalog

    records = DatasetCatalog.get(resolve(f"{tmp_path}/crops/data.yaml:train"))
    assert len(records) == 10 and {record["group_id"] for record in records} < {"a", "b", "c"}
    # 1.5 times the longer side.
    assert [record["width"] for record in records[:5]] == [60, 60, 90, 45, 90]
    assert [record["height"] for record in records[:5]] == [60, 60, 90, 45, 90]
    crop = cv2.imread(records[2]["file_name"])[..., ::-1]
    assert np.abs(crop.astype(int) - smear(SIZE, CELLS)[260:350, 285:375]).mean() < 2


@pytest.mark.parametrize("kind", ["geojson", "csv"])
def test_labels_of_other_formats(tmp_path: Path, capfd, kind: str):
    plant(tmp_path, ["a"])
    labels = tmp_path / "other"
    if kind == "csv":
        rows = [f"a.kfb,pos,{x},{y},{w},{h}" for x, y, w, h in CELLS]
        labels = tmp_path / "other.csv"
        labels.write_text("\n".join(["image,class,x,y,width,height", *rows]) + "\n")
    else:
        labels.mkdir()
        rings = [[[x, y], [x + w, y], [x + w, y + h], [x, y + h], [x, y]] for x, y, w, h in CELLS]
        features = [
            {
                "type": "Feature",
                "geometry": {"type": "Polygon", "coordinates": [ring]},
                "properties": {"classification": {"name": "pos"}},
            }
            for ring in rings
        ]
        (labels / "a.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    make(capfd, tmp_path)
    source = ("--slides", tmp_path / "slides", "--labels", labels, "--format", kind, "--output", tmp_path / kind)
    result = called(capfd, "tools/make_tiles.py", *source, "--size", SIDE, "--processes", 1)
    assert result.returncode == 0, result.stderr
    assert (tmp_path / kind / "all.json").read_bytes() == (tmp_path / "tiles/all.json").read_bytes()


def test_points_become_boxes_and_labels_may_count_other_pixels(tmp_path: Path, capfd):
    plant(tmp_path, ["a"])
    (tmp_path / "points.csv").write_text("image,class,x,y\na.kfb,pos,30,27.5\n")  # at 20x; the slide is 40x
    source = ("--slides", tmp_path / "slides", "--labels", tmp_path / "points.csv", "--format", "csv", "--output",
              tmp_path / "tiles", "--size", SIDE, "--processes", 1)  # fmt: skip
    result = called(capfd, "tools/make_tiles.py", *source, "--box-side", 40, "--labels-at", 20)
    assert result.returncode == 0, result.stderr
    assert [e["bbox"] for entries in documents(tmp_path / "tiles")[1].values() for e in entries] == [[40, 35, 40, 40]]


def test_several_processes_write_the_same(tmp_path: Path, capfd):
    """Threads of OpenCV that run already do not hang the processes that are forked."""
    plant(tmp_path)
    cv2.setNumThreads(2)
    cv2.GaussianBlur(np.zeros((3000, 3000, 3), np.uint8), (0, 0), 3)
    signal.signal(signal.SIGALRM, signal.default_int_handler)
    signal.alarm(120)
    options = ("--ratios", "train=0.7,test=0.3", "--empty-rate", 0.5, "--min-tissue", 0, "--name", "set")
    assert make(capfd, tmp_path, *options, output="one").returncode == 0
    assert make(capfd, tmp_path, *options, output="two", processes=2).returncode == 0
    signal.alarm(0)
    assert listing(tmp_path / "one") == listing(tmp_path / "two")
    assert not [path for path in tmp_path.iterdir() if "partial" in path.name]


def test_stopped_anywhere_the_same_command_ends_with_the_same_files(tmp_path: Path, capfd, monkeypatch):
    plant(tmp_path)
    monkeypatch.setattr(tile_work, "CHUNK", 2)
    options = ("--ratios", "train=0.7,test=0.3", "--empty-rate", 0.5, "--min-tissue", 0, "--name", "set")
    writes = []
    for module in (tile_work, tiles):
        real = module.write_bytes
        monkeypatch.setattr(module, "write_bytes", lambda *given, real=real: (writes.append(given[0]), real(*given)))
    assert make(capfd, tmp_path, *options, output="whole").returncode == 0
    wanted, count = listing(tmp_path / "whole"), len(writes)
    assert count == 30  # 24 tiles, 3 overviews, 3 pictures
    for stop in range(1, count, 5):
        left = [stop]

        def write(*given, left=left):
            left[0] -= 1
            if left[0] == 0:
                raise KeyboardInterrupt
            real(*given)

        with monkeypatch.context() as patch:
            patch.setattr(tile_work, "write_bytes", write)
            patch.setattr(tiles, "write_bytes", write)
            assert make(capfd, tmp_path, *options).returncode == 130
        assert not (tmp_path / "tiles").exists()
        writes.clear()
        assert make(capfd, tmp_path, *options).returncode == 0
        assert listing(tmp_path / "tiles") == wanted
        # Not written again is what stood already, but for the chunk that was begun and the overviews.
        assert len(writes) <= count - stop + 1 + 2 + 3
        (tmp_path / "tiles").rename(tmp_path / f"stopped{stop}")


def test_killed_before_the_work_was_removed_it_is_whole(tmp_path: Path, capfd, monkeypatch):
    plant(tmp_path, ["a"])
    monkeypatch.setattr(tiles.shutil, "rmtree", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    assert make(capfd, tmp_path).returncode == 130
    monkeypatch.undo()
    assert (tmp_path / "tiles/work").is_dir()
    assert make(capfd, tmp_path).returncode == 0
    assert not (tmp_path / "tiles/work").exists() and (tmp_path / "tiles/all.json").is_file()


def test_a_full_disk_is_a_line_and_the_work_goes_on(tmp_path: Path, capfd, monkeypatch):
    plant(tmp_path, ["a"])
    real, left = tile_work.write_bytes, [3]

    def write(path: Path, content: bytes) -> None:
        left[0] -= 1
        if left[0] <= 0:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        real(path, content)

    monkeypatch.setattr(tile_work, "write_bytes", write)
    result = make(capfd, tmp_path)
    assert result.returncode == 3
    last = result.stderr.splitlines()[-1]
    assert last.startswith("error: ") and "No space left on device" in last and "run this again to go on" in last
    assert not (tmp_path / "tiles").exists()
    monkeypatch.undo()
    assert make(capfd, tmp_path).returncode == 0


def refuse(capfd, folder: Path, *words: object) -> str:
    """The one line of a mistake; nothing is left behind but what was there."""
    before = set(folder.rglob("*"))
    result = make(capfd, folder, *words)
    (line,) = [line for line in result.stderr.splitlines() if "error: " in line]
    assert result.returncode == 2 and "Traceback" not in result.stderr
    assert set(folder.rglob("*")) == before
    return line


def test_a_truncated_slide(tmp_path: Path, capfd):
    path = plant(tmp_path) / "slides/b.kfb"
    path.write_bytes(path.read_bytes()[:-2000])
    assert "b.kfb: cut off" in refuse(capfd, tmp_path)


def test_no_scale_in_micrometers(tmp_path: Path, capfd):
    plant(tmp_path, ["a"])
    write_plain(tmp_path / "slides/a.bmp", smear(SIZE, CELLS))
    assert "a.bmp: does not state micrometers per pixel; give a scale" in refuse(capfd, tmp_path, "--mpp", 0.5)


def test_labels_without_a_slide(tmp_path: Path, capfd):
    plant(tmp_path)
    (tmp_path / "slides/c.kfb").rename(tmp_path / "slides/d.kfb")
    assert "c: no such image, named by" in refuse(capfd, tmp_path)


def test_labels_outside_of_their_slide(tmp_path: Path, capfd):
    plant(tmp_path)
    write_tianchi(tmp_path / "labels", {"b": [("pos", 5000, 40, 30, 30)]})
    line = refuse(capfd, tmp_path)
    assert "b.json" in line and "labels of another slide or scale?" in line
    assert make(capfd, tmp_path, "--drop-invalid").returncode == 0


def test_a_slide_of_16_bits(tmp_path: Path, capfd):
    pytest.importorskip("pyvips")
    plant(tmp_path, ["a"])
    (tmp_path / "slides/a.kfb").unlink()
    cv2.imwrite(str(tmp_path / "slides/a.png"), smear(SIZE, CELLS).astype(np.uint16) * 257)
    assert "a.png: has pixels of the type ushort; convert it to 8 bits" in refuse(capfd, tmp_path)


def test_two_slides_of_one_name(tmp_path: Path, capfd):
    plant(tmp_path)
    write_kfb(tmp_path / "a.kfb", smear(SIZE, []))
    assert "has the name of" in refuse(capfd, tmp_path, "--negatives", tmp_path / "a.kfb")


def test_more_splits_than_slides(tmp_path: Path, capfd):
    assert "2 splits of 1 slides" in refuse(capfd, plant(tmp_path, ["a"]), "--ratios", "train=0.5,val=0.5")


def test_an_output_that_exists(tmp_path: Path, capfd):
    plant(tmp_path)
    (tmp_path / "tiles").mkdir()
    assert "tiles: exists already" in refuse(capfd, tmp_path)


def test_what_was_begun_with_other_settings(tmp_path: Path, capfd, monkeypatch):
    plant(tmp_path)
    monkeypatch.setattr(tiles, "write_set", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    assert make(capfd, tmp_path).returncode == 130
    monkeypatch.undo()
    assert "tiles.partial: begun with other slides, labels or settings" in refuse(capfd, tmp_path, "--overlap", 20)


@pytest.mark.parametrize(
    "words, message",
    [
        (("--overlap", 200), "must be less than --size"),
        (("--empty-rate", 2), "a share is 1 at most"),
        (("--scale", 0), "must be above 0"),
        (("--jpeg-quality", 101), "100 is the best"),
    ],
)
def test_options_out_of_range(tmp_path: Path, capfd, words: tuple, message: str):
    with pytest.raises(SystemExit) as stop:
        make(capfd, tmp_path, *words)
    assert stop.value.code == 2 and message in capfd.readouterr().err
