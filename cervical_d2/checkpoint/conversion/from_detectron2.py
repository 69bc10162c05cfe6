"""Detectron2's own files, and ImageNet weights of its predecessor. Only their input settings must be determined."""

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
    """The values of `keys` from the config in a checkpoint of ours; {} for other files."""
    about = source.part("cervical_d2")
    if "config" not in about:
        return {}
    cfg = load_dumped_config(about["config"], source.where)
    return {key: config_value(cfg, key) for key in keys}


def input_settings(source: SourceCheckpoint) -> Settings:
    """The input settings, from the config, the pixel statistics in old files, or the author of the file.

    Raises:
        UserError: the file has none of them.
    """
    author = source.beside.get("__author__")
    if source.options.style:
        return STYLES[source.options.style]
    if settings := settings_of_run(source, INPUT_KEYS):
        return settings
    if "pixel_mean" in source.weights:
        return by_pixels(*(source.weights[key].flatten().tolist() for key in ("pixel_mean", "pixel_std")))
    if author == "torchvision":
        return STYLES["pytorch"]
    if author == "Detectron2 Model Zoo":
        return caffe2_settings(source)
    raise UserError(
        f"{source.where}: has no input settings; add --style pytorch, caffe or resnext, by FORMAT and STRIDE_IN_1X1 "
        "of the config.yaml beside it: RGB and False, BGR and True, BGR and False"
    )


def caffe2_settings(source: SourceCheckpoint) -> Settings:
    """The input settings of MSRA's ResNets, or of FAIR's ResNeXt if the convolutions have groups."""
    (convolution,) = (source.weights[name] for name in GROUPED_CONVOLUTIONS if name in source.weights)
    plain = len(convolution) == convolution.shape[1]
    return STYLES[source.options.style or ("caffe" if plain else "resnext")]


def head(state: State, source: SourceCheckpoint) -> Head:
    """The head settings. In the model zoo, only RetinaNet's anchors differ from our configs, which round them."""
    if settings := settings_of_run(source, HEAD_KEYS):
        return Head(state, settings)
    if "head.cls_score.weight" not in state:
        return Head(state, {})
    sizes = [[round(size * 2 ** (octave / 3), 4) for octave in range(3)] for size in (32, 64, 128, 256, 512)]
    return Head(state, anchor_settings(sizes, RATIOS, state, RETINANET_LAYERS, source.where))
