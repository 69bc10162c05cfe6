#!/usr/bin/env python
"""What one detector costs beside another: parameters, multiply-adds, times and memory an image, as ratios to the first.

tools/benchmarks/measure_models.py 3cdenet/table04_loss.yaml 3cdenet/table04_backbone.yaml
The models are built in turn, each round in processes of their own, with random weights and one random image.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

CELLS = 20  # labeled boxes in the image of the training step, as in a crowded field
FIGURES = {
    "backbone, M parameters": 1e-6,
    "detector, M parameters": 1e-6,
    "backbone, G multiply-adds": 1e-9,
    "inference, ms": 1e3,
    "training step, ms": 1e3,
    "memory of inference, MiB": 2.0**-20,
    "memory of a training step, MiB": 2.0**-20,
}
"""What is measured, and the factor from parameters, operations, seconds and bytes to what is printed."""


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Answers --help without importing torch."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("configs", nargs="+", metavar="CONFIG", help="the first is what the others are compared to")
    parser.add_argument("--side", type=int, default=800, help="of the image in px (default 800)")
    parser.add_argument("--rounds", type=int, default=5, help="of all models in turn (default 5)")
    parser.add_argument("--device", default="cpu", help="cpu (default) or cuda")
    parser.add_argument("--set", nargs="+", default=[], metavar="WORD", help="KEY VALUE ... for all models")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.rounds < 1 or args.side < 64:
        parser.error("--rounds is at least 1, --side at least 64")
    return args


def build(config: str, args: argparse.Namespace) -> Any:
    """The detector of `config`, with Detectron2's anchors where its own are not given."""
    import torch

    from cervical_d2.config import load_config, set_num_classes
    from cervical_d2.modeling import build_model

    cfg = load_config(config, [*args.set, "MODEL.DEVICE", args.device])
    set_num_classes(cfg, 11)
    torch.manual_seed(0)
    return build_model(cfg)


def measure(config: str, args: argparse.Namespace) -> dict[str, float]:
    """`FIGURES` of one model, in parameters, operations, seconds and bytes."""
    import torch
    from detectron2.structures import Boxes, Instances
    from detectron2.utils.events import EventStorage
    from torch.utils.flop_counter import FlopCounterMode

    model = build(config, args)
    image = torch.randint(0, 256, (3, args.side, args.side), dtype=torch.uint8)
    corner = torch.rand(CELLS, 2) * args.side * 0.8
    truth = Instances(
        (args.side, args.side),
        gt_boxes=Boxes(torch.cat([corner, corner + args.side * 0.1], dim=1)),
        gt_classes=torch.zeros(CELLS, dtype=torch.long),
    )
    with torch.no_grad(), FlopCounterMode(display=False) as counted:
        model.backbone(image[None].float().to(model.device))

    def infer() -> None:
        with torch.no_grad():
            model.eval()([{"image": image}])

    def step() -> None:
        model.zero_grad()
        with EventStorage():
            sum(model.train()([{"image": image, "instances": truth}]).values()).backward()

    inference, inference_memory = timed(infer, model.device)
    training, training_memory = timed(step, model.device)
    parameters = [sum(value.numel() for value in part.parameters()) for part in (model.backbone, model)]
    values = (*parameters, counted.get_total_flops() / 2, inference, training, inference_memory, training_memory)
    return dict(zip(FIGURES, values, strict=True))


def timed(call: Callable[[], None], device: Any) -> tuple[float, float]:
    """Seconds of the second call, and the most bytes that are in use in it, of the process on a CPU."""
    import resource

    import torch

    call()
    begin = time.perf_counter()
    call()
    if device.type == "cuda":
        torch.cuda.synchronize()
        return time.perf_counter() - begin, torch.cuda.max_memory_allocated()
    return time.perf_counter() - begin, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def child(config: str) -> dict[str, float]:
    """`measure` in a process of its own."""
    words = [word for word in sys.argv[1:] if word not in parse_args().configs]
    done = subprocess.run([sys.executable, __file__, config, *words, "--child"], stdout=subprocess.PIPE, check=False)
    if done.returncode:
        raise SystemExit(done.returncode)  # it has said why
    return json.loads(done.stdout)


def run(args: argparse.Namespace) -> None:
    """Measure and print a table: medians, and the median over rounds of the ratio to the first model."""
    from tqdm import tqdm

    if args.child:
        print(json.dumps(measure(args.configs[0], args)))
        return
    rounds = [[child(config) for config in args.configs] for _ in tqdm(range(args.rounds), "rounds")]
    print("| | " + " | ".join(args.configs) + " |\n|" + " --- |" * (len(args.configs) + 1))
    for name, factor in FIGURES.items():
        cells = []
        for number in range(len(args.configs)):
            median = statistics.median(row[number][name] for row in rounds) * factor
            ratios = [row[number][name] / row[0][name] for row in rounds]
            spread = f"{statistics.median(ratios):.2f}"
            if max(ratios) - min(ratios) >= 0.005:
                spread += f", {min(ratios):.2f} to {max(ratios):.2f}"
            cells.append(f"{median:.4g}" + (f" ({spread})" if number else ""))
        print(f"| {name} | " + " | ".join(cells) + " |")


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status."""
    args = parse_args(argv)
    from cervical_d2.errors import run_main

    return run_main(lambda: run(args))


if __name__ == "__main__":
    sys.exit(main())
