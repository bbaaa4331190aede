"""Supply windows, given their shards, to one process or to all ranks of a node through Ray's object store.

Windows are read in the background before they are asked for, across the end of an epoch too. A process without Ray
holds two, the one in use and the next. The object store of a node holds a few more, bounded by their bytes, whatever
the number of ranks; if ranks read only their lanes of a window, it holds only these. If an epoch is a single window, it
is read once and kept.
"""

import contextlib
import logging
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from dataclasses import replace
from itertools import chain, islice
from threading import Lock
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from vadv_dist.data.columns import tensor_chunks
from vadv_dist.data.schema import FeatureColumn, FeatureSpec, Window
from vadv_dist.data.shard_list import ShardInfo
from vadv_dist.data.sources import SplitShards
from vadv_dist.errors import VadvError

logger = logging.getLogger(__name__)

ShardIds = tuple[int, ...]
_R = TypeVar("_R")
# A few reads keep a disk busy, and requests to an object store mostly wait.
_SHARDS_AT_ONCE = 4
# Tables of small shards share an object in the store, because each object costs a round trip to write and to read.
_OBJECT_BYTES = 4 << 20
# Ray restarts an actor that died and repeats the call; give up on a window that kills the actor every time.
_RESTARTS, _CALL_RETRIES, _TRIES, _PAUSE_S = 1, 1, 3, 1.0
# Ranks that can wait for a window at the same time; others of the node wait for these.
_RANKS_AT_ONCE = 16
# How long a rank waits until the actor knows what it wants.
_TELL_S = 10.0


class Windows(Protocol):
    """A supply of windows of one split.

    Attributes:
        node: id of the node on which they are read.
    """

    node: str

    def get(self, shards: ShardIds, upcoming: Iterable[ShardIds] = ()) -> Window:
        """Return the window of some shards, and read as many of the `upcoming` ones as there is room for."""
        ...

    def keep(self, windows: Iterable[ShardIds]) -> None:
        """Release the window in use and all others, except those of `windows` for which there is room."""
        ...

    def take_bytes_read(self) -> int:
        """Bytes of shards read since the last call; what several ranks of a node share counts on one of them."""
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
        self._lock = Lock()
        self._bytes = 0

    def read(self, shards: ShardIds) -> Iterator[pa.Table]:
        """Each shard's table, in the order of `shards`."""
        return self._pool.map(lambda at: self._read(*at), self._split.take(shards))

    def read_groups(self, shards: ShardIds, use: Callable[[Sequence[pa.Table]], _R]) -> Iterator[_R]:
        """What `use` returns for the tables of neighbouring shards, in their order; called in the threads that read."""
        places = self._split.take(shards)
        total = sum(shard.bytes for _, shard in places)
        groups: list[list[tuple[int, ShardInfo]]] = []
        room = 0
        for source, shard in places:
            if room <= 0:
                groups.append([])
                room = min(_OBJECT_BYTES, total // _SHARDS_AT_ONCE)
            groups[-1].append((source, shard))
            room -= shard.bytes
        return self._pool.map(lambda group: use([self._read(*at) for at in group]), groups)

    def take_bytes_read(self) -> int:
        """Bytes of shards read since the last call."""
        with self._lock:
            found, self._bytes = self._bytes, 0
        return found

    def _read(self, source: int, shard: ShardInfo) -> pa.Table:
        table = self._readers[source].read(shard)
        with self._lock:
            self._bytes += shard.bytes
        return table

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
        self.node = socket.gethostname()
        self._split = split
        self._shards = _Shards(split)
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="vadv-window")
        self._held: dict[ShardIds, Future[Window]] = {}

    def get(self, shards: ShardIds, upcoming: Iterable[ShardIds] = ()) -> Window:
        """See `Windows.get`."""
        following = tuple(islice(upcoming, 1))
        # Release the previous window first, so that there are never three in memory.
        self._hold(shards, *(ids for ids in following if ids in self._held))
        window = self._held[shards].result()
        self._hold(shards, *following)
        return window

    def keep(self, windows: Iterable[ShardIds]) -> None:
        """See `Windows.keep`."""
        self._hold(*islice(windows, 1))

    def take_bytes_read(self) -> int:
        """See `Windows.take_bytes_read`."""
        return self._shards.take_bytes_read()

    def close(self) -> None:
        """See `Windows.close`."""
        self._held.clear()
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._shards.close()

    def _hold(self, *windows: ShardIds) -> None:
        """Read these windows, if they are not held, and release all others."""
        self._held = {ids: reading for ids, reading in self._held.items() if ids in windows}
        for ids in windows:
            if ids not in self._held:
                self._held[ids] = self._pool.submit(self._read, ids)

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
        ahead_bytes: bound on the shards that are read ahead for this rank; one window is read ahead in any case.
    """

    def __init__(self, split: SplitShards, name: str, rank: int = 0, ahead_bytes: int = 0) -> None:
        self._split = split.absolute()  # Ray's processes have another working directory
        self._name, self._rank, self._ahead_bytes, self._bytes = name, rank, ahead_bytes, 0
        self.node = _node_id()
        self._actor = self._open()
        self._current: tuple[ShardIds, Window] | None = None

    def get(self, shards: ShardIds, upcoming: Iterable[ShardIds] = ()) -> Window:
        """See `Windows.get`."""
        following = self._ahead(upcoming)
        if self._current is not None and self._current[0] == shards:
            self._want(shards, *following)
            return self._current[1]
        self._current = None
        window = _to_window(self._split, shards, self._tables(shards, following))
        self._current = (shards, window)
        return window

    def keep(self, windows: Iterable[ShardIds]) -> None:
        """See `Windows.keep`."""
        wanted = self._ahead(windows)
        if self._current is not None and self._current[0] not in wanted:
            self._current = None
        self._want(*wanted)

    def take_bytes_read(self) -> int:
        """See `Windows.take_bytes_read`; counted when a window is fetched."""
        found, self._bytes = self._bytes, 0
        return found

    def close(self) -> None:
        """See `Windows.close`."""
        self.keep(())

    def _want(self, *windows: ShardIds) -> None:
        """Tell the actor what this rank wants, and wait for it, because Ray may run an actor's calls in any order."""
        import ray
        from ray.exceptions import GetTimeoutError, RayActorError

        with contextlib.suppress(GetTimeoutError, RayActorError):  # the next `get` tells a new actor
            ray.get(self._actor.want.remote(self._rank, *windows), timeout=_TELL_S)

    def _ahead(self, windows: Iterable[ShardIds]) -> list[ShardIds]:
        """The next windows, as many as there is room for."""
        found: list[ShardIds] = []
        room = self._ahead_bytes
        for shards in windows:
            room -= int(self._split.shards.bytes[list(shards)].sum())
            if found and room < 0:
                break
            found.append(shards)
        return found

    def _open(self) -> Any:
        """The node's actor, created if necessary."""
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        actor: Any = ray.remote(_NodeWindows)
        return actor.options(
            name=f"{self._name}-{self._split.name}-{self.node}",
            get_if_exists=True,
            num_cpus=0,  # workers may use all CPUs of a node
            max_concurrency=_RANKS_AT_ONCE,
            max_restarts=_RESTARTS,  # without limit, a call would wait for an actor that dies at each start
            max_task_retries=_CALL_RETRIES,
            scheduling_strategy=NodeAffinitySchedulingStrategy(self.node, soft=False),
        ).remote(self._split)

    def _tables(self, shards: ShardIds, upcoming: Sequence[ShardIds]) -> list[pa.Table]:
        """Get a window's tables as views into the object store, so that the ranks of a node share one copy.

        Raises:
            VadvError: raised by the reader.
        """
        import ray
        from ray.exceptions import ActorDiedError, ObjectLostError, RayActorError

        attempt = 1
        while True:
            try:
                answer, num_bytes = ray.get(self._actor.get.remote(self._rank, shards, *upcoming))
                self._bytes += num_bytes
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
            tables = list(own.read(shards))
            self._bytes += own.take_bytes_read()
            return tables
        finally:
            own.close()


def _node_id() -> str:
    import ray

    node: str = ray.get_runtime_context().get_node_id()
    return node


class _NodeWindows:
    """The actor that keeps windows of a node in its object store: for each rank the one in use and the next ones."""

    def __init__(self, split: SplitShards) -> None:
        pa.chunked_array([[0]], pa.int64()).to_numpy()  # the first call loads pandas: half a second
        self._shards = _Shards(split)
        self._pool = ThreadPoolExecutor(1)
        self._held: dict[ShardIds, Future[list[Any] | VadvError]] = {}
        self._wanted: dict[int, tuple[ShardIds, ...]] = {}
        self._lock = Lock()  # ranks call concurrently, and one may be a window ahead of another

    def get(self, rank: int, shards: ShardIds, *upcoming: ShardIds) -> tuple[list[Any] | VadvError, int]:
        """Return references to lists of Arrow batches with a window's rows in order, or the reader's error.

        Also return the bytes that were read, for any rank, since the last call by any rank.
        """
        while True:
            with self._lock:
                self._want(rank, shards, *upcoming)
                reading = self._held[shards]
            with contextlib.suppress(CancelledError):  # an earlier call of the rank, which took long, came after this
                return reading.result(), self._shards.take_bytes_read()

    def want(self, rank: int, *windows: ShardIds) -> None:
        """Read these windows of a rank, and release its others; it holds its own references to the one in use."""
        with self._lock:
            self._want(rank, *windows)

    def forget(self, shards: ShardIds) -> None:
        """Read a window again when it is next asked for."""
        with self._lock:
            self._held.pop(shards, None)

    def _want(self, rank: int, *windows: ShardIds) -> None:
        self._wanted[rank] = windows
        wanted = set(chain.from_iterable(self._wanted.values()))
        for shards in self._held.keys() - wanted:
            self._held.pop(shards).cancel()  # does nothing if it is being read
        for shards in windows:
            if shards not in self._held:
                self._held[shards] = Future()
                self._pool.submit(self._read_next)

    def _read_next(self) -> None:
        """Read the window that is needed first: the one in use by a rank before the next one of another."""
        with self._lock:
            wanted = [(at, shards) for windows in self._wanted.values() for at, shards in enumerate(windows)]
            pending = [(at, s) for at, s in wanted if s in self._held and not self._is_begun(self._held[s])]
            if not pending:  # released before its turn
                return
            shards = min(pending)[1]
            reading = self._held[shards]
            reading.set_running_or_notify_cancel()
        try:
            reading.set_result(self._read(shards))
        except BaseException as error:
            reading.set_exception(error)

    @staticmethod
    def _is_begun(reading: "Future[list[Any] | VadvError]") -> bool:
        return reading.running() or reading.done()

    def _read(self, shards: ShardIds) -> list[Any] | VadvError:
        import ray

        def put(tables: Sequence[pa.Table]) -> Any:
            return ray.put([batch for table in tables for batch in table.to_batches()])  # tables take twice as long

        try:
            return list(self._shards.read_groups(shards, put))
        except VadvError as error:  # if raised, Ray would pass on only its traceback
            return error
