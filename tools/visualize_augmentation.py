#!/usr/bin/env python
"""Draw what each augmentation does to an image.

cervical-d2 augmentations --output sheet.jpg
cervical-d2 augmentations --output sheet.jpg --image smear.png --time
"""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--output", type=Path, required=True, metavar="FILE", help="the picture, a .jpg")
    parser.add_argument("--image", type=Path, metavar="FILE", help="by default a scene of the demo set, with its boxes")
    parser.add_argument("--seed", type="count", default=0, help="of the draws (default 0)")
    parser.add_argument("--overwrite", action="store_true", help="replace FILE, if it exists")
    parser.add_argument("--time", action="store_true", help="print ms of one core per 800 x 600 image too")


def run(args: argparse.Namespace) -> None:
    """Read or draw an image, draw the sheet, measure the time if requested."""
    import cv2
    import numpy as np

    from cervical_d2.data.mapper import read_image
    from cervical_d2.demo.scenes import CLASSES, draw_scene
    from cervical_d2.draw import Box
    from cervical_d2.files import check_file, write_bytes
    from cervical_d2.randomness import Stream, numpy_seeded
    from cervical_d2.report.augmentations import augmentation_sheet, costs

    check_file(args.output, ".jpg", args.overwrite)
    boxes: list[Box] = []
    if args.image:
        image = read_image(str(args.image), "RGB")
    else:
        scene = draw_scene(0, "train", 10, size=240)  # four classes; drawn at the size it is shown in
        image, boxes = scene.image, [Box(cell.box, CLASSES.index(cell.label), "") for cell in scene.cells]
    with numpy_seeded(args.seed, Stream.AUGMENTATION):
        sheet = augmentation_sheet(image, boxes, CLASSES if boxes else ())
        timed = costs(draw_scene(0, "train", 0, size=800).image[:600].copy()) if args.time else []
    bgr = np.ascontiguousarray(sheet[..., ::-1])
    write_bytes(args.output, cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, 80])[1].tobytes())
    print(args.output)
    for key, value, cost in timed:
        print(f"{key:22} {value:>6} {cost:6.1f} ms")


if __name__ == "__main__":
    from cli import script

    script(__file__)
