"""A search from its files to its answer: noise, trials, repeats of the best, the winner without each term.

Every stage leaves what it did on storage, so that a search that was killed goes on by the same command.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from vadv_dist.config import Config, load_config
from vadv_dist.config.search import SearchConfig
from vadv_dist.errors import UserError
from vadv_dist.reporting.words import decimals
from vadv_dist.runs.folder import RunFolder, run_lock
from vadv_dist.runs.trained_on import TrainedOn
from vadv_dist.runtime.job_storage import with_lasting
from vadv_dist.tasks import build
from vadv_dist.training.clip_errors import ClipErrors, read_clip_errors
from vadv_dist.training.splits import Splits
from vadv_dist.tuning.events import Ended, Event, Failed
from vadv_dist.tuning.failures import too_many_failures
from vadv_dist.tuning.front import front_trials
from vadv_dist.tuning.jobs import Job, RepeatJob, TrialJob, drive, outcome
from vadv_dist.tuning.objectives import BY_KEY, with_objectives
from vadv_dist.tuning.pools import LocalPool, Pool
from vadv_dist.tuning.population import Population, histories, require_population, schedules
from vadv_dist.tuning.result import Answer
from vadv_dist.tuning.result_files import write_answer
from vadv_dist.tuning.rivals import end_weights, require_sense, rival_values, seed_trial
from vadv_dist.tuning.same_data import SameData
from vadv_dist.tuning.schedule import ReplayJob, Schedule, constant, last_values
from vadv_dist.tuning.settings import load_search, split_overrides
from vadv_dist.tuning.space import WEIGHTS, Space, Value, with_values
from vadv_dist.tuning.space_file import find_space, load_space
from vadv_dist.tuning.study import Asked, Study, storage_faults
from vadv_dist.tuning.study_folder import StudyFolder
from vadv_dist.tuning.verdict import Candidate, candidate, decide, spread

Values = dict[str, Value]


def tune(
    config_path: str | Path,
    space_path: str | Path,
    overrides: Sequence[str],
    console: Console,
    *,
    use_ray: bool = True,
) -> dict[str, Any]:
    """Start or resume a search, run it to the end, and return its result.

    Args:
        config_path: the configuration to vary.
        space_path: a space file, or the name of a shipped one.
        overrides: `--section.field=value` for either.
        console: shows progress.
        use_ray: False runs one trial after another in this process.
    Raises:
        UserError: invalid files, or the folder contains something else.
        MachineError: the study's storage or the disk, or too many failed trials.
    """
    of_search, of_config = split_overrides(overrides)
    config = with_lasting(load_config(config_path, of_config), "run.storage")
    space_path = find_space(space_path)
    space, raw = load_space(space_path, config)
    search = load_search(raw, of_search, str(space_path))
    _require_sense(config, space, search, use_ray)
    if search.scheduler == "pbt":
        require_population(config, space, search)
    splits = Splits.open(config)
    with torch.device("meta"):  # find errors before anything starts
        task = build(config, splits.train.sources, weights=False)
    search = with_objectives(search, task, splits.train.sources)
    trained_on = TrainedOn.of(config, splits.train.sources)
    folder = StudyFolder.of(config, Path(space_path).stem)
    with run_lock(folder.root, ".lock"):
        name = folder.claim(config, space, search, trained_on)
        url = folder.storage_url(search)
        study = Study.open(url, name, space, config, search)
        with storage_faults(url, "Everything reported so far is saved; run the same command again to resume."):
            return Search(config, space, search, folder, study, console).run(
                SameData(_pool(config, search, use_ray), trained_on)
            )


def _require_sense(config: Config, space: Space, search: SearchConfig, use_ray: bool) -> None:
    require_sense(config, space, search)
    if not use_ray and config.trainer.num_workers:
        raise UserError(
            f"trainer.num_workers is {config.trainer.num_workers}, which needs Ray. Give --trainer.num_workers=0, or "
            "leave --no-ray out."
        )


def _pool(config: Config, search: SearchConfig, use_ray: bool) -> Pool:
    if not use_ray:
        return LocalPool(config.trainer.grace_s)
    if config.trainer.num_workers == 0:
        from vadv_dist.tuning.packed_pool import PackedPool

        return PackedPool(config, search)
    from vadv_dist.tuning.distributed_pool import DistributedPool

    return DistributedPool(config, search)


@dataclass
class Search:
    """One search, new or resumed."""

    config: Config
    space: Space
    search: SearchConfig
    folder: StudyFolder
    study: Study
    console: Console

    def __post_init__(self) -> None:
        # Seeds of repeats are none that the search has seen: the best trial was chosen for its luck, too.
        first = self.config.run.seed
        self.seeds = [first + number for number in range(1, self.search.seeds + 1)]
        self._score = BY_KEY[self.search.objectives[0]]
        self._failed: list[tuple[Values, Failed]] = []
        self._collapsed: set[str] = set()  # variants under some seed of which a term hid the student's own
        self._errors: dict[str, dict[int, ClipErrors]] = {}  # of each variant that was repeated, by seed

    def run(self, pool: Pool) -> dict[str, Any]:
        """Run all stages and write the result."""
        default = constant(self.space.default(self.config))
        with pool:
            self._say(f"searching {self.folder.root}: {self.search.num_trials} trials of {_fields(self.space)}")
            if self.study.has_several and self.search.scheduler == "asha":
                self._say(
                    "every trial runs to its end: with several objectives nothing tells which trial falls behind "
                    "(Optuna prunes studies of a single objective only)"
                )
            noise = self._repeat(pool, {"default": default})["default"]
            self._say(f"noise of training, from the default: {spread(noise, self._score)}")
            values = rival_values(self.space, self.config, self.search)
            rivals = {name: constant(chosen) for name, chosen in values.items()}
            ended = end_weights(self._repeat(pool, rivals), lambda name, seed: self._repeat_folder(name, rivals, seed))
            sound = {name: weights for name, weights in ended.items() if name not in self._collapsed}
            seed_trial(self.study, self.space, self.config, sound)
            self._trials(pool)
            candidates = self._confirm(pool, default, noise, rivals)
            verdict = decide(noise, candidates, self._score)
            self._say(f"verdict: {verdict.sentence}")
            winner = verdict.winner.name if verdict.winner else "default"
            schedule = {"default": default, **rivals, **self._schedules()}[winner]
            reference = dict(verdict.winner.costs) if verdict.winner else noise
            terms = self._leave_out(pool, winner, schedule, reference)
        answer = Answer(
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
            terms=terms,
            rivals=ended,
            collapsed=frozenset(self._collapsed),
        )
        run = min(reference, key=lambda seed: reference[seed]) if reference else None
        return write_answer(answer, None if run is None else self._repeat_config(winner, answer.values, run))

    def _trials(self, pool: Pool) -> None:
        if self.search.scheduler == "pbt":
            self._population().run(pool)
            return
        unfinished = iter(self.study.unfinished())

        def next_job() -> Job | None:
            asked = next(unfinished, None) or self.study.ask()
            if asked is None:
                return None
            return TrialJob(self.study, asked, self._trial_config(asked), self._told)

        drive(pool, next_job)

    def _population(self) -> Population:
        return Population(
            study=self.study,
            space=self.space,
            base=self.config,
            search=self.search,
            config_of=lambda name, values: self._run_config(
                name, str(self.folder.trials), values, self.config.run.seed
            ),
            told=self._told,
            say=self._say,
        )

    def _trial_config(self, asked: Asked) -> Config:
        return self._run_config(str(asked.number), str(self.folder.trials), asked.values, self.config.run.seed)

    def _repeat_config(self, key: str, values: Mapping[str, Value], seed: int, suffix: str = "") -> Config:
        name = f"{key.replace(' ', '-')}-seed-{seed}{suffix}"
        return self._run_config(name, str(self.folder.repeats), values, seed)

    def _repeat_folder(self, key: str, variants: Mapping[str, Schedule], seed: int) -> RunFolder:
        return RunFolder.of(self._repeat_config(key, last_values(variants[key]), seed))

    def _run_config(self, name: str, storage: str, values: Mapping[str, Value], seed: int) -> Config:
        config = with_values(self.config, values)
        run = dataclasses.replace(config.run, name=name, storage=storage, seed=seed)
        # A port cannot be served by several trials.
        return dataclasses.replace(config, run=run, telemetry=dataclasses.replace(config.telemetry, port=None))

    def _told(self, asked: Asked, event: Event) -> None:
        """Tell how a trial ended, and end the search where too many in a row have failed."""
        last = last_values(self._schedules()[f"trial {asked.number}"])
        values = ", ".join(f"{n.split('.')[-1]} {_short(v)}" for n, v in last.items())
        total = self.search.num_trials
        if isinstance(event, Failed):
            how = f"failed ({event.kind}): {event.message.splitlines()[0][:160]}"
            self._failed.append((asked.values, event))
        else:
            self._failed.clear()
            reached = list(asked.reported.values())
            how = f"stopped after epoch {len(reached)} at {self._score.told(reached[-1])}" if reached else "stopped"
            if isinstance(event, Ended):
                how = f"{self._score.told(event.result.cost)}{_collapsed(event)}"
                how = " ".join([how, *event.result.remarks])
        self._say(f"trial {asked.number} ({asked.number + 1} of {total}): {how}  ({values})")
        if len(self._failed) >= self.search.max_failures:
            others = [self.study.values(t) for t in self.study.trials() if self.study.failure(t) is None]
            raise too_many_failures(self._failed, [v for v in others if v not in [f for f, _ in self._failed]])

    def _schedules(self) -> dict[str, Schedule]:
        """Values of every trial; only those of a population change in the middle."""
        return {f"trial {number}": schedule for number, schedule in schedules(self.study).items()}

    def _confirm(
        self, pool: Pool, default: Schedule, noise: dict[int, float], rivals: dict[str, Schedule]
    ) -> list[Candidate]:
        """Run the best trials again under the seeds of the noise; compare them, and the rivals, with the default."""
        best: dict[str, Schedule] = {}
        found = self._schedules()
        # Of trials that share their best checkpoint, the one that came by it first-hand stands for all.
        changes = {number: len(history) for number, history in histories(self.study).items()}
        ranked = sorted(self.study.complete_trials(), key=lambda t: (t.values[0], changes[t.number], t.number))
        if self.study.has_several:
            front = front_trials(self.study)
            ranked = [*front, *(trial for trial in ranked if trial not in front)]
        for trial in ranked:
            name = f"trial {trial.number}"
            if found[name] != default and found[name] not in best.values() and len(best) < self.search.top:
                best[name] = found[name]
        costs = self._repeat(pool, best | rivals)
        return [self._compared(name, cost, "default", noise, rivals=len(costs)) for name, cost in costs.items()]

    def _compared(
        self, name: str, costs: dict[int, float], other: str, reference: dict[int, float], *, rivals: int = 1
    ) -> Candidate:
        """Compare one repeated variant with another."""
        errors, others = self._errors.get(name), self._errors.get(other)
        return candidate(name, costs, reference, errors=errors, default_errors=others, rivals=rivals)

    def _leave_out(self, pool: Pool, name: str, schedule: Schedule, reference: dict[int, float]) -> list[Candidate]:
        """Run the winner again without each term of the objective."""
        if not self.search.leave_one_out or self.config.objective.kind == "none":
            return []
        without: dict[str, Schedule] = {}
        objectives = [with_values(self.config, values).objective for _, values in schedule]
        for weight in WEIGHTS:
            left = tuple((epoch, {**values, f"objective.{weight}": 0.0}) for epoch, values in schedule)
            try:
                if any(getattr(objective, weight) > 0 for objective in objectives):
                    for _, values in left:
                        with_values(self.config, values)
                    without[f"{name} without {weight}"] = left
            except UserError:
                continue  # nothing would train the student
        costs = self._repeat(pool, without)
        compared = [self._compared(left, cost, name, reference) for left, cost in costs.items()]
        return [dataclasses.replace(each, name=each.name.rsplit(" ", 1)[1]) for each in compared]

    def _repeat(self, pool: Pool, variants: dict[str, Schedule]) -> dict[str, dict[int, float]]:
        """Run configurations under each seed; return costs by variant and seed, of those that do not fail."""
        configs = {
            (name, seed): self._repeat_config(name, last_values(schedule), seed)
            for name, schedule in variants.items()
            for seed in self.seeds
        }

        def jobs() -> Iterator[Job]:
            for (name, seed), config in configs.items():
                if outcome(RunFolder.of(config)) is None:
                    *earlier, (last, _) = variants[name]
                    stretches = [(e, self._repeat_config(name, v, seed, f"-epoch-{e}")) for e, v in earlier]
                    key = f"{name}, seed {seed}"
                    if stretches:
                        yield ReplayJob(key, [*stretches, (last, config)], self._repeated)
                    else:
                        yield RepeatJob(key, config, self._repeated)

        todo = jobs()
        drive(pool, lambda: next(todo, None))
        costs: dict[str, dict[int, float]] = {name: {} for name in variants}
        for (name, seed), config in configs.items():
            if isinstance(ended := outcome(RunFolder.of(config)), Ended):
                costs[name][seed] = ended.result.cost
                self._collapsed |= {name} if _collapsed(ended) else set()
                errors = read_clip_errors(RunFolder.of(config).root, ended.result.best_step)
                if errors is not None:
                    self._errors.setdefault(name, {})[seed] = errors
        return costs

    def _repeated(self, key: str, event: Event) -> None:
        if isinstance(event, Ended):
            self._say(f"{key}: {self._score.told(event.result.cost)}{_collapsed(event)}")
        elif isinstance(event, Failed):
            self._say(f"{key}: failed ({event.kind}): {event.message.splitlines()[0][:160]}")

    def _say(self, text: str) -> None:
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)


def _fields(space: Space) -> str:
    return ", ".join(entry.field for entry in space.searched)


def _collapsed(event: Ended) -> str:
    """What to add where a run's weights hid the student's own term in its last epoch; else nothing."""
    collapse = event.result.weights_collapsed
    return f", its weights collapsed: {collapse.term} hides the student's term" if collapse else ""


def _short(value: Value) -> str:
    return decimals(value) if isinstance(value, float) else str(value)
