"""The training losses on a test split."""

import copy
import zlib
from typing import Any

import torch
from detectron2.utils import comm
from detectron2.utils.events import EventStorage
from torch.nn.modules.batchnorm import _BatchNorm

from cervical_d2.randomness import Stream, seed_torch


def validation_losses(model: torch.nn.Module, loader: Any, seed: int) -> dict[str, float]:
    """Mean training losses over the images of all processes, without changing weights or statistics.

    Works on a copy, because a forward pass in training mode may change buffers of the model. `model` must not be
    wrapped in DistributedDataParallel.
    """
    probe = copy.deepcopy(model).train()
    for module in probe.modules():
        if isinstance(module, _BatchNorm | torch.nn.Dropout):
            module.eval()
    sums: dict[str, float] = {}
    images = 0
    # A separate storage, because the heads would write their counts into the training's storage.
    with torch.no_grad(), EventStorage():
        for batch in loader:
            # Sample the same proposals each time, in whichever process the image is.
            seed_torch(seed, Stream.VALIDATION, zlib.crc32(str(batch[0]["image_id"]).encode()))
            images += 1
            for name, value in probe(batch).items():
                sums[name] = sums.get(name, 0.0) + value.item()
    gathered = comm.all_gather((sums, images))
    total = sum(count for _, count in gathered)
    names = next(part for part, count in gathered if count)  # a process may have no images
    means = {name: sum(part.get(name, 0.0) for part, _ in gathered) / total for name in names}
    return {**means, "total_loss": sum(means.values())}
