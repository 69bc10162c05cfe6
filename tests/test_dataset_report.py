"""The report on splits: JSON, pictures, one page, text."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import ROOT, command, listing, tool
from matplotlib.axes import Axes

from cervical_d2.config import load_config
from cervical_d2.datasets.registry import resolve
from cervical_d2.errors import UserError
from cervical_d2.report.dataset_report import collect_statistics, write_statistics
from cervical_d2.report.page import Picture, Section, page
from cervical_d2.report.plots import class_figure
from cervical_d2.report.tables import Table


class Tags(HTMLParser):
    """Every tag with its attributes, and whether all were closed in order."""

    def __init__(self, text: str):
        super().__init__()
        self.found: list[tuple[str, dict]] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.found.append((tag, dict(attrs)))
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def write_coco(folder: Path, classes: list[str], count: int) -> str:
    """`count` boxes of 20 x 10 px of the first class in one image of 100 x 50 px, which has no file; its name."""
    annotations = [{"id": n, "image_id": 1, "category_id": 0, "bbox": [n, n // 2, 20, 10]} for n in range(count)]
    categories = [{"id": n, "name": name} for n, name in enumerate(classes)]
    images = [{"id": 1, "file_name": "gone.png", "width": 100, "height": 50}]
    (folder / "a.json").write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    (folder / "d.yaml").write_text(
        f"name: bare\nformat: coco\nclasses: {json.dumps(classes)}\nsplits: {{all: {{annotations: a.json}}}}\n"
    )
    return resolve(f"{folder}/d.yaml:all")


def test_report_of_two_splits_with_everything(tiny: Path):
    names = [resolve(f"{tiny}/data.yaml:{split}") for split in ("train", "val")]
    cfg = load_config(str(tiny / "config.yaml"))
    text = write_statistics(collect_statistics(names, cfg, "RGB"), tiny / "out", "of a test")
    drawn = ["anchors", "centers", "classes", "crowding", "pixels", "shapes", "sizes"]
    assert sorted(listing(tiny / "out")) == [*(f"{name}.png" for name in drawn), "statistics.html", "statistics.json"]
    train, val = json.loads((tiny / "out/statistics.json").read_text())
    # The first image has no box, each other one of either class (conftest.coco_of); half are 64 x 96, half 96 x 64.
    assert (train["images"], train["boxes"], val["images"], val["boxes"]) == (6, 10, 3, 4)
    assert train["image size"]["mean"] == [80, 80]
    assert train["classes"]["ascus"]["images"] == 5
    pixels = np.concatenate([cv2.imread(str(tiny / f"images/train{n}.png")).reshape(-1, 3) for n in range(6)])[:, ::-1]
    assert train["pixels"]["mean"] == pytest.approx(pixels.mean(axis=0), abs=1e-3)
    assert re.search(r"^ascus +tiny_val +2 +2 ", text, re.MULTILINE)
    assert train["pixels"]["yaml"] in text


def test_page_needs_nothing_beside_it_and_shows_the_pictures(tiny: Path):
    name = resolve(f"{tiny}/data.yaml:train")
    write_statistics(collect_statistics([name], None, None), tiny / "out", "")
    text = (tiny / "out/statistics.html").read_text()
    tags = Tags(text)
    assert tags.open == []
    shown = {attributes["aria-label"] for tag, attributes in tags.found if tag == "svg"}
    assert shown == {"Image sizes", "Places", "Boxes and images", "Shapes", "Crowding and overlap"}
    assert len(list((tiny / "out").glob("*.png"))) == len(shown)
    links = [attributes["href"] for _, attributes in tags.found if "href" in attributes]
    assert all(link.startswith(("#", "data:image/png;base64,")) for link in links)
    assert not any({"src", "action"} & attributes.keys() or tag == "link" for tag, attributes in tags.found)
    assert "://" not in text
    assert not (tiny / "out/anchors.png").exists()


def test_names_from_files_are_no_markup():
    table = Table("<b>", "&", ["<i>"], [["<script>"], ["x"]])
    section = Section("s", "<q>", "<tt>", [table, Picture("p", "<em>", "<q>", b"png")])
    tags = Tags(page('"><u>', "<s>", [section]))
    assert not {"b", "i", "u", "s", "em", "q", "tt"} & {tag for tag, _ in tags.found}
    assert [tag for tag, _ in tags.found].count("script") == 1
    assert tags.open == []


def test_split_without_images_and_with_one_class_unseen(tmp_path: Path):
    name = write_coco(tmp_path, ["seen", "never"], 4)
    text = write_statistics(
        collect_statistics([name], load_config("faster_rcnn_R_50_FPN.yaml"), None), tmp_path / "out", ""
    )
    (found,) = json.loads((tmp_path / "out/statistics.json").read_text())
    # 100 x 50 becomes 1333 x 667, held by 1333, so that 20 x 10 becomes 266.6 x 133.4: inside 362.0 x 181.0, p5's of
    # ratio 0.5, which has 65536 square px; around 181.0 x 90.5, p4's, which has 16384 and would give 0.46.
    assert found["anchors"]["classes"]["seen"]["mean"] == pytest.approx(35564.44 / 65536, abs=1e-4)
    assert found["anchors"]["classes"]["never"] == {"mean": None, "0.5": None, "0.7": None}
    assert re.search(r"^never +bare_all +0 +0 +- +- +- +-$", text, re.MULTILINE)


def test_split_without_any_box(tmp_path: Path):
    name = write_coco(tmp_path, ["seen"], 0)
    write_statistics(collect_statistics([name], load_config("faster_rcnn_R_50_FPN.yaml"), None), tmp_path / "out", "")
    (found,) = json.loads((tmp_path / "out/statistics.json").read_text())
    assert (found["boxes"], found["images without boxes"], found["overlap"]["any class"]["0.5"]) == (0, 1, None)


@pytest.mark.parametrize(
    "boxes, scale, expected",
    [(40, "auto", "linear"), (40, "log", "log"), (60, "auto", "log"), (60, "linear", "linear")],  # beside one of `b`
)
def test_bars_say_their_numbers_and_are_logarithmic_where_classes_differ_much(tmp_path, boxes, scale, expected):
    name = write_coco(tmp_path, ["a", "b"], boxes)
    (subject,) = collect_statistics([name], None, None)
    label = subject.boxes.label.copy()
    label[0] = 1
    figure = class_figure([subject._replace(boxes=subject.boxes._replace(label=label))], scale)
    axes: Axes = figure.axes[0]
    assert axes.get_xscale() == expected
    assert [text.get_text() for text in axes.texts] == [str(boxes - 1), "1", "1", "1"]
    assert [bar.get_width() for bar in axes.patches] == [boxes - 1, 1, 1, 1]


def test_images_that_are_not_there_are_told_before_anything_is_written(tmp_path: Path):
    name = write_coco(tmp_path, ["a"], 1)
    with pytest.raises(UserError, match="bare_all: boxes without images; name their folder"):
        collect_statistics([name], None, "RGB")


@pytest.mark.parametrize(
    "words, message",
    [
        (["nothing_train"], "no dataset is called 'nothing_train'"),
        (["DATA:train", "--config-file", "no.yaml"], "no such config file"),
        (["DATA:train", "--opts", "MODEL.ANCHOR_GENERATOR.SIZES", "[[1],[2],[3]]"], "does not fit the levels"),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing(tiny: Path, capfd, words, message):
    words = [word.replace("DATA", f"{tiny}/data.yaml") for word in words]
    assert tool("statistics", *words, "--output", tiny / "out") == 2
    told = capfd.readouterr().err
    assert message in told
    assert told.count("\n") == 1
    assert not (tiny / "out").exists()


def test_tool_prints_the_tables_and_says_where_the_page_is(tiny: Path):
    done = command(ROOT / "tools/dataset_statistics.py", f"{tiny}/data.yaml:train", "--output", tiny / "out")
    assert done.returncode == 0, done.stderr
    assert re.search(r"^tiny_train +6 +1 +10 +0 +0 +80.00 +80.00 +1.67$", done.stdout, re.MULTILINE)
    assert done.stdout.endswith(f"{tiny}/out/statistics.html, statistics.json and the pictures beside it\n")
