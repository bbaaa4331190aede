"""Output never goes into the working directory of a Ray job, which Ray deletes."""

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from vadv_dist.cli import main
from vadv_dist.cli.command import OUTPUTS, build_parser
from vadv_dist.config.search import SearchConfig
from vadv_dist.errors import UserError
from vadv_dist.runtime.job_storage import lasting
from vadv_dist.tuning.study_folder import StudyFolder

JOB = {"RAY_JOB_CONFIG_JSON_ENV_VAR": json.dumps({"runtime_env": {"working_dir": "gcs://_ray_pkg_0.zip"}})}


def test_locations_are_unchanged_outside_a_job(tmp_path: Path) -> None:
    without_files = {"RAY_JOB_CONFIG_JSON_ENV_VAR": json.dumps({"runtime_env": {}, "metadata": {}})}
    for environment in ({}, {"VADV_STORAGE": "/shared"}, without_files, {"RAY_JOB_CONFIG_JSON_ENV_VAR": "no JSON"}):
        for given in ("runs", str(tmp_path), "s3://bucket/runs"):
            assert lasting(given, "run.storage", environment) == given


def test_relative_paths_of_a_job_are_below_vadv_storage_or_refused(tmp_path: Path, capsys) -> None:
    assert lasting("s3://bucket/runs", "run.storage", JOB) == "s3://bucket/runs"
    assert lasting(str(tmp_path), "run.storage", JOB) == str(tmp_path)
    with pytest.raises(UserError, match=r"run\.storage is runs, relative to a Ray job's .* VADV_STORAGE"):
        lasting("runs", "run.storage", JOB)
    assert capsys.readouterr().err == ""
    assert lasting("runs", "run.storage", {**JOB, "VADV_STORAGE": "s3://bucket/mine/"}) == "s3://bucket/mine/runs"
    assert lasting("./a/b", "run.storage", {**JOB, "VADV_STORAGE": "/shared"}) == "/shared/a/b"
    assert "run.storage is ./a/b, relative to" in capsys.readouterr().err
    for base in ("shared", "../shared"):
        with pytest.raises(UserError, match=f"VADV_STORAGE is {base}, expected"):
            lasting("runs", "run.storage", {**JOB, "VADV_STORAGE": base})
    with pytest.raises(UserError, match="is outside VADV_STORAGE"):
        lasting("../runs", "run.storage", {**JOB, "VADV_STORAGE": "/shared"})


def test_a_jobs_folder_is_recognised_by_its_path(tmp_path: Path, monkeypatch) -> None:
    """A child process of a job may lack the job's variables."""
    folder = tmp_path / "session_1" / "runtime_resources" / "working_dir_files" / "_ray_pkg_0"
    folder.mkdir(parents=True)
    monkeypatch.chdir(folder)
    with pytest.raises(UserError, match="relative to a Ray job's"):
        lasting("runs", "run.storage", {})
    with pytest.raises(UserError, match="which is in a Ray job's"):
        lasting(str(folder / "runs"), "run.storage", {"VADV_STORAGE": "/shared"})
    assert lasting("/shared/runs", "run.storage", {}) == "/shared/runs"


def test_the_file_of_a_study_is_below_it_too(tmp_path: Path, monkeypatch) -> None:
    folder = StudyFolder(tmp_path / "hunt")
    monkeypatch.setenv(*next(iter(JOB.items())))
    monkeypatch.setenv("VADV_STORAGE", "/shared")
    assert folder.storage_url(SearchConfig(storage="sqlite:///study.db")) == "sqlite:////shared/study.db"
    assert folder.storage_url(SearchConfig(storage="study.log")) == "/shared/study.log"
    for given in ("sqlite:////elsewhere/study.db", "/elsewhere/study.log", "postgresql+psycopg://host/name"):
        assert folder.storage_url(SearchConfig(storage=given)) == given


def test_commands_are_refused_before_they_write(
    write_config: Callable[..., Path], tmp_path: Path, monkeypatch, capsys
) -> None:
    config = str(write_config(storage="runs"))
    (tmp_path / "extract.yaml").write_text("output: {uri: data}\nfaces: {kind: none}\n")
    folder = tmp_path / "job"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv(*next(iter(JOB.items())))
    monkeypatch.delenv("VADV_STORAGE", raising=False)
    commands = [
        ["train", "--config", config],
        ["tune", "--config", config, "--space", "loss_weights", "--no-ray"],
        ["extract", "--config", str(tmp_path / "extract.yaml")],
        ["synth", "made"],
        ["ingest", "table", "--csv", "x.csv", "--out", "made"],
        ["evaluate", "runs/x"],
        ["report", "runs/x"],
        ["predict", "/runs/x", "--input", "/x.csv", "--output", "y.csv"],
        ["export", "/runs/x", "--out", "student"],
        ["data-info", "/data", "--pictures", "pictures"],
        ["recipes", "copy", "demo", "my.yaml"],
    ]
    for command in commands:
        assert main(command) == 2, command
        assert "relative to a Ray job's working directory" in capsys.readouterr().err, command
        assert list(folder.iterdir()) == [], command


def test_every_output_argument_is_covered() -> None:
    def arguments(parser: argparse.ArgumentParser) -> set[str]:
        found = set()
        for action in parser._actions:
            if isinstance(action, argparse._SubParsersAction):
                for choice in action.choices.values():
                    found |= arguments(choice)
            elif any(word in (action.help or "") for word in ("to write", "a file of your own")):
                found.add(action.dest)
        return found

    [commands] = [a.choices for a in build_parser()._actions if isinstance(a, argparse._SubParsersAction)]
    for name, parser in commands.items():
        assert arguments(parser) <= set(OUTPUTS.get(name, ())), name
