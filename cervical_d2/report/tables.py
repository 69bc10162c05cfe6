"""The documents of `summary.describe` as tables, several splits side by side."""

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

from cervical_d2.evaluation.table import aligned
from cervical_d2.report.summary import FITS, OVERLAPS, Document

MEASURED: Mapping[str, str] = MappingProxyType(
    {"width": "width", "height": "height", "area": "area", "aspect ratio": "height / width"}
)


class Table(NamedTuple):
    """A table; `note` explains the columns."""

    title: str
    note: str
    header: list[str]
    rows: list[list[Any]]


def tables(documents: Sequence[Document]) -> list[Table]:
    """The tables of the documents that `describe` returned, one for each split."""
    result = [_overview(documents), _class_table(documents), _overlap_table(documents)]
    if any("anchors" in document for document in documents):
        result += [_anchor_table(documents), _level_table(documents)]
    if any("pixels" in document for document in documents):
        result.append(_pixel_table(documents))
    return result


def tables_text(parts: Sequence[Table]) -> str:
    """The tables as text for a terminal."""
    return "\n\n".join(f"{table.title} ({table.note})\n\n{aligned(table.header, table.rows)}" for table in parts)


def _overview(documents: Sequence[Document]) -> Table:
    header = [
        "split",
        "images",
        "without boxes",
        "boxes",
        "ignored",
        "centers",
        "mean width",
        "mean height",
        "per image",
    ]
    rows = [
        [
            item["name"], item["images"], item["images without boxes"], item["boxes"], item["ignore regions"],
            item["centers"], *map(_number, item["image size"]["mean"]), _number(item["boxes per image"]["mean"]),
        ]
        for item in documents
    ]  # fmt: skip
    return Table(
        "Splits", "ignored: regions and crowds; mean width and height of images in px; boxes per image", header, rows
    )


def _class_table(documents: Sequence[Document]) -> Table:
    rows = [
        [name, item["name"], row["boxes"], row["images"], *(_spread(row[measure]) for measure in MEASURED)]
        for name, item, row in _by_class([(item, item["classes"]) for item in documents])
    ]
    header = ["class", "split", "boxes", "images", *MEASURED.values()]
    return Table("Classes", "5 % / median / 95 % of the boxes, in px of the image", header, rows)


def _spread(quantiles: Document) -> str:
    values = [quantiles[percentile] for percentile in ("p5", "p50", "p95")]
    return "-" if None in values else " / ".join(f"{value:.2f}" if value < 10 else f"{value:.0f}" for value in values)


def _overlap_table(documents: Sequence[Document]) -> Table:
    rows = [
        [item["name"], scope, *(_percent(value) for value in shares.values())]
        for item in documents
        for scope, shares in item["overlap"].items()
    ]
    note = "% of boxes whose IoU with another of their image reaches a threshold, where NMS would take one of the two"
    return Table("Overlap", note, ["split", "with boxes of", *(f"% >= {threshold}" for threshold in OVERLAPS)], rows)


def _anchor_table(documents: Sequence[Document]) -> Table:
    parts = [("all", item, item["anchors"]["all"]) for item in documents]
    parts += _by_class([(item, item["anchors"]["classes"]) for item in documents])
    rows = [
        [name, item["name"], _number(fits["mean"]), *(_percent(fits[f"{threshold}"]) for threshold in FITS)]
        for name, item, fits in parts
    ]
    note = "IoU by shape of each box, at the test size, with its best anchor"
    return Table("Anchors", note, ["class", "split", "mean IoU", *(f"% >= {threshold}" for threshold in FITS)], rows)


def _level_table(documents: Sequence[Document]) -> Table:
    levels = documents[0]["anchors"]["levels"]
    rows = [
        [
            name,
            ", ".join(f"{width:.0f} x {height:.0f}" for width, height in levels[name]["sizes"]),
            *(_percent(item["anchors"]["levels"][name]["share"]) for item in documents),
        ]
        for name in levels
    ]
    header = ["level", "anchors, width x height", *(f"% {item['name']}" for item in documents)]
    return Table("Levels", "% of boxes whose best anchor is on this level", header, rows)


def _pixel_table(documents: Sequence[Document]) -> Table:
    rows = [[item["name"], item["pixels"]["format"], item["pixels"]["yaml"]] for item in documents]
    return Table("Pixels", "mean and standard deviation over all pixels, to paste", ["split", "format", "config"], rows)


def _by_class(parts: Sequence[tuple[Document, Document]]) -> Iterator[tuple[str, Document, Any]]:
    """(class, split, entry) from (split, entries by class), grouped by class."""
    for name in dict.fromkeys(name for _, table in parts for name in table):
        yield from ((name, item, table[name]) for item, table in parts if name in table)


def _number(value: float | None) -> float:
    return float("nan") if value is None else value


def _percent(value: float | None) -> float:
    return 100 * _number(value)
