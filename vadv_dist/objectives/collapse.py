"""Weights under which the student's own term no longer counts."""

import math
from collections.abc import Mapping
from typing import NamedTuple

# The gradients of all terms are clipped as one: a term of a hundred times the weight leaves the student's a percent.
COLLAPSE_RATIO = 100.0


class Collapse(NamedTuple):
    """A term that hides the student's own.

    Attributes:
        term: its name.
        ratio: its weight over that of the student's term.
    """

    term: str
    ratio: float


def find_collapse(weights: Mapping[str, float], own: str) -> Collapse | None:
    """The heaviest term, where its weight is at least `COLLAPSE_RATIO` times that of the term `own`.

    Args:
        weights: mean weights over some steps, by term.
        own: the term that trains the model in question; nothing is found where it is not weighed.
    """
    if own not in weights:
        return None
    term, heaviest = max(weights.items(), key=lambda entry: entry[1])
    if heaviest <= 0 or heaviest < COLLAPSE_RATIO * weights[own]:
        return None
    return Collapse(term, heaviest / weights[own] if weights[own] > 0 else math.inf)
