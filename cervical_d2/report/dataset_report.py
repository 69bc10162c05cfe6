"""The statistics of registered splits as JSON, plots and one page."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from matplotlib.figure import Figure

from cervical_d2.anchors.grid import fit_anchors
from cervical_d2.curation.statistics import arrays_of
from cervical_d2.data.build import records_of
from cervical_d2.data.pixels import pixel_statistics
from cervical_d2.errors import UserError
from cervical_d2.files import output_folder, write_bytes, write_json, write_text
from cervical_d2.report.anchor_plot import anchor_figure
from cervical_d2.report.axes import png
from cervical_d2.report.page import Chart, Section, page
from cervical_d2.report.plots import (
    center_figure,
    class_figure,
    crowding_figure,
    pixel_figure,
    shape_figure,
    size_figure,
)
from cervical_d2.report.summary import SplitStatistics, describe, split_statistics
from cervical_d2.report.tables import Table, tables, tables_text

COMMAND = "statistics"


class Drawing(NamedTuple):
    """A plot of the page. It is drawn if there is a table with the title `table`, and stands below it."""

    table: str
    name: str
    title: str
    note: str
    draw: Callable[..., Figure]


DRAWINGS = (
    Drawing("Splits", "sizes", "Image sizes", "Larger dots: more images; cross: mean.", size_figure),
    Drawing("Splits", "centers", "Places", "Number of box centers by position in the image.", center_figure),
    Drawing("Classes", "classes", "Boxes and images", "Images with at least one box of the class.", class_figure),
    Drawing(
        "Classes",
        "shapes",
        "Shapes",
        "Line: 5 to 95 % of a class's boxes; bar: 25 to 75 %; tick: the median.",
        shape_figure,
    ),
    Drawing(
        "Overlap",
        "crowding",
        "Crowding and overlap",
        "Solid: boxes of any class, as an RPN's NMS compares them; dashed: of the same class.",
        crowding_figure,
    ),
    Drawing(
        "Levels",
        "anchors",
        "Boxes and anchors",
        "Gray: density of boxes. Inside the lines, the best anchor has at least that IoU by shape.",
        anchor_figure,
    ),
    Drawing(
        "Pixels", "pixels", "Values", "Mean and standard deviation of each channel, over all pixels.", pixel_figure
    ),
)


def collect_statistics(names: Sequence[str], cfg: CfgNode | None, pixel_format: str | None) -> list[SplitStatistics]:
    """The statistics of the registered splits `names`.

    With `cfg`, the boxes are compared with its anchors. With `pixel_format`, every image is read for pixel statistics.
    Raises `UserError` for data or anchors that cannot be used.
    """
    subjects = []
    for name in names:
        # A split without images is enough if pixels are not needed.
        records = records_of((name,)) if pixel_format else DatasetCatalog.get(name)
        if not records:
            raise UserError(f"{name}: no image; check the dataset's paths")
        boxes = arrays_of(name, MetadataCatalog.get(name).thing_classes, records)
        fit = fit_anchors(boxes, cfg) if cfg else None
        subjects.append(split_statistics(boxes, fit, pixel_statistics(records, pixel_format) if pixel_format else None))
    return subjects


def write_statistics(subjects: Sequence[SplitStatistics], output: Path, subtitle: str, scale: str = "auto") -> str:
    """Write statistics.json, statistics.html and a PNG of each plot into `output`; return the tables as text.

    `scale`: see `plots.class_figure`.
    """
    documents = [describe(subject) for subject in subjects]
    all_tables = tables(documents)
    sections = [_section(table, subjects, scale) for table in all_tables]
    title = "Statistics of " + ", ".join(subject.boxes.name for subject in subjects)
    with output_folder(output, COMMAND) as folder:
        for chart in (item for section in sections for item in section.items if isinstance(item, Chart)):
            write_bytes(folder / f"{chart.name}.png", png(chart.figure))
        write_text(folder / "statistics.html", page(title, subtitle, sections))
        write_json(folder / "statistics.json", documents, indent=1)
    return tables_text(all_tables)


def _section(table: Table, subjects: Sequence[SplitStatistics], scale: str) -> Section:
    """A section with the table and the plots that belong to it."""
    charts = []
    for item in DRAWINGS:
        if item.table == table.title:
            options = {"scale": scale} if item.draw is class_figure else {}
            charts.append(Chart(item.name, item.title, item.note, item.draw(subjects, **options)))
    # Title and note are already those of the section.
    return Section(table.title.lower(), table.title, table.note, [table._replace(title="", note=""), *charts])
