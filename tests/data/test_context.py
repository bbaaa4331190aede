"""Previous utterances in what the student reads: order, truncation, and the same in training, evaluation and use."""

import csv
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from transformers import AutoTokenizer, BertTokenizer

from vadv_dist.cli import main
from vadv_dist.config import Config, DataConfig, SourceConfig, TextStudentConfig, load_config
from vadv_dist.data.collate import TextField
from vadv_dist.data.context import SEPARATOR, readings, separated, separator_of
from vadv_dist.data.dataset import Dataset
from vadv_dist.data.schema import Clip, LabelSpec, text_lengths
from vadv_dist.data.shards import DatasetWriter
from vadv_dist.data.sources import Sources
from vadv_dist.data.tokens import Tokens
from vadv_dist.data.windows import LocalWindows
from vadv_dist.errors import UserError
from vadv_dist.inference.predicted_files import predict_file
from vadv_dist.training.evaluate_other_data import score_on

CLIPS = ["a_2", "b[1]", "a_10", "a_1", "b[3]", "c"]
VIDEOS = ["a", "b", "a", "a", "b", "c"]
TEXTS = ["a two", "b one", "a ten", "a one", f"b{SEPARATOR}three", "c alone"]


def parts(reading: str) -> list[str]:
    return reading.split(SEPARATOR)


def test_a_reading_is_the_clip_and_those_before_it_in_its_video_nearest_first() -> None:
    found = readings(CLIPS, VIDEOS, TEXTS, context=2, where="here")
    assert [parts(one) for one in found] == [
        ["a two", "a one"],
        ["b one"],
        ["a ten", "a two", "a one"],
        ["a one"],
        ["b three", "b one"],
        ["c alone"],
    ]
    assert parts(readings(CLIPS, VIDEOS, TEXTS, context=1, where="here")[2]) == ["a ten", "a two"]


def test_an_unknown_order_is_refused() -> None:
    with pytest.raises(UserError, match=r"order of clips in the videos of here is unknown: clip 'x' of video 'a'"):
        readings([*CLIPS, "x"], [*VIDEOS, "a"], [*TEXTS, "x"], context=1, where="here")
    with pytest.raises(UserError, match=r"student.context is 1, but no video of here has several clips in a split"):
        readings(["a", "b"], ["a", "b"], ["a", "b"], context=1, where="here")


@pytest.fixture(scope="module")
def tokenizer() -> BertTokenizer:
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "one", "two", "three", "four"]
    return BertTokenizer(vocab={word: number for number, word in enumerate(words)})


def test_utterances_are_separated_by_the_tokenizer_and_the_own_words_are_cut_last(tokenizer) -> None:
    reading, own = SEPARATOR.join(["one two", "three", "four"]), "one two"
    assert Tokens(tokenizer, 100).of([reading])[0].tolist() == [2, 5, 6, 3, 7, 3, 8, 3]
    assert list(separated([reading], separator_of(tokenizer))) == ["one two[SEP]three[SEP]four"]
    assert text_lengths([reading]).tolist() == [4]
    for limit in range(3, 9):
        alone, among = (Tokens(tokenizer, limit).of([text])[0].tolist() for text in (own, reading))
        kept = len(alone) - 1  # without the last separator, which ends every text
        assert among[:kept] == alone[:kept]
        assert len(among) == limit


def test_static_shapes_hold_readings(tokenizer) -> None:
    batches = [[SEPARATOR.join(["one two"] * n), "one"] for n in (1, 2, 3, 6)]
    field = TextField(Tokens(tokenizer, 16)).with_static_shapes(batches)
    assert field.lengths[-1] == 16
    longest = [max(len(ids) for ids in field.tokens.of(batch)) for batch in batches]
    assert longest == [4, 7, 10, 16]
    assert all(any(length <= bound for bound in field.lengths) for length in longest)


@pytest.fixture(scope="module")
def talk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """12 videos of 5 clips in shards of 7, out of order, whole videos per split."""
    out = tmp_path_factory.mktemp("talk") / "data"
    random = np.random.default_rng(0)
    order = random.permutation(60)
    with DatasetWriter(out, features={}, label=LabelSpec(), provenance={}, shard_rows=7) as writer:
        for i in order:
            video, number = divmod(int(i), 5)
            split = "train" if video < 8 else "valid" if video < 10 else "test"
            label = float(random.uniform(-3, 3))
            writer.write(
                split, Clip(f"v{video}_{number}", f"v{video}", f"good v{video} number {number}", label, "talk")
            )
    return out


def test_windows_hold_readings_of_their_own_split(talk) -> None:
    config = Config(
        data=DataConfig(sources=[SourceConfig(str(talk))], train_share=0.5),
        student=TextStudentConfig(context=2),
        objective="none",
    )
    for name in ("train", "valid", "test"):
        split = Sources.open(config).split(name)
        windows = LocalWindows(split)
        window = windows.get(tuple(range(len(split.shards))))
        windows.close()
        assert len(window) == split.sources.datasets[0].manifest.rows(name)
        for clip, reading in zip(window.clip_id, window.text, strict=True):
            video, number = clip.split("_")
            before = range(int(number), max(-1, int(number) - 3), -1)
            assert parts(reading) == [f"good {video} number {other}" for other in before]
        assert list(split.texts()) == window.text


@pytest.fixture(scope="module")
def trained(talk, made, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    config = folder / "run.yaml"
    config.write_text(
        f"""
run: {{name: talk, storage: {folder}}}
data: {{sources: [{{uri: {talk}}}], batch_size: 8}}
student: {{encoder: {made / "encoder"}, pretrained: false, hidden: 8, context: 2}}
objective: none
optimizer: {{lr: 1.0e-2, new_module_lr_factor: 1.0}}
trainer: {{epochs: 2, use_gpu: false, num_workers: 0}}
"""
    )
    assert main(["train", "--config", str(config)]) == 0
    assert main(["evaluate", str(folder / "talk"), "--split", "test"]) == 0
    return folder / "talk"


def test_evaluation_use_and_other_data_read_the_same(trained, talk, tmp_path) -> None:
    table = pq.read_table(trained / "predictions-test.parquet").to_pydict()
    scored = dict(zip(table["clip_id"], table["text_logit"], strict=True))
    assert table["text"][0].startswith("good v")  # the clip's own words, not the reading
    assert len(table["text"][0].split()) == 4
    clips = sorted(Dataset.open(str(talk)).clips("test"), key=lambda clip: clip.clip_id[::-1])
    source = tmp_path / "talk.csv"
    with source.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["clip", "video", "text"])
        writer.writerows([clip.clip_id, clip.video_id, clip.text] for clip in clips)
    predict_file(trained, source, tmp_path / "out.csv", video_column="video")
    with (tmp_path / "out.csv").open(newline="") as file:
        found = {row["clip"]: float(row["prediction"]) for row in csv.DictReader(file)}
    assert found == pytest.approx(scored, abs=1e-5)
    again = score_on(trained, Dataset.open(str(talk)), "test")
    mean = np.mean([abs(value - label) for value, label in zip(table["text_logit"], table["label"], strict=True)])
    assert again.metrics["student"]["mae"] == pytest.approx(mean, abs=1e-5)
    with pytest.raises(UserError, match=r"has no column 'video_id' .* reads the 2 texts before each text of its video"):
        predict_file(trained, source, tmp_path / "other.csv")


def test_the_student_says_how_it_reads(trained, capsys) -> None:
    card = (trained / "student" / "README.md").read_text()
    separator = separator_of(AutoTokenizer.from_pretrained(trained / "student"))
    assert f"`what a wonderful film{separator}i saw it twice`" in card
    assert main(["predict", str(trained), "--text", "good v1"]) == 0
    assert "reads up to 2 utterances before a text" in capsys.readouterr().err


def test_context_changes_what_is_predicted(trained) -> None:
    from vadv_dist.inference.predict import Student

    student = Student.load(trained, device="cpu")
    assert student.context == 2
    alone, after = student.predict(["good v1", student.separator.join(["good v1", "bad v2"])])
    assert alone != after


def test_context_is_checked_before_a_run_starts(made, write_config, tmp_path) -> None:
    from vadv_dist.training.splits import Splits

    with DatasetWriter(tmp_path / "odd", features={}, label=LabelSpec(), provenance={}) as writer:
        for split in ("train", "valid"):
            for name in ("x", "y"):
                writer.write(split, Clip(f"{split}{name}", split, "good", 0.0, "odd"))
    config = load_config(write_config(uri=tmp_path / "odd"), ["--objective.kind=none", "--student.context=1"])
    with pytest.raises(UserError, match=r"student.context is 1, but the order of clips .* has no number"):
        Splits.open(config)
