"""Windows of an epoch as one streaming Ray Data pipeline: what the actor of `data/windows.py` is measured against.

Tasks read groups of shards, order is kept, the pipeline runs ahead of its consumer, and blocks stay in the object store
of the node. An actor owns the pipeline, as it would have to for several ranks of a node.
"""

from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from vadv_dist.data.sources import SplitShards
from vadv_dist.data.windows import ShardIds, _Shards

NUM_READERS = 2
_GROUP_BYTES = 16 << 20

_readers: dict[int, _Shards] = {}  # of this process, by turn


class PipelineActor:
    """Owns the pipeline of an epoch and hands out each window's blocks in order."""

    def __init__(self, split: SplitShards) -> None:
        self._split = split
        self._windows: Iterator[list[Any]] = iter(())

    def begin(self, windows: list[ShardIds], turn: int) -> None:
        """Start an epoch, with readers that have verified nothing."""
        self._windows = self._run(windows, turn)

    def next(self) -> list[Any]:
        """References to the blocks of the next window."""
        return next(self._windows)

    def _run(self, windows: list[ShardIds], turn: int) -> Iterator[list[Any]]:
        import ray

        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = context.print_on_execution_start = False
        context.execution_options.preserve_order = True
        context.target_max_block_size = None  # a block per group
        groups = [self._groups(shards) for shards in windows]
        rows = [{"shards": group} for of_window in groups for group in of_window]
        dataset = ray.data.from_items(rows, override_num_blocks=len(rows)).map_batches(
            _read,
            fn_kwargs={"split": self._split, "turn": turn},
            batch_size=None,
            batch_format="pyarrow",
            num_cpus=0,
            compute=ray.data.TaskPoolStrategy(NUM_READERS),
        )
        blocks = (block for bundle in dataset.iter_internal_ref_bundles() for block in bundle.block_refs)
        for of_window in groups:
            yield [next(blocks) for _ in of_window]

    def _groups(self, shards: ShardIds) -> list[list[int]]:
        """Shards of a window that a task reads together."""
        groups: list[list[int]] = [[]]
        room = _GROUP_BYTES
        for shard in shards:
            if groups[-1] and room <= 0:
                groups.append([])
                room = _GROUP_BYTES
            groups[-1].append(shard)
            room -= int(self._split.shards.bytes[shard])
        return groups


def _read(table: pa.Table, split: SplitShards, turn: int) -> pa.Table:
    if turn not in _readers:
        _readers.clear()
        _readers[turn] = _Shards(split)
    return pa.concat_tables(list(_readers[turn].read(tuple(table.column("shards")[0].as_py()))))
