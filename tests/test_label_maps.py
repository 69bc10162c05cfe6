"""One collection's classes in another's terms, and groups of images from a rule."""

from pathlib import Path

import pytest
from conftest import SHARED, command, listing, real_data
from detectron2.data import DatasetCatalog, MetadataCatalog

from cervical_d2.datasets.classes import DROPPED, IGNORED, ClassTable
from cervical_d2.datasets.definition import read_label_map
from cervical_d2.datasets.registry import class_names, definition_of, resolve
from cervical_d2.errors import UserError

# ComparisonDetector's 11 classes in Bethesda's six (organisms: no lesion; AGC: no squamous one), then in two.
EXPECTED = {
    "ascus": ("ASC-US", "abnormal"), "asch": ("ASC-H", "abnormal"), "lsil": ("LSIL", "abnormal"),
    "hsil": ("HSIL", "abnormal"), "scc": ("SCC", "abnormal"), "agc": (IGNORED, "abnormal"),
    "trich": ("NILM", "normal"), "cand": ("NILM", "normal"), "flora": ("NILM", "normal"),
    "herps": ("NILM", "normal"), "actin": ("NILM", "normal"),
}  # fmt: skip


def placed(table: ClassTable, name: str):
    index = table.index(name)
    return table.names[index] if index is not None and index >= 0 else index


def test_eleven_classes_become_six_and_two():
    eleven = definition_of("comparison_detector_train").classes
    assert eleven.names == list(EXPECTED)
    six, two = (eleven.then(read_label_map(name)) for name in ("bethesda", "abnormal"))
    assert {name: (placed(six, name), placed(two, name)) for name in eleven.names} == EXPECTED
    # The file's own spellings go the same way, and what was set aside stays so: of AGC nothing is said any more.
    assert placed(six, "trichomonas") == "NILM"
    assert placed(six.then(read_label_map("abnormal")), "AGC") == IGNORED
    assert placed(six.then(read_label_map("abnormal")), "asc-h") == "abnormal"


def test_classes_that_files_list_are_one_each_and_without_a_list_there_is_one():
    table = ClassTable.of_files(["HSIL", "asc-us", "hsil", "ASC US"], "x")
    assert table.names == ["HSIL", "asc-us"]
    assert [placed(table, name) for name in ("Hsil", "ASC_US", "LSIL")] == ["HSIL", "asc-us", None]
    assert ClassTable.of_files([], "x").names == ["cell"]


def test_collections_under_one_map_share_their_classes():
    names = [resolve(name) for name in ("cric_val@bethesda", "comparison_detector_test@bethesda")]
    assert class_names(names) == ["NILM", "ASC-US", "LSIL", "ASC-H", "HSIL", "SCC"]
    binary = [resolve(f"{name}@abnormal") for name in ("cric_val", "comparison_detector_train", "cervical_demo_val")]
    assert class_names(binary) == ["normal", "abnormal"]
    assert MetadataCatalog.get("cric_val@abnormal").center_radius == 42
    assert class_names(["cric_val"]) == ["NILM", "ASC-US", "LSIL", "ASC-H", "HSIL", "SCC"]  # as before


def test_maps_of_ones_own_can_ignore_and_drop(tiny: Path):
    (tiny / "map.yaml").write_text("classes: [{lesion: hsil}]\nignore: [ASC-US]\n")
    (tiny / "other.yaml").write_text("classes: [{lesion: [hsil]}]\ndrop: [ascus]\n")
    notes = {}
    for name in ("map", "other"):
        records = DatasetCatalog.get(resolve(f"{tiny}/data.yaml:train@{tiny}/{name}.yaml"))
        notes[name] = [note for record in records for note in record["annotations"]]
    assert [(n["category_id"], n["iscrowd"], n.get("ignore", 0)) for n in notes["map"][:2]] == [(-1, 1, 1), (0, 0, 0)]
    assert len(notes["map"]) == 10
    assert [n["category_id"] for n in notes["other"]] == [0] * 5
    assert ClassTable(["a"], "here", drop=["b"]).index("B") == DROPPED


def test_an_at_sign_in_a_path_divides_nothing(tiny: Path):
    odd = tiny.rename(tiny.with_name("me@home"))
    (odd / "map.yaml").write_text("classes: [{lesion: [hsil, ascus]}]\n")
    assert resolve(f"{odd}/data.yaml:train") == "tiny_train"
    mapped = resolve(f"{odd}/data.yaml:train@{odd}/map.yaml")
    assert MetadataCatalog.get(mapped).thing_classes == ["lesion"]
    assert len(DatasetCatalog.get(mapped)) == 6
    with pytest.raises(UserError, match=r"me@home/no\.yaml: cannot be read"):
        resolve(f"{odd}/no.yaml:train")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("bccd_val@bethesda", "bethesda.yaml: no class for 'RBC' of .*bccd.yaml; add it, or list it in drop:"),
        ("cric_val@bethseda", "no label map is called 'bethseda'; did you mean bethesda"),
        ("cric_val@nowhere.yaml", "nowhere.yaml: cannot be read"),
    ],
)
def test_maps_that_do_not_fit_are_refused(name, words):
    with pytest.raises(UserError, match=words):
        resolve(name)


def test_a_map_that_does_not_fit_is_one_line_of_the_real_command(tiny: Path):
    (tiny / "map.yaml").write_text("classes: [{lesion: [hsil]}]\n")
    before = listing(tiny)
    split = f"('{tiny}/data.yaml:train@{tiny}/map.yaml',)"
    done = command("train_net.py", "--config-file", tiny / "config.yaml", "DATASETS.TRAIN", split)
    assert done.returncode == 2
    assert done.stderr.strip().splitlines()[-1].startswith(f"error: {tiny}/map.yaml: no class for 'ascus'")
    assert "Traceback" not in done.stderr
    assert listing(tiny) == before


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("groups: {pattern: '^([a-z]+)[0-9]'}", ["train", "train", "train", "train"]),
        ("groups: {pattern: '([0-9])'}", ["0", "1", "2", "3"]),
        ("groups: {file: groups.csv}", ["a", "a", "b", "b"]),
    ],
)
def test_groups_come_from_a_rule(tiny: Path, rule, expected):
    rows = [f"train{number}.png,{'ab'[number // 2 % 2]}" for number in range(6)]
    (tiny / "groups.csv").write_text("\n".join(["image,group_id", *rows]))
    (tiny / "data.yaml").write_text((tiny / "data.yaml").read_text() + rule + "\n")
    records = DatasetCatalog.get(resolve(f"{tiny}/data.yaml:train"))
    assert [record["group_id"] for record in records][:4] == expected


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ("groups: {pattern: '[a-z]+'}", "one pair of parentheses"),
        ("groups: {pattern: '([a-z'}", "not a regular expression"),
        ("groups: {pattern: '(x)'}", "train0.png: 'groups' of the dataset has no group for it"),
        ("groups: {file: no.csv}", "no.csv: cannot be read"),
        ("groups: patients", "write either pattern"),
    ],
)
def test_unclear_groups_are_refused(tiny: Path, rule, words):
    (tiny / "data.yaml").write_text((tiny / "data.yaml").read_text() + rule + "\n")
    with pytest.raises(UserError, match=words):
        DatasetCatalog.get(resolve(f"{tiny}/data.yaml:train"))


@real_data
def test_cric_in_two_classes_has_the_counts_of_its_six(monkeypatch):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(SHARED / "data"))
    counts = []
    for name in ("cric_val", resolve("cric_val@abnormal")):
        labels = [note["category_id"] for record in DatasetCatalog.get(name) for note in record["annotations"]]
        counts.append([labels.count(number) for number in range(6)])
    assert counts[1][:2] == [counts[0][0], sum(counts[0][1:])]
