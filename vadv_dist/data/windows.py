"""Supply windows by the numbers of their shards: from the local disk, or held once per node through Ray Data.

Two windows are in memory at most, whatever the number of ranks on a node: the one in use and the next, which is read
while the first is trained on. Where an epoch is one window, it is read once and kept.
"""

import os
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from threading import Lock
from typing import Any, Protocol

import pyarrow as pa

from vadv_dist.data.reading import ShardReader, to_window
from vadv_dist.data.schema import Window
from vadv_dist.data.sources import SplitShards
from vadv_dist.errors import UserError, VadvError
from vadv_dist.storage import S3Path

ShardIds = tuple[int, ...]
_SHARDS_AT_ONCE = min(4, os.cpu_count() or 1)
_OBJECTS_AT_ONCE = 4  # an object store answers late, and several at once
_MISTAKE = "vadv_mistake"  # the column in which a reading task tells of a user's mistake


class Windows(Protocol):
    """A supply of windows of one split."""

    def get(self, shards: ShardIds, upcoming: ShardIds | None) -> Window:
        """Return the window of some shards, and begin to read the `upcoming` one."""
        ...

    def release(self) -> None:
        """Let go of every window held, to make room for another split's."""
        ...

    def close(self) -> None:
        """Let go of everything held, for good."""
        ...


class LocalWindows:
    """Reads windows in this process, the next one in the background."""

    def __init__(self, split: SplitShards) -> None:
        self._split = split
        self._readers = split.readers()
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="vadv-window")
        remote = any(isinstance(dataset.root, S3Path) for dataset in split.sources.datasets)
        at_once = _OBJECTS_AT_ONCE if remote else _SHARDS_AT_ONCE
        self._shard_pool = ThreadPoolExecutor(at_once, thread_name_prefix="vadv-shard")
        self._held: dict[ShardIds, Future[Window]] = {}

    def get(self, shards: ShardIds, upcoming: ShardIds | None) -> Window:
        """See `Windows.get`."""
        # The window before this one is let go first, so that it and two more are never held together.
        self._held = {ids: future for ids, future in self._held.items() if ids in (shards, upcoming)}
        if shards not in self._held:
            self._held[shards] = self._pool.submit(self._read, shards)
        window = self._held[shards].result()
        if upcoming is not None and upcoming not in self._held:
            self._held[upcoming] = self._pool.submit(self._read, upcoming)
        return window

    def release(self) -> None:
        """See `Windows.release`."""
        self._held.clear()

    def close(self) -> None:
        """See `Windows.close`."""
        self._held.clear()
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._shard_pool.shutdown(wait=True, cancel_futures=True)

    def _read(self, shards: ShardIds) -> Window:
        # Hashing and decoding let go of Python's lock: shards are read side by side.
        tables = self._shard_pool.map(lambda at: self._readers[at[0]].read(at[1]), self._split.take(shards))
        return to_window(list(tables), self._split.sources.features, self._split.source_names(shards))


class RayWindows:
    """Shares windows among the ranks of a node: one actor has Ray Data read them into the node's object store.

    Args:
        split: what to read.
        name: names the actor; ranks on one node that give the same name share their windows.
    """

    def __init__(self, split: SplitShards, name: str) -> None:
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        node = ray.get_runtime_context().get_node_id()
        split = split.absolute()  # Ray's processes stand in other folders
        actor: Any = ray.remote(_NodeWindows)
        self._split = split
        self._actor: Any = actor.options(
            name=f"{name}-{split.name}-{node}",
            get_if_exists=True,
            num_cpus=0,
            max_concurrency=8,
            scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False),
        ).remote(split, node)
        self._current: tuple[ShardIds, Window] | None = None

    def get(self, shards: ShardIds, upcoming: ShardIds | None) -> Window:
        """See `Windows.get`."""
        import ray

        if self._current is None or self._current[0] != shards:
            self._current = None
            answer = ray.get(self._actor.get.remote(shards))
            if isinstance(answer, str):
                raise UserError(answer)
            # Arrow tables come out of the object store as views: ranks of a node share one copy.
            tables: list[pa.Table] = ray.get(answer)
            window = to_window(tables, self._split.sources.features, self._split.source_names(shards))
            self._current = (shards, window)
        if upcoming is not None:
            self._actor.prefetch.remote(shards, upcoming)
        return self._current[1]

    def release(self) -> None:
        """See `Windows.release`."""
        self._current = None
        self._actor.release.remote()

    def close(self) -> None:
        """See `Windows.close`."""
        self.release()


class _NodeWindows:
    """The actor that keeps at most two windows of a node in its object store."""

    def __init__(self, split: SplitShards, node: str) -> None:
        self._split = split
        # Tasks carry the readers along: those need no list of all shards.
        self._readers = [
            ShardReader(replace(reader.dataset, manifest=replace(reader.dataset.manifest, splits={})), reader.features)
            for reader in split.readers()
        ]
        self._node = node
        self._pool = ThreadPoolExecutor(1)
        self._held: dict[ShardIds, Future[list[Any] | str]] = {}
        self._lock = Lock()  # ranks ask at the same time, and one may be a window ahead of another

    def get(self, shards: ShardIds) -> list[Any] | str:
        """References to the Arrow tables of a window, or the message of a user's mistake."""
        with self._lock:
            if shards not in self._held:
                while len(self._held) > 1:
                    self._held.pop(next(iter(self._held)))
                self._held[shards] = self._pool.submit(self._read, shards)
            reading = self._held[shards]
        return reading.result()

    def release(self) -> None:
        """Let go of all windows; a rank that still reads one holds it itself."""
        with self._lock:
            self._held = {}

    def prefetch(self, current: ShardIds, upcoming: ShardIds) -> None:
        """Begin to read the next window; only it and the current one stay held."""
        with self._lock:
            self._held = {shards: reading for shards, reading in self._held.items() if shards in (current, upcoming)}
            if upcoming not in self._held:
                self._held[upcoming] = self._pool.submit(self._read, upcoming)

    def _read(self, shards: ShardIds) -> list[Any] | str:
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        context = ray.data.DataContext.get_current()
        context.execution_options.preserve_order = True
        context.enable_progress_bars = False
        readers, wanted = self._readers, self._split.take(shards)

        def read(row: dict[str, Any]) -> pa.Table:
            source, shard = wanted[int(row["item"][0])]
            try:
                return readers[source].read(shard)
            except VadvError as error:  # Ray would pass on no more than its trace
                return pa.table({_MISTAKE: [str(error)]})

        blocks = (
            ray.data.from_items(list(range(len(wanted))), override_num_blocks=len(wanted))
            .map_batches(
                read,
                batch_size=1,
                num_cpus=0,  # workers may take all CPUs of a node, and would wait for these for ever
                scheduling_strategy=NodeAffinitySchedulingStrategy(self._node, soft=True),
            )
            .materialize()
        )
        references = list(blocks.to_arrow_refs())
        for reference in references:
            table = ray.get(reference)
            if _MISTAKE in table.column_names:
                return str(table.column(_MISTAKE)[0])
        for source, shard in wanted:  # later tasks need not hash it again
            self._readers[source].trust(shard)
        return references
