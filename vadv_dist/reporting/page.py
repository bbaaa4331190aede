"""The page around a report's sections: one self-contained HTML document without scripts."""

from collections.abc import Sequence
from dataclasses import dataclass

from vadv_dist import __version__
from vadv_dist.reporting.markup import Markup, tag
from vadv_dist.reporting.pictures import Picture
from vadv_dist.reporting.style import STYLE
from vadv_dist.storage import Location, atomic_file, write_text

# No scripts and no requests, whatever the text of a clip contains.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"


@dataclass(frozen=True)
class Section:
    """A section of the page.

    Attributes:
        anchor: its id.
        title: its heading.
        note: a line of explanation.
        content: its markup, including the pictures.
        pictures: the pictures in it.
    """

    anchor: str
    title: str
    note: str
    content: Markup
    pictures: Sequence[Picture] = ()


# Folder of a page's pictures as files, beside it.
FIGURES = "figures"


@dataclass(frozen=True)
class Page:
    """A page and its pictures."""

    html: str
    pictures: Sequence[Picture]

    def write(self, path: Location) -> None:
        """Write the page, and each picture for papers: `figures/<name>.png` and `.pdf` in the same folder.

        Nothing is written before everything is drawn, and the page is written last.
        """
        kinds = ("png", "pdf")
        files = {f"{picture.name}.{kind}": picture.file(kind) for picture in self.pictures for kind in kinds}
        for name, content in files.items():
            with atomic_file(path.parent / FIGURES / name) as file:
                file.write_bytes(content)
        self.write_html(path)

    def write_html(self, path: Location) -> None:
        """Write the page without files of its pictures, which are in it."""
        write_text(path, self.html)


def document(title: str, header: str, sections: Sequence[Section | None], command: str) -> Page:
    """The page of the given sections; `command` is the command that writes it."""
    shown = [section for section in sections if section is not None]
    links = (tag("a", section.title, href=f"#{section.anchor}") for section in shown)
    footer = tag(
        "div", "Written by ", tag("code", command), f" of vadv {__version__}. This page loads nothing.", class_="page"
    )
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
        tag("main", *map(_section, shown), class_="page"),
        tag("footer", footer),
    )
    html = "<!doctype html>\n" + tag("html", head, body, lang="en") + "\n"
    return Page(html, [picture for section in shown for picture in section.pictures])


def grid(pictures: Sequence[Picture], class_: str = "") -> Markup:
    """Pictures side by side, as many as fit."""
    return tag("div", *(picture.html() for picture in pictures), class_=f"grid-of {class_}".strip())


def folded(summary: str, *content: str) -> Markup:
    """Content that is hidden until the reader opens it."""
    return tag("details", tag("summary", summary), *content)


def _section(section: Section) -> Markup:
    note = tag("p", section.note, class_="about") if section.note else ""
    return tag("section", tag("h2", section.title), note, section.content, id=section.anchor)
