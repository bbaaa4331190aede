"""What a search has reached, read from its study and its runs: at its end, or at any time before."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field

from vadv_dist.config import Config
from vadv_dist.config.search import SearchConfig
from vadv_dist.errors import UserError
from vadv_dist.runs.folder import RunFolder
from vadv_dist.storage import Location
from vadv_dist.training.clip_errors import ClipErrors, read_clip_errors
from vadv_dist.tuning.events import Ended
from vadv_dist.tuning.front import front_trials
from vadv_dist.tuning.jobs import outcome
from vadv_dist.tuning.objectives import BY_KEY
from vadv_dist.tuning.population import histories, schedules
from vadv_dist.tuning.result import SearchResult
from vadv_dist.tuning.rivals import end_weights, rival_values
from vadv_dist.tuning.space import WEIGHTS, Schedule, Space, Values, constant, last_values, with_values
from vadv_dist.tuning.study import Study
from vadv_dist.tuning.study_folder import StudyFolder
from vadv_dist.tuning.verdict import Candidate, candidate, decide


@dataclass
class Repeated:
    """A configuration that is trained with several seeds, as far as it has been.

    Attributes:
        costs: validation cost by seed, without failed runs.
        errors: absolute error of each clip by seed, where it is known.
        has_collapsed: whether its weights collapsed with at least one seed.
    """

    costs: dict[int, float] = field(default_factory=dict)
    errors: dict[int, ClipErrors] = field(default_factory=dict)
    has_collapsed: bool = False


@dataclass(frozen=True)
class Standing:
    """The runs of a search and what they have reached; nothing is kept in memory."""

    config: Config
    space: Space
    search: SearchConfig
    folder: StudyFolder
    study: Study

    @classmethod
    def open(cls, root: Location) -> "Standing":
        """Read a search from its folder.

        Raises:
            UserError: the folder is not that of a search, or no trial has started.
            MachineError: the study's storage cannot be reached.
        """
        folder = StudyFolder(root)
        name, config, space, search = folder.read()
        return cls(config, space, search, folder, Study.read(folder.storage_url(search), name, space, config, search))

    @property
    def seeds(self) -> list[int]:
        """Seeds of the repeats, which the search has not used: the best trial was selected for its luck, too."""
        return [self.config.run.seed + number for number in range(1, self.search.seeds + 1)]

    @property
    def default(self) -> Schedule:
        """The values that everything is compared with."""
        return constant(self.space.default(self.config))

    @property
    def rivals(self) -> dict[str, Schedule]:
        """Values of `search.rivals`."""
        return {name: constant(values) for name, values in rival_values(self.space, self.config, self.search).items()}

    @property
    def num_ended(self) -> int:
        """Trainings that have ended."""
        repeats: list[RunFolder] = []
        if self.folder.repeats.is_dir():
            repeats = [RunFolder(path) for path in self.folder.repeats.iterdir() if "-epoch-" not in path.name]
        trials = [trial.state.is_finished() for trial in self.study.trials()]
        return sum(trials) + sum(outcome(folder) is not None for folder in repeats)

    def trial_config(self, name: str, values: Values) -> Config:
        """The run of a trial."""
        return self._run_config(name, self.folder.trials, values, self.config.run.seed)

    def repeat_config(self, key: str, values: Values, seed: int, suffix: str = "") -> Config:
        """The run of a variant with a seed."""
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

    def schedules(self) -> dict[str, Schedule]:
        """Values of every trial; only those of a population change during training."""
        return {f"trial {number}": schedule for number, schedule in schedules(self.study).items()}

    def repeated(self, variants: Mapping[str, Schedule]) -> dict[str, Repeated]:
        """What variants have reached with each seed."""
        found = {name: Repeated() for name in variants}
        for name, schedule in variants.items():
            for seed in self.seeds:
                folder = RunFolder.of(self.repeat_config(name, last_values(schedule), seed))
                if not isinstance(ended := outcome(folder), Ended):
                    continue
                found[name].costs[seed] = ended.result.cost
                found[name].has_collapsed |= ended.result.weights_collapsed is not None
                if (errors := read_clip_errors(folder.root, ended.result.best_step)) is not None:
                    found[name].errors[seed] = errors
        return found

    def rival_weights(self, repeated: Mapping[str, Repeated]) -> dict[str, dict[str, float]]:
        """Final weights of the rivals among these variants, the best first."""
        values = {name: last_values(schedule) for name, schedule in self.rivals.items() if name in repeated}
        return end_weights(
            {name: repeated[name].costs for name in values},
            lambda name, seed: RunFolder.of(self.repeat_config(name, values[name], seed)),
        )

    def best_trials(self) -> dict[str, Schedule]:
        """The trials to repeat, without those that have the values of the default or of a better one."""
        best: dict[str, Schedule] = {}
        found, default = self.schedules(), self.default
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
        return best

    def without_terms(self, name: str, schedule: Schedule) -> dict[str, Schedule]:
        """A configuration without each term of its objective."""
        if not self.search.leave_one_out or self.config.objective.kind == "none":
            return {}
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
        return without

    def result(self, *, is_complete: bool) -> SearchResult:
        """Compare what has been repeated, and name the winner.

        Args:
            is_complete: whether the search has ended, so that what is missing has failed.
        """
        default, rivals = self.default, self.rivals
        noise = self.repeated({"default": default})["default"]
        confirmed = self.repeated(self.best_trials() | rivals)
        candidates = [_compared(name, each, noise, among=len(confirmed)) for name, each in confirmed.items()]
        verdict = decide(noise.costs, candidates, BY_KEY[self.search.objectives[0]])
        winner = verdict.winner.name if verdict.winner else "default"
        reference = confirmed.get(winner, noise)
        schedule = {"default": default, **rivals, **self.schedules()}[winner]
        left_out = self.repeated(self.without_terms(winner, schedule))
        terms = [_compared(name, each, reference) for name, each in left_out.items()]
        best = min(reference.costs, key=lambda seed: reference.costs[seed], default=None)
        return SearchResult(
            config=self.config,
            space=self.space,
            search=self.search,
            folder=self.folder,
            study=self.study,
            noise=noise.costs,
            candidates=candidates,
            verdict=verdict,
            winner=winner,
            schedule=schedule,
            terms=[dataclasses.replace(each, name=each.name.rsplit(" ", 1)[1]) for each in terms],
            rivals=self.rival_weights(confirmed),
            collapsed={name for name, each in confirmed.items() if each.has_collapsed},
            best_run=None if best is None else self.repeat_config(winner, last_values(schedule), best),
            num_ended=self.num_ended,
            is_complete=is_complete,
        )


def _compared(name: str, repeated: Repeated, other: Repeated, *, among: int = 1) -> Candidate:
    """Compare one repeated variant with another, as one of `among`."""
    return candidate(
        name, repeated.costs, other.costs, errors=repeated.errors, default_errors=other.errors, rivals=among
    )
