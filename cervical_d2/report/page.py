"""A self-contained HTML page of figures, tables and charts. Only the images of a gallery are separate files."""

import base64
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure

from cervical_d2.evaluation.table import cell_text
from cervical_d2.report.gallery import Gallery, gallery_document
from cervical_d2.report.svg import inline_svg
from cervical_d2.report.tables import Table

DISCLAIMER = "Research software: not a medical device, not for diagnosis."
REPORT = "report"  # the command that writes pages
FIGURES_FILE = "figures.json"  # the numbers of a report, next to its page
TEMPLATES = Path(__file__).with_name("templates")
SHADES = 10  # steps of a heat map table, as in report.css
# Styles and scripts in the page; those of the gallery only if there is one. Scripts depend on the ones before them.
STYLES, SCRIPTS = ("report.css",), ("report.js",)
GALLERY_STYLES, GALLERY_SCRIPTS = ("gallery.css",), ("gallery_model.js", "gallery_card.js", "gallery.js")


class Card(NamedTuple):
    """A headline figure: `name`, large `value`, confidence `interval` and `note`."""

    name: str
    value: str
    interval: str = ""
    note: str = ""


class Cards(NamedTuple):
    """Headline figures in a row."""

    cards: Sequence[Card]


class Picture(NamedTuple):
    """A PNG picture with a title and a note; `name` is its file name without ".png"."""

    name: str
    title: str
    note: str
    content: bytes


class Chart(NamedTuple):
    """A plot that is embedded as SVG, with a title and a note."""

    name: str
    title: str
    note: str
    figure: Figure


class Matrix(NamedTuple):
    """A heat map table such as a confusion matrix. Cells are shaded by their share of the row's sum."""

    title: str
    note: str
    rows: Sequence[str]
    columns: Sequence[str]
    values: Sequence[Sequence[float]]
    row_axis: str = ""
    column_axis: str = ""


class Text(NamedTuple):
    """Preformatted text such as a log, collapsed by default."""

    title: str
    note: str
    content: str


Item = Cards | Table | Picture | Chart | Matrix | Text


class Section(NamedTuple):
    """A section of the page. `name` is its anchor (#name): unique, and not "content" or "gallery"."""

    name: str
    title: str
    note: str
    items: Sequence[Item]


class Block(NamedTuple):
    """A style sheet or script of the page, and its hash for the content security policy."""

    text: Markup
    source: str


def page(title: str, subtitle: str, sections: Sequence[Section], gallery: Gallery | None = None) -> str:
    """The HTML of the `sections`, in order, and of the `gallery`. All text is escaped."""
    styles = [_block(name) for name in STYLES + (GALLERY_STYLES if gallery else ())]
    scripts = [_block(name) for name in SCRIPTS + (GALLERY_SCRIPTS if gallery else ())]
    return ENVIRONMENT.get_template("page.html").render(
        title=title,
        subtitle=subtitle,
        sections=sections,
        styles=styles,
        scripts=scripts,
        policy=_policy(styles, scripts, "'self' file: data:" if gallery else "data:"),
        gallery=gallery_document(gallery) if gallery else None,
    )


def _block(name: str) -> Block:
    text = (TEMPLATES / name).read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return Block(Markup(text), f"'sha256-{digest}'")


def _policy(styles: Sequence[Block], scripts: Sequence[Block], images: str) -> str:
    """The content security policy: only these blocks and images are allowed."""
    rules = {
        "default-src": "'none'",
        "img-src": images,
        "style-src": " ".join(block.source for block in styles),
        "script-src": " ".join(block.source for block in scripts),
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    return "; ".join(f"{name} {sources}" for name, sources in rules.items())


def _kind(item: Item) -> str:
    """The name of the macro in items.html for this kind of item."""
    return type(item).__name__.lower()


def _data_url(content: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(content).decode()}"


def _numeric(table: Table) -> list[bool]:
    """For each column, whether it has only numbers, which are right-aligned."""
    return [not any(isinstance(row[place], str) for row in table.rows) for place in range(len(table.header))]


def _figures(matrix: Matrix) -> list[list[str]]:
    """The values as text, without decimals if all are whole numbers."""
    counts = all(float(value).is_integer() for row in matrix.values for value in row)
    return [[str(int(value)) if counts else cell_text(float(value)) for value in row] for row in matrix.values]


def _shades(matrix: Matrix) -> list[list[int]]:
    """0 to `SHADES` for each value: its share of the row, rounded up."""
    sums = [sum(value for value in row if value > 0) for row in matrix.values]
    return [
        [-int(-SHADES * value // total) if value > 0 else 0 for value in row]
        for row, total in zip(matrix.values, sums, strict=True)
    ]


def _environment() -> Environment:
    made = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.policies["json.dumps_kwargs"] = {"allow_nan": False, "separators": (",", ":")}
    made.filters |= {
        "kind": _kind,
        "cell": cell_text,
        "svg": inline_svg,
        "data_url": _data_url,
        "numeric": _numeric,
        "shades": _shades,
        "figures": _figures,
    }
    return made


ENVIRONMENT = _environment()
