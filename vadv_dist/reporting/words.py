"""How readers, metrics and quantities are named and written, on the page and on the terminal."""

import math

SPLITS = {"train": "training", "valid": "validation", "test": "test"}
MISSING = "–"


def score(value: float | None, *, percent: bool) -> str:
    """A metric's value: three decimals, or percent with one; a dash where there is none."""
    if value is None or not math.isfinite(value):
        return MISSING
    return (f"{value:.1%}" if percent else f"{value:.3f}").replace("-", "−")


def signed(value: float | None, *, percent: bool) -> str:
    """A difference, with its sign; of percentages in points."""
    if value is None or not math.isfinite(value):
        return MISSING
    text = f"{100 * value:+.1f}" if percent else f"{value:+.3f}"
    return text.replace("-", "−")


def decimals(value: float) -> str:
    """A value of any size in four digits; 5e-05 is written 5e-5."""
    mantissa, _, exponent = f"{value:.4g}".partition("e")
    return (f"{mantissa}e{int(exponent)}" if exponent else mantissa).replace("-", "−")


def whole(count: int) -> str:
    """A count with thousands apart."""
    return f"{count:,}".replace(",", "\u202f")


def clips(count: int, split: str | None = None) -> str:
    """A number of clips, as `640 test clips`."""
    kind = f"{SPLITS.get(split, split)} " if split else ""
    return f"{whole(count)} {kind}{'clip' if count == 1 else 'clips'}"


def parameters(count: int) -> str:
    """A number of weights, as `22.7 M`."""
    for size, unit in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return str(count)


def duration(seconds: float) -> str:
    """A time span in its two largest units."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"
