"""Pictures drawn by matplotlib: their axes, marks and colours, and their files for papers.

A point of matplotlib is a pixel of the page. Every colour is one of the page's palette, so that the page can replace it
by a variable and follow the reader's light or dark mode.
"""

import io
import math
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from vadv_dist.reporting.markup import Markup, join, tag
from vadv_dist.reporting.page_svg import page_svg
from vadv_dist.reporting.style import PALETTE
from vadv_dist.reporting.words import decimals

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes

Point = tuple[float, float]

SMALL = (320, 190)
WIDE = (380, 220)

# A role is told by shape as well as by colour.
_MARKERS = {"o2": "s", "o3": "D"}
_DASHES: dict[str, tuple[float, tuple[float, ...]]] = {"o2": (0, (3.4, 1.7)), "o3": (0, (1.1, 1.7))}
_FONT = 11
_SETTINGS: dict[Any, Any] = {
    "font.size": _FONT,
    "text.parse_math": False,  # names may hold a dollar sign
    "svg.fonttype": "none",
    "svg.hashsalt": "vadv",
    "pdf.fonttype": 42,  # TrueType, which journals ask for
}
_FIXED = {"svg": {"Date": None}, "pdf": {"CreationDate": None}, "png": {}}


class Picture:
    """One picture: axes to draw on, and what is written around them.

    Args:
        name: of its files, and unique on its page.
        caption: its title.
        size: width and height in pixels of the page.
    Attributes:
        axes: where it is drawn; set up by `frame` before anything is drawn.
        label: what a screen reader says.
        note: what stands beside the caption on the page.
        keys: title and role of each kind of mark.
    """

    def __init__(self, name: str, caption: str, size: tuple[float, float] = SMALL) -> None:
        from matplotlib.figure import Figure

        self.name, self.caption = re.sub(r"[^\w.-]+", "-", name, flags=re.ASCII), caption
        self.label, self.note = caption, Markup()
        self.keys: list[tuple[str, str]] = []
        self._margin = 40
        self._titles: dict[str, Sequence[str]] = {}
        with _settings():
            self._figure = Figure(figsize=(size[0] / 72, size[1] / 72))
            self.axes: Axes = self._figure.add_subplot()
        self._figure.patch.set_visible(False)
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
        """Set the ranges of both axes, with grid lines from the vertical one."""
        from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

        axes = self.axes
        axes.set_xlim(x if log_x else widened(x))
        axes.set_ylim(y if log_y else widened(y))
        if log_x:
            axes.set_xscale("log")
        if log_y:
            axes.set_yscale("log")
        for axis, (low, high), log, count in ((axes.xaxis, x, log_x, ticks[0]), (axes.yaxis, y, log_y, ticks[1])):
            round_steps = [1, 2, 5, 10]
            axis.set_major_locator(
                LogLocator(subs=_multiples(high / low))
                if log
                else MaxNLocator(count, steps=round_steps, integer=whole_x and axis is axes.xaxis, min_n_ticks=1)
            )
            axis.set_minor_locator(NullLocator())
            axis.set_major_formatter(FuncFormatter(lambda value, _: number(value)))
        axes.spines["bottom"].set(visible=True, color=PALETTE["label"], linewidth=1)
        axes.tick_params(axis="x", length=4, pad=3)
        axes.tick_params(axis="y", pad=6)
        axes.grid(axis="y", color=PALETTE["grid"], linewidth=1)
        axes.set_axisbelow(True)
        axes.set_xlabel(x_label, color=PALETTE["quiet"], fontsize=_FONT, labelpad=3)

    def rows(self, names: Sequence[str], values: Sequence[str], x: tuple[float, float], **frame: Any) -> None:
        """Rows from top to bottom, at y = 0, 1, …: each with its name and value above its marks."""
        self.frame(x, (len(names) - 0.5, -0.75), **frame)
        self.axes.yaxis.set_visible(False)
        self._margin = 0
        across = self.axes.get_yaxis_transform()
        for row, (name, value) in enumerate(zip(names, values, strict=True)):
            self.text(0, row, shortened(name, 40), offset=(0, 9), coordinates=across, color=PALETTE["ink"])
            self.text(1, row, value, offset=(0, 9), coordinates=across, ha="right")

    def line(
        self, points: Sequence[Point], role: str, *, width: float = 1.8, dashed: Any = None, **look: Any
    ) -> "Artist":  # fmt: skip
        """A line through points, interrupted where one cannot be drawn."""
        x, y = self._inside(points)
        look = {"color": PALETTE[role], "linestyle": dashed or _DASHES.get(role, "-"), "linewidth": width, **look}
        drawn: Artist = self.axes.plot(x, y, solid_joinstyle="round", clip_on=False, **look)[0]
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
        """Marks that name themselves when pointed at; one beyond the axes is drawn on their edge."""
        if not points:
            return
        colour, hollow = PALETTE[role], hollow or role == "other"
        look: dict[str, Any] = {"facecolors": "none" if hollow else colour, "edgecolors": colour if hollow else "none"}
        if marker:  # of lines alone
            look = {"color": colour}
        size = (2 * radius) ** 2 * (0.8 if role in _MARKERS else 1)
        width = 1.5 if hollow or marker else 0
        look |= {"marker": marker or _MARKERS.get(role, "o"), "alpha": alpha, "linewidths": width}
        self.title(self.axes.scatter(*self._inside(points), s=size, clip_on=False, **look), titles)

    def text(
        self, x: float, y: float, words: str, *, offset: Point = (0, 0), coordinates: Any = "data", **look: Any
    ) -> None:
        """Words at a point, moved by `offset` pixels."""
        look = {"color": PALETTE["quiet"], "fontsize": _FONT, "annotation_clip": False, **look}
        self.axes.annotate(words, (x, y), xycoords=coordinates, xytext=offset, textcoords="offset points", **look)

    def title(self, artist: "Artist", titles: Sequence[str]) -> None:
        """Say what each mark of an artist says when pointed at."""
        gid = f"titled-{len(self._titles)}"
        artist.set_gid(gid)
        self._titles[gid] = titles

    def lay_out(self) -> None:
        """Make room for tick labels, and leave out those that would touch another."""
        from matplotlib.text import Text

        axes, figure = self.axes, self._figure
        for words in figure.findobj(Text):
            words.set_parse_math(False)
        width, height = figure.get_size_inches() * figure.dpi
        unit = figure.dpi / 72
        figure.subplots_adjust(
            self._margin * unit / width, 20 * unit / height, 1 - 10 * unit / width, 1 - 8 * unit / height
        )
        figure.draw_without_rendering()
        room, inner = axes.get_tightbbox(), axes.bbox
        assert room is not None
        # Equal margins keep neighbours aligned; long labels get what they need.
        left, right = max(self._margin * unit, inner.x0 - room.x0 + 2), max(10 * unit, room.x1 - inner.x1 + 2)
        bottom, top = inner.y0 - room.y0 + 2, max(8 * unit, room.y1 - inner.y1 + 2)
        figure.subplots_adjust(left / width, bottom / height, 1 - right / width, 1 - top / height)
        for labels, edges, gap in (
            (axes.get_xticklabels(), ("x0", "x1"), 4 * unit),
            (axes.get_yticklabels(), ("y0", "y1"), 0),
        ):
            boxes = [(w, w.get_window_extent()) for w in labels if w.get_text() and not w.get_rotation()]
            end = -math.inf
            for words, box in sorted(boxes, key=lambda pair: getattr(pair[1], edges[0])):
                low, high = (getattr(box, edge) for edge in edges)
                words.set_visible(low >= end)
                end = high + gap if low >= end else end

    def html(self) -> Markup:
        """The picture under its caption, as part of a page."""
        keys = join(*(tag("span", title, class_=f"key {role}") for title, role in self.keys))
        caption = tag("figcaption", tag("b", self.caption), tag("span", keys, self.note, class_="note"))
        svg = page_svg(self._saved("svg").decode(), self.name, self.label, self._titles)
        return tag("figure", caption, svg)

    def file(self, kind: str) -> bytes:
        """The picture as a file for a paper, `png` or `pdf`, with its caption and keys drawn."""
        from matplotlib.lines import Line2D
        from matplotlib.text import Text

        axes = self.axes
        axes.set_title(self.caption, loc="left", fontsize=12, color=PALETTE["ink"], pad=22 if self.keys else 8)
        handles = [
            Line2D(
                [], [], color=PALETTE[role], marker=_MARKERS.get(role, "o"), markersize=5, linestyle="none", label=title
            )
            for title, role in self.keys
        ]
        if handles:
            axes.legend(
                handles=handles, loc="lower left", bbox_to_anchor=(0, 1), ncols=len(handles), frameon=False,
                labelcolor=PALETTE["quiet"], fontsize=_FONT, handlelength=1, handletextpad=0.3, columnspacing=1,
                borderpad=0,
            )  # fmt: skip
        for words in self._figure.findobj(Text):
            words.set_parse_math(False)
        return self._saved(kind, dpi=200, facecolor="white", bbox_inches="tight", pad_inches=0.12)

    def _saved(self, kind: str, **options: Any) -> bytes:
        written = io.BytesIO()
        with _settings(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Glyph .* missing from")  # emoji in a name
            if kind == "svg":
                self.lay_out()
            self._figure.patch.set_visible(kind != "svg")
            self._figure.savefig(written, format=kind, metadata=_FIXED[kind], **options)
        return written.getvalue()

    def _inside(self, points: Sequence[Point]) -> tuple[list[float], list[float]]:
        """Coordinates within the axes; NaN where a point cannot be drawn."""
        (left, right), (bottom, top) = (sorted(ends) for ends in (self.axes.get_xlim(), self.axes.get_ylim()))
        log = self.axes.get_yscale() == "log"
        drawable = [math.isfinite(y) and (y > 0 or not log) for _, y in points]
        return (
            [min(max(x, left), right) for x, _ in points],
            [min(max(y, bottom), top) if ok else math.nan for (_, y), ok in zip(points, drawable, strict=True)],
        )


def widened(bounds: tuple[float, float]) -> tuple[float, float]:
    """Bounds that are apart, for values that are all the same."""
    low, high = bounds
    room = 0.0 if high != low else abs(low) * 0.1 or 1.0
    return low - room, high + room


def number(value: float) -> str:
    """A tick's value, short, with a true minus sign and k for thousands."""
    if abs(value) >= 10_000:
        return f"{value / 1000:g}k".replace("-", "−")
    return decimals(value)


def thin(points: Sequence[Point], most: int = 300) -> list[Point]:
    """At most about `most` of many points: the lowest and highest of each stretch, so that spikes stay."""
    if len(points) <= most:
        return list(points)
    stretch = math.ceil(2 * len(points) / most)
    kept: list[Point] = []
    for start in range(0, len(points), stretch):
        part = points[start : start + stretch]
        kept += sorted({min(part, key=lambda point: point[1]), max(part, key=lambda point: point[1])})
    return kept


def shortened(words: str, most: int) -> str:
    """Words that fit in `most` characters."""
    return words if len(words) <= most else words[: most - 1] + "…"


def _multiples(ratio: float) -> tuple[float, ...]:
    return (1.0,) if ratio > 300 else (1.0, 3.0) if ratio > 30 else (1.0, 2.0, 5.0)


@contextmanager
def _settings() -> Iterator[None]:
    """Matplotlib's defaults and ours, whatever the user's matplotlibrc says; left again afterwards."""
    import matplotlib

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_SETTINGS)
        yield
