"""The study: what a process that takes it up finds, and what its sampler suggests."""

import time
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState

from vadv_dist.config import Config, OptimizerConfig
from vadv_dist.config.search import SearchConfig
from vadv_dist.errors import MachineError, UserError
from vadv_dist.tuning.events import Failed
from vadv_dist.tuning.settings import load_search
from vadv_dist.tuning.space import Space
from vadv_dist.tuning.space_file import load_space
from vadv_dist.tuning.study import Study
from vadv_dist.tuning.study_folder import StudyFolder

SPACE = """
space:
  objective.alpha: {distribution: float, low: 0.01, high: 100, log: true, zero: 0.1}
  objective.psi: {distribution: float, low: 0.01, high: 100, log: true, zero: 0.1}
first: [{objective.psi: 5.0}]
"""


@pytest.fixture
def space(tmp_path: Path) -> Space:
    (tmp_path / "space.yaml").write_text(SPACE)
    return load_space(tmp_path / "space.yaml", Config())[0]


def score(values: dict) -> float:
    return (values["objective.alpha"] - 3) ** 2 + values["objective.psi"]


@pytest.mark.parametrize("storage", ["sqlite:///{}/study.db", "{}/study.log"])
@pytest.mark.parametrize("sampler", ["tpe", "random"])
@pytest.mark.slow
def test_a_study_taken_up_at_every_trial_suggests_what_an_unbroken_one_does(
    tmp_path: Path, space: Space, storage: str, sampler: str
) -> None:
    search = SearchConfig(num_trials=14, sampler=sampler, seed=7, storage="x")

    def take_up(name: str) -> Study:
        return Study.open(storage.format(tmp_path), name, space, Config(), search)

    whole = take_up("whole")
    while (asked := whole.ask()) is not None:
        whole.report(asked, 0, score(asked.values))
        whole.complete(asked, score(asked.values), {})
    for number in range(14):
        # Put down after the trial was asked for, and again after its epoch: another process ends it.
        begun = take_up("broken").ask()
        assert begun is not None
        (asked,) = take_up("broken").unfinished()
        assert (asked.number, asked.values) == (number, begun.values)
        study = take_up("broken")
        study.report(study.unfinished()[0], 0, score(asked.values))
        study = take_up("broken")
        (asked,) = study.unfinished()
        assert asked.reported == {0: score(asked.values)}
        study.complete(asked, score(asked.values), {})
    broken = take_up("broken")
    assert broken.ask() is None
    assert [trial.params for trial in whole.trials()] == [trial.params for trial in broken.trials()]
    assert [whole.values(trial) for trial in whole.trials()[:2]] == [
        {"objective.alpha": 1.0, "objective.psi": 1.0},
        {"objective.alpha": 1.0, "objective.psi": 5.0},
    ]


def test_rungs_stop_what_falls_behind_but_never_the_default(tmp_path: Path, space: Space) -> None:
    base = Config()
    study = Study.open(
        f"sqlite:///{tmp_path}/s.db", "s", space, base, SearchConfig(num_trials=4, reduction=2, min_epochs=2)
    )
    default, second, third = study.ask(), study.ask(), study.ask()
    assert default
    assert second
    assert third
    # Rungs at epochs 2, 4, …: half of what came there may go on.
    assert study.report(second, 0, 9.0)
    assert study.report(second, 1, 1.0)
    assert study.report(third, 0, 1.0)
    assert not study.report(third, 1, 2.0)
    assert study.report(default, 0, 5.0)
    assert study.report(default, 1, 5.0)
    # Killed right here, a search that goes on knows that the third is to be stopped.
    again = Study.open(
        f"sqlite:///{tmp_path}/s.db", "s", space, base, SearchConfig(num_trials=4, reduction=2, min_epochs=2)
    )
    assert [again.falls_behind(asked) for asked in again.unfinished()] == [False, False, True]
    study.prune(third)
    study.fail(second, Failed("out of memory", "2 GiB"))
    states = [trial.state for trial in study.trials()]
    assert states == [TrialState.RUNNING, TrialState.FAIL, TrialState.PRUNED]
    assert study.trials()[1].user_attrs["failure"] == {"kind": "out of memory", "message": "2 GiB"}


@pytest.mark.slow
def test_tpe_finds_a_better_place_than_random_draws(tmp_path: Path, space: Space) -> None:
    # A smooth function of two weights, 30 trials, 5 seeds: the mean of the best values.
    best: dict[str, list[float]] = {"tpe": [], "random": []}
    began = time.monotonic()
    for sampler, found in best.items():
        for seed in range(5):
            search = SearchConfig(num_trials=30, sampler=sampler, seed=seed, storage="x")  # type: ignore[arg-type]
            study = Study.open(f"{tmp_path}/{sampler}-{seed}.log", "s", space, Config(), search)
            while (asked := study.ask()) is not None:
                study.complete(asked, score(asked.values), {})
            found.append(study.complete_trials()[0].value)
    assert sum(best["tpe"]) < sum(best["random"])
    assert time.monotonic() - began < 60


def test_a_password_is_kept_out_of_the_study(tmp_path: Path, space: Space, monkeypatch) -> None:
    folder = StudyFolder(tmp_path / "study")
    with pytest.raises(UserError, match=r"contains a password.*\$VADV_STUDY"):
        folder.claim(Config(), space, SearchConfig(storage="postgresql://me:secret@host/db"))
    hidden = SearchConfig(storage="$VADV_STUDY")
    with pytest.raises(UserError, match="environment variable 'VADV_STUDY' is not set"):
        folder.storage_url(hidden)
    monkeypatch.setenv("VADV_STUDY", "postgresql://me:secret@host/db")
    assert folder.storage_url(hidden) == "postgresql://me:secret@host/db"
    folder.claim(Config(), space, hidden)
    assert "secret" not in folder.record_path.read_text()


def test_a_storage_that_cannot_be_reached_is_a_fault_of_the_machine(tmp_path: Path, space: Space) -> None:
    with pytest.raises(MachineError, match=r"Check search\.storage"):
        Study.open(f"sqlite:///{tmp_path}/no/such/place.db", "s", space, Config(), SearchConfig())


@pytest.mark.parametrize(
    ("raw", "overrides", "told"),
    [
        ({"num_trails": 3}, [], "unknown field search.num_trails.*mean 'num_trials'"),
        ({}, ["--search.smapler=tpe"], "unknown field search.smapler.*mean 'sampler'"),
        ({"num_trials": 0}, [], "search.num_trials is 0, expected an integer of at least 1"),
        ({"seeds": 2}, [], "search.seeds is 2, expected an integer of at least 3"),
        ({"sampler": "gp"}, [], "sampler"),
        ({}, ["--search.num_trials=few"], "num_trials"),
    ],
)
def test_settings_are_refused_by_name(raw: dict, overrides: list[str], told: str) -> None:
    with pytest.raises(UserError, match=told):
        load_search(raw, overrides, "space.yaml")


def test_the_command_line_wins_over_the_file() -> None:
    assert load_search({"num_trials": 9, "seed": 4}, ["--search.num_trials=3"], "f") == SearchConfig(
        num_trials=3, seed=4
    )


def test_starts_are_counted_until_a_trial_gets_further(tmp_path: Path, space: Space) -> None:
    def take_up() -> tuple[Study, Any]:
        study = Study.open(f"{tmp_path}/study.log", "s", space, Config(), SearchConfig(storage="x", scheduler="none"))
        return study, next(iter(study.unfinished()), None) or study.ask()

    def begin(step: int) -> int:
        study, asked = take_up()
        return study.begin(asked, step)

    assert [begin(0), begin(0), begin(8), begin(8), begin(8), begin(16)] == [1, 2, 1, 2, 3, 1]
    study, asked = take_up()
    study.report(asked, 0, 1.0)
    assert begin(16) == 1
    assert begin(16) == 2


def test_a_search_that_trained_nothing_does_not_block_a_corrected_one(tmp_path: Path, space: Space) -> None:
    folder = StudyFolder(tmp_path / "study")
    first = folder.claim(Config(), space, SearchConfig())
    corrected = Config(optimizer=OptimizerConfig(lr=1e-4))
    second = folder.claim(corrected, space, SearchConfig())
    assert second != first
    failed = folder.repeats / "default-seed-2"
    failed.mkdir(parents=True)
    (failed / "failure.json").write_text('{"kind": "refused", "message": "no such encoder"}')
    (folder.root / "study.db").touch()
    third = folder.claim(corrected, space, SearchConfig())  # the encoder is there now: everything is tried again
    assert third != second
    assert {path.name for path in folder.root.iterdir()} == {"study.yaml"}
    failed.mkdir(parents=True)
    (failed / "failure.json").write_text('{"kind": "refused", "message": "no such encoder"}')
    (folder.trials / "0").mkdir(parents=True)
    (folder.trials / "0" / "result.json").write_text("{}")
    assert folder.claim(corrected, space, SearchConfig()) == third  # there is work to keep
    with pytest.raises(UserError, match="holds another search"):
        folder.claim(Config(), space, SearchConfig())


def test_what_a_killed_search_left_half_written_is_swept_by_the_next(tmp_path: Path, space: Space) -> None:
    folder = StudyFolder(tmp_path / "study")
    name = folder.claim(Config(), space, SearchConfig())
    (folder.root / ".tune.json.partial-77").write_text("{")
    (folder.root / ".student.partial-77").mkdir()
    (folder.root / ".student.partial-77" / "config.json").touch()
    (folder.root / ".mine").touch()
    assert folder.claim(Config(), space, SearchConfig()) == name
    assert {path.name for path in folder.root.iterdir()} == {"study.yaml", ".mine"}
