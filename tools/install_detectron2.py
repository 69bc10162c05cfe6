"""Install detectron2 in the running environment: v0.6 from PyPI, patched for current libraries.

detectron2 has no release under its own name on PyPI, and its last source release neither installs nor imports
with a current Python, numpy, Pillow and setuptools. This takes the source, patches it (detectron2_fixups.py),
compiles nothing, and installs a wheel named `detectron2` whose version label, like `0.6+cervical.d2.v0.6`,
says where it came from. Exit codes: 0 success, 1 a step failed, 2 something to fix first.
"""

import argparse
import contextlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path

EXIT_OK, EXIT_OURS, EXIT_USER = 0, 1, 2
PYPI_REQUIREMENT = "pb1-detectron2==0.6 --hash=sha256:5d2e9e51e523ec72f6a31cca04b0a515492e9514b773a3d134cedc0677170b29"
PYPI_REVISION = "v0.6"
# What the source needs to be unpacked, built and imported; its setup.py imports torch.
PREREQUISITES = ("torch", "torchvision", "setuptools", "wheel")
# Upstream's, without the pins that a current stack breaks (black, iopath<0.1.10) and what only caffe2 used.
RUNTIME = (
    "Pillow>=7.1", "matplotlib", "pycocotools>=2.0.2", "termcolor>=1.1", "yacs>=0.1.8", "tabulate",
    "cloudpickle", "tqdm>4.29.0", "tensorboard", "fvcore>=0.1.5,<0.1.6", "iopath>=0.1.7", "omegaconf>=2.1",
    "hydra-core>=1.1", "packaging",
)  # fmt: skip

PYPROJECT = """[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"
[project]
name = "detectron2"
version = "{version}"
description = "detectron2, patched for current libraries by cervical-d2 install-detectron2"
dependencies = {dependencies}
[tool.setuptools.packages.find]
include = ["detectron2", "detectron2.*"]
namespaces = false
[tool.setuptools.package-data]
"detectron2" = ["_C*"]
"detectron2.model_zoo" = ["configs/**/*.yaml", "configs/**/*.py"]
"""

PROBE = """
import importlib.metadata as metadata
import detectron2, detectron2.engine, detectron2.evaluation, detectron2.modeling
try:
    label = metadata.version("detectron2")
except metadata.PackageNotFoundError:
    label = detectron2.__version__
print(label, "in", detectron2.__path__[0])
"""


class InstallError(Exception):
    """An error that the user can fix, in one line."""


class StepError(Exception):
    """A command failed; the message names it and `output` holds all that it printed."""

    def __init__(self, step: str, output: str) -> None:
        super().__init__(f"`{step}` failed; its output is above")
        self.output = output


def execute(step: str, command: Sequence[str], cwd: Path | None = None) -> str:
    """Run `command` and return what it printed; `StepError` when it fails.

    The default folder is the environment's own, for python -m and -c import from the folder they run in, and
    a user may well stand in a detectron2 checkout.
    """
    if not shutil.which(command[0]):
        raise StepError(step, f"{command[0]}: not found")
    env = {**os.environ, "GIT_TERMINAL_PROMPT": "0"}
    done = subprocess.run(command, cwd=cwd or sys.prefix, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    output = done.stdout.decode(errors="replace")
    if done.returncode:
        raise StepError(step, output)
    return output


def pip(*arguments: str) -> str:
    return execute(f"pip {arguments[0]}", [sys.executable, "-m", "pip", *arguments])


def last_line(text: str) -> str:
    return (text.strip().splitlines() or ["no output"])[-1]


def probe() -> str:
    """Import detectron2 in a process of its own; returns its version and place, or raises `StepError`."""
    return last_line(execute("import detectron2", [sys.executable, "-c", PROBE]))


def split_source(source: str) -> tuple[str, str]:
    """Split PATH-or-URL[@REVISION] into an absolute folder or a URL, and the revision or ""."""
    match = re.fullmatch(r"(.+?)(?:@([^@/:]+))?", source)
    location, revision = (source, "") if Path(source).is_dir() or not match else match.groups(default="")
    if Path(location).is_dir():
        return str(Path(location).resolve()), revision
    if "://" not in location and not location.startswith("git@"):
        raise InstallError(f"--source {source}: no such folder, and not the URL of a git repository")
    return location, revision


def unpack(archive: Path, folder: Path) -> Path:
    """Unpack a source archive and return its top folder; a member that would land elsewhere is refused."""
    try:
        with tarfile.open(archive) as tar:
            tar.extractall(folder, filter="data")
    except tarfile.TarError as error:
        raise InstallError(f"{archive.name}: refused to unpack it: {error}") from None
    return next(folder.iterdir())


def download(scratch: Path) -> Path:
    """Fetch the release from PyPI into `scratch`, its hash checked by pip, and return the unpacked source."""
    requirement = scratch / "requirement.txt"
    requirement.write_text(PYPI_REQUIREMENT + "\n")
    options = ("--no-deps", "--no-build-isolation", "--no-binary", ":all:", "--require-hashes")
    try:
        pip("download", *options, "-r", str(requirement), "-d", str(scratch / "download"))
    except StepError as error:
        if "DO NOT MATCH THE HASHES" not in error.output:
            raise
        raise InstallError("pb1-detectron2 0.6: the download's hash is not the expected one") from None
    return unpack(next((scratch / "download").iterdir()), scratch / "source")


def check_out(location: str, revision: str, scratch: Path) -> tuple[Path, str]:
    """Copy a folder or clone a repository into `scratch`; returns the source and what names its revision."""
    tree = scratch / "source"
    if Path(location).is_dir() and not revision:
        # Another environment's compiled extension would be taken for this one's.
        ignore = shutil.ignore_patterns(".git", "build", "_C.*.so", "_C.*.pyd")
        shutil.copytree(location, tree, ignore=ignore, ignore_dangling_symlinks=True)
        named = Path(location)
    else:
        try:
            execute("git clone", ["git", "clone", "--quiet", "--", location, str(tree)])
            execute("git checkout", ["git", "-C", str(tree), "checkout", "--quiet", revision or "HEAD"])
        except StepError as error:
            raise InstallError(f"--source {location}: {last_line(error.output)}") from None
        named = tree
    if not (tree / "detectron2" / "__init__.py").is_file():
        raise InstallError(f"--source {location}: not a detectron2 checkout: it has no detectron2/__init__.py")
    try:
        # Not git -C: in an unpacked archive it would find a repository around the folder.
        git_dir = f"--git-dir={named / '.git'}"
        return tree, execute("git", ["git", git_dir, "rev-parse", "--short=7", "HEAD"]).strip()
    except StepError:
        return tree, "local"


def compile_ops(tree: Path) -> None:
    """Build detectron2._C in place with upstream's own setup.py."""
    if not shutil.which(os.environ.get("CXX", "c++")) and not shutil.which("cl"):
        raise InstallError("--with-ops: found no C++ compiler; install one or set CXX")
    print("compiling the operations: this takes many minutes", flush=True)
    execute("setup.py build_ext", [sys.executable, "setup.py", "build_ext", "--inplace"], cwd=tree)


def build_wheel(tree: Path, revision: str, out: Path) -> Path:
    """Build the wheel `detectron2` of the source in `tree`, changing it; returns the wheel's path."""
    from .detectron2_fixups import MISSING_OPS

    package, configs = tree / "detectron2", tree / "detectron2" / "model_zoo" / "configs"
    if configs.is_symlink():
        configs.unlink()
    if not configs.exists() and (tree / "configs").is_dir():
        shutil.copytree(tree / "configs", configs)
    (package / "missing_ops.py").write_text(MISSING_OPS)
    version = re.search(r'^__version__ = "(.+)"', (package / "__init__.py").read_text(), re.MULTILINE)
    label = f"{version[1] if version else '0'}+cervical.d2.{revision}"
    for name in ("setup.py", "setup.cfg"):
        (tree / name).unlink(missing_ok=True)
    (tree / "pyproject.toml").write_text(PYPROJECT.format(version=label, dependencies=json.dumps(RUNTIME)))
    pip("wheel", "--no-deps", "--no-build-isolation", "-w", str(out), str(tree))
    return next(out.glob("detectron2-*.whl"))


def check_prerequisites(args: argparse.Namespace) -> None:
    missing = " ".join(name for name in PREREQUISITES if importlib.util.find_spec(name) is None)
    if missing:
        raise InstallError(f"missing here: {missing}; first run python -m pip install {missing}")
    if args.with_ops and not args.source:
        raise InstallError("--with-ops: the release on PyPI holds no C++ sources; add --source")


def install(args: argparse.Namespace) -> None:
    """Fetch, patch, build and install, unless a detectron2 works already. Raises one of the three errors."""
    from .detectron2_fixups import apply_fixups

    source = split_source(args.source) if args.source else None
    if not args.force:
        with contextlib.suppress(StepError):
            print(f"detectron2 {probe()} works: nothing to do (--force reinstalls it)")
            return
    check_prerequisites(args)
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        print(f"fetching detectron2 from {args.source or 'PyPI (pb1-detectron2 0.6)'}", flush=True)
        tree, revision = check_out(*source, scratch) if source else (download(scratch), PYPI_REVISION)
        print(f"applied {apply_fixups(tree / 'detectron2', strict=not source)} fix-ups", flush=True)
        if args.with_ops:
            compile_ops(tree)
        wheel = build_wheel(tree, revision, scratch / "wheel")
        print(f"installing {wheel.name} and what it needs", flush=True)
        pip("install", *RUNTIME)
        pip("install", "--no-deps", "--force-reinstall", str(wheel))
    print(f"detectron2 {probe()} works")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--force", action="store_true", help="install even when detectron2 works already")
    parser.add_argument("--source", metavar="CHECKOUT[@REV]", help="a folder or git URL, instead of PyPI")
    ops = parser.add_mutually_exclusive_group()
    ops.add_argument("--with-ops", action="store_true", help="compile the C++/CUDA operations of --source")
    ops.add_argument("--no-ops", action="store_true", help="compile nothing (default)")


def run(args: argparse.Namespace) -> int:
    """Install; returns the exit code, with an error in one line on stderr."""
    from .detectron2_fixups import FixupError

    try:
        install(args)
    except (InstallError, FixupError) as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_USER if isinstance(error, InstallError) else EXIT_OURS
    except StepError as error:
        print(f"{error.output}\nerror: {error}", file=sys.stderr)
        return EXIT_OURS
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    return EXIT_OK


if __name__ == "__main__":
    from cli import script

    script(__file__)
