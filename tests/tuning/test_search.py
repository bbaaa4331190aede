"""Whole searches on tiny runs, in this process and as a command that is killed."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import optuna
import pytest
import torch
from optuna.trial import TrialState
from rich.console import Console
from stopping_child import LOG_LINE, signal_stopped, start_until

from vadv_dist.cli import main
from vadv_dist.config import load_config
from vadv_dist.engines.adamw import ClippedAdamW
from vadv_dist.errors import UserError, VadvError
from vadv_dist.runs.checkpoint import list_checkpoints
from vadv_dist.storage import read_json
from vadv_dist.training.loop import Trainer
from vadv_dist.tuning.search import tune


class _Page(HTMLParser):
    """Parses a page and checks that every element is closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.headings: list[str] = []
        self.loads: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list) -> None:
        if tag not in ("meta", "link"):
            self.open.append(tag)
        if tag in ("script", "img", "iframe") or any(v and v.startswith("http") for _, v in attrs):
            self.loads.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "h2":
            self.headings.append(data)


QUIET = Console(quiet=True, stderr=True)
SPACE = """
search: {num_trials: 4, reduction: 2, top: 1, leave_one_out: false}
space:
  objective.beta: {fixed: 10.0}
  objective.alpha: {distribution: float, low: 0.01, high: 100.0, log: true, zero: 0.1}
  objective.psi: {distribution: float, low: 0.01, high: 100.0, log: true, zero: 0.1}
"""


@pytest.fixture
def space(tmp_path: Path) -> Path:
    path = tmp_path / "weights.yaml"
    path.write_text(SPACE)
    return path


def search(config: Path, space: Path, *overrides: str) -> dict:
    return tune(config, space, ["--data.batch_size=40", *overrides], QUIET, use_ray=False)


def trials_of(root: Path) -> list[optuna.trial.FrozenTrial]:
    storage = f"sqlite:///{root}/study.db"
    (name,) = optuna.get_all_study_names(storage)
    return optuna.load_study(study_name=name, storage=storage).get_trials()


@pytest.mark.slow
def test_classes_are_searched_by_accuracy(
    write_config: Callable[..., Path], made_classes: Path, space: Path, tmp_path: Path
) -> None:
    config = write_config("hunt", uri=made_classes)
    answer = search(config, space, "--search.num_trials=2", "--trainer.epochs=1")
    assert answer["trials"]["all"] == 2
    assert set(answer["noise"]["accuracy"]) == {"6", "7", "8"}
    page = _Page((tmp_path / "runs" / "hunt-weights" / "tune-report.html").read_text())
    assert "The best, trained again" in page.headings


@pytest.mark.slow
def test_search_writes_all_results_without_opening_the_test_split(
    write_config: Callable[..., Path], made: Path, space: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    blind = tmp_path / "blind"
    shutil.copytree(made, blind)
    shutil.rmtree(blind / "test")
    config = write_config("hunt", uri=blind)
    answer = search(config, space, "--search.leave_one_out=true")
    root = tmp_path / "runs" / "hunt-weights"
    trials = trials_of(root)
    assert len(trials) == 4
    # The paper's weights, independent of the sampler: 1 : 10 : 1 : 10 : 1.
    assert trials[0].user_attrs["values"] == {"objective.beta": 10.0, "objective.alpha": 1.0, "objective.psi": 1.0}
    assert trials[0].state == TrialState.COMPLETE
    # The metric is the unweighted validation MAE of the student.
    lines = [json.loads(line) for line in (root / "trials" / "0" / "metrics.jsonl").read_text().splitlines()]
    epochs = [line["validation"]["student"]["mae"] for line in lines if line["kind"] == "epoch"]
    assert trials[0].intermediate_values == dict(enumerate(epochs, 1))
    assert trials[0].value == min(epochs)
    assert answer["trials"]["all"] == 4
    assert answer == read_json(root / "tune.json")
    assert set(answer["noise"]["mae"]) == {"6", "7", "8"}
    best = load_config(root / "best.yaml")
    assert best.run.name == "hunt-best"
    assert best.objective.alpha == answer["winner"]["values"]["objective.alpha"]
    assert (root / "student" / "model.safetensors").is_file()
    assert {term["name"] for term in answer["leave_one_term_out"]} >= {"gamma", "delta"}
    assert all(len(term["mae"]) == 3 for term in answer["leave_one_term_out"])
    assert answer["verdict"].split(" ")[0] in ("better", "no")
    page = _Page((root / "tune-report.html").read_text())
    assert page.headings == [
        "The best, trained again",
        "Without each term",
        "History",
        "What matters",
        "Trials",
        "Search",
    ]
    assert not page.loads
    # The report can be written anew from the study and the runs.
    assert main(["watch", str(root), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["state"] == "complete"
    (root / "tune-report.html").rename(root / "first.html")
    assert main(["report", str(root)]) == 0
    assert capsys.readouterr().out == f"{root}/tune-report.html\n"
    assert (root / "tune-report.html").read_bytes() == (root / "first.html").read_bytes()
    # Runs keep their metrics, not their weights.
    assert not list(root.glob("*/*/checkpoints/*"))
    assert len(list(root.glob("repeats/default-*/student"))) == 1
    assert not list(root.glob("trials/*/student"))


@pytest.mark.slow
def test_completed_search_returns_its_result_without_training(
    write_config: Callable[..., Path], space: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = write_config()
    first = search(config, space)

    def fit(self: Trainer) -> None:
        raise AssertionError("trained again")

    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "fit", fit)
        assert search(config, space) == first
    more = search(config, space, "--search.num_trials=5")
    assert more["trials"]["all"] == 5


@pytest.mark.slow
def test_search_is_resumed_only_with_the_same_space(write_config: Callable[..., Path], space: Path) -> None:
    config = write_config()
    search(config, space, "--search.num_trials=1")
    space.write_text(SPACE.replace("high: 100.0", "high: 50.0", 1))
    with pytest.raises(UserError, match=r"another search:\n  space.objective.alpha.high: 100.0 there, 50.0 now"):
        search(config, space, "--search.num_trials=1")


@pytest.mark.slow
def test_failed_trials_do_not_end_the_search_and_have_reasons(
    write_config: Callable[..., Path], space: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = ClippedAdamW.step
    fit = Trainer.fit

    def spoil(self: Trainer):
        number = self.folder.root.name
        with monkeypatch.context() as patched:
            if number == "1":
                patched.setattr(ClippedAdamW, "step", lambda self: original(self) * float("nan"))
            if number == "2":
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
            return fit(self)

    monkeypatch.setattr(Trainer, "fit", spoil)
    answer = search(write_config(), space, "--search.scheduler=none")
    states = [trial.state for trial in trials_of(tmp_path / "runs" / "run-weights")]
    assert states == [TrialState.COMPLETE, TrialState.FAIL, TrialState.FAIL, TrialState.COMPLETE]
    assert [(f["trial"], f["kind"]) for f in answer["failures"]] == [(1, "NaN or infinity"), (2, "out of memory")]


@pytest.mark.slow
def test_consecutive_failures_end_the_search(
    write_config: Callable[..., Path],
    space: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    fit = Trainer.fit

    def crash(self: Trainer):
        if self.folder.root.parent.name == "trials" and self.folder.root.name != "0":
            raise RuntimeError("a kernel went wrong")
        return fit(self)

    monkeypatch.setattr(Trainer, "fit", crash)
    with pytest.raises(VadvError, match=r"stopped after 2 failed trials in a row \(2 × crash\).*a kernel went wrong"):
        search(write_config(), space, "--search.max_failures=2")
    # What it reached can be seen.
    root = tmp_path / "runs" / "run-weights"
    assert main(["watch", str(root)]) == 0
    assert f"{root}: stopped\n6 of about 10 trainings done" in capsys.readouterr().out
    assert main(["report", str(root)]) == 0
    page = (root / "tune-report.html").read_text()
    assert "<h1>Not finished</h1>" in page
    assert "6 of about 10 trainings done; so far, no configuration has been compared with the default." in page
    assert "a kernel went wrong" in page


def test_mistakes_are_reported_before_anything_is_written(
    write_config: Callable[..., Path], space: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def mistake(*arguments: object) -> str:
        assert main(["tune", "--config", str(write_config()), *map(str, arguments)]) == 2
        printed = capsys.readouterr()
        assert printed.out == ""
        assert "Traceback" not in printed.err
        return printed.err

    assert "did you mean 'loss_weights'" in mistake("--space", "loss_wieghts").lower()
    assert "search.num_trials is 0" in mistake("--space", space, "--num-trials", 0)
    assert "unknown section 'objectiv'" in mistake("--space", space, "--objectiv.psi=1")
    assert "needs Ray" in mistake("--space", space, "--no-ray", "--trainer.num_workers=1")
    assert "weights change nothing" in mistake("--space", space, "--no-ray", "--objective.kind=none")
    assert not (tmp_path / "runs").exists()


@pytest.mark.long
@pytest.mark.slow
def test_killed_search_is_resumed_and_ends_like_an_uninterrupted_one(
    write_config: Callable[..., Path], space: Path, tmp_path: Path
) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}

    options = ["--data.batch_size=12", "--trainer.epochs=3"]
    files = ["--config", str(write_config("killed")), "--space", str(space), "--no-ray"]
    arguments = ["tune", *files, *options]

    def epochs(root: Path, number: int) -> list[dict]:
        path = root / "trials" / str(number) / "metrics.jsonl"
        text = path.read_text() if path.is_file() else ""
        lines = [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]
        return [line for line in lines if line["kind"] == "epoch"]

    search(write_config("whole"), space, *options)
    whole, killed = tmp_path / "runs" / "whole-weights", tmp_path / "runs" / "killed-weights"

    # Killed after a checkpoint of the first trial, and again after one of the second. test_kills.py kills a search at
    # every single step.
    for number in (0, 1):
        checkpoints = killed / "trials" / str(number) / "checkpoints" / "*" / "manifest.json"
        signal_stopped(start_until(LOG_LINE, checkpoints, arguments, env=environment), signal.SIGKILL)
    assert not (killed / "tune.json").exists()
    first = (killed / "trials" / "0" / "metrics.jsonl").stat().st_mtime
    checkpoints = list_checkpoints(killed / "trials" / "1" / "checkpoints")
    before = [line for line in epochs(killed, 1) if not checkpoints or line["step"] <= checkpoints[-1].step]
    assert before
    command = [sys.executable, "-m", "vadv_dist.cli", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr

    # No completed trial is repeated, none is lost, and the number of trials is the requested one.
    assert (killed / "trials" / "0" / "metrics.jsonl").stat().st_mtime == first
    a, b = trials_of(whole), trials_of(killed)
    assert len(a) == len(b) == 4
    for x, y in zip(a, b, strict=True):
        assert (x.state, x.params, x.intermediate_values, x.value) == (
            y.state,
            y.params,
            y.intermediate_values,
            y.value,
        )
    # The running trial was resumed from its checkpoint: the epochs before it were not trained again.
    assert epochs(killed, 1)[: len(before)] == before
    wa, wb = read_json(whole / "tune.json"), read_json(killed / "tune.json")
    assert wa["verdict"] == wb["verdict"]
    assert wa["winner"] == wb["winner"]
