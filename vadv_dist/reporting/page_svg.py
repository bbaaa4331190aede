"""Matplotlib's SVG as a part of a page: small, in the page's colours and font, with titles on its marks."""

import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from xml.etree import ElementTree as ET

from vadv_dist.reporting.markup import Markup
from vadv_dist.reporting.style import PALETTE

_VARIABLES = {colour: f"var(--{role})" for role, colour in PALETTE.items()}
_COLOUR = re.compile(r"#[0-9a-f]{6}")
_NUMBER = re.compile(r"-?\d+\.\d+")
_COORDINATES = ("d", "x", "y", "transform")


def page_svg(text: str, name: str, label: str, titles: Mapping[str, Sequence[str]]) -> Markup:
    """Rewrite what `savefig` wrote.

    Args:
        text: the SVG; groups whose id is in `titles` hold one mark per title.
        name: what ids are made from, unique on the page.
        label: what a screen reader says.
        titles: what marks say when pointed at, by the id of their group.
    Raises:
        ValueError: a group has another number of marks than titles.
    """
    root = ET.fromstring(text)
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
        element.text = (element.text or "").strip() or None
        element.tail = None
    _prune(root)
    for group in root.iter("g"):
        if told := titles.get(group.get("id", "")):
            marks = list(_marks(group))
            if len(marks) != len(told):
                raise ValueError(f"picture {name} has {len(marks)} marks and {len(told)} titles in a group")
            for mark, words in zip(marks, told, strict=True):
                ET.SubElement(mark, "title").text = words
    prefix = f"p{zlib.crc32(name.encode()):x}"
    used: dict[str, str] = {}
    for element in root.iter():
        for key in list(element.attrib):
            if key.endswith("}href"):
                target = element.attrib.pop(key)[1:]
                element.set("href", "#" + used.setdefault(target, f"{prefix}-{len(used)}"))
    for element in root.iter():
        _shorten(element, used)
    _flatten(root)
    root.attrib = {"viewBox": root.get("viewBox", ""), "role": "img", "aria-label": label}
    return Markup(ET.tostring(root, encoding="unicode"))


def _marks(group: ET.Element) -> Iterator[ET.Element]:
    for child in group:
        if child.tag in ("use", "path"):
            yield child
        elif child.tag == "g":
            yield from _marks(child)


def _shorten(element: ET.Element, used: Mapping[str, str]) -> None:
    """Colours as the page's variables, no font, a tenth of a pixel, and no id that nothing refers to."""
    identity = element.attrib.pop("id", "")
    places = 2 if identity in used else 1  # the shape of a mark is small
    if identity in used:
        element.set("id", used[identity])
    for key in _COORDINATES:
        if (at := element.get(key)) is not None:
            at = _NUMBER.sub(lambda found: f"{round(float(found[0]), places) + 0.0:g}", at.strip())
            element.set(key, re.sub(r"\s*([MLCQzHV])\s*", r"\1", at))
    if element.get("transform", "").startswith("rotate(-0 "):
        del element.attrib["transform"]
    if (style := element.get("style")) is not None:
        kept = (part for part in style.split("; ") if not part.startswith("font-family"))
        style = _COLOUR.sub(lambda found: _VARIABLES.get(found[0], found[0]), ";".join(kept).replace(": ", ":"))
        element.set("style", style)


def _prune(parent: ET.Element) -> None:
    """Drop what the page has no use for: metadata, the style sheet and clip paths."""
    parent.attrib.pop("clip-path", None)
    for child in list(parent):
        _prune(child)
        if child.tag in ("metadata", "style", "clipPath") or (child.tag in ("defs", "g") and not len(child)):
            parent.remove(child)


def _flatten(parent: ET.Element) -> None:
    """Unwrap groups that say nothing, and write a style that all marks of a group share once."""
    children: list[ET.Element] = []
    for child in list(parent):
        _flatten(child)
        children += list(child) if child.tag == "g" and not child.attrib else [child]
    parent[:] = children
    marks = [child for child in parent if child.tag != "defs"]
    styles = {mark.get("style", "") for mark in marks}
    if parent.tag == "g" and len(marks) > 1 and len(styles) == 1 and "style" not in parent.attrib and styles != {""}:
        parent.set("style", styles.pop())
        for mark in marks:
            del mark.attrib["style"]
