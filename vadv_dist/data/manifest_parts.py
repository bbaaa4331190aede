"""Lists of more shards than `dataset.json` should hold: Parquet files beside it, whose hashes it lists.

A part has the columns of `ShardList`; `missing` is JSON, or null if no row lacks a feature. Parts are read whole and
verified when the data set is opened, and checked as strictly as `dataset.json`.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import TypeAdapter, ValidationError

from vadv_dist.data.schema import Count, IntArray, Text
from vadv_dist.data.shard_list import RelativePath, ShardInfo, ShardList
from vadv_dist.errors import UserError, first_line
from vadv_dist.formats.parquet import BoundedParquet
from vadv_dist.storage import Location, atomic_file, file_content, file_size, sha256_file

# Up to here a data set lists its shards in `dataset.json`, where people can read them.
MOST_LISTED = 10_000
_PART_SHARDS = 100_000
_FOLDER = "manifest"
_SCHEMA = pa.schema(
    [
        ("path", pa.string()),
        ("rows", pa.int64()),
        ("bytes", pa.int64()),
        ("sha256", pa.string()),
        ("missing", pa.string()),
    ]
)
_MOST_BYTES = 1 << 50  # as of `Count`
_OUTSIDE = r"^/|(^|/)\.\.(/|$)|\x00"
_AGAIN = "Restore the file from its origin, or recreate the data set."


@dataclass(frozen=True)
class Part:
    """One file of a split's list, as `dataset.json` declares it."""

    path: RelativePath
    shards: Count
    bytes: Count
    sha256: Text


def write_parts(root: Location, split: str, shards: Sequence[ShardInfo]) -> list[Part]:
    """Write a split's list in parts, each completely or not at all."""
    columns = ShardList.of(shards)
    texts = pa.array([json.dumps(missing) if missing else None for missing in columns.kinds], pa.string())
    table = pa.Table.from_arrays(
        [columns.paths, pa.array(columns.rows), pa.array(columns.bytes), columns.sha256, texts.take(columns.kind)],
        schema=_SCHEMA,
    )
    parts = []
    for number, first in enumerate(range(0, len(columns), _PART_SHARDS)):
        name = f"{_FOLDER}/{split}-{number:05d}.parquet"
        content = table.slice(first, _PART_SHARDS)
        with atomic_file(root / name) as partial:
            pq.write_table(content, partial, compression="zstd", use_dictionary=["missing"])
            parts.append(Part(name, len(content), partial.stat().st_size, sha256_file(partial)))
    return parts


def read_parts(root: Location, parts: Sequence[Part]) -> ShardList:
    """Read a split's list.

    Raises:
        UserError: a part is missing, damaged, changed or malformed.
    """
    tables = [_read(root / part.path, part) for part in parts]
    table = pa.concat_tables(tables).combine_chunks() if tables else _SCHEMA.empty_table()
    kinds = table.column("missing").combine_chunks().dictionary_encode()
    kind = pc.fill_null(pc.add(kinds.indices, 1), 0).to_numpy(zero_copy_only=False)
    paths, hashes = (table.column(name).combine_chunks() for name in ("path", "sha256"))
    return ShardList(
        paths=paths,
        rows=table.column("rows").to_numpy(),
        bytes=table.column("bytes").to_numpy(),
        sha256=hashes,
        kinds=({}, *(_missing(text, root) for text in kinds.dictionary.to_pylist())),
        kind=kind.astype(np.int64),
    )


def _read(path: Location, part: Part) -> pa.Table:
    try:
        size = file_size(path)
        content = pa.py_buffer(file_content(path, size))
    except OSError:
        raise UserError(f"{path} is missing or cannot be read, but dataset.json lists it. {_AGAIN}") from None
    if size != part.bytes or hashlib.sha256(content).hexdigest() != part.sha256:
        raise UserError(f"{path} is not the file that dataset.json lists: it is truncated or was changed. {_AGAIN}")
    try:
        with BoundedParquet(pa.BufferReader(content), path) as file:
            table = file.read()
            table.validate(full=True)
    except pa.ArrowException as error:
        raise UserError(f"{path} is not a readable Parquet file ({first_line(error)}). {_AGAIN}") from None
    if (problem := _problem(table, part)) is not None:
        raise UserError(f"{path} is malformed: {problem}. {_AGAIN}")
    return table


def _problem(table: pa.Table, part: Part) -> str | None:
    """What is wrong with a part, or None."""
    if table.schema.remove_metadata() != _SCHEMA:
        return f"its columns are {', '.join(map(str, table.schema.remove_metadata()))}"
    if len(table) != part.shards:
        return f"it lists {len(table):,} shards, but dataset.json declares {part.shards:,}"
    for name in ("path", "rows", "bytes", "sha256"):
        if table.column(name).null_count:
            return f"column {name!r} has nulls"
    rows, size = (table.column(name).to_numpy() for name in ("rows", "bytes"))
    if (message := _sizes_problem(rows, size)) is not None:
        return message
    outside = pc.match_substring_regex(table.column("path"), _OUTSIDE)
    if pc.any(outside).as_py():
        return f"{table.column('path').filter(outside)[0].as_py()!r:.200} is outside the data set"
    return None


def _sizes_problem(rows: IntArray, size: IntArray) -> str | None:
    bad = np.flatnonzero((rows < 0) | (rows > size) | (size > _MOST_BYTES))
    return f"shard {bad[0]} has {rows[bad[0]]:,} rows in {size[bad[0]]:,} bytes" if len(bad) else None


def _missing(text: str, root: Location) -> dict[str, int]:
    try:
        return TypeAdapter(dict[str, Count]).validate_json(text)
    except ValidationError:
        raise UserError(f"{root / _FOLDER} is malformed: missing is {text!r:.200}. {_AGAIN}") from None
