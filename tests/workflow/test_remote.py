"""Heavy stages as jobs on a Ray cluster."""

import csv
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from ray_nodes import Cluster, start_cluster
from rich.console import Console

sys.path.insert(0, str(Path(__file__).parents[1] / "features"))

from tiny_models import write_clip  # importable because of the line above
from videos import write_list, write_video

from vadv_dist.errors import UserError
from vadv_dist.storage import read_json, write_json
from vadv_dist.workflow.plan import plan_workflow
from vadv_dist.workflow.remote import JOB, job_arguments, job_name, plan_job
from vadv_dist.workflow.run import run_stage

HERE, AWAY = "http://127.0.0.1:8265", "http://10.1.2.3:8265"
WORKFLOW = """
workflow: {{name: words, storage: runs, seeds: [1]}}
data:
  mine: {{kind: table, csv: mine.csv}}
train:
  config: demo
  overrides:
    student.encoder: {encoder}
    objective: none
    trainer: {{num_workers: 0, use_gpu: false, epochs: 1}}
    engine: {{kind: torch}}
"""
TRAIN = "train-seed-1"


@pytest.fixture
def project(tmp_path: Path, made: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with a workflow file, and a table that git does not track."""
    folder = tmp_path / "project"
    folder.mkdir()
    with (folder / "mine.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("id", "split", "text", "label"))
        for number in range(48):
            split = ("train", "train", "valid", "test")[number % 4]
            rows.writerow((f"v{number}_1", split, f"good bad clip {number}", number % 7 - 3))
    (folder / "flow.yaml").write_text(WORKFLOW.format(encoder=made / "encoder"))
    (folder / "wrong.yaml").write_text(WORKFLOW.format(encoder="nowhere/to-be-found"))
    subprocess.run(["git", "init", "-q", folder], check=True)
    subprocess.run(["git", "-C", folder, "add", "flow.yaml", "wrong.yaml"], check=True)
    monkeypatch.chdir(folder)
    return folder


def test_a_job_gets_absolute_storage_here_and_a_relative_one_is_refused_elsewhere(project: Path) -> None:
    workflow = plan_workflow("flow.yaml")
    train = workflow.stage(TRAIN)
    arguments = job_arguments(workflow, project / "flow.yaml", ["--evaluate.split", "valid"], train, HERE)
    storage = f"--workflow.storage={project / 'runs'}"
    named = ["workflow", "stage", "flow.yaml", TRAIN, f"--identity={train.identity}"]
    assert arguments == [*named, "--evaluate.split=valid", storage]
    assert plan_workflow("flow.yaml", [storage]).stage(TRAIN).identity == train.identity
    with pytest.raises(UserError, match=r"workflow.storage is runs, a path relative to the job's folder"):
        job_arguments(workflow, "flow.yaml", [], train, AWAY)


def test_the_id_of_a_job_contains_the_stages_identity_and_differs_between_folders(project: Path) -> None:
    workflow, other = plan_workflow("flow.yaml"), plan_workflow("flow.yaml", ["--workflow.storage=elsewhere"])
    train = workflow.stage(TRAIN)
    assert job_name(workflow, train).startswith(f"vadv-workflow-{TRAIN}-{train.identity[:12]}-")
    assert other.stage(TRAIN).identity == train.identity
    assert job_name(other, train) != job_name(workflow, train)


def test_files_that_would_not_be_uploaded_are_refused(project: Path) -> None:
    (project / "other.yaml").write_text((project / "flow.yaml").read_text())
    workflow = plan_workflow("other.yaml")
    with pytest.raises(UserError, match=r"other\.yaml would not be uploaded.*git add other\.yaml"):
        job_arguments(workflow, "other.yaml", [], workflow.stage(TRAIN), HERE)
    (project / "encoder").symlink_to(workflow.config.train.overrides["student.encoder"])
    (project / "flow.yaml").write_text(WORKFLOW.format(encoder="encoder"))
    workflow = plan_workflow("flow.yaml")
    with pytest.raises(UserError, match=r"student\.encoder is encoder, a path relative to the job's folder"):
        job_arguments(workflow, "flow.yaml", [], workflow.stage(TRAIN), HERE)


def test_a_job_plans_without_the_files_of_other_stages(project: Path) -> None:
    workflow = plan_workflow("flow.yaml")
    train = workflow.stage(TRAIN)
    with pytest.raises(UserError, match=r"job\.json does not exist, so this machine does not see the workflow's"):
        plan_job("flow.yaml", [], TRAIN, train.identity)
    place = workflow.folder(train) / JOB
    write_json(place, {**workflow.planned, "version": "0.0.1", "config": None})
    (project / "mine.csv").unlink()
    assert plan_job("flow.yaml", [], TRAIN, train.identity).stage(TRAIN).identity == train.identity
    with pytest.raises(UserError, match=r"is another stage on this machine .*vadv 0\.0\.1 there"):
        plan_job("flow.yaml", ["--data.mine.label_range=[-4, 4]"], TRAIN, train.identity)


@pytest.fixture(scope="module")
def server() -> Iterator[Cluster]:
    with start_cluster(cpus=2, job_server=True) as cluster:
        yield cluster


def start(server: Cluster, *arguments: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "vadv_dist.cli", "workflow", "stage", *arguments, "--address", server.job_server]
    environment = {**server.environment, "PYTHONPATH": os.environ.get("PYTHONPATH", "")}
    del environment["RAY_ADDRESS"]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


@pytest.mark.ray
@pytest.mark.slow
def test_a_second_start_follows_the_job_of_the_first(server: Cluster, project: Path) -> None:
    from ray.job_submission import JobSubmissionClient

    workflow = plan_workflow("flow.yaml")
    for name in ("data-mine", "check-mine"):
        run_stage(workflow, name, Console(quiet=True))
    both = [start(server, "flow.yaml", TRAIN) for _ in range(2)]  # at the same moment
    said = [process.communicate(timeout=180)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    job = job_name(workflow, workflow.stage(TRAIN))
    client = JobSubmissionClient(server.job_server)
    assert [each.submission_id for each in client.list_jobs()] == [job]
    assert sorted(f"submitted {job}" in text for text in said) == [False, True], said
    finished = read_json(workflow.folder(workflow.stage(TRAIN)) / "stage.json")
    assert (finished["attempt"], finished["identity"]) == (1, workflow.stage(TRAIN).identity)

    done = start(server, "flow.yaml", TRAIN)
    assert "complete in" in done.communicate(timeout=60)[0]
    assert len(client.list_jobs()) == 1

    forced, mistaken = start(server, "flow.yaml", TRAIN, "--force"), start(server, "wrong.yaml", TRAIN)
    assert f"submitted {job}-2" in forced.communicate(timeout=180)[0]
    assert forced.returncode == 0
    assert "nowhere/to-be-found" in mistaken.communicate(timeout=180)[0]
    assert mistaken.returncode == 2


OTHERS = """
  clips:
    kind: extract
    overrides:
      clips.csv: {folder}/clips/clips.csv
      image.encoder: {folder}/clip
      frames.visual: 2
      faces: {{kind: none, path: null}}
tune: {{space: space.yaml, overrides: {{search.leave_one_out: false, trainer.epochs: 1}}}}
study: {{file: study.yaml}}
"""
SPACE = """
search: {num_trials: 2}
space: {optimizer.lr: {distribution: float, low: 1.0e-4, high: 1.0e-2, log: true}}
"""
STUDY = """
title: Learning rates
config: demo
overrides:
  student.encoder: {encoder}
  objective: none
  trainer: {{num_workers: 0, use_gpu: false, epochs: 1}}
  engine: {{kind: torch}}
reference: low
seeds: [1, 2]
variants: {{low: {{overrides: {{optimizer.lr: 1.0e-4}}}}, high: {{overrides: {{optimizer.lr: 1.0e-3}}}}}}
"""


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.long
def test_extract_tune_and_study_go_on_when_the_caller_is_killed(server: Cluster, project: Path, made: Path) -> None:
    from ray.job_submission import JobSubmissionClient

    write_clip(project / "clip")
    rows = [(f"c{n}_0", f"c{n}", ("train", "valid")[n % 2], "1", f"words {n}", f"v{n}.mp4") for n in range(8)]
    for n in range(8):
        write_video(project / "clips" / f"v{n}.mp4", frames=6, seed=n)
    write_list(project / "clips" / "clips.csv", rows, "clip_id,video_id,split,label,text,path")
    (project / "space.yaml").write_text(SPACE)
    (project / "study.yaml").write_text(STUDY.format(encoder=made / "encoder"))
    text = (project / "flow.yaml").read_text()
    (project / "flow.yaml").write_text(text.replace("\ntrain:", f"{OTHERS.format(folder=project)}train:"))
    subprocess.run(["git", "add", "space.yaml", "study.yaml"], check=True)
    workflow, client = plan_workflow("flow.yaml"), JobSubmissionClient(server.job_server)
    for name in ("data-clips", "tune", "study"):
        if name == "tune":
            for before in ("data-mine", "check-mine", "check-clips"):
                run_stage(workflow, before, Console(quiet=True))
        first, folder = start(server, "flow.yaml", name), workflow.folder(workflow.stage(name))
        while not (folder / "attempts" / "000001.json").is_file():
            assert first.poll() is None, first.communicate()
            time.sleep(0.1)
        first.kill()
        first.communicate()
        second = start(server, "flow.yaml", name)
        said = second.communicate(timeout=300)[0]
        job = job_name(workflow, workflow.stage(name))
        assert second.returncode == 0, said
        assert f"{job} already runs" in said
        assert read_json(folder / "stage.json")["attempt"] == 1
        assert [each.submission_id for each in client.list_jobs() if name in each.submission_id] == [job]
