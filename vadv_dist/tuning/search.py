"""The stages of a search: noise and rivals, trials, repeats of the best, and the winner without each term.

Every stage leaves its results on storage, so a search that was killed is resumed by the same command.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from vadv_dist.config import Config, load_config
from vadv_dist.config.search import SearchConfig
from vadv_dist.errors import UserError, VadvError
from vadv_dist.runs.folder import RunFolder, run_lock
from vadv_dist.runs.trained_on import TrainedOn
from vadv_dist.runtime.job_storage import with_lasting
from vadv_dist.runtime.terminal import counted
from vadv_dist.storage import Location
from vadv_dist.tasks import build
from vadv_dist.training.clip_errors import ClipErrors, read_clip_errors
from vadv_dist.training.splits import Splits
from vadv_dist.tuning.events import Ended, Event, Failed, too_many_failures
from vadv_dist.tuning.front import front_trials
from vadv_dist.tuning.jobs import Job, RepeatJob, TrialJob, drive, outcome
from vadv_dist.tuning.objectives import BY_KEY, with_objectives
from vadv_dist.tuning.pools import Pool, pool_for, require_no_workers
from vadv_dist.tuning.population import Population, histories, require_population, schedules
from vadv_dist.tuning.progress import Plan, Progress
from vadv_dist.tuning.result import SearchResult
from vadv_dist.tuning.result_files import write_result_files
from vadv_dist.tuning.rivals import end_weights, require_rivals, rival_values, seed_trial
from vadv_dist.tuning.space import WEIGHTS, Schedule, Space, Values, constant, last_values, values_text, with_values
from vadv_dist.tuning.space_file import find_space, load_search, load_space, split_overrides
from vadv_dist.tuning.study import Asked, Study, storage_faults
from vadv_dist.tuning.study_folder import StudyFolder
from vadv_dist.tuning.verdict import Candidate, candidate, decide, noise_text


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
        with storage_faults(url, "Everything reported so far is saved; run the same command again to resume."):
            with pool_for(config, search, use_ray=use_ray, callbacks=callbacks, on_results=on_results) as pool:
                result = Search(config, space, search, folder, study, console, pool, trained_on).run()
            return write_result_files(result)


def plan(config_path: str | Path, space_path: str | Path, overrides: Sequence[str], *, use_ray: bool = True) -> Plan:
    """The trainings of a search, which is not started; see `tune`."""
    config, space, search = _load(config_path, space_path, overrides, use_ray=use_ray)
    return Plan.of(config, space, search)


def _load(
    config_path: str | Path, space_path: str | Path, overrides: Sequence[str], *, use_ray: bool
) -> tuple[Config, Space, SearchConfig]:
    of_search, of_config = split_overrides(overrides)
    config = with_lasting(load_config(config_path, of_config), "run.storage")
    space_path = find_space(space_path)
    space, raw = load_space(space_path, config)
    search = load_search(raw, of_search, str(space_path))
    require_rivals(config, space, search)
    if not use_ray:
        require_no_workers(config)
    if search.scheduler == "pbt":
        require_population(config, space, search)
    return config, space, search


@dataclass
class Search:
    """One search, new or resumed."""

    config: Config
    space: Space
    search: SearchConfig
    folder: StudyFolder
    study: Study
    console: Console
    pool: Pool
    trained_on: TrainedOn

    def __post_init__(self) -> None:
        # Repeats use seeds that the search has not used, because the best trial was selected for its luck, too.
        first = self.config.run.seed
        self.seeds = [first + number for number in range(1, self.search.seeds + 1)]
        best = next(iter(self.study.complete_trials()), None)
        self._progress = Progress(
            Plan.of(self.config, self.space, self.search),
            self.folder.root,
            self.search.objectives[0],
            self._say,
            ended=self._num_ended(),
            best=None if best is None else (f"trial {best.number}", best.values[0]),
        )
        self._drive = partial(drive, self.pool, trained_on=self.trained_on, on_change=self._progress.changed)
        self._score = BY_KEY[self.search.objectives[0]]
        self._failed: list[tuple[Values, Failed]] = []
        self._collapsed: set[str] = set()  # variants whose weights collapsed with at least one seed
        self._errors: dict[str, dict[int, ClipErrors]] = {}  # of each repeated variant, by seed

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

    def _num_ended(self) -> int:
        """Trainings that have ended in earlier processes."""
        repeats: list[RunFolder] = []
        if self.folder.repeats.is_dir():
            repeats = [RunFolder(path) for path in self.folder.repeats.iterdir() if "-epoch-" not in path.name]
        trials = [trial.state.is_finished() for trial in self.study.trials()]
        return sum(trials) + sum(outcome(folder) is not None for folder in repeats)

    def _run(self) -> SearchResult:
        fields = ", ".join(entry.field for entry in self.space.searched)
        self._say(f"searching {self.folder.root}: {counted(self.search.num_trials, 'trial')} of {fields}")
        self._say(Plan.of(self.config, self.space, self.search).sentence())
        if self.study.has_several and self.search.scheduler == "asha":
            self._say("every trial runs to its end, because Optuna prunes only studies with a single objective")
        default = constant(self.space.default(self.config))
        noise = self._repeat({"default": default})["default"]
        self._say(f"noise between seeds, from the default: {noise_text(noise, self._score)}")
        values = rival_values(self.space, self.config, self.search)
        rivals = {name: constant(chosen) for name, chosen in values.items()}
        ended = end_weights(
            self._repeat(rivals), lambda name, seed: RunFolder.of(self._repeat_config(name, values[name], seed))
        )
        sound = {name: weights for name, weights in ended.items() if name not in self._collapsed}
        seed_trial(self.study, self.space, self.config, sound)
        if self.search.scheduler == "pbt":
            Population(
                study=self.study,
                space=self.space,
                base=self.config,
                search=self.search,
                config_of=self._trial_config,
                on_end=self._on_trial_end,
                say=self._say,
                drive=self._drive,
            ).run()
        else:
            self._drive(self._trial_jobs())
        candidates = self._confirm(default, noise, rivals)
        verdict = decide(noise, candidates, self._score)
        self._say(f"verdict: {verdict.sentence}")
        winner = verdict.winner.name if verdict.winner else "default"
        schedule = {"default": default, **rivals, **self._schedules()}[winner]
        reference = dict(verdict.winner.costs) if verdict.winner else noise
        best = min(reference, key=lambda seed: reference[seed], default=None)
        return SearchResult(
            config=self.config,
            space=self.space,
            search=self.search,
            folder=self.folder,
            study=self.study,
            noise=noise,
            candidates=candidates,
            verdict=verdict,
            winner=winner,
            schedule=schedule,
            terms=self._leave_out(winner, schedule, reference),
            rivals=ended,
            collapsed=self._collapsed,
            best_run=None if best is None else self._repeat_config(winner, last_values(schedule), best),
        )

    def _trial_jobs(self) -> Iterator[Job]:
        def job(asked: Asked) -> Job:
            return TrialJob(self.study, asked, self._trial_config(str(asked.number), asked.values), self._on_trial_end)

        yield from map(job, self.study.unfinished())
        while (asked := self.study.ask()) is not None:
            yield job(asked)

    def _trial_config(self, name: str, values: Values) -> Config:
        return self._run_config(name, self.folder.trials, values, self.config.run.seed)

    def _repeat_config(self, key: str, values: Values, seed: int, suffix: str = "") -> Config:
        return self._run_config(f"{key.replace(' ', '-')}-seed-{seed}{suffix}", self.folder.repeats, values, seed)

    def _run_config(self, name: str, storage: Location, values: Values, seed: int) -> Config:
        config = with_values(self.config, values)
        run = dataclasses.replace(config.run, name=name, storage=str(storage), seed=seed)
        # Trials cannot share a port, and Tune's callbacks track them all.
        telemetry = dataclasses.replace(config.telemetry, port=None, track="none")
        config = dataclasses.replace(config, run=run, telemetry=telemetry)
        if self.search.scheduler == "pbt":  # other trials continue from the checkpoints of these epochs
            trainer = dataclasses.replace(config.trainer, checkpoint_every_epochs=self.search.interval)
            config = dataclasses.replace(config, trainer=trainer)
        return config

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
        values = values_text(last_values(self._schedules()[f"trial {asked.number}"]))
        self._say(f"trial {asked.number} ({asked.number + 1} of {self.search.num_trials}): {how} ({values}){remarks}")
        self._progress.ended(f"trial {asked.number}", event)
        if len(self._failed) >= self.search.max_failures:
            others = [self.study.values(t) for t in self.study.trials() if self.study.failure(t) is None]
            raise too_many_failures(self._failed, [v for v in others if v not in [f for f, _ in self._failed]])

    def _schedules(self) -> dict[str, Schedule]:
        """Values of every trial; only those of a population change during training."""
        return {f"trial {number}": schedule for number, schedule in schedules(self.study).items()}

    def _confirm(self, default: Schedule, noise: dict[int, float], rivals: dict[str, Schedule]) -> list[Candidate]:
        """Repeat the best trials with the seeds of the noise; compare them, and the rivals, with the default."""
        best: dict[str, Schedule] = {}
        found = self._schedules()
        # Of trials that share their best checkpoint, the one that trained it represents all.
        changes = {number: len(history) for number, history in histories(self.study).items()}
        ranked = sorted(self.study.complete_trials(), key=lambda t: (t.values[0], changes[t.number], t.number))
        if self.study.has_several:
            front = front_trials(self.study)
            ranked = [*front, *(trial for trial in ranked if trial not in front)]
        for trial in ranked:
            name = f"trial {trial.number}"
            if found[name] != default and found[name] not in best.values() and len(best) < self.search.top:
                best[name] = found[name]
        costs = self._repeat(best | rivals)
        return [self._compared(name, cost, "default", noise, rivals=len(costs)) for name, cost in costs.items()]

    def _compared(
        self, name: str, costs: dict[int, float], other: str, reference: dict[int, float], *, rivals: int = 1
    ) -> Candidate:
        """Compare one repeated variant with another."""
        errors, others = self._errors.get(name), self._errors.get(other)
        return candidate(name, costs, reference, errors=errors, default_errors=others, rivals=rivals)

    def _leave_out(self, name: str, schedule: Schedule, reference: dict[int, float]) -> list[Candidate]:
        """Repeat the winner without each term of the objective."""
        if not self.search.leave_one_out or self.config.objective.kind == "none":
            return []
        without: dict[str, Schedule] = {}
        objectives = [with_values(self.config, values).objective for _, values in schedule]
        for weight in WEIGHTS:
            if any(getattr(objective, weight) > 0 for objective in objectives):
                left = tuple((epoch, {**values, f"objective.{weight}": 0.0}) for epoch, values in schedule)
                try:
                    for _, values in left:
                        with_values(self.config, values)
                except UserError:
                    continue  # no term would train the student
                without[f"{name} without {weight}"] = left
        costs = self._repeat(without)
        compared = [self._compared(left, cost, name, reference) for left, cost in costs.items()]
        return [dataclasses.replace(each, name=each.name.rsplit(" ", 1)[1]) for each in compared]

    def _repeat(self, variants: dict[str, Schedule]) -> dict[str, dict[int, float]]:
        """Train configurations with each seed; return costs by variant and seed, without failed runs."""
        configs = {
            (name, seed): self._repeat_config(name, last_values(schedule), seed)
            for name, schedule in variants.items()
            for seed in self.seeds
        }

        def jobs() -> Iterator[Job]:
            for (name, seed), config in configs.items():
                if outcome(RunFolder.of(config)) is None:
                    *earlier, (last, _) = variants[name]
                    segments = [(e, self._repeat_config(name, v, seed, f"-epoch-{e}")) for e, v in earlier]
                    yield RepeatJob(f"{name}, seed {seed}", [*segments, (last, config)], self._on_repeat_end)

        self._drive(jobs())
        costs: dict[str, dict[int, float]] = {name: {} for name in variants}
        for (name, seed), config in configs.items():
            folder = RunFolder.of(config)
            if isinstance(ended := outcome(folder), Ended):
                costs[name][seed] = ended.result.cost
                if ended.result.weights_collapsed:
                    self._collapsed.add(name)
                errors = read_clip_errors(folder.root, ended.result.best_step)
                if errors is not None:
                    self._errors.setdefault(name, {})[seed] = errors
        return costs

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

    def _say(self, text: str) -> None:
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)
