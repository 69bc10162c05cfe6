"""The rooms of the package: imports point one way."""

import ast
from pathlib import Path

import cervical_d2

PACKAGE = Path(cervical_d2.__file__).parent

# From the ground up: a room may import those before it. Modules beside the rooms are the ground.
ROOMS = (
    "demo",
    "slides",
    "datasets",
    "data",
    "modeling",
    "checkpoint",
    "curation",
    "anchors",
    "inference",
    "evaluation",
    "engine",
    "report",
    "papers",
)
GROUND = -1
LARGEST = 0.16  # share of the lines


def room_of(module: str) -> int:
    """The place of a dotted module in `ROOMS`."""
    parts = module.split(".")
    return ROOMS.index(parts[1]) if len(parts) > 1 and parts[1] in ROOMS else GROUND


def imported(path: Path) -> list[str]:
    """The modules of this package that a file imports, anywhere in it."""
    nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    sources = [node for node in nodes if isinstance(node, ast.ImportFrom) and node.module]
    # `from cervical_d2 import report` names a room too.
    names += [f"{node.module}.{alias.name}" for node in sources for alias in node.names]
    return [name for name in names if name.split(".")[0] == "cervical_d2"]


def upward(root: Path) -> list[tuple[str, str]]:
    """(file, module) of each import of a later room; `__init__` of the package registers, and may name any."""
    return [
        (str(path.relative_to(root)), name)
        for path in sorted(root.rglob("*.py"))
        if path != root / "__init__.py"
        for name in imported(path)
        if room_of(name) > room_of(".".join(("cervical_d2", *path.relative_to(root).parts)))
    ]


def test_imports_point_one_way():
    assert upward(PACKAGE) == []


def test_an_upward_import_is_found(tmp_path: Path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data/build.py").write_text("def late():\n    from cervical_d2 import engine\n")
    (tmp_path / "files.py").write_text("import cervical_d2.demo.scenes\n")
    assert upward(tmp_path) == [
        ("data/build.py", "cervical_d2.engine"),
        ("files.py", "cervical_d2.demo.scenes"),
    ]


def test_every_room_is_listed_and_none_is_too_large():
    folders = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert folders - {"configs"} == set(ROOMS)
    lines = {room: sum(path.read_text().count("\n") for path in (PACKAGE / room).rglob("*.py")) for room in ROOMS}
    total = sum(lines.values())
    assert {room: count for room, count in lines.items() if count > LARGEST * total} == {}
