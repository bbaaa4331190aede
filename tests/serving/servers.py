"""Servers for tests and clients that load them: `vadv serve` in a process of its own."""

import contextlib
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import uvicorn

from vadv_dist.serving.app import create_app
from vadv_dist.serving.gate import Draining
from vadv_dist.serving.load import Loaded
from vadv_dist.serving.settings import ServeSettings


@dataclass(frozen=True)
class Served:
    """A running `vadv serve`."""

    process: subprocess.Popen[str] | None  # None in a thread of this process
    port: int
    greeting: str

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)

    def ask(self, path: str, body: object = None, headers: Mapping[str, str] | None = None) -> tuple[int, object, dict]:
        """Status, body (parsed if it is JSON) and headers of one request on a connection of its own."""
        connection = self.connect()
        raw = body if isinstance(body, bytes | type(None)) else json.dumps(body).encode()
        given = {"Content-Type": "application/json"} if headers is None else dict(headers)
        connection.request("GET" if raw is None else "POST", path, raw, given)
        response = connection.getresponse()
        text = response.read().decode()
        named = {name.lower(): value for name, value in response.getheaders()}
        connection.close()
        return response.status, json.loads(text) if "json" in named["content-type"] else text, named


@contextlib.contextmanager
def serving(
    folder: Path, *options: object, environment: Mapping[str, str] | None = None, greeted: bool = True
) -> Iterator[Served]:
    """`vadv serve` on a free port for the duration of the block."""
    command = [sys.executable, "-m", "vadv_dist.cli", "serve", str(folder), "--port", "0", "--threads", "1"]
    process = subprocess.Popen(
        [*command, *map(str, options)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **(environment or {})},
    )
    try:
        assert process.stdout is not None
        lines = process.stdout.readline() + process.stdout.readline()
        found = re.search(r"http://127\.0\.0\.1:(\d+)", lines)
        assert found is not None, lines
        yield Served(process, int(found[1]), lines)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        assert process.stdout is not None
        process.stdout.close()


@contextlib.contextmanager
def serving_here(loaded: Loaded, settings: ServeSettings) -> Iterator[Served]:
    """The server of a loaded student, in a thread of this process."""

    started = threading.Event()

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            started.set()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        app = create_app(partial(loaded.batcher, settings), loaded.service, settings, Draining())
        server = Server(uvicorn.Config(app, log_level="warning", access_log=False))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            assert started.wait(60)
            yield Served(None, listener.getsockname()[1], "")
        finally:
            server.should_exit = True
            thread.join(60)
            assert not thread.is_alive()


@dataclass
class Load:
    """Clients that ask one after the other until they are told to stop, or refused a connection.

    Attributes:
        answered: the text and the prediction of each answer.
        lost: what happened to requests that were sent and got no answer with 200.
    """

    served: Served
    texts: list[str]
    answered: list[tuple[str, float]] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    stop: threading.Event = field(default_factory=threading.Event)

    def _client(self, first: int) -> None:
        connection: http.client.HTTPConnection | None = None
        place = first
        while not self.stop.is_set():
            if connection is None:
                connection = self.served.connect()
                try:
                    connection.connect()
                except ConnectionRefusedError:  # nothing was sent
                    return
            text = self.texts[place % len(self.texts)]
            place += 1
            try:
                body = json.dumps({"texts": [text]})
                connection.request("POST", "/predict", body, {"Content-Type": "application/json"})
                response = connection.getresponse()
                answer = json.loads(response.read())
            except Exception as error:
                self.lost.append(f"{type(error).__name__}: {error}")
                return
            if response.status != 200:
                self.lost.append(f"{response.status}: {answer}")
                return
            self.answered.append((text, answer["predictions"][0]))
            if response.getheader("connection") == "close":
                connection.close()
                connection = None
        if connection is not None:
            connection.close()

    @contextlib.contextmanager
    def running(self, clients: int) -> Iterator["Load"]:
        threads = [threading.Thread(target=self._client, args=(number,)) for number in range(clients)]
        for thread in threads:
            thread.start()
        try:
            yield self
        finally:
            self.stop.set()
            for thread in threads:
                thread.join(60)
