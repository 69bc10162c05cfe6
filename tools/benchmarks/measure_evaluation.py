#!/usr/bin/env python
"""Time the evaluation beside pycocotools, on drawn scenes of the size of ComparisonDetector's test set.

tools/benchmarks/measure_evaluation.py               # 744 images, 100 detections each, 11 classes
"""

import argparse
import contextlib
import io
import sys
import time
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Answers --help without importing numpy."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=744)
    parser.add_argument("--detections", type=int, default=100, help="in each image (default 100)")
    parser.add_argument("--classes", type=int, default=11)
    parser.add_argument("--repeats", type=int, default=5, help="of each, in turns (default 5)")
    parser.add_argument("--samples", type=int, default=1000, help="resamples (default 1000)")
    return parser.parse_args(argv)


def drawn(images: int, detections: int, classes: int) -> tuple[Any, Any]:
    """Truth of 6.5 cells an image on average, and detections, six of ten of them near a cell."""
    import numpy as np

    from cervical_d2.boxes import box_area
    from cervical_d2.evaluation.matching import Detections, Truth

    rng = np.random.default_rng(0)

    def boxes(count: int) -> Any:
        corner = rng.random((count, 2)) * [1100, 600]
        return np.hstack([corner, corner + rng.lognormal(4, 0.6, (count, 2))])

    image = np.repeat(np.arange(images), np.maximum(1, rng.poisson(6.5, images)))
    box, label = boxes(len(image)), rng.integers(0, classes, len(image))
    none = np.zeros(len(image), bool)
    starts = np.searchsorted(image, np.arange(images + 1))
    of_image = np.repeat(np.arange(images), detections)
    near = rng.random(len(of_image)) < 0.6
    cell = rng.integers(starts[of_image], starts[of_image + 1])
    found = np.where(near[:, None], box[cell] + rng.normal(0, 8, (len(cell), 4)), boxes(len(cell)))
    found[:, 2:] = np.maximum(found[:, 2:], found[:, :2] + 1)
    called = np.where(near & (rng.random(len(cell)) < 0.6), label[cell], rng.integers(0, classes, len(cell)))
    truth = Truth(image, label, box, box_area(box), none, none)
    return truth, Detections(of_image, called, found, rng.random(len(cell)) ** 3)


def coco_of(truth: Any, found: Any, classes: int) -> tuple[Any, Any]:
    """The same for pycocotools."""
    from pycocotools.coco import COCO

    def rows(columns: Any) -> list[dict[str, Any]]:
        size = columns.box[:, 2:] - columns.box[:, :2]
        return [
            {"image_id": i, "category_id": k, "bbox": [*box[:2], *wh], "area": wh[0] * wh[1], "iscrowd": 0}
            for i, k, box, wh in zip(
                columns.image.tolist(), columns.label.tolist(), columns.box.tolist(), size.tolist(), strict=True
            )
        ]

    coco = COCO()
    coco.dataset = {
        "images": [{"id": int(image)} for image in range(found.image.max() + 1)],
        "categories": [{"id": label, "name": str(label)} for label in range(classes)],
        "annotations": [{**row, "id": number} for number, row in enumerate(rows(truth), start=1)],
    }
    coco.createIndex()
    return coco, coco.loadRes([{**row, "score": s} for row, s in zip(rows(found), found.score.tolist(), strict=True)])


def timed(jobs: dict[str, Callable[[], None]], repeats: int) -> dict[str, list[float]]:
    """Seconds of each run of each of `jobs`, in turns, so that what else the machine does touches all alike."""
    times: dict[str, list[float]] = {name: [] for name in jobs}
    for _ in range(repeats):
        for name, job in jobs.items():
            start = time.perf_counter()
            job()
            times[name].append(time.perf_counter() - start)
    return times


def run(args: argparse.Namespace) -> None:
    """Time all in turns, print medians and ratios."""
    import numpy as np
    from pycocotools.cocoeval import COCOeval

    from cervical_d2.evaluation.analysis import Analysis, EvaluationInput
    from cervical_d2.evaluation.bootstrap import measure
    from cervical_d2.evaluation.coco import coco_tables, summarize_coco
    from cervical_d2.evaluation.figures import figures_of, statistic
    from cervical_d2.evaluation.protocols import PUBLISHED_CLASSES
    from cervical_d2.evaluation.severity import read_severity
    from cervical_d2.evaluation.table import aligned

    truth, found = drawn(args.images, args.detections, args.classes)
    names = [*PUBLISHED_CLASSES, *(f"class {number}" for number in range(args.classes))][: args.classes]
    with contextlib.redirect_stdout(io.StringIO()):
        coco, results = coco_of(truth, found, args.classes)
    unit = np.arange(args.images)
    inputs = EvaluationInput(
        names, truth, found, unit, False, read_severity(names), np.zeros((len(truth.label), 2)), None
    )
    stats: dict[str, float] = {}

    def theirs() -> None:
        with contextlib.redirect_stdout(io.StringIO()):
            evaluation = COCOeval(coco, results, "bbox")
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
        stats["pycocotools"] = 100 * evaluation.stats[0]

    def ours() -> None:
        stats["ours"] = summarize_coco(coco_tables(truth, found, num_classes=args.classes))["AP"]

    def everything() -> None:
        ours()
        figures_of(Analysis(inputs))

    times = timed({"pycocotools": theirs, "COCO's figures": ours, "all figures": everything}, args.repeats)
    start = time.perf_counter()
    measure(statistic(Analysis(inputs)), inputs.units, args.samples)
    last = time.perf_counter() - start
    base = times["pycocotools"]
    rows = [
        [name, median(spent), min(spent), max(spent), median([a / b for a, b in zip(spent, base, strict=True)])]
        for name, spent in times.items()
    ]
    print(aligned(["", "median, s", "min", "max", "of pycocotools"], rows))
    print(f"all figures with intervals of {args.samples} resamples: {last:.1f} s")
    print(f"AP: {stats['ours']:.9f}, pycocotools {stats['pycocotools']:.9f}")


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status."""
    args = parse_args(argv)
    from cervical_d2.errors import run_main

    return run_main(lambda: run(args))


if __name__ == "__main__":
    sys.exit(main())
