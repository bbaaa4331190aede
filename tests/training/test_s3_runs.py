"""Runs whose data and folder are in an object store: killed, through faults, and to the end of the road."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from s3_server import FaultyProxy

from vadv_dist import locks, object_storage
from vadv_dist.config import load_config
from vadv_dist.data.checks import check_dataset
from vadv_dist.data.readers.table import ingest_table
from vadv_dist.data.synth import make_dataset
from vadv_dist.errors import UserError
from vadv_dist.inference.export import export_run
from vadv_dist.inference.predict import predict_texts
from vadv_dist.object_storage import S3Path
from vadv_dist.reporting.report import write_report
from vadv_dist.storage import location
from vadv_dist.training import run_lock
from vadv_dist.training.checkpoint import list_checkpoints
from vadv_dist.training.evaluate import evaluate_run
from vadv_dist.training.launch import train
from vadv_dist.training.run_folder import RunFolder

QUIET = Console(quiet=True)
OPTIONS = ("--trainer.checkpoint_every_steps=2", "--data.window_bytes=65536", "--trainer.keep_best=2")


@pytest.fixture(scope="module")
def made_s3(s3: str) -> str:
    """The made data set of `made`, in the store."""
    make_dataset(f"{s3}/made", num_clips=150, seed=3, shard_rows=16)
    return f"{s3}/made"


@pytest.fixture(scope="module")
def made_on_disk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("made-shards") / "data"
    make_dataset(out, num_clips=150, seed=3, shard_rows=16)
    return out


def last_weights(folder: RunFolder) -> dict[str, torch.Tensor]:
    return list_checkpoints(folder.checkpoints)[-1].weights()


def equal(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_a_data_set_in_a_store_is_that_on_a_disk(made_s3: str, made_on_disk: Path) -> None:
    there, here = (json.loads((location(uri) / "dataset.json").read_text()) for uri in (made_s3, made_on_disk))
    assert there["fingerprint"] == here["fingerprint"]
    assert there["splits"] == here["splits"]


@pytest.mark.slow
def test_a_run_through_a_faulty_network_ends_with_the_weights_of_one_on_a_disk(
    made_s3, made_on_disk, s3, s3_port, write_config, monkeypatch
) -> None:
    on_disk = load_config(write_config("whole", made_on_disk), OPTIONS)
    train(on_disk, QUIET)
    with FaultyProxy(s3_port, share=0.05) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{proxy.server_port}")
        object_storage._file_system.cache_clear()
        in_store = load_config(write_config("faulty", made_s3, f"{s3}/runs"), OPTIONS)
        train(in_store, QUIET)
        assert proxy.refused > 3
        assert proxy.cut > 3
    monkeypatch.undo()
    object_storage._file_system.cache_clear()
    assert equal(last_weights(RunFolder.of(on_disk)), last_weights(RunFolder.of(in_store)))
    steps = [json.loads(line)["step"] for line in RunFolder.of(in_store).metrics_path.read_text().splitlines()]
    assert steps == [json.loads(line)["step"] for line in RunFolder.of(on_disk).metrics_path.read_text().splitlines()]
    checkpoints = [[c.step for c in list_checkpoints(RunFolder.of(c).checkpoints)] for c in (on_disk, in_store)]
    assert checkpoints[0] == checkpoints[1]


def test_a_run_in_use_is_not_joined(made_s3, s3, write_config, monkeypatch) -> None:
    monkeypatch.setattr(locks, "RENEW_S", 0.3)
    monkeypatch.setattr(locks, "LEASE_S", 2.5)
    config = load_config(write_config("used", made_s3, f"{s3}/runs"), OPTIONS)
    with RunFolder.of(config).lock(), pytest.raises(UserError, match="by another process"):
        train(config, QUIET)
    assert not (location(f"{s3}/runs/used") / ".lock").exists()


def test_a_lease_that_nobody_renews_is_taken_over(s3: str, monkeypatch) -> None:
    monkeypatch.setattr(locks, "LEASE_S", 1.5)
    root = S3Path.parse(f"{s3}/runs/abandoned")
    (root / ".lock").write_bytes(b"{}")
    began = time.monotonic()
    with run_lock.run_lock(root, ".lock"):
        assert time.monotonic() - began > 0.4  # the store tells whole seconds
        assert (root / ".lock").read_bytes() != b"{}"


@pytest.mark.ray
@pytest.mark.deepspeed
@pytest.mark.slow
def test_ingested_trained_killed_continued_evaluated_and_exported_in_a_store(
    cluster, s3, made_s3, write_config, made: Path, tmp_path: Path
) -> None:
    splits = ["train"] * 60 + ["valid"] * 12 + ["test"] * 12
    rows = [f"c_{n},{split},{n % 7 - 3},words number {n}" for n, split in enumerate(splits)]
    (tmp_path / "clips.csv").write_text("\n".join(["id,split,label,text", *rows]) + "\n")
    ingest_table(tmp_path / "clips.csv", f"{s3}/words")
    assert check_dataset(f"{s3}/words").ok

    options = ["--objective.kind=none", "--trainer.num_workers=2", "--trainer.cpus_per_worker=1"]
    options += ["--engine.kind=deepspeed", "--engine.zero_stage=1", "--data.batch_size=4", "--trainer.epochs=3"]
    options += ["--trainer.checkpoint_every_steps=4"]

    def start(name: str) -> subprocess.Popen:
        command = [sys.executable, "-m", "vadv_dist.cli", "train", "--config"]
        command += [str(write_config(name, f"{s3}/words", f"{s3}/runs")), *options]
        return subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=cluster.environment
        )

    def finish(driver: subprocess.Popen) -> None:
        _, said = driver.communicate(timeout=300)
        assert driver.returncode == 0, said
        assert "Traceback" not in said

    whole, killed = (RunFolder(S3Path.parse(f"{s3}/runs/{name}")) for name in ("ray-whole", "ray-killed"))
    undisturbed, driver = start("ray-whole"), start("ray-killed")
    deadline = time.monotonic() + 180
    while not list_checkpoints(killed.checkpoints):
        assert driver.poll() is None, driver.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    driver.send_signal(signal.SIGKILL)
    driver.communicate()
    assert killed.result() is None
    finish(undisturbed)
    finish(start("ray-killed"))
    assert equal(last_weights(whole), last_weights(killed))

    evaluated = evaluate_run(str(killed.root), "test")
    assert evaluated["rows"] == 12
    assert evaluated == json.loads((killed.root / "evaluation-test.json").read_text())
    write_report(str(killed.root))
    assert (killed.root / "report.html").read_text().endswith("</html>\n")
    export_run(str(killed.root), f"{s3}/exports/one")
    with pytest.raises(UserError, match="exists already"):
        export_run(str(killed.root), f"{s3}/exports/one")
    first, second = (predict_texts(place, ["words number 7"]) for place in (killed.root, f"{s3}/exports/one"))
    assert np.array_equal(first, second)
