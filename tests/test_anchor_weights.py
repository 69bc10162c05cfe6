"""Checkpoints that were trained with other anchors, or with the same."""

from pathlib import Path

import pytest
import torch
from detectron2.modeling import build_model
from small_model import RETINANET, SMALL
from test_anchor_generator import CLUSTERED, PAIRS
from test_trainer import train, trainer_of, weights

from cervical_d2.checkpoint.checkpointer import CervicalCheckpointer
from cervical_d2.checkpoint.conversion.convert import convert
from cervical_d2.checkpoint.conversion.input_settings import as_yaml
from cervical_d2.checkpoint.safe_load import load_file
from cervical_d2.config import load_config
from cervical_d2.engine.setup import prepare
from cervical_d2.engine.trainer import Trainer

OF_RPN = {f"proposal_generator.rpn_head.{name}.{leaf}" for name in ("objectness_logits", "anchor_deltas")
          for leaf in ("weight", "bias")}  # fmt: skip
OF_RETINANET = {f"head.{name}.{leaf}" for name in ("cls_score", "bbox_pred") for leaf in ("weight", "bias")}


def saved(folder: Path, *options: object) -> Path:
    """A checkpoint of a training in `folder`/first, whose weights are all 1 off what they begin with."""
    trainer = trainer_of(folder, *options, "OUTPUT_DIR", folder / "first")
    for value in trainer.model.state_dict().values():
        value += 1
    CervicalCheckpointer(trainer.model, str(folder / "first"), about=trainer.checkpointer.about).save("model_final")
    return folder / "first/model_final.pth"


def started(folder: Path, file: Path, *options: object) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """The weights of a new training before and after it loaded `file`."""
    trainer = trainer_of(folder, *options, "MODEL.WEIGHTS", file, "OUTPUT_DIR", folder / "second")
    before = weights(trainer)
    trainer.resume_or_load(resume=False)
    return before, weights(trainer)


def kept(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> set[str]:
    """The parameters that stayed as initialized."""
    return {name for name, value in after.items() if value.is_floating_point() and torch.equal(value, before[name])}


OTHER = ("MODEL.ANCHOR_GENERATOR.SIZES", [[9], [18], [36], [72]])
SAME = ("MODEL.ANCHOR_GENERATOR.SIZES", [[24.001], [48.0], [96.0], [192.0]])


@pytest.mark.parametrize(
    ("first", "second", "layers"),
    [
        ((), (), set()),
        ((), SAME, set()),  # rounded otherwise
        ((), OTHER, OF_RPN),
        ((), (*CLUSTERED, [[[9, 14], [15, 9.5], [7, 7]]] * 4), OF_RPN),  # the same number of anchors
        ((*CLUSTERED, PAIRS), (), OF_RPN),
        ((*CLUSTERED, PAIRS), (*CLUSTERED, PAIRS), set()),
        ((*CLUSTERED, PAIRS), (*CLUSTERED, PAIRS[::-1]), OF_RPN),
        (RETINANET, RETINANET, set()),
        (RETINANET, (*RETINANET, *CLUSTERED, [[[9, 14], [15, 9.5], [7, 7]]] * 4), OF_RETINANET),
    ],
)
def test_output_layers_are_reinitialized_for_other_anchors(tiny: Path, caplog, first, second, layers):
    file = saved(tiny, *SMALL, *first)
    with caplog.at_level("INFO", "detectron2.cervical_d2"):
        before, after = started(tiny, file, *SMALL, *second)
    assert kept(before, after) == layers
    told = [line for line in caplog.messages if "was trained with other anchors" in line]
    if layers:
        names = list(dict.fromkeys(name.rpartition(".")[0] for name in before if name in layers))
        assert told == [f"reinitialized {' and '.join(names)}: {file} was trained with other anchors"]
    else:
        assert told == []


@pytest.mark.parametrize(("options", "layers"), [((), set()), (OTHER, set()), ((*CLUSTERED, PAIRS), OF_RPN)])
def test_without_a_config_a_file_is_taken_to_have_sizes_times_ratios(tiny: Path, options, layers):
    file = saved(tiny, *SMALL, "MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS", [[0.5, 1.0]], *options)  # two, as PAIRS
    torch.save({"model": load_file(str(file))["model"]}, file)
    before, after = started(tiny, file, *SMALL, "MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS", [[0.5, 1.0]], *options)
    assert kept(before, after) == layers


def test_a_file_of_a_generator_that_is_not_known_is_as_one_without_a_config(tiny: Path):
    file = saved(tiny, *SMALL)
    loaded = load_file(str(file))
    about = loaded["cervical_d2"]
    about["config"] = about["config"].replace("NAME: DefaultAnchorGenerator", "NAME: TheirAnchorGenerator")
    assert "TheirAnchorGenerator" in about["config"]
    torch.save(loaded, file)
    assert kept(*started(tiny, file, *SMALL)) == set()
    assert kept(*started(tiny, file, *SMALL, *CLUSTERED, [[[9, 14], [15, 9.5], [7, 7]]] * 4)) == OF_RPN


def test_a_resume_keeps_them(tiny: Path, caplog):
    train(tiny, *SMALL, "SOLVER.MAX_ITER", 1)
    left = load_file(str(tiny / "run/model_final.pth"))["model"]
    trainer = trainer_of(tiny, *SMALL, *OTHER, resume=True)
    with caplog.at_level("INFO", "detectron2.cervical_d2"):
        trainer.resume_or_load(resume=True)
    assert trainer.checkpointer.resumed
    assert all(torch.equal(trainer.model.state_dict()[name], left[name]) for name in OF_RPN)
    assert "other anchors" not in caplog.text


def test_evaluation_keeps_them(tiny: Path, caplog):
    file = saved(tiny, *SMALL, *CLUSTERED, PAIRS)
    state = load_file(str(file))
    torch.save({"model": state["model"]}, tiny / "bare.pth")
    for weights_of, pairs in ((file, PAIRS), (file, PAIRS[::-1]), (tiny / "bare.pth", PAIRS)):
        words = (*SMALL, *CLUSTERED, pairs, "MODEL.WEIGHTS", weights_of)
        cfg = load_config(str(tiny / "config.yaml"), [str(word) for word in words])
        prepare(cfg, train=False)
        model = Trainer.build_model(cfg)
        with caplog.at_level("INFO", "detectron2.cervical_d2"):
            CervicalCheckpointer(model, cfg.OUTPUT_DIR, strict=True).resume_or_load(cfg.MODEL.WEIGHTS, resume=False)
        assert all(torch.equal(model.state_dict()[name], state["model"][name]) for name in OF_RPN)
    assert "other anchors" not in caplog.text


def test_the_settings_of_a_converted_run_hold_them(tmp_path: Path):
    words = ("MODEL.DEVICE", "cpu", *CLUSTERED, PAIRS)
    cfg = load_config("quick/demo.yaml", [str(word) for word in words])
    state = build_model(cfg).state_dict()
    converted = convert({"model": state, "cervical_d2": {"config": cfg.dump(), "classes": ["a"]}}, "run.pth")
    (tmp_path / "settings.yaml").write_text(as_yaml(converted.settings))
    generator = load_config(str(tmp_path / "settings.yaml")).MODEL.ANCHOR_GENERATOR
    assert generator.NAME == "ClusteredAnchorGenerator"
    assert [[list(pair) for pair in level] for level in generator.CLUSTERS] == PAIRS
