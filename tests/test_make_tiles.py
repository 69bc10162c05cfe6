"""Slides to tiles: every planted cell where the rule says; regions, filters, scales, splits, crops, formats."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import called
from slide_files import APERIO, smear, write_kfb, write_tiff
from tile_scenes import CELLS, SIDE, SIZE, documents, make, plant

from cervical_d2.datasets.registry import resolve
from cervical_d2.slides.slide import open_slide

pytest.importorskip("openslide")
pytest.importorskip("kfbslide")


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
        labels.write_text("\n".join(["image,class,left,top,width,height", *rows]) + "\n")
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
