"""FILE.yaml without a split, in every tool."""

from pathlib import Path

import pytest
from conftest import called, listing, tool

from cervical_d2.datasets.registry import each_split, resolve
from cervical_d2.errors import UserError


def test_a_file_of_one_split_is_that_split_and_of_several_must_be_told(tiny: Path):
    several = tiny / "data.yaml"
    with pytest.raises(UserError, match=rf"data.yaml: has 2 splits; name one: {several}:train or {several}:val$"):
        resolve(str(several))
    one = tiny / "one.yaml"
    one.write_text("".join(line for line in several.open() if not line.startswith("  val")).replace("tiny", "alone"))
    assert resolve(str(one)) == "alone_train"
    assert each_split([str(several), "bccd_val", f"{one}@bethesda"]) == [
        f"{several}:train", f"{several}:val", "bccd_val", f"{one}:train@bethesda",
    ]  # fmt: skip


def test_tools_of_several_splits_take_all_of_a_file(tiny: Path, capfd):
    data = tiny / "data.yaml"
    run = called(capfd, "tools/dataset_statistics.py", data, "--output", tiny / "stats")
    assert (run.returncode, "tiny_train" in run.stdout, "tiny_val" in run.stdout) == (0, True, True)
    assert "9 images" in called(capfd, "tools/compute_mean_std.py", "--dataset", data, "--workers", 0).stdout
    run = called(capfd, "tools/split_dataset.py", "--dataset", data, "--folds", 2, "--output", tiny / "folds")
    assert (run.returncode, "images        9" in run.stdout) == (0, True), run.stdout
    assert tool("audit", data, "--output", tiny / "audit") in (0, 2)
    assert (tiny / "audit/audit.json").is_file()


@pytest.mark.parametrize("labels", [[], ["--no-labels"]])
def test_visualize_draws_with_and_without_names(tiny: Path, labels: list[str]):
    for config in ([], ["--config-file", tiny / "config.yaml"]):
        assert tool("visualize", f"{tiny}/data.yaml:val", "--output", tiny / "out", "--count", 2, *config, *labels) == 0
        (tiny / "with").write_bytes(listing(tiny / "out")["val2.png"])
    plain = listing(tiny / "out")["val2.png"]
    assert tool("visualize", f"{tiny}/data.yaml:val", "--output", tiny / "out", "--count", 2, *config) == 0
    assert (listing(tiny / "out")["val2.png"] == plain) == (not labels)
