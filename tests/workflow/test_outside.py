"""Files from outside: read once when a workflow starts, and compared by the stage that uses them."""

import os
from pathlib import Path

import pytest
from rich.console import Console

from vadv_dist.errors import UserError
from vadv_dist.storage import read_json, write_json
from vadv_dist.workflow import outside
from vadv_dist.workflow.plan import plan_workflow
from vadv_dist.workflow.run import run_stage

QUIET = Console(quiet=True)


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """The file of a workflow on a table, trained from an encoder in a folder."""
    rows = [f"v{n // 4}_{n % 4},{('train', 'valid', 'test')[n // 4 % 3]},{n % 5 - 2},some words {n}" for n in range(48)]
    (tmp_path / "clips.csv").write_text("\n".join(["id,split,label,text", *rows]) + "\n")
    (tmp_path / "encoder").mkdir()
    (tmp_path / "encoder" / "config.json").write_text("{}")
    (tmp_path / "encoder" / "model.safetensors").write_bytes(b"weights")
    file = tmp_path / "own.yaml"
    file.write_text(
        f"workflow: {{name: w, storage: {tmp_path / 'runs'}, seeds: [1, 2]}}\n"
        f"data: {{mine: {{kind: table, csv: {tmp_path / 'clips.csv'}}}}}\n"
        "train: {config: demo, overrides: {objective: none, student.pretrained: true, "
        f"student.encoder: {tmp_path / 'encoder'}}}}}\n"
    )
    return file


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files from outside that are hashed."""
    found = []
    hash_file = outside.sha256_file
    monkeypatch.setattr(outside, "sha256_file", lambda place: found.append(place.name) or hash_file(place))
    return found


def test_content_is_read_once_per_start(own: Path, tmp_path: Path, hashed: list[str]) -> None:
    write_json(tmp_path / "planned.json", plan_workflow(own).planned)
    assert hashed == ["clips.csv"]
    workflow = plan_workflow(own, planned=read_json(tmp_path / "planned.json"))
    assert [stage.identity for stage in workflow.stages.values()] == [
        stage.identity for stage in plan_workflow(own).stages.values()
    ]
    hashed.clear()
    run_stage(workflow, "data-mine", QUIET)
    assert hashed == []


def test_a_file_that_changed_since_the_plan_is_refused(own: Path, hashed: list[str]) -> None:
    workflow = plan_workflow(own)
    table = own.parent / "clips.csv"
    table.write_text(table.read_text().replace("words 7", "another 7"))
    with pytest.raises(UserError, match=r"data-mine: .*clips\.csv has another content than when .* was planned"):
        run_stage(workflow, "data-mine", QUIET)
    table.write_text(table.read_text().replace("another 7", "words 7"))
    run_stage(workflow, "data-mine", QUIET)  # as it was, but with another time
    assert hashed == ["clips.csv"] * 3
    (own.parent / "encoder" / "model.safetensors").write_bytes(b"others")
    run_stage(workflow, "check-mine", QUIET)
    with pytest.raises(UserError, match=r"train-seed-1: .*encoder has another content"):
        run_stage(workflow, "train-seed-1", QUIET)


def test_a_file_that_changes_while_it_is_read_is_not_used(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from vadv_dist.data.readers import table

    def ingest(**arguments: object) -> None:
        table_of(**arguments)
        os.utime(own.parent / "clips.csv")

    workflow, table_of = plan_workflow(own), table.ingest_table
    with monkeypatch.context() as patch:
        patch.setattr(table, "ingest_table", ingest)
        with pytest.raises(UserError, match=r"clips\.csv changed while it was read"):
            run_stage(workflow, "data-mine", QUIET)
    run_stage(plan_workflow(own), "data-mine", QUIET)


def test_an_encoder_on_the_hub_is_the_same_before_and_after_its_download(own: Path) -> None:
    own.write_text(own.read_text().replace(str(own.parent / "encoder"), "somebody/encoder"))
    assert plan_workflow(own).stages["train-seed-1"].outside == {}
