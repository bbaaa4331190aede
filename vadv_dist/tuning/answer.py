"""What a search leaves behind: best.yaml, the best student, tune.json and tune-report.html."""

import contextlib
import dataclasses
import math
import statistics
from dataclasses import dataclass, field
from typing import Any

from vadv_dist.config import Config, config_to_yaml
from vadv_dist.config.search import SearchConfig
from vadv_dist.evaluation.paired import Interval
from vadv_dist.inference.export import export_run
from vadv_dist.storage import remove_tree, write_json, write_text
from vadv_dist.training.run_folder import RunFolder, finite
from vadv_dist.tuning.front import front_json
from vadv_dist.tuning.jobs import strip
from vadv_dist.tuning.population import records
from vadv_dist.tuning.schedule import Schedule, last_values
from vadv_dist.tuning.space import Space, Value, with_values
from vadv_dist.tuning.study import Study
from vadv_dist.tuning.study_folder import StudyFolder
from vadv_dist.tuning.verdict import Candidate, Verdict


@dataclass(frozen=True)
class Answer:
    """All that a search found.

    Args:
        config, space, search, folder, study: the search.
        noise: validation MAE of the default by seed.
        candidates: the best trials, run again under those seeds.
        verdict: whether one of them is better.
        winner: its name, or `default`.
        schedule: fields that the winner sets, and from which epoch on.
        rivals: weights at which each of the rivals ended; their candidates are among `candidates`.
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

    @property
    def values(self) -> dict[str, Value]:
        """Fields that the winner sets, those of its last epochs where they change."""
        return last_values(self.schedule)

    def to_json(self) -> dict[str, Any]:
        """As plain containers."""
        states = [trial.state.name.lower() for trial in self.study.trials()]
        noise = list(self.noise.values())
        return {
            "study": self.study.optuna.study_name,
            "folder": str(self.folder.root),
            "trials": {"all": len(states), **{state: states.count(state) for state in sorted(set(states))}},
            "verdict": self.verdict.sentence,
            "is_better": self.verdict.is_better,
            "winner": {"name": self.winner, "values": self.values, **_changes(self.schedule)},
            "noise": {
                "mae": {str(seed): mae for seed, mae in self.noise.items()},
                "mean": statistics.fmean(noise) if noise else None,
                "deviation": statistics.stdev(noise) if len(noise) > 1 else None,
            },
            **({"front": front_json(self)} if self.study.has_several else {}),
            **({"population": records(self.study)} if self.search.scheduler == "pbt" else {}),
            "candidates": [_candidate(c) for c in self.candidates],
            "leave_one_term_out": [_candidate(c) for c in self.terms],
            "rivals": {name: {"end_weights": weights} for name, weights in self.rivals.items()},
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


def _candidate(c: Candidate) -> dict[str, Any]:
    return {
        "name": c.name,
        "mae": {str(seed): mae for seed, mae in c.mae.items()},
        "mean": c.mean,
        "gain": _interval(c.gain),
    }


def _interval(interval: Interval | None) -> dict[str, float] | None:
    return None if interval is None else interval._asdict()


def write_answer(answer: Answer, best_run: Config | None) -> dict[str, Any]:
    """Write all of it, tune.json last, and return that.

    Args:
        answer: what was found.
        best_run: the winner's run whose student is exported; None where every one failed.
    """
    from vadv_dist.tuning.report import report_html

    folder = answer.folder
    if best_run is not None and RunFolder.of(best_run).student.is_dir():
        with contextlib.suppress(FileNotFoundError):
            remove_tree(folder.student)
        export_run(RunFolder.of(best_run).root, folder.student)
    best = with_values(answer.config, answer.values)
    best = dataclasses.replace(best, run=dataclasses.replace(best.run, name=f"{best.run.name}-best"))
    told = f"# From the search {folder.name}: {answer.verdict.sentence}.\n# Train it: vadv train --config best.yaml\n"
    if len(answer.schedule) > 1:
        told += (
            "# The winner changed its values while it trained: the sentence above is about that. These are its last "
            "ones.\n# student/ was trained by all of them, which tune.json lists under winner.schedule.\n"
        )
    write_text(folder.best_path, told + config_to_yaml(best))
    write_text(folder.report_path, report_html(answer))
    document: dict[str, Any] = finite(answer.to_json())
    write_json(folder.result_path, document)
    _make_room(folder)
    return document


def _make_room(folder: StudyFolder) -> None:
    """Remove weights that nothing will ask for; metrics stay.

    Of each configuration that was run under several seeds the best student is kept: a search that goes on with more
    trials may name another winner.
    """
    best: dict[str, tuple[float, RunFolder]] = {}
    for path in folder.repeats.iterdir() if folder.repeats.is_dir() else ():
        run, variant = RunFolder(path), path.name.rsplit("-seed-", 1)[0]
        if (result := run.result()) is None:
            continue
        mae = float(result["validation"]["mae"])
        if "-without-" in variant or mae >= best.get(variant, (math.inf, run))[0]:
            strip(run)
            continue
        if variant in best:
            strip(best[variant][1])
        best[variant] = (mae, run)
    for _, run in best.values():
        strip(run, student=False)  # a search that was killed when this run had ended has not done so
