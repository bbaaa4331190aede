"""Two jobs have the same id, and the second follows the first, only if they are equal in everything."""

import subprocess
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from vadv_dist.config import load
from vadv_dist.errors import UserError
from vadv_dist.submission import job
from vadv_dist.submission.job import Submission, prepared_arguments, submit
from vadv_dist.submission.job_id import job_id, job_slug, shares_slug

HERE, AWAY = "http://127.0.0.1:8265", "http://10.1.2.3:8265"


@dataclass
class Server:
    """A job server on which every job runs until it is stopped."""

    jobs: dict[str, SimpleNamespace] = field(default_factory=dict)
    followed: list[str] = field(default_factory=list)

    def list_jobs(self) -> list[SimpleNamespace]:
        return list(self.jobs.values())

    def submit_job(self, *, entrypoint: str, submission_id: str, **_: Any) -> None:
        assert submission_id not in self.jobs
        status = SimpleNamespace(value="RUNNING")
        self.jobs[submission_id] = SimpleNamespace(submission_id=submission_id, entrypoint=entrypoint, status=status)

    def follow(self, client: "Server", submission_id: str, say: Any, out: Any) -> int:
        self.followed.append(submission_id)
        return 0


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Server:
    server = Server()
    monkeypatch.setattr(job, "connect", lambda address: server)
    monkeypatch.setattr(job, "follow", server.follow)
    return server


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "project"
    make_project(folder)
    monkeypatch.chdir(folder)
    return folder


def make_project(folder: Path) -> None:
    folder.mkdir()
    config = "run: {{name: x, storage: {storage}}}\ndata: {{sources: [{{uri: d}}]}}\ntrainer: {{num_workers: 1}}\n"
    (folder / "a.yaml").write_text(config.format(storage="runs"))
    (folder / "b.yaml").write_text(config.format(storage="elsewhere"))
    (folder / "space.yaml").write_text("space: {objective.psi: {distribution: float, low: 0, high: 2}}\n")
    (folder / "list.csv").write_text("clip_id\n")
    (folder / "extract.yaml").write_text("clips: {csv: list.csv}\noutput: {uri: out}\nfaces: {kind: none}\n")
    subprocess.run(["git", "init", "-q", folder], check=True)
    subprocess.run(["git", "-C", folder, "add", "."], check=True)


TRAIN = Submission("train", ("--config", "a.yaml"), address=HERE)


def submitted(server: Server, submission: Submission, says: list[str] | None = None) -> str:
    submit(submission, [].append if says is None else says.append)
    return server.followed[-1]


def test_the_same_command_follows_the_running_job(server: Server, project: Path) -> None:
    first = submitted(server, TRAIN)
    assert first.startswith("vadv-train-x-")
    assert submitted(server, TRAIN) == first
    assert list(server.jobs) == [first]


def test_the_configuration_is_parsed_once(server: Server, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build, parsed = load.build, []
    monkeypatch.setattr(load, "build", lambda *given: parsed.append(given[-1]) or build(*given))
    submitted(server, TRAIN)
    assert parsed == ["a.yaml"]


def test_an_ended_job_is_not_followed(server: Server, project: Path) -> None:
    first = submitted(server, TRAIN)
    server.jobs[first].status.value = "FAILED"
    assert submitted(server, TRAIN) == f"{first}-2"


OTHERS = {
    "another config, with another storage": replace(TRAIN, arguments=("--config", "b.yaml")),
    "an override": replace(TRAIN, arguments=("--config", "a.yaml", "--trainer.epochs=3")),
    "the package on the nodes": replace(TRAIN, install=True),
    "a search": replace(TRAIN, command="tune", arguments=("--config", "a.yaml", "--space", "space.yaml")),
    "another space": replace(TRAIN, command="tune", arguments=("--config", "a.yaml", "--space", "loss_weights")),
    "an evaluation": replace(TRAIN, command="evaluate", arguments=("runs/x",)),
    "of another split": replace(TRAIN, command="evaluate", arguments=("runs/x", "--split", "valid")),
    "of a run in another storage": replace(TRAIN, command="evaluate", arguments=("elsewhere/x",)),
    "an extraction": replace(TRAIN, command="extract", arguments=("--config", "extract.yaml")),
}


def test_different_arguments_are_different_jobs(server: Server, project: Path) -> None:
    ids = [submitted(server, submission) for submission in (TRAIN, *OTHERS.values())]
    assert len(set(ids)) == len(ids) == len(server.jobs)


def change_config(project: Path) -> None:
    text = (project / "a.yaml").read_text()
    (project / "a.yaml").write_text(text.replace("num_workers: 1", "num_workers: 1, epochs: 7"))


def change_code(project: Path) -> None:
    (project / "space.yaml").write_text("# a note\n")


def change_mode(project: Path) -> None:
    (project / "space.yaml").chmod(0o755)


def change_version(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job, "__version__", "99.0")


def change_package(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job, "code_digest", lambda: "another")


def change_store(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://another.store:9000")


@pytest.mark.parametrize("change", [change_config, change_code, change_mode])
def test_changed_files_are_another_job(server: Server, project: Path, change: Any) -> None:
    first = submitted(server, TRAIN)
    change(project)
    says: list[str] = []
    assert submitted(server, TRAIN, says) != first
    assert any(first in line and "is not followed" in line for line in says)


@pytest.mark.parametrize("change", [change_version, change_package, change_store])
def test_another_installation_is_another_job(
    server: Server, project: Path, monkeypatch: pytest.MonkeyPatch, change: Any
) -> None:
    first = submitted(server, TRAIN)
    change(project, monkeypatch)
    assert submitted(server, TRAIN) != first


def test_another_folder_is_another_job(server: Server, project: Path, tmp_path: Path) -> None:
    make_project(tmp_path / "copy")
    places = ("--run.storage=s3://b/runs", "--data.sources=[{uri: s3://b/d}]")
    submission = replace(TRAIN, arguments=(*TRAIN.arguments, *places))
    first = submitted(server, replace(submission, working_dir=project))
    assert submitted(server, replace(submission, working_dir=tmp_path / "copy")) != first


def test_a_job_from_an_earlier_version_is_not_followed(server: Server, project: Path) -> None:
    server.submit_job(entrypoint="python -m vadv_dist.cli train --config b.yaml", submission_id="vadv-train-x")
    says: list[str] = []
    assert submitted(server, TRAIN, says) != "vadv-train-x"
    assert any("vadv-train-x is also running there" in line and "--config b.yaml" in line for line in says)


def test_names_with_equal_slugs_have_different_ids() -> None:
    slugs = [job_slug("train", name) for name in ("a b", "a-b", "a/b", "Прогон", "проба", "n" * 80, "n" * 81)]
    assert slugs == [
        *["vadv-train-a-b"] * 3,
        *["vadv-train"] * 2,
        *["vadv-train-" + "n" * 40] * 2,
    ]
    ids = {job_id(slug, {"name": number}) for number, slug in enumerate(slugs)}
    assert len(ids) == len(slugs)
    assert all(id_.isascii() and shares_slug(id_, slug) for slug in slugs for id_ in [job_id(slug, {"name": 1})])
    assert not shares_slug(job_id("vadv-train-x-best", {}), "vadv-train-x")
    assert job_slug("train", "Überprüfung 3") == "vadv-train-Uberprufung-3"


def test_locations_of_an_extraction_are_outside_the_jobs_folder(project: Path) -> None:
    submission = Submission("extract", ("--config", "extract.yaml"), working_dir=project)
    arguments, _ = prepared_arguments(submission, HERE)
    assert arguments[2:] == [f"--output.uri={project / 'out'}", f"--clips.csv={project / 'list.csv'}"]
    with pytest.raises(UserError, match=r"output.uri is out, a path relative to the job's folder"):
        prepared_arguments(submission, AWAY)
    away = replace(submission, arguments=(*submission.arguments, "--output.uri=s3://b/out"))
    assert prepared_arguments(away, AWAY)[0] == list(away.arguments)


def test_relative_paths_start_from_the_uploaded_folder(project: Path, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    arguments, _ = prepared_arguments(Submission("train", ("--config", "a.yaml"), working_dir=project), HERE)
    assert f"--run.storage={project / 'runs'}" in arguments
    assert f'--data.sources=[{{"uri": "{project / "d"}", "weight": 1.0}}]' in arguments


def test_locations_of_an_evaluation_are_outside_the_jobs_folder(project: Path) -> None:
    given = ("runs/x", "--data", "d", "--data=s3://b/d", "--split", "valid", "--encoder=roberta-large")
    arguments, name = prepared_arguments(Submission("evaluate", given, working_dir=project), HERE)
    assert arguments == [str(project / "runs" / "x"), f"--data={project / 'd'}", *given[3:]]
    assert name == "x-valid"
    with pytest.raises(UserError, match="--data is d, a path relative"):
        prepared_arguments(Submission("evaluate", ("s3://b/x", "--data", "d"), working_dir=project), AWAY)
