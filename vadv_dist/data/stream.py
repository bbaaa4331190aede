"""The batches of one rank in order, prepared a little ahead of the training step in a separate thread."""

import queue
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from vadv_dist.data.collate import Collator
from vadv_dist.data.plan import EpochPlan, micro_batch_rows, rank_slice, text_lengths
from vadv_dist.data.schema import Batch, IntArray, Window
from vadv_dist.data.windows import Windows

_AHEAD = 4
_POLL_S = 0.2


@dataclass(frozen=True)
class StepBatches:
    """The batches of one rank for one step.

    Attributes:
        step: step of the epoch.
        micro: the rank's micro-batches.
        num_rows: real rows of the global batch.
        wait_s: seconds the training loop waited for them.
    """

    step: int
    micro: list[Batch]
    num_rows: int
    wait_s: float


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
        pin_memory: prepare batches in pinned memory, for a GPU.
        read_ahead: read the next window while the current one is in use.
        waiting: called every 0.2 s while waiting for a step; may raise to leave the epoch.
    """

    plan: EpochPlan
    windows: Windows
    collator: Collator
    rank: int = 0
    world_size: int = 1
    accumulate: int = 1
    rows_in_use: Callable[[Window, tuple[int, ...]], IntArray] = lambda window, shards: np.arange(len(window))
    pin_memory: bool = False
    read_ahead: bool = True
    waiting: Callable[[], None] = lambda: None

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

        full = micro_batch_rows(self.plan.batch_size, self.world_size, self.accumulate)
        num_rows = full if self.collator.static_shapes else None

        def prepare() -> None:
            try:
                for step, window, rows in self._global_batches(first_step):
                    micro = [
                        self.collator(window, part, global_rows=rows, num_rows=num_rows)
                        for part in rank_slice(rows, self.rank, self.world_size, self.accumulate)
                    ]
                    del window  # drop this reference and the generator's before the next window is read
                    if self.pin_memory:
                        micro = [batch.pin() for batch in micro]
                    if not offer(StepBatches(step, micro, len(rows), 0.0)):
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
                yield StepBatches(item.step, item.micro, item.num_rows, time.perf_counter() - began)
        finally:
            stop.set()
            if not is_waiting:  # otherwise it is reading, which may take long
                thread.join()

    def _next(self, ready: "queue.Queue[StepBatches | BaseException | None]") -> StepBatches | BaseException | None:
        while True:
            try:
                return ready.get(timeout=_POLL_S)
            except queue.Empty:
                self.waiting()

    def _global_batches(self, first_step: int) -> Iterator[tuple[int, Window, IntArray]]:
        plan = self.plan
        if first_step >= plan.num_steps:
            return
        for index in range(plan.window_of_step(first_step).index, plan.num_windows):
            planned = plan.window(index)
            more = self.read_ahead and index + 1 < plan.num_windows
            window = self.windows.get(planned.shards, plan.window(index + 1).shards if more else None)
            batches = plan.batches(planned, self.rows_in_use(window, planned.shards), text_lengths(window.text))
            for offset in range(max(first_step - planned.first_step, 0), planned.num_batches):
                yield planned.first_step + offset, window, batches[offset]
            del window  # before the next is read, so that there are never three in memory
