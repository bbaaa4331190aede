"""Read single columns of a shard without its features: of an object store, their byte ranges alone."""

from collections.abc import Sequence

import pyarrow as pa

from vadv_dist.data.dataset import Dataset, ShardInfo
from vadv_dist.errors import UserError
from vadv_dist.formats.parquet import BoundedParquet
from vadv_dist.storage import open_ranges


def read_columns(dataset: Dataset, shard: ShardInfo, names: Sequence[str]) -> pa.Table:
    """Read some columns of one shard; its hash is not verified, which would read all of it.

    Raises:
        UserError: the shard is gone or damaged, or lacks a column.
        MachineError: the object store does not answer.
    """
    path = dataset.shard_path(shard)
    try:
        with (
            open_ranges(path, shard.bytes) as file,
            BoundedParquet(pa.PythonFile(file, "r"), path) as parquet,
        ):
            return parquet.read(names).select(list(names))
    except (pa.ArrowException, KeyError, OSError) as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise UserError(f"{path} cannot be read ({reason}). `vadv data-check` says what is wrong with it.") from None
