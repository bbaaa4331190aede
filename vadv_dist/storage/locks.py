"""Keep two processes from writing to one folder: a file lock on a disk, a lease in an object store.

The lease is built on conditional writes (If-Match, If-None-Match), because neither S3 nor s3fs has locks.
"""

import contextlib
import fcntl
import json
import logging
import os
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from vadv_dist.errors import MachineError, TakenError
from vadv_dist.storage.object_client import ConflictError
from vadv_dist.storage.objects import Location, S3Path
from vadv_dist.storage.writes import disk_faults

logger = logging.getLogger(__name__)

# A holder renews its lease several times before others would take it over. Its age is measured by the store's clock, so
# the machines' clocks need not agree.
RENEW_S, LEASE_S = 5.0, 25.0


def exclusive(root: Location, name: str, *, taken: str, wait_s: float = 0.0) -> AbstractContextManager[None]:
    """Hold the lock `name` of a folder; it ends with the process, even if that is killed.

    Args:
        root: the folder; created if on a disk.
        name: name of the file or object.
        taken: error message if another process holds it.
        wait_s: seconds to wait for another holder to release it.
    Raises:
        TakenError: another process holds it.
        MachineError: the storage does not support locks.
    """
    return _lease(root / name, taken, wait_s) if isinstance(root, S3Path) else _file_lock(root, name, taken, wait_s)


@contextmanager
def _file_lock(root: Path, name: str, taken: str, wait_s: float) -> Iterator[None]:
    with disk_faults(root, "nothing was started."):
        root.mkdir(parents=True, exist_ok=True)
        file = (root / name).open("w")
    deadline = time.monotonic() + wait_s
    with file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise TakenError(taken) from None
                time.sleep(0.2)
            except OSError as error:
                raise MachineError(
                    f"{file.name} cannot be locked ({error.strerror}), so a second process could write to the same "
                    "folder. Nothing was started. Use storage that supports file locks."
                ) from error
        yield


@contextmanager
def _lease(place: S3Path, taken: str, wait_s: float) -> Iterator[None]:
    """Hold a lease: an object that only its holder replaces, every few seconds."""
    owner = f"{socket.gethostname()} {os.getpid()} {secrets.token_hex(8)}"
    etag = _take(place, owner, taken, wait_s)
    ended = threading.Event()

    def renew() -> None:
        nonlocal etag
        count, is_failing = 0, False
        while not ended.wait(RENEW_S):
            count += 1
            try:
                etag, is_failing = _put(place, owner, count, etag), False
            except (ConflictError, FileNotFoundError):
                if ended.is_set():
                    return  # the work is done; `_release` says what happened
                logger.error(
                    "%s was removed or taken over by another process; this process must not write any more.", place
                )
                os._exit(MachineError.exit_code)
            except Exception as error:  # whatever it is: nobody else renews the lease
                if not is_failing:
                    logger.warning("the lease %s could not be renewed: %s; trying again …", place, error)
                is_failing = True

    thread = threading.Thread(target=renew, name="vadv-lease", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        _release(place, owner)


def _release(place: S3Path, owner: str) -> None:
    """Remove a lease if it is still this owner's; whatever fails, the work that it protected has its own result."""
    try:
        if _owned(place, owner) is not None:
            place.unlink()
        else:
            logger.warning("%s was removed or taken over by another process before this one had ended.", place)
    except Exception as error:
        logger.warning("the lease %s could not be removed, so it expires after %.0f s: %s", place, LEASE_S, error)


def _owned(place: S3Path, owner: str) -> str | None:
    """The ETag of a lease if it is this owner's."""
    with contextlib.suppress(FileNotFoundError, ValueError):
        opened = place.open()
        held = json.loads(b"".join(opened.parts))
        if isinstance(held, dict) and held.get("owner") == owner:
            return opened.etag
    return None


def _take(place: S3Path, owner: str, taken: str, wait_s: float) -> str:
    deadline = time.monotonic() + wait_s
    while True:
        seen = place.etag()
        try:
            if seen is None or _expires(place, seen):
                return _put(place, owner, 0, seen)
        except (ConflictError, FileNotFoundError):  # taken over or released in the meantime
            pass
        if time.monotonic() >= deadline and place.etag() is not None:
            raise TakenError(taken)


def _expires(place: S3Path, etag: str) -> bool:
    """Wait until a lease is renewed or released, which shows that its holder is alive, or expires.

    If its holder was a process of this machine that has ended, there is nothing to wait for.
    """
    with contextlib.suppress(FileNotFoundError, ValueError):
        held = json.loads(place.read_bytes())
        if isinstance(held, dict) and _has_ended(held.get("process")):
            logger.warning("the process that held %s has ended: taking it over.", place)
            return place.etag() == etag
    until = time.monotonic() + LEASE_S - place.age_s()
    logger.warning("%s is held; waiting to see whether its holder is alive …", place)
    while place.etag() == etag:
        if time.monotonic() >= until:
            logger.warning("%s was not renewed for %.0f s, so its holder has ended: taking it over.", place, LEASE_S)
            return True
        time.sleep(min(1.0, RENEW_S / 2))
    return False


def _put(place: S3Path, owner: str, count: int, etag: str | None) -> str:
    """Write the lease if the object still has this ETag, or with None if there is no object; return the new ETag.

    Raises:
        ConflictError, FileNotFoundError: another process has taken it over, or has also released it.
    """
    process = _identity("self")
    body = json.dumps({"owner": owner, "renewals": count, "time": time.time(), "process": process}).encode()
    try:
        return place.write_bytes(body, if_etag=etag, if_absent=etag is None)
    except ConflictError:
        # If the answer to a successful write was lost, the lease is already this owner's.
        written = _owned(place, owner)
        if written is None:
            raise
        return written


def _identity(process: int | str) -> list[str | int] | None:
    """What identifies a process: its kernel's boot, its process namespace, its id and its start; None if unknown.

    A host's name does not: containers may share it.

    Raises:
        FileNotFoundError: on Linux, there is no such process, or only its exit code is left.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        namespace = os.readlink("/proc/self/ns/pid")
    except OSError:  # not Linux
        return None
    # The second field is the program's name in parentheses, which may itself have some.
    pid, _, rest = Path(f"/proc/{process}/stat").read_text().partition(" ")
    fields = rest.rpartition(") ")[2].split()
    if fields[0] in "ZX":
        raise FileNotFoundError(f"process {pid} has ended")
    return [boot, namespace, int(pid), fields[19]]


def _has_ended(holder: object) -> bool:
    """Whether the process with this `_identity` was one of this machine, and is gone."""
    own = _identity("self")
    if own is None or not isinstance(holder, list) or len(holder) != 4 or holder[:2] != own[:2]:
        return False
    if not isinstance(holder[2], int) or holder[2] <= 0:
        return False
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return _identity(holder[2]) != holder  # another one may have its id now
    try:
        os.kill(holder[2], 0)
    except ProcessLookupError:
        return True
    except PermissionError:  # another user's, which this system hides
        return False
    return True
