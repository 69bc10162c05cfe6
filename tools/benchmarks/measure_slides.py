#!/usr/bin/env python
"""Write slides with planted cells, cut them, and print what that takes (docs/slides.md).

A slide is a pyramidal TIFF of demo scenes and empty fields, written tile by tile. Each row is measured in a process of
its own: tiles a second by number of processes, peak memory by side. Then every cell is looked up in the tiles that its
rule gives it to, and a run that was killed ten times is compared with one that was not.
"""

import argparse
import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

FIELD = 512  # px: side of a field and of a tile of the TIFF
FIELDS, SHARE = 12, 0.2  # drawn scenes, and the share of the slide's fields that is one of them
SHRINKS = (1, 4, 16)  # of the levels
TILE = 800
TOOL = Path(__file__).parents[1] / "make_tiles.py"


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Answers --help without importing torch."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sides", type=int, nargs="+", default=[10_000, 40_000], metavar="PX")
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2], metavar="N")
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--folder", type=Path, help="where to write; by default a temporary one, removed afterwards")
    parser.add_argument("--write", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args(argv)


def write_slide(folder: Path, side: int) -> None:
    """`folder`/slides/planted.tif of `side` x `side` px and its labels in Tianchi's layout."""
    import cv2
    import numpy as np
    import tifffile

    from cervical_d2.demo.scenes import draw_scene

    rng = np.random.default_rng(0)
    scenes = [draw_scene(0, "val", number, size=FIELD) for number in range(FIELDS)]
    glass = np.clip(rng.normal(236, 2, (FIELD, FIELD, 3)), 0, 255).astype(np.uint8)
    images = [glass, *(np.asarray(scene.image) for scene in scenes)]
    count = -(-side // FIELD)
    layout = np.where(rng.random((count, count)) < SHARE, rng.integers(1, FIELDS + 1, (count, count)), 0)

    def encoded(shrink: int) -> Iterator[bytes]:
        small = [cv2.resize(image, (FIELD // shrink,) * 2, interpolation=cv2.INTER_AREA) for image in images]
        for top in range(0, count, shrink):
            for left in range(0, count, shrink):
                block = np.full((shrink, shrink), 0)
                part = layout[top : top + shrink, left : left + shrink]
                block[: part.shape[0], : part.shape[1]] = part
                tile = np.vstack([np.hstack([small[number] for number in row]) for row in block])
                yield cv2.imencode(".jpg", cv2.cvtColor(tile, cv2.COLOR_RGB2BGR))[1].tobytes()

    (folder / "slides").mkdir(parents=True, exist_ok=True)
    with tifffile.TiffWriter(folder / "slides/planted.tif", bigtiff=True) as file:
        for shrink in SHRINKS:
            shape = (-(-side // shrink), -(-side // shrink), 3)
            kind: dict[str, Any] = {"subfiletype": int(shrink > 1), "metadata": None, "subsampling": (2, 2)}
            kind |= {"resolution": (40000 / shrink,) * 2, "resolutionunit": "CENTIMETER", "photometric": "ycbcr"}
            tile = (FIELD, FIELD)
            file.write(encoded(shrink), shape=shape, dtype=np.uint8, tile=tile, compression="jpeg", **kind)
    entries = []
    for row, column in np.argwhere(layout > 0):
        for cell in scenes[layout[row, column] - 1].cells:
            x1, y1, x2, y2 = (float(value) for value in cell.box)
            x, y = x1 + FIELD * int(column), y1 + FIELD * int(row)
            if x + x2 - x1 <= side and y + y2 - y1 <= side:
                entries.append({"x": x, "y": y, "w": x2 - x1, "h": y2 - y1, "class": "pos"})
    (folder / "labels").mkdir(exist_ok=True)
    (folder / "labels/planted.json").write_text(json.dumps(entries))


def words(folder: Path, output: str, processes: int, *more: str) -> list[str]:
    """The command that cuts the slide of `folder`."""
    source = ["--slides", str(folder / "slides"), "--labels", str(folder / "labels"), "--format", "tianchi"]
    where = ["--output", str(folder / output), "--processes", str(processes), "--name", "planted"]
    return [sys.executable, str(TOOL), *source, *where, "--empty-rate", "1", "--min-tissue", "0", *more]


def measure(folder: Path, output: str, processes: int) -> dict[str, float]:
    """Run the command; seconds by the clock and of CPU, and the peak memory of its largest process in MB."""
    start = time.monotonic()
    child = subprocess.Popen(words(folder, output, processes), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    assert status == 0, f"{output} ended with {status}"
    row = {"wall": time.monotonic() - start, "cpu": usage.ru_utime + usage.ru_stime}
    return row | {"peak": usage.ru_maxrss / 1e3, "tiles": len(list((folder / output / "images").rglob("*.jpg")))}


def misplaced(folder: Path, output: str, side: int) -> tuple[int, int]:
    """Cells that are planted, and how many of (cell, tile) differ from the rule "more than half", computed anew."""
    cells = json.loads((folder / "labels/planted.json").read_text())
    starts = [*range(0, side - TILE, TILE), side - TILE]
    wanted = set()
    for number, cell in enumerate(cells):
        for top in (y for y in starts if y < cell["y"] + cell["h"] and y + TILE > cell["y"]):
            for left in (x for x in starts if x < cell["x"] + cell["w"] and x + TILE > cell["x"]):
                w = min(cell["x"] + cell["w"], left + TILE) - max(cell["x"], left)
                h = min(cell["y"] + cell["h"], top + TILE) - max(cell["y"], top)
                if w * h > 0.5 * cell["w"] * cell["h"]:
                    wanted.add((number, left, top))
    document = json.loads((folder / output / "all.json").read_text())
    places = {image["id"]: (image["x"], image["y"]) for image in document["images"]}
    held = {(entry["cell"], *places[entry["image_id"]]) for entry in document["annotations"] if "cell" in entry}
    return len(cells), len(wanted ^ held)


def digest(folder: Path) -> str:
    """Of the names and contents of all files below `folder`."""
    total = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        total.update(f"{path.relative_to(folder)} ".encode() + hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()


def killed(folder: Path, output: str, kills: int, tiles: int) -> None:
    """Run the command `kills` times, each killed when so many more tiles stand there, then to its end."""
    partial = folder / f"{output}.partial" / "images"
    for number in range(1, kills + 1):
        command = words(folder, output, 2)
        child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while sum(1 for _ in partial.rglob("*.jpg")) < number * tiles / (kills + 1) and child.poll() is None:
            time.sleep(0.05)
        child.send_signal(signal.SIGKILL)
        child.wait()
    measure(folder, output, 2)


def run(args: argparse.Namespace, folder: Path) -> None:
    """Write, measure, print."""
    print("| side, px | processes | tiles | s | tiles / s | CPU, s | peak memory of a process, MB |")
    print("|" + " ---: |" * 7, flush=True)
    for side in args.sides:
        place = folder / str(side)
        if not (place / "labels").is_dir():
            subprocess.run([sys.executable, __file__, "--write", str(place), "--sides", str(side)], check=True)
        for processes in args.processes:
            row = measure(place, f"tiles{processes}", processes)
            tiles, wall, cpu, peak = (row[key] for key in ("tiles", "wall", "cpu", "peak"))
            told = f"{side} | {processes} | {tiles} | {wall:.0f} | {tiles / wall:.1f} | {cpu:.0f} | {peak:.0f}"
            print(f"| {told} |", flush=True)
        cells, differing = misplaced(place, f"tiles{args.processes[-1]}", side)
        print(f"{side} px: {cells} cells planted, {differing} in another tile than the rule says", flush=True)
    place = folder / str(args.sides[0])
    whole = place / f"tiles{args.processes[0]}"
    if args.kills:
        killed(place, "killed", args.kills, len(list((whole / "images").rglob("*.jpg"))))
        same = "the same files" if digest(place / "killed") == digest(whole) else "OTHER FILES"
        print(f"killed {args.kills} times and resumed: {same}", flush=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status."""
    args = parse_args(argv)
    if args.write:
        write_slide(args.write, args.sides[0])
        return 0
    if args.folder:
        run(args, args.folder)
        return 0
    with tempfile.TemporaryDirectory() as folder:
        run(args, Path(folder))
    return 0


if __name__ == "__main__":
    sys.exit(main())
