"""Ray Train with two DeepSpeed workers, on an object store: killed in every way it ends as on a disk."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from vadv_dist.cli import main
from vadv_dist.config import load_config
from vadv_dist.data.checks import check_dataset
from vadv_dist.data.readers.table import ingest_table
from vadv_dist.errors import UserError
from vadv_dist.inference.export import export_run
from vadv_dist.inference.predict import predict_texts
from vadv_dist.reporting.report import write_report
from vadv_dist.runs.checkpoint import list_checkpoints
from vadv_dist.runs.folder import RunFolder
from vadv_dist.storage.objects import S3Path
from vadv_dist.training.evaluate import evaluate_run

pytestmark = [pytest.mark.ray, pytest.mark.deepspeed, pytest.mark.slow]


def lines(folder: RunFolder) -> list[dict]:
    if not folder.metrics_path.is_file():
        return []
    text = folder.metrics_path.read_text()
    return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]


def wait_for_step(folder: RunFolder, step: int, process: subprocess.Popen, starts: int = 1) -> None:
    """Wait until a step is logged after so many starts: a killed attempt leaves lines of steps that are repeated."""
    deadline = time.monotonic() + 600
    while True:
        found = lines(folder)
        begun = [number for number, line in enumerate(found) if line["kind"] == "start"]
        if len(begun) >= starts and any(line["step"] >= step for line in found[begun[starts - 1] :]):
            return
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture
def words(tmp_path: Path) -> dict:
    """Options of `ingest_table` for 84 clips of words and a vector from the video."""
    splits = ["train"] * 60 + ["valid"] * 12 + ["test"] * 12
    rows = [f"c_{n},{split},{n % 7 - 3},words number {n}" for n, split in enumerate(splits)]
    (tmp_path / "clips.csv").write_text("\n".join(["id,split,label,text", *rows]) + "\n")
    vectors = np.random.default_rng(0).normal(size=(len(rows), 6)).astype(np.float32)
    np.savez(tmp_path / "vectors.npz", id=[f"c_{n}" for n in range(len(rows))], video=vectors)
    return {"csv": tmp_path / "clips.csv", "arrays": [f"{tmp_path}/vectors.npz:video=visual"]}


@pytest.mark.long
def test_ingested_trained_killed_continued_evaluated_and_exported_in_a_store_as_on_a_disk(
    cluster, s3, words, write_config, tmp_path: Path
) -> None:
    ingest_table(out=tmp_path / "words", **words)
    ingest_table(out=f"{s3}/words", **words)
    assert check_dataset(f"{s3}/words").ok
    options = ["--trainer.num_workers=2", "--engine.kind=deepspeed", "--engine.zero_stage=1", "--data.batch_size=4"]
    options += ["--trainer.checkpoint_every_steps=5", "--trainer.cpus_per_worker=1", "--trainer.epochs=8"]
    options += ["--teacher.use_face=false"]

    def start(name: str, place: object) -> subprocess.Popen:
        config = write_config(name, f"{place}/words", f"{place}/runs")
        command = [sys.executable, "-m", "vadv_dist.cli", "train", "--config", str(config), *options]
        return subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=cluster.environment
        )

    # On a disk, its workers undisturbed.
    on_disk = RunFolder(tmp_path / "runs" / "whole")
    # Its window readers are killed, which it survives without a worker being started again.
    driver = start("whole", tmp_path)
    wait_for_step(on_disk, 3, driver)
    deadline = time.monotonic() + 60
    while len(readers := cluster.processes("_NodeWindows")) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)  # Ray starts an actor's process when it comes to it
    assert len(readers) == 2  # for training and for validation
    for reader in readers:
        reader.send_signal(signal.SIGKILL)
    _, said = driver.communicate(timeout=900)
    assert driver.returncode == 0, said
    assert "a worker was lost" not in said, said
    assert "starting 2 Ray Train workers" in said
    assert "Traceback" not in said
    result = on_disk.result()
    assert result is not None
    assert (result.workers, result.engine) == (2, "deepspeed ZeRO-1")
    epochs = [line["step"] for line in lines(on_disk) if line["kind"] == "epoch"]

    # In the store, the driver is killed early.
    in_store = RunFolder(S3Path.parse(f"{s3}/runs/killed"))
    driver = start("killed", s3)
    wait_for_step(in_store, 8, driver)
    driver.send_signal(signal.SIGKILL)
    driver.communicate()
    assert list_checkpoints(in_store.checkpoints)[-1].step < result.steps // 2
    assert in_store.result() is None
    deadline = time.monotonic() + 600
    while cluster.processes("TrainWorker") and time.monotonic() < deadline:
        time.sleep(0.1)

    # Resume, and send SIGTERM to the driver: the workers finish their step with a checkpoint.
    before = list_checkpoints(in_store.checkpoints)[-1].step
    driver = start("killed", s3)
    wait_for_step(in_store, before + 1, driver, starts=2)
    driver.send_signal(signal.SIGTERM)
    _, said = driver.communicate(timeout=900)
    assert driver.returncode == 143, said
    stopped = list_checkpoints(in_store.checkpoints)[-1].step
    assert stopped > before
    assert f"stopped by SIGTERM at step {stopped} of {result.steps}, whose checkpoint is complete" in said
    assert "Traceback" not in said
    assert in_store.result() is None

    # Resume; one of the workers is killed inside a later epoch, and Ray restarts them.
    driver = start("killed", s3)
    wait_for_step(in_store, max(epochs[0], stopped + 1), driver, starts=3)
    victims = cluster.processes("TrainWorker")
    assert len(victims) == 2
    wait_for_step(in_store, max(epochs[1], stopped) + 2, driver, starts=3)
    victims[-1].send_signal(signal.SIGKILL)
    _, said = driver.communicate(timeout=900)
    assert driver.returncode == 0, said
    assert "resuming from step" in said
    assert "a worker was lost" in said, said
    assert "Traceback" not in said

    first, second = (list_checkpoints(run.checkpoints)[-1].weights() for run in (on_disk, in_store))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    steps = [line["step"] for line in lines(in_store) if line["kind"] == "step"]
    assert steps == list(range(1, result.steps + 1))

    evaluated = evaluate_run(str(in_store.root), "test").to_json()
    assert evaluated["rows"] == 12
    assert evaluated == json.loads((in_store.root / "evaluation-test.json").read_text())
    write_report(str(in_store.root))
    assert (in_store.root / "report.html").read_text().endswith("</html>\n")
    export_run(str(in_store.root), f"{s3}/exports/one")
    with pytest.raises(UserError, match="already exists"):
        export_run(str(in_store.root), f"{s3}/exports/one")
    ours, exported = (predict_texts(place, ["words number 7"]) for place in (in_store.root, f"{s3}/exports/one"))
    assert np.array_equal(ours, exported)


def test_mistake_that_workers_meet_ends_the_run_once(joined, write_config, made, tmp_path, capsys) -> None:
    import shutil

    damaged = tmp_path / "damaged"
    shutil.copytree(made, damaged)
    path = next((damaged / "train").glob("*.parquet"))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))
    command = ["train", "--config", str(write_config(uri=damaged)), "--trainer.num_workers=2"]
    assert main([*command, "--trainer.cpus_per_worker=1"]) == 2
    said = capsys.readouterr().err
    assert said.count(f"{path} has SHA-256") == 1
    assert "Traceback" not in said
    assert "restarting" not in said
    corrected = load_config(write_config(uri=made), ["--trainer.num_workers=2"])
    assert not RunFolder.of(corrected).claim(corrected)  # the name is free: nothing was trained under it
