"""Population-based training's decisions: who goes on from whom, and with which values (Jaderberg et al. 2017).

Pure: scores and values in, decisions out. Quantiles and perturbations are those of Ray Tune's PopulationBasedTraining,
whose scheduler cannot be had without Ray Tune's runner and its memory of the driver; here every draw depends on the
search's seed, the epoch and the trial alone, and values stay inside the space.

Source:
    Jaderberg et al., Population Based Training of Neural Networks (arXiv:1711.09846).
"""

import math
import random
from collections.abc import Mapping
from dataclasses import dataclass

from vadv_dist.config import Config
from vadv_dist.config.search import SearchConfig
from vadv_dist.errors import UserError
from vadv_dist.tuning.space import Entry, Space, Value, with_values

Values = Mapping[str, Value]
# Section 4 of the paper.
FACTORS = (1.2, 0.8)
# Draws until the config accepts what came out; a space where most do not is one to be repaired.
_ATTEMPTS = 50


@dataclass(frozen=True)
class Exploit:
    """A trial that replaces its weights by another one's.

    Args:
        trial: which gives up.
        source: whose weights, moments and values it takes.
        values: those it goes on with.
        how: what became of each searched field of the source.
    """

    trial: int
    source: int
    values: dict[str, Value]
    how: dict[str, str]


def quantiles(scores: Mapping[int, float], quantile: float) -> tuple[list[int], list[int]]:
    """Return the worst and the best trials, the best first.

    Args:
        scores: validation cost by trial.
        quantile: share of the trials that either side holds, rounded up, but no trial is on both.
    """
    ranked = sorted(scores, key=lambda trial: (scores[trial], trial))
    count = min(math.ceil(len(ranked) * quantile), len(ranked) // 2)
    return ranked[len(ranked) - count :], ranked[:count]


def decide(
    scores: Mapping[int, float],
    values: Mapping[int, Values],
    epoch: int,
    *,
    space: Space,
    base: Config,
    search: SearchConfig,
) -> list[Exploit]:
    """Let each trial of the worst quantile continue from one of the best.

    Args:
        scores: validation cost by trial, of the epoch that has just ended.
        values: what each trial was trained with.
        epoch: epochs trained so far.
        space, base, search: what is searched.
    """
    worst, best = quantiles(scores, search.quantile)
    exploits = []
    for trial in worst:
        draw = random.Random(f"{search.seed}/{epoch}/{trial}")
        source = draw.choice(best)
        exploits.append(Exploit(trial, source, *_accepted(values[source], draw, space, base, search.resample)))
    return exploits


def _accepted(
    values: Values, draw: random.Random, space: Space, base: Config, resample: float
) -> tuple[dict[str, Value], dict[str, str]]:
    for _ in range(_ATTEMPTS):
        explored, how = explore(values, draw, space, base, resample)
        try:
            with_values(base, explored)
        except UserError:
            continue  # weights that train no student, say
        return explored, how
    return dict(values), {}


def explore(
    values: Values, draw: random.Random, space: Space, base: Config, resample: float
) -> tuple[dict[str, Value], dict[str, str]]:
    """Change every searched field: sample it anew with probability `resample`, else perturb it.

    Returns:
        the values, and in words what was done to each field.
    """
    explored: dict[str, Value] = {}
    how: dict[str, str] = {}
    for entry in space.entries:
        if not space.applies(entry, explored, base):
            continue
        if entry.kind == "fixed":
            explored[entry.field] = entry.choices[0]
        elif entry.field not in values or draw.random() < resample:
            explored[entry.field], how[entry.field] = entry.draw(draw), "drawn anew"
        else:
            explored[entry.field], how[entry.field] = perturb(entry, values[entry.field], draw)
    return explored, how


def perturb(entry: Entry, value: Value, draw: random.Random) -> tuple[Value, str]:
    """Move a value a little: a number times 0.8 or 1.2, within its bounds; a choice to its neighbour in the list.

    Zero stays zero: only a new draw brings a term back.
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
