"""Supply windows, given their shards, to one process or to all ranks of a node through Ray's object store.

At most two windows are in memory, whatever the number of ranks on a node: the one in use and the next, which is read in
the background. If ranks read only their lanes of a window, a node holds only these. If an epoch is a single window, it
is read once and kept.
"""

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from itertools import chain
from threading import Lock
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from vadv_dist.data.columns import tensor_chunks
from vadv_dist.data.schema import FeatureColumn, FeatureSpec, Window
from vadv_dist.data.sources import SplitShards
from vadv_dist.errors import VadvError

logger = logging.getLogger(__name__)

ShardIds = tuple[int, ...]
# A few reads keep a disk busy, and requests to an object store mostly wait.
_SHARDS_AT_ONCE = 4
# Tables of small shards share an object in the store, because each object costs a round trip to write and to read.
_OBJECT_BYTES = 4 << 20
# Ray restarts an actor that died and repeats the call; give up on a window that kills the actor every time.
_RESTARTS, _CALL_RETRIES, _TRIES, _PAUSE_S = 1, 1, 3, 1.0


class Windows(Protocol):
    """A supply of windows of one split."""

    def get(self, shards: ShardIds, upcoming: ShardIds | None) -> Window:
        """Return the window of some shards and start to read the `upcoming` one."""
        ...

    def prefetch(self, shards: ShardIds) -> None:
        """Start to read the window that is asked for next, and release all others."""
        ...

    def release(self) -> None:
        """Release all windows, to make room for another split's."""
        ...

    def close(self) -> None:
        """Release all resources permanently."""
        ...


def to_window(
    tables: Sequence[pa.Table],
    features: Mapping[str, FeatureSpec],
    row_id: npt.NDArray[np.int64] | None = None,
    source: list[str] | None = None,
) -> Window:
    """View checked tables as one window with the rows in the order of the tables, without copying features.

    Args:
        tables: results of `ShardReader.read`.
        features: their features.
        row_id: index of each row in its split, [R]; None counts from 0.
        source: name of each row's source, [R]; None uses the clips' own.
    """

    def strings(name: str) -> list[str]:
        return list(chain.from_iterable(table.column(name).to_pylist() for table in tables))

    def numbers(name: str) -> npt.NDArray[np.generic]:
        return np.concatenate([table.column(name).to_numpy() for table in tables])

    columns = {}
    for name, spec in features.items():
        parts = [part for table in tables for part in tensor_chunks(table.column(name), spec)]
        columns[name] = FeatureColumn(
            tuple(values for values, _ in parts), np.concatenate([present for _, present in parts])
        )
    return Window(
        clip_id=strings("clip_id"),
        video_id=strings("video_id"),
        source=strings("source") if source is None else source,
        text=strings("text"),
        label=numbers("label").astype(np.float32, copy=False),
        num_words=numbers("num_words").astype(np.int32, copy=False),
        row_id=np.arange(sum(len(table) for table in tables)) if row_id is None else row_id,
        features=columns,
    )


class _Shards:
    """Reads the shards of a window in parallel threads: hashing and decoding release the GIL."""

    def __init__(self, split: SplitShards) -> None:
        self._split = split
        self._readers = split.readers()
        self._pool = ThreadPoolExecutor(_SHARDS_AT_ONCE, thread_name_prefix="vadv-shard")

    def read(self, shards: ShardIds) -> Iterator[pa.Table]:
        """Each shard's table, in the order of `shards`."""
        return self._pool.map(lambda at: self._readers[at[0]].read(at[1]), self._split.take(shards))

    def close(self) -> None:
        """Stop the threads."""
        self._pool.shutdown(wait=True, cancel_futures=True)


def _to_window(split: SplitShards, shards: ShardIds, tables: list[pa.Table]) -> Window:
    window = to_window(tables, split.sources.features, split.row_ids(shards), split.source_names(shards))
    if split.share is not None:
        window = replace(window, row_id=split.row_ids_in_use(window, shards))
    return replace(window, text=split.readings(shards)) if split.sources.context else window


class LocalWindows:
    """Reads windows in this process, the next one in the background."""

    def __init__(self, split: SplitShards) -> None:
        self._split = split
        self._shards = _Shards(split)
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="vadv-window")
        self._held: dict[ShardIds, Future[Window]] = {}

    def get(self, shards: ShardIds, upcoming: ShardIds | None) -> Window:
        """See `Windows.get`."""
        # Release the previous window first, so that there are never three in memory.
        self._held = {ids: future for ids, future in self._held.items() if ids in (shards, upcoming)}
        if shards not in self._held:
            self._held[shards] = self._pool.submit(self._read, shards)
        window = self._held[shards].result()
        if upcoming is not None and upcoming not in self._held:
            self._held[upcoming] = self._pool.submit(self._read, upcoming)
        return window

    def prefetch(self, shards: ShardIds) -> None:
        """See `Windows.prefetch`."""
        self._held = {ids: future for ids, future in self._held.items() if ids == shards}
        if shards not in self._held:
            self._held[shards] = self._pool.submit(self._read, shards)

    def release(self) -> None:
        """See `Windows.release`."""
        self._held.clear()

    def close(self) -> None:
        """See `Windows.close`."""
        self._held.clear()
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._shards.close()

    def _read(self, shards: ShardIds) -> Window:
        return _to_window(self._split, shards, list(self._shards.read(shards)))


class RayWindows:
    """Shares windows among the ranks of a node: one actor reads them into the node's object store.

    The actor is a cache. If it dies, Ray restarts it and the window is read again without the ranks noticing. If it
    dies every time, each rank reads the window for itself.

    Args:
        split: the split to read.
        name: name of the actor; ranks on one node with the same name share their windows.
        rank: this rank.
    """

    def __init__(self, split: SplitShards, name: str, rank: int = 0) -> None:
        self._split = split.absolute()  # Ray's processes have another working directory
        self._name, self._rank = name, rank
        self._actor = self._open()
        self._current: tuple[ShardIds, Window] | None = None

    def get(self, shards: ShardIds, upcoming: ShardIds | None) -> Window:
        """See `Windows.get`."""
        if self._current is None or self._current[0] != shards:
            self._current = None
            window = _to_window(self._split, shards, self._tables(shards))
            self._current = (shards, window)
        if upcoming is not None:
            self._actor.prefetch.remote(self._rank, shards, upcoming)
        return self._current[1]

    def prefetch(self, shards: ShardIds) -> None:
        """See `Windows.prefetch`."""
        if self._current is None or self._current[0] != shards:
            self._current = None
            self._actor.prefetch.remote(self._rank, shards)

    def release(self) -> None:
        """See `Windows.release`."""
        self._current = None
        self._actor.release.remote(self._rank)

    def close(self) -> None:
        """See `Windows.close`."""
        self.release()

    def _open(self) -> Any:
        """The node's actor, created if necessary."""
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        node = ray.get_runtime_context().get_node_id()
        actor: Any = ray.remote(_NodeWindows)
        return actor.options(
            name=f"{self._name}-{self._split.name}-{node}",
            get_if_exists=True,
            num_cpus=0,  # workers may use all CPUs of a node
            max_concurrency=8,
            max_restarts=_RESTARTS,  # without limit, a call would wait for an actor that dies at each start
            max_task_retries=_CALL_RETRIES,
            scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False),
        ).remote(self._split)

    def _tables(self, shards: ShardIds) -> list[pa.Table]:
        """Get a window's tables as views into the object store, so that the ranks of a node share one copy.

        Raises:
            VadvError: raised by the reader.
        """
        import ray
        from ray.exceptions import ActorDiedError, ObjectLostError, RayActorError

        attempt = 1
        while True:
            try:
                answer = ray.get(self._actor.get.remote(self._rank, shards))
                if isinstance(answer, VadvError):
                    raise answer
                return [pa.Table.from_batches([batch]) for batch in chain.from_iterable(ray.get(answer))]
            except (RayActorError, ObjectLostError) as error:
                if attempt == _TRIES:
                    logger.warning("The actor that reads windows died %d times; this rank reads for itself.", _TRIES)
                    return self._read_here(shards)
                if isinstance(error, ActorDiedError):  # permanently, as after `ray.kill`: Ray does not restart it
                    self._actor = self._open()
                elif isinstance(error, ObjectLostError):
                    self._actor.forget.remote(shards)  # an actor that is still alive would return the same references
            time.sleep(_PAUSE_S)
            attempt += 1

    def _read_here(self, shards: ShardIds) -> list[pa.Table]:
        own = _Shards(self._split)
        try:
            return list(own.read(shards))
        finally:
            own.close()


class _NodeWindows:
    """The actor that keeps windows of a node in its object store: for each rank the current and the next one."""

    def __init__(self, split: SplitShards) -> None:
        pa.chunked_array([[0]], pa.int64()).to_numpy()  # the first call loads pandas: half a second
        self._shards = _Shards(split)
        self._pool = ThreadPoolExecutor(1)
        self._held: dict[ShardIds, Future[list[Any] | VadvError]] = {}
        self._wanted: dict[int, tuple[ShardIds, ...]] = {}
        self._lock = Lock()  # ranks call concurrently, and one may be a window ahead of another

    def get(self, rank: int, shards: ShardIds) -> list[Any] | VadvError:
        """Return references to lists of Arrow batches with a window's rows in order, or the reader's error."""
        with self._lock:
            self._want(rank, shards)
            reading = self._held[shards]
        return reading.result()

    def release(self, rank: int) -> None:
        """Release a rank's windows; a rank that is still reading one holds its own reference."""
        with self._lock:
            self._want(rank)

    def forget(self, shards: ShardIds) -> None:
        """Read a window again when it is next asked for."""
        with self._lock:
            self._held.pop(shards, None)

    def prefetch(self, rank: int, *windows: ShardIds) -> None:
        """Start to read a rank's next window; of its others, keep only those that are named."""
        with self._lock:
            self._want(rank, *windows)

    def _want(self, rank: int, *windows: ShardIds) -> None:
        """Read what a rank wants, and drop what no rank wants."""
        self._wanted[rank] = windows
        wanted = dict.fromkeys(chain.from_iterable(self._wanted.values()))
        self._held = {shards: reading for shards, reading in self._held.items() if shards in wanted}
        for shards in windows:
            if shards not in self._held:
                self._held[shards] = self._pool.submit(self._read, shards)

    def _read(self, shards: ShardIds) -> list[Any] | VadvError:
        import ray

        references, batches = [], []
        try:
            for table in self._shards.read(shards):
                batches += table.to_batches()  # Ray takes twice as long to write tables
                if sum(batch.nbytes for batch in batches) >= _OBJECT_BYTES:
                    references.append(ray.put(batches))
                    batches = []
            return [*references, ray.put(batches)] if batches else references
        except VadvError as error:  # if raised, Ray would pass on only its traceback
            return error
