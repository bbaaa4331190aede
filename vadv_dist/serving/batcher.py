"""Batches of the items (texts or vectors) of concurrent requests, bounded by tokens.

All state belongs to the event loop; the model runs in one thread. While it runs, further items gather, so that batches
grow with the load by themselves; one that arrives when the model is idle waits a few milliseconds for others.
"""

import asyncio
import contextlib
import math
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

Result = TypeVar("Result")

# This many failed batches in a row mean that the model is broken, not a text.
_BROKEN_AFTER = 3
_RATE_MEMORY = 0.8


class Reading(Protocol):
    """An item that can be computed."""

    @property
    def num_tokens(self) -> int:
        """What it counts in a batch; an item without any is refused."""

    @property
    def is_truncated(self) -> bool:
        """Whether only a part of it is computed."""


class Model(Protocol):
    """What is batched; its methods are called from one thread."""

    def warm_up(self) -> None:
        """Compute once, before the first request."""

    def read(self, items: Sequence[Any]) -> list[Any]:
        """A `Reading` of each item."""

    def predict(self, readings: Sequence[Any]) -> Sequence[Any]:
        """A result for each reading, as plain numbers or lists of them."""


@dataclass(frozen=True)
class Answer:
    """What a request is answered with.

    Attributes:
        results: of each item, in their order.
        num_tokens: tokens that were read.
        num_truncated: items that were truncated.
    """

    results: list[Any]
    num_tokens: int
    num_truncated: int


@dataclass(frozen=True)
class BatchRecord:
    """A batch that was computed: its items, their tokens, and the seconds that it took."""

    num_items: int
    num_tokens: int
    seconds: float


class QueueFullError(Exception):
    """The queue has no room for a request.

    Attributes:
        retry_after_s: when there will probably be room, in whole seconds.
    """

    def __init__(self, retry_after_s: int = 1) -> None:
        super().__init__(retry_after_s)
        self.retry_after_s = retry_after_s


class NoTokensError(Exception):
    """The tokenizer returns no tokens for a text.

    Attributes:
        place: number of the text in its request, from 0.
    """

    def __init__(self, place: int) -> None:
        super().__init__(place)
        self.place = place


@dataclass(eq=False)
class _Request:
    items: list[Any]
    answer: asyncio.Future[Answer]
    arrived: float
    readings: list[Reading] = field(default_factory=list)
    results: dict[int, Any] = field(default_factory=dict)

    def add(self, place: int, result: Any) -> None:
        self.results[place] = result
        if len(self.results) == len(self.items) and not self.answer.done():
            self.answer.set_result(
                Answer(
                    [self.results[place] for place in range(len(self.items))],
                    sum(reading.num_tokens for reading in self.readings),
                    sum(reading.is_truncated for reading in self.readings),
                )
            )

    def fail(self, error: BaseException) -> None:
        if not self.answer.done():
            self.answer.set_exception(error)


_Row = tuple[_Request, int]  # an item of a request, by its number


class Batcher:
    """Answers requests in the order of their arrival, in batches.

    Args:
        model: what computes.
        batch_tokens: bound on the tokens of a batch; a longer item forms its own.
        max_wait_s: time that an item waits for others if the model is idle.
        max_queued: items that may wait.
        observe: called after each batch.
    """

    def __init__(
        self,
        model: Model,
        *,
        batch_tokens: int,
        max_wait_s: float = 0.0,
        max_queued: int = 2048,
        observe: Callable[[BatchRecord], None] = lambda record: None,
    ) -> None:
        self._model = model
        self._batch_tokens = batch_tokens
        self._max_wait_s = max_wait_s
        self._max_queued = max_queued
        self._observe = observe
        self._arrived: list[_Request] = []
        self._rows: deque[_Row] = deque()
        self._row_tokens = 0
        self._failures = 0
        self._rate = 0.0  # items per second
        self._is_closing = False
        self._wake = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="vadv-model")
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Compute once in the thread that will compute, and start to answer; unless it has started."""
        if self._task is None:
            await asyncio.get_running_loop().run_in_executor(self._thread, self._model.warm_up)
            self._task = asyncio.get_running_loop().create_task(self._work())

    async def close(self) -> None:
        """Answer what waits, and end."""
        self._is_closing = True
        self._wake.set()
        if self._task is not None:
            await self._task
        self._thread.shutdown()

    @property
    def num_queued(self) -> int:
        """Items that wait."""
        return len(self._rows) + sum(len(request.items) for request in self._arrived)

    def problem(self) -> str | None:
        """Why nothing will be answered, or None."""
        if self._task is None or self._task.done():
            return "the batches have stopped"
        if self._failures >= _BROKEN_AFTER:
            return f"the last {self._failures} batches failed"
        return None

    def is_healthy(self) -> bool:
        """Whether there is no `problem`, which only a new process can end."""
        return self.problem() is None

    async def predict(self, items: Sequence[Any]) -> Answer:
        """Answer a request; if it is cancelled, its items are skipped.

        Args:
            items: at least one.
        Raises:
            QueueFullError: too many items wait.
            NoTokensError: a text has no tokens.
        """
        waiting = self.num_queued
        if waiting + len(items) > self._max_queued or self._is_closing:
            raise QueueFullError(min(60, max(1, math.ceil(waiting / self._rate) if self._rate else 1)))
        loop = asyncio.get_running_loop()
        request = _Request(list(items), loop.create_future(), loop.time())
        self._arrived.append(request)
        self._wake.set()
        return await request.answer

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._arrived or self._rows:
                await self._read_arrived()
                rows = self._rows
                wait_s = rows[0][0].arrived + self._max_wait_s - loop.time() if rows else 0.0
                if wait_s > 0 and self._row_tokens < self._batch_tokens and not self._is_closing:
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(wait_s):
                            await self._wake.wait()
                    self._wake.clear()
                elif taken := self._take():
                    await self._run(taken)
            if self._is_closing:
                return

    async def _read_arrived(self) -> None:
        """Read what has arrived."""
        arrived = list(self._arrived)
        requests = [request for request in arrived if not request.answer.done()]
        found = await self._read(requests) if requests else []
        del self._arrived[: len(arrived)]
        for request, readings in zip(requests, found, strict=True):
            if isinstance(readings, Exception):
                request.fail(readings)
                continue
            lengths = [reading.num_tokens for reading in readings]
            if 0 in lengths:
                request.fail(NoTokensError(lengths.index(0)))
                continue
            request.readings = readings
            self._rows.extend((request, place) for place in range(len(readings)))
            self._row_tokens += sum(lengths)

    async def _read(self, requests: list[_Request]) -> list[list[Reading] | Exception]:
        """Readings of each request, or what failed for it."""
        try:
            flat = iter(await self._in_thread(self._model.read, [item for r in requests for item in r.items]))
            return [[next(flat) for _ in request.items] for request in requests]
        except Exception as error:
            if len(requests) == 1:
                return [error]
            return [(await self._read([request]))[0] for request in requests]

    def _take(self) -> list[_Row]:
        """The oldest rows, up to the bound; those of requests that have ended are dropped."""
        rows: list[_Row] = []
        tokens = 0
        while self._rows:
            request, place = self._rows[0]
            length = request.readings[place].num_tokens
            if not request.answer.done():
                if rows and tokens + length > self._batch_tokens:
                    break
                rows.append((request, place))
                tokens += length
            self._rows.popleft()
            self._row_tokens -= length
        return rows

    async def _run(self, rows: list[_Row]) -> None:
        """Compute a batch. If it fails, each of its requests is computed alone, so that only its own can fail it."""
        began = asyncio.get_running_loop().time()
        readings = [request.readings[place] for request, place in rows]
        try:
            results = await self._in_thread(self._model.predict, readings)
        except Exception as error:
            requests = list(dict.fromkeys(request for request, _ in rows))
            if len(requests) == 1:
                self._failures += 1
                requests[0].fail(error)
                return
            for alone in requests:
                await self._run([row for row in rows if row[0] is alone])
            return
        self._failures = 0
        for (request, place), result in zip(rows, results, strict=True):
            request.add(place, result)
        seconds = asyncio.get_running_loop().time() - began
        rate = len(rows) / max(seconds, 1e-6)
        self._rate = _RATE_MEMORY * self._rate + (1 - _RATE_MEMORY) * rate if self._rate else rate
        self._observe(BatchRecord(len(rows), sum(reading.num_tokens for reading in readings), seconds))

    async def _in_thread(self, call: Callable[..., Result], argument: object) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._thread, call, argument)
