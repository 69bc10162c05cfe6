"""The page's HTML, without a browser."""

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest
from gallery_scenes import NASTY, small_gallery
from matplotlib.figure import Figure

from cervical_d2.errors import UserError
from cervical_d2.evaluation.error_types import KINDS
from cervical_d2.report.gallery import (
    MEANINGS,
    FoundBox,
    Gallery,
    GalleryImage,
    TruthBox,
    gallery_document,
    write_images,
)
from cervical_d2.report.page import Card, Cards, Chart, Matrix, Picture, Section, Text, page
from cervical_d2.report.svg import inline_svg
from cervical_d2.report.tables import Table

EVIL = "</script></style><script>alert(1)</script>\"'&"
VOID = {"meta", "img", "input", "link"}


class Document(HTMLParser):
    """Every element (tag, attributes, its own text) in order; all must be closed in order."""

    def __init__(self, text: str):
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict, list[str]]] = []
        self.open: list[tuple[str, dict, list[str]]] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.elements.append((tag, dict(attrs), []))
        if tag not in VOID:
            self.open.append(self.elements[-1])

    def handle_startendtag(self, tag: str, attrs: list) -> None:
        self.elements.append((tag, dict(attrs), []))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop()[0] == tag

    def handle_data(self, data: str) -> None:
        if self.open:
            self.open[-1][2].append(data)

    def texts(self, tag: str) -> list[str]:
        return ["".join(text) for name, _, text in self.elements if name == tag]

    def values(self, attribute: str) -> list[str]:
        return [attributes[attribute] for _, attributes, _ in self.elements if attribute in attributes]


def chart(title: str = "Line", bold: str = "normal") -> Chart:
    figure = Figure((4, 3))
    ax = figure.subplots()
    ax.plot([0, 1], [0, 1], "o--", color="#d55e00", label="a < b")
    ax.imshow([[0, 1]], extent=(0, 1, 0, 1))
    ax.set_title("The title", weight=bold)
    ax.legend()
    return Chart("line", title, "", figure)


def everything() -> list[Section]:
    items = [
        Cards([Card("AP", "51.20", "48.0 to 54.1", "at IoU 0.5")]),
        Table("Classes", "", ["class", "AP"], [["hsil", 51.234], ["lsil", float("nan")]]),
        Picture("p", "Pixels", "", b"png"),
        Matrix("Confusions", "", ["hsil", "lsil", "scc"], ["hsil", "lsil"], [[9, 1], [0, 0], [0, 2]], "truth", "found"),
        Text("Log", "", "line 1\n  line 2"),
        chart("First"),
        chart("Second"),
    ]
    return [Section("one", "One", "of two", items), Section("two", "Two", "", [chart("First")])]


def evil() -> list[Section]:
    items = [
        Cards([Card(EVIL, EVIL, EVIL, EVIL)]),
        Table(EVIL, EVIL, [EVIL], [[EVIL]]),
        Picture(EVIL, EVIL, EVIL, b"png"),
        Matrix(EVIL, EVIL, [EVIL], [EVIL], [[1]], EVIL, EVIL),
        Text(EVIL, EVIL, EVIL),
        chart(EVIL)._replace(note=EVIL),
    ]
    return [Section("one", EVIL, EVIL, items)]


def evil_gallery() -> Gallery:
    box = (0, 0, 5, 5)
    image = GalleryImage(EVIL, EVIL, 10, 10, EVIL, [TruthBox(box, 0)], [FoundBox(box, 0, 0.9, "class")])
    return Gallery((EVIL,), 0.5, [image], (EVIL, EVIL))


def test_texts_from_data_are_no_markup():
    text = page(EVIL, EVIL, evil(), evil_gallery())
    document = Document(text)
    assert "<script>alert" not in text
    assert len(document.texts("script")) == 5
    assert not any("alert" in script for script in document.texts("script") if not script.startswith("{"))
    assert document.texts("h1") == document.texts("title") == document.texts("pre") == [EVIL]
    assert {EVIL} == set(document.texts("dt")) == set(document.texts("dd"))
    assert not any(name.startswith("on") for _, attributes, _ in document.elements for name in attributes)


def test_gallery_data_survives_its_escaping():
    text = page("t", "", [], evil_gallery())
    (data,) = re.findall(r'<script type="application/json" id="gallery-data">(.*?)</script>', text, re.DOTALL)
    assert not set("<>&") & set(data)
    assert json.loads(data) == json.loads(json.dumps(gallery_document(evil_gallery())))
    assert json.loads(data)["images"][0]["name"] == EVIL


@pytest.mark.parametrize("gallery", [None, small_gallery()])
def test_policy_allows_what_stands_in_the_page_and_no_more(gallery):
    document = Document(page("t", "", everything(), gallery))
    (policy,) = (attributes["content"] for _, attributes, _ in document.elements if "http-equiv" in attributes)
    rules = {rule.split()[0]: rule.split()[1:] for rule in policy.split(";")}
    code = [text for text in document.texts("script") if not text.startswith("{")]
    for directive, blocks in (("style-src", document.texts("style")), ("script-src", code)):
        digests = [base64.b64encode(hashlib.sha256(block.encode()).digest()).decode() for block in blocks]
        assert rules[directive] == [f"'sha256-{digest}'" for digest in digests]
    assert rules["default-src"] == ["'none'"]
    assert rules["img-src"] == (["'self'", "file:", "data:"] if gallery else ["data:"])
    assert len(code) == (4 if gallery else 1)
    assert document.values("style") == []


def test_nothing_is_loaded_from_elsewhere():
    text = page("t", "", everything(), small_gallery())
    document = Document(text)
    assert all(link.startswith(("#", "data:image/png;base64,")) for link in document.values("href"))
    assert all(source.startswith("data:image/png;base64,") for source in document.values("src"))
    outside = set(re.findall(r"https?://[^\"' )]+", text))
    assert outside <= {"http://www.w3.org/2000/svg"}  # the name of a namespace in the gallery's script


def test_contents_lead_to_every_section():
    document = Document(page("t", "", everything(), small_gallery()))
    links = [attributes["href"] for tag, attributes, _ in document.elements if tag == "a"]
    assert links == ["#content", "#one", "#two", "#gallery"]
    assert {"content", "one", "two", "gallery"} <= set(document.values("id"))


def test_ids_are_unique_though_charts_are_equal():
    document = Document(page("t", "", everything(), small_gallery()))
    ids = document.values("id")
    assert len(ids) == len(set(ids))
    used = {name for value in document.values("clip-path") for name in re.findall(r"url\(#(.*?)\)", value)}
    used |= {attributes["href"][1:] for tag, attributes, _ in document.elements if tag == "use"}
    assert len(used) >= 6  # a clip and a marker at least in each of three charts
    assert used <= set(ids)


def test_chart_keeps_its_colors_and_text_and_says_what_it_is():
    text = str(inline_svg(chart(bold="bold").figure, 'precision "and" <recall>'))
    document = Document(text)
    tag, attributes, _ = document.elements[0]
    assert tag == "svg"
    assert (attributes["role"], attributes["aria-label"]) == ("img", 'precision "and" <recall>')
    assert attributes["viewbox"] == "0 0 288 216"  # 4 x 3 inches of 72 points
    assert attributes["width"] == "384"  # of 96 px
    assert {"The title", "a < b"} <= {text.strip() for text in document.texts("text")}
    assert "#d55e00" in document.values("stroke")
    assert "700" in document.values("font-weight")
    assert {"12px", "10px"} <= set(document.values("font-size"))
    assert not {"style", "metadata"} & {tag for tag, _, _ in document.elements}
    assert document.values("style") == []
    assert str(inline_svg(chart(bold="bold").figure, 'precision "and" <recall>')) == text


def test_table_aligns_numbers_and_writes_nan_as_a_dash():
    text = page("t", "", everything())
    assert '<tr><th scope="row">hsil</th><td class="number">51.23</td></tr>' in text
    assert '<tr><th scope="row">lsil</th><td class="number">-</td></tr>' in text


def test_table_without_rows_has_its_header():
    document = Document(page("t", "", [Section("s", "S", "", [Table("T", "", ["a", "b"], [])])]))
    assert document.texts("th") == ["a", "b"]


def test_matrix_is_shaded_by_the_share_of_its_row():
    document = Document(page("t", "", everything()))
    cells = [(attributes["class"], "".join(text)) for tag, attributes, text in document.elements
             if tag == "td" and "shade" in attributes.get("class", "")]  # fmt: skip
    # 9 and 1 of 10; a row without any has no share to shade; all of 2.
    assert cells == [
        ("shade9 same", "9"), ("shade1", "1"), ("shade0", "0"), ("shade0 same", "0"), ("shade0", "0"), ("shade10", "2"),
    ]  # fmt: skip


def test_matrix_of_shares_has_decimals():
    matrix = Matrix("M", "", ["a"], ["a", "b", "c"], [[0.25, 0.75, float("nan")]])
    document = Document(page("t", "", [Section("s", "S", "", [matrix])]))
    assert document.texts("td") == ["0.25", "0.75", "-"]


def test_scores_are_not_rounded_up_to_a_threshold():
    boxes = [FoundBox((0, 0, 1.26, 1), 0, score, "correct") for score in (0.49999, 0.5, 0.57, np.float32(0.3))]
    image = GalleryImage("a", "a.jpg", 9, 9, None, [TruthBox((0, 0, 1, 1), 0)], boxes)
    document = gallery_document(Gallery(["c"], 0.5, [image]))["images"][0]
    assert [row[5] for row in document["found"]] == [0.4999, 0.5, 0.57, 0.3]
    assert document["found"][0][:4] == [0, 0, 1.3, 1]
    assert document["truth"] == [[0, 0, 1, 1, 0, -1, -1]]


def test_images_are_shrunk_and_named_safely(tmp_path: Path):
    sizes = {"a b#?.png": (1600, 400), "sub/A-b.png": (30, 60), "ü.png": (10, 10)}
    records = []
    for name, (width, height) in sizes.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        image = np.full((height, width, 3), (200, 30, 10), np.uint8)  # BGR: blue
        (tmp_path / name).write_bytes(cv2.imencode(".png", image)[1].tobytes())
        records.append({"file_name": str(tmp_path / name), "width": width, "height": height})
    urls = write_images(records, tmp_path / "out")
    assert urls == ["images/a-b.jpg", "images/A-b-2.jpg", "images/image.jpg"]  # one name, where letters' case is none
    shapes = [cv2.imread(str(tmp_path / "out" / url)).shape[1::-1] for url in urls]
    assert shapes == [(800, 200), (30, 60), (10, 10)]
    assert cv2.imread(str(tmp_path / "out" / urls[0]))[100, 400] == pytest.approx([200, 30, 10], abs=6)
    assert sorted(path.name for path in (tmp_path / "out/images").iterdir()) == ["A-b-2.jpg", "a-b.jpg", "image.jpg"]
    with pytest.raises(UserError, match="no such image"):
        write_images([{"file_name": str(tmp_path / "gone.png")}], tmp_path / "out")


def test_class_named_as_a_script_stays_text():
    document = Document(page("t", "", [], small_gallery()))
    assert NASTY in document.texts("option")
    assert len(document.texts("script")) == 5


def test_every_kind_of_detection_has_its_meaning():
    assert tuple(MEANINGS) == KINDS
