"""A page of tables and pictures in one file, which needs nothing beside it."""

import base64
import html
from collections.abc import Iterable, Sequence
from pathlib import Path
from string import Template
from typing import NamedTuple

from cervical_d2.evaluation.table import cell_text
from cervical_d2.report.tables import Table

TEMPLATE = Path(__file__).with_name("page.html")


class Picture(NamedTuple):
    """A PNG `content` under a `title`, with a sentence on what it shows; `name` is its file's, without ".png"."""

    name: str
    title: str
    note: str
    content: bytes


def page(title: str, subtitle: str, sections: Sequence[Table | Picture]) -> str:
    """HTML of the `sections` in their order; every text is escaped."""
    parts = (
        _section(item.title, item.note, _table(item) if isinstance(item, Table) else _image(item)) for item in sections
    )
    template = Template(TEMPLATE.read_text(encoding="utf-8"))
    return template.substitute(title=html.escape(title), subtitle=html.escape(subtitle), body="\n".join(parts))


def _section(title: str, note: str, content: str) -> str:
    return f"<h2>{html.escape(title)}</h2>\n<p>{html.escape(note)}</p>\n<div class=scroll>{content}</div>"


def _image(picture: Picture) -> str:
    data = base64.b64encode(picture.content).decode()
    return f'<img alt="{html.escape(picture.title)}" src="data:image/png;base64,{data}">'


def _table(table: Table) -> str:
    words = [isinstance(cell, str) for cell in table.rows[0]]
    rows = [_row("th", table.header, words), *(_row("td", map(cell_text, row), words) for row in table.rows)]
    return "<table>\n" + "\n".join(rows) + "\n</table>"


def _row(tag: str, cells: Iterable[str], words: Sequence[bool]) -> str:
    spelled = (
        f"<{tag}>{html.escape(cell)}</{tag}>" if word else f"<{tag} class=number>{html.escape(cell)}</{tag}>"
        for cell, word in zip(cells, words, strict=True)
    )
    return f"<tr>{''.join(spelled)}</tr>"
