"""Videos that one data set trains on and another tests on are found by reading only video ids."""

import io
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from vadv_dist.data.dataset import Dataset
from vadv_dist.data.schema import Clip, FeatureSpec, LabelSpec
from vadv_dist.data.shards import DatasetWriter
from vadv_dist.data.shared_videos import check_datasets, render_check, shared_videos
from vadv_dist.errors import UserError
from vadv_dist.storage.objects import S3Path


def write(out: Path, **splits: list[str]) -> Dataset:
    """Two clips of each video, in shards of three."""
    with DatasetWriter(out, features={}, label=LabelSpec(), provenance={}, shard_rows=3) as writer:
        for split, videos in splits.items():
            for video in videos:
                for i in range(2):
                    writer.write(split, Clip(f"{video}_{i}", video, f"{out.name} words", 1.0, "test"))
    return Dataset.open(out)


@pytest.fixture
def pair(tmp_path: Path) -> dict[str, Dataset]:
    one = write(tmp_path / "one", train=["a", "b", "c"], valid=["d"], test=["e"])
    two = write(tmp_path / "two", train=["e", "x"], valid=["y"], test=["b", "c", "z"])
    return {"one": one, "two": two}


def test_videos_of_a_split_are_counted_over_all_shards(pair) -> None:
    assert sorted(pair["one"].column("train", "video_id")) == ["a", "a", "b", "b", "c", "c"]
    assert list(pair["one"].column("nowhere", "video_id")) == []


def test_shared_videos_are_found_in_both_directions(pair) -> None:
    found = {(s.seen, s.seen_split, s.judged, s.judged_split): (s.videos, s.clips) for s in shared_videos(pair)}
    assert found == {
        ("one", "train", "two", "test"): (["b", "c"], 4),
        ("two", "train", "one", "test"): (["e"], 2),
    }


def test_splits_that_are_not_needed_are_not_opened(pair) -> None:
    for shard in pair["one"].split("test"):
        pair["one"].shard_path(shard).unlink()
    assert shared_videos(pair, ("valid",)) == []
    with pytest.raises(UserError, match=r"test/00000\.parquet cannot be read"):
        shared_videos(pair, ("test",))


def test_a_column_of_an_object_is_read_without_features(s3, tmp_path, monkeypatch) -> None:
    uri = f"{s3}/across"
    features = {"visual": FeatureSpec((8, 1, 768))}
    with DatasetWriter(uri, features=features, label=LabelSpec(), provenance={}) as writer:
        for i in range(40):
            visual = {"visual": np.zeros((8, 1, 768))}
            writer.write("train", Clip(f"c{i}", f"v{i % 7}", "some words", 1.0, "test", visual))
    dataset = Dataset.open(uri)
    read = 0
    original = S3Path.read_range

    def counted(self: S3Path, start: int, end: int) -> bytes:
        nonlocal read
        data = original(self, start, end)
        read += len(data)
        return data

    monkeypatch.setattr(S3Path, "read_range", counted)
    assert list(dataset.column("train", "video_id")) == [f"v{i % 7}" for i in range(40)]
    assert 0 < read < dataset.split("train")[0].bytes / 4


def test_checking_several_data_sets_reports_each_and_their_shared_videos(pair) -> None:
    check = check_datasets([dataset.root for dataset in pair.values()])
    assert check.ok
    assert [report.rows for report in check.reports] == [10, 12]
    assert [f.level for f in check.between] == ["warning", "warning"]
    assert "2 videos of " in check.between[0].what
    assert "also in" in check.between[0].what
    assert check.between[0].what.endswith(": b, c.")
    assert set(check.to_json()) == {"reports", "between", "ok"}
    out = io.StringIO()
    render_check(check, Console(file=out, width=200))
    assert "e." in out.getvalue()


def test_checking_one_data_set_gives_its_report(pair) -> None:
    check = check_datasets([pair["one"].root])
    assert check.between == ()
    assert check.to_json() == check.reports[0].to_json()


def test_shared_videos_are_not_checked_while_a_data_set_has_errors(pair) -> None:
    shard = pair["two"].split("train")[0]
    path = pair["two"].shard_path(shard)
    path.write_bytes(path.read_bytes()[:-1])
    check = check_datasets([dataset.root for dataset in pair.values()])
    assert not check.ok
    assert check.between == ()
    out = io.StringIO()
    render_check(check, Console(file=out, width=200))
    assert "fix these errors to check what the data sets share" in out.getvalue()


def test_incompatible_labels_and_copies_are_reported(pair, tmp_path) -> None:
    with DatasetWriter(tmp_path / "wide", features={}, label=LabelSpec(-5, 5), provenance={}) as writer:
        for split in ("train", "valid", "test"):
            writer.write(split, Clip(split, f"w-{split}", "words", 4.0, "test"))
    between = check_datasets([pair["one"].root, tmp_path / "wide"]).between
    assert [f.field for f in between] == ["label"]


def test_data_sets_that_fit_together_are_not_reported(tmp_path) -> None:
    for name, classes in (("one", ("no", "yes")), ("other", ())):
        label = LabelSpec.of_classes(2, classes)
        with DatasetWriter(tmp_path / name, features={}, label=label, provenance={}) as writer:
            for split in ("train", "valid", "test"):
                writer.write(split, Clip(f"{name}-{split}", f"{name}-{split}", "words", 1.0, "test"))
    assert check_datasets([tmp_path / "one", tmp_path / "other"]).between == ()
