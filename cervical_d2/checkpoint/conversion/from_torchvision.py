"""torchvision's detectors: background first, rounded anchors, frozen BatchNorm with an eps that is not in the file."""

from cervical_d2.checkpoint.conversion.amend import (
    DETECTRON2_EPS,
    State,
    background_last,
    size_major,
    without_background,
)
from cervical_d2.checkpoint.conversion.input_settings import STYLES, Settings
from cervical_d2.checkpoint.conversion.source import (
    RATIOS,
    RETINANET_LAYERS,
    RPN_LAYERS,
    Head,
    SourceCheckpoint,
    anchor_settings,
    p6_notes,
    pooler_settings,
)
from cervical_d2.errors import UserError

SIZES = (32, 64, 128, 256, 512)
COCO_ROWS = 91

NOTE_ROUNDING = (
    "torchvision rounds its anchors to whole pixels and takes strides as padded size // cells; Detectron2 does "
    "neither: corners move by up to half a pixel, centers of a coarse level by more where it does not divide the size"
)
NOTE_CLASSES = "torchvision's background row is moved or dropped, and of 91 COCO rows the ten 'N/A' are dropped"


def input_settings(source: SourceCheckpoint) -> Settings:
    """The input settings, which are the same for all of torchvision's weights."""
    return STYLES[source.options.style or "pytorch"]


def frozen_eps(source: SourceCheckpoint) -> float:
    """The eps of BatchNorm: 0 for COCO files, whose frozen BatchNorm used it; torch's default for trained BatchNorm.

    Raises:
        UserError: the file has frozen BatchNorm and another number of classes, so that eps is unknown.
    """
    if any(key.endswith("num_batches_tracked") for key in source.weights):
        return DETECTRON2_EPS
    boxes = source.weights.get("roi_heads.box_predictor.cls_score.bias", ())
    cells = source.weights.get("head.classification_head.cls_logits.bias", ())
    if len(boxes) == COCO_ROWS or len(cells) == 3 * len(RATIOS) * COCO_ROWS:
        return 0.0
    raise UserError(
        f"{source.where}: its BatchNorm was frozen, with an eps that is not in the file; add --bn-eps 0 if the "
        "training started from torchvision's COCO weights, --bn-eps 1e-5 if from ImageNet weights"
    )


def faster_rcnn(state: State, source: SourceCheckpoint) -> Head:
    """The head of a Faster R-CNN. torchvision's RoIAlign is not aligned and uses 2 x 2 samples."""
    sizes = [[float(size)] for size in SIZES]
    anchors = anchor_settings(sizes, RATIOS, state, RPN_LAYERS, source.where)
    settings = {**anchors, **pooler_settings(aligned=False, sampling_ratio=2)}
    return Head(background_last(state, "roi_heads.box_predictor."), settings, (NOTE_CLASSES, NOTE_ROUNDING))


def retinanet(state: State, source: SourceCheckpoint) -> Head:
    """The head of a RetinaNet, with anchor sizes truncated to whole pixels and anchors reordered."""
    sizes = [[float(int(size * 2 ** (octave / 3))) for octave in range(3)] for size in SIZES]
    anchors = anchor_settings(sizes, RATIOS, state, RETINANET_LAYERS, source.where)
    amended = without_background(state, "head.cls_score", len(sizes[0]) * len(RATIOS))
    amended = size_major(amended, RETINANET_LAYERS, len(RATIOS), len(sizes[0]))
    settings = {**anchors, "TEST.DETECTIONS_PER_IMAGE": 300}
    return Head(amended, settings, (NOTE_CLASSES, NOTE_ROUNDING, *p6_notes(state)))
