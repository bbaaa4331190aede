"""Every command refuses small Parquet files that expand to much data before decoding them."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.limited import run_limited
from vadv_dist.data.columns import arrow_schema
from vadv_dist.data.dataset import Dataset
from vadv_dist.data.reading import ShardReader
from vadv_dist.data.schema import Clip, FeatureSpec, LabelSpec
from vadv_dist.data.shards import DatasetWriter
from vadv_dist.errors import UserError
from vadv_dist.formats.parquet import BoundedParquet, OversizedError, read_table
from vadv_dist.inference.text_table import TextTable
from vadv_dist.storage import sha256_file

WIDE = FeatureSpec((1, 1, 1_000_000))


def columns(rows: int, text: pa.Array | None = None) -> dict[str, pa.Array]:
    names = pa.array([f"c{i}" for i in range(rows)])
    return {
        "clip_id": names,
        "video_id": names,
        "source": pa.array(["s"] * rows),
        "text": pa.array(["words"] * rows) if text is None else text,
        "label": pa.array(np.zeros(rows, np.float32)),
        "num_words": pa.array(np.ones(rows, np.int32)),
    }


def written(path: Path, table: pa.Table, **options: object) -> int:
    pq.write_table(table, path, compression="zstd", **options)
    return table.num_rows


def long_text(path: Path, **options: object) -> int:
    """One text of a megabyte, referenced by 5,000 rows."""
    text = pa.DictionaryArray.from_arrays(pa.array(np.zeros(5000, np.int32)), pa.array(["a" * 1_000_000]))
    return written(path, pa.table(columns(5000, text)), **{"store_schema": False, **options})


def equal_features(path: Path) -> int:
    """60 rows of a million zeros each, written in pieces."""
    schema = arrow_schema({"visual": WIDE})
    with pq.ParquetWriter(path, schema, compression="zstd", use_dictionary=True) as writer:
        for start in range(0, 60, 20):
            flat = pa.array(np.zeros(20_000_000, np.float16))
            storage = pa.FixedSizeListArray.from_arrays(flat, 1_000_000)
            part = {name: column.slice(start, 20) for name, column in columns(60).items()}
            visual = pa.ExtensionArray.from_storage(schema.field("visual").type, storage)
            writer.write_table(pa.Table.from_arrays([*part.values(), visual], schema=schema))
    return 60


def null_features(path: Path) -> int:
    """2,000 rows without the feature: nulls of a fixed size take full memory."""
    storage = pa.list_(pa.float16(), 1_000_000)
    with pq.ParquetWriter(path, pa.schema([*pa.table(columns(1)).schema, pa.field("visual", storage)])) as writer:
        for start in range(0, 2000, 20):
            part = {name: column.slice(start, 20) for name, column in columns(2000).items()}
            writer.write_table(pa.table({**part, "visual": pa.nulls(20, storage)}, schema=writer.schema))
    return 2000


def front_coded(path: Path) -> int:
    """300 texts of a megabyte, each encoded as equal to the previous one."""
    table = pa.table(columns(300, pa.array(["a" * 1_000_000] * 300)))
    return written(path, table, use_dictionary=False, column_encoding={"text": "DELTA_BYTE_ARRAY"})


def many_rows(path: Path) -> int:
    """A hundred million run-length encoded rows."""
    zeros = pa.array(np.zeros(1_000_000, np.float32))
    with pq.ParquetWriter(path, pa.schema({"label": pa.float32()}), compression="zstd") as writer:
        for _ in range(100):
            writer.write_table(pa.table({"label": zeros}))
    return 100_000_000


def dataset(tmp_path: Path, make: Callable[[Path], int], rows: int | None = None) -> Path:
    """A data set whose train shard is the file written by `make`, with a matching manifest."""
    root = tmp_path / "data"
    with DatasetWriter(root, features={"visual": WIDE}, label=LabelSpec(), provenance={}) as writer:
        for split in ("train", "valid", "test"):
            writer.write(split, Clip(f"{split}_1", split, "words", 0.0, "s"))
    manifest = json.loads((root / "dataset.json").read_text())
    [shard] = manifest["splits"]["train"]["shards"]
    path = root / shard["path"]
    true_rows = make(path)
    shard |= {"bytes": path.stat().st_size, "sha256": sha256_file(path), "rows": rows or true_rows}
    (root / "dataset.json").write_text(json.dumps(manifest))
    return root


def read_first_shard(root: Path, features: tuple[str, ...]) -> None:
    opened = Dataset.open(root)
    ShardReader(opened, features).read(opened.split("train")[0])


BOMBS = [long_text, equal_features, null_features, front_coded, many_rows]


@pytest.mark.parametrize("make", BOMBS, ids=lambda make: make.__name__)
def test_a_small_shard_that_expands_is_refused(tmp_path: Path, make: Callable[[Path], int]) -> None:
    root = dataset(tmp_path, make)
    path = root / "train" / "00000.parquet"
    assert path.stat().st_size < 4_000_000
    with pytest.raises(OversizedError), BoundedParquet(pa.OSFile(str(path)), path) as file:
        file.read()
    features = ("visual",) if make in (equal_features, null_features) else ()
    with pytest.raises(UserError):  # the manifest already refuses so many rows in so few bytes
        read_first_shard(root, features)


@pytest.mark.slow
@pytest.mark.parametrize("make", BOMBS, ids=lambda make: make.__name__)
def test_data_check_refuses_bombs_with_a_gigabyte_of_memory(tmp_path: Path, make: Callable[[Path], int]) -> None:
    root = dataset(tmp_path, make)
    run = run_limited("data-check", root)
    assert run.returncode == 2, run.stderr[-2000:]
    assert "Traceback" not in run.stderr
    assert "train/00000.parquet" in run.stdout + run.stderr


def test_undeclared_rows_are_not_decoded(tmp_path: Path) -> None:
    root = dataset(tmp_path, lambda path: written(path, pa.table(columns(50))), rows=2)
    reader = ShardReader(Dataset.open(root))
    with pytest.raises(UserError, match=r"00000.parquet has 50 rows, but dataset.json declares 2"):
        reader.read(reader.dataset.split("train")[0])


@pytest.mark.parametrize("options", [{}, {"use_dictionary": False}, {"compression": "snappy", "row_group_size": 7}])
@pytest.mark.parametrize("version", ["1.0", "2.0"])
def test_ordinary_files_are_read_like_arrow_does(tmp_path: Path, options: dict, version: str) -> None:
    rng = np.random.default_rng(0)
    table = pa.table(
        {
            **columns(50),
            "maybe": pa.array(["x", None] * 25),
            "category": pa.array(["x", "y"] * 25).dictionary_encode(),
            "nested": pa.array([[{"a": "x", "b": 1}]] * 50),
            "dotted.name": rng.normal(size=50),
            "binary": pa.array([b"\x00\xff"] * 50),
            "large": pa.array(["x"] * 50, pa.large_string()),
            "none": pa.nulls(50),
        }
    )
    pq.write_table(table, tmp_path / "t.parquet", data_page_version=version, **options)
    expected = pq.ParquetFile(tmp_path / "t.parquet").read()
    assert read_table(tmp_path / "t.parquet").equals(expected)
    with pa.memory_map(str(tmp_path / "t.parquet")) as source, BoundedParquet(source, "t") as file:
        assert pa.Table.from_batches(file.batches(13)).equals(expected)
        assert file.read(["label", "text"]).equals(expected.select(["label", "text"]))


@pytest.mark.parametrize("store_schema", [False, True])
def test_a_prediction_table_is_refused_before_its_texts_are_expanded(tmp_path: Path, store_schema: bool) -> None:
    long_text(tmp_path / "in.parquet", store_schema=store_schema)
    table = TextTable(tmp_path / "in.parquet", "text", ["prediction"])
    with pytest.raises(UserError, match=r"in.parquet: Decoding it would take"):
        table.check_texts()


def test_a_footer_that_is_too_long_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "footer.parquet"
    path.write_bytes(b"PAR1" + bytes(9 << 20) + (9 << 20).to_bytes(4, "little") + b"PAR1")
    with pytest.raises(OversizedError, match="Its footer has 9,437,184 bytes"):
        read_table(path)
