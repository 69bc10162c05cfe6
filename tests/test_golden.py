"""Numbers that must not move: configs, parameter counts, losses, figures, anchors, drawn scenes.

`PYTHONPATH=. python tests/test_golden.py` computes them and writes golden.json. Do that only if a change is wanted.
"""

import hashlib
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import write_tiny
from detectron2.modeling import build_model
from evaluator_scenes import random_scene, run, temporary_data_sets
from small_model import SMALL

from cervical_d2.anchors.kmeans import cluster_anchors
from cervical_d2.config import differences, load_config, packaged_configs
from cervical_d2.demo.scenes import draw_scene
from cervical_d2.engine.setup import prepare
from cervical_d2.engine.trainer import Trainer
from cervical_d2.evaluation.evaluator import CervicalCOCOEvaluator

FILE = Path(__file__).with_name("golden.json")
COUNTED = ("xu2022/table05_R_50_freeze_stem_res2.yaml", "3cdenet/table04_loss.yaml", "classifier/quick_DC_59_half.yaml")
ITERATIONS = 10


def digest(value: Any) -> str:
    """The beginning of the SHA-256 of `value` as JSON."""
    return hashlib.sha256(json.dumps(value, default=str).encode()).hexdigest()[:16]


def configs() -> dict[str, str]:
    """Of each leaf config, what it sets other than the defaults do; the defaults differ by version of Detectron2."""
    defaults = load_config()
    changed = {name: differences(load_config(name), defaults) for name in packaged_configs()}
    return {name: digest(sorted((key, value) for key, value, _ in changes)) for name, changes in changed.items()}


def parameters() -> dict[str, list[int]]:
    """All and trainable parameters."""
    counts = {}
    for name in COUNTED:
        cfg = load_config(name, ["MODEL.DEVICE", "cpu", "MODEL.WEIGHTS", ""])
        model = build_model(cfg)
        every = list(model.parameters())
        counts[name] = [sum(p.numel() for p in every), sum(p.numel() for p in every if p.requires_grad)]
    return counts


def losses() -> list[float]:
    """The total losses of a short training on drawn images."""
    with tempfile.TemporaryDirectory() as folder:
        write_tiny(Path(folder))
        options = [*SMALL, "SOLVER.MAX_ITER", ITERATIONS, "TEST.EVAL_PERIOD", 0, "DATASETS.TEST", "()"]
        cfg = load_config(f"{folder}/config.yaml", [str(word) for word in options])
        prepare(cfg)
        Path(cfg.OUTPUT_DIR).mkdir()
        torch.manual_seed(0)
        trainer = Trainer(cfg)
        trainer.resume_or_load(resume=False)
        trainer.train()
        lines = (Path(cfg.OUTPUT_DIR) / "metrics.json").read_text().splitlines()
        return [json.loads(line)["total_loss"] for line in lines]


def figures() -> dict[str, Any]:
    """Everything that an evaluation returns for drawn truth and detections."""
    records, outputs = random_scene(seed=3, num_images=12)
    for number, record in enumerate(records):
        record["group_id"] = f"slide{number // 3}"
    with temporary_data_sets() as add:
        results = run(CervicalCOCOEvaluator(add(records), distributed=False), records, outputs)
    return json.loads(json.dumps(results, default=float).replace("NaN", "null"))


def anchors() -> list[list[float]]:
    """Nine shapes of drawn boxes."""
    sides = np.random.default_rng(0).lognormal(3, 0.7, (2000, 2))
    return cluster_anchors(sides, 9, restarts=3, seed=0).anchor.round(9).tolist()


def scene() -> dict[str, Any]:
    """A drawn scene: its cells, and the sums of its channels (not each pixel: OpenCV rounds by processor)."""
    drawn = draw_scene(0, "val", 1, size=128)
    cells = [[cell.label, [round(float(side), 6) for side in cell.box]] for cell in drawn.cells]
    return {"cells": cells, "mean": drawn.image.reshape(-1, 3).mean(axis=0).round(1).tolist()}


GOLDEN: dict[str, tuple[Callable[[], Any], float]] = {
    "configs": (configs, 0),
    "parameters": (parameters, 0),
    "losses": (losses, 2e-3),
    "figures": (figures, 1e-9),
    "anchors": (anchors, 1e-9),
    "scene": (scene, 0.2),
}
"""What is compared, and by how much of its value it may differ: processors round differently."""


def close(value: Any, golden: Any, tolerance: float) -> bool:
    """Whether two JSON values agree, numbers within `tolerance` of their size."""
    if isinstance(golden, dict):
        return golden.keys() == value.keys() and all(close(value[key], golden[key], tolerance) for key in golden)
    if isinstance(golden, list):
        return len(golden) == len(value) and all(map(close, value, golden, [tolerance] * len(golden)))
    if isinstance(golden, int | float) and isinstance(value, int | float):
        return value == pytest.approx(golden, rel=tolerance, abs=tolerance)
    return value == golden


@pytest.mark.parametrize("name", GOLDEN)
def test_golden(name: str):
    compute, tolerance = GOLDEN[name]
    value, golden = json.loads(json.dumps(compute())), json.loads(FILE.read_text())[name]
    if isinstance(golden, dict):
        assert value.keys() == golden.keys()
        assert [key for key in golden if not close(value[key], golden[key], tolerance)] == []
    assert close(value, golden, tolerance), f"{name}: {value}, golden {golden}"


if __name__ == "__main__":
    FILE.write_text(json.dumps({name: compute() for name, (compute, _) in GOLDEN.items()}, indent=1) + "\n")
