"""Columns of a shard: their Arrow types, what can be wrong with them, and tensors as numpy arrays."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from vadv_dist.data.schema import META_COLUMNS, Array, FeatureSpec
from vadv_dist.errors import first_line


def arrow_schema(features: Mapping[str, FeatureSpec]) -> pa.Schema:
    """Arrow schema of a shard: the metadata columns, then one fixed-shape tensor column per feature."""
    types = (*[pa.string()] * 4, pa.float32(), pa.int32())
    fields = [pa.field(name, kind, nullable=False) for name, kind in zip(META_COLUMNS, types, strict=True)]
    for name, spec in features.items():
        value_type = pa.from_numpy_dtype(np.dtype(spec.dtype))
        fields.append(pa.field(name, pa.fixed_shape_tensor(value_type, list(spec.shape))))
    return pa.schema(fields)


def column_fault(column: pa.ChunkedArray, wanted: pa.Field) -> tuple[str, int | None] | None:
    """What is wrong with a column's type, bytes or nulls, and the first affected row if known; None if nothing is.

    Args:
        column: the column.
        wanted: its field in `arrow_schema`.
    """
    if column.type != wanted.type:
        return f"has type {_type_name(column.type)}, expected {_type_name(wanted.type)}", None
    try:
        column.validate(full=True)
    except pa.ArrowException as error:  # such as a text that is not UTF-8
        return f"is damaged ({first_line(error)})", None
    if not wanted.nullable and column.null_count:
        row = int(np.flatnonzero(column.is_null().to_numpy())[0])
        return f"is null in {column.null_count:,} of {len(column):,} rows", row
    if wanted.nullable and any(chunk.storage.flatten().null_count for chunk in column.chunks):
        return "has nulls inside tensors, expected complete tensors or null ones", None
    return None


def _type_name(kind: pa.DataType) -> str:
    if isinstance(kind, pa.FixedShapeTensorType):
        return f"tensors of shape {list(kind.shape)} ({kind.value_type})"
    return str(kind)


def rows_not_finite(column: pa.ChunkedArray, spec: FeatureSpec) -> npt.NDArray[np.bool_]:
    """Whether each row has the feature, but with NaN or infinity in it, [R]."""
    return np.concatenate(
        [
            np.zeros(len(values), bool)
            if all_finite(values)
            else ~np.isfinite(values.reshape(len(values), -1)).all(axis=1) & present
            for values, present in tensor_chunks(column, spec)
        ]
        or [np.zeros(0, bool)]
    )


def all_finite(values: Array) -> bool:
    """Whether no value is NaN or infinite; float16 is checked by its bits, several times faster than by `isfinite`."""
    if values.dtype == np.float16:
        bits = values.reshape(-1).view(np.uint16)
        piece = 1 << 20
        return not any(((bits[i : i + piece] & 0x7C00) == 0x7C00).any() for i in range(0, len(bits), piece))
    return bool(np.isfinite(values).all())


def tensor_chunks(column: pa.ChunkedArray, spec: FeatureSpec) -> list[tuple[Array, npt.NDArray[np.bool_]]]:
    """Return values [rows, ...] and presence [rows] of each chunk, without copying the values.

    Args:
        column: tensors of the shape and type in `spec`.
        spec: the declared shape and type.

    Returns:
        read-only views; values of absent rows are undefined.
    """
    width, dtype = int(np.prod(spec.shape)), np.dtype(spec.dtype)
    parts = []
    for array in column.chunks:
        storage = array.storage
        values = storage.values
        # Use the buffer: Parquet gives null rows null values, and `to_numpy` cannot view an array with nulls.
        data = values.buffers()[1]
        first = (values.offset + storage.offset * width) * dtype.itemsize
        flat = np.frombuffer(data if len(storage) else b"", dtype, len(storage) * width, first if len(storage) else 0)
        present = np.asarray(storage.is_valid().to_numpy(zero_copy_only=False), bool)
        parts.append((flat.reshape(len(storage), *spec.shape), present))
    return parts
