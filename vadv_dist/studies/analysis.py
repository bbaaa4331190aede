"""The numbers of a study: cells of its table, and the comparison of every two variants."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from vadv_dist.evaluation.description import Metric, TaskDescription
from vadv_dist.evaluation.paired import Interval
from vadv_dist.evaluation.seeds_and_clips import FloatArray, seeds_and_clips
from vadv_dist.evaluation.significance import aso
from vadv_dist.runs.records import finite
from vadv_dist.studies.scores import RunScores

_SEED = 0  # of the bootstraps: the same runs give the same document


@dataclass(frozen=True)
class Cell:
    """One metric of one variant on one split.

    Attributes:
        values: by seed; a single one, with seed None, for predictions that are not by seed.
        interval: mean and interval over seeds and clips; None if there is neither.
        covers_clips: whether the interval covers the sampling of clips, too.
        asked: number of seeds that were asked for.
        published: the published value.
        best_on_test: on the test split, mean over seeds of the value of whichever checkpoint is best by this metric
            there; None unless asked for.
    """

    values: Mapping[int | None, float]
    interval: Interval | None
    covers_clips: bool
    asked: int
    published: float | None = None
    best_on_test: float | None = None

    @property
    def mean(self) -> float:
        """Mean over seeds; NaN without any."""
        return statistics.fmean(self.values.values()) if self.values else math.nan

    @property
    def deviation(self) -> float | None:
        """Standard deviation between seeds."""
        return statistics.stdev(self.values.values()) if len(self.values) > 1 else None

    @property
    def is_short(self) -> bool:
        """Whether seeds are missing."""
        return len(self.values) < self.asked

    def to_json(self) -> dict[str, Any]:
        """As in study.json."""
        interval = self.interval
        optional = {"published": self.published, "best_on_test": self.best_on_test}
        return {
            "mean": self.mean,
            "sd": self.deviation,
            "low": interval.low if interval else None,
            "high": interval.high if interval else None,
            "covers": "seeds and clips" if self.covers_clips else "seeds",
            "seeds": len(self.values),
            "asked": self.asked,
            **{key: value for key, value in optional.items() if value is not None},
        }


@dataclass(frozen=True)
class Pair:
    """Two variants compared by one metric on one split.

    Attributes:
        a, b: the variants.
        difference: a - b in the metric's unit, with its interval; None without a common seed, or with a single one and
            different clips.
        paired: whether both have the same seeds and were scored on the same clips.
        seeds: number of seeds of the difference.
        epsilon: ε_min of "a is better than b" by Almost Stochastic Order; None with fewer than two seeds of each.
        epsilon_corrected: the same with Bonferroni's correction for all pairs.
    """

    a: str
    b: str
    difference: Interval | None
    paired: bool
    seeds: int
    epsilon: float | None
    epsilon_corrected: float | None

    def to_json(self) -> dict[str, Any]:
        """As in study.json."""
        found = self.difference
        return {
            "a": self.a,
            "b": self.b,
            "difference": found.mean if found else None,
            "low": found.low if found else None,
            "high": found.high if found else None,
            "paired": self.paired,
            "seeds": self.seeds,
            "epsilon_min": self.epsilon,
            "epsilon_min_corrected": self.epsilon_corrected,
        }


@dataclass(frozen=True)
class Analysis:
    """All cells and comparisons.

    Attributes:
        cells: by variant, split and metric.
        pairs: by split and metric, in both directions.
    """

    cells: dict[str, dict[str, dict[str, Cell]]]
    pairs: dict[str, dict[str, list[Pair]]]

    def pair(self, split: str, metric: str, a: str, b: str) -> Pair:
        """One comparison."""
        return next(pair for pair in self.pairs[split][metric] if (pair.a, pair.b) == (a, b))


def analyse(
    scores: Sequence[RunScores],
    metrics: Sequence[Metric],
    *,
    splits: Sequence[str],
    asked: int,
    published: Mapping[str, Mapping[str, float]],
) -> Analysis:
    """Compute all numbers of a study.

    Args:
        scores: all runs, in the order of the variants.
        metrics: the metrics of the tables.
        splits: the scored splits.
        asked: number of seeds of each variant.
        published: published values by variant and metric.
    """
    by_variant: dict[str, list[RunScores]] = {}
    for run in scores:
        by_variant.setdefault(run.variant, []).append(run)
    names = list(by_variant)
    cells: dict[str, dict[str, dict[str, Cell]]] = {name: {} for name in names}
    pairs: dict[str, dict[str, list[Pair]]] = {}
    for split in splits:
        for name, runs in by_variant.items():
            wanted = 1 if all(run.seed is None for run in runs) else asked
            cells[name][split] = {
                m.key: _cell(runs, split, m, wanted, published.get(name, {}).get(m.key)) for m in metrics
            }
        pairs[split] = {
            metric.key: _pairs({name: cells[name][split][metric.key] for name in names}, by_variant, split, metric)
            for metric in metrics
        }
    return Analysis(cells, pairs)


def _cell(runs: Sequence[RunScores], split: str, metric: Metric, asked: int, published: float | None) -> Cell:
    scored = _with_value(runs, split, metric.key)
    values = {run.seed: value for run, value in scored}
    best = [value for run in runs if split == "test" and (value := run.best_on_test.get(metric.key)) is not None]
    if not values:
        return Cell({}, None, False, asked, published)
    resampled_BS, num_clips = _resampled([run for run, _ in scored], split, metric.key)
    interval = seeds_and_clips(list(values.values()), resampled_BS, num_clips=num_clips)
    return Cell(values, interval, resampled_BS is not None, asked, published, statistics.fmean(best) if best else None)


def _with_value(runs: Sequence[RunScores], split: str, key: str) -> list[tuple[RunScores, float]]:
    found = ((run, run.values.get(split, {}).get(key)) for run in runs)
    return [(run, float(value)) for run, value in found if value is not None]


def _resampled(runs: Sequence[RunScores], split: str, key: str) -> tuple[FloatArray | None, int]:
    """A metric of runs on the same resamples of their clips, [B, S], and R; None if clips differ or it has no such."""
    clips = [run.clips[split] for run in runs]
    if not all(clips[0].has_clips_of(other) and key in other.resampled for other in clips):
        return None, 0
    return np.stack([each.resampled[key] for each in clips], axis=1), len(clips[0].names)


def _pairs(
    cells: Mapping[str, Cell], by_variant: Mapping[str, Sequence[RunScores]], split: str, metric: Metric
) -> list[Pair]:
    compared = [name for name, cell in cells.items() if cell.values]
    count = len(compared) * (len(compared) - 1) // 2
    found = {}
    for a, b in combinations(compared, 2):
        difference, paired, seeds = _difference(by_variant[a], by_variant[b], split, metric.key)
        for one, other, sign in ((a, b, 1), (b, a, -1)):
            epsilons = (_epsilon(cells[one], cells[other], metric, among) for among in (1, count))
            signed = difference if sign == 1 or difference is None else difference.opposite
            found[one, other] = Pair(one, other, signed, paired, seeds, *epsilons)
    return [found[a, b] for a in compared for b in compared if a != b]


def _difference(
    runs_a: Sequence[RunScores], runs_b: Sequence[RunScores], split: str, key: str
) -> tuple[Interval | None, bool, int]:
    """a - b with its interval, whether it is paired, and its number of seeds.

    Predictions without a seed are compared with every seed of the other variant.
    """
    a, b = ({run.seed: (run, value) for run, value in _with_value(runs, split, key)} for runs in (runs_a, runs_b))
    if None in a or None in b:
        first, second = [*a.values()], [*b.values()]
        longest = max(len(first), len(second))
        matched = list(zip(first * (longest // len(first)), second * (longest // len(second)), strict=True))
    else:
        matched = [(a[seed], b[seed]) for seed in a if seed in b]
    if not matched:
        return None, False, 0
    value_S = [value_a - value_b for (_, value_a), (_, value_b) in matched]
    both = [run for pair in matched for run, _ in pair]
    resampled_BN, num_clips = _resampled(both, split, key)
    resampled_BS = None if resampled_BN is None else resampled_BN[:, ::2] - resampled_BN[:, 1::2]
    interval = seeds_and_clips(value_S, resampled_BS, num_clips=num_clips)
    return interval, resampled_BS is not None, len(value_S)


def _epsilon(a: Cell, b: Cell, metric: Metric, num_comparisons: int) -> float | None:
    if min(len(a.values), len(b.values)) < 2:
        return None
    scores_a, scores_b = ([-metric.cost(value) for value in cell.values.values()] for cell in (a, b))
    return aso(scores_a, scores_b, seed=_SEED, num_comparisons=num_comparisons)


@dataclass(frozen=True)
class StudyResult:
    """A study as its documents show it.

    Attributes:
        title, about, name, folder, source: what it asks, its folder, and where published values are from.
        config: the run that the variants change, as the study file names it.
        overrides: what each variant changes.
        reference: the variant that the others are compared with.
        seeds, splits, metrics, task: what was asked for.
        scores: all runs.
        analysis: the numbers.
        small: whether it ran with `--scale small`.
    """

    title: str
    about: str
    name: str
    folder: str
    source: str
    config: str | None
    overrides: dict[str, dict[str, Any]]
    reference: str
    seeds: tuple[int, ...]
    splits: tuple[str, ...]
    metrics: tuple[Metric, ...]
    task: TaskDescription
    scores: list[RunScores]
    analysis: Analysis
    small: bool = False

    @property
    def variants(self) -> list[str]:
        """Names of the variants in the order of every table."""
        return list(self.analysis.cells)

    @property
    def problems(self) -> list[tuple[str, str]]:
        """Runs that failed or could not be evaluated, with the reason."""
        return [(run.name, run.problem) for run in self.scores if run.problem]

    @property
    def num_left(self) -> int:
        """Runs that are not trained to their end."""
        return sum(run.state in ("missing", "started") for run in self.scores)

    def runs_of(self, variant: str) -> list[RunScores]:
        """Its runs."""
        return [run for run in self.scores if run.variant == variant]

    def to_json(self) -> dict[str, Any]:
        """The content of study.json."""
        analysis = self.analysis
        keys = [metric.key for metric in self.metrics]
        variants = [
            {
                "name": name,
                "overrides": self.overrides.get(name, {}),
                "published": {
                    key: cell.published
                    for key, cell in next(iter(analysis.cells[name].values())).items()
                    if cell.published is not None
                },
                "runs": [
                    {
                        "seed": run.seed,
                        "state": run.state,
                        "folder": str(run.folder),
                        "values": {
                            split: {key: values.get(key) for key in keys} for split, values in run.values.items()
                        },
                        **({"problem": run.problem} if run.problem else {}),
                    }
                    for run in self.runs_of(name)
                ],
                "cells": {
                    split: {key: cell.to_json() for key, cell in row.items()}
                    for split, row in analysis.cells[name].items()
                },
            }
            for name in self.variants
        ]
        document: dict[str, Any] = finite(
            {
                "title": self.title,
                "about": self.about,
                "config": self.config,
                "scale": "small" if self.small else "full",
                "runs_left": self.num_left,
                "reference": self.reference,
                "seeds": list(self.seeds),
                "splits": list(self.splits),
                "metrics": keys,
                "published_source": self.source,
                "variants": variants,
                "comparisons": {
                    split: {key: [pair.to_json() for pair in pairs] for key, pairs in by_metric.items()}
                    for split, by_metric in analysis.pairs.items()
                },
            }
        )
        return document
