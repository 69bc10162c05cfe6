"""Counts of trainable and frozen parameters."""

from collections import defaultdict

import torch
from tabulate import tabulate

from cervical_d2.checkpoint.load_report import module_of


def trainable(model: torch.nn.Module) -> int:
    """The number of trainable parameters."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def parameter_table(model: torch.nn.Module) -> str:
    """A table of the trainable and frozen parameters of each module, in millions, with totals."""
    counts: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for name, parameter in model.named_parameters():
        counts[module_of(name)][not parameter.requires_grad] += parameter.numel()
    # FrozenBatchNorm keeps weight and bias in buffers; they count as frozen parameters.
    for name, buffer in model.named_buffers():
        if name.endswith((".weight", ".bias")):
            counts[module_of(name)][1] += buffer.numel()
    counts["total"] = [sum(column) for column in zip(*counts.values(), strict=True)]
    rows = [(name, trainable / 1e6, frozen / 1e6) for name, (trainable, frozen) in counts.items()]
    return tabulate(rows, headers=("module", "trainable [M]", "frozen [M]"), floatfmt=".3f")
