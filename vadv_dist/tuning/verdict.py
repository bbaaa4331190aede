"""Decide whether the best configuration improves on the default, with pure functions."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vadv_dist.evaluation.crossed import crossed_interval
from vadv_dist.evaluation.paired import Interval
from vadv_dist.evaluation.seeds_and_clips import seeds_and_clips
from vadv_dist.reporting.words import MISSING
from vadv_dist.training.clip_errors import ClipErrors
from vadv_dist.tuning.objectives import Objective


@dataclass(frozen=True)
class Candidate:
    """A configuration that was trained with several seeds and compared with the default.

    Args:
        name: its name.
        costs: validation score by seed, as a number to minimise.
        gain: how much lower its cost is than that of the default with the same seeds, with an interval; None with fewer
            than two common seeds.
        clips: number of validation clips whose sampling the interval covers, besides that of the seeds; None if it
            covers only the seeds.
    """

    name: str
    costs: Mapping[int, float]
    gain: Interval | None
    clips: int | None = None

    @property
    def mean(self) -> float:
        """Mean cost over seeds; infinite without any."""
        return statistics.fmean(self.costs.values()) if self.costs else math.inf


@dataclass(frozen=True)
class Verdict:
    """The outcome of a search.

    Args:
        winner: the candidate with the lowest mean cost; None if that is the default.
        sentence: the outcome in words, with the interval.
        is_better: whether the interval lies above zero.
    """

    winner: Candidate | None
    sentence: str
    is_better: bool


def candidate(
    name: str,
    costs: Mapping[int, float],
    default: Mapping[int, float],
    *,
    errors: Mapping[int, ClipErrors] | None = None,
    default_errors: Mapping[int, ClipErrors] | None = None,
    rivals: int = 1,
) -> Candidate:
    """Compare a configuration with the default on their common seeds.

    Args:
        name: its name.
        costs, default: validation score by seed, as a number to minimise.
        errors, default_errors: absolute error of each clip by seed. If both are known for all common seeds and the same
            clips, the interval covers seeds and clips (`crossed_interval`); otherwise it is Student's over seeds, which
            treats these clips as the only ones.
        rivals: number of configurations that are compared. The interval is widened for the choice of the best among
            them (Bonferroni), otherwise luck would count as a gain.
    """
    seeds = sorted(costs.keys() & default.keys())
    if len(seeds) < 2:
        return Candidate(name, dict(costs), None)
    confidence = 1 - 0.05 / rivals
    differences = _by_clip(seeds, errors or {}, default_errors or {})
    if differences is not None:
        return Candidate(name, dict(costs), crossed_interval(differences, confidence), clips=differences.shape[1])
    gain = seeds_and_clips([default[seed] - costs[seed] for seed in seeds], confidence=confidence)
    return Candidate(name, dict(costs), gain)


def _by_clip(
    seeds: Sequence[int], errors: Mapping[int, ClipErrors], default: Mapping[int, ClipErrors]
) -> npt.NDArray[np.float64] | None:
    """How much smaller the error of each clip is than the default's, [seeds, clips]; None if it is not known."""
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
        candidates: results of `candidate`.
        score: the objective of the costs.
    """
    compared = [c for c in candidates if c.gain is not None]
    if not compared:
        return Verdict(None, "no gain over the default: no other configuration could be compared with it", False)
    best = min(compared, key=lambda c: c.mean)
    assert best.gain is not None
    is_gain = best.gain.mean >= 0
    _, bounds = difference_cells(best.gain if is_gain else best.gain.opposite)
    seeds = len(best.costs.keys() & default.keys())
    clips = "" if best.clips is None else f" and {best.clips} clips"
    among = f", widened for the choice among {len(compared)}" if len(compared) > 1 else ""
    interval = f"95 % interval {bounds} over {seeds} seeds{clips}{among}"
    size = f"{abs(best.gain.mean):.4f} {score.title}"
    if best.gain.low > 0:
        return Verdict(best, f"better than the default by {size} ({best.name}; {interval})", True)
    direction = "better" if is_gain else "worse"
    sentence = f"no gain over the default: the mean of {best.name} is {direction} by {size} ({interval})"
    return Verdict(best if best.gain.mean > 0 else None, sentence, False)


def noise_text(default: Mapping[int, float], score: Objective) -> str:
    """How much the default varies between seeds, in words."""
    values = [score.value(cost) for cost in default.values()]
    if len(values) < 2:
        return "unknown, because fewer than two runs of the default succeeded"
    mean, deviation = statistics.fmean(values), statistics.stdev(values)
    return f"{score.title} {mean:.4f} ± {deviation:.4f} over {len(values)} seeds"


def difference_cells(difference: Interval | None) -> list[str]:
    """A difference and its interval for a table; four decimals, because seeds often differ only in the third."""
    if difference is None:
        return [MISSING, MISSING]
    mean, low, high = (f"{value:+.4f}".replace("-", "−") for value in difference)
    return [mean, f"{low} … {high}"]
