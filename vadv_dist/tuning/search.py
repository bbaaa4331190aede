"""The stages of a search: noise and rivals, trials, repeats of the best, and the winner without each term.

Every stage leaves its results on storage, so a search that was killed is resumed by the same command.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from vadv_dist.config import Config
from vadv_dist.config.search import SearchConfig
from vadv_dist.errors import VadvError
from vadv_dist.runs.folder import RunFolder, run_lock
from vadv_dist.runs.trained_on import TrainedOn
from vadv_dist.runtime.terminal import counted
from vadv_dist.tasks import build
from vadv_dist.training.splits import Splits
from vadv_dist.tuning.events import Ended, Event, Failed, too_many_failures
from vadv_dist.tuning.jobs import Job, RunJob, TrialJob, drive, outcome
from vadv_dist.tuning.objectives import BY_KEY, with_objectives
from vadv_dist.tuning.pools import Pool, pool_for, require_no_workers
from vadv_dist.tuning.population import Population, require_population
from vadv_dist.tuning.progress import Plan, Progress
from vadv_dist.tuning.result import SearchResult
from vadv_dist.tuning.result_files import write_result_files
from vadv_dist.tuning.rivals import require_rivals, seed_trial
from vadv_dist.tuning.space import Schedule, Space, Values, last_values, values_text
from vadv_dist.tuning.space_file import find_space, load_files
from vadv_dist.tuning.standing import Repeated, Standing
from vadv_dist.tuning.study import Asked, Study, storage_faults
from vadv_dist.tuning.study_folder import StudyFolder
from vadv_dist.tuning.verdict import noise_text


def tune(
    config_path: str | Path,
    space_path: str | Path,
    overrides: Sequence[str],
    console: Console,
    *,
    use_ray: bool = True,
    callbacks: Sequence[Any] = (),
    on_results: Callable[[Any], None] | None = None,
) -> dict[str, Any]:
    """Start or resume a search, run it to the end, and return its result.

    Args:
        config_path: the configuration to vary.
        space_path: a space file, or the name of a shipped one.
        overrides: `--section.field=value` for either.
        console: shows progress.
        use_ray: False runs one trial after another in this process.
        callbacks: callbacks of Ray Tune.
        on_results: called with Ray Tune's `ResultGrid`, which has the trainings of this call.
    Raises:
        UserError: invalid files, or the folder contains something else.
        MachineError: the study's storage or the disk, or too many failed trials.
    """
    config, space, search = _load(config_path, space_path, overrides, use_ray=use_ray)
    splits = Splits.open(config)
    with torch.device("meta"):  # find errors before anything starts
        task = build(config, splits.train.sources, weights=False)
    search = with_objectives(search, task, splits.train.sources)
    trained_on = TrainedOn.of(config, splits.train.sources)
    folder = StudyFolder.of(config, Path(find_space(space_path)).stem)
    with run_lock(folder.root, ".lock"):
        name = folder.claim(config, space, search, trained_on)
        url = folder.storage_url(search)
        study = Study.open(url, name, space, config, search)
        standing = Standing(config, space, search, folder, study)
        with storage_faults(url, "Everything reported so far is saved; run the same command again to resume."):
            say = partial(console.print, highlight=False, markup=False, soft_wrap=True)
            pool = pool_for(config, search, use_ray=use_ray, callbacks=callbacks, on_results=on_results, say=say)
            with pool:
                result = Search(standing, say, pool, trained_on).run()
            return write_result_files(result)


def plan(config_path: str | Path, space_path: str | Path, overrides: Sequence[str], *, use_ray: bool = True) -> Plan:
    """The trainings of a search, which is not started; see `tune`."""
    config, space, search = _load(config_path, space_path, overrides, use_ray=use_ray)
    return Plan.of(config, space, search)


def _load(
    config_path: str | Path, space_path: str | Path, overrides: Sequence[str], *, use_ray: bool
) -> tuple[Config, Space, SearchConfig]:
    config, space, search = load_files(config_path, space_path, overrides)
    require_rivals(config, space, search)
    if not use_ray:
        require_no_workers(config)
    if search.scheduler == "pbt":
        require_population(config, space, search)
    return config, space, search


class Search:
    """One search, new or resumed.

    Args:
        standing: its runs, and what they have reached.
        say: prints a line.
        pool: runs the trainings.
        trained_on: the data that all of them must be trained on.
    """

    def __init__(self, standing: Standing, say: Callable[[str], None], pool: Pool, trained_on: TrainedOn) -> None:
        self._standing, self._say = standing, say
        self._study, self._search = standing.study, standing.search
        self._score = BY_KEY[self._search.objectives[0]]
        self._plan = Plan.of(standing.config, standing.space, self._search)
        best = next(iter(self._study.complete_trials()), None)
        self._progress = Progress(
            standing.folder.root,
            self._plan.to_json(),
            self._say,
            score=self._score,
            ended=standing.num_ended,
            best=None if best is None else (f"trial {best.number}", best.values[0]),
        )
        self._drive = partial(drive, pool, trained_on=trained_on, on_change=self._progress.changed, say=self._say)
        self._failed: list[tuple[Values, Failed]] = []

    def run(self) -> SearchResult:
        """Run all stages."""
        is_complete = False
        try:
            result = self._run()
            is_complete = True
            return result
        finally:
            with contextlib.suppress(VadvError, OSError):
                self._progress.close(complete=is_complete)

    def _run(self) -> SearchResult:
        standing, search = self._standing, self._search
        fields = ", ".join(entry.field for entry in standing.space.searched)
        self._say(f"searching {standing.folder.root}: {counted(search.num_trials, 'trial')} of {fields}")
        self._say(self._plan.sentence())
        if self._study.has_several and search.scheduler == "asha":
            self._say("every trial runs to its end, because Optuna prunes only studies with a single objective")
        noise = self._repeat({"default": standing.default})["default"]
        self._say(f"noise between seeds, from the default: {noise_text(noise.costs, self._score)}")
        rivals = self._repeat(standing.rivals)
        sound = {name: each for name, each in rivals.items() if not each.has_collapsed}
        seed_trial(self._study, standing.space, standing.config, standing.rival_weights(sound))
        if search.scheduler == "pbt":
            Population(
                study=self._study,
                space=standing.space,
                base=standing.config,
                search=search,
                config_of=standing.trial_config,
                on_end=self._on_trial_end,
                say=self._say,
                drive=self._drive,
            ).run()
        else:
            self._drive(self._trial_jobs())
        self._repeat(standing.best_trials() | standing.rivals)
        result = standing.result(is_complete=False)
        if without := standing.without_terms(result.winner, result.schedule):
            self._say(f"verdict: {result.verdict.sentence}")
            self._repeat(without)
        return standing.result(is_complete=True)

    def _trial_jobs(self) -> Iterator[Job]:
        def job(asked: Asked) -> Job:
            config = self._standing.trial_config(str(asked.number), asked.values)
            return TrialJob(self._study, asked, config, self._on_trial_end)

        yield from map(job, self._study.unfinished())
        while (asked := self._study.ask()) is not None:
            yield job(asked)

    def _on_trial_end(self, asked: Asked, event: Event) -> None:
        """Print how a trial ended, and end the search after too many consecutive failures."""
        if isinstance(event, Failed):
            self._failed.append((asked.values, event))
        else:
            self._failed.clear()
        if isinstance(event, Ended | Failed):
            how = self._outcome_text(event)
        else:
            reached = list(asked.reported.values())
            how = f"stopped after epoch {len(reached)} at {self._score.phrase(reached[-1])}" if reached else "stopped"
        remarks = "".join(f". {each.rstrip('.')}" for each in event.result.remarks) if isinstance(event, Ended) else ""
        values = values_text(last_values(self._standing.schedules()[f"trial {asked.number}"]))
        self._say(f"trial {asked.number} ({asked.number + 1} of {self._search.num_trials}): {how} ({values}){remarks}")
        self._progress.ended(f"trial {asked.number}", event)
        if len(self._failed) >= self._search.max_failures:
            others = [self._study.values(t) for t in self._study.trials() if self._study.failure(t) is None]
            raise too_many_failures(self._failed, [v for v in others if v not in [f for f, _ in self._failed]])

    def _repeat(self, variants: dict[str, Schedule]) -> dict[str, Repeated]:
        """Train configurations with each seed, and return what they have reached."""

        def jobs() -> Iterator[Job]:
            for name, schedule in variants.items():
                *earlier, (last, values) = schedule
                for seed in self._standing.seeds:
                    config = self._standing.repeat_config(name, values, seed)
                    if outcome(RunFolder.of(config)) is None:
                        segments = [(e, self._standing.repeat_config(name, v, seed, f"-epoch-{e}")) for e, v in earlier]
                        yield RunJob(f"{name}, seed {seed}", [*segments, (last, config)], self._on_repeat_end)

        self._drive(jobs())
        return self._standing.repeated(variants)

    def _on_repeat_end(self, key: str, event: Event) -> None:
        if isinstance(event, Ended | Failed):
            self._say(f"{key}: {self._outcome_text(event)}")
            self._progress.ended(key, event)

    def _outcome_text(self, event: Ended | Failed) -> str:
        if isinstance(event, Failed):
            return f"failed ({event.kind}): {event.message.splitlines()[0][:160]}"
        collapse = event.result.weights_collapsed
        what = f", its weights collapsed: {collapse.term} outweighs the student's term" if collapse else ""
        return f"{self._score.phrase(event.result.cost)}{what}"
