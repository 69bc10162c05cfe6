"""One or several torchvision networks with concatenated features, as a backbone for the classifier.

Source: Nguyen et al. 2018, "Deep CNNs for microscopic image classification by exploiting transfer learning and feature
concatenation", which 3cDe-Net compares with.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from detectron2.config import CfgNode
from detectron2.layers import FrozenBatchNorm2d, ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, Backbone
from torchvision.models import get_model
from torchvision.models.feature_extraction import create_feature_extractor

from cervical_d2.errors import UserError
from cervical_d2.modeling.adapt import EVAL_NORM, adapting

POOLED = "pooled"
STRIDE = 32  # of every map before pooling


class Network(NamedTuple):
    """A torchvision network: the last node before pooling, its channels, and options for torchvision's builder."""

    last: str
    channels: int
    options: Mapping[str, Any] = MappingProxyType({})


NETWORKS = {
    # Without the auxiliary head.
    "inception_v3": Network("Mixed_7c", 2048, MappingProxyType({"aux_logits": False, "init_weights": True})),
    "resnet18": Network("layer4", 512),
    "resnet50": Network("layer4", 2048),
    "resnet101": Network("layer4", 2048),
    "resnet152": Network("layer4", 2048),
    "densenet121": Network("relu", 1024),
}


class TorchvisionNetworks(Backbone):
    """Returns {"pooled": (N, D, 1, 1)}: the pooled last maps, concatenated. Not usable with a pyramid."""

    def __init__(self, *, networks: Sequence[str], norm: str = "BN"):
        """`networks`: names of `NETWORKS`; `norm`: BN or FrozenBN.

        Raises:
            UserError: an unknown name, or none.
        """
        super().__init__()
        known = ", ".join(NETWORKS)
        if not networks or len({*networks}) < len(networks):
            raise UserError(f"MODEL.BACKBONE.NETWORKS {tuple(networks)}: name one or more, each once, of {known}")
        if unknown := [name for name in networks if name not in NETWORKS]:
            raise UserError(f"MODEL.BACKBONE.NETWORKS: no network {unknown[0]!r}; there are {known}")
        if norm not in ("BN", "FrozenBN"):
            raise UserError(f"MODEL.RESNETS.NORM {norm!r}: torchvision's networks have BN, FrozenBN and {EVAL_NORM}")
        for name in networks:
            whole = get_model(name, weights=None, **NETWORKS[name].options)
            self.add_module(name, create_feature_extractor(whole, {NETWORKS[name].last: POOLED}))
        if norm == "FrozenBN":
            FrozenBatchNorm2d.convert_frozen_batchnorm(self)  # in place
        self._out_features = [POOLED]
        self._out_feature_channels = {POOLED: sum(NETWORKS[name].channels for name in networks)}
        self._out_feature_strides = {POOLED: STRIDE}

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        """`x` (N, 3, H, W); the channels are in the order of the networks."""
        maps = [network(x)[POOLED] for _, network in self.named_children()]
        return {POOLED: torch.cat([each.mean(dim=(2, 3), keepdim=True) for each in maps], dim=1)}


@BACKBONE_REGISTRY.register()
@adapting
def build_torchvision_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> TorchvisionNetworks:
    """The networks of `MODEL.BACKBONE.NETWORKS`. Each network is one stage for `FREEZE_STAGES`."""
    return TorchvisionNetworks(networks=cfg.MODEL.BACKBONE.NETWORKS, norm=cfg.MODEL.RESNETS.NORM)
