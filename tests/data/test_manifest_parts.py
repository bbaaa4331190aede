"""Data sets of many shards list them in parts: the same data set, verified as strictly, and published last."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from vadv_dist.data import dataset as dataset_module
from vadv_dist.data import manifest_parts
from vadv_dist.data.checks import check_dataset
from vadv_dist.data.dataset import Dataset, DatasetManifest, write_manifest
from vadv_dist.data.info import dataset_info
from vadv_dist.data.schema import Clip, FeatureSpec, LabelSpec
from vadv_dist.data.shard_list import ShardInfo, ShardList
from vadv_dist.data.shards import DatasetWriter
from vadv_dist.data.sources import Sources
from vadv_dist.data.windows import LocalWindows
from vadv_dist.errors import UserError
from vadv_dist.storage import sha256_file

NUM_SHARDS = 9


def write(out: str | Path) -> str | Path:
    """Nine train shards of two clips, of which every third clip lacks its face, and one of valid."""
    specs = {"face": FeatureSpec((2, 3))}
    with DatasetWriter(out, features=specs, label=LabelSpec(), provenance={}, shard_rows=2) as writer:
        for i in range(2 * NUM_SHARDS):
            face = None if i % 3 == 0 else np.full((2, 3), i)
            writer.write("train", Clip(f"c{i}", f"v{i}", "some words", 1.0, "s", {"face": face}))
        writer.write("valid", Clip("w", "w", "more words", 1.0, "s", {"face": np.ones((2, 3))}))
    return out


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    return write(tmp_path / "whole")


@pytest.fixture
def parted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    with monkeypatch.context() as patched:
        patched.setattr(dataset_module, "MOST_LISTED", 5)
        patched.setattr(manifest_parts, "_PART_SHARDS", 4)
        return write(tmp_path / "parted")


def test_a_data_set_in_parts_is_the_same_data_set(whole: Path, parted: Path) -> None:
    raw = json.loads((parted / "dataset.json").read_text())
    assert [part["shards"] for part in raw["splits"]["train"]["parts"]] == [4, 4, 1]
    assert "shards" not in raw["splits"]["train"]
    assert raw["schema_version"] == 2
    one, other = Dataset.open(whole), Dataset.open(parted)
    assert one.manifest.splits == other.manifest.splits
    assert list(other.split("train")) == list(one.split("train"))
    assert one.manifest.fingerprint == other.manifest.fingerprint == raw["fingerprint"]
    different = {"uri", "provenance", "schema_version"}
    assert {k: v for k, v in dataset_info(whole).items() if k not in different} == {
        k: v for k, v in dataset_info(parted).items() if k not in different
    }
    split = Sources([other], ("face",), (None,)).split("train", missing="drop")
    assert split.dropped == 6
    windows = LocalWindows(split)
    assert windows.get((0, 5, 8)).clip_id == ["c0", "c1", "c10", "c11", "c16", "c17"]
    windows.close()


def test_a_data_set_in_parts_in_an_object_store_is_the_same(whole: Path, s3: str, monkeypatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(dataset_module, "MOST_LISTED", 5)
        patched.setattr(manifest_parts, "_PART_SHARDS", 4)
        there = write(f"{s3}/parted")
    assert Dataset.open(there).manifest.splits == Dataset.open(whole).manifest.splits
    assert check_dataset(there).shards == NUM_SHARDS + 1
    assert not any("does not list" in finding.what for finding in check_dataset(there).findings)


def test_a_data_set_in_parts_passes_its_check(parted: Path) -> None:
    report = check_dataset(parted)
    assert [finding.what for finding in report.findings if finding.level == "error"] == []
    assert not any("does not list" in finding.what for finding in report.findings)
    assert report.shards == NUM_SHARDS + 1


def edit(root: Path, table: pa.Table, number: int = 1) -> None:
    """Replace a part, and its size and hash in `dataset.json`, as someone would who wants to deceive."""
    raw = json.loads((root / "dataset.json").read_text())
    part = raw["splits"]["train"]["parts"][number]
    pq.write_table(table, root / part["path"])
    part |= {"bytes": (root / part["path"]).stat().st_size, "sha256": sha256_file(root / part["path"])}
    (root / "dataset.json").write_text(json.dumps(raw))


def changed(table: pa.Table, name: str, values: list) -> pa.Table:
    if isinstance(values[0], bytes):  # written as a text that is not one
        column = pa.array(values, pa.binary()).view(pa.string())
        return table.set_column(table.column_names.index(name), table.schema.field(name), column)
    return table.set_column(
        table.column_names.index(name), table.schema.field(name), pa.array(values, table.schema.field(name).type)
    )


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("path", ["a", "b/../../c", "d", "e"], "'b/../../c' is outside the data set"),
        ("path", ["a", "b", "/etc/x", "e"], "'/etc/x' is outside the data set"),
        ("path", ["a", "b", "c\0", "e"], "is outside the data set"),
        ("path", ["a", None, "c", "e"], "column 'path' has nulls"),
        ("rows", [2, -1, 2, 2], "shard 1 has -1 rows"),
        ("rows", [2, 2, 1 << 40, 2], "shard 2 has 1,099,511,627,776 rows in"),
        ("bytes", [9, 9, 9, 1 << 60], "shard 3 has 2 rows in 1,152,921,504,606,846,976 bytes"),
        ("sha256", [b"f", b"\xff", b"f", b"f"], "Invalid UTF8"),
        ("missing", [None, '{"face": -1}', None, None], "missing is"),
        ("missing", [None, "[" * 1000, None, None], "missing is"),
    ],
)
def test_an_edited_part_is_refused(parted: Path, name: str, values: list, message: str) -> None:
    edit(parted, changed(pq.read_table(parted / "manifest/train-00001.parquet"), name, values))
    with pytest.raises(UserError, match=r"is malformed|is not a readable Parquet file") as caught:
        Dataset.open(parted)
    assert message in str(caught.value)
    assert len(str(caught.value)) < 500


def test_a_part_with_other_columns_or_rows_is_refused(parted: Path) -> None:
    table = pq.read_table(parted / "manifest/train-00001.parquet")
    edit(parted, table.slice(1))
    with pytest.raises(UserError, match=r"lists 3 shards, but dataset.json declares 4"):
        Dataset.open(parted)
    edit(parted, table.drop_columns("missing"))
    with pytest.raises(UserError, match="its columns are"):
        Dataset.open(parted)


@pytest.mark.parametrize("damage", ["missing", "truncated", "flipped", "outside"])
def test_a_damaged_part_is_refused(parted: Path, damage: str) -> None:
    part = parted / "manifest/train-00001.parquet"
    content = bytearray(part.read_bytes())
    if damage == "missing":
        part.unlink()
    elif damage == "truncated":
        part.write_bytes(content[:-1])
    elif damage == "flipped":
        content[len(content) // 2] ^= 1
        part.write_bytes(content)
    else:
        raw = json.loads((parted / "dataset.json").read_text())
        raw["splits"]["train"]["parts"][1]["path"] = "../x.parquet"
        (parted / "dataset.json").write_text(json.dumps(raw))
    with pytest.raises(UserError, match=r"missing or cannot be read|is not the file|is outside the data set"):
        Dataset.open(parted)


def test_a_data_set_killed_before_its_manifest_is_not_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = DatasetManifest({"train": [ShardInfo(f"train/{i}", 1, 9, "f" * 64) for i in range(8)]}, {}, LabelSpec())
    monkeypatch.setattr(dataset_module, "MOST_LISTED", 5)

    def cut(*arguments: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(dataset_module, "write_json", cut)
        with pytest.raises(KeyboardInterrupt):
            write_manifest(tmp_path, manifest)
    assert (tmp_path / "manifest/train-00000.parquet").is_file()
    with pytest.raises(UserError, match=r"has no dataset.json"):
        Dataset.open(tmp_path)
    write_manifest(tmp_path, manifest)
    assert Dataset.open(tmp_path).manifest.splits == manifest.splits


def test_columns_are_the_shards() -> None:
    shards = [
        ShardInfo(f"train/{i}", i, 100 + i, f"{i:064x}", {"face": 1, "face+visual": 2} if i % 2 else {})
        for i in range(6)
    ]
    columns = ShardList.of(shards)
    assert columns == shards
    assert columns[-1] == shards[5]
    assert columns[1:3] == shards[1:3]
    assert columns.lacking(["visual"]).tolist() == [shard.rows_lacking(["visual"]) for shard in shards] == [0, 2] * 3
    assert columns.lacking(["face"]).tolist() == [0, 3] * 3
    assert ShardList.of([*shards, shards[2]]).repeated_paths() == {"train/2": 2}
    assert ShardList.of([]).lacking(["face"]).tolist() == []
