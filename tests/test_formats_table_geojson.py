"""CSV and QuPath's GeoJSON: their forms, and what is told of faulty ones."""

from pathlib import Path

import numpy as np
import pytest
from format_scenes import boxes, image, read, write

from cervical_d2.errors import UserError

POLYGON = [[10, 10], [30, 12], [25, 40], [10, 10]]

CSV_HEAD = "image,class,x1,y1,x2,y2,image_width,image_height,id,other\n"
FAULTY_ROWS = """\
a.png,c,1,2,3,4,50,40,9,
a.png,c,1,2,3,4
a.png,,1,2,3,4,50,40,,
a.png,c,,,,,50,40,,
,c,1,2,3,4,50,40,,
gone.png,c,1,2,3,4,,,,
gone.png,c,1,2,3,4,,,,

a.png,c,1,2,3,x,50,40,,"""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("image,class,x1,y1,x2,y2\na.png,c,1,2,3.5,4\n", [("c", [1, 2, 3.5, 4])]),
        ("\ufefffilename;label;xmin;ymin;xmax;ymax\na.png;c;1;2;3,5;4\n", [("c", [1, 2, 3.5, 4])]),
        ("image\tclass\tx\ty\twidth\theight\na.png\tc\t1\t0.5\t5.5\t2\n", [("c", [1, 0.5, 6.5, 2.5])]),
        ("image,class,left,top,w,h\na.png,c,1,2,2.5,2\n", [("c", [1, 2, 3.5, 4])]),
        ("image_filename,class,cx,cy,width,height\na.png,c,11,12,2.5,2\n", [("c", [9.75, 11, 12.25, 13])]),
        ('image,class,x,y\r\n"a.png","c, d",7,8\r\n', [("c, d", [7, 8])]),
        ("IMAGE , Class,X1,y1,x2,y2,X,Y\na.png,c,1,2,3,4,,\na.png,d,,,,,7,8\n", [("c", [1, 2, 3, 4]), ("d", [7, 8])]),
        ("image,class,x1,y1,x2,y2,ignore\na.png,,1,2,3,4,1\n", [(None, [1, 2, 3, 4])]),
        ("image,class,x1,y1,x2,y2\na.png,,,,,\n", []),
    ],
)
def test_csv_separators_and_columns(tmp_path: Path, text, expected):
    image(tmp_path / "a.png")
    (tmp_path / "t.csv").write_text(text, encoding="utf-8")
    document, problems = read("csv", tmp_path, tmp_path / "t.csv")
    assert (boxes(document), problems) == (expected, [])
    assert [(r["image_id"], r["width"], r["height"]) for r in document.records] == [("a", 100, 80)]


def test_csv_faulty_rows_are_told_by_their_lines(tmp_path: Path):
    (tmp_path / "t.csv").write_text(CSV_HEAD + FAULTY_ROWS)
    document, problems = read("csv", None, tmp_path / "t.csv")
    assert [text.split(": ")[1] for _, text in problems] == [f"line {line}" for line in (3, 4, 5, 6, 7)]
    assert {kind for kind, _ in problems} == {"malformed"}
    first, last = document.records[0]["annotations"]
    assert (first["id"], last["id"]) == (9, "of line 10")
    assert np.isnan(last["bbox"][3])


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "no column 'image'"),
        (b"image,class\na,b\n", "no columns x1"),
        ("image,class,x,y\nä,b,1,2\n".encode("latin-1"), "not UTF-8"),
    ],
)
def test_csv_that_cannot_be_understood_is_refused(tmp_path: Path, content, words):
    (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(UserError, match=words):
        read("csv", tmp_path, tmp_path / "t.csv")


def feature(kind: str, coordinates: object, name: object = "HSIL", **more) -> dict:
    properties = {"objectType": "annotation", "classification": {"name": name, "color": [1, 2, 3]}, "isLocked": True}
    geometry = {"type": kind, "coordinates": coordinates, "plane": {"c": -1, "z": 0, "t": 0}}
    return {"type": "Feature", "id": "f0b6", "geometry": geometry, "properties": properties | more}


def test_geojson_forms_of_qupath(tmp_path: Path):
    for name in ("a.png", "b.png", "c.tif"):
        image(tmp_path / "images" / name)
    derived = feature("Polygon", [POLYGON], classification={"names": ["Tumor", "Positive"]}, measurements={"Area": 3})
    child = feature("Point", [5, 6, 0])
    features = [
        feature(
            "MultiPolygon", [[POLYGON], [[[50, 60], [70, 60], [70, 75], [50, 60]], [[55, 62], [56, 62], [55, 62]]]]
        ),
        feature("LineString", POLYGON, childObjects=[child]),
        feature("MultiPoint", [[1, 2], [3, 4]]),
        feature("Polygon", [POLYGON], "Ignore*"),
        derived,
    ]
    write(tmp_path / "out/a.geojson", {"type": "FeatureCollection", "features": features})
    write(tmp_path / "out/b.png.geojson", [feature("Polygon", [POLYGON])])
    write(tmp_path / "out/c.geojson", feature("Polygon", [POLYGON]))
    document, problems = read("geojson", tmp_path / "images", tmp_path / "out")
    assert problems == []
    assert [record["image_id"] for record in document.records] == ["a", "b", "c"]
    around = [10, 10, 30, 40]
    assert boxes(document) == [
        ("HSIL", [10, 10, 70, 75]), ("HSIL", around), ("HSIL", [5, 6]), ("HSIL", [1, 2]), ("HSIL", [3, 4]),
        (None, around), ("Tumor: Positive", around), ("HSIL", around), ("HSIL", around),
    ]  # fmt: skip
    assert [a.get("ignore") for a in document.records[0]["annotations"]] == [None] * 5 + [1, None]


def test_geojson_id_of_ours_is_a_number_unless_several_points_share_it(tmp_path: Path):
    image(tmp_path / "images/a.png")
    ours = "cd2b0c5e-0000-8000-8000-00000000001f"  # 31
    objects = [{**feature("Point", [1, 2]), "id": ours}, {**feature("MultiPoint", [[3, 4], [5, 6]]), "id": ours}]
    write(tmp_path / "out/a.geojson", objects)
    document, _ = read("geojson", tmp_path / "images", tmp_path / "out")
    assert [annotation["id"] for annotation in document.records[0]["annotations"]] == [31, ours, ours]


@pytest.mark.parametrize(
    ("damaged", "words"),
    [
        (feature("Polygon", [POLYGON], None), "object 2: has no class"),
        ({"type": "Feature", "geometry": {"type": "Polygon", "coordinates": [POLYGON]}}, "object 2: has no class"),
        (feature("Circle", [1, 2]), "object 2: geometry 'Circle'"),
        (feature("Polygon", POLYGON), "object 2: its coordinates"),
        (feature("Polygon", []), "object 2: has no coordinates"),
        (feature("Point", None), "object 2: its coordinates"),
        ("text", "object 2: geometry None"),
    ],
)
def test_geojson_faulty_object_is_told_and_the_others_are_read(tmp_path: Path, damaged, words):
    image(tmp_path / "images/a.png")
    good = feature("Point", [1, 2])
    write(tmp_path / "out/a.geojson", {"type": "FeatureCollection", "features": [good, damaged, good]})
    document, ((kind, text),) = read("geojson", tmp_path / "images", tmp_path / "out")
    assert boxes(document) == [("HSIL", [1, 2])] * 2
    assert kind == "malformed"
    assert f"a.geojson: {words}" in text


@pytest.mark.parametrize("content", ["", "{", '{"features": 3}', "[" * 100_000, '"\udce9"'])
@pytest.mark.parametrize(("name", "suffix"), [("geojson", "geojson"), ("tianchi", "json")])
def test_broken_file_of_one_image_is_told_and_its_image_left_out(tmp_path: Path, name, suffix, content):
    for stem in "ab":
        image(tmp_path / f"images/{stem}.png")
        write(tmp_path / f"out/{stem}.{suffix}", [])
    (tmp_path / f"out/a.{suffix}").write_text(content, errors="surrogateescape")
    document, ((kind, text),) = read(name, tmp_path / "images", tmp_path / "out")
    assert [record["image_id"] for record in document.records] == ["b"]
    assert kind == "malformed"
    assert f"a.{suffix}: " in text
