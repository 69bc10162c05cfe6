"""Our config keys in one table, and the Detectron2 defaults that we change.

The keys of the augmentations are defined in `data/augmentation.py`, which adds them to this table.
"""

from typing import Any, NamedTuple

from cervical_d2.stages import DC_RESNET_59


class Key(NamedTuple):
    """One config key: its default, its meaning with the unit, and the allowed values if there are only a few."""

    name: str
    default: Any
    meaning: str
    choices: tuple[Any, ...] = ()


_, BLOCKS, MID, OUT, GROUPS, STRIDES, DILATIONS = zip(*DC_RESNET_59, strict=True)

KEYS = [
    Key(
        "DATALOADER.CLASS_REPEATS",
        (),
        "classifier: repeats of each image per epoch, by class, such as (20, 10); empty: once",
    ),
    Key("DATASETS.FOLDS", 0, "classifier: number of cross-validation folds that TRAIN is split into; 0: off"),
    Key("DATASETS.RATIOS", (), "classifier: shares of TRAIN for train, val and test, such as (0.8, 0.1, 0.1)"),
    Key("DATASETS.DIVISION_SEED", 0, "seed of FOLDS and RATIOS; independent of SEED, so all models get the same parts"),
    Key(
        "DATASETS.LEAK_COPIES_ACROSS_SPLITS",
        False,
        "augment before splitting, as in 3cDe-Net: rotated copies of one cell are in both training and test",
    ),
    Key("INPUT.SIDE", 224, "classifier: width and height in px that every image is resized to"),
    Key(
        "INPUT.RESIZE_ROUNDING",
        "detectron2",
        "detectron2 scales in two steps, mmdetection in one; some sizes differ by a pixel",
        ("detectron2", "mmdetection"),
    ),
    Key("INPUT.RESIZE_BY", "pillow", "pillow anti-aliases when it shrinks, opencv does not", ("pillow", "opencv")),
    Key("INPUT.MIN_BOX", 0.0, "smallest width and height in image px of boxes used for training; mmdetection: 1"),
    Key("INPUT.MIN_VISIBLE", 0.0, "a cell is used for training if crop and rotation leave this share of it visible"),
    Key(
        "MODEL.ANCHOR_GENERATOR.CLUSTERS",
        (),
        "ClusteredAnchorGenerator: one list of [width, height] in px per level; empty: SIZES times ASPECT_RATIOS",
    ),
    Key(
        "MODEL.ANCHOR_GENERATOR.PADDED",
        True,
        "anchors in the batch padding count as background; False: only those in the image's padding to 32 px",
    ),
    Key(
        "MODEL.BACKBONE.FREEZE_STAGES",
        (),
        "stages to freeze, such as (stem, res2), instead of FREEZE_AT; empty: FREEZE_AT applies",
    ),
    Key(
        "MODEL.BACKBONE.NETWORKS",
        (),
        "networks of build_torchvision_backbone, such as (inception_v3, resnet152); features are concatenated",
    ),
    Key("MODEL.CHANNELS_LAST", False, "store activations as NHWC; the same results, often faster"),
    Key(
        "MODEL.CLAMP_DELTAS",
        "above",
        "above: decoded sides are at most 1000/16 of the anchor's; both: also at least 16/1000, as in mmdetection",
        ("above", "both"),
    ),
    Key("MODEL.CLASSIFIER.NUM_CLASSES", 2, "number of classes; set from the data"),
    Key(
        "MODEL.CLASSIFIER.IN_FEATURES",
        (),
        "backbone features that are pooled and concatenated; empty: the last one",
    ),
    Key("MODEL.CLASSIFIER.FC_DIMS", (), "channels of the fully connected layers before the output layer"),
    Key("MODEL.CLASSIFIER.DROPOUT", 0.5, "dropout probability after each layer of FC_DIMS"),
    Key(
        "MODEL.CLASSIFIER.DROPOUT_ON_SCORES",
        False,
        "dropout after the output layer too, as 3cDe-Net literally says",
    ),
    Key(
        "MODEL.CLASSIFIER.CLASS_WEIGHTS",
        (),
        "loss weight of each class; ('balanced',): inverse to its number of training samples; empty: 1",
    ),
    Key("MODEL.DC_RESNET.BLOCKS", BLOCKS, "bottlenecks per stage, from res2 on; one value per stage"),
    Key("MODEL.DC_RESNET.MID_CHANNELS", MID, "channels of the 3x3 convolutions, per stage; a multiple of GROUPS"),
    Key("MODEL.DC_RESNET.OUT_CHANNELS", OUT, "output channels, per stage"),
    Key("MODEL.DC_RESNET.GROUPS", GROUPS, "groups of the 3x3 convolutions, per stage"),
    Key("MODEL.DC_RESNET.STRIDES", STRIDES, "stride of the first block, per stage"),
    Key("MODEL.DC_RESNET.DILATIONS", DILATIONS, "dilation of the 3x3 convolutions, per stage; above 1 needs STRIDES 1"),
    Key(
        "MODEL.RESNETS.ZERO_INIT_RESIDUAL",
        False,
        "initialize the last norm of each residual block with 0, so that only its shortcut is active at first",
    ),
    Key("MODEL.RETINANET.BBOX_REG_LOSS_WEIGHT", 1.0, "weight of the box loss, as MODEL.RPN and ROI_BOX_HEAD have one"),
    Key(
        "MODEL.RETINANET.LOSS_NORMALIZER",
        "average",
        "average: divide losses by the moving average of positive anchors; batch: by the batch's, as mmdetection does",
        ("average", "batch"),
    ),
    Key("MODEL.RETINANET.P7_RELU", True, "compute P7 from relu(P6), as in Detectron2; False: from P6 (mmdetection)"),
    Key(
        "MODEL.RPN.LOSS_NORMALIZER",
        "slots",
        "slots: divide losses by the planned number of anchors; samples: by the number sampled, as mmdetection does",
        ("slots", "samples"),
    ),
    Key("MODEL.RPN.LOW_QUALITY_FLOOR", 0.0, "least IoU at which a cell's best anchor is positive; mmdetection: 0.3"),
    Key(
        "MODEL.UNLABELED_SCORE",
        0.0,
        "for sparse labels: background that the model scores at least this high is ignored; 0: off",
    ),
    Key("SOLVER.MAX_EPOCHS", 0.0, "training length in epochs; 0: SOLVER.MAX_ITER applies"),
    Key("SOLVER.EPOCH_STEPS", (), "epochs after which the learning rate drops; empty: SOLVER.STEPS applies"),
    Key("SOLVER.LR_FLOOR", 0.0, "skip drops that would take the learning rate below this value; 0: off"),
    Key("SOLVER.REFERENCE_BATCH", 0, "batch size that BASE_LR and iterations refer to (linear scaling); 0: no scaling"),
    Key("SOLVER.ACCUMULATE", 1, "gradient accumulation: number of parts that a batch is split into, to save memory"),
    Key("SOLVER.CLIP_NORM", 0.0, "largest norm of all gradients together; 0: off. CLIP_GRADIENTS clips per tensor"),
    Key("SOLVER.EMA_DECAY", 0.0, "decay of a moving average of the weights, such as 0.999, used to evaluate; 0: off"),
    Key("SOLVER.CHECKPOINT_KEEP", 3, "numbered checkpoints to keep besides model_best and model_final; 0: all"),
    Key(
        "SOLVER.AMP.DTYPE",
        "auto",
        "auto: float16 on CUDA, bfloat16 on a CPU that supports it",
        ("auto", "float16", "bfloat16"),
    ),
    Key("TEST.EVAL_EPOCHS", 0.0, "epochs between evaluations; 0: TEST.EVAL_PERIOD (iterations) applies"),
    Key(
        "TEST.BEST_METRIC",
        "bbox/AP50",
        "metric that selects model_best.pth; losses, calibration/ECE and severity/cost: the lower the better",
    ),
    Key(
        "TEST.EARLY_STOP_PATIENCE",
        0,
        "stop after this many evaluations without a better BEST_METRIC; 0: never",
    ),
    Key("TEST.SCORE", 0.5, "score threshold for detections in pictures and in metrics at a single threshold"),
    Key("TEST.SEVERITY", "", "YAML file of lesion grades and costs; empty: cervical_d2/evaluation/severity.yaml"),
    Key(
        "TEST.REPORT",
        False,
        "write OUTPUT_DIR/report (see `cervical-d2 report`) after training and --eval-only",
    ),
    Key("TEST.VAL_LOSS", True, "compute the losses on the first test split at each evaluation"),
]

# Detectron2 defaults that we change, and why.
DEFAULTS = {
    "SEED": 0,  # makes every run repeatable; -1 draws a seed and writes it into the run's config
    "DATALOADER.FILTER_EMPTY_ANNOTATIONS": False,  # most fields of a smear have no abnormal cell
}
