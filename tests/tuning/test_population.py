"""Whole populations on tiny runs: copies, schedules, and that interruptions change nothing."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch
from ray_nodes import Cluster
from rich.console import Console
from run_lines import run_result
from stopping_child import LOG_LINE, signal_stopped, start_until

from vadv_dist.config import Config, OptimizerConfig, load_config
from vadv_dist.config.search import SearchConfig
from vadv_dist.data.sources import Sources
from vadv_dist.errors import MachineError, UserError
from vadv_dist.runs.checkpoint import list_checkpoints
from vadv_dist.runs.folder import RunFolder
from vadv_dist.runs.trained_on import TrainedOn
from vadv_dist.storage import read_json
from vadv_dist.tuning import population
from vadv_dist.tuning.events import Ended, Epoch, Stopped
from vadv_dist.tuning.fork import fork
from vadv_dist.tuning.jobs import RunJob, drive
from vadv_dist.tuning.pools import LocalPool
from vadv_dist.tuning.population import histories, schedules
from vadv_dist.tuning.search import tune
from vadv_dist.tuning.session import TrainingSession
from vadv_dist.tuning.space import with_values
from vadv_dist.tuning.space_file import load_space
from vadv_dist.tuning.study import Study

SPACE = """
search: {num_trials: 4, scheduler: pbt, top: 1, leave_one_out: false}
space:
  objective.psi: {distribution: float, low: 0.01, high: 100.0, log: true, zero: 0.1}
  optimizer.lr: {distribution: float, low: 1.0e-4, high: 1.0e-2, log: true}
"""


@pytest.fixture
def space(tmp_path: Path) -> Path:
    path = tmp_path / "rates.yaml"
    path.write_text(SPACE)
    return path


def named(config: Config, name: str, **values: Any) -> Config:
    config = with_values(config, {key.replace("__", "."): value for key, value in values.items()})
    return dataclasses.replace(config, run=dataclasses.replace(config.run, name=name))


def train(config: Config, until: int | None = None) -> dict[str, Any]:
    """Train for a number of epochs, or to the end."""
    session = TrainingSession()
    event = session.begin(config)
    while isinstance(event, Epoch):
        event = session.decide(until is None or event.epoch + 1 < until)
    assert isinstance(event, Ended if until is None else Stopped), event
    return event.result if isinstance(event, Ended) else {}


def weights(config: Config) -> dict[str, torch.Tensor]:
    return list_checkpoints(RunFolder.of(config).checkpoints)[-1].weights()


def lines(root: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (root / "metrics.jsonl").read_text().splitlines()]


def epochs(root: Path) -> list[float]:
    return [line["validation"]["student"]["mae"] for line in lines(root) if line["kind"] == "epoch"]


def trials_of(root: Path) -> list[optuna.trial.FrozenTrial]:
    storage = f"sqlite:///{root}/study.db"
    (name,) = optuna.get_all_study_names(storage)
    return optuna.load_study(study_name=name, storage=storage).get_trials()


@pytest.mark.slow
def test_fork_with_the_same_values_ends_like_its_source(write_config: Callable[..., Path]) -> None:
    whole = load_config(write_config("whole"), ["--trainer.epochs=3"])
    first, second = named(whole, "first"), named(whole, "second")
    train(whole)
    train(first, until=1)
    fork(RunFolder.of(first), second, 1)
    train(second)
    assert all(torch.equal(value, weights(second)[name]) for name, value in weights(whole).items())
    a, b = RunFolder.of(whole).root, RunFolder.of(second).root
    assert epochs(a) == epochs(b)
    assert read_json(a / "result.json")["validation"] == read_json(b / "result.json")["validation"]


@pytest.mark.slow
def test_fork_changes_values_and_leaves_its_source_unchanged(write_config: Callable[..., Path]) -> None:
    base = load_config(write_config("first"), ["--trainer.epochs=3"])
    other = named(base, "second", objective__psi=7.0, optimizer__lr=5e-4)
    train(base, until=2)
    fork(RunFolder.of(base), other, 2)
    fork(RunFolder.of(base), other, 2)  # the second time, it exists
    source, root = RunFolder.of(base).root, RunFolder.of(other).root
    assert load_config(root / "config.yaml") == other
    assert load_config(source / "config.yaml") == base
    train(other)
    train(base)
    assert epochs(root)[:2] == epochs(source)[:2]
    assert epochs(root)[2] != epochs(source)[2]
    # The position on the cosine stays; the peak is the new one, half of the old one.
    rates = {where: [line["lr"] for line in lines(where) if line["kind"] == "step"] for where in (root, source)}
    count = len(rates[root]) // 3
    assert rates[root][: 2 * count] == rates[source][: 2 * count]
    assert rates[root][2 * count :] == pytest.approx([rate / 2 for rate in rates[source][2 * count :]])


def test_fork_from_another_position_is_rejected_and_writes_nothing(write_config: Callable[..., Path]) -> None:
    base = load_config(write_config("first"))
    train(base, until=1)
    other = named(base, "second")
    with pytest.raises(MachineError, match=r"is after 1 epoch, but .*second continues from it after 2"):
        fork(RunFolder.of(base), other, 2)
    assert not RunFolder.of(other).root.exists()


def search(config: Path, space: Path, *overrides: str) -> dict:
    options = ["--data.batch_size=40", "--trainer.epochs=3", *overrides]
    return tune(config, space, options, Console(quiet=True, stderr=True), use_ray=False)


@pytest.mark.slow
def test_population_reports_its_lineage_and_a_verdict_on_the_schedule(
    write_config: Callable[..., Path], space: Path, tmp_path: Path
) -> None:
    answer = search(write_config("hunt"), space)
    root = tmp_path / "runs" / "hunt-rates"
    trials = trials_of(root)
    assert [trial.state.name for trial in trials] == ["COMPLETE"] * 4
    assert answer["trials"]["all"] == 4
    # One of four trials is replaced after epochs 1 and 2.
    assert [record["epoch"] for record in answer["population"]] == [1, 2]
    courses = {number: [(str(number), 0)] for number in range(4)}
    for record in answer["population"]:
        epoch, scores = record["epoch"], {int(n): mae for n, mae in record["scores"].items()}
        (exploit,) = record["exploits"]
        assert scores[exploit["trial"]] == max(scores.values())
        assert scores[exploit["source"]] == min(scores.values())
        assert scores == {trial.number: trial.intermediate_values[epoch] for trial in trials}
        name = f"{exploit['trial']}-from-{epoch}"
        source = courses[exploit["source"]][-1][0]
        # The copy's folder holds the history of its weights, under its own configuration.
        assert epochs(root / "trials" / name)[:epoch] == epochs(root / "trials" / source)[:epoch]
        config = load_config(root / "trials" / name / "config.yaml")
        assert config.objective.psi == exploit["values"]["objective.psi"]
        assert config.optimizer.lr == exploit["values"]["optimizer.lr"]
        courses[exploit["trial"]] = [*courses[exploit["source"]], (name, epoch)]
    for trial in trials:
        last = root / "trials" / courses[trial.number][-1][0]
        assert trial.values == [min(epochs(last))]
        assert trial.intermediate_values[3] == epochs(last)[2]
    assert not list(root.glob("trials/*/checkpoints/step-*"))
    page = (root / "tune-report.html").read_text()
    assert 'id="lineage"' in page
    assert "which continued 2 times from another trial" in page
    comment = "# The winner's values changed during training"
    assert (comment in (root / "best.yaml").read_text()) == ("schedule" in answer["winner"])

    # A trial whose values changed can be repeated: the same seed gives the same numbers.
    number, course = next((n, c) for n, c in courses.items() if len(c) > 1)
    segments = []
    for place, (name, epoch) in enumerate(course):
        config = load_config(root / "trials" / name / "config.yaml")
        run = dataclasses.replace(config.run, name=f"again-{place}", storage=str(tmp_path))
        segments.append((epoch, dataclasses.replace(config, run=run)))
    ended = []
    job = RunJob("again", segments, lambda key, event: ended.append(event))
    with LocalPool(30.0) as pool:
        drive(pool, iter([job]), TrainedOn.of(config, Sources.open(config)))
    assert epochs(tmp_path / f"again-{len(course) - 1}") == epochs(root / "trials" / course[-1][0])
    assert ended[0].result.score == trials[number].values[0]
    assert not list(tmp_path.glob("again-*/checkpoints/step-*"))

    # A larger population is another search.
    with pytest.raises(UserError, match=r"settings.num_trials: 4 there, 5 now"):
        search(write_config("hunt"), space, "--search.num_trials=5")


@pytest.mark.long
@pytest.mark.slow
def test_population_interrupted_around_every_decision_ends_like_an_uninterrupted_one(
    write_config: Callable[..., Path], space: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = search(write_config("whole"), space)
    seen: set[str] = set()

    class Broken(BaseException):
        """Not caught by anything."""

    def breaking(original: Callable, name_of: Callable[..., str]) -> Callable:
        def call(*arguments: Any) -> Any:
            name = name_of(*arguments)
            for when in ("before", "after"):
                if when == "after":
                    result = original(*arguments)
                if f"{when} {name}" not in seen:
                    seen.add(f"{when} {name}")
                    raise Broken
            return result

        return call

    monkeypatch.setattr(population, "fork", breaking(fork, lambda source, config, epoch: f"fork {config.run.name}"))
    monkeypatch.setattr(population, "strip", breaking(population.strip, lambda folder: f"strip {folder.root.name}"))
    store = optuna.Study.set_user_attr
    monkeypatch.setattr(optuna.Study, "set_user_attr", breaking(store, lambda study, key, value: key))
    monkeypatch.setattr(Study, "complete", breaking(Study.complete, lambda study, asked, result: f"end {asked.number}"))
    config, answer = write_config("broken"), None
    while answer is None:
        try:
            answer = search(config, space)
        except Broken:
            assert len(seen) < 100
    # Two decisions, two copies, two removed folders, four ends: each interrupted twice.
    assert len(seen) == 20
    for key in ("population", "winner", "candidates", "trials", "noise"):
        assert answer[key] == whole[key], key
    a, b = (trials_of(tmp_path / "runs" / f"{name}-rates") for name in ("whole", "broken"))
    assert [(t.values, t.params, t.intermediate_values) for t in a] == [
        (t.values, t.params, t.intermediate_values) for t in b
    ]


@pytest.mark.long
@pytest.mark.slow
def test_killed_population_is_resumed_and_ends_like_an_uninterrupted_one(
    write_config: Callable[..., Path], space: Path, tmp_path: Path
) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}

    def arguments(name: str) -> list[str]:
        files = ["--config", str(write_config(name)), "--space", str(space), "--no-ray"]
        return ["tune", *files, "--data.batch_size=8", "--trainer.epochs=3"]

    def complete(name: str) -> None:
        command = [sys.executable, "-m", "vadv_dist.cli", *arguments(name)]
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
        assert done.returncode == 0, done.stderr

    complete("whole")
    whole, killed = tmp_path / "runs" / "whole-rates", tmp_path / "runs" / "killed-rates"
    for sign in ("trials/1/checkpoints/step-*", "trials/*-from-1", "trials/*-from-1/checkpoints/step-*/manifest.json"):
        signal_stopped(start_until(LOG_LINE, killed / sign, arguments("killed"), env=environment), signal.SIGKILL)
    complete("killed")
    a, b = trials_of(whole), trials_of(killed)
    assert [(t.values, t.params, t.intermediate_values) for t in a] == [
        (t.values, t.params, t.intermediate_values) for t in b
    ]
    first, second = read_json(whole / "tune.json"), read_json(killed / "tune.json")
    for key in ("population", "winner", "verdict", "candidates"):
        assert first[key] == second[key], key


@pytest.mark.long
@pytest.mark.ray
@pytest.mark.slow
def test_population_on_ray_ends_like_one_in_this_process(
    cluster: Cluster, write_config: Callable[..., Path], space: Path, tmp_path: Path
) -> None:
    here = search(write_config("here"), space, "--data.batch_size=16")
    files = ["--config", str(write_config("there")), "--space", str(space), "--search.concurrent=2"]
    command = [sys.executable, "-m", "vadv_dist.cli", "tune", *files, "--trainer.epochs=3", "--json"]
    done = subprocess.run(
        command, capture_output=True, text=True, env={**cluster.environment, "OMP_NUM_THREADS": "1"}, timeout=900
    )
    assert done.returncode == 0, done.stderr
    there = json.loads(done.stdout)
    for key in ("population", "winner", "candidates", "noise", "verdict"):
        assert there[key] == here[key], key


@pytest.mark.slow
def test_fork_in_an_object_store_continues_like_one_on_a_disk(
    s3: str, write_config: Callable[..., Path], tmp_path: Path
) -> None:
    ends = []
    for storage in (s3 + "/forks", str(tmp_path / "runs")):
        base = load_config(write_config("first", storage=storage), ["--trainer.epochs=2", "--data.batch_size=40"])
        other = named(base, "second", objective__psi=7.0)
        train(base, until=1)
        fork(RunFolder.of(base), other, 1)
        assert RunFolder.of(other).config() == other
        ends.append(train(other).validation)
    assert ends[0] == ends[1]


def test_schedule_ends_with_the_values_of_the_best_checkpoint(tmp_path: Path, space: Path) -> None:
    base = Config(optimizer=OptimizerConfig(lr=1e-3))
    found, _ = load_space(space, base)
    study = Study.open(f"{tmp_path}/s.log", "s", found, base, SearchConfig(num_trials=3, scheduler="pbt"))
    for _ in range(3):
        study.ask()
    start = [study.values(trial) for trial in study.trials()]
    changed = [{**start[0], "objective.psi": float(number)} for number in (4, 5, 6)]
    for epoch, trial, source, values in ((2, 1, 0, changed[0]), (4, 2, 1, changed[1]), (6, 1, 0, changed[2])):
        exploit = {"trial": trial, "source": source, "values": values, "how": {}}
        study.optuna.set_user_attr(f"population after {epoch}", {"epoch": epoch, "scores": {}, "exploits": [exploit]})
    by_hand = {
        0: ((0, start[0]),),
        1: ((0, start[0]), (6, changed[2])),
        2: ((0, start[0]), (2, changed[0]), (4, changed[1])),
    }
    assert histories(study) == schedules(study) == by_hand
    # Epochs count from 0, so epoch 5 precedes a change after 6 epochs, and epoch 4 follows one after 4 epochs.
    for asked, best_epoch in zip(study.unfinished(), (7, 5, 4), strict=True):
        study.complete(asked, run_result({"mae": 1.0}, best_epoch=best_epoch))
    assert schedules(study) == {**by_hand, 1: ((0, start[0]),)}
