"""The trainer: Detectron2's, with what its users miss."""

import logging
import weakref
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.engine import DefaultTrainer, create_ddp_model, hooks
from detectron2.engine.train_loop import TrainerBase
from detectron2.evaluation import inference_on_dataset
from detectron2.modeling import build_model
from detectron2.utils import comm
from detectron2.utils.events import EventStorage, EventWriter, JSONWriter, TensorboardXWriter

from cervical_d2.checkpoint.checkpointer import CervicalCheckpointer
from cervical_d2.data.build import build_test_loader, build_train_loader
from cervical_d2.data.registry import class_names
from cervical_d2.engine.hooks import Checkpoint, Evaluate, ProgressLine, validation_losses
from cervical_d2.engine.parameters import parameter_table
from cervical_d2.engine.step import SeededStep
from cervical_d2.evaluation.evaluator import CervicalCOCOEvaluator

logger = logging.getLogger("detectron2.cervical_d2")

WRITE_PERIOD = 20  # iterations between lines of progress, as upstream


class Trainer(DefaultTrainer):
    """Trains what a prepared config (`cervical_d2.engine.setup.prepare`) describes, and evaluates it."""

    def __init__(self, cfg: CfgNode):
        # DefaultTrainer's own __init__ would build upstream's step, loader and checkpointer first.
        TrainerBase.__init__(self)
        self.cfg = cfg
        self.start_iter, self.max_iter = 0, cfg.SOLVER.MAX_ITER
        model = self.build_model(cfg)
        optimizer = self.build_optimizer(cfg, model)
        self.train_loader = self.build_train_loader(cfg)
        self._trainer = SeededStep(
            create_ddp_model(model, broadcast_buffers=False),
            self.train_loader,
            optimizer,
            seed=cfg.SEED,
            device=cfg.MODEL.DEVICE,
            amp=amp_dtype(cfg),
        )
        logger.info("forward passes in %s", amp_dtype(cfg) or torch.float32)
        self.scheduler = self.build_lr_scheduler(cfg, optimizer)
        about = {"config": cfg.dump(), "classes": class_names(cfg.DATASETS.TRAIN)}
        self.checkpointer = CervicalCheckpointer(model, cfg.OUTPUT_DIR, about=about, trainer=weakref.proxy(self))
        self.register_hooks(self.build_hooks())
        self._last_eval_results: OrderedDict[str, Any] = OrderedDict()

    @classmethod
    def build_model(cls, cfg: CfgNode) -> torch.nn.Module:
        """The model, in the memory format of the config; a table of its parameters goes to the log."""
        model = build_model(cfg)
        if cfg.MODEL.CHANNELS_LAST:
            model = model.to(memory_format=torch.channels_last)
        logger.info("parameters:\n%s", parameter_table(model))
        return model

    @classmethod
    def build_train_loader(cls, cfg: CfgNode) -> Any:
        """Batches that depend on (seed, iteration) alone."""
        return build_train_loader(cfg)

    @classmethod
    def build_test_loader(cls, cfg: CfgNode, dataset_name: str) -> Any:
        """Every image of the split once."""
        return build_test_loader(cfg, dataset_name)

    @classmethod
    def build_evaluator(cls, cfg: CfgNode, dataset_name: str) -> CervicalCOCOEvaluator:
        """COCO's figures and the papers'; writes into OUTPUT_DIR/evaluation/SPLIT."""
        output = f"{cfg.OUTPUT_DIR}/evaluation/{dataset_name}"
        return CervicalCOCOEvaluator(dataset_name, output, max_dets_per_image=max(100, cfg.TEST.DETECTIONS_PER_IMAGE))

    @classmethod
    def test(cls, cfg: CfgNode, model: torch.nn.Module, evaluators: Any = None) -> OrderedDict[str, Any]:
        """Results by split; those of a single split stand alone, as upstream returns them."""
        results: OrderedDict[str, Any] = OrderedDict()
        for number, name in enumerate(cfg.DATASETS.TEST):
            evaluator = evaluators[number] if evaluators else cls.build_evaluator(cfg, name)
            results[name] = inference_on_dataset(model, cls.build_test_loader(cfg, name), evaluator)
        return next(iter(results.values())) if len(results) == 1 else results

    def build_hooks(self) -> list[Any]:
        """Timing, schedule, evaluation, then the checkpoint (which holds the best metric), then the writers."""
        cfg = self.cfg
        save: Callable[[str], None] = self.checkpointer.save if comm.is_main_process() else _nothing
        evaluate = Evaluate(
            cfg.TEST.EVAL_PERIOD,
            self.evaluate,
            metric=cfg.TEST.BEST_METRIC,
            patience=cfg.TEST.EARLY_STOP_PATIENCE,
            save=save,
        )
        built = [hooks.IterationTimer(), hooks.LRScheduler(), evaluate if cfg.DATASETS.TEST else None]
        built.append(Checkpoint(cfg.SOLVER.CHECKPOINT_PERIOD, save))
        if comm.is_main_process():
            built.append(hooks.PeriodicWriter(self.build_writers(), period=WRITE_PERIOD))
        return built

    def build_writers(self) -> list[EventWriter]:
        """A line in the log, JSON lines in metrics.json, TensorBoard."""
        output = self.cfg.OUTPUT_DIR
        per_epoch = self.train_loader.plan.images / self.cfg.SOLVER.IMS_PER_BATCH
        line = ProgressLine(lambda: self.max_iter, per_epoch)
        return [
            line,
            JSONWriter(f"{output}/metrics.json", window_size=WRITE_PERIOD),
            TensorboardXWriter(output),
        ]

    def evaluate(self) -> OrderedDict[str, Any]:
        """The figures of `test`, and the validation losses of the first test split."""
        cfg = self.cfg
        results = self._last_eval_results = self.test(cfg, self.model)
        if not cfg.TEST.VAL_LOSS:
            return results
        loader = self.build_test_loader(cfg, cfg.DATASETS.TEST[0])
        return OrderedDict(results, validation=validation_losses(self.model, loader, cfg.SEED))

    def resume_or_load(self, resume: bool = True) -> None:
        """Go on from the last checkpoint in OUTPUT_DIR if `resume` and there is one; else load MODEL.WEIGHTS."""
        self.checkpointer.resume_or_load(self.cfg.MODEL.WEIGHTS, resume=resume)
        if resume and self.checkpointer.has_checkpoint():
            self.start_iter = self.iter + 1
        self.train_loader.start = self.start_iter

    def train(self) -> OrderedDict[str, Any]:
        """Train to the end, or to where early stopping puts it; return the last evaluation's results.

        As upstream's loop, but one that can end early and leaves a `UserError` to be told in one line.
        """
        if self.start_iter >= self.max_iter:
            logger.info("nothing left to train: %d iterations are done; evaluating", self.start_iter)
            return self.test(self.cfg, self.model)
        self.iter = self.start_iter
        with EventStorage(self.start_iter) as self.storage:
            try:
                self.before_train()
                while self.iter < self.max_iter:
                    self.before_step()
                    self.run_step()
                    self.after_step()
                    self.iter += 1
            finally:
                self.after_train()
        return self._last_eval_results

    def state_dict(self) -> dict[str, Any]:
        """Iteration, hooks, optimizer: the same on both versions of Detectron2."""
        return {**TrainerBase.state_dict(self), "_trainer": self._trainer.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """What `state_dict` returned."""
        TrainerBase.load_state_dict(self, state_dict)
        self._trainer.load_state_dict(state_dict["_trainer"])


def amp_dtype(cfg: CfgNode) -> torch.dtype | None:
    """The precision of mixed-precision training, None when it is off."""
    if not cfg.SOLVER.AMP.ENABLED:
        return None
    if cfg.SOLVER.AMP.DTYPE != "auto":
        return getattr(torch, cfg.SOLVER.AMP.DTYPE)
    if torch.device(cfg.MODEL.DEVICE).type == "cuda":
        return torch.float16
    return torch.bfloat16 if cpu_computes_bfloat16() else None


def cpu_computes_bfloat16() -> bool:
    """Whether this processor multiplies bfloat16 itself; where it does not, emulation is slower than float32."""
    probes = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, probe, bool)() for probe in probes)


def _nothing(name: str) -> None:
    """What the ranks beside the first do for a checkpoint."""
