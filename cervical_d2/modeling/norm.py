"""BatchNorm with fixed statistics and trainable scale and shift."""

from detectron2.layers import FrozenBatchNorm2d
from torch import nn

BATCH_NORMS = (nn.BatchNorm2d, nn.SyncBatchNorm)


class EvalBN(nn.BatchNorm2d):
    """BatchNorm that uses its stored statistics in training too; weight and bias are trainable.

    Two images per batch are too few to estimate statistics, but scale and shift can adapt to the new data. Detectron2's
    FrozenBN trains neither; its BN updates both. Source: Xu et al. 2022, Tables 5 and 6, whose numbers of trainable
    parameters fit only this norm (mmdetection's `norm_eval=True, requires_grad=True`).
    """

    def train(self, mode: bool = True) -> "EvalBN":
        """Stay in evaluation mode, so that the statistics are not updated."""
        super().train(False)
        return self


def with_eval_norm(module: nn.Module) -> nn.Module:
    """Replace every BatchNorm in `module` by an `EvalBN` with the same parameters and statistics, in place."""
    for name, child in module.named_children():
        if isinstance(child, BATCH_NORMS):
            setattr(module, name, _eval_norm(child))
        else:
            with_eval_norm(child)
    return module


def _eval_norm(norm: nn.BatchNorm2d | nn.SyncBatchNorm) -> EvalBN:
    device = norm.running_mean.device  # type: ignore[union-attr]
    replacement = EvalBN(norm.num_features, norm.eps, norm.momentum, norm.affine, device=device).eval()
    replacement.load_state_dict(norm.state_dict())
    return replacement


def has_batch_norm(module: nn.Module) -> bool:
    """Whether `module` holds a BatchNorm2d, frozen or not."""
    return any(isinstance(child, (*BATCH_NORMS, FrozenBatchNorm2d)) for child in module.modules())


def other_norms(module: nn.Module) -> list[str]:
    """The kinds of norms in `module` that neither `EvalBN` nor Detectron2's FrozenBN can replace."""
    kinds = set()
    for child in module.modules():
        is_known = isinstance(child, (*BATCH_NORMS, FrozenBatchNorm2d))
        has_statistics = getattr(child, "running_mean", None) is not None
        if is_known != has_statistics:
            kinds.add(type(child).__name__ + ("" if has_statistics else " without statistics"))
    return sorted(kinds)
