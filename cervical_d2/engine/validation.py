"""The training losses on images that are not trained on."""

import copy
import zlib
from typing import Any

import torch
from detectron2.utils import comm
from detectron2.utils.events import EventStorage
from torch.nn.modules.batchnorm import _BatchNorm

from cervical_d2.randomness import Stream, seed_torch


def validation_losses(model: torch.nn.Module, loader: Any, seed: int) -> dict[str, float]:
    """Mean of the training losses over the images of all processes' `loader`, with statistics and weights as they are.

    Works on a copy, as a forward in training mode may move what the model keeps. `model` is not a data-parallel one.
    """
    probe = copy.deepcopy(model).train()
    for module in probe.modules():
        if isinstance(module, _BatchNorm | torch.nn.Dropout):
            module.eval()
    sums: dict[str, float] = {}
    images = 0
    # A storage of its own: the heads count their samples into the current one, which is the training's.
    with torch.no_grad(), EventStorage():
        for batch in loader:
            # The same proposals are sampled each time, whichever process has the image.
            seed_torch(seed, Stream.VALIDATION, zlib.crc32(str(batch[0]["image_id"]).encode()))
            images += 1
            for name, value in probe(batch).items():
                sums[name] = sums.get(name, 0.0) + value.item()
    gathered = comm.all_gather((sums, images))
    total = sum(count for _, count in gathered)
    names = next(part for part, count in gathered if count)  # a process may have had no image at all
    means = {name: sum(part.get(name, 0.0) for part, _ in gathered) / total for name in names}
    return {**means, "total_loss": sum(means.values())}
