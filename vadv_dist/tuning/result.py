"""The result of a search, and its document tune.json."""

import statistics
from dataclasses import dataclass, field
from typing import Any

from vadv_dist.config import Config
from vadv_dist.config.search import SearchConfig
from vadv_dist.evaluation.paired import Interval
from vadv_dist.tuning.front import front_json
from vadv_dist.tuning.objectives import BY_KEY, Objective
from vadv_dist.tuning.population import records
from vadv_dist.tuning.schedule import Schedule, last_values
from vadv_dist.tuning.space import Space, Value
from vadv_dist.tuning.study import Study
from vadv_dist.tuning.study_folder import StudyFolder
from vadv_dist.tuning.verdict import Candidate, Verdict


@dataclass(frozen=True)
class Answer:
    """The result of a search.

    Args:
        config, space, search, folder, study: the search.
        noise: validation cost of the default by seed.
        candidates: the best trials, run again under those seeds.
        verdict: whether one of them is better.
        winner: its name, or `default`.
        schedule: fields that the winner sets, and from which epoch on.
        rivals: weights at which each of the rivals ended; their candidates are among `candidates`.
        collapsed: configurations under some seed of which a term's weight hid the student's own term.
        terms: the winner without each term; `gain` is against the winner, so what a term gives is its negative.
    """

    config: Config
    space: Space
    search: SearchConfig
    folder: StudyFolder
    study: Study
    noise: dict[int, float]
    candidates: list[Candidate]
    verdict: Verdict
    winner: str
    schedule: Schedule
    terms: list[Candidate]
    rivals: dict[str, dict[str, float]] = field(default_factory=dict)
    collapsed: frozenset[str] = frozenset()

    @property
    def values(self) -> dict[str, Value]:
        """Fields that the winner sets, those of its last epochs where they change."""
        return last_values(self.schedule)

    @property
    def score(self) -> Objective:
        """What chooses checkpoints and the winner."""
        return BY_KEY[self.search.objectives[0]]

    def to_json(self) -> dict[str, Any]:
        """As plain containers."""
        states = [trial.state.name.lower() for trial in self.study.trials()]
        noise = [self.score.value(cost) for cost in self.noise.values()]
        return {
            "study": self.study.optuna.study_name,
            "folder": str(self.folder.root),
            "trials": {"all": len(states), **{state: states.count(state) for state in sorted(set(states))}},
            "verdict": self.verdict.sentence,
            "is_better": self.verdict.is_better,
            "winner": {"name": self.winner, "values": self.values, **_changes(self.schedule)},
            "noise": {
                self.score.key: {str(seed): self.score.value(cost) for seed, cost in self.noise.items()},
                "mean": statistics.fmean(noise) if noise else None,
                "deviation": statistics.stdev(noise) if len(noise) > 1 else None,
            },
            **({"front": front_json(self)} if self.study.has_several else {}),
            **({"population": records(self.study)} if self.search.scheduler == "pbt" else {}),
            "candidates": [_candidate(c, self.score) for c in self.candidates],
            "leave_one_term_out": [_candidate(c, self.score) for c in self.terms],
            "rivals": {
                name: {"end_weights": weights, "collapsed": name in self.collapsed}
                for name, weights in self.rivals.items()
            },
            "remarks": [
                {"trial": trial.number, "remarks": remarks}
                for trial in self.study.trials()
                if (remarks := trial.user_attrs.get("remarks"))
            ],
            "failures": [
                {"trial": trial.number, **failure}
                for trial in self.study.trials()
                if (failure := self.study.failure(trial)) is not None
            ],
        }


def _changes(schedule: Schedule) -> dict[str, Any]:
    """A schedule that has more than one entry."""
    changes = [{"after_epoch": epoch, "values": dict(values)} for epoch, values in schedule]
    return {"schedule": changes} if len(changes) > 1 else {}


def _candidate(c: Candidate, score: Objective) -> dict[str, Any]:
    return {
        "name": c.name,
        score.key: {str(seed): score.value(cost) for seed, cost in c.costs.items()},
        "mean": score.value(c.mean),
        "gain": _interval(c.gain),
        **({"clips": c.clips} if c.clips is not None else {}),
    }


def _interval(interval: Interval | None) -> dict[str, float] | None:
    return None if interval is None else interval._asdict()
