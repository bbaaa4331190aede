"""How the benchmarks measure and what they answer: rows of the table that `run.py` prints."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

NUM_THREADS = 2


@dataclass(frozen=True)
class Row:
    """One measurement.

    Attributes:
        what: what of ours was measured.
        against: what it was measured beside, in the same run.
        value: ratio of medians, or seconds where `unit` says so.
        asked: the bound.
        sense: whether the bound is a floor or a ceiling.
        detail: the medians behind the value.
        unit: printed after the value.
    """

    what: str
    against: str
    value: float
    asked: float
    sense: Literal["at least", "at most"]
    detail: str
    unit: str = "×"

    @property
    def ok(self) -> bool:
        """Whether the bound is kept."""
        return self.value >= self.asked if self.sense == "at least" else self.value <= self.asked


def alternate(
    actions: Mapping[str, Callable[[], object]], repeats: int, *, warm_ups: int = 1
) -> dict[str, list[float]]:
    """Time actions in turns, so that a busy machine slows all of them.

    Args:
        actions: what to time, by name.
        repeats: timed turns.
        warm_ups: turns before them that do not count.
    Returns:
        seconds of each turn, by name.
    """
    seconds: dict[str, list[float]] = {name: [] for name in actions}
    for turn in range(warm_ups + repeats):
        for name, action in actions.items():
            began = time.perf_counter()
            action()
            if turn >= warm_ups:
                seconds[name].append(time.perf_counter() - began)
    return seconds


def ratio_of_medians(numerator: Sequence[float], denominator: Sequence[float]) -> float:
    """Median of the one over the median of the other."""
    return statistics.median(numerator) / statistics.median(denominator)


def table(rows: Sequence[Row]) -> str:
    """Rows as a Markdown table."""
    lines = ["| what | against | ratio (of medians) | asked | ok |", "|---|---|---|---|---|"]
    for row in rows:
        bound = f"{'≥' if row.sense == 'at least' else '≤'} {row.asked:g}{row.unit}"
        verdict = "yes" if row.ok else "no"
        lines.append(f"| {row.what} | {row.against} | {row.value:.3g}{row.unit} ({row.detail}) | {bound} | {verdict} |")
    return "\n".join(lines)
