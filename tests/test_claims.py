"""Files that claim more than they hold, configs that never end, weights that are no numbers: one line each."""

import io
import pickle
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import called

from cervical_d2.checkpoint.safe_load import load_file
from cervical_d2.config import load_config, load_dumped_config
from cervical_d2.errors import UserError

TERA = 10**12
BOMB = "a0: &a0 [1, 1]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\x80\x04\x8e" + struct.pack("<Q", TERA) + b"abc.", "expected 1000000000000 bytes"),
        (b"\x80\x04\x95" + struct.pack("<Q", TERA) + b"N.", "claims 1000000000000 bytes at byte 2, but has 13"),
        (b"\x80\x05\x96" + struct.pack("<Q", TERA) + b"abc.", "expected 1000000000000 bytes"),
        (b"\x80\x02}r" + struct.pack("<I", 2**31 - 1) + b".", "claims 2147483647"),
        (b"\x80\x02cnumpy\nndarray\n\x8a\x06" + TERA.to_bytes(6, "little") + b"\x85\x85R.", "takes no arguments"),
        (b"\x80\x02c_codecs\nencode\nX\x01\0\0\0aX\x03\0\0\0hex\x86R.", "holds something else"),
        (b"", "exhausted"),
    ],
)  # fmt: skip
def test_a_pickle_that_claims_more_than_it_has_takes_no_memory(tmp_path: Path, content, message):
    (tmp_path / "x.pkl").write_bytes(content)
    with pytest.raises(UserError, match=rf"x\.pkl: .*{message}"):
        load_file(str(tmp_path / "x.pkl"))


def test_an_array_has_the_shape_of_its_bytes_whatever_it_was_made_with(tmp_path: Path):
    shape = b"\x8a\x06" + TERA.to_bytes(6, "little")
    array = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\n" + shape + b"\x85U\x01b\x87R"
    (tmp_path / "x.pkl").write_bytes(b"\x80\x02}U\x01a" + array + b"s.")
    assert load_file(str(tmp_path / "x.pkl"))["a"].shape == (0,)


@pytest.mark.parametrize("protocol", [2, 4])
def test_arrays_and_numbers_come_back_as_they_were(tmp_path: Path, protocol):
    content = {"a": np.arange(6.0).reshape(2, 3), "b": np.float32(2.5), "c": np.array(["x"]), "d": np.ones(2, bool)}
    (tmp_path / "x.pkl").write_bytes(pickle.dumps(content, protocol))
    loaded = load_file(str(tmp_path / "x.pkl"))
    assert all(np.array_equal(loaded[name], value) for name, value in content.items())
    assert loaded["b"].dtype == np.float32


def test_a_zip_that_claims_more_than_it_has_or_is_damaged_is_refused(tmp_path: Path):
    with zipfile.ZipFile(tmp_path / "x.pth", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("x/data.pkl", bytes(10**6))
    with pytest.raises(UserError, match=r"x\.pth: .*claims 1000000 bytes, but has"):
        load_file(str(tmp_path / "x.pth"))
    buffer = io.BytesIO()
    torch.save({"a": torch.ones(1000)}, buffer)
    content = bytearray(buffer.getvalue())
    content[content.index(struct.pack("<f", 1) * 100) + 80] ^= 1  # a bit of one weight
    (tmp_path / "x.pth").write_bytes(content)
    with pytest.raises(UserError, match=r"x\.pth: .*in it is damaged"):
        load_file(str(tmp_path / "x.pth"))
    (tmp_path / "x.pth").write_bytes(buffer.getvalue()[:-50])
    with pytest.raises(UserError, match=r"x\.pth: .*it is broken off"):
        load_file(str(tmp_path / "x.pth"))


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"a": "_BASE_: a.yaml"}, "_BASE_ goes in a circle: a.yaml -> a.yaml"),
        ({"a": "_BASE_: b.yaml", "b": "_BASE_: [a.yaml]"}, "_BASE_ goes in a circle: a.yaml -> b.yaml -> a.yaml"),
        ({"a": "_BASE_: 0.yaml", **{str(n): f"_BASE_: {n + 1}.yaml" for n in range(60)}}, "more than 50 files"),
        ({"a": "_BASE_: 0.yaml", "30": "SEED: 1",
          **{str(n): f"_BASE_: [{n + 1}.yaml, {n + 1}.yaml]" for n in range(30)}}, "more than 50 files"),
        ({"a": BOMB}, "its aliases expand to more than 100000 values"),
        ({"a": "SEED: " + "[" * 5000}, "nested too deeply"),
        ({"a": "_BASE_: 5"}, "_BASE_ is 5, not the name of a file"),
        ({"a": ""}, "is no table of settings"),
        ({"a": "MODEL: 5"}, "MODEL is a section; write its keys below it"),
    ],
)  # fmt: skip
def test_a_config_that_would_not_end_is_one_line(tmp_path: Path, files, message):
    for name, text in files.items():
        (tmp_path / f"{name}.yaml").write_text(text)
    with pytest.raises(UserError, match=message) as raised:
        load_config(str(tmp_path / "a.yaml"))
    assert len(str(raised.value)) < 300


def test_a_config_may_stand_on_several_files_and_meet_one_twice(tmp_path: Path):
    texts = {"a": "_BASE_: [b.yaml, c.yaml]", "b": "_BASE_: d.yaml", "c": "_BASE_: d.yaml\nVERSION: 2", "d": "SEED: 7"}
    for name, text in texts.items():
        (tmp_path / f"{name}.yaml").write_text(text)
    assert load_config(str(tmp_path / "a.yaml")).SEED == 7


@pytest.mark.parametrize("text", [BOMB, "MODEL: &m {WEIGHTS: *m}", "1: 2"])
def test_a_checkpoints_config_that_would_not_end_is_one_line(text):
    with pytest.raises(UserError, match=r"^x: "):
        load_dumped_config(text, "x")


def test_weights_that_are_no_numbers_are_refused_wherever_they_are_loaded(tiny: Path, capfd):
    words = ("--config-file", tiny / "config.yaml", "SOLVER.MAX_ITER", 1, "TEST.EVAL_PERIOD", 0, "DATASETS.TEST", "()")
    assert called(capfd, "train_net.py", *words).returncode == 0
    content = load_file(str(tiny / "run/model_final.pth"))
    content["model"]["roi_heads.box_predictor.cls_score.bias"][1] = float("nan")
    torch.save(content, tiny / "nan.pth")
    data = f"{tiny / 'data.yaml'}:val"
    config = ("--config-file", tiny / "config.yaml", "MODEL.WEIGHTS", tiny / "nan.pth", "OUTPUT_DIR", tiny / "out")
    for script, arguments in (
        ("train_net.py", config),
        ("train_net.py", ("--eval-only", *config)),
        ("tools/predict.py", (tiny / "images", "--weights", tiny / "nan.pth", "--output", tiny / "found")),
        ("tools/robustness.py", (tiny / "nan.pth", "--dataset", data, "--output", tiny / "robust")),
        ("tools/proposal_recall.py", (tiny / "nan.pth", "--dataset", data)),
    ):
        run = called(capfd, script, *arguments)
        assert (run.returncode, "nan.pth: NaN or infinity in 1 of" in run.stderr) == (2, True), script
