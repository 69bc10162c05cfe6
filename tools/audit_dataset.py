#!/usr/bin/env python
"""Look for leaks between splits and for cells boxed twice: tools/audit_dataset.py bccd_train bccd_val --output audit

Prints what is found and writes audit.json and a sheet of pictures of each kind. The status is 0 where nothing is found
and 2 where something is. docs/audits.md says what is looked for and how sure it is.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

AUDITS = ("overlaps", "groups", "boxes")
EXIT_FOUND = 2


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Answers --help without importing torch."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("datasets", nargs="+", metavar="NAME", help="splits: registered names or FILE.yaml:SPLIT")
    parser.add_argument("--output", required=True, type=Path, metavar="DIR")
    parser.add_argument("--within", action="store_true", help="report overlapping images of one split too")
    parser.add_argument("--only", nargs="+", choices=AUDITS, default=AUDITS, help="of the audits (default: all)")
    parser.add_argument("--lines", type=int, default=24, metavar="N", help="print the worst N of each (default 24)")
    return parser.parse_args(argv)


def run(args: argparse.Namespace) -> int:
    """Look, then write; returns the status."""
    from cervical_d2.curation.audits.audit import audit, report
    from cervical_d2.report.audit_sheets import write_audit

    found = audit(args.datasets, args.only, args.within)
    for line in report(found, args.lines):
        print(line)
    print("written:", ", ".join(str(path) for path in write_audit(found, args.datasets, args.output)))
    return EXIT_FOUND if any(found.values()) else 0


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status: 0, or 2 for findings or a user's mistake."""
    args = parse_args(argv)
    from cervical_d2.errors import run_main

    return run_main(lambda: run(args))


if __name__ == "__main__":
    sys.exit(main())
