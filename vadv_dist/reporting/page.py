"""The page around a report's sections: one document that loads nothing and runs nothing."""

from collections.abc import Sequence
from dataclasses import dataclass

from vadv_dist.reporting.markup import Markup, join, tag
from vadv_dist.reporting.style import STYLE

# No script, no request: what a clip's text could smuggle in would still find nothing to run on.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"


@dataclass(frozen=True)
class Section:
    """A part of the page: its anchor, heading, one line of explanation, and content."""

    anchor: str
    title: str
    note: str
    content: Markup


def document(title: str, header: str, sections: Sequence[Section], footer: str) -> str:
    """The whole page."""
    links = (tag("a", section.title, href=f"#{section.anchor}") for section in sections)
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        tag("meta", name_="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name_="color-scheme", content="light dark"),
        tag("link", rel="icon", href="data:,"),
        tag("title", title),
        tag("style", Markup(STYLE)),
    )
    body = tag(
        "body",
        tag("header", tag("div", header, class_="page")),
        tag("nav", tag("div", *links, class_="page"), aria_label="Sections"),
        tag("main", *map(_section, sections), class_="page"),
        tag("footer", tag("div", footer, class_="page")),
    )
    return "<!doctype html>\n" + tag("html", head, body, lang="en") + "\n"


def grid(figures: Sequence[str], class_: str = "") -> Markup:
    """Figures side by side, as many as fit."""
    return tag("div", *figures, class_=f"grid-of {class_}".strip())


def folded(summary: str, *content: str) -> Markup:
    """Content that is shown when asked for."""
    return tag("details", tag("summary", summary), *content)


def _section(section: Section) -> Markup:
    heading = join(tag("h2", section.title), tag("p", section.note, class_="about") if section.note else "")
    return tag("section", heading, section.content, id=section.anchor)
