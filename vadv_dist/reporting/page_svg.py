"""Matplotlib's SVG as a part of a page: small, in the page's colours and font, with hover titles on its marks."""

import re
from collections.abc import Iterator, Mapping, Sequence
from xml.etree import ElementTree as ET

from vadv_dist.reporting.markup import Markup
from vadv_dist.reporting.style import PALETTE

_VARIABLES = {colour: f"var(--{role})" for role, colour in PALETTE.items()}
_COLOUR = re.compile(r"#[0-9a-f]{6}")
_FONT = re.compile(r"font-(size: 11px|family: [^;]*); ")
_NUMBER = re.compile(r"-?\d+\.\d+")


def page_svg(text: str, label: str, titles: Mapping[str, Sequence[str]]) -> Markup:
    """Rewrite the output of `savefig`.

    Args:
        text: the SVG, without metadata; the marks of a group in `titles` have the same style.
        label: the text for screen readers.
        titles: hover titles, one per mark, by the id of the marks' group.
    Raises:
        ValueError: a group does not have one title per mark.
    """
    root = ET.fromstring(text)
    root.remove(root[0])  # a style sheet that would apply to the whole page
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
        element.text, element.tail = (element.text or "").strip() or None, None
        element.attrib = {
            key.rpartition("}")[2]: _shorter(key, value)
            for key, value in element.attrib.items()
            if not value.startswith("rotate(-0 ")
        }
    for group in root.iter("g"):
        if said := titles.get(group.attrib.pop("id", "")):
            marks = [mark for child in group if child.tag != "defs" for mark in child.iter() if mark.tag != "g"]
            if len(marks) != len(said):
                raise ValueError(f"picture {label!r} has {len(marks)} marks and {len(said)} titles in a group")
            group[:] = [*group.findall("defs"), *marks]
            group.set("style", marks[0].attrib["style"])
            for mark, words in zip(marks, said, strict=True):
                del mark.attrib["style"]
                ET.SubElement(mark, "title").text = words
    root[:] = list(_unwrapped(root))
    root.attrib = {"viewBox": root.attrib["viewBox"], "role": "img", "aria-label": label}
    return Markup(ET.tostring(root, encoding="unicode"))


def _unwrapped(parent: ET.Element) -> Iterator[ET.Element]:
    """Elements outside of groups without a style."""
    for child in parent:
        if child.tag == "g" and not child.attrib:
            yield from _unwrapped(child)
        else:
            yield child


def _shorter(key: str, value: str) -> str:
    """An attribute with a tenth of a pixel, the page's variables for colours, and the page's font."""
    if key == "style":
        value = _FONT.sub("", value).replace("; ", ";").replace(": ", ":")
        return _COLOUR.sub(lambda found: _VARIABLES.get(found[0], found[0]), value)
    if key in ("d", "x", "y", "transform"):
        value = _NUMBER.sub(lambda found: f"{round(float(found[0]), 1):g}", value)
    return re.sub(r"\s*([A-Za-z])\s*", r"\1", value).strip() if key == "d" else value
