"""Pages with a gallery of known content."""

from pathlib import Path

import cv2
import numpy as np

from cervical_d2.report.gallery import KINDS, FoundBox, Gallery, GalleryImage, TruthBox
from cervical_d2.report.page import Card, Cards, Section, page
from cervical_d2.report.tables import Table

NASTY = "<script>alert(1)</script>"
CLASSES = (NASTY, "hsil")
WIDTH, HEIGHT = 160, 120
BOX, OTHER, THIRD = (10, 30, 50, 70), (60, 40, 100, 80), (110, 50, 150, 90)
WIDE = Table("Wide", "", [f"column {number}" for number in range(30)], [[f"{NASTY} {n}" for n in range(30)]])
LONG = "a_name_without_a_space_" * 8
OVERVIEW = Section("overview", LONG, LONG, [Cards([Card("AP", "50.00", LONG)]), WIDE])


def small_gallery(other: bool = False) -> Gallery:
    """Four images. The tests state their detections at each score. `other`: with a second run."""
    ten = GalleryImage(
        "img10", "images/a.jpg", WIDTH, HEIGHT, "slide A",
        [TruthBox(BOX, 0, 0.9), TruthBox(OTHER, 1, 0.4, point=(80, 60))],
        [FoundBox(BOX, 0, 0.9, "correct"), FoundBox(THIRD, 1, 0.6, "background"), FoundBox(OTHER, 1, 0.4, "correct")],
        [FoundBox(OTHER, 1, 0.8, "correct")] if other else (),
    )  # fmt: skip
    nine = GalleryImage(
        "img9", "images/b.jpg", WIDTH, HEIGHT, "slide A",
        [TruthBox(BOX, 1, covered=0.7)], [FoundBox(BOX, 0, 0.7, "class")],
    )  # fmt: skip
    two = GalleryImage(
        "img2", "images/c.jpg", WIDTH, HEIGHT, "slide B",
        [TruthBox(BOX, 0, 0.3), TruthBox(OTHER, 0, 0.95), TruthBox(THIRD, 0, 0.96), TruthBox((0, 90, 160, 120), -1)],
        [
            FoundBox(THIRD, 0, 0.96, "correct"), FoundBox(OTHER, 0, 0.95, "correct"),
            FoundBox((0, 90, 30, 120), 0, 0.8, "ignored"), FoundBox(BOX, 0, 0.3, "correct"),
            FoundBox(BOX, 0, 0.2, "duplicate"),
        ],
    )  # fmt: skip
    one = GalleryImage("img1", "images/d.jpg", WIDTH, HEIGHT, None, [], [])
    return Gallery(CLASSES, 0.5, [ten, nine, two, one], ("run", NASTY) if other else ("prediction",))


def large_gallery(images: int, detections: int) -> Gallery:
    """`images` with `detections` random boxes each, always the same."""
    rng = np.random.default_rng(0)
    return Gallery(("a", "b"), 0.5, [_random_image(rng, number, detections) for number in range(images)])


def _random_image(rng: np.random.Generator, number: int, detections: int) -> GalleryImage:
    corners = rng.uniform(0, [WIDTH - 30, HEIGHT - 30], (detections, 2))
    boxes = np.hstack([corners, corners + 25])
    scores = np.sort(rng.random(detections))[::-1]
    kinds = rng.choice(KINDS, detections)
    found = [FoundBox(box, number % 2, score, kind) for box, score, kind in zip(boxes, scores, kinds, strict=True)]
    truth = [TruthBox(box, 0, score) for box, score in zip(boxes[:10], scores, strict=False)]
    return GalleryImage(f"image {number}", f"images/{number}.jpg", WIDTH, HEIGHT, None, truth, found)


def write_gallery(folder: Path, gallery: Gallery) -> str:
    """Write the page and gray pictures next to it; return its URL."""
    (folder / "images").mkdir(parents=True)
    content = cv2.imencode(".jpg", np.full((HEIGHT, WIDTH, 3), 200, np.uint8))[1].tobytes()
    for image in gallery.images:
        (folder / image.file).write_bytes(content)
    (folder / "index.html").write_text(page(NASTY, "of a test", [OVERVIEW], gallery), encoding="utf-8")
    return (folder / "index.html").as_uri()
