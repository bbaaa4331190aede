"""The page of a data set, and what it counts."""

from pathlib import Path

import numpy as np
import pytest

from vadv_dist.cli import main
from vadv_dist.data.profile import profile_dataset
from vadv_dist.data.schema import Clip, FeatureSpec, LabelSpec
from vadv_dist.data.shards import DatasetWriter

# split, clip, video, source, label, text
CLIPS = [
    ("train", "a_1", "a", "one", -3.0, "this is the very same text"),
    ("train", "a_2", "a", "one", -2.9, "This is the  very same TEXT"),
    ("train", "b_1", "b", "two", 3.0, "yes"),
    ("valid", "c_1", "c", "two", 0.0, "yes"),
    ("test", "a_3", "a", "one", 1.0, "this is the very same text"),
    ("test", "d_1", "d", "two", 2.0, "<script>alert(1)</script> four words at least"),
]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    label = LabelSpec()
    features = {"face": FeatureSpec((3, 2))}
    with DatasetWriter(tmp_path / "data", features=features, label=label, provenance={}, shard_rows=2) as writer:
        for split, clip, video, source, value, text in CLIPS:
            face = None if clip == "b_1" else np.zeros((3, 2), np.float16)
            writer.write(split, Clip(clip, video, text, value, source, {"face": face}))
    return tmp_path / "data"


def test_a_profile_counts_labels_repetitions_and_what_splits_share(data: Path) -> None:
    profile = profile_dataset(data)
    assert {split: group.clips for split, group in profile.splits.items()} == {"train": 3, "valid": 1, "test": 2}
    assert profile.splits["train"].labels == [2, *[0] * 10, 1]
    assert profile.splits["valid"].labels[6] == 1
    assert profile.groups["train", "one"].clips == 2
    assert profile.splits["train"].words == {6: 2, 1: 1}
    assert profile.repeated == {"train": 1, "valid": 0, "test": 0}
    assert profile.shared == {("train", "valid"): 0, ("train", "test"): 1, ("valid", "test"): 0}
    assert profile.shared_videos == {("train", "valid"): 0, ("train", "test"): 1, ("valid", "test"): 0}
    assert profile.shared_examples == ["this is the very same text (train and test)"]


def test_the_page_names_duplicates_leaks_and_missing_features(data: Path, tmp_path: Path, capsys) -> None:
    assert main(["data-info", str(data), "--html", str(tmp_path / "page.html")]) == 0
    assert f"wrote {tmp_path / 'page.html'}" in capsys.readouterr().out.replace("\n", "")
    page = (tmp_path / "page.html").read_text()
    assert "6 clips of 4 videos" in page
    assert "1 text occurs more than once in train" in page
    assert "1 clip of test has a text that train has too" in page
    assert "1 video is in both train and test" in page
    assert "1 (33%)" in page  # of train without a face
    assert "By source" in page
    assert "<script>" not in page
    assert "&lt;script&gt;alert(1)" in page


def test_the_page_of_classes_has_their_names(tmp_path: Path) -> None:
    label = LabelSpec.of_classes(3, ["sad", "calm", "happy"])
    with DatasetWriter(tmp_path / "data", features={}, label=label, provenance={}) as writer:
        for number, value in enumerate((0.0, 2.0, 2.0)):
            writer.write("train", Clip(f"v{number}_1", f"v{number}", "some words here", value, "s"))
    assert main(["data-info", str(tmp_path / "data"), "--html", str(tmp_path / "page.html"), "--json"]) == 0
    page = (tmp_path / "page.html").read_text()
    assert "Labels are 3 classes" in page
    assert "happy" in page
    assert "2 (66.7 %)" in page
    assert "calm" in page
