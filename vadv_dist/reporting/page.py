"""The page around a report's sections: one document that loads nothing and runs nothing."""

from collections.abc import Sequence
from dataclasses import dataclass

from vadv_dist.reporting.markup import Markup, join, tag
from vadv_dist.reporting.pictures import Picture
from vadv_dist.reporting.style import STYLE
from vadv_dist.storage import Location, atomic_file, write_text

# No script, no request: what a clip's text could smuggle in would still find nothing to run on.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"


@dataclass(frozen=True)
class Section:
    """A part of the page: its anchor, heading, one line of explanation, and content with these pictures."""

    anchor: str
    title: str
    note: str
    content: Markup
    pictures: Sequence[Picture] = ()


@dataclass(frozen=True)
class Page:
    """A page and its pictures."""

    html: str
    pictures: Sequence[Picture]

    def write(self, path: Location) -> None:
        """Write the page, and beside it each picture for papers: `figures/<name>.png` and `.pdf`.

        Nothing is written before everything is drawn, and the page is written last.
        """
        kinds = ("png", "pdf")
        files = {f"{picture.name}.{kind}": picture.file(kind) for picture in self.pictures for kind in kinds}
        for name, content in files.items():
            with atomic_file(path.parent / "figures" / name) as file:
                file.write_bytes(content)
        write_text(path, self.html)


def document(title: str, header: str, sections: Sequence[Section], footer: str) -> Page:
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
    html = "<!doctype html>\n" + tag("html", head, body, lang="en") + "\n"
    return Page(html, [picture for section in sections for picture in section.pictures])


def grid(pictures: Sequence[Picture], class_: str = "") -> Markup:
    """Pictures side by side, as many as fit."""
    return tag("div", *(picture.html() for picture in pictures), class_=f"grid-of {class_}".strip())


def folded(summary: str, *content: str) -> Markup:
    """Content that is shown when asked for."""
    return tag("details", tag("summary", summary), *content)


def _section(section: Section) -> Markup:
    heading = join(tag("h2", section.title), tag("p", section.note, class_="about") if section.note else "")
    return tag("section", heading, section.content, id=section.anchor)
