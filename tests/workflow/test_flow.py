"""The Metaflow flow: stopped, started again with a killed task, without its records; mistakes; and its Argo form."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from kubernetes_validate import validate
from metaflow.exception import METAFLOW_EXIT_DISALLOW_RETRY
from rich.console import Console
from s3_server import BUCKET, CREDENTIALS

from vadv_dist.cli import main
from vadv_dist.errors import UserError
from vadv_dist.storage import location, read_json
from vadv_dist.workflow.argo import NO_RETRY
from vadv_dist.workflow.flow_process import MAX_WORKERS, call_stage, prepare, start_flow, threads_for
from vadv_dist.workflow.plan import plan_workflow

FLOW = Path(__file__).parents[2] / "jobs" / "workflow.py"
FILE = """
workflow: {{name: small, storage: {storage}, seeds: [1]}}
advise: null
data:
  made: {{kind: synth, made: {{num_clips: 96}}}}
train:
  config: demo
  alone: false
  overrides:
    student.encoder: "data:made/encoder"
    trainer: {{num_workers: 0, use_gpu: false, epochs: 10}}
    engine: {{kind: torch}}
"""
STAGES = ("data-made", "check-made", "train-seed-1", "evaluate-seed-1", "export", "report")


@dataclass
class Place:
    """A workflow file, its storage, and an empty folder to work in."""

    file: Path
    storage: Path
    here: Path

    def attempts(self, stage: str) -> list[str]:
        """How each attempt at a stage ended."""
        folder = self.storage / "small" / stage
        return [read_json(path)["state"] for path in sorted(folder.glob("*/attempts/*.outcome.json"))]

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start `vadv workflow run` as in a container, where USER is unset."""
        environment = {name: value for name, value in os.environ.items() if name not in ("USER", "USERNAME")}
        command = [sys.executable, "-m", "vadv_dist.cli", "workflow", "run", str(self.file), *arguments]
        return subprocess.Popen(
            command,
            cwd=self.here,
            env={**environment, "METAFLOW_HOME": str(self.here)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def wait_for(self, pattern: str) -> Path:
        """Wait for a file in the workflow's folder."""
        deadline = time.monotonic() + 300
        while time.monotonic() < deadline:
            if found := next((path for path in (self.storage / "small").glob(pattern) if path.stat().st_size), None):
                return found
            time.sleep(0.02)
        raise AssertionError(f"no {pattern}")


def make_place(folder: Path, text: str = FILE) -> Place:
    place = Place(folder / "small.yaml", folder / "runs", folder / "here")
    place.here.mkdir()
    place.file.write_text(text.format(storage=place.storage, folder=folder))
    return place


@dataclass
class Ran:
    """What the two runs of the workflow left."""

    place: Place
    stopped: tuple[int, str]
    alive: list[psutil.Process]
    code: int
    output: str
    errors: str


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """SIGTERM while it trains; the records of Metaflow lost; the same command, its first stage forced and killed."""
    place = make_place(tmp_path_factory.mktemp("flow"))
    first = place.start()
    place.wait_for("train-seed-1/*/*/metrics.jsonl")
    below = psutil.Process(first.pid).children(recursive=True)
    first.send_signal(signal.SIGTERM)
    _, stopped = first.communicate(timeout=300)
    alive = [process for process in below if process.is_running()]
    shutil.rmtree(place.storage / ".metaflow")
    second = place.start("--force", "data-made", "--max-workers", "2")
    claim = place.wait_for("data-made/*/attempts/000002.json")
    os.kill(int(read_json(claim)["process"].split()[1]), signal.SIGKILL)
    output, errors = second.communicate(timeout=500)
    return Ran(place, (first.returncode, stopped), alive, second.returncode, output, errors)


@pytest.mark.slow
def test_sigterm_ends_the_tasks_and_one_message_says_how_to_resume(ran: Ran) -> None:
    code, errors = ran.stopped
    assert code == 143, errors
    assert errors.splitlines()[-1].startswith("vadv: stopped by SIGTERM. Completed work is saved")
    assert errors.count("vadv: ") == 1
    assert not ran.alive


@pytest.mark.slow
def test_the_same_command_goes_on_although_the_records_of_metaflow_are_lost(ran: Ran) -> None:
    assert ran.code == 0, ran.errors
    assert [line.partition(":")[0] for line in ran.output.splitlines()[-3:]] == ["student", "report", "evidence"]
    assert len(ran.place.attempts("train-seed-1")) == 2  # stopped, complete
    for stage in ("check-made", "evaluate-seed-1", "export", "report"):
        assert ran.place.attempts(stage) == ["complete"], stage


@pytest.mark.slow
def test_a_forced_stage_that_is_killed_is_tried_again_and_forced_once(ran: Ran) -> None:
    assert ran.place.attempts("data-made") == ["complete", "lost", "complete"]
    assert "data-made: failed and is tried again: it was killed" in ran.errors


@pytest.mark.slow
def test_every_line_names_its_stage_and_nothing_else_is_said(ran: Ran) -> None:
    first, *lines = ran.errors.splitlines()
    assert first == f"5 stages of 6 to run in {ran.place.storage}/small"
    assert {line.partition(": ")[0] for line in lines} <= set(STAGES)
    assert "check-made: complete in " in ran.errors
    assert list(ran.place.here.iterdir()) == []  # the records are beside the workflow


@pytest.mark.slow
def test_the_card_of_a_step_is_the_page_of_its_stage(ran: Ran) -> None:
    page = ran.place.wait_for("export/*/card.html").read_text()
    cards = (ran.place.storage / ".metaflow").rglob("*.html")
    assert page in {card.read_text() for card in cards}


@pytest.mark.slow
def test_a_complete_workflow_starts_nothing(ran: Ran) -> None:
    runs = set((ran.place.storage / ".metaflow" / "VadvWorkflow").iterdir())
    process = ran.place.start()
    output, errors = process.communicate(timeout=200)
    assert (process.returncode, errors) == (0, f"all 6 stages of {ran.place.storage}/small are complete\n")
    assert output == ran.output
    assert set((ran.place.storage / ".metaflow" / "VadvWorkflow").iterdir()) == runs


@pytest.mark.slow
def test_a_mistake_that_a_stage_finds_ends_with_one_message_and_is_not_tried_again(tmp_path: Path) -> None:
    (tmp_path / "clips.csv").write_text("id,video_id,split,label,text\na_0,a,train,0.5,good\nb_0,b,train,nine,bad\n")
    place = make_place(
        tmp_path,
        "workflow: {{name: small, storage: {storage}, seeds: [1]}}\n"
        "data:\n  mine: {{kind: table, csv: {folder}/clips.csv}}\n",
    )
    process = place.start()
    output, errors = process.communicate(timeout=300)
    assert process.returncode == 2, errors
    assert output == ""
    assert errors.count("vadv: ") == 1
    assert "clips.csv" in errors.splitlines()[-1]
    assert "Traceback" not in errors
    assert place.attempts("data-mine") == ["failed"]


def test_null_leaves_a_section_out(tmp_path: Path) -> None:
    place = make_place(tmp_path)
    assert list(plan_workflow(place.file).stages) == list(STAGES)
    place.file.write_text(place.file.read_text().replace("advise: null", "advise:\n  seed: 2"))
    assert "advise-made" in plan_workflow(place.file).stages


def test_mistakes_before_the_flow_starts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = make_place(tmp_path)
    assert main(["workflow", "run", str(place.file), "--max-workers", "0"]) == 2
    assert "--max-workers 0" in capsys.readouterr().err
    assert main(["workflow", "run", str(place.file), "--force", "exprot"]) == 2
    assert "Did you mean 'export'?" in capsys.readouterr().err
    assert not place.storage.exists()


@pytest.mark.parametrize("user", [{}, {"USER": "root"}, {"METAFLOW_USER": "", "USERNAME": "root"}])
def test_a_container_without_a_user_gets_a_name(user: dict[str, str]) -> None:
    environment = dict(user)
    prepare(environment)
    assert environment["METAFLOW_USER"] == "vadv"


def test_settings_that_are_there_stay() -> None:
    environment = {"USER": "ada", MAX_WORKERS: "7"}
    prepare(environment)
    assert "METAFLOW_USER" not in environment
    assert environment[MAX_WORKERS] == "7"


@pytest.mark.parametrize(
    ("given", "cores", "tasks", "threads"),
    [
        ({MAX_WORKERS: "2"}, 8, 6, "4"),
        ({MAX_WORKERS: "16"}, 8, 3, "2"),
        ({MAX_WORKERS: "16"}, 8, 12, "1"),
        ({MAX_WORKERS: "2", "OMP_NUM_THREADS": "5"}, 8, 6, "5"),
        ({"METAFLOW_KUBERNETES_WORKLOAD": "1"}, 8, 6, None),
    ],
)
def test_tasks_that_run_at_once_share_the_cores(
    given: dict[str, str], cores: int, tasks: int, threads: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vadv_dist.workflow.flow_process._cores", lambda: cores)
    environment = dict(given)
    threads_for(tasks, environment)
    assert environment.get("OMP_NUM_THREADS") == threads


def test_the_page_of_a_stage_in_an_object_store(s3: str, tmp_path: Path) -> None:
    file = tmp_path / "small.yaml"
    file.write_text(FILE.format(storage=f"{s3}/flow"))
    console = Console(file=(tmp_path / "said").open("w"))
    started = start_flow(str(file), (), ())
    page = call_stage(str(file), (), "data-made", started, console)
    [folder] = location(f"{s3}/flow/small/data-made").glob("*")
    assert page == (folder / "card.html").read_text()
    assert start_flow(str(file), (), ["data-made"]).forced == {"data-made": 1}
    assert call_stage(str(file), (), "data-made", replace(started, forced={"data-made": 0}), console) == page
    assert call_stage(str(file), (), "tune", started, console) is None
    with pytest.raises(UserError, match=r"small\.yaml has changed since the workflow was started"):
        call_stage(str(file), ["--workflow.seeds=[2]"], "data-made", started, console)


@pytest.fixture(scope="module")
def argo(s3_port: int, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Any]:
    """What `vadv workflow argo` prints, by kind."""
    here = tmp_path_factory.mktemp("argo")
    environment = {
        **os.environ,
        **CREDENTIALS,
        "METAFLOW_HOME": str(here),
        "METAFLOW_DATASTORE_SYSROOT_S3": f"s3://{BUCKET}/metaflow",
        "METAFLOW_S3_ENDPOINT_URL": f"http://127.0.0.1:{s3_port}",
    }
    options = ["--image", "vadv:0.2.0", "--resources", "cpu=8,memory=32000"]
    options += ["--schedule", "0 3 * * *", "--timezone", "Europe/Zurich"]
    command = [sys.executable, "-m", "vadv_dist.cli", "workflow", "argo", "/workflows/mosi.yaml", *options]
    done = subprocess.run(command, env=environment, cwd=here, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return {each["kind"]: each for each in json.loads(done.stdout)["items"]}


def without_nulls(value: Any) -> Any:
    """As Kubernetes reads it, for which null is absence."""
    if isinstance(value, dict):
        return {key: without_nulls(each) for key, each in value.items() if each is not None}
    return [without_nulls(each) for each in value] if isinstance(value, list) else value


@pytest.mark.slow
def test_the_flow_compiles_for_argo_with_pods_that_kubernetes_accepts(argo: Mapping) -> None:
    template = argo["WorkflowTemplate"]
    assert template["apiVersion"] == "argoproj.io/v1alpha1"
    templates = {template["name"]: template for template in template["spec"]["templates"]}
    kinds = ("data", "check", "advise", "tune", "train", "evaluate", "study", "export", "report")
    assert {"start", *kinds, "end"} <= set(templates)
    for name in ("data", "train", "export"):
        template = templates[name]
        container = without_nulls(template["container"])
        pod = {"containers": [container], "volumes": template["volumes"], "restartPolicy": "Never"}
        pod["containers"][0].setdefault("name", "main")
        validate({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": pod}, "1.33", strict=True)
        assert template["container"]["image"] == "vadv:0.2.0"
        assert (
            template["container"]["resources"]["requests"] | {"cpu": "8", "memory": "32000M"}
            == (template["container"]["resources"]["requests"])
        )
        assert template["retryStrategy"]["limit"] == 2


@pytest.mark.slow
def test_the_schedule_and_the_file_are_those_of_the_command(argo: Mapping) -> None:
    template, cron = argo["WorkflowTemplate"], argo["CronWorkflow"]["spec"]
    assert (cron["schedules"], cron["timezone"]) == (["0 3 * * *"], "Europe/Zurich")
    assert cron["workflowSpec"]["workflowTemplateRef"]["name"] == template["metadata"]["name"]
    parameters = {each["name"]: json.loads(each["value"]) for each in template["spec"]["arguments"]["parameters"]}
    assert parameters["file"] == "/workflows/mosi.yaml"


@pytest.mark.slow
def test_argo_does_not_repeat_a_users_mistake(argo: Mapping) -> None:
    assert NO_RETRY == METAFLOW_EXIT_DISALLOW_RETRY
    retried = [each for each in argo["WorkflowTemplate"]["spec"]["templates"] if "retryStrategy" in each]
    assert len(retried) >= len(STAGES)
    assert {each["retryStrategy"]["expression"] for each in retried} == {"asInt(lastRetry.exitCode) != 202"}


def test_argo_needs_a_datastore(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.delenv("METAFLOW_DATASTORE_SYSROOT_S3", raising=False)
    assert main(["workflow", "argo", "w.yaml", "--image", "vadv"]) == 2
    assert "METAFLOW_DATASTORE_SYSROOT_S3 is not set" in capsys.readouterr().err
