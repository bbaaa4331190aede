"""A private PostgreSQL server for tests, in a folder of its own."""

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

USER, PASSWORD = "searcher", "correct horse/battery@staple"
_PLACES = ("/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin", "/opt/homebrew/opt/postgresql*/bin")


def binaries() -> Path | None:
    """Folder of `initdb` and `postgres`, the newest of those on this machine."""
    folders = [path for place in _PLACES for path in sorted(Path("/").glob(place[1:]), key=_version)]
    if found := shutil.which("initdb"):
        folders.append(Path(found).resolve().parent)
    return next(
        (path for path in reversed(folders) if (path / "initdb").exists() and (path / "postgres").exists()), None
    )


def _version(path: Path) -> int:
    digits = "".join(c for c in path.parent.name if c.isdigit())
    return int(digits or 0)


@dataclass
class Server:
    """One server; its data outlives `stop`."""

    binaries: Path
    folder: Path
    port: int
    as_user: dict[str, object]
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Address with user and password."""
        escaped = PASSWORD.replace(" ", "%20").replace("/", "%2F").replace("@", "%40")
        return f"postgresql+psycopg://{USER}:{escaped}@127.0.0.1:{self.port}/postgres"

    def start(self) -> None:
        """Start, and wait until it answers."""
        command = [self.binaries / "postgres", "-D", self.folder / "data", "-p", str(self.port), "-k", self.folder]
        command += ["-c", "listen_addresses=127.0.0.1", "-c", "max_connections=20"]
        with (self.folder / "server.log").open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, cwd=self.folder, **self.as_user)  # type: ignore[call-overload]
        deadline = time.monotonic() + 600
        ready = [self.binaries / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(self.port)]
        while subprocess.run(ready).returncode != 0:
            assert self.process.poll() is None, (self.folder / "server.log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.05)

    def stop(self) -> None:
        """Stop at once, whoever is connected."""
        if self.process is not None:
            self.process.send_signal(signal.SIGINT)
            self.process.wait(60)
            self.process = None


@contextlib.contextmanager
def postgres(found: Path) -> Iterator[Server]:
    """Make a database cluster, serve it on a free port, and remove it afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="vadv-postgres-"))
    as_user: dict[str, object] = {}
    if os.geteuid() == 0:  # PostgreSQL refuses to run as root
        account = next((n for n in ("postgres", "nobody") if n in {u.pw_name for u in pwd.getpwall()}), "nobody")
        owner = pwd.getpwnam(account)
        as_user = {"user": owner.pw_uid, "group": owner.pw_gid, "extra_groups": []}
        os.chown(folder, owner.pw_uid, owner.pw_gid)
    (folder / "password").write_text(PASSWORD)
    (folder / "password").chmod(0o644)
    command = [found / "initdb", "-D", folder / "data", "-U", USER, "--pwfile", folder / "password"]
    command += ["-A", "scram-sha-256", "--no-sync", "-E", "UTF8", "--locale=C"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, **as_user)  # type: ignore[call-overload]
    assert done.returncode == 0, done.stdout + done.stderr
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = Server(found, folder, port, as_user)
    try:
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)
