"""Write the files of a completed search: best.yaml, the best student, tune-report.html and tune.json."""

import contextlib
import dataclasses
import math
from typing import Any

from vadv_dist.config import Config, config_to_yaml
from vadv_dist.inference.export import export_run
from vadv_dist.runs.folder import RunFolder
from vadv_dist.runs.records import finite
from vadv_dist.runs.trained_on import with_absolute_places
from vadv_dist.storage import remove_tree, write_json, write_text
from vadv_dist.tuning.jobs import strip
from vadv_dist.tuning.report import report_page
from vadv_dist.tuning.result import Answer
from vadv_dist.tuning.space import with_values
from vadv_dist.tuning.study_folder import StudyFolder


def write_answer(answer: Answer, best_run: Config | None) -> dict[str, Any]:
    """Write all of it, tune.json last, and return that.

    Args:
        answer: what was found.
        best_run: the winner's run whose student is exported; None where every one failed.
    """
    folder = answer.folder
    if best_run is not None and RunFolder.of(best_run).student.is_dir():
        with contextlib.suppress(FileNotFoundError):
            remove_tree(folder.student)
        export_run(RunFolder.of(best_run).root, folder.student)
    best = with_absolute_places(with_values(answer.config, answer.values))
    best = dataclasses.replace(best, run=dataclasses.replace(best.run, name=f"{best.run.name}-best"))
    told = f"# From the search {folder.name}: {answer.verdict.sentence}.\n# Train it: vadv train --config best.yaml\n"
    if len(answer.schedule) > 1:
        told += (
            "# The winner changed its values while it trained: the sentence above is about that. These are its last "
            "ones.\n# student/ was trained by all of them, which tune.json lists under winner.schedule.\n"
        )
    write_text(folder.best_path, told + config_to_yaml(best))
    report_page(answer).write(folder.report_path)
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
        cost = result.cost
        if "-without-" in variant or cost >= best.get(variant, (math.inf, run))[0]:
            strip(run)
            continue
        if variant in best:
            strip(best[variant][1])
        best[variant] = (cost, run)
    for _, run in best.values():
        strip(run, student=False)  # a search that was killed when this run had ended has not done so
