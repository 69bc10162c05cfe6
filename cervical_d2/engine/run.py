"""One run from a config to its results, as `cervical-d2 train` does in each of its processes."""

from detectron2.config import CfgNode

from cervical_d2.checkpoint.checkpointer import CervicalCheckpointer
from cervical_d2.engine.processes.ranks import on_all_ranks
from cervical_d2.engine.run_folder import RunFolder
from cervical_d2.engine.setup import prepare, start_run
from cervical_d2.engine.trainer import Trainer


def run_config(cfg: CfgNode, *, train: bool, resume: bool) -> None:
    """Prepare `cfg` in place, then train and evaluate, or only evaluate if `train` is False.

    Raises:
        UserError: the config cannot run (nothing is written then), or the training fails.
    """
    lines = on_all_ranks(lambda: prepare(cfg, train=train, resume=resume))
    start_run(cfg, lines, train=train, resume=resume)
    if train:
        trainer = Trainer(cfg)
        trainer.resume_or_load(resume=resume)
        trainer.train()
    else:
        model = Trainer.build_model(cfg)
        about = {"run": run} if (run := RunFolder(cfg.OUTPUT_DIR).run_id) else {}
        weights = CervicalCheckpointer(model, cfg.OUTPUT_DIR, about=about, strict=True)
        weights.resume_or_load(cfg.MODEL.WEIGHTS, resume=resume)
        Trainer.test(cfg, model)
