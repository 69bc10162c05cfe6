"""Our configuration keys in one table, and the defaults of Detectron2's that we change.

The keys of the augmentations stand with them, in `data/augmentation.py`, and are added to the table from there.
"""

from typing import Any, NamedTuple

from cervical_d2.stages import DC_RESNET_59


class Key(NamedTuple):
    """One configuration key: its default, what it means and in which unit, and the allowed values if they are few."""

    name: str
    default: Any
    meaning: str
    choices: tuple[Any, ...] = ()


_, BLOCKS, MID, OUT, GROUPS, STRIDES, DILATIONS = zip(*DC_RESNET_59, strict=True)

KEYS = [
    Key(
        "DATALOADER.CLASS_REPEATS",
        (),
        "a classifier's: how often an image of each class comes in an epoch, in their order, as (20, 10); empty: once",
    ),
    Key("DATASETS.FOLDS", 0, "a classifier's: TRAIN is divided into so many parts, each once to test; 0: it is not"),
    Key("DATASETS.RATIOS", (), "a classifier's: shares of TRAIN for train, val and test, as (0.8, 0.1, 0.1)"),
    Key("DATASETS.DIVISION_SEED", 0, "of FOLDS and RATIOS, whatever SEED is: models are compared on the same parts"),
    Key(
        "DATASETS.LEAK_COPIES_ACROSS_SPLITS",
        False,
        "augment before dividing, as 3cDe-Net printed: rotated copies of one cell are in training and in test",
    ),
    Key("INPUT.SIDE", 224, "a classifier's: width and height in px that every image is resized to"),
    Key(
        "INPUT.RESIZE_ROUNDING",
        "detectron2",
        "detectron2 scales in two steps, mmdetection once, which rounds otherwise for some sizes",
        ("detectron2", "mmdetection"),
    ),
    Key("INPUT.RESIZE_BY", "pillow", "pillow averages the pixels that it skips, opencv does not", ("pillow", "opencv")),
    Key("INPUT.MIN_BOX", 0.0, "boxes narrower or lower, in px of their image, are not learned; mmdetection: 1"),
    Key("INPUT.MIN_VISIBLE", 0.0, "share of a cell that crop and rotation must leave in view; of less none is learned"),
    Key(
        "MODEL.ANCHOR_GENERATOR.CLUSTERS",
        (),
        "ClusteredAnchorGenerator's: a list of [width, height] in px a level; empty: SIZES times ASPECT_RATIOS",
    ),
    Key(
        "MODEL.ANCHOR_GENERATOR.PADDED",
        True,
        "anchors in the padding of the batch are background; False: only in an image's own, to a multiple of 32 px",
    ),
    Key(
        "MODEL.BACKBONE.FREEZE_STAGES",
        (),
        "stages that are not trained, such as (stem, res2), in place of FREEZE_AT; empty: FREEZE_AT counts",
    ),
    Key(
        "MODEL.BACKBONE.NETWORKS",
        (),
        "networks of build_torchvision_backbone, as (inception_v3, resnet152): their features side by side",
    ),
    Key("MODEL.CHANNELS_LAST", False, "keep activations as NHWC in memory; the same numbers, often faster"),
    Key(
        "MODEL.CLAMP_DELTAS",
        "above",
        "a side is decoded to at most 1000 / 16 times its anchor's; both: to at least 16 / 1000 too, as mmdetection",
        ("above", "both"),
    ),
    Key("MODEL.CLASSIFIER.NUM_CLASSES", 2, "set by the data"),
    Key(
        "MODEL.CLASSIFIER.IN_FEATURES",
        (),
        "features of the backbone that are pooled and put side by side; empty: the last",
    ),
    Key("MODEL.CLASSIFIER.FC_DIMS", (), "channels of the fully connected layers before that of the scores"),
    Key("MODEL.CLASSIFIER.DROPOUT", 0.5, "probability of the dropout behind each of FC_DIMS"),
    Key(
        "MODEL.CLASSIFIER.DROPOUT_ON_SCORES",
        False,
        "dropout behind the layer of the scores too: 'each fully connected layer is followed by' one, to the letter",
    ),
    Key(
        "MODEL.CLASSIFIER.CLASS_WEIGHTS",
        (),
        "factors of the classes' losses, in their order; ('balanced',): inverse to their presentations; empty: 1",
    ),
    Key("MODEL.DC_RESNET.BLOCKS", BLOCKS, "bottlenecks of each stage, from res2 on; as many stages as values"),
    Key("MODEL.DC_RESNET.MID_CHANNELS", MID, "channels of the 3x3 convolutions, by stage; a multiple of GROUPS"),
    Key("MODEL.DC_RESNET.OUT_CHANNELS", OUT, "channels at the exit, by stage"),
    Key("MODEL.DC_RESNET.GROUPS", GROUPS, "groups of the 3x3 convolutions, by stage"),
    Key("MODEL.DC_RESNET.STRIDES", STRIDES, "stride of the first block, by stage"),
    Key("MODEL.DC_RESNET.DILATIONS", DILATIONS, "dilation of the 3x3 convolutions, by stage; above 1: STRIDES 1"),
    Key(
        "MODEL.RESNETS.ZERO_INIT_RESIDUAL",
        False,
        "of random weights: the last norm of each residual block begins at 0, so that the block begins as its shortcut",
    ),
    Key("MODEL.RETINANET.BBOX_REG_LOSS_WEIGHT", 1.0, "factor of the box loss; MODEL.RPN and ROI_BOX_HEAD have one"),
    Key(
        "MODEL.RETINANET.LOSS_NORMALIZER",
        "average",
        "losses over the moving average of the positive anchors, as Detectron2, or those of the batch, as mmdetection",
        ("average", "batch"),
    ),
    Key("MODEL.RETINANET.P7_RELU", True, "P7 is made of relu(P6), as Detectron2 does; False: of P6, as mmdetection"),
    Key(
        "MODEL.RPN.LOSS_NORMALIZER",
        "slots",
        "losses over the anchors that were to be sampled, as Detectron2, or over those that were, as mmdetection",
        ("slots", "samples"),
    ),
    Key("MODEL.RPN.LOW_QUALITY_FLOOR", 0.0, "IoU without which a cell's best anchor is not positive; mmdetection: 0.3"),
    Key(
        "MODEL.UNLABELED_SCORE",
        0.0,
        "background that the model scores this high is not punished: for sparsely labeled sets; 0: all is",
    ),
    Key("SOLVER.MAX_EPOCHS", 0.0, "length of the training in epochs; 0: SOLVER.MAX_ITER counts"),
    Key("SOLVER.EPOCH_STEPS", (), "epochs after which the learning rate drops; empty: SOLVER.STEPS counts"),
    Key("SOLVER.LR_FLOOR", 0.0, "drops that would put the learning rate below are left out; 0: none is"),
    Key("SOLVER.REFERENCE_BATCH", 0, "images per batch for which BASE_LR and the iterations are meant; 0: as given"),
    Key("SOLVER.ACCUMULATE", 1, "parts of a batch that pass through the model one after the other, to save memory"),
    Key("SOLVER.CLIP_NORM", 0.0, "largest norm of all gradients together; 0: any. CLIP_GRADIENTS clips each tensor's"),
    Key("SOLVER.EMA_DECAY", 0.0, "evaluate and keep the moving average of the weights, 0.999 say; 0: none"),
    Key("SOLVER.CHECKPOINT_KEEP", 3, "numbered checkpoints to keep, model_best and model_final beside them; 0: all"),
    Key(
        "SOLVER.AMP.DTYPE",
        "auto",
        "auto: float16 on CUDA, bfloat16 on a CPU that has it",
        ("auto", "float16", "bfloat16"),
    ),
    Key("TEST.EVAL_EPOCHS", 0.0, "epochs between evaluations; 0: TEST.EVAL_PERIOD (iterations) counts"),
    Key(
        "TEST.BEST_METRIC",
        "bbox/AP50",
        "figure of which model_best.pth has the best value: losses, calibration/ECE and severity/cost are minimized, "
        "all others maximized",
    ),
    Key(
        "TEST.EARLY_STOP_PATIENCE",
        0,
        "evaluations without a better BEST_METRIC after which to stop; 0: never",
    ),
    Key("TEST.SCORE", 0.5, "score from which a detection counts in figures at one threshold, and is shown"),
    Key("TEST.SEVERITY", "", "YAML file of lesions and costs, as cervical_d2/evaluation/severity.yaml; empty: that"),
    Key(
        "TEST.REPORT",
        False,
        "write OUTPUT_DIR/report (`cervical-d2 report`) after training and --eval-only",
    ),
    Key("TEST.VAL_LOSS", True, "compute the losses on the first test split at each evaluation"),
]

# Where our defaults differ from upstream's, and why.
DEFAULTS = {
    "SEED": 0,  # every run can be repeated; -1 draws a seed and writes it into the run's config
    "DATALOADER.FILTER_EMPTY_ANNOTATIONS": False,  # fields without an abnormal cell are most of a smear
}
