"""What holds for every request before the application sees it: its size, its time, its count, and the drain."""

import asyncio
import json
import time
from dataclasses import dataclass

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from vadv_dist.serving.metrics import ServeMetrics
from vadv_dist.serving.requests import BadRequestError

# Of a body that is too large, this many times the bound is read.
_DISCARDED = 10


@dataclass
class Draining:
    """Whether the server is about to end: it still answers, but asks clients to close their connections."""

    is_on: bool = False


class Gate:
    """An ASGI middleware.

    Args:
        application: what answers.
        metrics: where requests are counted.
        draining: see `Draining`.
        timed_path: the path whose time is counted.
        paths: paths that are counted by name.
        timeout_s: time for a request, from its head to the end of its answer.
        max_body_bytes: bound on its body.
    """

    def __init__(
        self,
        application: ASGIApp,
        *,
        metrics: ServeMetrics,
        draining: Draining,
        timed_path: str,
        paths: frozenset[str],
        timeout_s: float,
        max_body_bytes: int,
    ) -> None:
        self._application = application
        self._metrics = metrics
        self._draining = draining
        self._timed_path = timed_path
        self._paths = paths
        self._timeout_s = timeout_s
        self._max_body_bytes = max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, within its bounds."""
        if scope["type"] != "http":
            await self._application(scope, receive, send)
            return
        began = time.perf_counter()
        status = 0
        num_bytes = 0

        async def bounded_receive() -> Message:
            nonlocal num_bytes
            message = await receive()
            num_bytes += len(message.get("body", b""))
            if num_bytes <= self._max_body_bytes:
                return message
            # A client that is still sending would not read the answer.
            while message.get("more_body") and num_bytes <= _DISCARDED * self._max_body_bytes:
                message = await receive()
                num_bytes += len(message.get("body", b""))
            text = f"The body has more than {self._max_body_bytes:,} bytes. Send its content in several requests."
            raise BadRequestError(413, text)

        async def counted_send(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                if self._draining.is_on or status == 413:
                    message = {**message, "headers": [*message.get("headers", ()), (b"connection", b"close")]}
            await send(message)

        with self._metrics.in_flight.track_inprogress():
            try:
                async with asyncio.timeout(self._timeout_s):
                    await self._application(scope, bounded_receive, counted_send)
            except TimeoutError:
                if status == 0:
                    await _send_timeout(counted_send, self._timeout_s)
            finally:
                path = scope["path"] if scope["path"] in self._paths else "other"
                self._metrics.requests.labels(path, str(status)).inc()
                if path == self._timed_path:
                    self._metrics.request_seconds.observe(time.perf_counter() - began)


async def _send_timeout(send: Send, timeout_s: float) -> None:
    body = json.dumps({"error": f"The request was not answered within {timeout_s:g} s. Try again later."}).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"connection", b"close"),  # the client may still be sending
    ]
    await send({"type": "http.response.start", "status": 504, "headers": headers})
    await send({"type": "http.response.body", "body": body})
