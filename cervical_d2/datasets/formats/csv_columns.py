"""The columns of a CSV of boxes: their spellings, and the meaning of x, y with width and height."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from cervical_d2.datasets.formats import MEASURES, Record
from cervical_d2.datasets.layout import SLACK
from cervical_d2.errors import UserError

SPELLINGS = {"image": ("file_name", "filename", "image_filename"), "class": ("label", "category")}
CORNERS = (("x1", "y1", "x2", "y2"), ("xmin", "ymin", "xmax", "ymax"))
SIDES = (("width", "height"), ("w", "h"))
STARTS = {  # what a column pair with SIDES means; "" if the name does not say
    ("left", "top"): "corner",
    ("xmin", "ymin"): "corner",
    ("x_min", "y_min"): "corner",
    ("cx", "cy"): "center",
    ("x_center", "y_center"): "center",
    ("center_x", "center_y"): "center",
    ("x", "y"): "",
}
SIZED: dict[tuple[str, ...], str] = {(*start, *side): kind for start, kind in STARTS.items() for side in SIDES}
POINT = ("x", "y")
SIZE = ("image_width", "image_height")
COLUMNS = ("image", "image_id", *SIZE, "group_id", "class", *CORNERS[0], *POINT, "ignore", "iscrowd", "id")
OPTIONAL = MEASURES  # columns that are written only if an annotation has one
KNOWN = dict.fromkeys((*COLUMNS, *OPTIONAL, *CORNERS[1], *(name for columns in SIZED for name in columns)))


def header(names: list[str], path: Path) -> list[str]:
    """The names of the columns in our spelling."""
    ours = {other: name for name, others in SPELLINGS.items() for other in others}
    header = [name.strip().lower() for name in names]
    header = [ours[name] if name in ours and ours[name] not in header else name for name in header]
    if twice := [name for name in KNOWN if header.count(name) > 1]:
        raise UserError(f"{path}: two columns are called {twice[0]!r}; rename the wrong one")
    if missing := [name for name in SPELLINGS if name not in header]:
        raise UserError(f"{path}: the first line has no column {missing[0]!r}; known columns: {', '.join(COLUMNS)}")
    return header


def coordinates(header: list[str], path: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The columns of boxes and those of centers, () if there are none."""
    box: tuple[str, ...] = next((columns for columns in (*CORNERS, *SIZED) if set(columns) <= set(header)), ())
    point = POINT if not set(POINT) <= set(box) and set(POINT) <= set(header) else ()
    if not (box or point):
        raise UserError(f"{path}: the first line has no columns x1, y1, x2, y2 or left, top, width, height or x, y")
    return box, point


def around(box: Sequence[float]) -> list[float]:
    """`box` (XYXY) shifted so that its center is at its x1, y1."""
    x1, y1, x2, y2 = box
    return [x1 - (x2 - x1) / 2, y1 - (y2 - y1) / 2, (x1 + x2) / 2, (y1 + y2) / 2]


def start(records: Iterable[Record], path: Path) -> str:
    """The meaning of x, y with width and height: the corner, unless boxes centered there fit the images as well.

    Raises:
        UserError: they may be centers.
    """
    sizes = [((rec["width"], rec["height"]), a["bbox"]) for rec in records for a in rec["annotations"] if "bbox" in a]
    leaving = [[_leaves(box, size), _leaves(around(box), size)] for size, box in sizes]
    corner, center = (sum(column) for column in zip(*leaving, strict=True)) if leaving else (0, 1)
    if center and corner <= center:
        return "corner"
    says = (
        f"{corner} of {len(sizes)} boxes extend beyond their images if x, y is the corner, {center} if it is the center"
        if corner
        else ("x, y with width and height may be the corner or the center of a box")
    )
    raise UserError(
        f"{path}: {says}; write 'xy: corner' or 'xy: center' in the dataset's YAML file, or name the columns left, "
        "top or cx, cy"
    )


def _leaves(box: Sequence[float], size: tuple[float, float]) -> bool:
    """Whether `box` extends beyond the image by more than the checks allow; False if a number is missing."""
    return min(box[:2]) < -SLACK or box[2] > size[0] + SLACK or box[3] > size[1] + SLACK
