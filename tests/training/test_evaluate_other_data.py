"""Scoring a student on data that it was not trained on: asked for by name, kept apart, or refused."""

import json
import shutil
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from vadv_dist.cli.command import main
from vadv_dist.config import load_config
from vadv_dist.data.dataset import Dataset
from vadv_dist.data.schema import Clip, LabelSpec
from vadv_dist.data.shards import DatasetWriter
from vadv_dist.data.synth import make_dataset
from vadv_dist.errors import UserError
from vadv_dist.inference.export import export_run
from vadv_dist.inference.predict import predict_texts
from vadv_dist.launch.driver import train
from vadv_dist.reporting.report import write_report
from vadv_dist.reporting.run_files import read_run
from vadv_dist.storage import read_json
from vadv_dist.training.evaluate import evaluate_run
from vadv_dist.training.evaluate_other_data import evaluate, evaluation_name

QUIET = Console(quiet=True)


def write_words(place: Path, clips: Iterable[Clip], split: str = "test", label: LabelSpec | None = None) -> Path:
    with DatasetWriter(place, features={}, label=label or LabelSpec(), provenance={}) as writer:
        for clip in clips:
            writer.write(split, clip)
    return place


def words(name: str, videos: Iterable[str], label: float = 1.5) -> list[Clip]:
    return [Clip(f"{name}{i}", video, f"some words {i}", label - i, name, {}) for i, video in enumerate(videos)]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on made data, evaluated on its own test split."""
    folder = tmp_path_factory.mktemp("own")
    make_dataset(folder / "data", num_clips=80, seed=3)
    (folder / "run.yaml").write_text(
        f"run: {{name: run, storage: {folder / 'runs'}}}\n"
        f"data: {{sources: [{{uri: {folder / 'data'}}}], batch_size: 16}}\n"
        f"student: {{encoder: {folder / 'data' / 'encoder'}, pretrained: false, hidden: 32}}\n"
        "objective: {kind: none}\ntrainer: {max_steps: 1, use_gpu: false}\n"
    )
    train(load_config(folder / "run.yaml"), QUIET)
    evaluate_run(folder / "runs" / "run", "test")
    return folder / "runs" / "run"


def own_files(run: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in run.iterdir() if path.is_file()}


def train_videos(run: Path) -> list[str]:
    data = run.parents[1] / "data"
    return pq.read_table(data / "train" / "00000.parquet").column("video_id").to_pylist()


def test_evaluation_on_other_data_keeps_the_runs_own(run: Path, tmp_path: Path) -> None:
    other = write_words(tmp_path / "other", words("x", ["new0", "new1"]))
    before = own_files(run)
    document = evaluate(run, "test", data=[str(other)]).to_json()
    assert own_files(run) == before
    texts, labels = ["some words 0", "some words 1"], np.array([1.5, 0.5])
    assert document["student"]["mae"] == pytest.approx(np.abs(predict_texts(run, texts) - labels).mean(), rel=1e-5)
    assert document["data"] == [{"uri": str(other), "fingerprint": Dataset.open(other).manifest.fingerprint}]
    assert "video" not in document
    assert "leaks" not in document
    stored = read_json(Path(document["file"]))
    assert stored == {key: value for key, value in document.items() if key != "file"}
    assert Path(document["file"]).parent == run / "other-data"
    assert Path(document["file"]).name.startswith("other-")
    predictions = pq.read_table(Path(document["file"]).with_suffix(".parquet")).to_pydict()
    assert predictions["text"] == texts
    assert predictions["text_logit"] == pytest.approx(predict_texts(run, texts), abs=1e-5)


def test_data_sets_with_the_same_name_have_separate_evaluations(run: Path, tmp_path: Path) -> None:
    places = [
        write_words(tmp_path / "a" / "данные", words("x", ["new"])),
        write_words(tmp_path / "b" / "данные", words("y", ["new"])),
        write_words(tmp_path / "c" / "проба", words("x", ["new"]), label=LabelSpec(-3, 4)),
    ]
    names = [evaluation_name(Dataset.open(place)) for place in places]
    assert len(set(names)) == 3
    files = {evaluate(run, "test", data=[str(place)]).to_json()["file"] for place in places[:2]}
    assert len(files) == 2


def test_moved_training_data_count_as_the_runs_own(run: Path, tmp_path: Path) -> None:
    before = own_files(run)
    shutil.copytree(run.parents[1] / "data", tmp_path / "copy")
    document = evaluate(run, "test", data=[str(tmp_path / "copy")]).to_json()
    assert document["student"] == json.loads(before["evaluation-test.json"])["student"]
    assert "other_data" not in document


@pytest.mark.parametrize("of", ["run", "export"])
def test_scoring_on_training_videos_is_reported(run: Path, tmp_path: Path, of: str, monkeypatch) -> None:
    source = run
    if of == "export":
        source = tmp_path / "export"
        export_run(run, source)
    known = train_videos(run)[0]
    other = write_words(tmp_path / "other", words("x", ["new", known, known]))
    monkeypatch.chdir(tmp_path)  # not where the run's data are
    (leak,) = evaluate(source, "test", data=["other"]).to_json()["leaks"]
    assert (leak["videos"], leak["clips"]) == ([known], 2)
    assert str(other) in leak["told"]


def test_evaluation_of_an_export_is_not_written(run: Path, tmp_path: Path, capsys) -> None:
    export, other = tmp_path / "export", write_words(tmp_path / "other", words("x", ["new0", "new1"]))
    export_run(run, export)
    before = sorted(export.rglob("*"))
    of_run = evaluate(run, "test", data=[str(other)]).to_json()
    assert main(["evaluate", str(export), "--data", str(other)]) == 0
    assert "nothing was written" in capsys.readouterr().out
    assert sorted(export.rglob("*")) == before
    assert evaluate(export, "test", data=[str(other)]).to_json()["student"] == of_run["student"]
    with pytest.raises(UserError, match=r"is an exported student.*--data URI"):
        evaluate(export, "test")


def test_evaluations_can_have_a_folder_of_their_own(run: Path, tmp_path: Path) -> None:
    before = own_files(run)
    assert main(["evaluate", str(run), "--split", "test", "--out", str(tmp_path / "scores")]) == 0
    assert own_files(run) == before
    assert (tmp_path / "scores" / "predictions-test.parquet").read_bytes() == before["predictions-test.parquet"]
    record, own = read_run(run, evaluations=tmp_path / "scores"), read_run(run)
    assert record.evaluation is not None
    assert own.evaluation is not None
    assert record.evaluation.document.metrics == own.evaluation.document.metrics
    assert read_run(run, evaluations=tmp_path / "none").evaluation is None
    export_run(run, tmp_path / "export", evaluations=tmp_path / "scores")
    export_run(run, tmp_path / "unscored", evaluations=tmp_path / "none")
    tables = [read_json(tmp_path / name / "vadv_export.json")["metrics"] for name in ("export", "unscored")]
    assert [sorted(table) for table in tables] == [["test", "valid"], ["valid"]]


def test_scoring_on_training_clips_is_reported(run: Path, tmp_path: Path) -> None:
    export_run(run, tmp_path / "export")
    own = str(run.parents[1] / "data")
    (leak,) = evaluate(tmp_path / "export", "train", data=[own]).to_json()["leaks"]
    assert "trained on the same clips" in leak["told"]


@pytest.mark.parametrize(
    ("label", "message"),
    [
        (LabelSpec(1, 5), r"labels in \[1, 5\].*predicts labels in \[-3, 3\]"),
        (LabelSpec.of_classes(4), "has the classes class 0, .*but the student of .* predicts a number"),
    ],
)
def test_labels_of_another_range_are_rejected(run: Path, tmp_path: Path, label: LabelSpec, message: str) -> None:
    clips = [Clip("x", "new", "some words", 2.0, "x", {})]
    before = sorted(run.rglob("*"))
    with pytest.raises(UserError, match=message):
        evaluate(run, "test", data=[str(write_words(tmp_path / "stars", clips, label=label))])
    assert sorted(run.rglob("*")) == before


def test_several_other_data_sets_or_an_encoder_are_rejected(run: Path, tmp_path: Path) -> None:
    places = [str(write_words(tmp_path / name, words(name, ["new"]))) for name in ("x", "y")]
    with pytest.raises(UserError, match="one at a time"):
        evaluate(run, "test", data=places)
    with pytest.raises(UserError, match="--encoder is only used with a run's own data"):
        evaluate(run, "test", data=places[:1], encoder="encoder")
    with pytest.raises(UserError, match="no 'valid' split"):
        evaluate(run, "valid", data=places[:1])


def test_report_shows_other_data_separately(run: Path, tmp_path: Path) -> None:
    known = train_videos(run)[0]
    other = write_words(tmp_path / "другие", words("z", [known, "new"]))
    evaluate(run, "test", data=[str(other)])
    page = Path(str(write_report(run))).read_text()
    assert "On other data" in page
    assert str(other) in page
    assert f"in {run.parents[1] / 'data'}" in page
