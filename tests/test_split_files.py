"""New splits as files: whole groups, the same bytes each time, ready to train on."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import command, listing, tool
from detectron2.data import DatasetCatalog, MetadataCatalog

from cervical_d2.curation.pooling import _counts, pool
from cervical_d2.curation.split_files import divide_pool, fold_ratios, parse_ratios, table, write_splits
from cervical_d2.datasets.registry import resolve
from cervical_d2.errors import UserError

NAMES = ["lsil", "hsil", "scc"]


@pytest.fixture
def slides(tmp_path: Path) -> Path:
    """Two splits, `a` and `b`, of 30 slides in one folder each: 0 to 6 boxes an image, scc on slides 3 and 17 alone.

    Slide 5 lies in both splits; every tenth image has no group. The images are never opened, so that one file is all.
    """
    rng = np.random.default_rng(0)
    documents = {split: {"images": [], "annotations": [], "categories": []} for split in "ab"}
    number = 0
    for slide in range(30):
        for index in range(int(rng.integers(1, 6))):
            split = "ab"[(slide + (slide == 5) * index) % 2]
            document, number = documents[split], number + 1
            name = f"{split}/s{slide}_{index}.png"
            image = {"id": number, "file_name": name, "width": 100, "height": 80, "group_id": f"S{slide}"}
            if number % 10 == 0:
                del image["group_id"]
            document["images"].append(image)
            labels = rng.choice([7, 9], int(rng.integers(0, 6))).tolist() + [12] * (slide in (3, 17) and index == 0)
            for label in labels:
                x, y = (float(value) for value in rng.integers(0, 50, 2))
                entry = {"id": number * 100 + len(document["annotations"]), "image_id": number, "category_id": label}
                document["annotations"].append(entry | {"bbox": [x, y, 20.5, 30.0]})
            (tmp_path / "images" / split).mkdir(parents=True, exist_ok=True)
            (tmp_path / "images" / name).touch()
    # A region to ignore, which is no box of any class but must not be lost.
    documents["a"]["annotations"].append(
        {"id": 1, "image_id": documents["a"]["images"][0]["id"], "bbox": [1, 2, 30, 40], "ignore": 1}
    )
    for split, document in documents.items():
        document["categories"] = [{"id": label, "name": name} for label, name in zip((7, 9, 12), NAMES, strict=True)]
        (tmp_path / f"{split}.json").write_text(json.dumps(document))
    (tmp_path / "data.yaml").write_text(
        "name: slides\nformat: coco\nclasses: [lsil, hsil, scc]\nsplits:\n"
        "  a: {images: images, annotations: a.json}\n  b: {images: images, annotations: b.json}\n"
    )
    return tmp_path


def test_counts_are_of_images_and_of_boxes_that_stand_for_one_cell():
    labels = [[(0, 0), (1, 1), (-1, 0)], [(1, 0)], [(1, 0), (1, 0), (0, 1)]]  # a class, -1 to ignore, and of a crowd
    records = [
        {"annotations": [{"category_id": label, "iscrowd": crowd} for label, crowd in image]} for image in labels
    ]
    counts = _counts(records, np.array([1, 0, 1]), 2)
    assert counts.tolist() == [[1, 0, 1], [2, 1, 2]]


def main(slides: Path, *words: str) -> int:
    """The command's exit code."""
    return tool("split", *(word.format(slides=slides, data=slides / "data.yaml") for word in words))


def read(folder: Path, name: str) -> list[dict]:
    return DatasetCatalog.get(resolve(f"{folder}/data.yaml:{name}"))


def comparable(records: list[dict]) -> dict:
    """By file: everything else of the records but the ids, which are new."""
    return {
        str(Path(record["file_name"]).resolve()): {key: record.get(key) for key in ("width", "height", "group_id")}
        | {"annotations": sorted(record["annotations"], key=str)}
        for record in records
    }


def test_command_writes_splits_that_can_be_read_at_once(slides: Path):
    datasets = [f"{slides}/data.yaml:a", f"{slides}/data.yaml:b"]
    done = command("tools/split_dataset.py", "--dataset", *datasets, "--ratios", "train=0.6,val=0.2,test=0.2",
                   "--output", slides / "new")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "warning: no scc in " in done.stdout  # two slides hold it, and there are three splits
    assert "2 groups hold it" in done.stdout
    assert sorted(path.name for path in (slides / "new").iterdir()) == [
        "data.yaml", "test.json", "train.json", "val.json",
    ]  # fmt: skip
    parts = {name: read(slides / "new", name) for name in ("train", "val", "test")}
    assert MetadataCatalog.get("new_train").thing_classes == NAMES
    before = comparable(read(slides, "a") + read(slides, "b"))
    assert comparable([record for records in parts.values() for record in records]) == before
    groups = [{record["group_id"] for record in records if "group_id" in record} for records in parts.values()]
    assert sum(map(len, groups)) == len(set.union(*groups)) == 30
    ids = [record["image_id"] for records in parts.values() for record in records]
    assert len(set(ids)) == len(ids)
    boxes = [
        np.bincount([box["category_id"] for record in records for box in record["annotations"] if not box["iscrowd"]],
                    minlength=3)[:2]
        for records in parts.values()
    ]  # fmt: skip
    shares = np.array(boxes) / np.sum(boxes, axis=0)
    assert np.abs(shares - np.array([[0.6], [0.2], [0.2]])).max() < 0.04


def test_the_same_seed_gives_the_same_bytes_whatever_the_order(slides: Path):
    def files(seed: int, order: str) -> dict[str, bytes]:
        pooled = pool([f"{slides}/data.yaml:{name}" for name in order])
        write_splits(pooled, divide_pool(pooled, {"x": 0.6, "y": 0.4}, seed), slides / "out", "out", folds=False)
        written = listing(slides / "out")
        shutil.rmtree(slides / "out")
        return written

    first = files(3, "ab")
    assert files(3, "ba") == first
    assert files(4, "ab") != first
    document = json.loads((slides / "a.json").read_text())
    document["images"].reverse()
    (slides / "a.json").write_text(json.dumps(document))
    assert files(3, "ab") == first


def test_folds_are_each_validation_once(slides: Path):
    assert (
        main(slides, "--dataset", "{data}:a", "{data}:b", "--folds", "3", "--name", "cv", "--output", "{slides}/folds")
        == 0
    )
    everything = comparable(read(slides, "a") + read(slides, "b"))
    val = [comparable(read(slides / "folds", f"fold{number}_val")) for number in range(3)]
    train = [comparable(read(slides / "folds", f"fold{number}_train")) for number in range(3)]
    assert val[0] | val[1] | val[2] == everything
    assert sum(map(len, val)) == len(everything)
    assert all(
        one | other == everything and not one.keys() & other.keys() for one, other in zip(val, train, strict=True)
    )
    assert "cv_fold0_train" in DatasetCatalog.list()


def test_overlapping_images_of_an_audit_stay_together(slides: Path):
    names = [f"{slides}/data.yaml:a", f"{slides}/data.yaml:b"]
    files = [str(slides / "images" / name) for name in ("a/s0_0.png", "b/s1_0.png", "a/s2_0.png", "b/s3_0.png")]
    pairs = [(files[0], files[1]), (files[3], files[2]), (files[1], files[3]), (files[0], "/elsewhere.png")]
    audit = {"overlaps": [{"first": {"file": one}, "second": {"file": other}} for one, other in pairs]}
    (slides / "audit.json").write_text(json.dumps(audit))
    free, joined = pool(names), pool(names, slides / "audit.json")
    assert len(joined.counts) == len(free.counts) - 3  # slides 0, 1, 2 and 3 are one group now
    members = {Path(file).name.split("_")[0] for file, group in zip(joined.files, joined.group, strict=True)
               if group == joined.group[joined.files.index("a/s0_0.png")]}  # fmt: skip
    assert members == {"s0", "s1", "s2", "s3"}
    (slides / "audit.json").write_text("{}")
    with pytest.raises(UserError, match="not an audit of overlaps"):
        pool(names, slides / "audit.json")


def test_table_counts_images_groups_and_boxes(slides: Path):
    pooled = pool([f"{slides}/data.yaml:a", f"{slides}/data.yaml:b"])
    division = divide_pool(pooled, {"x": 0.5, "y": 0.5}, seed=0)
    header, groups, images, *classes = [line.split() for line in table(pooled, division)]
    assert header == ["total", "x", "50.0%", "y", "50.0%"]
    assert int(groups[1]) == len(pooled.counts) == int(groups[2]) + int(groups[4])
    assert int(images[1]) == len(pooled.records)
    records = [*read(slides, "a"), *read(slides, "b")]
    for label, row in enumerate(classes):
        boxes = sum(box["category_id"] == label for record in records for box in record["annotations"])
        assert row[0] == NAMES[label]
        assert int(row[1]) == boxes == int(row[2]) + int(row[4])


def test_a_pool_keeps_the_radius_of_center_labels(slides: Path):
    text = (slides / "data.yaml").read_text()
    (slides / "data.yaml").write_text(text.replace("classes:", "centers: {radius: 12 px}\nclasses:"))
    pooled = pool([f"{slides}/data.yaml:a"])
    write_splits(pooled, divide_pool(pooled, fold_ratios(2), 0), slides / "r", "r", folds=True)
    assert MetadataCatalog.get(resolve(f"{slides}/r/data.yaml:fold1_val")).center_radius == 12


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("train=0.7,val=0.2", "the shares sum to 0.9"),
        ("train=0.7,train=0.3", "train is given twice"),
        ("train=0.7,val", "'val' is not NAME=SHARE"),
        ("train=1.5,val=-0.5", "'train=1.5' is not"),
        ("tr/ain=0.5,val=0.5", "'tr/ain=0.5' is not"),
    ],
)
def test_ratios_that_cannot_be_used_are_told(text, expected):
    with pytest.raises(UserError, match=expected):
        parse_ratios(text)
    assert parse_ratios("train=0.7, val=0.3") == {"train": 0.7, "val": 0.3}


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("--dataset", "{data}:a", "--ratios", "train=0.7,val=0.2", "--output", "{slides}/out"), "shares sum to 0.9"),
        (("--dataset", "{data}:c", "--folds", "2", "--output", "{slides}/out"), "no split 'c'"),
        (("--dataset", "bccd_trian", "--folds", "2", "--output", "{slides}/out"), "did you mean bccd_train?"),
        (("--dataset", "{data}:a", "{data}:a", "--folds", "2", "--output", "{slides}/out"), "share no image"),
        (("--dataset", "{data}:a", "--folds", "1", "--output", "{slides}/out"), "write 2 or more"),
        (("--dataset", "{data}:a", "--folds", "900", "--output", "{slides}/out"), "ask for at most"),
        (("--dataset", "{data}:a", "--folds", "2", "--output", "{slides}/images"), "exists already"),
        (("--dataset", "{data}:a", "--ratios", "a=0.5,b=0.5", "--output", "{slides}/out", "--name", "slides"),
         "slides_a is another dataset"),
        (("--dataset", "{data}:a", "--folds", "2", "--output", "{slides}/out", "--together", "{slides}/none.json"),
         "none.json: cannot be read"),
    ],
)  # fmt: skip
def test_mistakes_are_one_line_and_nothing_is_written(slides: Path, capsys, words, expected):
    before = listing(slides)
    assert main(slides, *words) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.strip()]
    assert line.startswith("error: ")
    assert expected in line
    assert listing(slides) == before
    assert not (slides / "out").exists()


def test_a_mistake_ends_the_real_command_with_status_2(slides: Path):
    before = listing(slides)
    done = command("tools/split_dataset.py", "--dataset", f"{slides}/data.yaml:a", "--ratios", "train=0.7,val=0.2",
                   "--output", slides / "out")  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.strip() == "error: --ratios train=0.7,val=0.2: the shares sum to 0.9; they must sum to 1"
    assert listing(slides) == before
