"""Listen, answer, and drain on SIGTERM."""

import asyncio
import contextlib
import signal
import socket
from collections.abc import Callable, Generator
from typing import Any

import uvicorn

from vadv_dist.errors import UserError
from vadv_dist.serving.app import Predictor, create_app
from vadv_dist.serving.gate import Draining
from vadv_dist.serving.metrics import ServeMetrics
from vadv_dist.serving.service import Service
from vadv_dist.serving.settings import ServeSettings

# Longer than the idle time of common load balancers (60 s), which else send on a connection that is being closed.
_KEEP_ALIVE_S = 75
# After the server has stopped to listen, time for the first request of a connection that was accepted before.
_LAST_REQUEST_S, _TICK_S = 1.0, 0.02


class DrainingServer(uvicorn.Server):
    """Ends in three steps on SIGTERM, so that no request is lost.

    First `readyz` says 503 and every answer asks its client to close the connection, while requests are still accepted;
    after `drain_s` the server stops to listen; when the last request is answered, it ends. Ctrl-C skips the first step,
    and a second signal ends at once.

    Args:
        config: uvicorn's.
        draining: set in the first step.
        drain_s: duration of the first step.
        on_started: called when the server listens.
    """

    def __init__(
        self, config: uvicorn.Config, draining: Draining, drain_s: float, on_started: Callable[[], None]
    ) -> None:
        super().__init__(config)
        self._draining = draining
        self._drain_s = drain_s
        self._on_started = on_started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start to listen."""
        await super().startup(sockets)
        loop = asyncio.get_running_loop()
        for number, drain_s in ((signal.SIGTERM, self._drain_s), (signal.SIGINT, 0.0)):
            if signal.getsignal(number) is not signal.SIG_IGN:
                loop.add_signal_handler(number, self._stop, drain_s)
        self._on_started()

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Leave signals to `startup`: uvicorn would raise them again at its end."""
        yield

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop to listen, and end when every accepted request is answered.

        uvicorn alone would reset connections that the kernel has accepted and it has not, and close those that have not
        sent their first request yet.
        """
        loop = asyncio.get_running_loop()
        accepted: list[socket.socket] = []
        for listener in sockets or []:
            listener.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                while True:
                    accepted.append(listener.accept()[0])
            with contextlib.suppress(OSError):  # elsewhere than on Linux
                listener.shutdown(socket.SHUT_RDWR)  # the loop would close it later, and the kernel accept until then
        for server in self.servers:
            server.close()
        for connection in accepted:
            connection.setblocking(False)
            await loop.connect_accepted_socket(self._protocol, connection)
        deadline = loop.time() + _LAST_REQUEST_S
        while self.server_state.connections and not self.force_exit and loop.time() < deadline:
            await asyncio.sleep(_TICK_S)
        await super().shutdown(sockets)

    def _protocol(self) -> asyncio.Protocol:
        """What uvicorn's own `startup` gives a connection."""
        kind: Any = self.config.http_protocol_class
        protocol: asyncio.Protocol = kind(
            config=self.config,
            server_state=self.server_state,
            app_state=self.lifespan.state,
            _loop=asyncio.get_running_loop(),
        )
        return protocol

    def _stop(self, drain_s: float) -> None:
        if self._draining.is_on:
            self.should_exit = self.force_exit = True
            return
        self._draining.is_on = True
        asyncio.get_running_loop().call_later(drain_s, self._end)

    def _end(self) -> None:
        self.should_exit = True


def listen(settings: ServeSettings) -> socket.socket:
    """Open the socket, before anything is loaded.

    Raises:
        UserError: the address cannot be used.
    """
    try:
        family = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((settings.host, settings.port), family=family, backlog=2048)
    except OSError as error:
        raise UserError(
            f"serve: cannot listen at {settings.host}:{settings.port}: {error.strerror}. Choose another --port (0 "
            "chooses a free one) or --host."
        ) from None


def address(listener: socket.socket) -> str:
    """The address of a listening socket as a URL."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def run_server(
    listener: socket.socket,
    build: Callable[[ServeMetrics], Predictor],
    service: Service,
    settings: ServeSettings,
    on_started: Callable[[], None],
) -> None:
    """Answer requests until SIGTERM or Ctrl-C, and every request that was accepted.

    Args:
        listener: the listening socket.
        build, service, settings: as in `create_app`.
        on_started: called when requests are answered.
    """
    draining = Draining()
    config = uvicorn.Config(
        create_app(build, service, settings, draining),
        log_level="warning",
        access_log=False,
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=int(settings.timeout_s) + 1,
        backlog=2048,
        server_header=False,
    )
    DrainingServer(config, draining, settings.drain_s, on_started).run(sockets=[listener])
