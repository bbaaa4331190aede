"""Asynchronous successive halving (Li et al., arXiv:1810.05934), decided from what trials have reported alone.

Optuna's pruner notes in its storage that a trial has passed a rung before it says whether the trial may go on. Killed
between the two, a search that goes on takes the rung for passed, and at the next one enters a later epoch's value for
the rung before: what later trials are compared with has changed. Here a rung has no state of its own.
"""

from collections.abc import Iterable, Mapping

from vadv_dist.config.search import SearchConfig


def is_rung(search: SearchConfig, epochs: int) -> bool:
    """Whether this number of epochs is a rung."""
    rung = search.min_epochs
    while rung < epochs:
        rung *= search.reduction
    return rung == epochs


def passes_rung(search: SearchConfig, epochs: int, cost: float, others: Iterable[Mapping[int, float]]) -> bool:
    """Whether a trial may continue after a rung.

    Args:
        search: the factor by which fewer trials pass a rung than come to it.
        epochs: how many the trial has trained.
        cost: its validation cost then.
        others: validation cost by epochs trained, of every other trial that rungs apply to, ended or not.
    """
    competing = sorted([cost, *(course[epochs] for course in others if epochs in course)])
    # The first few to come to a rung pass it where they are the best so far.
    passing = max(len(competing) // search.reduction, 1)
    return cost <= competing[passing - 1]
