#!/usr/bin/env python
"""Read, check and hold datasets of up to a million annotations, and print what that takes (docs/checks.md).

Boxes alone, 100 an image: no images are needed. Each row is measured in a process of its own.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

BOXES_PER_IMAGE = 100
WIDTH, HEIGHT = 1600, 1200
SUFFIXES = {"coco": ".json", "csv": ".csv"}
# column: the key of a row, its digits
COLUMNS = {
    "annotations": ("annotations", 0),
    "format": ("format", None),
    "file MB": ("file", 0),
    "read s": ("read", 1),
    "check s": ("check", 1),
    "pack s": ("pack", 1),
    "imports MB": ("imports", 0),
    "peak MB": ("peak", 0),
    "held MB": ("held", 1),
    "list MB per worker": ("worker_list", 0),
    "packed MB per worker": ("worker_packed", 1),
}


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Answers --help without importing torch."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    sizes = (10_000, 100_000, 1_000_000, 1_700_000)
    parser.add_argument("--annotations", type=int, nargs="+", default=sizes, metavar="N", help=f"default {sizes}")
    parser.add_argument("--formats", nargs="+", choices=SUFFIXES, default=list(SUFFIXES))
    parser.add_argument("--row", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args(argv)


def write_set(path: Path, format_name: str, annotations: int) -> None:
    """A file of that many boxes, of which no two are alike."""
    import numpy as np

    from cervical_d2.datasets.formats import Document, format_of

    rng = np.random.default_rng(0)
    records = []
    for place in range(annotations // BOXES_PER_IMAGE):
        corner = rng.uniform((0, 0), (WIDTH - 90, HEIGHT - 90), (BOXES_PER_IMAGE, 2)).round(2)
        boxes = np.hstack([corner, (corner + rng.uniform(20, 90, corner.shape)).round(2)])
        entries = [
            {"bbox": box, "category": f"class {number % 3}", "iscrowd": 0, "id": place * BOXES_PER_IMAGE + number + 1}
            for number, box in enumerate(boxes.tolist())
        ]
        about = {"file_name": f"field_{place:06d}.jpg", "image_id": place + 1, "width": WIDTH, "height": HEIGHT}
        records.append(about | {"annotations": entries})
    form = format_of(format_name)
    assert form.write is not None
    form.write(Document(records, [f"class {number}" for number in range(3)]), path)


def measure(path: Path, format_name: str) -> dict[str, Any]:
    """One row: seconds of this process's CPU, MB of 10^6 bytes."""
    from cervical_d2.data.packed import PackedRecords
    from cervical_d2.datasets.formats import Source, format_of
    from cervical_d2.datasets.problems import Problems
    from cervical_d2.datasets.reading import collector_paused, finish

    imports = kernel_bytes("status", "VmRSS")
    source, problems, form = Source("set", None, path), Problems(), format_of(format_name)
    row: dict[str, Any] = {"format": format_name, "file": path.stat().st_size / 1e6}
    with collector_paused():
        document = timed(row, "read", lambda: form.read(source, problems))
        split = timed(row, "check", lambda: finish(document, source, form, problems))
    assert not problems
    records = split.document.records
    packed = timed(row, "pack", lambda: PackedRecords(records))
    # getrusage would count what the parent held before the exec.
    row["imports"], row["peak"] = imports / 1e6, kernel_bytes("status", "VmHWM") / 1e6
    row["held"] = packed.nbytes / 1e6
    row["annotations"] = split.boxes
    row["worker_list"], row["worker_packed"] = private_growth(records), private_growth(packed)
    return row


def timed(row: dict[str, Any], key: str, work: Callable[[], Any]) -> Any:
    """What `work` returns; its seconds of CPU go into `row[key]`, as other processes may share the cores."""
    start = time.process_time()
    result = work()
    row[key] = time.process_time() - start
    return result


def private_growth(records: Sequence[Any]) -> float:
    """MB that a forked worker has for itself after it has visited every box of `records`."""
    receiving, sending = os.pipe()
    if not (child := os.fork()):
        before = private_bytes()
        for record in records:
            for annotation in record["annotations"]:
                sum(annotation["bbox"])
        os.write(sending, str(private_bytes() - before).encode())
        os._exit(0)
    os.close(sending)
    with os.fdopen(receiving) as answer:
        grown = float(answer.read()) / 1e6
    os.waitpid(child, 0)
    return grown


def private_bytes() -> int:
    """Of this process, shared with no other (Linux)."""
    return kernel_bytes("smaps_rollup", "Private")


def kernel_bytes(file: str, start: str) -> int:
    """The sum of the lines of /proc/self/`file` that begin with `start`."""
    lines = Path("/proc/self", file).read_text().splitlines()
    return 1024 * sum(int(line.split()[1]) for line in lines if line.startswith(start))


def run(args: argparse.Namespace) -> None:
    """Write a file, measure it in a new process, print a row; once for each size and format."""
    from tqdm import tqdm

    print("| " + " | ".join(COLUMNS) + " |\n|" + " ---: |" * len(COLUMNS), flush=True)
    wanted = [(size, name) for size in args.annotations for name in args.formats]
    with tempfile.TemporaryDirectory() as folder:
        for size, name in tqdm(wanted, desc="measuring", unit="row", delay=3):
            path = Path(folder) / f"{size}{SUFFIXES[name]}"
            write_set(path, name, size)
            words = [sys.executable, __file__, "--row", str(path), "--formats", name]
            row = json.loads(subprocess.run(words, check=True, capture_output=True, text=True).stdout)
            cells = (row[key] if digits is None else f"{row[key]:,.{digits}f}" for key, digits in COLUMNS.values())
            print("| " + " | ".join(cells) + " |", flush=True)
            path.unlink()


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status."""
    args = parse_args(argv)
    if args.row:
        print(json.dumps(measure(args.row, args.formats[0])))
        return 0
    from cervical_d2.errors import run_main

    return run_main(lambda: run(args))


if __name__ == "__main__":
    sys.exit(main())
