"""Training on a few small images: the guarantees of a run, not how well it learns."""

import copy
import json
import multiprocessing
from pathlib import Path

import pytest
import torch
from conftest import listing

import cervical_d2.engine.trainer as trainer_module
from cervical_d2.config import load_config
from cervical_d2.data.build import train_records
from cervical_d2.engine.parameters import parameter_table
from cervical_d2.engine.setup import prepare
from cervical_d2.engine.trainer import Trainer, amp_dtype
from cervical_d2.errors import UserError


def trainer_of(folder: Path, *options: object, resume: bool = False) -> Trainer:
    cfg = load_config(str(folder / "config.yaml"), [str(word) for word in options])
    prepare(cfg, resume=resume)
    Path(cfg.OUTPUT_DIR).mkdir(exist_ok=True, parents=True)
    torch.manual_seed(0)
    return Trainer(cfg)


def train(folder: Path, *options: object, resume: bool = False) -> Trainer:
    trainer = trainer_of(folder, *options, resume=resume)
    trainer.resume_or_load(resume=resume)
    trainer.train()
    return trainer


def weights(trainer: Trainer) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in trainer.model.state_dict().items()}


def differing(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> list[str]:
    return [name for name in a if not torch.equal(a[name], b[name])]


def metric_lines(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.json").read_text().splitlines()]


def test_a_run_leaves_what_it_promises(tiny: Path):
    trainer = train(tiny, "SOLVER.MAX_ITER", 4)
    run = tiny / "run"
    files = {path.name for path in run.iterdir()}
    assert {"metrics.json", "last_checkpoint", "model_0000001.pth", "model_final.pth", "model_best.pth"} <= files
    assert any(name.startswith("events.out.tfevents") for name in files)
    assert not [name for name in files if "partial" in name]
    assert (run / "last_checkpoint").read_text() == "model_final.pth"
    line = metric_lines(run)[-1]
    assert line["iteration"] == 3
    assert {"total_loss", "validation/total_loss", "validation/loss_cls", "bbox/AP50", "bbox/AR", "lr"} <= set(line)
    assert {"AP", "AP50", "mAP", "AR", "AP-ascus"} <= set(trainer._last_eval_results["bbox"])
    saved = torch.load(run / "model_final.pth", weights_only=True)
    assert saved["cervical_d2"]["classes"] == ["ascus", "hsil"]
    assert "MAX_ITER: 4" in saved["cervical_d2"]["config"]


@pytest.mark.parametrize("arch", ["rcnn", "retinanet"])
def test_number_of_classes_comes_from_the_data(tiny: Path, arch):
    cfg = load_config("retinanet_R_50_FPN.yaml" if arch == "retinanet" else str(tiny / "config.yaml"))
    cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = (f"{tiny}/data.yaml:train",), (f"{tiny}/data.yaml:val",)
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = cfg.MODEL.RETINANET.NUM_CLASSES = 80
    prepare(cfg)
    model = Trainer.build_model(cfg)
    if arch == "retinanet":
        assert model.head.cls_score.out_channels == 2 * 9  # classes x anchors a place
    else:
        assert model.roi_heads.box_predictor.cls_score.out_features == 3  # classes and background


def test_images_without_boxes_are_trained_on_unless_filtered(tiny: Path):
    cfg = load_config(str(tiny / "config.yaml"))
    prepare(cfg)
    assert [bool(record["annotations"]) for record in train_records(cfg)] == [False] + [True] * 5
    cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS = True
    assert len(train_records(cfg)) == 5


def test_the_same_seed_gives_the_same_weights_with_any_workers(tiny: Path):
    first = weights(train(tiny, "OUTPUT_DIR", tiny / "a"))
    second = trainer_of(tiny, "OUTPUT_DIR", tiny / "b", "DATALOADER.NUM_WORKERS", 2)
    second.resume_or_load(resume=False)
    torch.rand(13)  # state that others leave behind does not reach the sampling of anchors and proposals
    second.train()
    assert multiprocessing.active_children() == []  # while the trainer lives
    again = weights(second)
    other = weights(train(tiny, "OUTPUT_DIR", tiny / "c", "SEED", 1))
    assert differing(first, again) == []
    assert len(differing(first, other)) > 50


def test_resumed_run_ends_in_the_same_weights(tiny: Path):
    whole = train(tiny, "OUTPUT_DIR", tiny / "whole")
    broken = trainer_of(tiny, "OUTPUT_DIR", tiny / "broken")
    broken.resume_or_load(resume=False)
    broken.max_iter = 2  # as if killed there: the schedule is that of four iterations
    broken.train()
    resumed = train(tiny, "OUTPUT_DIR", tiny / "broken", resume=True)
    assert resumed.start_iter == 2
    assert differing(weights(whole), weights(resumed)) == []
    momenta = [state["momentum_buffer"] for state in resumed._trainer.optimizer.state.values()]
    expected = [state["momentum_buffer"] for state in whole._trainer.optimizer.state.values()]
    assert all(map(torch.equal, momenta, expected))


def test_finished_run_is_evaluated_again_and_left_alone(tiny: Path):
    done = train(tiny)
    before = {path: path.stat().st_mtime_ns for path in (tiny / "run").glob("*.pth")}
    again = trainer_of(tiny, resume=True)
    again.resume_or_load(resume=True)
    assert repr(again.train()) == repr(done._last_eval_results)  # NaN is not equal to itself, but written the same
    assert {path: path.stat().st_mtime_ns for path in (tiny / "run").glob("*.pth")} == before


def test_non_finite_loss_stops_before_the_weights_change(tiny: Path):
    trainer = trainer_of(tiny)
    trainer.resume_or_load(resume=False)
    with torch.no_grad():
        trainer.model.roi_heads.box_predictor.cls_score.bias.fill_(float("nan"))
    before = weights(trainer)
    with pytest.raises(UserError) as error:
        trainer.train()
    named = [sample["file_name"] for sample in next(iter(trainer.train_loader))]
    assert all(name in str(error.value) for name in [*named, "iteration 0", "loss_cls nan", "--resume"])
    changed = [name for name in differing(before, weights(trainer)) if "running_" not in name and "num_b" not in name]
    assert changed == ["roi_heads.box_predictor.cls_score.bias"]  # NaN differs from itself; nothing else moved
    assert not (tiny / "run/model_final.pth").exists()


def test_frozen_and_trainable_parameters_are_counted(tiny: Path):
    trainer = trainer_of(tiny, "MODEL.BACKBONE.FREEZE_AT", 2)
    table = {line.split()[0]: line.split()[1:] for line in parameter_table(trainer.model).splitlines()[2:]}
    # Stem: a 7x7 convolution of 3 -> 64 (9408) and 64 scales and shifts, all frozen.
    assert table["backbone.bottom_up.stem"] == ["0.000", "0.010"]
    trainable = sum(p.numel() for p in trainer.model.parameters() if p.requires_grad)
    assert float(table["total"][0]) == pytest.approx(trainable / 1e6, abs=5e-4)


def test_evaluation_leaves_a_run_where_it_was(tiny: Path):
    """Weights after training do not depend on how often it was evaluated."""
    often = weights(train(tiny, "OUTPUT_DIR", tiny / "often", "TEST.EVAL_PERIOD", 1))
    never = weights(train(tiny, "OUTPUT_DIR", tiny / "never", "TEST.EVAL_PERIOD", 0, "TEST.VAL_LOSS", False))
    assert differing(often, never) == []


def test_bfloat16_trains_on_the_cpu(tiny: Path):
    trainer = train(tiny, "SOLVER.AMP.ENABLED", True, "SOLVER.AMP.DTYPE", "bfloat16", "SOLVER.MAX_ITER", 2)
    assert amp_dtype(trainer.cfg) is torch.bfloat16
    assert all(value.dtype is not torch.bfloat16 for value in trainer.model.parameters())


@pytest.mark.parametrize(("has", "expected"), [(True, torch.bfloat16), (False, None)])
def test_auto_precision_asks_the_processor(monkeypatch, has, expected):
    monkeypatch.setattr(trainer_module, "cpu_computes_bfloat16", lambda: has)
    cfg = load_config("", ["SOLVER.AMP.ENABLED", "True", "MODEL.DEVICE", "cpu"])
    assert amp_dtype(cfg) is expected
    cfg.MODEL.DEVICE = "cuda"
    assert amp_dtype(cfg) is torch.float16
    cfg.SOLVER.AMP.ENABLED = False
    assert amp_dtype(cfg) is None


def test_run_in_the_folder_of_another_is_refused(tiny: Path):
    train(tiny, "SOLVER.MAX_ITER", 2)
    before = listing(tiny / "run")
    with pytest.raises(UserError, match="holds a run; go on with --resume"):
        trainer_of(tiny)
    assert listing(tiny / "run") == before


def test_prepare_refuses_what_cannot_run(tiny: Path):
    cfg = load_config(str(tiny / "config.yaml"))
    for change, words in (
        ({"TRAIN": ()}, "DATASETS.TRAIN is empty"),
        ({"TEST": ("bccd_test",)}, "use splits of one dataset"),
    ):
        wrong = copy.deepcopy(cfg)
        for name, value in change.items():
            wrong.DATASETS[name] = value
        with pytest.raises(UserError, match=words):
            prepare(wrong)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("amp", [False, True])
def test_training_on_cuda(tiny: Path, amp):
    trainer = train(tiny, "MODEL.DEVICE", "cuda", "SOLVER.AMP.ENABLED", amp)
    assert next(trainer.model.parameters()).is_cuda
    assert (tiny / "run/model_final.pth").exists()


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices (NCCL)")
def test_training_on_two_gpus(tiny: Path):
    from conftest import command

    done = command("train_net.py", "--config-file", tiny / "config.yaml", "--num-gpus", 2, "MODEL.DEVICE", "cuda")
    assert done.returncode == 0, done.stderr
    assert (tiny / "run/model_final.pth").exists()


def test_proposals_that_are_not_finite_are_told_with_the_files(tiny: Path, monkeypatch):
    """Upstream raises FloatingPointError in the forward pass of whichever process meets them first."""
    trainer = trainer_of(tiny)
    trainer.resume_or_load(resume=False)

    def diverged(batch):
        raise FloatingPointError("Predicted boxes or scores contain Inf/NaN. Training has diverged.")

    monkeypatch.setattr(trainer.model, "forward", diverged)
    with pytest.raises(
        UserError, match=r"not finite at iteration 0 \(Predicted boxes .*\) on .*train\d\.png.*--resume"
    ):
        trainer.train()
