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
from vadv_dist.config.workflow import DataSetConfig
from vadv_dist.data.dataset import Dataset
from vadv_dist.errors import UserError
from vadv_dist.inference.manifest import read_manifest
from vadv_dist.workflow.init import parse_range, parse_seeds, write_workflow
from vadv_dist.workflow.own_data import look, with_columns
from vadv_dist.workflow.own_labels import guess_labels
from vadv_dist.workflow.plan import plan_workflow
from vadv_dist.workflow.run import run_all, run_stage

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


def mood_table(file: Path, moods: Sequence[str], splits: Sequence[str] = (), *, videos: int = 20) -> Path:
    """Three clips of each video; labels and splits in turn, the latter by video."""
    rows = [
        (f"v{video}", f"it was a day {video}, {clip}", moods[(video + clip) % len(moods)])
        + ((splits[video % len(splits)],) if splits else ())
        for video in range(videos)
        for clip in range(3)
    ]
    return table(file, rows, ("video", "text", "mood", "fold")[: 4 if splits else 3])


def written(own: Path, **given: object) -> DataSetConfig:
    """The data set of the workflow file that is written, with every proposal accepted."""
    file = own.parent / "written.yaml"
    file.unlink(missing_ok=True)
    write_workflow(file, {"data": str(own), "student": "minilm", **given}, proposals, silent)
    (section,) = plan_workflow(file).config.data.values()
    return section


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
    answers = ["", "nothing.csv", own.name, "id=Clip", "", "4 -1", "-1 4", made / "encoder", "elsewhere", "one", 7, ""]
    os.write(host, "\n".join(map(str, answers)).encode())
    said, asked = process.communicate(timeout=120)
    os.close(host)
    os.close(guest)
    assert process.returncode == 0, asked
    for message in ("nothing.csv does not exist", "no column for text", "the lower one first", "different integers"):
        assert message in asked
    assert "Nothing is proposed here, so Enter alone is no answer." in asked
    assert "(fields: id, text, label, split, video, path)" in asked
    assert "[id=Video+Clip,text=Sentence,label=Score,split=Mode,video=Video]" in asked
    assert "train-seed-7" in said
    assert "Next: vadv workflow run mine.yaml" in said
    config = plan_workflow("mine.yaml").config
    assert (config.workflow.storage, config.workflow.seeds) == ("elsewhere", (7,))
    assert next(iter(config.data.values())).label_range == (-1, 4)


def test_columns_of_any_name_are_proposed_by_what_they_contain(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    moods, stars = ("happy", "sad", "calm"), (1, 2, 5)
    rows = [(n, moods[n % 3], f"day {n} was long, and then it ended", f"Ann B{n}", "en") for n in range(30)]
    header = ("number", "Mood", "Review, in full", "Author", "language")
    found = look(str(table(tmp_path / "moods.csv", rows, header)))
    assert found.columns == {"text": "Review, in full", "label": "Mood"}
    assert with_columns(found, '"text=Review, in full", label=Mood').columns == found.columns
    assert look(
        str(table(tmp_path / "a.csv", [(*row, stars[row[0] % 3]) for row in rows], (*header, "Votes")))
    ).columns == {"text": "Review, in full"}  # two columns may be the label
    signs = [(*row, ("positive", "negative")[row[0] % 2]) for row in rows]
    assert look(str(table(tmp_path / "b.csv", signs, (*header, "Tone")))).columns["label"] == "Tone"
    assert main(["init", "--data", "a.csv", "--yes"]) == 2
    said = capsys.readouterr().err
    assert "--columns is missing, and there is nothing to propose." in said
    assert 'such as "text=Review, in full",label=Votes (fields' in said


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
    rows = [("q", 1, "words", -2.5, "train"), ("r", 1, "more words", 0, "train"), ("s", 1, "few words", 1, "test")]
    table(clips / "label.csv", rows, ("video_id", "clip_id", "text", "label", "mode"))
    write_workflow(tmp_path / "raw.yaml", {**given, "data": str(clips)}, proposals, silent)
    workflow = plan_workflow(tmp_path / "raw.yaml")
    assert workflow.stage("data-clips").heavy
    assert workflow.stage("data-clips").settings["clips"]["label_range"] == [-3, 3]
    listed = table(
        tmp_path / "list.csv",
        [("q_1", "q", "train", 3.5, "w", "q.mp4"), ("r_1", "r", "valid", 3.1, "w", "r.mp4")],
        LIST,
    )
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
            lambda own: with_columns(look(str(own)), "id=Clip,text=Sentence"),
            r"no column for label .*, such as id=Video\+Clip,text=Sentence,label=Score,split=Mode",
        ),
        (
            lambda own: with_columns(look(str(own)), "Sentence"),
            "has 'Sentence', expected FIELD=COLUMN pairs, such as id=",
        ),
        (lambda own: with_columns(look(str(own)), "id=Clip,text=Sentence,label=Score,x=Clip"), "the unknown field 'x'"),
        (lambda own: with_columns(look(str(own)), "id=Clip,text=T,label=Score,split=Mode"), "has no column 'T'"),
        (lambda own: guess_labels(look(str(own)).cells("text"), "Sentence"), "does not contain numbers"),
        (lambda own: written(own, classes="one"), "two or more different names"),
        (lambda own: written(own, classes="a,b", label_range="0 1"), "--label-range is for labels that are numbers"),
        (lambda own: written(own, split="80/80"), "--split is '80/80', expected percentages"),
        (lambda own: written(own, transcribe="asr"), "--transcribe is for the rows of clips"),
        (lambda own: parse_range("3 -3"), "expected two numbers, the lower one first"),
        (lambda own: parse_seeds("1,1"), "expected different integers"),
    ],
)
def test_a_mistake_is_one_message(own: Path, call: Callable[[Path], object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        call(own)


def test_words_in_the_label_column_are_classes_or_stand_for_numbers(tmp_path: Path) -> None:
    columns = {"columns": "text=text,label=mood,video=video"}
    few = written(mood_table(tmp_path / "a.csv", ("glad", "Angry", "calm", "glad")), **columns)
    assert (few.classes, few.label_map, few.split) == (("Angry", "calm", "glad"), {}, "80/10/10")
    two = written(mood_table(tmp_path / "b.csv", ("Yes", "no")), **columns)
    assert two.classes == ("no", "Yes")
    signs = written(mood_table(tmp_path / "c.csv", ("Positive", "negative", "neutral")), **columns)
    assert (signs.classes, signs.label_range) == ((), (-1, 1))
    assert signs.label_map == {"negative": -1, "neutral": 0, "Positive": 1}
    levels = ("weakly positive", "negative", "neutral", "positive")
    assert written(mood_table(tmp_path / "d.csv", levels), **columns).label_map == {
        "negative": -2,
        "neutral": 0,
        "weakly positive": 1,
        "positive": 2,
    }
    stars = written(mood_table(tmp_path / "e.csv", ("1 star", "5 stars", "3 stars")), **columns)
    assert (stars.label_map["5 stars"], stars.label_range) == (5, (1, 5))
    as_classes = written(tmp_path / "c.csv", **columns, classes="negative,neutral,positive")
    assert as_classes.classes == ("negative", "neutral", "positive")
    own = written(tmp_path / "a.csv", **columns, label_map="glad=1,calm=0,angry=-2", label_range="-3 3")
    assert (own.label_map["glad"], own.label_range) == (1, (-3, 3))


def test_words_in_the_split_column_are_mapped(tmp_path: Path) -> None:
    file = mood_table(tmp_path / "a.csv", ("glad", "calm"), ("training", "Training", "validation set", "holdout"))
    columns = {"columns": "text=text,label=mood,video=video,split=fold"}
    found = written(file, **columns)
    assert found.split_map == {"holdout": "test", "training": "train", "validation set": "valid"}
    assert (found.split, found.valid_fraction) == (None, None)
    assert written(file, **columns, split="70/20/10").split == "70/20/10"
    assert (
        written(file, **columns, split_map="training=train,holdout=valid,validation set=test").split_map["holdout"]
        == "valid"
    )
    without = written(mood_table(tmp_path / "b.csv", ("glad", "calm"), ("train", "train", "test")), **columns)
    assert without.valid_fraction == 0.1
    assert written(tmp_path / "b.csv", **columns, valid_fraction=0.2).valid_fraction == 0.2
    alone = written(mood_table(tmp_path / "c.csv", ("glad", "calm"), ("train",)), **columns)
    assert (alone.split, alone.valid_fraction) == ("80/10/10", None)
    rare = mood_table(tmp_path / "d.csv", ("glad", "calm"), ("train", "valid"))
    rare.write_text(rare.read_text() + "v1,x,joy,valid\nv1,y,joy,valid\n")
    with pytest.raises(UserError, match="has no train clips of joy"):
        written(rare, **columns)


def test_a_list_of_clips_with_columns_of_its_own_is_recognised(tmp_path: Path) -> None:
    rows = [(f"talk-{chr(97 + n)}/1.mp4", ("glad", "calm")[n % 2]) for n in range(12)]
    file = table(tmp_path / "list.csv", rows, ("file", "emotion"))
    with pytest.raises(UserError, match=r"names no column for text .*--transcribe"):
        written(file, columns="path=file,label=emotion")
    config = written(file, transcribe="openai/whisper-tiny")
    assert config.overrides["clips.path_column"] == "file"
    assert config.overrides["clips.transcribe"] == "openai/whisper-tiny"
    assert config.overrides["clips.classes"] == ["calm", "glad"]
    assert config.overrides["clips.split"] == "80/10/10"


@pytest.mark.parametrize("splits", [(), ("train", "train", "train", "Development")])
def test_the_written_workflow_of_classes_runs_to_the_end(made: Path, tmp_path: Path, splits: Sequence[str]) -> None:
    """Without a test split, students are scored on the validation split."""
    file = mood_table(tmp_path / "moods.csv", ("glad", "angry", "calm"), splits)
    columns = "text=text,label=mood,video=video" + (",split=fold" if splits else "")
    given = {"data": str(file), "columns": columns, "student": str(made / "encoder"), "seeds": "1"}
    target = tmp_path / "mine.yaml"
    write_workflow(target, {**given, "results": str(tmp_path / "runs")}, proposals, silent)
    small = "    student.pretrained: false\n    student.hidden: 16\n    trainer.epochs: 1\n"
    before = "    trainer.num_workers: 0"
    target.write_text(target.read_text().replace(before, small + before))
    found = run_all(plan_workflow(target), Console(quiet=True))
    exported = found["export"].folder / "pytorch"
    assert read_manifest(exported)["classes"] == ["angry", "calm", "glad"]
    (evaluated,) = (stage.folder for name, stage in found.items() if name.startswith("evaluate"))
    assert [path.name for path in evaluated.glob("evaluation-*.json")] == [
        "evaluation-valid.json" if splits else "evaluation-test.json"
    ]


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
