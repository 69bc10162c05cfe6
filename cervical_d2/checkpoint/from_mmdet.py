"""mmdetection 2.x: what its config says of the input and the anchors, and the order of its anchors."""

from cervical_d2.checkpoint.amend import State, size_major
from cervical_d2.checkpoint.input_settings import Settings, mmdet_input
from cervical_d2.checkpoint.mmdet_meta import (
    Config,
    anchors,
    box_weights,
    check_version,
    part,
    read_config,
    refuse_legacy,
)
from cervical_d2.checkpoint.source import (
    RATIOS,
    RETINANET_LAYERS,
    RPN_LAYERS,
    Head,
    Source,
    anchor_settings,
    p6_notes,
    pooler_settings,
)

# The defaults of its configs, for a file that has lost its own.
FASTER_RCNN_ANCHORS = {"scales": [8], "ratios": RATIOS, "strides": [4, 8, 16, 32, 64]}
RETINANET_ANCHORS = {
    "octave_base_scale": 4,
    "scales_per_octave": 3,
    "ratios": RATIOS,
    "strides": [8, 16, 32, 64, 128],
}
RPN_STDS, BOX_STDS = (1.0, 1.0, 1.0, 1.0), (0.1, 0.1, 0.2, 0.2)

# Boxes are bounded below too; see docs/parity.md.
DECODING = {"MODEL.CLAMP_DELTAS": "both"}


def config_of(source: Source) -> Config:
    """Raises `UserError` for a config that asks for the boxes of 1.x."""
    config = read_config(source.part("meta"))
    refuse_legacy(config, source.where)
    return config


def input_settings(source: Source) -> Settings:
    """Raises `UserError` for another version, unless the backbone alone is wanted, which is the same in all."""
    if not (source.options.mmdet2 or source.options.backbone_only):
        check_version(source.part("meta"), source.where)
    return mmdet_input(config_of(source), source.options.style, source.where)


def faster_rcnn(state: State, source: Source) -> Head:
    """RoIAlign is aligned and samples densely there, unless the config says otherwise."""
    config, where = config_of(source), source.where
    sizes, ratios = anchors(part(config, "model.rpn_head.anchor_generator"), FASTER_RCNN_ANCHORS, where)
    roi = part(config, "model.roi_head.bbox_roi_extractor.roi_layer")
    coder = part(config, "model.roi_head.bbox_head.bbox_coder")
    settings = {
        **DECODING,
        **anchor_settings(sizes, ratios, state, RPN_LAYERS, where),
        **pooler_settings(roi.get("aligned", True), roi.get("sampling_ratio", 0)),
        "MODEL.RPN.BBOX_REG_WEIGHTS": box_weights(part(config, "model.rpn_head.bbox_coder"), RPN_STDS, where),
        "MODEL.ROI_BOX_HEAD.BBOX_REG_WEIGHTS": box_weights(coder, BOX_STDS, where),
    }
    return Head(size_major(state, RPN_LAYERS, len(ratios), len(sizes[0])), settings)


def retinanet(state: State, source: Source) -> Head:
    """Anchors ratio by ratio -> size by size."""
    config = config_of(source)
    sizes, ratios = anchors(part(config, "model.bbox_head.anchor_generator"), RETINANET_ANCHORS, source.where)
    coder = part(config, "model.bbox_head.bbox_coder")
    settings = {
        **DECODING,
        **anchor_settings(sizes, ratios, state, RETINANET_LAYERS, source.where),
        "MODEL.RETINANET.BBOX_REG_WEIGHTS": box_weights(coder, RPN_STDS, source.where),
        "MODEL.BACKBONE.NAME": "build_cervical_retinanet_resnet_fpn_backbone",  # it heeds the next key
        "MODEL.RETINANET.P7_RELU": part(config, "model.neck").get("relu_before_extra_convs", False),
    }
    amended = size_major(state, RETINANET_LAYERS, len(ratios), len(sizes[0]))
    return Head(amended, settings, p6_notes(state))
