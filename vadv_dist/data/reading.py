"""Read shards as Arrow tables and check them against `dataset.json`."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from vadv_dist.data.columns import arrow_schema, column_fault, rows_not_finite, tensor_chunks
from vadv_dist.data.dataset import Dataset
from vadv_dist.data.schema import META_COLUMNS, Array, Clip, FeatureSpec
from vadv_dist.data.shard_list import ShardInfo
from vadv_dist.errors import UserError, first_line
from vadv_dist.formats.parquet import BoundedParquet
from vadv_dist.storage import Location, file_content, file_size, open_ranges

_AGAIN = "Recreate the data set."


@dataclass
class ShardReader:
    """Reads shards of one data set and verifies each one's SHA-256 on the first read.

    Args:
        dataset: the data set.
        features: features to decode; the others are not read.
    """

    dataset: Dataset
    features: tuple[str, ...] = ()
    _verified: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        missing = [name for name in self.features if name not in self.dataset.manifest.features]
        if missing:
            has = ", ".join(self.dataset.manifest.features) or "words only"
            switches = " and ".join(f"teacher.use_{name}: false" for name in missing)
            raise UserError(
                f"{self.dataset.root} has no {' and no '.join(missing)} features (it has: {has}), but the teacher "
                f"needs them. Set {switches}, train the student alone with objective.kind: none, or use a data set "
                "that has them."
            )

    @property
    def specs(self) -> dict[str, FeatureSpec]:
        """Declared shapes of the decoded features."""
        return {name: self.dataset.manifest.features[name] for name in self.features}

    def read(self, shard: ShardInfo) -> pa.Table:
        """Read one shard as an Arrow table that matches the manifest.

        Raises:
            UserError: the shard is missing, damaged, changed or has another schema, or its values are NaN or infinite.
        """
        path = self.dataset.shard_path(shard)
        try:
            size = file_size(path)
        except OSError:
            raise UserError(
                f"{path} is missing, but dataset.json lists it. Restore it, or recreate the data set."
            ) from None
        if size != shard.bytes:
            raise UserError(
                f"{path} has {size:,} bytes, but dataset.json declares {shard.bytes:,}: it is truncated or was "
                "changed. Restore it, or recreate the data set."
            )
        content = shard_content(path, size)
        verified = shard.path in self._verified
        if not verified:
            _require_hash(path, hashlib.sha256(content).hexdigest(), shard)
        table = _decode(path, content, shard, [*META_COLUMNS, *self.features])
        if not verified:
            check_table(table, path, shard, self.specs)
            self._verified.add(shard.path)
        return table


def clips_of(table: pa.Table, specs: Mapping[str, FeatureSpec]) -> Iterator[Clip]:
    """The rows of a shard's table as clips."""
    chunks = {name: tensor_chunks(table.column(name), spec) for name, spec in specs.items()}
    values = {
        name: [row for array, present in parts for row in _rows(array, present)] for name, parts in chunks.items()
    }
    for number, row in enumerate(table.select(["clip_id", "video_id", "text", "label", "source"]).to_pylist()):
        yield Clip(**row, features={name: rows[number] for name, rows in values.items()})


def _rows(array: Array, present: npt.NDArray[np.bool_]) -> Iterator[Array | None]:
    return (values if is_present else None for values, is_present in zip(array, present, strict=True))


def read_columns(dataset: Dataset, shard: ShardInfo, names: Sequence[str]) -> pa.Table:
    """Read some columns of one shard without verifying its hash; on an object store, only their byte ranges.

    Raises:
        UserError: the shard is missing or damaged, or lacks a column.
        MachineError: the object store does not respond.
    """
    path = dataset.shard_path(shard)
    try:
        with open_ranges(path, shard.bytes) as file, BoundedParquet(pa.PythonFile(file, "r"), path) as parquet:
            return parquet.read(names).select(list(names))
    except (pa.ArrowException, KeyError, OSError) as error:
        raise UserError(
            f"{path} cannot be read ({first_line(error)}). Run `vadv data-check` on the data set."
        ) from None


def shard_content(path: Location, size: int) -> pa.Buffer:
    """Return a shard's bytes, memory-mapped if on disk, so that the hashed bytes are the decoded ones.

    Raises:
        UserError: it is missing or cannot be read.
    """
    try:
        return pa.py_buffer(file_content(path, size))
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror or first_line(error)}). {_AGAIN}") from None


def _require_hash(path: Location, actual: str, shard: ShardInfo) -> None:
    if actual != shard.sha256:
        raise UserError(
            f"{path} has SHA-256 {actual[:12]}…, but dataset.json declares {shard.sha256[:12]}…: it was changed after "
            "the data set was written. Restore it, or recreate the data set."
        )


def _decode(path: Location, content: pa.Buffer, shard: ShardInfo, columns: list[str]) -> pa.Table:
    try:
        with BoundedParquet(pa.BufferReader(content), path) as file:
            lacking = [name for name in columns if name not in file.schema.names]
            if lacking:
                has = ", ".join(file.schema.names)
                raise UserError(f"{path} has no column {lacking[0]!r} (it has: {has}). {_AGAIN}")
            if file.num_rows != shard.rows:
                raise UserError(f"{path} has {file.num_rows} rows, but dataset.json declares {shard.rows}. {_AGAIN}")
            return file.read(columns)
    except MemoryError:  # Arrow's own is also an ArrowException and says nothing about the file
        raise
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:  # UnicodeDecodeError: column names
        raise UserError(f"{path} is not a readable Parquet file ({first_line(error)}). {_AGAIN}") from None


def check_table(table: pa.Table, path: Location, shard: ShardInfo, features: Mapping[str, FeatureSpec]) -> None:
    """Check a shard's table against its manifest.

    Raises:
        UserError: the number of rows, a type or a shape differs, or there is a null, NaN or infinity.
    """
    if table.num_rows != shard.rows:
        raise UserError(f"{path} has {table.num_rows} rows, but dataset.json declares {shard.rows}. {_AGAIN}")
    for wanted in arrow_schema(features):
        if (fault := column_fault(table.column(wanted.name), wanted)) is not None:
            advice = f", or set teacher.use_{wanted.name}: false" if wanted.name in features else ""
            raise UserError(f"{path} column {wanted.name!r} {fault[0]}. {_AGAIN[:-1]}{advice}.")
    label = table.column("label").to_numpy()
    if not np.isfinite(label).all():
        row = int(np.flatnonzero(~np.isfinite(label))[0])
        raise UserError(f"{path} row {row} has label {label[row]}, expected a number. {_AGAIN}")
    for name, spec in features.items():
        bad = np.flatnonzero(rows_not_finite(table.column(name), spec))
        if len(bad):
            raise UserError(
                f"{path} row {bad[0]} has NaN or infinity in {name}. Fix the features and recreate the data set, or "
                f"set teacher.use_{name}: false."
            )
