"""Pictures drawn by matplotlib: axes, marks and colours, for the page and as files for papers.

A point of matplotlib is a pixel of the page. All colours come from the palette, so that the page can replace them by
variables and follow the reader's light or dark mode.
"""

import io
import math
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from vadv_dist.reporting.markup import Markup, tag
from vadv_dist.reporting.page_svg import page_svg
from vadv_dist.reporting.style import PALETTE
from vadv_dist.reporting.words import decimals

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.backends.backend_pdf import PdfPages

Point = tuple[float, float]

SMALL = (320, 190)
WIDE = (380, 220)

# Roles differ in shape as well as in colour.
_MARKERS = {"o2": "s", "o3": "D"}
_DASHES: dict[str, tuple[float, tuple[float, ...]]] = {"o2": (0, (3.4, 1.7)), "o3": (0, (1.1, 1.7))}
_FONT = 11
_SETTINGS: dict[Any, Any] = {
    "font.size": _FONT,
    "svg.fonttype": "none",
    "pdf.fonttype": 42,  # TrueType, which journals require
}
_METADATA = {"svg": dict.fromkeys(("Creator", "Date", "Format", "Type")), "pdf": {"CreationDate": None}, "png": {}}
# How a picture is saved for a paper.
_FILE: dict[str, Any] = {"dpi": 200, "facecolor": "white", "bbox_inches": "tight", "pad_inches": 0.12}


class Picture:
    """One picture: axes to draw on, and the text around them.

    Args:
        name: name of its files, unique on its page.
        caption: its title.
        size: width and height in pixels of the page.
    Attributes:
        axes: what it is drawn on; call `frame` first.
        label: the text for screen readers.
        note: the text next to the caption on the page.
        keys: title and role of each kind of mark.
    """

    def __init__(self, name: str, caption: str, size: tuple[float, float] = SMALL) -> None:
        from matplotlib.figure import Figure

        self.name, self.caption = re.sub(r"[^\w.-]+", "-", name, flags=re.ASCII), caption
        self.label, self.note = caption, ""
        self.keys: list[tuple[str, str]] = []
        self._titles: dict[str, Sequence[str]] = {}
        with _settings():
            self._figure = Figure(figsize=(size[0] / 72, size[1] / 72), dpi=72, layout="constrained")
            self.axes: Axes = self._figure.add_subplot()
        self.axes.patch.set_visible(False)
        self.axes.spines[:].set_visible(False)
        self.axes.tick_params(labelsize=_FONT, labelcolor=PALETTE["quiet"], color=PALETTE["label"], length=0)

    def frame(
        self,
        x: tuple[float, float],
        y: tuple[float, float],
        *,
        x_label: str = "",
        log_x: bool = False,
        log_y: bool = False,
        ticks: tuple[int, int] = (5, 5),
        whole_x: bool = False,
    ) -> None:
        """Set the ranges of both axes, with horizontal grid lines."""
        from matplotlib.ticker import LogLocator, MaxNLocator

        axes = self.axes
        axes.set(xscale="log" if log_x else "linear", yscale="log" if log_y else "linear")
        axes.set(xlim=_widened(*x), ylim=_widened(*y))
        for axis, (low, high), log, count in ((axes.xaxis, x, log_x, ticks[0]), (axes.yaxis, y, log_y, ticks[1])):
            if log:
                multiples = (1.0,) if high / low > 300 else (1.0, 3.0) if high / low > 30 else (1.0, 2.0, 5.0)
                axis.set_major_locator(LogLocator(subs=multiples))
            else:
                whole = whole_x and axis is axes.xaxis
                axis.set_major_locator(MaxNLocator(count, steps=[1, 2, 5, 10], integer=whole, min_n_ticks=1))
            axis.set_major_formatter(lambda value, _: number(value))
        axes.minorticks_off()
        axes.spines["bottom"].set(visible=True, color=PALETTE["label"], linewidth=1)
        axes.tick_params(axis="x", length=4, pad=3)
        axes.tick_params(axis="y", pad=6)
        axes.grid(axis="y", color=PALETTE["grid"], linewidth=1)
        axes.set_axisbelow(True)
        axes.set_xlabel(x_label, color=PALETTE["quiet"], fontsize=_FONT, labelpad=3)

    def rows(self, names: Sequence[str], values: Sequence[str], x: tuple[float, float], **frame: Any) -> None:
        """Rows from top to bottom, at y = 0, 1, …, each with its name and value above its marks."""
        self.frame(x, (len(names) - 0.5, -0.75), **frame)
        self.axes.yaxis.set_visible(False)
        across = self.axes.get_yaxis_transform()
        for row, (name, value) in enumerate(zip(names, values, strict=True)):
            self.text(0, row, shortened(name, 40), offset=(0, 9), coordinates=across, color=PALETTE["ink"])
            self.text(1, row, value, offset=(0, 9), coordinates=across, ha="right")

    def line(
        self, points: Sequence[Point], role: str, *, width: float = 1.8, dashed: Any = None, **look: Any
    ) -> "Artist":
        """A line through points, interrupted at NaN."""
        look = {"color": PALETTE[role], "linestyle": dashed or _DASHES.get(role, "-"), "linewidth": width, **look}
        drawn: Artist = self.axes.plot(*self._inside(points), solid_joinstyle="round", **look)[0]
        return drawn

    def dots(
        self,
        points: Sequence[Point],
        role: str,
        titles: Sequence[str],
        *,
        radius: float = 2.5,
        marker: str | None = None,
        hollow: bool = False,
        alpha: float = 1,
    ) -> None:
        """Marks with hover titles; one beyond the axes is drawn on their edge."""
        from matplotlib.markers import MarkerStyle

        if not points:
            return
        style = MarkerStyle(marker or _MARKERS.get(role, "o"), "none" if hollow or role == "other" else "full")
        look: dict[str, Any] = {"marker": style, "linewidths": 0 if style.is_filled() else 1.5, "alpha": alpha}
        size = (2 * radius) ** 2 * (0.8 if role in _MARKERS else 1)
        self.title(self.axes.scatter(*self._inside(points), s=size, color=PALETTE[role], **look), titles)

    def text(
        self, x: float, y: float, words: str, *, offset: Point = (0, 0), coordinates: Any = "data", **look: Any
    ) -> None:
        """Text at a point, moved by `offset` pixels."""
        look = {"color": PALETTE["quiet"], "fontsize": _FONT, "annotation_clip": False, **look}
        self.axes.annotate(words, (x, y), xycoords=coordinates, xytext=offset, textcoords="offset points", **look)

    def title(self, artist: "Artist", titles: Sequence[str]) -> None:
        """Set the hover title of each mark of an artist."""
        gid = f"titled-{len(self._titles)}"
        artist.set_gid(gid)
        self._titles[gid] = titles

    def lay_out(self) -> None:
        """Make room for the tick labels, and hide those that would overlap another."""
        from matplotlib.text import Text

        for artist in self._figure.findobj():
            artist.set_clip_on(False)
            if isinstance(artist, Text):
                artist.set_parse_math(False)  # a name may contain a dollar sign
        self._figure.draw_without_rendering()
        self._figure.set_layout_engine("none")  # its result is kept
        for labels, edges, gap in (
            (self.axes.get_xticklabels(), ("x0", "x1"), 4),
            (self.axes.get_yticklabels(), ("y0", "y1"), 0),
        ):
            boxes = [(w, w.get_window_extent()) for w in labels if w.get_text() and not w.get_rotation()]
            end = -math.inf
            for words, box in sorted(boxes, key=lambda pair: getattr(pair[1], edges[0])):
                low, high = (getattr(box, edge) for edge in edges)
                words.set_visible(low >= end)
                end = high + gap if low >= end else end

    def html(self) -> Markup:
        """The picture under its caption, as part of a page."""
        keys = [tag("span", title, class_=f"key {role}") for title, role in self.keys]
        if "log" in (self.axes.get_xscale(), self.axes.get_yscale()):
            keys.append(tag("span", "log scale", class_="tag"))
        caption = tag("figcaption", tag("b", self.caption), tag("span", self.note, *keys, class_="note"))
        return tag("figure", caption, page_svg(self._saved("svg").decode(), self.label, self._titles))

    def file(self, kind: str) -> bytes:
        """The picture as a file for a paper, `png` or `pdf`, with its caption and keys."""
        self._caption()
        return self._saved(kind, **_FILE)

    def add_to(self, pages: "PdfPages") -> None:
        """Add the picture to a document as a page of its size, with its caption and keys."""
        self._caption()
        with self._drawing():
            self._figure.patch.set_visible(True)
            pages.savefig(self._figure, **_FILE)  # type: ignore[no-untyped-call]  # matplotlib has no types here

    def _caption(self) -> None:
        from matplotlib.lines import Line2D

        self.axes.set_title(self.caption, loc="left", fontsize=12, color=PALETTE["ink"], pad=22 if self.keys else 8)
        if self.keys:
            marks = [
                Line2D([], [], color=PALETTE[role], marker=_MARKERS.get(role, "o"), markersize=5, linestyle="none")
                for _, role in self.keys
            ]
            self.axes.legend(
                marks, [title for title, _ in self.keys], loc="lower left", bbox_to_anchor=(0, 1), ncols=len(marks),
                frameon=False, labelcolor=PALETTE["quiet"], fontsize=_FONT, handlelength=1, handletextpad=0.3,
                columnspacing=1, borderpad=0,
            )  # fmt: skip

    def _saved(self, kind: str, **options: Any) -> bytes:
        written = io.BytesIO()
        with self._drawing():
            self._figure.patch.set_visible(kind != "svg")
            self._figure.savefig(written, format=kind, metadata=_METADATA[kind], **options)
        return written.getvalue()

    @contextmanager
    def _drawing(self) -> Iterator[None]:
        with _settings(**{"svg.hashsalt": self.name}), warnings.catch_warnings():  # ids that are unique on the page
            # A name may contain an emoji, or be too long to leave room for the axes.
            warnings.filterwarnings("ignore", message="Glyph .* missing from|constrained_layout not applied")
            self.lay_out()
            yield

    def _inside(self, points: Sequence[Point]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Coordinates within the axes, [N] each; y is NaN for points that cannot be drawn."""
        x, y = np.array(points, np.float64).reshape(-1, 2).T
        y[~np.isfinite(y) | ((y <= 0) & (self.axes.get_yscale() == "log"))] = np.nan
        (left, right), (bottom, top) = sorted(self.axes.get_xlim()), sorted(self.axes.get_ylim())
        return np.clip(x, left, right), np.clip(y, bottom, top)


def with_room(low: float, high: float, *, log: bool = False) -> tuple[float, float]:
    """Bounds a little outside of the values, so that marks lie inside the axes; a lower bound of zero stays."""
    if log:
        room = (high / low) ** 0.05
        return low / room, high * room
    room = 0.05 * (high - low)
    return low - room if low else low, high + room


def _widened(low: float, high: float) -> tuple[float, float]:
    """Bounds that differ, even if all values are equal."""
    room = 0.0 if high != low else abs(low) * 0.1 or 1.0
    return low - room, high + room


def number(value: float) -> str:
    """A tick's value, short, with a true minus sign and k for thousands."""
    if abs(value) >= 10_000:
        return f"{value / 1000:g}k".replace("-", "−")
    return decimals(value)


def thin(points: Sequence[Point], most: int = 300) -> list[Point]:
    """At most about `most` of many points: the lowest and highest of each stretch, which keeps spikes."""
    if len(points) <= most:
        return list(points)
    stretch = math.ceil(2 * len(points) / most)
    kept: list[Point] = []
    for start in range(0, len(points), stretch):
        part = points[start : start + stretch]
        kept += sorted({min(part, key=lambda point: point[1]), max(part, key=lambda point: point[1])})
    return kept


def shortened(words: str, most: int) -> str:
    """Text of at most `most` characters."""
    return words if len(words) <= most else words[: most - 1] + "…"


def _settings(**others: Any) -> AbstractContextManager[None]:
    """Matplotlib's defaults and ours, regardless of the user's matplotlibrc."""
    from matplotlib import style

    return style.context(["default", {**_SETTINGS, **others}])
