"""Small drawings: scales, ticks, axes and lines as SVG that takes its colours from the page."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from vadv_dist.reporting.markup import Markup, join, tag
from vadv_dist.reporting.words import decimals

Point = tuple[float, float]


@dataclass(frozen=True)
class Scale:
    """Maps values in [low, high] to pixels from `start` to `end`; by their logarithm where `log`."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        low, high, at = self.low, self.high, value
        if self.log:
            low, high, at = math.log10(low), math.log10(high), math.log10(value)
        return self.start + (at - low) / (high - low) * (self.end - self.start)

    def clamp(self, value: float) -> float:
        """The nearest value inside the scale."""
        return min(max(value, self.low), self.high)

    def ticks(self, count: int) -> list[float]:
        """About `count` round values inside the scale."""
        return _log_ticks(self.low, self.high) if self.log else linear_ticks(self.low, self.high, count)


@dataclass(frozen=True)
class Axes:
    """The plotting area of one drawing of `width` by `height` pixels."""

    x: Scale
    y: Scale
    width: float
    height: float

    def frame(self, *, x_label: str, x_ticks: int = 5, y_ticks: int = 4) -> Markup:
        """Grid lines, tick labels and the name of the horizontal axis."""
        left, right, bottom = self.x.start, self.x.end, self.y.start
        parts = []
        for value in self.y.ticks(y_ticks):
            at = self.y(value)
            parts.append(tag("line", class_="grid", x1=left, x2=right, y1=at, y2=at))
            parts.append(tag("text", number(value), class_="tick", x=left - 6, y=at + 3.5, text_anchor="end"))
        parts.append(tag("line", class_="axis", x1=left, x2=right, y1=bottom, y2=bottom))
        for value in self.x.ticks(x_ticks):
            at = self.x(value)
            parts.append(tag("line", class_="axis", x1=at, x2=at, y1=bottom, y2=bottom + 4))
            parts.append(tag("text", number(value), class_="tick", x=at, y=bottom + 15, text_anchor="middle"))
        middle = (left + right) / 2
        parts.append(tag("text", x_label, class_="tick", x=middle, y=self.height - 3, text_anchor="middle"))
        return join(*parts)

    def line(self, points: Iterable[Point], class_: str) -> Markup:
        """A line through points, interrupted where one is not drawable on these scales."""
        written, pen_down = [], False
        for x, y in points:
            drawable = math.isfinite(y) and (y > 0 or not self.y.log)
            if drawable:
                written.append(f"{'L' if pen_down else 'M'}{self.x(x):.1f} {self.y(self.y.clamp(y)):.1f}")
            pen_down = drawable
        return tag("path", d="".join(written), class_=f"line {class_}") if written else Markup()

    def dot(self, point: Point, class_: str, radius: float, title: str) -> Markup:
        """A dot that names itself when pointed at."""
        x, y = self.x(self.x.clamp(point[0])), self.y(self.y.clamp(point[1]))
        return tag("circle", tag("title", title), cx=x, cy=y, r=radius, class_=class_)


def axes(
    width: float,
    height: float,
    x_range: tuple[float, float],
    y_range: tuple[float, float],
    *,
    log_y: bool = False,
) -> Axes:
    """Axes with margins that hold tick labels."""
    return Axes(
        x=Scale(*_widened(x_range), start=40, end=width - 10),
        y=Scale(*(y_range if log_y else _widened(y_range)), start=height - 36, end=8, log=log_y),
        width=width,
        height=height,
    )


def drawing(area: Axes, label: str, *parts: str) -> Markup:
    """One SVG image that a screen reader announces as `label`."""
    return tag(
        "svg",
        *parts,
        viewBox=f"0 0 {area.width:g} {area.height:g}",
        role="img",
        aria_label=label,
    )


def linear_ticks(low: float, high: float, count: int) -> list[float]:
    """About `count` multiples of 1, 2 or 5 times a power of ten in [low, high]."""
    rough = (high - low) / max(count, 1)
    if rough <= 0 or not math.isfinite(rough):
        return [low]
    power = 10.0 ** math.floor(math.log10(rough))
    step = power * min((1, 2, 5, 10), key=lambda multiple: abs(math.log(multiple * power / rough)))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(index * step, 12) for index in range(first, last + 1)]


def number(value: float) -> str:
    """A tick's value, short, with a true minus sign and k for thousands."""
    if abs(value) >= 10_000:
        return f"{value / 1000:g}k".replace("-", "−")
    return decimals(value)


def thin(points: Sequence[Point], most: int = 600) -> list[Point]:
    """At most about `most` of many points: the lowest and highest of each stretch, so that spikes stay."""
    if len(points) <= most:
        return list(points)
    stretch = math.ceil(2 * len(points) / most)
    kept: list[Point] = []
    for start in range(0, len(points), stretch):
        part = points[start : start + stretch]
        ends = {min(part, key=lambda point: point[1]), max(part, key=lambda point: point[1])}
        kept += sorted(ends)
    return kept


def _log_ticks(low: float, high: float) -> list[float]:
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    multiples = (1,) if high / low > 300 else (1, 3) if high / low > 30 else (1, 2, 5)
    # Rounding keeps 3 * 10**-1 from being written as 0.30000000000000004.
    ticks = [float(f"{multiple * 10.0**power:.6g}") for power in powers for multiple in multiples]
    return [value for value in ticks if low * 0.999 <= value <= high * 1.001]


def _widened(bounds: tuple[float, float]) -> tuple[float, float]:
    """Bounds that are apart, for values that are all the same."""
    low, high = bounds
    if high > low:
        return bounds
    room = abs(low) * 0.1 or 1.0
    return low - room, high + room
