"""A checkpoint as it was read, and what the conversions hand on."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from cervical_d2.checkpoint.conversion.amend import State
from cervical_d2.checkpoint.conversion.input_settings import Settings
from cervical_d2.errors import UserError


class Options(NamedTuple):
    """What a user wants or knows better: `style` of `STYLES`; eps of BatchNorm; that it is of mmdetection 2.x."""

    backbone_only: bool = False
    style: str = ""
    bn_eps: float | None = None
    mmdet2: bool = False


class SourceCheckpoint(NamedTuple):
    """A file that was read: its weights in their own names, and what came with them."""

    where: str
    weights: State
    beside: Mapping[str, Any]
    options: Options

    def part(self, name: str) -> Mapping[str, Any]:
        """The dictionary of that name beside the weights, {} if there is none."""
        found = self.beside.get(name)
        return found if isinstance(found, Mapping) else {}


class Head(NamedTuple):
    """All weights in Detectron2's names and order, the settings of the heads, and what differs whatever is set."""

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
    """The settings of so many `sizes` (pixels) a level and `ratios` (h / w).

    Raises:
        UserError: the layers (scores, boxes) are made for another number of anchors.
    """
    found, expected = len(state[f"{layers[1]}.weight"]) / 4, len(sizes[0]) * len(ratios)
    if found != expected:
        raise UserError(
            f"{where}: {found:g} anchors a cell, where {expected} were expected; of anchors of one's own only those "
            "are read that an mmdetection config in the file describes: --backbone-only takes the backbone"
        )
    return {"MODEL.ANCHOR_GENERATOR.SIZES": sizes, "MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS": [ratios]}


def pooler_settings(aligned: bool, sampling_ratio: int) -> Settings:
    """Of RoIAlign: Detectron2 calls the aligned one V2; 0 samples as many points as a bin has pixels."""
    kind = "ROIAlignV2" if aligned else "ROIAlign"
    return {"MODEL.ROI_BOX_HEAD.POOLER_TYPE": kind, "MODEL.ROI_BOX_HEAD.POOLER_SAMPLING_RATIO": sampling_ratio}


def p6_notes(state: State) -> tuple[str, ...]:
    """Whether the pyramid's P6 can be Detectron2's."""
    weight = state.get("backbone.top_block.p6.weight")
    other = weight is not None and weight.shape[1] == len(state["backbone.fpn_output5.weight"])
    return (NOTE_P6,) if other else ()
