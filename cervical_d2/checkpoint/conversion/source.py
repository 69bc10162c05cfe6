"""Input and output of the conversions: a checkpoint as read, options, and a converted head."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from cervical_d2.checkpoint.conversion.amend import State
from cervical_d2.checkpoint.conversion.input_settings import Settings
from cervical_d2.errors import UserError


class Options(NamedTuple):
    """User options: convert only the backbone; `style` of `STYLES`; eps of BatchNorm; the file is mmdetection 2.x."""

    backbone_only: bool = False
    style: str = ""
    bn_eps: float | None = None
    mmdet2: bool = False


class SourceCheckpoint(NamedTuple):
    """A checkpoint file: its weights with their original names, the other contents, and the options."""

    where: str
    weights: State
    beside: Mapping[str, Any]
    options: Options

    def part(self, name: str) -> Mapping[str, Any]:
        """The dictionary of that name beside the weights, or {}."""
        content = self.beside.get(name)
        return content if isinstance(content, Mapping) else {}


class Head(NamedTuple):
    """All weights with Detectron2's names and order, the head settings, and notes on differences that remain."""

    state: State
    settings: Settings
    notes: tuple[str, ...] = ()


RATIOS = [0.5, 1.0, 2.0]
RETINANET_LAYERS = ("head.cls_score", "head.bbox_pred")
RPN_LAYERS = ("proposal_generator.rpn_head.objectness_logits", "proposal_generator.rpn_head.anchor_deltas")

NOTE_P6 = "P6 reads P5 there and res5 in Detectron2: its weights are of another shape and will be reinitialized"


def anchor_settings(
    sizes: list[list[float]], ratios: list[float], state: State, layers: tuple[str, str], where: str
) -> Settings:
    """The anchor settings with these `sizes` (pixels) per level and `ratios` (h / w).

    Raises:
        UserError: the layers (scores, boxes) have another number of anchors.
    """
    actual, expected = len(state[f"{layers[1]}.weight"]) / 4, len(sizes[0]) * len(ratios)
    if actual != expected:
        raise UserError(
            f"{where}: {actual:g} anchors per cell, where {expected} were expected; custom anchors are supported only "
            "if an mmdetection config in the file describes them; --backbone-only takes the backbone"
        )
    return {"MODEL.ANCHOR_GENERATOR.SIZES": sizes, "MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS": [ratios]}


def pooler_settings(aligned: bool, sampling_ratio: int) -> Settings:
    """Settings of RoIAlign. Detectron2 calls the aligned version V2; `sampling_ratio` 0 adapts to the bin size."""
    kind = "ROIAlignV2" if aligned else "ROIAlign"
    return {"MODEL.ROI_BOX_HEAD.POOLER_TYPE": kind, "MODEL.ROI_BOX_HEAD.POOLER_SAMPLING_RATIO": sampling_ratio}


def p6_notes(state: State) -> tuple[str, ...]:
    """A note if the weights of P6 do not fit Detectron2's P6."""
    weight = state.get("backbone.top_block.p6.weight")
    other = weight is not None and weight.shape[1] == len(state["backbone.fpn_output5.weight"])
    return (NOTE_P6,) if other else ()
