"""An S3 server in a separate process, and a proxy in front of it that fails or stalls."""

import contextlib
import http.client
import random
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

BUCKET = "tests"
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_DEFAULT_REGION": "us-east-1"}


@contextlib.contextmanager
def s3_server(address: str = "127.0.0.1") -> Iterator[int]:
    """Yield the port of an empty server, by default on the loopback interface."""
    with socket.socket() as free:
        free.bind((address, 0))
        port = free.getsockname()[1]
    binary = Path(sys.executable).parent / "moto_server"
    process = subprocess.Popen(
        [str(binary), "-H", address, "-p", str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        deadline = time.monotonic() + 120
        while True:
            try:
                connection = http.client.HTTPConnection(address, port, timeout=5)
                connection.request("PUT", f"/{BUCKET}")
                assert connection.getresponse().status == 200
                break
            except OSError:
                assert time.monotonic() < deadline
                assert process.poll() is None
                time.sleep(0.1)
        yield port
    finally:
        process.terminate()
        process.wait(10)


class FaultyProxy(ThreadingHTTPServer):
    """Forwards requests to a server, and answers a fraction of them with 503 or cuts them off midway.

    Args:
        port: of the server behind it.
        share: of the requests that fail.
        seed: decides which.

    Attributes:
        asked: method and path of every request.
        hold: requests whose method and path hold this text are kept waiting, and dropped in the end.
        held: set when there was such a request.
        delay_s: seconds that every request takes longer.
    """

    daemon_threads = True

    def __init__(self, port: int, share: float, seed: int = 0) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.behind = port
        self.share = share
        self.random = random.Random(seed)
        self.requests = self.refused = self.cut = 0
        self.asked: list[str] = []
        self.hold: str | None = None
        self.delay_s = 0.0
        self.held = threading.Event()

    def __enter__(self) -> "FaultyProxy":
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()

    def handle_error(self, request: object, client_address: object) -> None:
        """Print nothing, because connections are cut on purpose."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FaultyProxy

    def log_message(self, *_: object) -> None:
        pass

    def _handle(self) -> None:
        server = self.server
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        server.requests += 1
        asked = f"{self.command} {self.path}"
        server.asked.append(asked)
        if server.hold is not None and server.hold in asked:
            server.held.set()
            while server.hold is not None:
                time.sleep(0.01)
            self.close_connection = True
            return
        time.sleep(server.delay_s)
        fails = server.random.random() < server.share
        if fails and server.random.random() < 0.5:
            server.refused += 1
            answer = b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"
            self.send_response(503)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(answer)
            return
        behind = http.client.HTTPConnection("127.0.0.1", server.behind, timeout=60)
        headers = {k: v for k, v in self.headers.items() if k.lower() not in ("connection", "expect")}
        behind.request(self.command, self.path, body=body, headers=headers)
        answer = behind.getresponse()
        data = answer.read()
        if fails:  # the server has handled the request, but its response is cut off
            server.cut += 1
            length = answer.getheader("Content-Length", str(len(data)))
            self.wfile.write(f"HTTP/1.1 {answer.status} OK\r\nContent-Length: {length}\r\n".encode())
            if data and server.random.random() < 0.5:
                self.wfile.write(b"\r\n" + data[: len(data) // 2])
            self.close_connection = True
            return
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in ("connection", "transfer-encoding", "content-length", "server", "date"):
                self.send_header(name, value)
        length = answer.getheader("Content-Length") if self.command == "HEAD" else str(len(data))
        self.send_header("Content-Length", length or "0")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _handle  # noqa: N815  # names of http.server
