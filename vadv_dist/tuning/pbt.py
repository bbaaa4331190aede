"""Decisions of population-based training, as pure functions: which trial continues from which, with which values.

Quantiles and perturbations are those of Ray Tune's PopulationBasedTraining; why it is not used: `tune_adapters.py`.
Every draw depends only on the search's seed, the epoch and the trial, and values stay inside the space.

Source:
    Jaderberg et al., Population Based Training of Neural Networks (arXiv:1711.09846).
"""

import math
import random
from collections.abc import Mapping
from typing import TypedDict

from vadv_dist.config import Config
from vadv_dist.config.search import SearchConfig
from vadv_dist.errors import UserError
from vadv_dist.tuning.space import Entry, Space, Value, Values, with_values

# Section 4 of the paper.
FACTORS = (1.2, 0.8)
# Draws until the configuration accepts the values; a space where most are refused should be changed.
_ATTEMPTS = 50


class Exploit(TypedDict):
    """A trial that continues from another one.

    Args:
        trial: the trial whose weights are replaced.
        source: the trial whose weights, moments and values it takes.
        values: the values that it continues with.
        how: how each searched field was changed.
    """

    trial: int
    source: int
    values: dict[str, Value]
    how: dict[str, str]


def quantiles(costs: Mapping[int, float], quantile: float) -> tuple[list[int], list[int]]:
    """Return the worst and the best trials, both in the order of their costs.

    Args:
        costs: validation cost by trial.
        quantile: share of the trials on each side, rounded up; no trial is on both.
    """
    ranked = sorted(costs, key=lambda trial: (costs[trial], trial))
    count = min(math.ceil(len(ranked) * quantile), len(ranked) // 2)
    return ranked[len(ranked) - count :], ranked[:count]


def decide(
    costs: Mapping[int, float],
    values: Mapping[int, Values],
    epoch: int,
    *,
    space: Space,
    base: Config,
    search: SearchConfig,
) -> list[Exploit]:
    """Let each trial of the worst quantile continue from one of the best.

    Args:
        costs: validation cost by trial at the end of the last epoch.
        values: values of each trial.
        epoch: number of epochs trained so far.
        space, base, search: what is searched.
    """
    worst, best = quantiles(costs, search.quantile)
    exploits = []
    for trial in worst:
        draw = random.Random(f"{search.seed}/{epoch}/{trial}")
        source = draw.choice(best)
        exploit = Exploit(trial=trial, source=source, values=dict(values[source]), how={})
        for _ in range(_ATTEMPTS):
            explored, how = explore(values[source], draw, space, base, search.resample)
            try:
                with_values(base, explored)
            except UserError:
                continue  # for example, no term would train the student
            exploit = Exploit(trial=trial, source=source, values=explored, how=how)
            break
        exploits.append(exploit)
    return exploits


def explore(
    values: Values, draw: random.Random, space: Space, base: Config, resample: float
) -> tuple[dict[str, Value], dict[str, str]]:
    """Change every searched field: sample it anew with probability `resample`, otherwise perturb it.

    Returns:
        the values, and how each field was changed.
    """
    explored: dict[str, Value] = {}
    how: dict[str, str] = {}
    for entry in space.entries:
        if not space.applies(entry, explored, base):
            continue
        if entry.kind == "fixed":
            explored[entry.field] = entry.choices[0]
        elif entry.field not in values or draw.random() < resample:
            explored[entry.field], how[entry.field] = entry.draw(draw.getrandbits(32)), "sampled anew"
        else:
            explored[entry.field], how[entry.field] = perturb(entry, values[entry.field], draw)
    return explored, how


def perturb(entry: Entry, value: Value, draw: random.Random) -> tuple[Value, str]:
    """Change a value a little: multiply a number by 0.8 or 1.2 within its bounds, or move to a neighbouring choice.

    Zero stays zero, so only a new sample can enable a term again.
    """
    if entry.kind == "categorical":
        place = entry.choices.index(value) + draw.choice((-1, 1))
        return entry.choices[min(max(place, 0), len(entry.choices) - 1)], "neighbour"
    factor = draw.choice(FACTORS)
    assert isinstance(value, int | float)
    if value == 0:
        return value, "stays 0"
    moved = min(max(value * factor, entry.low), entry.high)
    if entry.step:
        moved = entry.low + round((moved - entry.low) / entry.step) * entry.step
    return (round(moved) if entry.kind == "int" else moved), f"× {factor}"
