"""The table of checkpoint layouts that can be converted: how each is recognized, renamed and completed."""

from collections.abc import Callable
from typing import NamedTuple

from cervical_d2.checkpoint.conversion import from_detectron2, from_mmdet, from_torchvision, key_maps
from cervical_d2.checkpoint.conversion.amend import DETECTRON2_EPS, State, with_statistics
from cervical_d2.checkpoint.conversion.input_settings import Settings
from cervical_d2.checkpoint.conversion.source import Head, SourceCheckpoint


class Layout(NamedTuple):
    """A kind of checkpoint.

    `known_by`: modules by which it is recognized; `parts`: its name tables, the backbone's first; `settings`: returns
    the input settings; `head`: converts the heads, after renaming; `dropped`: pattern of keys without a counterpart;
    `eps`: returns the eps of its BatchNorm; `backbone`: completes the renamed weights; `detectron2`: usable as it is.
    """

    name: str
    known_by: tuple[str, ...]
    parts: tuple[key_maps.Part, ...]
    settings: Callable[[SourceCheckpoint], Settings]
    head: Callable[[State, SourceCheckpoint], Head] = lambda state, source: Head(state, {})
    dropped: str = r"[^\s\S]"
    eps: Callable[[SourceCheckpoint], float] = lambda source: DETECTRON2_EPS
    backbone: Callable[[State], State] = lambda state: state
    detectron2: bool = False


# The first layout that matches is used. The last two have only a backbone.
LAYOUTS = (
    Layout(
        "Detectron2 detector with FPN",
        ("backbone.bottom_up.stem.conv1", "backbone.fpn_output5"),
        (key_maps.Part("", "", key_maps.UNCHANGED),),
        from_detectron2.input_settings,
        from_detectron2.head,
        dropped=r"pixel_(mean|std)|.*anchor_generator\..*|.*_extra_state",
        detectron2=True,
    ),
    Layout(
        "Detectron2 backbone",
        ("stem.conv1", "res2.0.conv1"),
        (key_maps.Part("", key_maps.BOTTOM_UP, key_maps.DETECTRON2_RESNET),),
        from_detectron2.input_settings,
        dropped=r"(stem\.)?(fc|linear)\..*",
        detectron2=True,
    ),
    Layout(
        "Caffe2 ImageNet ResNet",
        ("res_conv1_bn", "res2_0_branch2a"),
        (key_maps.Part("", key_maps.BOTTOM_UP, key_maps.CAFFE2_RESNET),),
        from_detectron2.caffe2_settings,
        dropped=r"(fc1000|pred)\..*|conv1\.bias|.*_momentum",  # Detectron2 ignores that bias too
        backbone=with_statistics,
    ),
    Layout(
        "mmdetection 2.x Faster R-CNN",
        ("backbone.layer1.0.conv1", "rpn_head.rpn_cls", "roi_head.bbox_head.fc_cls"),
        key_maps.MMDET_FASTER_RCNN,
        from_mmdet.input_settings,
        from_mmdet.faster_rcnn,
    ),
    Layout(
        "mmdetection 2.x RetinaNet",
        ("backbone.layer1.0.conv1", "bbox_head.retina_cls"),
        key_maps.MMDET_RETINANET,
        from_mmdet.input_settings,
        from_mmdet.retinanet,
    ),
    Layout(
        "torchvision Faster R-CNN",
        ("backbone.body.layer1.0.conv1", "rpn.head.cls_logits", "roi_heads.box_predictor.cls_score"),
        key_maps.TORCHVISION_FASTER_RCNN,
        from_torchvision.input_settings,
        from_torchvision.faster_rcnn,
        eps=from_torchvision.frozen_eps,
    ),
    Layout(
        "torchvision RetinaNet",
        ("backbone.body.layer1.0.conv1", "head.classification_head.cls_logits"),
        key_maps.TORCHVISION_RETINANET,
        from_torchvision.input_settings,
        from_torchvision.retinanet,
        eps=from_torchvision.frozen_eps,
    ),
    Layout(
        "torchvision classification ResNet",
        ("conv1", "layer1.0.conv1"),
        (key_maps.Part("", key_maps.BOTTOM_UP, key_maps.RESNET),),
        from_torchvision.input_settings,
        dropped=r"fc\..*",
    ),
    Layout(
        "mmdetection detector, the backbone alone",
        ("backbone.layer1.0.conv1",),
        key_maps.MMDET_BACKBONE,
        from_mmdet.input_settings,
    ),
    Layout(
        "torchvision detector, the backbone alone",
        ("backbone.body.layer1.0.conv1",),
        key_maps.TORCHVISION_BACKBONE,
        from_torchvision.input_settings,
        eps=from_torchvision.frozen_eps,
    ),
)
