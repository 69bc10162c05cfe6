"""Detectron2's own files and the ImageNet weights of its predecessor: only their input is to be found out."""

from cervical_d2.checkpoint.conversion.amend import State
from cervical_d2.checkpoint.conversion.input_settings import INPUT_KEYS, STYLES, Settings, by_pixels
from cervical_d2.checkpoint.conversion.key_maps import BOTTOM_UP
from cervical_d2.checkpoint.conversion.source import RATIOS, RETINANET_LAYERS, Head, SourceCheckpoint, anchor_settings
from cervical_d2.config import config_value, load_dumped_config
from cervical_d2.errors import UserError

GROUPED_CONVOLUTIONS = ("res2_0_branch2b.weight", "res2.0.conv2.weight", f"{BOTTOM_UP}res2.0.conv2.weight")
HEAD_KEYS = (
    "MODEL.ANCHOR_GENERATOR.NAME",
    "MODEL.ANCHOR_GENERATOR.CLUSTERS",
    "MODEL.ANCHOR_GENERATOR.SIZES",
    "MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS",
    "MODEL.ROI_BOX_HEAD.POOLER_TYPE",
    "MODEL.ROI_BOX_HEAD.POOLER_SAMPLING_RATIO",
)


def settings_of_run(source: SourceCheckpoint, keys: tuple[str, ...]) -> Settings:
    """From the config that our own files carry; {} for others."""
    about = source.part("cervical_d2")
    if "config" not in about:
        return {}
    cfg = load_dumped_config(about["config"], source.where)
    return {key: config_value(cfg, key) for key in keys}


def input_settings(source: SourceCheckpoint) -> Settings:
    """From its config, the statistics of pixels in old files, or whoever wrote it.

    Raises:
        UserError: nothing tells.
    """
    author = source.beside.get("__author__")
    if source.options.style:
        return STYLES[source.options.style]
    if told := settings_of_run(source, INPUT_KEYS):
        return told
    if "pixel_mean" in source.weights:
        return by_pixels(*(source.weights[key].flatten().tolist() for key in ("pixel_mean", "pixel_std")))
    if author == "torchvision":
        return STYLES["pytorch"]
    if author == "Detectron2 Model Zoo":
        return caffe2_settings(source)
    raise UserError(
        f"{source.where}: does not tell its input; say --style pytorch, caffe or resnext, by FORMAT and STRIDE_IN_1X1 "
        "of the config.yaml beside it: RGB and False, BGR and True, BGR and False"
    )


def caffe2_settings(source: SourceCheckpoint) -> Settings:
    """Those of the ResNets of MSRA, or of the ResNeXt of FAIR, which alone has groups."""
    (convolution,) = (source.weights[name] for name in GROUPED_CONVOLUTIONS if name in source.weights)
    plain = len(convolution) == convolution.shape[1]
    return STYLES[source.options.style or ("caffe" if plain else "resnext")]


def head(state: State, source: SourceCheckpoint) -> Head:
    """In the model zoo only the anchors of RetinaNet are others than in our configs, which round them."""
    if told := settings_of_run(source, HEAD_KEYS):
        return Head(state, told)
    if "head.cls_score.weight" not in state:
        return Head(state, {})
    sizes = [[round(size * 2 ** (octave / 3), 4) for octave in range(3)] for size in (32, 64, 128, 256, 512)]
    return Head(state, anchor_settings(sizes, RATIOS, state, RETINANET_LAYERS, source.where))
