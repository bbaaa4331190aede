"""The study: what a process that resumes it finds, what its sampler suggests, and which trials its rungs stop."""

import random
import time
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState
from run_lines import run_result

from vadv_dist.config import Config, OptimizerConfig
from vadv_dist.config.search import SearchConfig
from vadv_dist.errors import MachineError, UserError
from vadv_dist.runs.encoder_identity import EncoderIdentity
from vadv_dist.runs.trained_on import TrainedOn
from vadv_dist.tuning.events import Failed
from vadv_dist.tuning.space import Space
from vadv_dist.tuning.space_file import load_search, load_space
from vadv_dist.tuning.study import Study, is_rung, passes_rung, storage_faults
from vadv_dist.tuning.study_folder import StudyFolder

SPACE = """
space:
  objective.alpha: {distribution: float, low: 0.01, high: 100, log: true, zero: 0.1}
  objective.psi: {distribution: float, low: 0.01, high: 100, log: true, zero: 0.1}
first: [{objective.psi: 5.0}]
"""
TRAINED_ON = TrainedOn((), EncoderIdentity("encoder", None, None))


@pytest.fixture
def space(tmp_path: Path) -> Space:
    (tmp_path / "space.yaml").write_text(SPACE)
    return load_space(tmp_path / "space.yaml", Config())[0]


def score(values: dict) -> float:
    return (values["objective.alpha"] - 3) ** 2 + values["objective.psi"]


@pytest.mark.parametrize("storage", ["sqlite:///{}/study.db", "{}/study.log"])
@pytest.mark.parametrize("sampler", ["tpe", "random"])
@pytest.mark.slow
def test_study_resumed_at_every_trial_suggests_the_same_values(
    tmp_path: Path, space: Space, storage: str, sampler: str
) -> None:
    search = SearchConfig(num_trials=14, sampler=sampler, seed=7, storage="x")

    def resume(name: str) -> Study:
        return Study.open(storage.format(tmp_path), name, space, Config(), search)

    whole = resume("whole")
    while (asked := whole.ask()) is not None:
        whole.report(asked, 0, score(asked.values))
        whole.complete(asked, run_result({"mae": score(asked.values)}))
    for number in range(14):
        # Interrupted after the trial was asked for, and again after its epoch: another process ends it.
        begun = resume("broken").ask()
        assert begun is not None
        (asked,) = resume("broken").unfinished()
        assert (asked.number, asked.values) == (number, begun.values)
        study = resume("broken")
        study.report(study.unfinished()[0], 0, score(asked.values))
        study = resume("broken")
        (asked,) = study.unfinished()
        assert asked.reported == {0: score(asked.values)}
        study.complete(asked, run_result({"mae": score(asked.values)}))
    broken = resume("broken")
    assert broken.ask() is None
    assert [trial.params for trial in whole.trials()] == [trial.params for trial in broken.trials()]
    assert [whole.values(trial) for trial in whole.trials()[:2]] == [
        {"objective.alpha": 1.0, "objective.psi": 1.0},
        {"objective.alpha": 1.0, "objective.psi": 5.0},
    ]


def test_rungs_stop_trials_that_fall_behind_but_never_the_default(tmp_path: Path, space: Space) -> None:
    base = Config()
    study = Study.open(
        f"sqlite:///{tmp_path}/s.db", "s", space, base, SearchConfig(num_trials=4, reduction=2, min_epochs=2)
    )
    default, second, third = study.ask(), study.ask(), study.ask()
    assert default
    assert second
    assert third
    # Rungs at epochs 2, 4, …: half of the trials that reach one continue.
    assert study.report(second, 0, 9.0)
    assert study.report(second, 1, 1.0)
    assert study.report(third, 0, 1.0)
    assert not study.report(third, 1, 2.0)
    assert study.report(default, 0, 5.0)
    assert study.report(default, 1, 5.0)
    # If the search is killed here, the next one knows that the third must be stopped.
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
def test_tpe_finds_better_values_than_random_sampling(tmp_path: Path, space: Space) -> None:
    # A smooth function of two weights, 30 trials, 5 seeds: the mean of the best values.
    best: dict[str, list[float]] = {"tpe": [], "random": []}
    began = time.monotonic()
    for sampler, found in best.items():
        for seed in range(5):
            search = SearchConfig(num_trials=30, sampler=sampler, seed=seed, storage="x")  # type: ignore[arg-type]
            study = Study.open(f"{tmp_path}/{sampler}-{seed}.log", "s", space, Config(), search)
            while (asked := study.ask()) is not None:
                study.complete(asked, run_result({"mae": score(asked.values)}))
            found.append(study.complete_trials()[0].value)
    assert sum(best["tpe"]) < sum(best["random"])
    assert time.monotonic() - began < 60


def test_password_is_not_stored_in_the_study_folder(tmp_path: Path, space: Space, monkeypatch) -> None:
    folder = StudyFolder(tmp_path / "study")
    with pytest.raises(UserError, match=r"contains a password.*\$VADV_STUDY"):
        folder.claim(Config(), space, SearchConfig(storage="postgresql://me:secret@host/db"), TRAINED_ON)
    hidden = SearchConfig(storage="$VADV_STUDY")
    with pytest.raises(UserError, match="environment variable 'VADV_STUDY' is not set"):
        folder.storage_url(hidden)
    monkeypatch.setenv("VADV_STUDY", "postgresql://me:secret@host/db")
    assert folder.storage_url(hidden) == "postgresql://me:secret@host/db"
    folder.claim(Config(), space, hidden, TRAINED_ON)
    assert "secret" not in folder.record_path.read_text()


def test_unreachable_storage_is_a_machine_error(tmp_path: Path, space: Space) -> None:
    with pytest.raises(MachineError, match=r"Check search\.storage"):
        Study.open(f"sqlite:///{tmp_path}/no/such/place.db", "s", space, Config(), SearchConfig())
    with pytest.raises(
        MachineError, match=r"mysql\+mysqldb://host/db cannot be used: No module named 'MySQLdb'.*driver"
    ):
        Study.open("mysql+mysqldb://me:secret@host/db", "s", space, Config(), SearchConfig())


def test_import_error_during_a_search_is_not_a_storage_fault() -> None:
    with pytest.raises(ModuleNotFoundError), storage_faults("sqlite:///study.db", "Everything is saved."):
        raise ModuleNotFoundError("No module named 'matplotlib'")


@pytest.mark.parametrize(
    ("raw", "overrides", "message"),
    [
        ({"num_trails": 3}, [], "unknown field search.num_trails.*mean 'num_trials'"),
        ({}, ["--search.smapler=tpe"], "unknown field search.smapler.*mean 'sampler'"),
        ({"num_trials": 0}, [], "search.num_trials is 0, expected an integer of at least 1"),
        ({"seeds": 2}, [], "search.seeds is 2, expected an integer of at least 3"),
        ({"sampler": "gp"}, [], "sampler"),
        ({}, ["--search.num_trials=few"], "num_trials"),
    ],
)
def test_invalid_settings_are_reported_by_name(raw: dict, overrides: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_search(raw, overrides, "space.yaml")


def test_command_line_takes_precedence_over_the_file() -> None:
    assert load_search({"num_trials": 9, "seed": 4}, ["--search.num_trials=3"], "f") == SearchConfig(
        num_trials=3, seed=4
    )


def test_starts_are_counted_until_a_trial_makes_progress(tmp_path: Path, space: Space) -> None:
    def resume() -> tuple[Study, Any]:
        study = Study.open(f"{tmp_path}/study.log", "s", space, Config(), SearchConfig(storage="x", scheduler="none"))
        return study, next(iter(study.unfinished()), None) or study.ask()

    def begin(step: int) -> int:
        study, asked = resume()
        return study.begin(asked, step)

    assert [begin(0), begin(0), begin(8), begin(8), begin(8), begin(16)] == [1, 2, 1, 2, 3, 1]
    study, asked = resume()
    study.report(asked, 0, 1.0)
    assert begin(16) == 1
    assert begin(16) == 2


def test_search_without_a_checkpoint_is_replaced_by_a_corrected_one(tmp_path: Path, space: Space) -> None:
    folder = StudyFolder(tmp_path / "study")
    first = folder.claim(Config(), space, SearchConfig(), TRAINED_ON)
    (folder.root / "progress.json").write_text("{}")  # written from the first training on
    corrected = Config(optimizer=OptimizerConfig(lr=1e-4))
    second = folder.claim(corrected, space, SearchConfig(), TRAINED_ON)
    assert second != first
    failed = folder.repeats / "default-seed-2"
    failed.mkdir(parents=True)
    (failed / "failure.json").write_text('{"kind": "refused", "message": "no such encoder"}')
    (folder.root / "study.db").touch()
    third = folder.claim(
        corrected, space, SearchConfig(), TRAINED_ON
    )  # the encoder exists now, so everything is tried again
    assert third != second
    assert {path.name for path in folder.root.iterdir()} == {"study.yaml"}
    failed.mkdir(parents=True)
    (failed / "failure.json").write_text('{"kind": "refused", "message": "no such encoder"}')
    (folder.trials / "0").mkdir(parents=True)
    (folder.trials / "0" / "result.json").write_text("{}")
    assert folder.claim(corrected, space, SearchConfig(), TRAINED_ON) == third  # there is work to keep
    with pytest.raises(UserError, match="contains another search"):
        folder.claim(Config(), space, SearchConfig(), TRAINED_ON)


def test_partial_files_of_a_killed_search_are_removed_by_the_next(tmp_path: Path, space: Space) -> None:
    folder = StudyFolder(tmp_path / "study")
    name = folder.claim(Config(), space, SearchConfig(), TRAINED_ON)
    (folder.root / ".tune.json.partial-77").write_text("{")
    (folder.root / ".student.partial-77").mkdir()
    (folder.root / ".student.partial-77" / "config.json").touch()
    (folder.root / ".mine").touch()
    inner = [folder.root / "figures" / ".a.png.partial-7", folder.trials / "0" / ".evaluation-valid.json.partial-7"]
    for path in (folder.root / ".progress.json.partial-7", *inner):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    assert folder.claim(Config(), space, SearchConfig(), TRAINED_ON) == name
    assert {path.name for path in folder.root.rglob("*")} == {"study.yaml", ".mine", "figures", "trials", "0"}


@pytest.mark.parametrize(("min_epochs", "reduction"), [(1, 2), (1, 4), (2, 3), (3, 2)])
def test_rungs_decide_like_optunas_pruner_in_any_order_of_reports(min_epochs: int, reduction: int) -> None:
    search = SearchConfig(min_epochs=min_epochs, reduction=reduction)
    draw = random.Random(min_epochs * 10 + reduction)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(
        pruner=optuna.pruners.SuccessiveHalvingPruner(min_resource=min_epochs, reduction_factor=reduction)
    )
    costs: list[dict[int, float]] = []
    running: list[tuple[optuna.Trial, dict[int, float]]] = []
    stopped = 0
    while len(costs) < 40 or running:
        while len(running) < 3 and len(costs) < 40:
            costs.append({})
            running.append((study.ask(), costs[-1]))
        trial, known = draw.choice(running)
        epochs = len(known) + 1
        mae = round(draw.random(), 1)  # with ties
        trial.report(mae, epochs)
        others = [other for other in costs if other is not known]
        goes_on = not is_rung(search, epochs) or passes_rung(search, epochs, mae, others)
        assert goes_on == (not trial.should_prune())
        known[epochs] = mae
        stopped += not goes_on
        if not goes_on or epochs == 9:
            running.remove((trial, known))
    assert 10 < stopped < 40
