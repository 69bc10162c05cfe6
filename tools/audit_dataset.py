#!/usr/bin/env python
"""Find leaks between splits and cells that are boxed twice.

cervical-d2 audit bccd_train bccd_val --output audit

Prints the findings and writes audit.json and a sheet of pictures of each kind. Exit codes: 0 nothing found, 2 findings
or invalid input. docs/audits.md says what is searched for and how reliably it is detected.
"""

import argparse
from pathlib import Path

AUDITS = ("overlaps", "groups", "boxes")
EXIT_FOUND = 2


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("datasets", nargs="+", metavar="NAME", help="splits: registered names or FILE.yaml:SPLIT")
    parser.add_argument("--output", required=True, type=Path, metavar="DIR")
    parser.add_argument("--within", action="store_true", help="report overlapping images of one split too")
    parser.add_argument("--only", nargs="+", choices=AUDITS, default=AUDITS, help="audits to run (default: all)")
    parser.add_argument("--lines", type="count", default=24, metavar="N", help="print the worst N of each (default 24)")


def run(args: argparse.Namespace) -> int:
    """Run the audits, then write the findings; returns the exit code."""
    from cervical_d2.curation.audits.audit import audit, report
    from cervical_d2.datasets.registry import each_split
    from cervical_d2.files import check_output
    from cervical_d2.report.audit_sheets import COMMAND, write_audit

    check_output(args.output, COMMAND)
    names = each_split(args.datasets)
    findings = audit(names, args.only, args.within)
    for line in report(findings, args.lines):
        print(line)
    print("written:", ", ".join(str(path) for path in write_audit(findings, names, args.output)))
    return EXIT_FOUND if any(findings.values()) else 0


if __name__ == "__main__":
    from cli import script

    script(__file__)
