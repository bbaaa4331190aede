"""`vadv init`: from a person's data to a workflow file that runs."""

import csv
import os
import pty
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from rich.console import Console

from vadv_dist.cli import main
from vadv_dist.data.dataset import Dataset
from vadv_dist.errors import UserError
from vadv_dist.workflow.init import parse_range, parse_seeds, write_workflow
from vadv_dist.workflow.own_data import look, with_columns
from vadv_dist.workflow.plan import plan_workflow
from vadv_dist.workflow.run import run_stage

HEADER = ("Video", "Clip", "Sentence", "Score", "Mode")


def table(file: Path, rows: Sequence[Sequence[object]], header: Sequence[str] = HEADER) -> Path:
    with file.open("w", newline="") as out:
        csv.writer(out).writerows([header, *rows])
    return file


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A table with columns of its own names: clips are numbered within videos, and nothing is for validation."""
    monkeypatch.chdir(tmp_path)
    clips = [(video, clip) for video in range(20) for clip in range(3)]
    rows = [
        (
            f"v{video}",
            clip,
            f"a good film {video}, {clip}",
            (video + clip) % 6 / 2 + 0.2,
            "test" if video > 15 else "Train",
        )
        for video, clip in clips
    ]
    return table(tmp_path / "own words.csv", rows)


def silent(text: str) -> None:
    """Say nothing."""


def proposals(field: str, question: str, proposal: str) -> str:
    assert proposal, field
    return proposal


def test_the_written_workflow_makes_the_data_set_of_the_table(own: Path, made: Path) -> None:
    given = {"data": own.name, "student": str(made / "encoder")}
    write_workflow(Path("mine.yaml"), given, proposals, silent)
    text = Path("mine.yaml").read_text()
    assert text.startswith("# yaml-language-server: $schema=")
    assert Path(text.split("$schema=")[1].split()[0]).is_file()
    workflow = plan_workflow("mine.yaml")
    (section,) = workflow.config.data.values()
    columns = section.id_column, section.text_column, section.label_column, section.split_column, section.video_column
    assert columns == (("Video", "Clip"), "Sentence", "Score", "Mode", "Video")
    assert section.label_range == (0, 3)
    console = Console(quiet=True)
    (data,), (check,), (advice,) = (workflow.of_kind(kind) for kind in ("data", "check", "advise"))
    found = run_stage(workflow, data, console)
    run_stage(workflow, check, console)
    assert run_stage(workflow, advice, console).values["verdict"] == "not applicable"
    assert found.values["rows"] == {"train": 42, "valid": 6, "test": 12}  # whole videos of train are for validation
    train = Dataset.open(found.place("uri")).manifest
    assert (train.label.low, train.label.high) == (0, 3)


def test_questions_are_asked_on_a_terminal(own: Path, made: Path) -> None:
    """Enter accepts the proposal; an answer replaces it; a wrong answer gets a message and the question again."""
    host, guest = pty.openpty()
    command = [sys.executable, "-m", "vadv_dist.cli", "init", "mine.yaml"]
    process = subprocess.Popen(command, stdin=guest, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    answers = ["nothing.csv", own.name, "id=Clip", "", "4 -1", "-1 4", made / "encoder", "elsewhere", "one", 7, ""]
    os.write(host, "\n".join(map(str, answers)).encode())
    said, asked = process.communicate(timeout=120)
    os.close(host)
    os.close(guest)
    assert process.returncode == 0, asked
    for message in ("nothing.csv does not exist", "no column for text", "the lower one first", "different integers"):
        assert message in asked
    assert "Columns (fields id, text, label, split" in asked
    assert "[id=Video+Clip,text=Sentence,label=Score,split=Mode,video=Video]" in asked
    assert "train-seed-7" in said
    assert "Next: vadv workflow run mine.yaml" in said
    config = plan_workflow("mine.yaml").config
    assert (config.workflow.storage, config.workflow.seeds) == ("elsewhere", (7,))
    assert next(iter(config.data.values())).label_range == (-1, 4)


def test_without_a_terminal_the_missing_option_is_named(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["init", "--data", own.name, "--seeds", "1"]) == 2
    assert "--columns is missing, and standard input is not a terminal" in capsys.readouterr().err
    assert main(["init", "--yes"]) == 2
    assert "--data is missing" in capsys.readouterr().err
    assert not Path("workflow.yaml").exists()


def test_a_file_is_not_overwritten_unless_forced(own: Path, made: Path) -> None:
    given = {"data": own.name, "student": str(made / "encoder")}
    Path("mine.yaml").write_text("mine")
    with pytest.raises(UserError, match=r"mine\.yaml exists.*--force"):
        write_workflow(Path("mine.yaml"), given, proposals, silent)
    assert Path("mine.yaml").read_text() == "mine"
    write_workflow(Path("mine.yaml"), {**given, "force": True}, proposals, silent)
    assert "workflow:" in Path("mine.yaml").read_text()


def test_a_few_bad_rows_are_dropped_and_many_are_refused(own: Path, made: Path) -> None:
    with own.open("a", newline="") as file:
        csv.writer(file).writerow(("v1", 9, "", 1, "train"))
    said: list[str] = []
    given = {"data": own.name, "student": str(made / "encoder")}
    write_workflow(Path("mine.yaml"), given, proposals, said.append)
    assert any("1 of 61 rows will be dropped" in line and "line 62: Sentence is empty" in line for line in said)
    assert next(iter(plan_workflow("mine.yaml").config.data.values())).bad_rows == "drop"
    with pytest.raises(UserError, match=r"\d+ of 61 rows cannot be used.*label-range"):
        write_workflow(Path("two.yaml"), {**given, "label_range": "0 1"}, proposals, silent)


def test_a_data_set_and_raw_clips_are_recognised(made: Path, tmp_path: Path) -> None:
    given = {"student": str(made / "encoder")}
    write_workflow(tmp_path / "made.yaml", {**given, "data": str(made)}, proposals, silent)
    workflow = plan_workflow(tmp_path / "made.yaml")
    assert workflow.of_kind("train") == [f"train-{alone}seed-{seed}" for seed in (1, 2, 3) for alone in ("", "alone-")]
    clips = tmp_path / "clips"
    (clips / "Raw" / "q").mkdir(parents=True)
    (clips / "Raw" / "q" / "1.mp4").write_bytes(b"no video yet")
    rows = [("q", 1, "words", -2.5, "train")]
    table(clips / "label.csv", rows, ("video_id", "clip_id", "text", "label", "mode"))
    write_workflow(tmp_path / "raw.yaml", {**given, "data": str(clips)}, proposals, silent)
    workflow = plan_workflow(tmp_path / "raw.yaml")
    assert workflow.stage("data-clips").heavy
    assert workflow.stage("data-clips").settings["clips"]["label_range"] == [-3, 3]
    listed = table(tmp_path / "list.csv", [("q_1", "q", "train", 3.5, "words", "clips/Raw/q/1.mp4")], LIST)
    write_workflow(tmp_path / "list.yaml", {**given, "data": str(listed)}, proposals, silent)
    assert plan_workflow(tmp_path / "list.yaml").stage("data-list").settings["clips"]["label_range"] == [3, 4]


LIST = ("clip_id", "video_id", "split", "label", "text", "path")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda own: look("nothing.csv"), "nothing.csv does not exist, expected a table"),
        (lambda own: look(str(own.parent)), "is none of these, expected a table"),
        (lambda own: look(str(table(own.parent / "empty.csv", []))), "has no rows"),
        (lambda own: look(str(table(own.parent / "x.csv", [["1"]], ["text"]))), "has one column, 'text'"),
        (
            lambda own: with_columns(look(str(own)), "id=Clip,text=Sentence,label=Score"),
            "no column for split .*Add a col",
        ),
        (lambda own: with_columns(look(str(own)), "id=Clip,text=T,label=Score,split=Mode"), "has no column 'T'"),
        (
            lambda own: with_columns(look(str(own)), "id=Clip,text=Score,label=Sentence,split=Mode"),
            "does not contain numbers",
        ),
        (lambda own: parse_range("3 -3"), "expected two numbers, the lower one first"),
        (lambda own: parse_seeds("1,1"), "expected different integers"),
    ],
)
def test_a_mistake_is_one_message(own: Path, call: Callable[[Path], object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        call(own)


@pytest.mark.real_data
def test_real_mosi_becomes_a_workflow(real_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    mosi = real_data / "cmu_mosi"
    arrays = f"{mosi / 'mosi_utterance_features.npz'}:video=visual"
    assert main(["init", "--data", str(mosi / "mosi_segments.csv"), "--arrays", arrays, "--yes"]) == 0
    workflow = plan_workflow("workflow.yaml")
    found = run_stage(workflow, "data-mosi_segments", Console(quiet=True))
    assert sum(found.values["rows"].values()) == 2199
    assert "train-alone-seed-1" in workflow.stages
