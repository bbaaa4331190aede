"""The extraction of raw clips as a stage: what makes it another one, and when clips are extracted again."""

import os
import shutil
import sys
from pathlib import Path

import pytest
from rich.console import Console

sys.path.insert(0, str(Path(__file__).parents[1] / "features"))

from tiny_models import write_clip  # importable because of the line above
from videos import write_list, write_video

from vadv_dist.storage import read_json
from vadv_dist.workflow.explain import explain
from vadv_dist.workflow.plan import plan_workflow
from vadv_dist.workflow.run import run_stage

FILE = """
workflow: {{name: w, storage: {folder}/runs, seeds: [1]}}
advise: null
data:
  mine:
    kind: extract
    overrides:
      clips.csv: {folder}/clips/clips.csv
      image.encoder: {folder}/clip
      frames.visual: 2
      faces: {{kind: none, path: null}}
      compute.num_workers: 0
      output.max_rejected: 0.5
train: {{config: demo, overrides: {{objective: none}}}}
"""
DATA, CHECK = "data-mine", "check-mine"


@pytest.fixture
def extracted(tmp_path: Path) -> Path:
    """The file of a workflow whose data set was extracted and checked; one clip has no picture."""
    rows = [(f"c{n}_0", f"c{n}", ("train", "valid")[n % 2], str(n - 1), f"words {n}", f"v{n}.mp4") for n in range(4)]
    for n in range(3):
        write_video(tmp_path / "clips" / f"v{n}.mp4", frames=6, seed=n)
    (tmp_path / "clips" / "v3.mp4").write_bytes(b"no video")
    write_list(tmp_path / "clips" / "clips.csv", rows, "clip_id,video_id,split,label,text,path")
    write_clip(tmp_path / "clip")
    file = tmp_path / "w.yaml"
    file.write_text(FILE.format(folder=tmp_path))
    run(file)
    assert reasons(file) == {}
    return file


def run(file: Path) -> list[int]:
    """Run the stages of the data set, and return the numbers of their attempts."""
    workflow = plan_workflow(file)
    return [run_stage(workflow, name, Console(quiet=True)).manifest["attempt"] for name in (DATA, CHECK)]


def reasons(file: Path) -> dict[str, str]:
    """Which of these stages would run, and why."""
    return {each.stage: each.why for each in explain(plan_workflow(file))[:2] if each.will_run}


def test_touched_clips_are_compared_and_not_extracted_again(extracted: Path) -> None:
    folder = plan_workflow(extracted).folder(plan_workflow(extracted).stages[DATA])
    manifest = (folder / "mine" / "dataset.json").stat()
    for path in (extracted.parent / "clips").glob("*.mp4"):  # the rejected one, too
        os.utime(path)
    assert reasons(extracted) == {DATA: "files from outside changed or were touched; their content is compared"}
    assert run(extracted) == [2, 1]
    assert (folder / "mine" / "dataset.json").stat() == manifest
    assert reasons(extracted) == {}


def test_another_video_is_extracted_and_what_reads_it_runs_again(extracted: Path) -> None:
    workflow = plan_workflow(extracted)
    before = read_json(workflow.folder(workflow.stages[DATA]) / "stage.json")["values"]["fingerprint"]
    write_video(extracted.parent / "clips" / "v1.mp4", frames=6, seed=9)
    assert run(extracted) == [2, 2]
    after = read_json(workflow.folder(workflow.stages[DATA]) / "stage.json")["values"]["fingerprint"]
    assert after != before
    assert reasons(extracted) == {}


def test_an_extraction_that_was_interrupted_before_a_video_changed_starts_over(extracted: Path) -> None:
    workflow = plan_workflow(extracted)
    folder = workflow.folder(workflow.stages[DATA])
    fingerprint = read_json(folder / "stage.json")["values"]["fingerprint"]
    known = read_json(folder / "clips.json")
    (folder / "stage.json").unlink()  # as if it had been killed before it recorded what it had read
    shutil.rmtree(folder / "attempts")
    (folder / "clips.json").write_text('{"versions": {"v0.mp4": "1 1"}, "sha256": {}}')
    (folder / "mine" / "train" / "00000.parquet").write_bytes(b"of other clips")
    run(extracted)
    assert read_json(folder / "stage.json")["values"]["fingerprint"] == fingerprint
    assert read_json(folder / "clips.json") == known


def test_the_content_of_encoders_is_part_of_the_identity_and_the_machine_is_not(extracted: Path) -> None:
    text = extracted.read_text()
    extracted.write_text(text.replace("compute.num_workers: 0", "compute.num_workers: 1"))
    assert reasons(extracted) == {}
    write_clip(extracted.parent / "clip", seed=1)
    assert reasons(extracted)[DATA] == f"{extracted.parent}/clip changed"
