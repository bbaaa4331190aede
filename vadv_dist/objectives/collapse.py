"""Detect weights with which the student's own term no longer matters."""

import math
from collections.abc import Mapping

# The gradients of all terms are clipped together: a term with 100 times the weight leaves 1 % to the student's term.
COLLAPSE_RATIO = 100.0


def find_collapse(weights: Mapping[str, float], own: str | None) -> tuple[str, float] | None:
    """Return the heaviest term and its weight as a multiple of that of `own`, if that is at least `COLLAPSE_RATIO`.

    Args:
        weights: mean weights over some steps, by term.
        own: the term that trains the model in question; the result is None if it has no weight.
    """
    if own is None or own not in weights:
        return None
    term, heaviest = max(weights.items(), key=lambda entry: entry[1])
    if heaviest <= 0 or heaviest < COLLAPSE_RATIO * weights[own]:
        return None
    return term, heaviest / weights[own] if weights[own] > 0 else math.inf
