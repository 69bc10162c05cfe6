"""Mean and standard deviation of pixels: exact, the same for any number of processes, ready to paste."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from conftest import command
from detectron2.data import DatasetCatalog

from cervical_d2.data.pixels import pixel_statistics
from cervical_d2.datasets.registry import resolve
from cervical_d2.errors import UserError


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_any_number_of_processes_gives_numpys_figures(tiny: Path, workers):
    records = DatasetCatalog.get(resolve(f"{tiny / 'data.yaml'}:train"))
    found = pixel_statistics(records, "BGR", workers)
    # All pixels of images of two shapes in one long list.
    pixels = np.concatenate([cv2.imread(record["file_name"]).reshape(-1, 3) for record in records]).astype(float)
    np.testing.assert_allclose(found.mean, pixels.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(found.std, pixels.std(axis=0), rtol=1e-12)


def test_a_broken_image_is_named_from_another_process(tiny: Path):
    records = DatasetCatalog.get(resolve(f"{tiny / 'data.yaml'}:train"))
    path = tiny / "images/train3.png"
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(UserError, match=r"train3\.png: not a complete, readable image"):
        pixel_statistics(records, "RGB", 2)


def test_the_tool_prints_yaml_to_paste_with_its_order_of_channels(tiny: Path):
    data = f"{tiny / 'data.yaml'}:train"
    words = ("tools/compute_mean_std.py", "--dataset", data, "--format")
    texts = [command(*words, order).stdout for order in ("RGB", "BGR")]
    rgb, bgr = map(yaml.safe_load, texts)
    assert (rgb["INPUT"], bgr["INPUT"]) == ({"FORMAT": "RGB"}, {"FORMAT": "BGR"})
    assert rgb["MODEL"]["PIXEL_MEAN"] == bgr["MODEL"]["PIXEL_MEAN"][::-1]
    records = DatasetCatalog.get(resolve(data))
    assert rgb["MODEL"]["PIXEL_STD"] == [round(value, 3) for value in pixel_statistics(records, "RGB").std]
    assert texts[0].startswith("# tiny_train: 6 images, 36,864 pixels; channels in the order RGB")
