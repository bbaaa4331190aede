"""`vadv export --push` against a Hub on loopback: what arrives, and what is said if it cannot."""

import json
import os
import subprocess
import sys

import pytest
from hub_server import TOKEN, hub_server
from tiny_students import make_card

from vadv_dist.inference.export import export_student, load_student

PLACES = {
    "encoder": "/home/somebody/models/minilm",
    "data": [{"uri": "s3://secret-bucket/mosi", "fingerprint": "f00d", "rows": {"train": 3}}],
    "config": {
        "run": {"name": "tiny", "storage": "/home/somebody/runs"},
        "data": {"sources": [{"uri": "s3://secret-bucket/mosi"}]},
        "trainer": {"ray_address": "10.1.2.3:6379", "epochs": 3},
    },
}
SECRETS = ("/home/somebody", "secret-bucket", "10.1.2.3")


@pytest.fixture
def hub():
    with hub_server() as server:
        yield server


@pytest.fixture
def placed(student, tokenizer, tmp_path):
    """An export whose training knew places of its machine."""
    export_student(student, tokenizer, tmp_path / "placed", card=make_card(**PLACES))
    return tmp_path / "placed"


def vadv(hub_url, *arguments, token=TOKEN, **variables):
    """Run vadv as a process of its own, because huggingface_hub reads its variables once."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))}
    environment = {**kept, "HF_ENDPOINT": hub_url, "HF_HOME": "/nonexistent", "HF_HUB_DISABLE_XET": "1", **variables}
    if token:
        environment["HF_TOKEN"] = token
    done = subprocess.run(
        [sys.executable, "-m", "vadv_dist.cli", "export", *map(str, arguments)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert TOKEN not in done.stdout + done.stderr
    return done


@pytest.mark.slow
def test_what_arrives_is_the_export_without_places_of_this_machine(hub, placed, tmp_path):
    done = vadv(hub.url, placed, "--push", "me/tiny")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == f"pushed to {hub.url}/me/tiny (private)"
    assert hub.private == {"me/tiny": True}
    assert hub.commits == ["Upload tiny with vadv"]
    arrived = hub.files["me/tiny"]
    assert set(arrived) == {path.name for path in placed.iterdir()} | {".gitattributes"}
    for name, content in arrived.items():
        if name not in ("vadv_export.json", ".gitattributes"):
            assert content == (placed / name).read_bytes(), name
        for secret in SECRETS:
            assert secret.encode() not in content, f"{name} has {secret}"
    manifest = json.loads(arrived["vadv_export.json"])
    assert manifest["data"] == [{"name": "mosi", "fingerprint": "f00d", "rows": {"train": 3}}]
    assert manifest["config"]["trainer"] == {"epochs": 3}
    # What was uploaded is still an export.
    down = tmp_path / "down"
    down.mkdir()
    for name, content in arrived.items():
        (down / name).write_bytes(content)
    load_student(down)


@pytest.mark.slow
def test_a_run_is_exported_and_pushed_over_an_export_of_another_kind(hub, run_folder, tmp_path):
    hub.private["me/tiny"] = False
    hub.files["me/tiny"] = {"model.onnx": b"old", "LICENSE": b"mine", "2_Dense/config.json": b"{}"}
    refused = vadv(hub.url, run_folder, "--out", tmp_path / "first", "--push", "me/tiny")
    assert refused.returncode == 2
    assert "The repository me/tiny is public. Give --public to push to it." in refused.stderr
    done = vadv(hub.url, run_folder, "--out", tmp_path / "out", "--license", "mit", "--push", "me/tiny", "--public")
    assert done.returncode == 0, done.stderr
    assert f"pushed to {hub.url}/me/tiny (public)" in done.stdout
    assert set(hub.files["me/tiny"]) == {path.name for path in (tmp_path / "out").iterdir()} | {"LICENSE"}
    assert b"license: mit\n" in hub.files["me/tiny"]["README.md"]


@pytest.mark.slow
def test_each_fault_of_a_push_is_one_message(hub, export):
    without = vadv(hub.url, export, "--push", "me/tiny", token=None)
    assert (without.returncode, without.stderr.count("\n")) == (2, 1)
    assert "No token for the Hub. Run `hf auth login`" in without.stderr
    wrong = vadv(hub.url, export, "--push", "me/tiny", token="hf_wrongToken")
    assert (wrong.returncode, wrong.stderr.count("\n")) == (2, 1)
    assert "refused the token for me/tiny (HTTP 401)" in wrong.stderr
    assert "hf_wrongToken" not in wrong.stderr
    offline = vadv(hub.url, export, "--push", "me/tiny", HF_HUB_OFFLINE="1")
    assert (offline.returncode, offline.stderr.count("\n")) == (2, 1)
    assert "HF_HUB_OFFLINE is set" in offline.stderr
    nobody = vadv("http://127.0.0.1:9", export, "--push", "me/tiny")
    assert (nobody.returncode, nobody.stderr.count("\n")) == (1, 1)
    assert "cannot be reached" in nobody.stderr
    name = vadv(hub.url, export, "--push", "not/a/name")
    assert (name.returncode, name.stderr.count("\n")) == (2, 1)
    assert "Use OWNER/NAME" in name.stderr
    (export / "README.md").write_text("changed")
    changed = vadv(hub.url, export, "--push", "me/tiny")
    assert "README.md is damaged or was changed" in changed.stderr
    assert not hub.commits
