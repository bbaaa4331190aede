"""Read single columns of a shard without its features: of an object store, their byte ranges alone."""

import io
from collections.abc import Sequence

import pyarrow as pa

from vadv_dist.data.dataset import Dataset, ShardInfo
from vadv_dist.data.reading import shard_content
from vadv_dist.errors import UserError
from vadv_dist.formats.parquet import BoundedParquet
from vadv_dist.storage import Location, S3Path


def read_columns(dataset: Dataset, shard: ShardInfo, names: Sequence[str]) -> pa.Table:
    """Read some columns of one shard; its hash is not verified, which would read all of it.

    Raises:
        UserError: the shard is gone or damaged, or lacks a column.
        MachineError: the object store does not answer.
    """
    path = dataset.shard_path(shard)
    try:
        if isinstance(path, S3Path):
            return _read(pa.PythonFile(_Ranges(path, shard.bytes), "r"), names, path)
        with shard_content(path, shard.bytes) as content:
            return _read(pa.BufferReader(content), names, path)
    except (pa.ArrowException, KeyError, OSError) as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise UserError(f"{path} cannot be read ({reason}). `vadv data-check` says what is wrong with it.") from None


def _read(file: pa.NativeFile, names: Sequence[str], where: Location) -> pa.Table:
    with BoundedParquet(file, where) as parquet:
        return parquet.read(names).select(list(names))


class _Ranges(io.RawIOBase):
    """An object as a file that can be sought in: each read is a request for its range."""

    def __init__(self, path: S3Path, size: int) -> None:
        self._path, self._size, self._at = path, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        return self._at

    def read(self, size: int = -1, /) -> bytes:
        end = self._size if size < 0 else min(self._at + size, self._size)
        data = self._path.read_bytes(self._at, end) if end > self._at else b""
        self._at += len(data)
        return data
