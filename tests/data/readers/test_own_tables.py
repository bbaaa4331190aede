"""What people have: no ids, no splits, labels in words, percent or classes."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from csv_files import refusal, table_of, write_csv

from vadv_dist.data.dataset import Dataset
from vadv_dist.data.readers.labels import label_number
from vadv_dist.data.readers.table import ingest_table
from vadv_dist.data.sources import Sources

WORDS = ["text", "label"]


def all_rows(out: Path) -> dict[str, str]:
    """The split of each clip of a data set."""
    splits = Dataset.open(out).manifest.splits
    return {clip: split for split in splits for clip in table_of(out, split)["clip_id"]}


def pairs(out: Path, split: str) -> Iterator[tuple[str, str]]:
    """Id and video of each clip."""
    table = table_of(out, split)
    return zip(table["clip_id"], table["video_id"], strict=True)


def test_ids_are_made_from_row_numbers_and_every_row_is_a_video(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "t.csv", [["good", "1"], ["bad", "-1"]], WORDS)
    summary = ingest_table(path, tmp_path / "out", valid_fraction=0.5)
    assert all_rows(tmp_path / "out").keys() == {"row_1", "row_2"}
    options = Dataset.open(tmp_path / "out").manifest.provenance["options"]
    columns = {name: column for name, column in options.items() if name.endswith("_column")}
    assert columns == {"text_column": "text", "label_column": "label"}  # only those that exist
    text = str(summary)
    assert "there is no column of ids: ids were made from row numbers (--id-column names one)" in text
    assert "there is no column of splits: all clips were taken as train" in text


def test_ids_are_made_from_the_names_of_files(tmp_path: Path) -> None:
    rows = [["Raw/q/1.mp4", "a", "1"], ["Raw/q/2.mp4", "b", "1"], ["Raw/q/2.mp4", "c", "1"], ["r.mp4", "d", "-1"]]
    path = write_csv(tmp_path / "t.csv", rows, ["path", *WORDS])
    ingest_table(path, tmp_path / "out", valid_fraction=0.2)
    clips = {
        clip: video
        for split in ("train", "valid")
        for clip, video in zip(
            *(table_of(tmp_path / "out", split)[name] for name in ("clip_id", "video_id")), strict=True
        )
    }
    assert clips == {"Raw_q_1": "Raw_q", "Raw_q_2": "Raw_q", "Raw_q_2_2": "Raw_q", "r": "r"}


def test_ids_under_another_name_are_not_replaced(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "t.csv", [["a_1", "good", "1", "train"]], ["clip_id", *WORDS, "split"])
    assert "has no column 'id'" in refusal(path, tmp_path)
    assert "Did you mean 'clip_id'? Set the right one with --id-column" in refusal(path, tmp_path)


def test_made_ids_have_no_arrays(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "t.csv", [["good", "1", "train"]], [*WORDS, "split"])
    assert "has no column of ids, which --arrays need" in refusal(path, tmp_path, arrays=["f.npz:x=visual"])


@pytest.mark.parametrize(
    ("cell", "value"), [("2,5", 2.5), (",5", 0.5), ("-1,25", -1.25), ("85%", 0.85), ("12,5 %", 0.125), (" 3 ", 3.0)]
)
def test_numbers_as_people_write_them(cell: str, value: float) -> None:
    assert label_number(cell) == pytest.approx(value)


@pytest.mark.parametrize("cell", ["1,000,000", "1.000,5", "%", "", "five", "1 000", "nan", "1_0%"])
def test_what_is_ambiguous_or_no_number_is_none(cell: str) -> None:
    assert label_number(cell) != label_number(cell)


def test_unusual_numbers_are_counted(tmp_path: Path) -> None:
    rows = [["a", "0,5", "train"], ["b", "85%", "train"], ["c", "1", "valid"]]
    summary = ingest_table(write_csv(tmp_path / "t.csv", rows, [*WORDS, "split"]), tmp_path / "out")
    assert table_of(tmp_path / "out", "train")["label"] == pytest.approx([0.5, 0.85])
    assert "1 labels have a decimal comma, read as a point" in summary.said
    assert "1 labels are in percent, read as hundredths (85% is 0.85)" in summary.said


def test_words_stand_for_labels(tmp_path: Path) -> None:
    rows = [["a", "Positive", "train"], ["b", " negative", "train"], ["c", "0.5", "dev"]]
    path = write_csv(tmp_path / "t.csv", rows, [*WORDS, "split"])
    meaning = {"positive": "1", "negative": "-1"}
    assert "give their numbers with --label-map" in refusal(path, tmp_path)
    assert "--label-map says positive=9, expected a number in [-3, 3]" in refusal(
        path, tmp_path, label_map={"positive": "9"}, label_range=(-3, 3)
    )
    summary = ingest_table(path, tmp_path / "out", label_map=meaning)
    assert "the label range [-1, 1] is that of --label-map (--label-range sets another)" in summary.said
    assert "warning" not in str(summary)
    wide = ingest_table(path, tmp_path / "wide", label_map=meaning, label_range=(-3, 3))
    assert [(each.label["low"], each.label["high"]) for each in (summary, wide)] == [(-1, 1), (-3, 3)]
    assert table_of(tmp_path / "out", "train")["label"] == [1.0, -1.0]
    assert Dataset.open(tmp_path / "out").manifest.provenance["options"]["label_map"] == meaning
    sources = Sources([Dataset.open(tmp_path / "out")], (), (None,))
    assert sources.label_words() == {word: float(number) for word, number in meaning.items()}


def test_classes_are_kept_with_their_names(tmp_path: Path) -> None:
    rows = [["a", "Joy", "train"], ["b", "0", "train"], ["c", "sad", "valid"], ["d", "fear", "test"]]
    path = write_csv(tmp_path / "t.csv", rows, [*WORDS, "split"])
    options = {"classes": ["anger", "fear", "joy", "sadness"], "label_map": {"sad": "sadness"}}
    message = refusal(path, tmp_path, classes=options["classes"])
    assert "label is 'sad', expected one of anger, fear, joy, sadness, or a number from 0 to 3." in message
    assert "Did you mean 'sadness'?" in message
    assert "expected two or more different names" in refusal(path, tmp_path, classes=["a", "A"])
    assert "Leave out one" in refusal(path, tmp_path, classes=["a", "b"], threshold=0.5)
    ingest_table(path, tmp_path / "out", **options)  # type: ignore[arg-type]  # options vary by case
    label = Dataset.open(tmp_path / "out").manifest.label
    assert (label.kind, label.classes, label.num_classes) == ("class", ("anger", "fear", "joy", "sadness"), 4)
    assert table_of(tmp_path / "out", "train")["label"] == [2.0, 0.0]
    assert table_of(tmp_path / "out", "valid")["label"] == [3.0]


def test_words_of_the_split_column_are_mapped(tmp_path: Path) -> None:
    rows = [["a", "1", "Fold 1"], ["b", "1", "holdout"], ["c", "1", "train"]]
    path = write_csv(tmp_path / "t.csv", rows, [*WORDS, "split"])
    assert "say what it means with --split-map" in refusal(path, tmp_path)
    assert "expected one of train, valid, test" in refusal(path, tmp_path, split_map={"fold 1": "tests"})
    summary = ingest_table(path, tmp_path / "out", split_map={"fold 1": "valid", "holdout": "test"})
    assert summary.splits == {"train": 1, "valid": 1, "test": 1}


def videos(tmp_path: Path, count: int = 100) -> Path:
    """Ten clips of each video, of which every fifth is positive."""
    rows = [[f"v{v}_{c}", "words", "2" if v % 5 == 0 else "-2"] for v in range(count) for c in range(10)]
    return write_csv(tmp_path / "t.csv", rows, ["id", *WORDS])


def test_whole_videos_are_dealt_out_stratified_by_label(tmp_path: Path) -> None:
    path = videos(tmp_path)
    summary = ingest_table(path, tmp_path / "out", split="80/10/10")
    assert summary.splits == {"train": 800, "valid": 100, "test": 100}
    assert "splits were dealt out 80/10/10 by video, stratified by label, with seed 1" in summary.said
    for split, share in (("train", 160), ("valid", 20), ("test", 20)):
        assert Counter(table_of(tmp_path / "out", split)["label"])[2.0] == share
    split_of = all_rows(tmp_path / "out")
    assert all(split_of[f"v{v}_0"] == split_of[f"v{v}_9"] for v in range(100))
    options = Dataset.open(tmp_path / "out").manifest.provenance["options"]
    assert (options["split"], options["seed"]) == ("80/10/10", 1)
    ingest_table(path, tmp_path / "again", split="0.8/0.1/0.1")
    ingest_table(path, tmp_path / "other", split="80/10/10", seed=2)
    assert all_rows(tmp_path / "again") == split_of != all_rows(tmp_path / "other")


def test_every_split_gets_a_video_if_there_are_enough(tmp_path: Path) -> None:
    assert "has 2 videos, too few for --split with 3 splits" in refusal(videos(tmp_path, 2), tmp_path, split="80/10/10")
    assert ingest_table(videos(tmp_path, 3), tmp_path / "out", split="80/10/10").splits == {
        "train": 10,
        "valid": 10,
        "test": 10,
    }


@pytest.mark.parametrize("split", ["80/10", "80-10-10", "0/50/50", "50/50/50/50", "a/b/c"])
def test_shares_that_do_not_sum_to_a_whole_are_refused(tmp_path: Path, split: str) -> None:
    assert "expected percentages of train, valid and test that sum to 100" in refusal(
        videos(tmp_path, 3), tmp_path, split=split
    )


def test_a_table_without_splits_names_both_ways(tmp_path: Path) -> None:
    message = refusal(videos(tmp_path, 3), tmp_path)
    assert "has no column 'split'" in message
    assert "deal out splits with --split 80/10/10" in message
    assert "Leave out --valid-fraction" in refusal(videos(tmp_path, 3), tmp_path, split="80/20", valid_fraction=0.1)
