"""Runs whose data and folder are in an object store: killed, through faults, and and finished."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from rich.console import Console
from s3_server import FaultyProxy

from vadv_dist.config import load_config
from vadv_dist.data.synth import make_dataset
from vadv_dist.errors import UserError
from vadv_dist.launch.driver import train
from vadv_dist.runs.checkpoint import list_checkpoints
from vadv_dist.runs.folder import RunFolder, run_lock
from vadv_dist.storage import location, locks, object_client
from vadv_dist.storage.objects import S3Path

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


def test_data_set_in_a_store_equals_the_one_on_disk(made_s3: str, made_on_disk: Path) -> None:
    there, here = (json.loads((location(uri) / "dataset.json").read_text()) for uri in (made_s3, made_on_disk))
    assert there["fingerprint"] == here["fingerprint"]
    assert there["splits"] == here["splits"]


@pytest.mark.slow
def test_run_over_a_faulty_network_ends_with_the_same_weights(
    made_s3, made_on_disk, s3, s3_port, write_config, monkeypatch
) -> None:
    on_disk = load_config(write_config("whole", made_on_disk), OPTIONS)
    train(on_disk, QUIET)
    with FaultyProxy(s3_port, share=0.05) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{proxy.server_port}")
        object_client.forget_client()
        in_store = load_config(write_config("faulty", made_s3, f"{s3}/runs"), OPTIONS)
        train(in_store, QUIET)
        assert proxy.refused > 3
        assert proxy.cut > 3
    monkeypatch.undo()
    object_client.forget_client()
    assert equal(last_weights(RunFolder.of(on_disk)), last_weights(RunFolder.of(in_store)))
    steps = [json.loads(line)["step"] for line in RunFolder.of(in_store).metrics_path.read_text().splitlines()]
    assert steps == [json.loads(line)["step"] for line in RunFolder.of(on_disk).metrics_path.read_text().splitlines()]
    checkpoints = [[c.step for c in list_checkpoints(RunFolder.of(c).checkpoints)] for c in (on_disk, in_store)]
    assert checkpoints[0] == checkpoints[1]


def test_run_in_use_is_locked(made_s3, s3, write_config, monkeypatch) -> None:
    monkeypatch.setattr(locks, "RENEW_S", 0.3)
    monkeypatch.setattr(locks, "LEASE_S", 2.5)
    config = load_config(write_config("used", made_s3, f"{s3}/runs"), OPTIONS)
    with RunFolder.of(config).lock(), pytest.raises(UserError, match="by another process"):
        train(config, QUIET)
    assert not (location(f"{s3}/runs/used") / ".lock").exists()


def test_lease_of_a_killed_process_of_this_machine_is_taken_over_at_once(s3: str) -> None:
    root = S3Path.parse(f"{s3}/runs/killed")
    hold = (
        "import sys, time; from vadv_dist.runs.folder import run_lock; from vadv_dist.storage.objects import S3Path\n"
        f"with run_lock(S3Path.parse('{root}'), '.lock'): print('held', flush=True); time.sleep(600)"
    )
    holder = subprocess.Popen([sys.executable, "-c", hold], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    held = json.loads((root / ".lock").read_bytes())["process"]
    assert held[2] == holder.pid
    assert not locks._has_ended(held)
    holder.kill()
    while not locks._has_ended(held):  # also before anybody has asked for its exit code
        time.sleep(0.01)
    began = time.monotonic()
    with run_lock(root, ".lock"):
        assert time.monotonic() - began < 5  # in place of 25
    holder.communicate()
    assert locks._has_ended(held)


def test_only_processes_of_this_machine_are_known_to_have_ended() -> None:
    own = locks._identity("self")
    assert own is not None
    assert not locks._has_ended(own)
    assert locks._has_ended([*own[:3], "1"])  # its id has been given to another process
    assert not locks._has_ended(["another boot", *own[1:3], "1"])
    assert not locks._has_ended([own[0], "pid:[1]", own[2], "1"])
    assert not locks._has_ended(None)


def test_expired_lease_is_taken_over(s3: str, monkeypatch) -> None:
    monkeypatch.setattr(locks, "LEASE_S", 1.5)
    root = S3Path.parse(f"{s3}/runs/abandoned")
    (root / ".lock").write_bytes(b"{}")
    began = time.monotonic()
    with run_lock(root, ".lock"):
        assert time.monotonic() - began > 0.4  # the store reports whole seconds
        assert (root / ".lock").read_bytes() != b"{}"
