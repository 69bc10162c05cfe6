"""BatchNorm whose statistics stay what they are while its scale and shift are trained."""

from torch import nn


class EvalBN(nn.BatchNorm2d):
    """BatchNorm that normalizes by its stored statistics in training too; weight and bias are parameters.

    Two images a batch are too few to estimate statistics from, yet scale and shift can follow the new data.
    Detectron2's FrozenBN trains neither, its BN moves both. Source: Xu et al. 2022, Tables 5 and 6, whose numbers of
    trainable parameters fit this alone (mmdetection's `norm_eval=True, requires_grad=True`).
    """

    def train(self, mode: bool = True) -> "EvalBN":
        """Whatever is asked for, the statistics are not updated."""
        super().train(False)
        return self


def with_eval_norm(module: nn.Module) -> nn.Module:
    """`module`, every BatchNorm in it replaced by an `EvalBN` with the same parameters and statistics, in place."""
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d | nn.SyncBatchNorm):
            setattr(module, name, _eval_norm(child))
        else:
            with_eval_norm(child)
    return module


def _eval_norm(norm: nn.BatchNorm2d | nn.SyncBatchNorm) -> EvalBN:
    replacement = EvalBN(norm.num_features, norm.eps, norm.momentum).eval()
    replacement.load_state_dict(norm.state_dict())
    return replacement
