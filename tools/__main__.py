"""python -m cervical_d2_tools: the same as cervical-d2, for launchers that start Python modules."""

import sys

from .cli import main

if __name__ == "__main__":
    sys.exit(main(prog=f"python -m {__package__}"))
