"""Decisions of a population, checked by hand and against Ray Tune's scheduler."""

import random
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from vadv_dist.config import Config, StepObjectiveConfig
from vadv_dist.config.search import SearchConfig
from vadv_dist.errors import UserError
from vadv_dist.tuning.pbt import FACTORS, decide, explore, perturb, quantiles
from vadv_dist.tuning.population import require_population
from vadv_dist.tuning.space import Entry, Space, with_values
from vadv_dist.tuning.space_file import load_search

PSI = Entry("objective.psi", "float", low=0.01, high=100.0, log=True, zero=0.1)
WARM = Entry("optimizer.warmup_steps", "int", low=0, high=50, step=10)
DETACH = Entry("objective.detach_targets", "categorical", choices=(False, True))
BETA = Entry("objective.beta", "fixed", choices=(10.0,))
SPACE = Space((BETA, PSI, WARM, DETACH))
START = {
    "objective.beta": 10.0,
    "objective.psi": 5.0,
    "optimizer.warmup_steps": 20,
    "objective.detach_targets": False,
}


class Script(random.Random):
    """A generator whose draws the test chooses."""

    def __init__(self, *, chances: Sequence[float] = (), choices: Sequence[Any] = ()) -> None:
        super().__init__(0)
        self.chances, self.choices = list(chances), list(choices)

    def random(self) -> float:
        return self.chances.pop(0)

    def getrandbits(self, k: int) -> int:
        return 7

    def choice(self, options: Sequence[Any]) -> Any:
        chosen = self.choices.pop(0)
        assert chosen in options
        return chosen


@pytest.mark.parametrize(
    ("maes", "quantile", "worst", "best"),
    [
        # By hand: a quarter of 8 is 2.
        ([5, 1, 8, 2, 7, 3, 6, 4], 0.25, [4, 2], [1, 3]),
        # A quarter of 5 is 1.25, so 2; a half of 3 is 1.5, but no trial is on both sides.
        ([3, 1, 2, 5, 4], 0.25, [4, 3], [1, 2]),
        ([3, 1, 2], 0.5, [0], [1]),
        ([2.0], 0.25, [], []),
        # Equal costs are ordered by number.
        ([1, 1, 1, 1], 0.25, [3], [0]),
    ],
)
def test_quantiles_by_hand(maes: list[float], quantile: float, worst: list[int], best: list[int]) -> None:
    assert quantiles(dict(enumerate(maes)), quantile) == (worst, best)


@pytest.mark.parametrize("seed", range(12))
def test_quantiles_equal_those_of_ray_tune(seed: int) -> None:
    from ray.tune.schedulers import PopulationBasedTraining

    draw = random.Random(seed)
    scores = {trial: draw.random() for trial in range(draw.randint(1, 17))}
    quantile = draw.choice([0.1, 0.25, 0.4, 0.5])
    theirs = PopulationBasedTraining(
        metric="mae", mode="min", quantile_fraction=quantile, hyperparam_mutations={"psi": [1, 2]}
    )
    trials = {trial: SimpleNamespace(number=trial, is_finished=lambda: False) for trial in scores}
    theirs._trial_state = {_Hashed(trials[trial]): SimpleNamespace(last_score=-mae) for trial, mae in scores.items()}
    lower, upper = theirs._quantiles()
    worst, best = quantiles(scores, quantile)
    assert {t.number for t in lower} == set(worst)
    assert {t.number for t in upper} == set(best)


class _Hashed:
    """The attributes of a trial that Ray Tune's quantiles use."""

    def __init__(self, trial: SimpleNamespace) -> None:
        self.number, self.is_finished = trial.number, trial.is_finished


@pytest.mark.parametrize("seed", range(8))
def test_perturbations_equal_those_of_ray_tune(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    from ray import tune
    from ray.tune.schedulers import pbt as theirs

    names = {"objective.psi": tune.uniform(0.01, 100), "objective.detach_targets": [False, True]}
    config = {name: START[name] for name in names}
    monkeypatch.setattr(theirs, "random", random.Random(seed))
    expected, _ = theirs._explore(config, names, 0.0, FACTORS, None)
    mine, _ = explore(config, random.Random(seed), Space((PSI, DETACH)), Config(), 0.0)
    assert mine == expected


def test_explored_values_by_hand() -> None:
    # Perturbed by 1.2; sampled anew (0.2 < 0.25); moved to the neighbour on the right.
    draw = Script(chances=[0.9, 0.2, 0.3], choices=[1.2, 1])
    values, how = explore(START, draw, SPACE, Config(), 0.25)
    assert values == {
        "objective.beta": 10.0,
        "objective.psi": 6.0,
        "optimizer.warmup_steps": WARM.draw(7),
        "objective.detach_targets": True,
    }
    assert how == {
        "objective.psi": "× 1.2",
        "optimizer.warmup_steps": "sampled anew",
        "objective.detach_targets": "neighbour",
    }


@pytest.mark.parametrize(
    ("entry", "value", "choice", "moved"),
    [
        (PSI, 90.0, 1.2, 100.0),
        (PSI, 0.011, 0.8, 0.01),
        (PSI, 0.0, 1.2, 0.0),
        (WARM, 30, 1.2, 40),
        (WARM, 50, 1.2, 50),
        (Entry("optimizer.warmup_steps", "int", low=1, high=500, log=True), 7, 1.2, 8),
        (DETACH, True, 1, True),
        (DETACH, True, -1, False),
    ],
)
def test_perturbed_value_stays_inside_the_space(entry: Entry, value: Any, choice: float, moved: Any) -> None:
    found, _ = perturb(entry, value, Script(choices=[choice]))
    assert found == pytest.approx(moved)
    assert type(found) is type(moved)
    assert entry.holds(found)


def test_decisions_take_from_the_best_and_are_reproducible() -> None:
    search = SearchConfig(num_trials=8, scheduler="pbt", seed=3)
    values = {trial: {**START, "objective.psi": float(trial + 1)} for trial in range(8)}
    scores = {trial: 1.0 + trial for trial in range(8)}
    found = decide(scores, values, 2, space=SPACE, base=Config(), search=search)
    assert [exploit["trial"] for exploit in found] == [6, 7]
    assert {exploit["source"] for exploit in found} <= {0, 1}
    assert found == decide(scores, values, 2, space=SPACE, base=Config(), search=search)
    assert found != decide(scores, values, 4, space=SPACE, base=Config(), search=search)
    for exploit in found:
        assert all(entry.holds(exploit["values"][entry.field]) for entry in SPACE.entries)


def test_values_that_the_config_rejects_are_drawn_again() -> None:
    # Without step 2 only β trains the student, and a fifth of its axis stands for zero.
    base = Config(objective=StepObjectiveConfig(step2=False))
    space = Space((Entry("objective.beta", "float", low=0.01, high=100.0, log=True, zero=0.2),))
    search = SearchConfig(num_trials=4, scheduler="pbt", resample=1.0)
    betas = []
    for epoch in range(60):
        scores = {0: 1.0, 1: 2.0}
        values = {trial: {"objective.beta": 10.0} for trial in scores}
        (exploit,) = decide(scores, values, epoch, space=space, base=base, search=search)
        with_values(base, exploit["values"])
        betas.append(exploit["values"]["objective.beta"])
    assert min(betas) > 0
    assert len(set(betas)) == 60


def test_sampled_values_cover_the_axis() -> None:
    draws = [PSI.draw(seed) for seed in range(3000)]
    assert sum(value == 0 for value in draws) / len(draws) == pytest.approx(0.1, abs=0.015)
    # Half of the others are below the geometric mean of 0.01 and 100.
    assert sum(0 < value < 1 for value in draws) / len(draws) == pytest.approx(0.45, abs=0.025)
    assert {WARM.draw(seed) for seed in range(100)} == {0, 10, 20, 30, 40, 50}
    few = Entry("optimizer.warmup_steps", "int", low=1, high=3, log=True)
    assert {few.draw(seed) for seed in range(100)} == {1, 2, 3}
    assert {DETACH.draw(seed) for seed in range(30)} == {False, True}


@pytest.mark.parametrize(
    ("overrides", "entry", "message"),
    [
        ({}, Entry("student.hidden", "int", low=16, high=64), r"student.hidden cannot change.*scheduler: asha"),
        ({"trainer.num_workers": 2}, PSI, r"num_workers is 2.*Set trainer.num_workers: 0"),
        ({"trainer.patience": 3}, PSI, r"trainer.patience is 3.*null"),
        ({"trainer.epochs": 2}, PSI, r"search.interval is 2, expected less than trainer.epochs \(2\)"),
    ],
)
def test_search_that_cannot_be_a_population_is_rejected(overrides: dict, entry: Entry, message: str) -> None:
    search = SearchConfig(scheduler="pbt", interval=2)
    with pytest.raises(UserError, match=message):
        require_population(with_values(Config(), overrides), Space((entry,)), search)


def test_settings_of_a_population_are_checked() -> None:
    for raw, message in (
        ({"scheduler": "pbt", "num_trials": 1}, "at least 2 for search.scheduler: pbt"),
        ({"scheduler": "pbt", "objectives": ["mae", "corr"]}, "expected a single one, because search.scheduler is pbt"),
        ({"quantile": 0.6}, "a number above 0 and up to 0.5"),
        ({"resample": 2}, "a number of at least 0 and up to 1"),
    ):
        with pytest.raises(UserError, match=message):
            load_search(raw, [], "f")
