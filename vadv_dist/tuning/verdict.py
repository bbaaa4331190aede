"""Whether a search gained anything: pure numbers in, numbers and words out."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from vadv_dist.evaluation.paired import Interval


@dataclass(frozen=True)
class Candidate:
    """A configuration that was run under several seeds beside the default.

    Args:
        name: what it is called.
        mae: validation MAE by seed.
        gain: how much less it errs than the default under the same seeds, with its interval; None with fewer than two
            seeds in common.
    """

    name: str
    mae: Mapping[int, float]
    gain: Interval | None

    @property
    def mean(self) -> float:
        """Mean over seeds; infinite without any."""
        return statistics.fmean(self.mae.values()) if self.mae else math.inf


@dataclass(frozen=True)
class Verdict:
    """What a search came to.

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


def candidate(name: str, mae: Mapping[int, float], default: Mapping[int, float], *, rivals: int = 1) -> Candidate:
    """Compare a configuration with the default under the seeds that both have.

    Args:
        name: what it is called.
        mae, default: validation MAE by seed.
        rivals: configurations that are compared so. The interval of the one that looks best is widened for the choice
            among them (Bonferroni), or luck would pass for a gain.
    """
    gains = [default[seed] - mae[seed] for seed in sorted(mae.keys() & default.keys())]
    return Candidate(name, dict(mae), t_interval(gains, 1 - 0.05 / rivals) if len(gains) > 1 else None)


def decide(default: Mapping[int, float], candidates: Sequence[Candidate]) -> Verdict:
    """Name the winner, and say whether it is better than the default.

    Args:
        default: validation MAE of the default by seed.
        candidates: as `candidate` gave them.
    """
    compared = [c for c in candidates if c.gain is not None]
    if not compared:
        return Verdict(None, "no gain over the default: no other trial could be compared with it", False)
    best = min(compared, key=lambda c: c.mean)
    assert best.gain is not None
    seeds = len(best.mae.keys() & default.keys())
    among = f", widened for the choice among {len(compared)}" if len(compared) > 1 else ""
    # The interval has the sign of the words: of how much less it errs, or of how much more.
    way = "less" if best.gain.mean >= 0 else "more"
    bounds = (best.gain.low, best.gain.high) if way == "less" else (-best.gain.high, -best.gain.low)
    low, high = (signed_mae(value) for value in bounds)
    interval = f"95 % interval {low} … {high} over {seeds} seeds{among}"
    size = f"{abs(best.gain.mean):.4f}"
    if best.gain.low > 0:
        return Verdict(best, f"better than the default by {size} MAE ({best.name}; {interval})", True)
    sentence = f"no gain over the default: {best.name} errs by {size} MAE {way} ({interval})"
    return Verdict(best if best.gain.mean > 0 else None, sentence, False)


def spread(default: Mapping[int, float]) -> str:
    """The noise of training, in words."""
    values = list(default.values())
    if len(values) < 2:
        return "unknown: the default ran under one seed alone"
    mean, deviation = statistics.fmean(values), statistics.stdev(values)
    return f"MAE {mean:.4f} ± {deviation:.4f} over {len(values)} seeds"


def signed_mae(value: float) -> str:
    """A difference of MAEs: differences between seeds begin at the third decimal, so four are told."""
    return f"{value:+.4f}".replace("-", "−")
