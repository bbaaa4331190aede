"""A study in a real PostgreSQL: killed searches resume, a lost server is reported, and no file holds its password."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState
from postgres_server import PASSWORD, Server, binaries, postgres
from stopping_child import LOG_LINE, signal_stopped, start_until

from vadv_dist.cli import main
from vadv_dist.storage import read_json

pytest.importorskip("psycopg", reason="the driver is not installed: pip install 'vadv-dist[postgres]'")
pytestmark = pytest.mark.slow
SPACE = """
search: {num_trials: 4, reduction: 2, top: 1, leave_one_out: false, storage: $VADV_STUDY}
space:
  objective.psi: {distribution: float, low: 0.01, high: 100.0, log: true, zero: 0.1}
"""


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    found = binaries()
    if found is None:
        pytest.skip("PostgreSQL is not installed (initdb and postgres)")
    with postgres(found) as running:
        yield running


@pytest.fixture
def command(server: Server, write_config: Callable[..., Path], tmp_path: Path, monkeypatch) -> list[str]:
    monkeypatch.setenv("VADV_STUDY", server.url)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    (tmp_path / "psi.yaml").write_text(SPACE)
    files = ["--config", str(write_config("hunt")), "--space", str(tmp_path / "psi.yaml")]
    return ["tune", *files, "--no-ray", "--data.batch_size=4", "--trainer.epochs=3"]


def in_a_process(command: list[str]) -> subprocess.Popen[str]:
    whole = [sys.executable, "-m", "vadv_dist.cli", *command]
    return subprocess.Popen(whole, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=dict(os.environ))


def test_search_in_postgresql_survives_a_kill_and_the_loss_of_the_server(
    server: Server, command: list[str], tmp_path: Path
) -> None:
    root = tmp_path / "runs" / "hunt-psi"
    printed = []

    checkpoints = root / "trials" / "1" / "checkpoints" / "*" / "manifest.json"
    printed += signal_stopped(start_until(LOG_LINE, checkpoints, command), signal.SIGKILL)
    first = (root / "trials" / "0" / "metrics.jsonl").stat().st_mtime

    driver = start_until(LOG_LINE, root / "trials" / "2", command)
    server.stop()
    out, message = signal_stopped(driver, signal.SIGCONT)
    printed += [out, message]
    assert driver.returncode == 1, message
    assert "Traceback" not in message
    assert f"The study's storage postgresql+psycopg://127.0.0.1:{server.port}/postgres cannot be used" in message
    assert "run the same command again to resume" in message

    server.start()
    driver = in_a_process([*command, "--json"])
    out, message = driver.communicate(timeout=900)
    printed += [out, message]
    assert driver.returncode == 0, message

    assert json.loads(out)["trials"]["all"] == 4
    assert (root / "trials" / "0" / "metrics.jsonl").stat().st_mtime == first
    (name,) = optuna.get_all_study_names(server.url)
    trials = optuna.load_study(study_name=name, storage=server.url).get_trials()
    assert {trial.state for trial in trials} <= {TrialState.COMPLETE, TrialState.PRUNED}
    for trial in trials:
        lines = (root / "trials" / str(trial.number) / "metrics.jsonl").read_text().splitlines()
        epochs = [line for line in map(json.loads, lines) if line["kind"] == "epoch"]
        # PostgreSQL holds exactly the costs that the run wrote.
        assert trial.intermediate_values == {e["epoch"] + 1: e["validation"]["student"]["mae"] for e in epochs}
    assert not (root / "study.db").exists()

    # No file of the search and no line that it printed holds the password, escaped or not.
    secrets = [PASSWORD, server.url.split(":")[2].split("@")[0]]
    texts = {str(path): path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert str(root / "tune-report.html") in texts
    assert read_json(root / "tune.json")["study"] == name
    for where, text in [*texts.items(), *(("message", line.encode()) for line in printed)]:
        assert not any(secret.encode() in text for secret in secrets), where


def test_wrong_password_is_reported_without_it(
    server: Server, command: list[str], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("VADV_STUDY", server.url.replace("horse", "donkey"))
    assert main(command) == 1
    message = capfd.readouterr().err
    assert "password authentication failed" in message
    assert "donkey" not in message
    assert "Nothing was started" in message
