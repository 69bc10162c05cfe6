"""A classifier of single-cell images: a backbone, pooled features, fully connected layers.

N images; K classes; D channels of all pooled features together.
Source: 3cDe-Net (Wang et al. 2022), which evaluates its backbone as a classifier and initializes the detector with it.
"""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.modeling import META_ARCH_REGISTRY, Backbone, build_backbone
from detectron2.structures import ImageList
from detectron2.utils.events import get_event_storage
from fvcore.nn.weight_init import c2_xavier_fill
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from cervical_d2.errors import UserError

SCORES_STD = 0.01  # standard deviation of the last layer's initial weights, as in Detectron2's ResNet


@META_ARCH_REGISTRY.register()
class CellClassifier(nn.Module):
    """A cell classifier. `backbone.*` is named like a detector's bottom-up network, which can load its weights."""

    pixel_mean: Tensor
    pixel_std: Tensor
    class_weights: Tensor | None

    @configurable
    def __init__(
        self,
        *,
        backbone: Backbone,
        in_features: Sequence[str],
        classifier: nn.Module,
        pixel_mean: Sequence[float],
        pixel_std: Sequence[float],
        class_weights: Sequence[float] = (),
    ):
        """`in_features`: the features to pool, in channel order; `classifier`: maps (N, D) to scores (N, K);
        `class_weights`: K loss weights; empty: 1."""
        super().__init__()
        self.backbone, self.in_features, self.classifier = backbone, list(in_features), classifier
        for name, values in (("pixel_mean", pixel_mean), ("pixel_std", pixel_std)):
            self.register_buffer(name, torch.tensor(values, dtype=torch.float32).view(-1, 1, 1), persistent=False)
        weights = torch.tensor(class_weights, dtype=torch.float32) if class_weights else None
        self.register_buffer("class_weights", weights, persistent=False)

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """The arguments from a config. Raises `UserError` if the backbone does not have one of the features."""
        backbone = build_backbone(cfg)
        shapes = backbone.output_shape()
        features = list(cfg.MODEL.CLASSIFIER.IN_FEATURES) or list(shapes)[-1:]
        if unknown := [name for name in features if name not in shapes]:
            raise UserError(
                f"MODEL.CLASSIFIER.IN_FEATURES: no feature {unknown[0]!r}; the backbone has {', '.join(shapes)}"
            )
        return {
            "backbone": backbone,
            "in_features": features,
            "classifier": layers_from(cfg, sum(shapes[name].channels for name in features)),
            "pixel_mean": cfg.MODEL.PIXEL_MEAN,
            "pixel_std": cfg.MODEL.PIXEL_STD,
            "class_weights": cfg.MODEL.CLASSIFIER.CLASS_WEIGHTS,
        }

    def forward(self, batched_inputs: list[dict[str, Any]]) -> Any:
        """Compute the loss or the probabilities.

        Args:
            batched_inputs: N dicts with `image` (3, H, W) and, in training, `label` (class index).

        Returns:
            {"loss_cls": scalar} in training, otherwise N dicts with `scores` (K,), probabilities that sum to 1.
        """
        device = self.pixel_mean.device
        images = [(item["image"].to(device) - self.pixel_mean) / self.pixel_std for item in batched_inputs]
        batch = ImageList.from_tensors(images, self.backbone.size_divisibility).tensor
        features = self.backbone(batch)
        pooled = torch.cat([features[name].mean(dim=(2, 3)) for name in self.in_features], dim=1)
        scores = self.classifier(pooled).float()
        if not self.training:
            return [{"scores": row} for row in scores.softmax(dim=1)]
        label = torch.tensor([item["label"] for item in batched_inputs], device=device)
        correct = (scores.detach().argmax(dim=1) == label).float().mean().item()
        get_event_storage().put_scalar("train_accuracy", 100 * correct)
        return {"loss_cls": classification_loss(scores, label, self.class_weights)}


def classification_loss(scores: Tensor, label: Tensor, class_weights: Tensor | None = None) -> Tensor:
    """Cross-entropy, mean over N; `scores` (N, K), `label` (N,), `class_weights` (K,).

    With weights, the sum is also divided by N, where torch divides by the sum of the weights. This way the mean over
    parts of a batch, over ranks or over single images equals the loss of the whole.
    """
    return cross_entropy(scores, label, weight=class_weights, reduction="sum") / len(label)


def layers_from(cfg: CfgNode, channels: int) -> nn.Sequential:
    """Layers from `channels` to `MODEL.CLASSIFIER.NUM_CLASSES` scores. ReLU and dropout follow each layer of `FC_DIMS`.

    Raises:
        UserError: the dropout is not in [0, 1), or a layer has no channels.
    """
    head = cfg.MODEL.CLASSIFIER
    if not 0 <= head.DROPOUT < 1:
        raise UserError(f"MODEL.CLASSIFIER.DROPOUT is {head.DROPOUT}; allowed: 0 (off) to less than 1")
    if wrong := [size for size in head.FC_DIMS if type(size) is not int or size < 1]:
        raise UserError(f"MODEL.CLASSIFIER.FC_DIMS {tuple(head.FC_DIMS)}: {wrong[0]!r} is not a number of channels")
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for number, size in enumerate(head.FC_DIMS, start=1):
        layers[f"fc{number}"] = nn.Linear(channels, size)
        c2_xavier_fill(layers[f"fc{number}"])
        layers[f"relu{number}"] = nn.ReLU()
        layers[f"dropout{number}"] = nn.Dropout(head.DROPOUT)
        channels = size
    layers["scores"] = scores = nn.Linear(channels, head.NUM_CLASSES)
    nn.init.normal_(scores.weight, std=SCORES_STD)
    nn.init.zeros_(scores.bias)
    if head.DROPOUT_ON_SCORES:
        layers["dropout_scores"] = nn.Dropout(head.DROPOUT)
    return nn.Sequential(layers)
