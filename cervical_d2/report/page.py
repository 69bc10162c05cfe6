"""A page of figures, tables and charts in one file, which needs nothing beside it but the pictures of a gallery."""

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
FIGURES_FILE = "figures.json"  # the numbers of a report, beside its page
TEMPLATES = Path(__file__).with_name("templates")
SHADES = 10  # steps of a heat table, as in report.css
# What stands in the page; of the gallery's, only where there is one. Each script uses those before it.
STYLES, SCRIPTS = ("report.css",), ("report.js",)
GALLERY_STYLES, GALLERY_SCRIPTS = ("gallery.css",), ("gallery_model.js", "gallery_card.js", "gallery.js")


class Card(NamedTuple):
    """A headline figure: `value` large below its `name`, then its confidence `interval` and a `note`."""

    name: str
    value: str
    interval: str = ""
    note: str = ""


class Cards(NamedTuple):
    """Headline figures in a row."""

    cards: Sequence[Card]


class Picture(NamedTuple):
    """A PNG `content` under a `title`, with a sentence on what it shows; `name` is its file's, without ".png"."""

    name: str
    title: str
    note: str
    content: bytes


class Chart(NamedTuple):
    """A `figure` drawn in the page itself, under a `title`, with a sentence on what it shows."""

    name: str
    title: str
    note: str
    figure: Figure


class Matrix(NamedTuple):
    """A heat table, as of confusions: `values` is a row for each of `rows`, shaded by their share of its sum."""

    title: str
    note: str
    rows: Sequence[str]
    columns: Sequence[str]
    values: Sequence[Sequence[float]]
    row_axis: str = ""
    column_axis: str = ""


class Text(NamedTuple):
    """Lines as they are, as of a log, folded away."""

    title: str
    note: str
    content: str


Item = Cards | Table | Picture | Chart | Matrix | Text


class Section(NamedTuple):
    """A part of the page; `name` is its address, as in #name: another for each, and not "content" or "gallery"."""

    name: str
    title: str
    note: str
    items: Sequence[Item]


class Block(NamedTuple):
    """A style sheet or script of the page, and what its policy calls it."""

    text: Markup
    source: str


def page(title: str, subtitle: str, sections: Sequence[Section], gallery: Gallery | None = None) -> str:
    """HTML of the `sections` in their order, then the `gallery`; every text is escaped."""
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
    """What the page may use: these blocks, these images, and nothing else."""
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
    """The macro of items.html that shows it."""
    return type(item).__name__.lower()


def _data_url(content: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(content).decode()}"


def _numeric(table: Table) -> list[bool]:
    """For each column whether it holds numbers alone, which stand on the right."""
    return [not any(isinstance(row[place], str) for row in table.rows) for place in range(len(table.header))]


def _figures(matrix: Matrix) -> list[list[str]]:
    """The values as text: counts without decimals, unless there are others."""
    counts = all(float(value).is_integer() for row in matrix.values for value in row)
    return [[str(int(value)) if counts else cell_text(float(value)) for value in row] for row in matrix.values]


def _shades(matrix: Matrix) -> list[list[int]]:
    """0 to `SHADES` for each value: its share of its row, rounded up where there is any."""
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
