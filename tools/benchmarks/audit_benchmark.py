#!/usr/bin/env python
"""Measure the search for overlaps: plant copies among a dataset's fields and count what is found.

tools/benchmarks/audit_benchmark.py cric_train cric_val --count 40
"""

import argparse
import sys
from collections.abc import Sequence


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Answers --help without importing torch."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("datasets", nargs="+", metavar="NAME", help="splits: registered names or FILE.yaml:SPLIT")
    parser.add_argument("--count", type=int, default=40, metavar="N", help="fields copied of each kind (default 40)")
    return parser.parse_args(argv)


def run(args: argparse.Namespace) -> None:
    """Plant, look, print a row for each kind."""
    import resource
    import tempfile
    from pathlib import Path

    from detectron2.data import DatasetCatalog
    from planted import benchmark

    from cervical_d2.datasets.registry import resolve_all

    files = [record["file_name"] for name in resolve_all(args.datasets) for record in DatasetCatalog.get(name)]
    print(f"{'planted among ' + str(len(files)) + ' fields':32} found   false pairs   share, worst error   seconds")
    with tempfile.TemporaryDirectory() as folder:
        for row in benchmark(sorted(files), args.count, Path(folder)):
            found = f"{row.found}/{row.planted}"
            print(
                f"{row.kind:32} {found:7} {row.false:<13} {row.share_error:<20.3f} {row.seconds:.0f}",
                flush=True,
            )
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.1f} GiB")


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status: 0, or 2 for a user's mistake."""
    args = parse_args(argv)
    from cervical_d2.errors import run_main

    return run_main(lambda: run(args))


if __name__ == "__main__":
    sys.exit(main())
