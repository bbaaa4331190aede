"""Formats of metrics and quantities, on the page and in the terminal."""

import math
from collections.abc import Mapping
from typing import Any

SPLITS = {"train": "training", "valid": "validation", "test": "test"}
MISSING = "–"
_INPUTS = {"text": "text", "video": "video", "text_and_video": "both"}


def score(value: float | None, *, percent: bool) -> str:
    """A metric's value: three decimals, or percent with one; a dash if there is none."""
    if value is None or not math.isfinite(value):
        return MISSING
    return (f"{value:.1%}" if percent else f"{value:.3f}").replace("-", "−")


def decimals(value: float) -> str:
    """A value of any size in four digits; 5e-05 is written 5e-5."""
    mantissa, _, exponent = f"{value:.4g}".partition("e")
    return (f"{mantissa}e{int(exponent)}" if exponent else mantissa).replace("-", "−")


def whole(count: int) -> str:
    """A count with thousands separated."""
    return f"{count:,}".replace(",", "\u202f")


def clips(count: int, split: str | None = None) -> str:
    """A number of clips, such as `640 test clips`."""
    kind = f"{SPLITS[split]} " if split else ""
    return f"{whole(count)} {kind}{'clip' if count == 1 else 'clips'}"


def best_attainable(truth: Mapping[str, Any], metric: str) -> dict[str, float]:
    """The best possible scores on a synthetic data set by input, from `truth` of its `dataset.json`."""
    best = truth.get(f"best_{metric}", {})
    return {name: best[key][metric] for key, name in _INPUTS.items() if key in best}
