"""The installer: its table of fix-ups, what it builds, and what it refuses. Nothing here reaches the network
or installs anything, but for the one slow test."""

import ast
import io
import os
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path
from types import ModuleType

import pytest

from tools import detectron2_fixups, install_detectron2
from tools.detectron2_fixups import FIXUPS, Fixup, FixupError, apply_fixups

TOOLS = Path(__file__).resolve().parents[1] / "tools"


def write_files(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def run_tool(*arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(TOOLS / "install_detectron2.py"), *arguments]
    env = {**os.environ, "PIP_NO_INDEX": "1", **environment}
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=120)


def broken_sources() -> dict[str, str]:
    """For each file of the table, lines that hold its texts as often as it says, in valid Python."""
    # What stands around a text upstream where the text is no statement by itself.
    around = {
        "sample(self._fallback_candidates": "\nx = {}, k=1)",
        '"detectron2.model_zoo", os': "\nx = ({}.path)",
        "self._output_dir": "\nif x:\n        {}",
    }
    files: dict[str, str] = {}
    for fixup in FIXUPS:
        frame = next((frame for start, frame in around.items() if fixup.old.startswith(start)), "\n{}")
        files[fixup.file] = files.get(fixup.file, "") + frame.format(fixup.old) * fixup.times + "\n"
    return files


def test_fixups_leave_valid_code_and_none_of_the_broken_texts(tmp_path):
    write_files(tmp_path, broken_sources())
    assert apply_fixups(tmp_path) == len(FIXUPS)
    for fixup in FIXUPS:
        text = (tmp_path / fixup.file).read_text()
        ast.parse(text)
        assert text.count(fixup.new.strip()) >= fixup.times
    assert "np." not in (tmp_path / "structures/masks.py").read_text()
    assert "pkg_resources" not in (tmp_path / "model_zoo/model_zoo.py").read_text()


def test_a_fixup_replaces_whole_words_only(tmp_path):
    write_files(tmp_path, {"a.py": "np.int64, np.int, np.int_, np.int)"})
    apply_fixups(tmp_path, [Fixup("a.py", "np.int", "int", 2)])
    assert (tmp_path / "a.py").read_text() == "np.int64, int, np.int_, int)"


@pytest.mark.parametrize("text, found", [("x = np.bool\n", 1), ("", 0), ("np.bool\n" * 4, 4)])
def test_a_wrong_count_names_file_and_both_numbers(tmp_path, text, found):
    write_files(tmp_path, {**broken_sources(), "structures/masks.py": text})
    with pytest.raises(FixupError, match=rf"structures/masks\.py.*np\.bool' {found} times, expected 3"):
        apply_fixups(tmp_path)


def test_a_checkout_may_lack_a_broken_text_but_not_hold_some_of_it(tmp_path):
    fixups = [Fixup("gone.py", "x", "y", 1), Fixup("a.py", "np.int", "int", 2), Fixup("a.py", "b", "c", 1)]
    write_files(tmp_path, {"a.py": "b\n"})
    assert apply_fixups(tmp_path, fixups, strict=False) == 1
    write_files(tmp_path, {"a.py": "np.int\n"})
    with pytest.raises(FixupError, match=r"a\.py.*1 times, expected 2"):
        apply_fixups(tmp_path, fixups, strict=False)


def test_upstream_main_keeps_its_own_fallbacks(tmp_path):
    source = "try:\n    from detectron2 import _C\nexcept ImportError:\n    pass\n"
    write_files(tmp_path, {"layers/deform_conv.py": source})
    assert apply_fixups(tmp_path, strict=False) == 0
    assert (tmp_path / "layers/deform_conv.py").read_text() == source


def test_missing_operations_complain_when_called_and_not_before():
    missing_ops = ModuleType("missing_ops")
    exec(detectron2_fixups.MISSING_OPS, missing_ops.__dict__)
    operation = missing_ops.box_iou_rotated
    with pytest.raises(ImportError, match=r"detectron2\._C\.box_iou_rotated.*--with-ops --source"):
        operation(1, 2)


def test_evaluation_falls_back_to_pycocotools(monkeypatch):
    monkeypatch.setitem(sys.modules, "detectron2.evaluation.fast_eval_api", None)  # importing it fails
    namespace = {"COCOeval": object()}
    exec(detectron2_fixups.IMPORT_FAST_EVAL_IF_BUILT, namespace)
    assert namespace["COCOeval_opt"] is namespace["COCOeval"]


def fake_detectron2(root: Path) -> Path:
    modules = ("detectron2", "detectron2/engine", "detectron2/evaluation", "detectron2/modeling")
    files = {f"{module}/__init__.py": "" for module in modules}
    return write_files(root, {**files, "detectron2/__init__.py": '__version__ = "0.6"\n'})


def test_a_wheel_is_named_detectron2_tells_its_source_and_asks_for_no_torch(tmp_path):
    tree = fake_detectron2(tmp_path / "tree")
    write_files(tree, {
        "detectron2/model_zoo/__init__.py": "", "configs/a/b.yaml": "x: 1\n", "tools/__init__.py": "",
        "detectron2/_C.abi3.so": "",
        "setup.py": "raise SystemExit('upstream setup.py must not run')\n",
    })  # fmt: skip
    (tree / "detectron2/model_zoo/configs").symlink_to(tree / "configs")  # upstream's setup.py leaves it so
    wheel = install_detectron2.build_wheel(tree, "02b5c4e", tmp_path / "out")
    assert wheel.name == "detectron2-0.6+cervical.d2.02b5c4e-py3-none-any.whl"
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        metadata = archive.read(next(name for name in names if name.endswith("/METADATA"))).decode()
    files = {"missing_ops.py", "_C.abi3.so", "model_zoo/configs/a/b.yaml"}
    assert {f"detectron2/{name}" for name in files} < set(names)
    assert not [name for name in names if not name.startswith("detectron2")]
    requires = [line for line in metadata.splitlines() if line.startswith("Requires-Dist")]
    assert len(requires) == len(install_detectron2.RUNTIME)
    assert not [line for line in requires if "torch" in line or "black" in line]


def test_nothing_is_done_where_detectron2_works(tmp_path):
    fake_detectron2(tmp_path)
    write_files(tmp_path, {"pip/__init__.py": "", "pip/__main__.py": f"open({str(tmp_path / 'ran')!r}, 'w')\n"})
    done = run_tool(cwd=tmp_path, PYTHONPATH=str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert "nothing to do" in done.stdout and str(tmp_path / "detectron2") in done.stdout
    assert len(done.stdout.splitlines()) == 1
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("arguments, message", [
    (["--source", "no/such/folder"], "no/such/folder: no such folder"),
    (["--source", ".", "--force"], "has no detectron2/__init__.py"),
    (["--source", "file:///no/such/repository.git@main", "--force"], "repository"),
    (["--with-ops", "--force"], "add --source"),
])  # fmt: skip
def test_a_mistake_is_one_line_and_status_2(tmp_path, arguments, message):
    done = run_tool(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("error: ") and message in done.stderr


def test_another_download_than_the_expected_is_refused(tmp_path):
    with tarfile.open(tmp_path / "pb1-detectron2-0.6.tar.gz", "w:gz") as archive:
        archive.add(write_files(tmp_path / "s", {"setup.py": ""}), "pb1-detectron2-0.6")
    done = run_tool("--force", cwd=tmp_path, PIP_FIND_LINKS=str(tmp_path), PIP_CONFIG_FILE=os.devnull)
    assert done.returncode == 2
    assert done.stderr == "error: pb1-detectron2 0.6: the download's hash is not the expected one\n"


def test_without_torch_one_line_tells_the_cure(tmp_path):
    venv.create(tmp_path / "bare", with_pip=False)
    python = venv.EnvBuilder().ensure_directories(tmp_path / "bare").env_exe
    command = [python, str(TOOLS / "install_detectron2.py")]
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "python -m pip install torch" in done.stderr


def test_an_archive_that_leaves_its_folder_is_refused(tmp_path):
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as archive:
        archive.addfile(tarfile.TarInfo("../outside.py"), io.BytesIO())
    with pytest.raises(install_detectron2.InstallError, match=r"a\.tar\.gz: refused"):
        install_detectron2.unpack(tmp_path / "a.tar.gz", tmp_path / "source")
    assert not (tmp_path / "outside.py").exists()


@pytest.mark.parametrize("source, expected", [
    ("https://host/a/detectron2.git@v0.6", ("https://host/a/detectron2.git", "v0.6")),
    ("https://host/a/detectron2", ("https://host/a/detectron2", "")),
    ("git@host:a/detectron2.git", ("git@host:a/detectron2.git", "")),
    ("git@host:a/detectron2.git@02b5c4e", ("git@host:a/detectron2.git", "02b5c4e")),
    ("https://user@host/a/detectron2", ("https://user@host/a/detectron2", "")),
])  # fmt: skip
def test_source_and_revision(source, expected):
    assert install_detectron2.split_source(source) == expected


def test_a_cloned_revision_is_named_by_its_commit(tmp_path):
    repository = fake_detectron2(tmp_path / "repository")
    git = ["git", "-C", str(repository), "-c", "user.name=a", "-c", "user.email=a@b"]
    for arguments in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "one"], ["tag", "v1"]):
        subprocess.run([*git, *arguments], check=True)
    write_files(repository, {"detectron2/later.py": ""})
    for arguments in (["add", "."], ["commit", "-q", "-m", "two"]):
        subprocess.run([*git, *arguments], check=True)
    tree, revision = install_detectron2.check_out(f"file://{repository}", "v1", tmp_path)
    head = subprocess.run([*git, "rev-parse", "v1"], check=True, capture_output=True, text=True).stdout
    assert head.startswith(revision) and len(revision) == 7
    assert not (tree / "detectron2/later.py").exists()


@pytest.mark.slow
def test_every_fixup_fits_the_release_on_pypi(tmp_path):
    tree = install_detectron2.download(tmp_path)
    assert apply_fixups(tree / "detectron2") == len(FIXUPS)
    for fixup in FIXUPS:
        ast.parse((tree / "detectron2" / fixup.file).read_text())
