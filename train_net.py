#!/usr/bin/env python
"""Train and evaluate, as with every Detectron2 project: the same as `cervical-d2 train` (tools/train.py)."""

import sys

from tools.cli import run_command

if __name__ == "__main__":
    sys.exit(run_command("train", sys.argv[1:], "train_net.py"))
