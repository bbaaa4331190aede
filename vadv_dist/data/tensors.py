"""View a tensor column of a shard as numpy arrays, including rows without the feature."""

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from vadv_dist.data.schema import Array, FeatureSpec


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
