"""Decide whether the best trial improves on the default, with pure functions."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vadv_dist.evaluation.crossed import crossed_interval
from vadv_dist.evaluation.paired import Interval
from vadv_dist.training.clip_errors import ClipErrors
from vadv_dist.tuning.objectives import Objective


@dataclass(frozen=True)
class Candidate:
    """A configuration that was run under several seeds beside the default.

    Args:
        name: what it is called.
        costs: validation score by seed, as a number to minimise.
        gain: how much less it errs than the default under the same seeds, with its interval; None with fewer than two
            seeds in common.
        clips: validation clips whose choice the interval holds, beside that of the seeds; None where it holds the seeds
            alone.
    """

    name: str
    costs: Mapping[int, float]
    gain: Interval | None
    clips: int | None = None

    @property
    def mean(self) -> float:
        """Mean over seeds; infinite without any."""
        return statistics.fmean(self.costs.values()) if self.costs else math.inf


@dataclass(frozen=True)
class Verdict:
    """The outcome of a search.

    Args:
        winner: the candidate of the lowest mean, or None where that is the default.
        sentence: in words, with the interval.
        is_better: whether the interval lies above zero.
    """

    winner: Candidate | None
    sentence: str
    is_better: bool


def t_interval(values: Sequence[float], confidence: float = 0.95) -> Interval:
    """Mean of a few values and Student's interval for it.

    Raises:
        ValueError: fewer than two values.
    """
    from scipy import stats

    if len(values) < 2:
        raise ValueError(f"{len(values)} values have no interval")
    mean = statistics.fmean(values)
    reach = (
        statistics.stdev(values) / math.sqrt(len(values)) * float(stats.t.ppf((1 + confidence) / 2, len(values) - 1))
    )
    return Interval(mean, mean - reach, mean + reach)


def candidate(
    name: str,
    costs: Mapping[int, float],
    default: Mapping[int, float],
    *,
    errors: Mapping[int, ClipErrors] | None = None,
    default_errors: Mapping[int, ClipErrors] | None = None,
    rivals: int = 1,
) -> Candidate:
    """Compare a configuration with the default under the seeds that both have.

    Args:
        name: what it is called.
        costs, default: validation score by seed, as a number to minimise.
        errors, default_errors: absolute error of each clip by seed. Where both have them for all common seeds, on the
            same clips, the interval is one over seeds and clips (`crossed_interval`); otherwise Student's over seeds,
            which takes these clips for all there are.
        rivals: configurations that are compared so. The interval of the one that looks best is widened for the choice
            among them (Bonferroni), or luck would pass for a gain.
    """
    seeds = sorted(costs.keys() & default.keys())
    if len(seeds) < 2:
        return Candidate(name, dict(costs), None)
    confidence = 1 - 0.05 / rivals
    differences = _by_clip(seeds, errors or {}, default_errors or {})
    if differences is not None:
        return Candidate(name, dict(costs), crossed_interval(differences, confidence), clips=differences.shape[1])
    return Candidate(name, dict(costs), t_interval([default[seed] - costs[seed] for seed in seeds], confidence))


def _by_clip(
    seeds: Sequence[int], errors: Mapping[int, ClipErrors], default: Mapping[int, ClipErrors]
) -> npt.NDArray[np.float64] | None:
    """How much less each clip is erred on than by the default, [seeds, clips]; None where that is not known."""
    if not all(seed in errors and seed in default for seed in seeds):
        return None
    clips = list(default[seeds[0]])
    known = [by_clip[seed] for by_clip in (errors, default) for seed in seeds]
    if len(clips) < 2 or any(one.keys() != default[seeds[0]].keys() for one in known):
        return None
    return np.array([[default[seed][clip] - errors[seed][clip] for clip in clips] for seed in seeds])


def decide(default: Mapping[int, float], candidates: Sequence[Candidate], score: Objective) -> Verdict:
    """Name the winner, and say whether it is better than the default.

    Args:
        default: validation cost of the default by seed.
        candidates: as `candidate` gave them.
        score: what the costs are of.
    """
    compared = [c for c in candidates if c.gain is not None]
    if not compared:
        return Verdict(None, "no gain over the default: no other trial could be compared with it", False)
    best = min(compared, key=lambda c: c.mean)
    assert best.gain is not None
    seeds = len(best.costs.keys() & default.keys())
    among = f", widened for the choice among {len(compared)}" if len(compared) > 1 else ""
    # The interval has the sign of the words: of how much less it errs, or of how much more.
    way = "less" if best.gain.mean >= 0 else "more"
    bounds = (best.gain.low, best.gain.high) if way == "less" else (-best.gain.high, -best.gain.low)
    low, high = (signed_cost(value) for value in bounds)
    clips = "" if best.clips is None else f" and {best.clips} clips"
    interval = f"95 % interval {low} … {high} over {seeds} seeds{clips}{among}"
    size = f"{abs(best.gain.mean):.4f}"
    if best.gain.low > 0:
        return Verdict(best, f"better than the default by {size} {score.title} ({best.name}; {interval})", True)
    sentence = f"no gain over the default: {best.name} errs by {size} {score.title} {way} ({interval})"
    return Verdict(best if best.gain.mean > 0 else None, sentence, False)


def spread(default: Mapping[int, float], score: Objective) -> str:
    """The noise of training, in words."""
    values = [score.value(cost) for cost in default.values()]
    if len(values) < 2:
        return "unknown: the default ran under one seed alone"
    mean, deviation = statistics.fmean(values), statistics.stdev(values)
    return f"{score.title} {mean:.4f} ± {deviation:.4f} over {len(values)} seeds"


def signed_cost(value: float) -> str:
    """A difference of costs: those between seeds begin at the third decimal, so four are shown."""
    return f"{value:+.4f}".replace("-", "−")
