"""A figure as SVG inside a page whose policy forbids style attributes and everything from elsewhere."""

import re
from collections.abc import Iterator
from xml.etree import ElementTree

import matplotlib
from defusedxml.ElementTree import fromstring
from markupsafe import Markup
from matplotlib.figure import Figure

from cervical_d2.report.axes import rendered

PIXELS = 96  # of CSS, in an inch
WIDE = 560  # px; wider charts are not shrunk below it, lest their text gets too small to read
DROPPED = ("metadata", "style")
# What Matplotlib says in its <style>, of all elements.
INHERITED = {"font-family": "system-ui, sans-serif", "stroke-linejoin": "round", "stroke-linecap": "butt"}
REFERENCE = re.compile(r"(?<=url\(#)[^)]+")
# Older Matplotlib writes the shorthand, which is no presentation attribute: `italic bold 10px 'DejaVu Sans', Arial`.
FONT = re.compile(r"(?P<words>.*?)(?P<size>[\d.]+px) ")


def inline_svg(figure: Figure, label: str, prefix: str = "chart") -> Markup:
    """`figure` as an <svg> that needs no style sheet; `label` is read out in its place.

    Its text stays text, in the system's font. The ids in it begin with `prefix`, so that charts that differ in it can
    stand in one page. It is as wide as the figure (96 px an inch) where there is room.
    """
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "cervical_d2"}):
        root = fromstring(rendered(figure, format="svg", transparent=True))
    box = root.get("viewBox")
    for element in list(root.iter()):
        _clean(element)
    _name(root, prefix)
    width = round(figure.get_figwidth() * PIXELS)
    size = {"viewBox": box, "width": str(width), "class": "wide" if width > WIDE else "small"}
    root.attrib = {**size, "role": "img", "aria-label": label, **INHERITED}
    return Markup(ElementTree.tostring(root, encoding="unicode"))


def _clean(element: ElementTree.Element) -> None:
    """No namespaces, which HTML does without, no styles, nothing for other programs, no blank text; in place."""
    element.tag = _local(element.tag)
    for child in list(element):
        if _local(child.tag) in DROPPED:
            element.remove(child)
    attributes = {_local(name): " ".join(value.split()) for name, value in element.items()}
    style = attributes.pop("style", "")
    if "href" in attributes:
        attributes["href"] = attributes["href"].replace(" ", "")  # base64 in lines
    element.attrib = {**attributes, **dict(_presentation(style))}
    element.text = element.text if element.text and element.text.strip() else None
    element.tail = None


def _local(name: str) -> str:
    return name.rpartition("}")[2]


def _presentation(style: str) -> Iterator[tuple[str, str]]:
    """The attributes that say what the declarations of `style` say; all but the family of fonts."""
    for declaration in filter(None, map(str.strip, style.split(";"))):
        name, _, value = declaration.partition(":")
        value = value.strip()
        if name == "font" and (found := FONT.match(value)):
            yield "font-size", found["size"]
            for word in found["words"].split():
                yield "font-style" if word in ("italic", "oblique") else "font-weight", word
        elif name != "font-family":
            yield name, value


def _name(root: ElementTree.Element, prefix: str) -> None:
    """Drop the ids that nothing refers to and put `prefix` before the others; in place."""
    used = {name for element in root.iter() for name in _references(element)}
    for element in root.iter():
        if "href" in element.attrib and element.attrib["href"].startswith("#"):
            element.set("href", f"#{prefix}-{element.attrib['href'][1:]}")
        for name, value in element.items():
            element.set(name, value.replace("url(#", f"url(#{prefix}-"))
        identity = element.attrib.pop("id", None)
        if identity in used:
            element.set("id", f"{prefix}-{identity}")


def _references(element: ElementTree.Element) -> Iterator[str]:
    if element.get("href", "").startswith("#"):
        yield element.attrib["href"][1:]
    for value in element.attrib.values():
        yield from REFERENCE.findall(value)
