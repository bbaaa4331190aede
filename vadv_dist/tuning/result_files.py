"""Write the files of a completed search: best.yaml, the best student, tune-report.html and tune.json."""

import contextlib
import dataclasses
import statistics
from collections import Counter
from typing import Any

from vadv_dist.config import config_to_yaml
from vadv_dist.inference.export import export_run
from vadv_dist.runs.folder import RunFolder
from vadv_dist.runs.records import finite
from vadv_dist.runs.trained_on import with_absolute_places
from vadv_dist.storage import Location, find_json, remove_tree, write_json, write_text
from vadv_dist.tuning.front import front_json
from vadv_dist.tuning.jobs import strip
from vadv_dist.tuning.objectives import Objective
from vadv_dist.tuning.population import decisions
from vadv_dist.tuning.report import report_page
from vadv_dist.tuning.result import SearchResult
from vadv_dist.tuning.space import with_values
from vadv_dist.tuning.standing import Standing
from vadv_dist.tuning.study_folder import PROGRESS, StudyFolder
from vadv_dist.tuning.verdict import Candidate


def write_result_files(result: SearchResult) -> dict[str, Any]:
    """Write all files, tune.json last, and return its content."""
    folder = result.folder
    if result.best_run is not None and (run := RunFolder.of(result.best_run)).student.is_dir():
        with contextlib.suppress(FileNotFoundError):
            remove_tree(folder.student)
        export_run(run.root, folder.student)
    best = with_absolute_places(with_values(result.config, result.values))
    best = dataclasses.replace(best, run=dataclasses.replace(best.run, name=f"{best.run.name}-best"))
    comment = (
        f"# From the search {folder.name}: {result.verdict.sentence}.\n# Train it: vadv train --config best.yaml\n"
    )
    if len(result.schedule) > 1:
        comment += (
            "# The winner's values changed during training, and the sentence above refers to all of them. This file\n"
            "# holds the last ones. student/ was trained with the whole schedule; see winner.schedule in tune.json.\n"
        )
    write_text(folder.root / "best.yaml", comment + config_to_yaml(best))
    _write_report(result)
    document: dict[str, Any] = finite(_document(result))
    write_json(folder.root / "tune.json", document)
    _remove_weights(folder)
    return document


def report_search(root: Location) -> Location:
    """Write the report of a search anew from what its study and its runs contain now, and return its path.

    Raises:
        UserError: the folder is not that of a search, or no trial has started.
        MachineError: the study's storage cannot be reached.
    """
    state = find_json(root / PROGRESS)
    is_complete = (root / "tune.json").is_file() and (state is None or state["state"] == "complete")
    return _write_report(Standing.open(root).result(is_complete=is_complete))


def _write_report(result: SearchResult) -> Location:
    path = result.folder.root / "tune-report.html"
    report_page(result).write(path)
    return path


def _document(result: SearchResult) -> dict[str, Any]:
    """The content of tune.json."""
    score, trials = result.score, result.study.trials()
    states = Counter(trial.state.name.lower() for trial in trials)
    noise = [score.value(cost) for cost in result.noise.values()]
    schedule = [{"after_epoch": epoch, "values": dict(values)} for epoch, values in result.schedule]
    remarks = [{"trial": t.number, "remarks": t.user_attrs.get("remarks")} for t in trials]
    failures = [(trial.number, result.study.failure(trial)) for trial in trials]
    return {
        "study": result.study.optuna.study_name,
        "folder": str(result.folder.root),
        "trials": {"all": len(trials), **dict(sorted(states.items()))},
        "verdict": result.verdict.sentence,
        "is_better": result.verdict.is_better,
        "winner": {
            "name": result.winner,
            "values": result.values,
            **({"schedule": schedule} if len(schedule) > 1 else {}),
        },
        "noise": {
            score.key: {str(seed): score.value(cost) for seed, cost in result.noise.items()},
            "mean": statistics.fmean(noise) if noise else None,
            "deviation": statistics.stdev(noise) if len(noise) > 1 else None,
        },
        **({"front": front_json(result)} if result.study.has_several else {}),
        **({"population": decisions(result.study)} if result.search.scheduler == "pbt" else {}),
        "candidates": [_candidate(c, score) for c in result.candidates],
        "leave_one_term_out": [_candidate(c, score) for c in result.terms],
        "rivals": {
            name: {"end_weights": weights, "collapsed": name in result.collapsed}
            for name, weights in result.rivals.items()
        },
        "remarks": [each for each in remarks if each["remarks"]],
        "failures": [{"trial": number, **failure} for number, failure in failures if failure is not None],
    }


def _candidate(c: Candidate, score: Objective) -> dict[str, Any]:
    return {
        "name": c.name,
        score.key: {str(seed): score.value(cost) for seed, cost in c.costs.items()},
        "mean": score.value(c.mean),
        "gain": None if c.gain is None else c.gain._asdict(),
        **({"clips": c.clips} if c.clips is not None else {}),
    }


def _remove_weights(folder: StudyFolder) -> None:
    """Remove weights that are no longer needed; metrics stay.

    The best student of each repeated configuration is kept, because a search that is resumed with more trials may have
    another winner.
    """
    runs: dict[str, list[tuple[float, RunFolder]]] = {}
    for path in folder.repeats.iterdir() if folder.repeats.is_dir() else ():
        if (result := RunFolder(path).result()) is not None:
            runs.setdefault(path.name.rsplit("-seed-", 1)[0], []).append((result.cost, RunFolder(path)))
    for variant, found in runs.items():
        best = min(found, key=lambda pair: pair[0])
        for pair in found:
            strip(pair[1], student=pair is not best or "-without-" in variant)
