"""The tool that clusters anchors, from the files to the YAML."""

import json
import statistics
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, SHARED, listing, real_data, tool
from detectron2.data import transforms as T
from test_anchor_clusters import plain_iou

from cervical_d2.anchors.grid import config_anchors
from cervical_d2.anchors.study import training_boxes, training_sizes
from cervical_d2.config import load_config
from cervical_d2.curation.statistics import arrays_of
from cervical_d2.data.resize import scaled_size
from cervical_d2.errors import UserError


def split_of(*sizes_and_boxes):
    """One image for each ((width, height), [(class, width of a box, its height), ...])."""
    records = [
        {
            "width": width,
            "height": height,
            "annotations": [
                {"category_id": label, "bbox": [0, 0, *box], "bbox_mode": 0, "iscrowd": 0} for label, *box in boxes
            ],
        }
        for (width, height), boxes in sizes_and_boxes
    ]
    return arrays_of("made", ["a", "b"], records)


def settings(*options: object):
    return load_config("faster_rcnn_R_50_FPN.yaml", [str(word) for word in options])


@pytest.mark.parametrize("rounding", ["detectron2", "mmdetection"])
def test_boxes_are_scaled_as_the_resize_does(rounding):
    images = [(121, 946), (640, 480), (2000, 500), (1180, 955), (37, 41)]
    split = split_of(*((size, [(0, 12, 20), (1, 7, 3)]) for size in images))
    cfg = settings("INPUT.RESIZE_ROUNDING", rounding)  # at 640 and at 800
    boxes, tiny = training_boxes(split, cfg)
    expected = []
    for short in (640, 800):
        resize = T.ResizeShortestEdge(short, 1333)
        for width, height in images:
            made = resize.get_transform(np.zeros((height, width, 3), np.uint8))
            new = made.apply_coords(np.array([[width, height]], float))[0]
            assert new.tolist() == [made.new_w, made.new_h]
            if rounding == "mmdetection":
                new = np.array(scaled_size(width, height, short, 1333))
            expected += [[0, 0, *(np.array(box) * new / [width, height])] for box in ((12, 20), (7, 3))]
    assert boxes.box == pytest.approx(np.array(expected))
    assert boxes.label.tolist() == [0, 1] * 10
    assert boxes.image.tolist() == [box // 2 for box in range(20)]  # those of 800 lie in images of their own
    assert tiny == 0
    wide = boxes.size[5].tolist()  # 121 x 946 at 800: see test_resize.py
    assert wide == ([170, 1333] if rounding == "detectron2" else [171, 1333])


def test_sizes_of_a_training():
    assert training_sizes(settings()) == [640, 800]
    assert training_sizes(settings("INPUT.MIN_SIZE_TRAIN", (800, 640, 800))) == [640, 800]
    ranged = ("INPUT.MIN_SIZE_TRAIN_SAMPLING", "range", "INPUT.MIN_SIZE_TRAIN")
    assert training_sizes(settings(*ranged, (640, 800))) == [640, 680, 720, 760, 800]
    assert training_sizes(settings(*ranged, (800, 800))) == [800]
    at_zero, _ = training_boxes(split_of(((500, 400), [(0, 9, 8)])), settings("INPUT.MIN_SIZE_TRAIN", (0,)))
    assert at_zero.box.tolist() == [[0, 0, 9, 8]]  # 0: images as they are


def test_boxes_that_are_too_small_are_left_out():
    split = split_of(((400, 400), [(0, 1, 40), (0, 40, 0.9), (1, 1.5, 30), (1, 40, 40)]), ((400, 400), [(0, 3, 9)]))
    single = ("INPUT.MIN_SIZE_TRAIN", (400,))
    boxes, tiny = training_boxes(split, settings(*single))
    assert (boxes.box[:, 2:].tolist(), tiny) == ([[1.5, 30], [40, 40], [3, 9]], 2)
    assert (boxes.image.tolist(), boxes.label.tolist()) == ([0, 0, 1], [1, 1, 0])
    boxes, tiny = training_boxes(split, settings(*single, "INPUT.MIN_BOX", 3))  # those that are not learned
    assert (boxes.box[:, 2:].tolist(), tiny) == ([[40, 40], [3, 9]], 3)
    with pytest.raises(UserError, match="made: no box above 1 px among 1; name a split with boxes"):
        training_boxes(split_of(((400, 400), [(0, 1, 40)])), settings())


def coco(folder: Path, boxes, name: str = "some.json") -> Path:
    """(class, width, height) in one image of 400 x 400 px, of classes `round` and `long`."""
    annotations = [
        {"id": n, "image_id": 1, "category_id": label, "bbox": [0, 0, *box]} for n, (label, *box) in enumerate(boxes)
    ]
    categories = [{"id": 0, "name": "round"}, {"id": 1, "name": "long"}]
    images = [{"id": 1, "file_name": "gone.png", "width": 400, "height": 400}]
    path = folder / name
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    return path


def run(capsys, *words: object) -> tuple[int, str, str]:
    status = tool("anchors", *words)
    return status, *capsys.readouterr()


def some_boxes(seed: int = 0, count: int = 120):
    rng = np.random.default_rng(seed)
    rounds, longs = rng.uniform(10, 60, count).round(1), rng.uniform(20, 90, count).round(1)
    return [(0, side, side) for side in rounds.tolist()] + [(1, side, 3 * side) for side in longs.tolist()]


def test_the_yaml_gives_the_anchors_whose_fit_is_told(tmp_path: Path, capsys):
    boxes = some_boxes()
    status, out, _ = run(capsys, "--annotations", coco(tmp_path, boxes), "--num-anchors", 15)
    assert status == 0
    pasted, *tables = out.split("\n\n")
    (tmp_path / "pasted.yaml").write_text(f"_BASE_: {ROOT}/configs/faster_rcnn_R_50_FPN.yaml\n{pasted}\n")
    cfg = load_config(str(tmp_path / "pasted.yaml"))
    anchors = config_anchors(cfg)
    assert (cfg.MODEL.ANCHOR_GENERATOR.NAME, anchors.level.tolist()) == (
        "ClusteredAnchorGenerator", np.repeat(range(5), 3).tolist()
    )  # fmt: skip
    assert (np.diff(anchors.size.prod(axis=1)) > 0).all()
    # 400 becomes 800.
    fits = {kind: [max(plain_iou((2 * w, 2 * h), anchor) for anchor in sizes) for _, w, h in boxes]
            for kind, sizes in (("own", config_anchors(settings()).size), ("ours", anchors.size))}  # fmt: skip

    def figures(kind, label=None):
        iou = [value for value, box in zip(fits[kind], boxes, strict=True) if label in (None, box[0])]
        return [f"{value:.4f}" for value in (statistics.fmean(iou), *(sum(v >= t for v in iou) / len(iou)
                                             for t in (0.5, 0.7)))]  # fmt: skip

    mean, half, more = figures("ours")
    shaped, last = tables[-1].rstrip("\n").split("\n")
    assert shaped == (
        f"by shape alone: mean IoU {mean}, recall {half} at 0.5, {more} at 0.7 "
        f"(the config's 15 anchors: {', '.join(figures('own'))})"
    )
    rows = {line.split()[0]: line.split()[1:] for line in tables[0].splitlines()[2:]}
    assert rows == {
        name: [str(count), *figures("own", label), *figures("ours", label)]
        for name, label, count in (("all", None, 240), ("round", 0, 120), ("long", 1, 120))
    }
    assert float(mean) > float(figures("own")[0]) + 0.05
    title, *stands = tables[2].splitlines()
    assert title == "where the anchors stand, 4, 8, 16, 32, 64 px apart on their levels:"
    at_shape, on_grid = (
        [float(cell) for line in lines[2:] for cell in line.split()[2:]] for lines in (tables[0].splitlines(), stands)
    )
    assert all(stood <= shape for stood, shape in zip(on_grid, at_shape, strict=True))
    assert sum(on_grid) < sum(at_shape) - 0.1
    every = [f"{value:.4f}" for value in on_grid[:6]]  # the config's, then ours
    assert last == (
        f"mean IoU {every[3]}, recall {every[4]} at 0.5, {every[5]} at 0.7 (the config's 15 anchors: "
        f"{', '.join(every[:3])}), where the anchors stand"
    )


def test_figures_of_levels_are_those_of_their_boxes(tmp_path: Path, capsys):
    # Two shapes on each of five levels, as many as anchors: all boxes fit, each level has its share.
    shapes = [(4 * n + 4, 5 * n + 4) for n in range(10)]
    boxes = [(0, *shape) for number, shape in enumerate(shapes) for _ in range(number + 1)]
    _, out, _ = run(capsys, "--annotations", coco(tmp_path, boxes), "--num-anchors", 10, "--min-size", 400)
    table = [line.split() for line in out.split("\n\n")[2].splitlines()[2:]]
    ours = [row for row in table if row[1] == "k-means"]
    assert [row[0] for row in ours] == ["p2", "p3", "p4", "p5", "p6"]
    assert ours[1][2:8] == ["12", "x", "14,", "16", "x", "19"]
    # 55 boxes: 1 + 2, 3 + 4, ... to a level.
    assert [row[-4:] for row in ours] == [[f"{100 * n / 55:.2f}", *["1.0000"] * 3] for n in (3, 7, 11, 15, 19)]
    own = [row for row in table if row[1] == "config's"]
    assert own[4][-4:] == ["0.00", "-", "-", "-"]  # nothing is as large as 512


def test_pictures_and_sweep(tmp_path: Path, capsys):
    source = coco(tmp_path, some_boxes(count=30))
    out = tmp_path / "o"
    status, text, err = run(capsys, "--annotations", source, "--num-anchors", 10, "--output", out, "--sweep",
                            "--restarts", 2)  # fmt: skip
    assert status == 0
    assert sorted(listing(out)) == ["anchors.png", "anchors.yaml", "sweep.png"]
    assert f"wrote {out}/anchors.yaml {out}/anchors.png {out}/sweep.png" in err
    parts = text.split("\n\n")
    assert (out / "anchors.yaml").read_text() == f"{parts[0]}\n"
    rows = [line.split() for line in parts[4].splitlines()[2:]]
    assert [row[0] for row in rows] == [str(number) for number in range(1, 11)]
    assert text.splitlines()[-2].startswith(f"by shape alone: mean IoU {rows[-1][1]}, ")
    assert float(rows[0][1]) < float(rows[4][1]) < float(rows[9][1])


def test_config_seed_and_update_are_heeded(tmp_path: Path, capsys):
    source = coco(tmp_path, some_boxes())
    asked = ("--annotations", source, "--num-anchors", 20, "--restarts", 1)
    plain = run(capsys, *asked)[1]
    assert "480 boxes" not in plain
    assert "# 240 boxes of some at (1333, 800), without 0 too small ones" in plain
    assert run(capsys, *asked)[1] == plain
    for words in (("--seed", 1), ("--update", "mean"), ("--min-size", 400), ("--max-size", 600), ("--restarts", 5)):
        changed = run(capsys, *asked, *words)[1]
        assert changed.split("MODEL")[1] != plain.split("MODEL")[1]
    text = run(capsys, *asked, "--config-file", "quick/bccd.yaml", "--max-size", 600)[1]
    sizes = load_config("quick/bccd.yaml").INPUT.MIN_SIZE_TRAIN
    assert f"# 240 boxes of some at {', '.join(f'(600, {size})' for size in sizes)}, without" in text
    assert [line.split()[-1] for line in text.splitlines() if line.startswith("      - ")] == ["p3", "p4", "p5", "p6"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--num-anchors", 14), "--num-anchors 14: the 5 levels p2, p3, p4, p5, p6 need the same number each; use"),
        (("--num-anchors", 1), "--num-anchors 1: the 5 levels p2, p3, p4, p5, p6 need the same number each; use 5 or"),
        (("--num-anchors", 15), "3 boxes of 2 different shapes are too few for 15 anchors; use a larger set, or ask "),
        (("--num-anchors", 5, "--config-file", "no.yaml"), "no.yaml: no such config file; "),
    ],
)  # fmt: skip
def test_mistakes_are_one_line(tmp_path: Path, capsys, words, message):
    source = coco(tmp_path, [(0, 10, 10), (0, 10, 10), (1, 30, 20)])
    status, out, err = run(capsys, "--annotations", source, *words, "--output", tmp_path / "o")
    assert (status, out, len(err.splitlines())) == (2, "", 1)
    assert err.startswith(f"error: {message}")
    assert not (tmp_path / "o").exists()


def test_mistakes_in_the_files_are_one_line(tmp_path: Path, capsys):
    (tmp_path / "cut.json").write_text('{"images": [')
    empty = coco(tmp_path, [], "empty.json")
    cases = [
        (("--annotations", tmp_path / "none.json"), "none.json: "),
        (("--annotations", tmp_path / "cut.json"), "cut.json: "),
        (("--annotations", empty), "error: empty: no box above 1 px among 0; name a split with boxes"),
        (("--dataset", "tct_boxs_all"), "error: no dataset is called 'tct_boxs_all'; did you mean tct_boxes_all?"),
    ]
    for words, message in cases:
        status, out, err = run(capsys, *words, "--num-anchors", 5)
        assert (status, out, len(err.splitlines())) == (2, "", 1)
        assert message in err


@real_data
def test_real_boxes_of_tct(monkeypatch, capsys):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(SHARED / "data"))
    _, out, _ = run(capsys, "--dataset", "tct_boxes_all", "--num-anchors", 15)
    assert "# 13447 boxes of tct_boxes_all at (1333, 800)" in out
    shaped, last = out.splitlines()[-2:]
    assert float(shaped.split()[5].rstrip(",")) >= 0.793
    # Measured by others with a program of their own: mean IoU .680, recall at 0.7 .464.
    assert shaped.endswith("(the config's 15 anchors: 0.6804, 0.9599, 0.4643)")
    assert last.endswith("(the config's 15 anchors: 0.6703, 0.9596, 0.4388), where the anchors stand")
