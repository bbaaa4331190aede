"""Jobs that are refused before they are sent, uploaded files, and exit codes."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from ray.dashboard.modules.job.common import JobErrorType

from vadv_dist.errors import UserError
from vadv_dist.runtime.ray_connection import has_token
from vadv_dist.runtime.signals import STOPPED
from vadv_dist.submission.address import is_this_machine, require_token, resolve_address
from vadv_dist.submission.client import command_line, runtime_environment
from vadv_dist.submission.follow import PREEMPTED, exit_code
from vadv_dist.submission.job import Submission, prepared_arguments
from vadv_dist.submission.packing import pack

HERE, AWAY = "http://127.0.0.1:8265", "http://10.1.2.3:8265"


@pytest.fixture
def project(tmp_path: Path, made: Path, monkeypatch) -> Path:
    """A repository with a config whose paths are relative."""
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "run.yaml").write_text(
        f"run: {{name: one run, storage: runs}}\ndata: {{sources: [{{uri: made}}]}}\n"
        f"student: {{encoder: {made / 'encoder'}, pretrained: false}}\ntrainer: {{num_workers: 2}}\n"
    )
    (folder / "made").symlink_to(made)
    (folder / "notes.txt").write_text("not tracked")
    subprocess.run(["git", "init", "-q", folder], check=True)
    subprocess.run(["git", "-C", folder, "add", "run.yaml"], check=True)
    monkeypatch.chdir(folder)
    return folder


def test_only_tracked_files_are_uploaded_in_their_current_state(project: Path, tmp_path: Path) -> None:
    (project / "run.yaml").write_text("changed: since\n")
    target = tmp_path / "packed"
    target.mkdir()
    assert pack(project, target) == (1, len("changed: since\n"))
    assert [p.name for p in target.rglob("*")] == ["run.yaml"]
    assert (target / "run.yaml").read_text() == "changed: since\n"


def test_a_large_folder_is_refused_with_its_largest_files(project: Path, tmp_path: Path) -> None:
    (project / "weights.bin").write_bytes(b"0" * 3_000_000)
    subprocess.run(["git", "-C", project, "add", "weights.bin"], check=True)
    with pytest.raises(UserError, match=r"3 MiB, more than the limit of 1 MiB.*weights.bin \(2.9 MiB\)"):
        pack(project, tmp_path / "packed", max_bytes=1 << 20)


def test_a_folder_outside_git_needs_a_list_of_files(tmp_path: Path) -> None:
    folder, target = tmp_path / "folder", tmp_path / "packed"
    (folder / "lists").mkdir(parents=True)
    (folder / "run.yaml").write_text("run")
    (folder / "lists" / "a.csv").write_text("a")
    (folder / "weights.bin").write_text("large")
    with pytest.raises(UserError, match=r"is not in a git repository.*--files run\.yaml"):
        pack(folder, target)
    assert pack(folder, target, ["run.yaml", "lists"]) == (2, 4)
    assert sorted(str(p.relative_to(target)) for p in target.rglob("*.*")) == ["lists/a.csv", "run.yaml"]
    with pytest.raises(UserError, match=r"--files: none.yaml does not exist"):
        pack(folder, target, ["none.yaml"])
    with pytest.raises(UserError, match=r"--files: \.\./elsewhere is not below"):
        pack(folder, target, ["../elsewhere"])


def test_relative_paths_become_absolute_here_and_are_refused_elsewhere(project: Path) -> None:
    submission = Submission("train", ("--config", "run.yaml", "--trainer.epochs=3"), working_dir=project)
    arguments, name = prepared_arguments(submission, HERE)
    assert name == "one run"
    assert arguments[:3] == ["--config", "run.yaml", "--trainer.epochs=3"]
    assert f"--run.storage={project / 'runs'}" in arguments
    assert str(project.resolve() / "made") in arguments[-1] or str((project / "made").resolve()) in arguments[-1]
    with pytest.raises(UserError, match=r"relative to the job's folder.*s3://"):
        prepared_arguments(submission, AWAY)
    away = Submission(
        "train",
        ("--config", "run.yaml", "--run.storage=s3://b/runs", "--data.sources=[{uri: s3://b/made}]"),
        working_dir=project,
    )
    assert prepared_arguments(away, AWAY)[0] == list(away.arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "--config is missing"),
        (("--config", "other.yaml"), "is not a file below"),
        (("--config", "notes.txt"), "notes.txt would not be uploaded with the job.*Run `git add notes.txt`"),
        (("--config", "run.yaml", "--trainer.epoch=3"), "epoch"),
        (("--config", "run.yaml", "--trainer.num_workers=0"), "num_workers is 0"),
        (("--config", "run.yaml", "--trainer.num_workers", "0"), "num_workers is 0"),
    ],
)
def test_user_errors_are_reported_before_anything_is_sent(
    project: Path, arguments: tuple[str, ...], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        prepared_arguments(Submission("train", arguments, working_dir=project), HERE)


def test_a_search_is_sent_with_its_settings_but_without_a_password(project: Path) -> None:
    given = ("--config", "run.yaml", "--space", "loss_weights", "--search.num_trials=4", "--run.name", "hunt")
    arguments, name = prepared_arguments(Submission("tune", given, working_dir=project), HERE)
    assert (tuple(arguments[: len(given)]), name) == (given, "hunt-loss_weights")
    for hidden in (["--search.storage=postgresql://me:pw@host/db"], ["--search.storage", "postgresql://me:pw@host/db"]):
        with pytest.raises(UserError, match="contains a password") as refusal:
            prepared_arguments(Submission("tune", (*given, *hidden), working_dir=project), HERE)
        assert "pw@" not in str(refusal.value)


STUDY = """
title: with and without
config: run.yaml
variants:
  alone: {overrides: {objective: none}}
  steps: {}
"""


def test_a_study_is_sent_with_paths_that_its_runs_can_reach(project: Path) -> None:
    (project / "two.yaml").write_text(STUDY)
    given = ("two.yaml", "--seeds", "1,2", "--trainer.epochs=3")
    with pytest.raises(UserError, match=r"two\.yaml would not be uploaded"):
        prepared_arguments(Submission("study", given, working_dir=project), HERE)
    subprocess.run(["git", "-C", project, "add", "two.yaml"], check=True)
    arguments, name = prepared_arguments(Submission("study", given, working_dir=project), HERE)
    assert (tuple(arguments[:4]), name) == (given, "two")
    assert f"--run.storage={project / 'runs'}" in arguments
    assert str((project / "made").resolve()) in arguments[-1] or str(project / "made") in arguments[-1]
    with pytest.raises(UserError, match=r"run.storage is runs, a path relative to the job's folder"):
        prepared_arguments(Submission("study", given, working_dir=project), AWAY)
    with pytest.raises(UserError, match="give the study file"):
        prepared_arguments(Submission("study", ("--seeds", "1"), working_dir=project), HERE)
    # The data of this variant would be replaced by those of the command line.
    (project / "two.yaml").write_text(f"{STUDY}  other: {{overrides: {{data.sources: [{{uri: elsewhere}}]}}}}\n")
    with pytest.raises(UserError, match=r"two.yaml, variant 'other': its data or encoder has a relative path"):
        prepared_arguments(Submission("study", given, working_dir=project), HERE)
    (project / "two.yaml").write_text(f"{STUDY}  outside: {{predictions: notes.txt}}\n")
    with pytest.raises(UserError, match=r"notes.txt would not be uploaded"):
        prepared_arguments(Submission("study", given, working_dir=project), HERE)


def test_a_shipped_study_at_small_scale_makes_its_data_in_its_folder(project: Path) -> None:
    given = ("direct", "--scale=small", "--run.storage=s3://bucket/runs")
    assert prepared_arguments(Submission("study", given, working_dir=project), AWAY) == ([*given], "direct-small")


def test_secrets_are_not_sent() -> None:
    environment = {"AWS_SECRET_ACCESS_KEY": "secret", "AWS_ACCESS_KEY_ID": "id", "AWS_REGION": "eu", "HOME": "/root"}
    environment["AWS_PROFILE"] = "admin"  # names credentials that only this machine has
    assert runtime_environment("/x", False, environment)["env_vars"] == {
        "RAY_TRAIN_V2_ENABLED": "1",
        "AWS_REGION": "eu",
    }


@pytest.mark.parametrize("address", [HERE, AWAY])
@pytest.mark.parametrize("is_there", [True, False])
def test_a_job_uses_the_python_that_its_machine_has(tmp_path: Path, monkeypatch, address: str, is_there: bool) -> None:
    """A port of another machine may be forwarded to the loopback of this one."""
    for name, folder in (("ours", "our bin"), ("theirs", "their bin")):
        (tmp_path / folder).mkdir()
        for program in ("python", "vadv"):
            (tmp_path / folder / program).write_text(f'#!/bin/sh\necho {name} "$@"\n')
            (tmp_path / folder / program).chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "our bin" / "python"))
    entrypoint = command_line(address, ["train", "--run.name=a b"])
    if not is_there:
        shutil.rmtree(tmp_path / "our bin")
    path = {"PATH": f"{tmp_path / 'their bin'}:{os.environ['PATH']}"}
    said = subprocess.run(entrypoint, shell=True, env=path, capture_output=True, text=True, check=True).stdout
    expected = "ours" if is_there and address == HERE else "theirs"
    assert said == f"{expected} -m vadv_dist.cli train --run.name=a b\n"


def test_addresses(tmp_path: Path) -> None:
    # A job server that happens to run on this machine may belong to someone else.
    with pytest.raises(UserError, match=r"No cluster is configured\. Use --address"):
        resolve_address(None, {"RAY_ADDRESS": ""})
    for variable in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"):
        with pytest.raises(UserError, match=f"{variable} is head:6379, which is not the address of a job server"):
            resolve_address(None, {variable: "head:6379"})
    assert resolve_address(None, {"RAY_ADDRESS": "http://head:8265/"}) == "http://head:8265"
    for bad in ("head:8265", "ray://head:10001", "http://"):
        with pytest.raises(UserError, match="which is not the address of a job server"):
            resolve_address(bad, {})
    with pytest.raises(UserError, match="password"):
        resolve_address("http://user:pw@head:8265", {})
    assert is_this_machine("http://localhost:8265")
    assert is_this_machine("http://[::1]:8265")
    assert not is_this_machine(AWAY)


def test_a_remote_cluster_requires_a_token(tmp_path: Path) -> None:
    require_token(HERE, {})
    token = tmp_path / "token"
    named = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token)}
    for environment in ({}, named, {"RAY_AUTH_TOKEN": "x"}):
        with pytest.raises(UserError, match="there is no token"):
            require_token(AWAY, environment)
    token.write_text("x" * 32)
    token.chmod(0o644)
    with pytest.raises(UserError, match="chmod 600"):
        has_token(named)
    token.chmod(0o600)
    require_token(AWAY, named)


@pytest.mark.parametrize(
    ("status", "code", "error_type", "expected"),
    [
        ("SUCCEEDED", 0, None, 0),
        ("FAILED", 2, JobErrorType.JOB_ENTRYPOINT_COMMAND_ERROR, 2),
        ("FAILED", 143, JobErrorType.JOB_ENTRYPOINT_COMMAND_ERROR, PREEMPTED),
        ("FAILED", 1, JobErrorType.JOB_ENTRYPOINT_COMMAND_ERROR, 1),
        ("FAILED", -9, JobErrorType.JOB_ENTRYPOINT_COMMAND_ERROR, 1),
        ("FAILED", None, JobErrorType.JOB_SUPERVISOR_ACTOR_DIED, PREEMPTED),
        ("FAILED", None, JobErrorType.RUNTIME_ENV_SETUP_FAILURE, 1),
        ("STOPPED", None, None, STOPPED),
    ],
)
def test_the_exit_code_reflects_the_end_of_a_job(status, code, error_type, expected) -> None:
    said = "the last lines of its output, which may speak of a node that died"
    job = SimpleNamespace(
        status=SimpleNamespace(value=status), driver_exit_code=code, message=said, error_type=error_type
    )
    assert exit_code(job, lambda text: None) == expected
