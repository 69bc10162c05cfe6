"""Where commands write: never over what is the user's, never half."""

import errno
import json
import os
from pathlib import Path

import pytest
from conftest import called, listing

from cervical_d2 import files
from cervical_d2.errors import MachineError, UserError, run_main
from cervical_d2.files import WRITTEN, check_output, output_folder, write_bytes, write_text


def written(folder: Path, command: str = "draw", **texts: str) -> None:
    with output_folder(folder, command) as partial:
        for name, text in texts.items():
            write_text(partial / f"{name}.txt", text)


def test_a_rerun_replaces_its_own_files_and_removes_those_it_no_longer_writes(tmp_path: Path):
    written(tmp_path / "out", a="1", b="1")
    inode = (tmp_path / "out").stat().st_ino  # a shell in that folder, or a mount, stays where it is
    written(tmp_path / "out", b="2", c="2")
    assert {path.name: path.read_text() for path in (tmp_path / "out").glob("*.txt")} == {"b.txt": "2", "c.txt": "2"}
    assert (tmp_path / "out").stat().st_ino == inode
    assert json.loads((tmp_path / "out" / WRITTEN).read_text()) == {"written by": "draw", "files": ["b.txt", "c.txt"]}
    assert {path.name for path in (tmp_path / "out").iterdir()} == {WRITTEN, "b.txt", "c.txt"}


def test_files_of_the_user_stay(tmp_path: Path):
    written(tmp_path / "out", a="1")
    (tmp_path / "out/notes.txt").write_text("mine")
    before = listing(tmp_path)
    with pytest.raises(UserError, match=r"out: holds something else \(notes.txt\); choose another output"):
        written(tmp_path / "out", a="2")
    assert listing(tmp_path) == before
    (tmp_path / "out/notes.txt").unlink()
    (tmp_path / "out/.DS_Store").write_text("a file manager's")
    written(tmp_path / "out", a="2")
    assert (tmp_path / "out/a.txt").read_text() == "2"
    with pytest.raises(UserError, match="out: holds what `draw` wrote"):
        written(tmp_path / "out", "report", a="3")


def test_a_list_that_names_files_elsewhere_is_not_believed(tmp_path: Path):
    (tmp_path / "precious.txt").write_text("mine")
    written(tmp_path / "out")
    (tmp_path / "out" / WRITTEN).write_text('{"written by": "draw", "files": ["../precious.txt"]}')
    written(tmp_path / "out", a="1")
    assert (tmp_path / "precious.txt").read_text() == "mine"


def test_what_fails_leaves_everything_as_it_was(tmp_path: Path):
    written(tmp_path / "out", a="1")
    before = listing(tmp_path)
    for folder in (tmp_path / "out", tmp_path / "new/deeper"):
        with pytest.raises(ZeroDivisionError), output_folder(folder, "draw") as partial:
            write_text(partial / "a.txt", str(1 / 0))
    assert listing(tmp_path) == before
    assert not (tmp_path / "new").exists()


def test_no_folder_of_inputs_is_written(tmp_path: Path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images/.hidden.png").write_text("")
    (tmp_path / "link").symlink_to(tmp_path / "images")
    for output in ("images", "link", "images/../images", "."):
        with pytest.raises(UserError, match=r"holds .*hidden.png, which is read; choose another output"):
            check_output(tmp_path / output, "draw", [tmp_path / "images/.hidden.png"])
    assert check_output(tmp_path / "images/below", "draw", [tmp_path / "images/.hidden.png"]) == set()


def test_places_where_nothing_can_be_written_are_one_line(tmp_path: Path):
    (tmp_path / "file").write_text("")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for name, said in (
        ("file", "a file; name a folder"),
        ("file/below/it", "file is not a folder"),
        ("dangling", "a link that leads nowhere"),
        ("loop", "a link that leads nowhere"),
        ("loop/below", "is not a folder"),
    ):
        with pytest.raises(UserError, match=said):
            check_output(tmp_path / name, "draw")
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a file system without new folders")
def test_where_no_folder_can_be_made_is_one_line(tiny: Path, capfd):
    for words in (
        ("tools/dataset_statistics.py", tiny / "data.yaml", "--output", "/proc/out"),
        ("train_net.py", "--config-file", tiny / "config.yaml", "OUTPUT_DIR", "/proc/out"),
    ):
        run = called(capfd, *words)
        assert (run.returncode, "/proc/out: no folder can be made here" in run.stderr) == (2, True)


def failing(error: int):
    def fail(*_: object) -> None:
        raise OSError(error, os.strerror(error))  # as the system does: without a name

    return fail


def test_a_full_disk_is_one_line_and_leaves_no_half_file(tmp_path: Path, monkeypatch, capsys):
    (tmp_path / "a").write_text("old")
    monkeypatch.setattr(files.os, "fsync", failing(errno.ENOSPC))
    assert run_main(lambda: write_bytes(tmp_path / "a", b"new")) == 3
    said = capsys.readouterr().err
    assert said == f"error: {tmp_path / 'a'}: No space left on device; free space, then run the same command again\n"
    assert listing(tmp_path) == {"a": b"old"}


@pytest.mark.parametrize(("number", "status"), [(errno.EROFS, 2), (errno.EACCES, 2), (errno.EIO, 3), (errno.ELOOP, 2)])
def test_what_the_system_refuses_has_an_exit_code(capsys, number: int, status: int):
    assert run_main(failing(number)) == status
    assert capsys.readouterr().err.count("\n") == 1
    with pytest.raises(OSError, match="Bad file"):  # of us
        run_main(failing(errno.EBADF))


def test_a_name_as_long_as_the_system_allows_is_written(tmp_path: Path):
    write_bytes(tmp_path / ("x" * 251 + ".png"), b"1")
    assert len(listing(tmp_path)) == 1
    assert issubclass(MachineError, UserError)


def test_a_file_that_exists_is_replaced_only_when_asked(tmp_path: Path, capfd):
    sheet = tmp_path / "sheet.jpg"
    sheet.write_bytes(b"mine")
    run = called(capfd, "tools/visualize_augmentation.py", "--output", sheet)
    assert (run.returncode, sheet.read_bytes()) == (2, b"mine")
    assert "sheet.jpg: exists already; choose another output, or add --overwrite" in run.stderr
    assert called(capfd, "tools/visualize_augmentation.py", "--output", sheet, "--overwrite").returncode == 0
    assert sheet.read_bytes()[:2] == b"\xff\xd8"


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("tools/visualize_data.py", ["{data}:val", "--output", "{images}"]),
        ("tools/dataset_statistics.py", ["{data}:val", "--output", "{images}"]),
        ("tools/audit_dataset.py", ["{data}:val", "--output", "{images}"]),
        ("tools/cluster_anchors.py", ["--dataset", "{data}:val", "--num-anchors", "5", "--output", "{images}"]),
        ("tools/visualize_augmentation.py", ["--output", "{images}/val0.png"]),
        ("tools/split_dataset.py", ["--dataset", "{data}:val", "--folds", "2", "--output", "{images}"]),
        ("tools/convert_dataset.py", ["--dataset", "{data}:val", "--to", "voc", "--output", "{images}"]),
        ("tools/check_dataset.py", ["--dataset", "{data}", "--json", "{images}/val0.png"]),
        ("train_net.py", ["--config-file", "{images}/../config.yaml", "OUTPUT_DIR", "{images}"]),
        ("train_net.py", ["--config-file", "{images}/../config.yaml", "OUTPUT_DIR", "{images}/.."]),
        ("tools/reproduce.py", ["xu:8", "--quick", "demo", "--output", "{images}/../other"]),
    ],
)
def test_no_command_writes_over_what_is_there(tiny: Path, capfd, script: str, words: list[str]):
    (tiny / "other").mkdir()
    (tiny / "other/results.md").write_text("mine")
    before = listing(tiny)
    placed = [word.format(data=tiny / "data.yaml", images=tiny / "images") for word in words]
    run = called(capfd, script, *placed)
    assert run.returncode == 2, run.stderr
    assert run.stderr.startswith("error: ") or "\nerror: " in run.stderr
    assert "Traceback" not in run.stderr
    assert listing(tiny) == before
