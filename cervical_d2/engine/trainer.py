"""The trainer: Detectron2's, extended by exact resume, best checkpoint, early stopping and validation losses."""

import contextlib
import logging
import weakref
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.engine import DefaultTrainer, hooks
from detectron2.engine.train_loop import TrainerBase
from detectron2.evaluation import DatasetEvaluator, inference_on_dataset
from detectron2.utils import comm
from detectron2.utils.events import EventStorage

from cervical_d2.checkpoint.checkpointer import CervicalCheckpointer
from cervical_d2.datasets.registry import class_names
from cervical_d2.engine.average import WeightAverage
from cervical_d2.engine.hooks import Evaluate, SaveCheckpoint, StopOnSignal
from cervical_d2.engine.metrics import Metrics, ProgressLine
from cervical_d2.engine.parameters import parameter_table
from cervical_d2.engine.processes.ranks import data_parallel, unwrap_ddp
from cervical_d2.engine.processes.signals import StopRequest
from cervical_d2.engine.run_folder import RunFolder
from cervical_d2.engine.step import SeededStep
from cervical_d2.engine.tasks import task_of
from cervical_d2.engine.validation import validation_losses
from cervical_d2.modeling import build_model

logger = logging.getLogger("detectron2.cervical_d2")


class Trainer(DefaultTrainer):
    """Trains what a prepared config (`cervical_d2.engine.setup.prepare`) describes, and evaluates it."""

    def __init__(self, cfg: CfgNode):
        # DefaultTrainer.__init__ would build Detectron2's own step, loader and checkpointer first.
        TrainerBase.__init__(self)
        self.cfg = cfg
        self.start_iter, self.max_iter = 0, cfg.SOLVER.MAX_ITER
        self.stop = StopRequest()
        model = self.build_model(cfg)
        optimizer = self.build_optimizer(cfg, model)
        self.train_loader = self.build_train_loader(cfg)
        self._trainer = SeededStep(
            data_parallel(model),
            self.train_loader,
            optimizer,
            seed=cfg.SEED,
            device=cfg.MODEL.DEVICE,
            amp=amp_dtype(cfg),
            accumulate=cfg.SOLVER.ACCUMULATE,
            max_norm=cfg.SOLVER.CLIP_NORM,
            stop=lambda: self.stop.signum,
        )
        logger.info("forward passes in %s", amp_dtype(cfg) or torch.float32)
        self.scheduler = self.build_lr_scheduler(cfg, optimizer)
        parts: dict[str, Any] = {"trainer": weakref.proxy(self)}
        self.average = WeightAverage(model, cfg.SOLVER.EMA_DECAY) if cfg.SOLVER.EMA_DECAY else None
        if self.average:
            parts["ema"] = self.average
        run = RunFolder(cfg.OUTPUT_DIR).run_id
        about = {"config": cfg.dump(), "classes": class_names(cfg.DATASETS.TRAIN), **({"run": run} if run else {})}
        keep = cfg.SOLVER.CHECKPOINT_KEEP
        self.checkpointer = CervicalCheckpointer(model, cfg.OUTPUT_DIR, about=about, keep=keep, **parts)
        self.register_hooks(self.build_hooks())
        self._last_eval_results: OrderedDict[str, Any] = OrderedDict()
        self._evaluated = False  # in this process

    @classmethod
    def build_model(cls, cfg: CfgNode) -> torch.nn.Module:
        """Build the model in the memory format of the config, and log a table of its parameters."""
        model = build_model(cfg)
        if cfg.MODEL.CHANNELS_LAST:
            model = model.to(memory_format=torch.channels_last)
        logger.info("parameters:\n%s", parameter_table(model))
        return model

    @classmethod
    def build_train_loader(cls, cfg: CfgNode) -> Any:
        """A loader whose batches depend only on (seed, iteration)."""
        return task_of(cfg).train_loader(cfg)

    @classmethod
    def build_test_loader(cls, cfg: CfgNode, dataset_name: str) -> Any:
        """A loader of every image of the split, once."""
        return task_of(cfg).test_loader(cfg, dataset_name)

    @classmethod
    def build_evaluator(cls, cfg: CfgNode, dataset_name: str) -> DatasetEvaluator:
        """The evaluator of the model's task. It writes into OUTPUT_DIR/evaluation/SPLIT."""
        return task_of(cfg).evaluator(cfg, dataset_name)

    @classmethod
    def test(cls, cfg: CfgNode, model: torch.nn.Module, evaluators: Any = None) -> OrderedDict[str, Any]:
        """Results by split. With a single split, its results are returned directly, as in Detectron2."""
        results: OrderedDict[str, Any] = OrderedDict()
        for number, name in enumerate(cfg.DATASETS.TEST):
            evaluator = evaluators[number] if evaluators else cls.build_evaluator(cfg, name)
            results[name] = inference_on_dataset(model, cls.build_test_loader(cfg, name), evaluator)
        return next(iter(results.values())) if len(results) == 1 else results

    def build_hooks(self) -> list[Any]:
        """Timing, schedule, stop on signal, evaluation, metrics, checkpoint. The checkpoint stores the state of all."""
        cfg = self.cfg
        save: Callable[[str], None] = self.checkpointer.save if comm.is_main_process() else _nothing
        evaluate = Evaluate(
            cfg.TEST.EVAL_PERIOD,
            self.evaluate,
            metric=cfg.TEST.BEST_METRIC,
            patience=cfg.TEST.EARLY_STOP_PATIENCE,
            save=save,
            secure=save,
        )
        checkpoint = SaveCheckpoint(cfg.SOLVER.CHECKPOINT_PERIOD, save)
        per_epoch = task_of(cfg).epoch(self.train_loader.plan) / cfg.SOLVER.IMS_PER_BATCH
        self.metrics = Metrics(
            Path(cfg.OUTPUT_DIR) if comm.is_main_process() else None,
            ProgressLine(lambda: self.max_iter, per_epoch),
            also=evaluate.due if cfg.DATASETS.TEST else checkpoint.due,
        )
        stop = StopOnSignal(lambda: self._trainer.stop_signal, save)
        timing = [hooks.IterationTimer(), hooks.LRScheduler()]
        return [*timing, stop, evaluate if cfg.DATASETS.TEST else None, self.metrics, checkpoint]

    def evaluate(self) -> OrderedDict[str, Any]:
        """Results of `test`, and validation losses on the first test split; uses averaged weights if there are any."""
        cfg, model = self.cfg, unwrap_ddp(self.model)
        self._evaluated = True
        with self.stop.at_once(), self.average.applied() if self.average else contextlib.nullcontext():
            results = self._last_eval_results = self.test(cfg, model)
            if not cfg.TEST.VAL_LOSS:
                return results
            loader = self.build_test_loader(cfg, cfg.DATASETS.TEST[0])
            return OrderedDict(results, validation=validation_losses(model, loader, cfg.SEED))

    def resume_or_load(self, resume: bool = True) -> None:
        """With `resume`, load the last complete checkpoint in OUTPUT_DIR if there is one; else load MODEL.WEIGHTS."""
        self.checkpointer.resume_or_load(self.cfg.MODEL.WEIGHTS, resume=resume)
        if self.checkpointer.resumed:
            self.start_iter = self.iter + 1
        self.train_loader.start = self.start_iter
        if self.average and not self.average.updates:
            self.average.restart()

    def train(self) -> OrderedDict[str, Any]:
        """Train until the end or early stopping; return the results of the last evaluation.

        Unlike Detectron2's loop, this one does the work that a killed run did not finish, can stop early, and does not
        log a traceback for a `UserError`.
        """
        self.iter = self.start_iter - 1
        with self.stop, EventStorage(max(self.iter, 0)) as self.storage:
            try:
                self.metrics.open(self.storage, self.start_iter)
                self.before_train()
                self.iter = self.start_iter
                while self.iter < self.max_iter:
                    self.before_step()
                    self.run_step()
                    self.after_step()
                    self.iter += 1
            finally:
                self.after_train()
                self._trainer.close()
        if not self._evaluated and self.cfg.DATASETS.TEST:
            logger.info("nothing left to train: %d iterations are done; evaluating", self.start_iter)
            self.evaluate()
        return self._last_eval_results

    def run_step(self) -> None:
        """Run one iteration and update the average of the weights."""
        super().run_step()
        if self.average:
            self.average.update()

    def state_dict(self) -> dict[str, Any]:
        """Iteration, hooks and optimizer, in the same form for both versions of Detectron2."""
        return {**TrainerBase.state_dict(self), "_trainer": self._trainer.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        TrainerBase.load_state_dict(self, state_dict)
        self._trainer.load_state_dict(state_dict["_trainer"])


def amp_dtype(cfg: CfgNode) -> torch.dtype | None:
    """The precision of mixed-precision training, or None if it is off."""
    if not cfg.SOLVER.AMP.ENABLED:
        return None
    if cfg.SOLVER.AMP.DTYPE != "auto":
        return getattr(torch, cfg.SOLVER.AMP.DTYPE)
    if torch.device(cfg.MODEL.DEVICE).type == "cuda":
        return torch.float16
    return torch.bfloat16 if cpu_computes_bfloat16() else None


def cpu_computes_bfloat16() -> bool:
    """Whether the processor has bfloat16 instructions. Without them, emulation is slower than float32."""
    probes = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, probe, bool)() for probe in probes)


def _nothing(name: str) -> None:
    """Stands in for saving a checkpoint in all processes but the main one."""
