"""Plots as SVG for a page whose content security policy forbids style attributes and external files."""

import re
from collections.abc import Iterator
from xml.etree import ElementTree

import matplotlib
from defusedxml.ElementTree import fromstring
from markupsafe import Markup
from matplotlib.figure import Figure

from cervical_d2.report.axes import rendered

PIXELS = 96  # CSS pixels per inch
WIDE = 560  # px; wider charts are not shrunk below this width, so that their text stays readable
DROPPED = ("metadata", "style")
# Replaces Matplotlib's <style>, which applies to all elements.
INHERITED = {"font-family": "system-ui, sans-serif", "stroke-linejoin": "round", "stroke-linecap": "butt"}
REFERENCE = re.compile(r"(?<=url\(#)[^)]+")
# Older Matplotlib writes the shorthand, which is not a presentation attribute: `italic bold 10px 'DejaVu Sans', Arial`.
FONT = re.compile(r"(?P<words>.*?)(?P<size>[\d.]+px) ")


def inline_svg(figure: Figure, label: str, prefix: str = "chart") -> Markup:
    """`figure` as an <svg> element without a style sheet; `label`: text for screen readers.

    Text stays text, in the system's font. All ids start with `prefix`, which must be unique in the page. The width is
    that of the figure (96 px per inch) if there is room.
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
    """Remove namespaces, styles, metadata and blank text, in place."""
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
    """The declarations of `style` as presentation attributes, without font families."""
    for declaration in filter(None, map(str.strip, style.split(";"))):
        name, _, value = declaration.partition(":")
        value = value.strip()
        if name == "font" and (font := FONT.match(value)):
            yield "font-size", font["size"]
            for word in font["words"].split():
                yield "font-style" if word in ("italic", "oblique") else "font-weight", word
        elif name != "font-family":
            yield name, value


def _name(root: ElementTree.Element, prefix: str) -> None:
    """Remove unused ids and add `prefix` to the others, in place."""
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
