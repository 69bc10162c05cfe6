"""Pictures of annotations, and of what the network gets of them."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import ROOT, command, listing, tool
from detectron2.data import DatasetCatalog

from cervical_d2.config import load_config
from cervical_d2.data.build import build_train_loader, records_of
from cervical_d2.data.loader import BatchPlan
from cervical_d2.datasets.registry import resolve
from cervical_d2.draw import COLORS, IGNORED, Box, draw_boxes
from cervical_d2.errors import UserError
from cervical_d2.report import training_samples as module
from cervical_d2.report.pictures import GAP, sheet, spread
from cervical_d2.report.training_samples import LEGIBLE, draw_training_samples, draw_truth, presented, training_samples

BROKEN = "train5.png: cannot be read to its end ("


def config(tiny: Path, *options: str):
    return load_config(str(tiny / "config.yaml"), ["DATASETS.TRAIN", f"('{tiny}/data.yaml:train',)", *options])


def read(path: Path) -> np.ndarray:
    return cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)


def test_times_are_the_first_in_the_plan():
    plan = BatchPlan(5, 2, seed=0)
    found = training_samples(plan, [3, 1], 2)
    every = [(iteration, *pair) for iteration in range(20) for pair in plan.batch_at(iteration)]
    for image in (3, 1):
        assert found[image] == [(iteration, position) for iteration, position, i in every if i == image][:2]


def test_drawn_is_what_training_presents(tiny: Path, monkeypatch):
    """The samples that reach the pictures are those of the trainer's own loader, in every pixel and box."""
    batches = iter(build_train_loader(_resolved(config(tiny))))
    trained = {(iteration, sample["image_id"]): sample for iteration in range(9) for sample in next(batches)}
    drawn = []

    def spy(sample, names, image_format, title, scale):
        drawn.append((int(title.split()[1]), sample))
        return presented(sample, names, image_format, title, scale)

    monkeypatch.setattr(module, "presented", spy)
    np.random.seed(7)  # of no influence
    draw_training_samples(resolve(f"{tiny}/data.yaml:train"), tiny / "out", config(tiny), 3, 2)
    assert len(drawn) == 6
    for iteration, sample in drawn:
        expected = trained[iteration, sample["image_id"]]
        assert sample["image"].equal(expected["image"])
        assert sample["instances"].gt_boxes.tensor.equal(expected["instances"].gt_boxes.tensor)


def _resolved(cfg):
    cfg.DATASETS.TRAIN = tuple(map(resolve, cfg.DATASETS.TRAIN))
    return cfg


def test_another_seed_presents_otherwise_and_a_split_that_is_not_trained_on_stands_alone(tiny: Path):
    pictures = {}
    for split, seed in (("train", 0), ("train", 1), ("val", 0)):
        cfg = config(tiny, "SEED", str(seed))
        files = draw_training_samples(resolve(f"{tiny}/data.yaml:{split}"), tiny / f"{split}{seed}", cfg, 2)
        assert [path.name for path in files] == [
            "sheet.png",
            f"{split}0.png",
            f"{split}{5 if split == 'train' else 2}.png",
        ]
        pictures[split, seed] = files[2].read_bytes()
    assert pictures["train", 0] != pictures["train", 1]


@pytest.mark.parametrize("image_format", ["RGB", "BGR"])
def test_colors_are_right_in_either_order_of_channels(tiny: Path, image_format):
    cfg = config(tiny, "INPUT.FORMAT", image_format, "INPUT.MIN_SIZE_TRAIN", "(64,)", "INPUT.RANDOM_ROT90", "False")
    cfg.INPUT.RANDOM_FLIP = "none"
    draw_training_samples(resolve(f"{tiny}/data.yaml:train"), tiny / "out", cfg, 6, 1)
    # train1.png: 96 x 64, the same size for the network; hsil is painted (140, 60, 120) in RGB (conftest.coco_of).
    image = read(tiny / "out/train1.png")
    left, right = image[-64:, :96], image[-64:, 96 + GAP :]
    for half in (left, right):
        assert (half == (140, 60, 120)).all(axis=2).sum() > 50
        assert not (half == (120, 60, 140)).all(axis=2).any()


def test_boxes_of_the_network_are_drawn_where_its_cells_are(tiny: Path):
    record = DatasetCatalog.get(resolve(f"{tiny}/data.yaml:train"))[1]
    cfg = _resolved(config(tiny, "INPUT.MIN_SIZE_TRAIN", "(128,)", "INPUT.MAX_SIZE_TRAIN", "400"))
    loader = build_train_loader(cfg)
    sample = loader.dataset[0, 1]
    image = presented(sample, ["ascus", "hsil"], "RGB", "x", 0.5)
    assert sample["image"].shape[1:] in ((128, 192), (192, 128))
    bar = image.shape[0] - sample["image"].shape[1] // 2
    assert len(record["annotations"]) == len(sample["instances"]) == 2
    for box, label in zip(sample["instances"].gt_boxes.tensor, sample["instances"].gt_classes, strict=True):
        x2, y2 = (round(float(value) / 2) for value in box[2:])  # the lower right corner, which no label covers
        edge = image[min(bar + y2, image.shape[0] - 1), min(x2, image.shape[1] - 1)]
        assert tuple(edge) == COLORS[int(label)]


def test_regions_are_hatched_gray_and_centers_are_crosses():
    canvas = np.full((200, 300, 3), 255, np.uint8)
    image = draw_boxes(canvas, [Box((10, 10, 110, 110), -1, ""), Box((150, 50, 250, 150), 1, "", (190, 90))])
    assert set(map(tuple, image[12:108, 12:108].reshape(-1, 3))) == {IGNORED, (255, 255, 255)}
    gray = (image[12:108, 12:108] == IGNORED).all(axis=2).mean()
    assert gray == pytest.approx(1 / 6, abs=0.01)  # a stripe of one line in six
    assert tuple(image[90, 190]) == tuple(image[90, 192]) == tuple(image[88, 190]) == COLORS[1]
    assert tuple(image[100, 200]) == (255, 255, 255)  # no cross in the middle of the box, but at the point
    assert (canvas == 255).all()


def test_truth_shows_regions_and_centers_of_a_file(tiny: Path, monkeypatch):
    monkeypatch.setattr(module, "LEGIBLE", 1)  # in the pixels of the file
    document = json.loads((tiny / "val.json").read_text())
    document["annotations"] = [
        {"id": 0, "image_id": 13, "ignore": 1, "bbox": [40, 10, 40, 40]},
        {"id": 1, "image_id": 13, "category_id": 7, "bbox": [2, 20, 30, 30], "point": [20, 40]},
    ]
    (tiny / "val.json").write_text(json.dumps(document))
    draw_truth(resolve(f"{tiny}/data.yaml:val"), tiny / "out", 3)
    image = read(tiny / "out/val1.png")[-64:]
    assert (image[12:48, 42:78] == IGNORED).all(axis=2).sum() > 100
    assert tuple(image[40, 20]) == COLORS[1]  # the center
    assert tuple(image[50, 10]) == COLORS[1]  # the lower edge


def test_images_are_spread_over_the_split_and_stay_within_it():
    records = [{"file_name": str(number)} for number in range(10)]
    assert [record["file_name"] for record in spread(records, 4)] == ["0", "3", "6", "9"]
    assert len(spread(records, 99)) == 10
    for wrong in ((records, 0), ([], 3)):
        with pytest.raises(UserError, match="nothing to draw"):
            spread(*wrong)


def test_sheet_has_its_width_and_all_pictures():
    pictures = [np.full((50, 100, 3), 10 * number, np.uint8) for number in range(3)]
    one, two = (sheet(pictures, ["a"], 200 + GAP, columns) for columns in (1, 2))
    assert two.shape == (50 + 50 + 28, 200 + GAP, 3)  # two rows of 100 x 50 and the legend
    assert one.shape == (3 * 104 + 28, 200 + GAP, 3)  # three of 208 x 104
    assert two[25, [50, 150 + GAP], 0].tolist() == [0, 10]
    assert two[75, [50, 150 + GAP], 0].tolist() == [20, 255]


@pytest.mark.parametrize(
    "words, message",
    [
        ([], BROKEN),
        (["--config-file", "CONFIG"], BROKEN),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing(tiny: Path, capfd, words, message):
    if message == BROKEN:  # a BMP has no mark at its end, so that the checks before a training see nothing
        path = tiny / "images/train5.png"
        content = cv2.imencode(".bmp", cv2.imread(str(path)))[1].tobytes()
        path.write_bytes(content[: len(content) // 2])
    words = [word.replace("CONFIG", f"{tiny}/config.yaml") for word in words]
    assert tool("visualize", f"{tiny}/data.yaml:train", "--output", tiny / "out", *words) == 2
    told = capfd.readouterr().err
    assert message in told
    assert told.count("\n") == 1
    assert not (tiny / "out").exists()


def test_tool_draws_as_many_as_asked_for(tiny: Path):
    words = ["--output", tiny / "out", "--config-file", tiny / "config.yaml", "--count", "2", "--draws", "1"]
    done = command(ROOT / "tools/visualize_data.py", f"{tiny}/data.yaml:val", *words)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{tiny}/out/sheet.png and 2 pictures beside it\n"
    assert sorted(listing(tiny / "out")) == ["sheet.png", "val0.png", "val2.png"]


def test_boxes_without_images_are_drawn_on_gray_and_not_trained_on(tiny: Path):
    data = (tiny / "data.yaml").read_text().replace("images: images, annotations: val.json", "annotations: val.json")
    (tiny / "data.yaml").write_text(data)
    name = resolve(f"{tiny}/data.yaml:val")
    draw_truth(name, tiny / "out", 3)
    drawn = cv2.imread(str(tiny / "out/val0.png"))  # no cell in it: all but the caption is gray
    assert (drawn[-50:] == 240).all()
    with pytest.raises(UserError, match="tiny_val: boxes without images; name their folder under 'images:'"):
        records_of((name,))


def test_small_images_are_enlarged_before_they_are_drawn_on(tiny: Path):
    draw_truth(resolve(f"{tiny}/data.yaml:val"), tiny / "out", 1)
    drawn = cv2.imread(str(next(path for path in (tiny / "out").glob("val*.png"))))
    assert max(drawn.shape[:2]) >= LEGIBLE  # the images have 96 px
