"""The batches of one rank in order, prepared a little ahead of the training step in a separate thread."""

import math
import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch

from vadv_dist.data.collate import Collator
from vadv_dist.data.plan import EpochPlan, PlannedWindow, micro_batch_rows, rank_slice, split_rows
from vadv_dist.data.schema import Batch, IntArray, Window
from vadv_dist.data.windows import ShardIds, Windows

_AHEAD = 4
# Rows for which fields prepare at once: enough for a tokenizer's rate, few enough not to hold up the first batch.
_LOOK_AHEAD_ROWS = 256
_POLL_S = 0.2


@dataclass(frozen=True)
class StepBatches:
    """The batches of one rank for one step.

    Attributes:
        step: step of the epoch.
        micro: the rank's micro-batches.
        num_rows: real rows of the global batch.
        wait_s: seconds the training loop waited for them.
        own_counts: if a rank cannot know the batches' counts, what its rows contribute: the sums over all ranks, at
            least 1 each, are the counts.
    """

    step: int
    micro: list[Batch]
    num_rows: int
    wait_s: float
    own_counts: dict[str, int] | None = None

    def with_counts(self, total: torch.Tensor) -> "StepBatches":
        """The same batches with the sum of `own_counts` over all ranks, [number of counts]."""
        assert self.own_counts is not None, "the counts are known"
        counts = dict(zip(self.own_counts, total.clamp(min=1).unbind(), strict=True))
        return replace(self, micro=[replace(batch, counts=counts) for batch in self.micro], own_counts=None)


@dataclass(frozen=True)
class _Share:
    """What a rank takes of one step.

    Attributes:
        parts: rows of its micro-batches.
        global_rows: rows of the global batch that the rank holds, or any row if it holds none.
        size: number of rows of the global batch.
        counts: of the global batch.
        own_counts: see `StepBatches`.
        most_rows: bound on the rows of a micro-batch.
    """

    parts: list[IntArray]
    global_rows: IntArray
    size: int
    counts: dict[str, int]
    own_counts: dict[str, int] | None
    most_rows: int


@dataclass(frozen=True)
class BatchStream:
    """One rank's share of an epoch.

    Args:
        plan: order of the epoch.
        windows: supplies the windows.
        collator: turns rows into batches; if it has static shapes, all of them have the same number of rows.
        rank, world_size: determine the share.
        accumulate: micro-batches per step.
        rows_in_use: positions of the rows in use of a window of some shards (`SplitShards.rows_in_use`).
        is_complete: whether no row in use lacks a field (`SplitShards.is_complete`). If one may, and ranks read only
            parts of windows, a rank cannot know the counts of a step (`StepBatches.own_counts`).
        pin_memory: prepare batches in pinned memory, for a GPU.
        read_ahead: read the next windows while the current one is in use.
        waiting: called every 0.2 s while waiting for a step; may raise to leave the epoch.
        then: the windows that are read after those of this epoch. Called by the preparing thread.
    """

    plan: EpochPlan
    windows: Windows
    collator: Collator
    rank: int = 0
    world_size: int = 1
    accumulate: int = 1
    rows_in_use: Callable[[Window, tuple[int, ...]], IntArray] = lambda window, shards: np.arange(len(window))
    is_complete: bool = False
    pin_memory: bool = False
    read_ahead: bool = True
    waiting: Callable[[], None] = lambda: None
    then: Callable[[], Iterable[ShardIds]] = tuple

    def steps(self, first_step: int = 0) -> Iterator[StepBatches]:
        """Yield the steps of the epoch from `first_step` on; errors of the preparing thread are raised here."""
        ready: queue.Queue[StepBatches | BaseException | None] = queue.Queue(maxsize=_AHEAD)
        stop = threading.Event()

        def offer(item: StepBatches | BaseException | None) -> bool:
            while not stop.is_set():
                try:
                    ready.put(item, timeout=0.1)
                except queue.Full:
                    continue
                return True
            return False

        def prepare() -> None:
            try:
                for step in self.prepared(first_step):
                    if not offer(step):
                        return
                offer(None)
            except BaseException as error:  # passed to the training loop, which raises it
                offer(error)

        thread = threading.Thread(target=prepare, name="vadv-batches", daemon=True)
        thread.start()
        is_waiting = True
        try:
            while True:
                began = time.perf_counter()
                is_waiting = True
                item = self._next(ready)
                is_waiting = False
                if item is None:
                    return
                if isinstance(item, BaseException):
                    raise item
                yield replace(item, wait_s=time.perf_counter() - began)
        finally:
            stop.set()
            if not is_waiting:  # otherwise it is reading, which may take long
                thread.join()

    def prepared(self, first_step: int = 0) -> Iterator[StepBatches]:
        """The same steps, each prepared in this thread when it is asked for."""
        for step, window, share in self._shares(first_step):
            micro = [
                self.collator(
                    window,
                    part,
                    global_rows=share.global_rows,
                    num_rows=share.most_rows if self.collator.static_shapes else None,
                    counts=share.counts,
                )
                for part in share.parts
            ]
            del window  # drop this reference and the generator's before the next window is read
            if self.pin_memory:
                micro = [batch.pin() for batch in micro]
            yield StepBatches(step, micro, share.size, 0.0, share.own_counts)

    def _next(self, ready: "queue.Queue[StepBatches | BaseException | None]") -> StepBatches | BaseException | None:
        while True:
            try:
                return ready.get(timeout=_POLL_S)
            except queue.Empty:
                self.waiting()

    def _shares(self, first_step: int) -> Iterator[tuple[int, Window, _Share]]:
        plan = self.plan
        if first_step >= plan.num_steps:
            return
        for index in range(plan.window_of_step(first_step).index, plan.num_windows):
            planned = plan.window(index, self.rank, self.world_size)
            window = self.windows.get(planned.shards, self._after(index) if self.read_ahead else ())
            shares = self._shares_of(planned, window)
            offsets = range(max(first_step - planned.first_step, 0), planned.num_batches)
            at_once = max(1, _LOOK_AHEAD_ROWS * self.world_size // plan.batch_size)
            for begin in range(0, len(offsets), at_once):
                coming = [shares(offset) for offset in offsets[begin : begin + at_once]]
                self.collator.look_ahead(window, np.concatenate([rows for share in coming for rows in share.parts]))
                for offset, share in zip(offsets[begin:], coming, strict=False):
                    yield planned.first_step + offset, window, share
            del window, shares, coming  # before the next is read, so that there are never three in memory

    def _after(self, index: int) -> Iterator[ShardIds]:
        """The windows that are read after one of the epoch."""
        for following in range(index + 1, self.plan.num_windows):
            yield self.plan.window(following, self.rank, self.world_size).shards
        yield from self.then()

    def _shares_of(self, planned: PlannedWindow, window: Window) -> Callable[[int], _Share]:
        """What the rank takes of each batch of a window."""
        rows = self.rows_in_use(window, planned.shards)
        batches = self.plan.batches(planned, rows, window.length)

        def of_whole(offset: int) -> _Share:
            batch = batches[offset]
            parts = rank_slice(batch, self.rank, self.world_size, self.accumulate)
            most = micro_batch_rows(self.plan.batch_size, self.world_size, self.accumulate)
            return _Share(parts, batch, len(batch), self.collator.count(window, batch), None, most)

        if planned.part is None:
            return of_whole
        sizes, most_rows = self.plan.batch_sizes(planned), math.ceil(planned.part.most_rows / self.accumulate)

        def of_lanes(offset: int) -> _Share:
            mine, size = batches[offset], sizes[offset]
            own = self.collator.count(window, mine)
            is_known = self.is_complete or self.world_size == 1
            counts = dict.fromkeys(own, size) if self.is_complete else own
            parts = split_rows(mine, self.accumulate)
            return _Share(parts, mine if len(mine) else rows[:1], size, counts, None if is_known else own, most_rows)

        return of_lanes
