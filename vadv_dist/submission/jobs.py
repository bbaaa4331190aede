"""`vadv jobs`: the jobs of a cluster."""

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from vadv_dist.errors import UserError, did_you_mean
from vadv_dist.submission.address import require_token, resolve_address
from vadv_dist.submission.client import answered, connect
from vadv_dist.submission.follow import ENDED, follow

_OLD_S = 86400.0
_TELL_S, _POLL_S, _STOP_S = 10.0, 0.5, 120.0


@dataclass(frozen=True)
class ClusterJob:
    """A job of a cluster.

    Attributes:
        id: what Ray calls its submission id.
        status: `PENDING`, `RUNNING`, `SUCCEEDED`, `FAILED` or `STOPPED`.
        started, ended: seconds since 1970; None if that has not happened.
        command: its entry point.
        message: what Ray says of its state.
    """

    id: str
    status: str
    started: float | None
    ended: float | None
    command: str
    message: str

    def to_json(self) -> dict[str, Any]:
        """Plain containers."""
        return asdict(self)


def list_jobs(client: Any, *, ended: bool = False) -> list[ClusterJob]:
    """Jobs, the newest first; without `ended`, those that ended more than a day ago are left out.

    Raises:
        MachineError: the job server failed.
    """
    jobs = [
        ClusterJob(
            id=job.submission_id,
            status=str(job.status.value),
            started=None if not job.start_time else job.start_time / 1000,
            ended=None if not job.end_time else job.end_time / 1000,
            command=job.entrypoint,
            message=" ".join(str(job.message or "").split()),
        )
        for job in answered(client.list_jobs)
        if job.submission_id
    ]
    oldest = time.time() - _OLD_S
    kept = [job for job in jobs if ended or job.ended is None or job.ended >= oldest]
    return sorted(kept, key=lambda job: -(job.started or time.time()))


def connect_to(address: str) -> Any:
    """A client of the job server at an address.

    Raises:
        UserError: it is a remote cluster and there is no token, or it refuses the token.
        MachineError: no job server answers.
    """
    require_token(address)
    return connect(address)


def follow_job(address: str, name: str) -> int:
    """Print the output of a job, named by the beginning of its id, until it ends; return its exit code.

    Raises:
        UserError: see `resolve_address`, `connect_to` and `find_job`.
        MachineError: the job server failed.
    """
    client = connect_to(resolve_address(address))
    return follow(
        client,
        find_job(client, name),
        lambda text: print(f"vadv: {text}", file=sys.stderr, flush=True),
        out=sys.stdout,
    )


def find_job(client: Any, name: str) -> str:
    """The id of the job that has this id, or of the only one whose id begins with it.

    Raises:
        UserError: there is none, or several.
        MachineError: the job server failed.
    """
    ids = [job.id for job in list_jobs(client, ended=True)]
    found = [name] if name in ids else [each for each in ids if each.startswith(name)]
    if len(found) == 1:
        return found[0]
    if found:
        raise UserError(f"{len(found)} jobs begin with {name!r}: {', '.join(found)}. Give more of the id.")
    raise UserError(f"There is no job {name!r}.{did_you_mean(name, ids)} `vadv jobs list --all` shows all.")


def stop_job(client: Any, job: str, say: Callable[[str], None]) -> str:
    """Ask a job to stop, wait until it has ended, and say how.

    Raises:
        MachineError: the job server failed.
    """
    status = str(answered(lambda: client.get_job_status(job)).value)
    if status in ENDED:
        return f"{job} has ended before: {status}"
    answered(lambda: client.stop_job(job))
    began = last = time.monotonic()
    while (status := str(answered(lambda: client.get_job_status(job)).value)) not in ENDED:
        now = time.monotonic()
        if now - began > _STOP_S:
            return f"{job} was asked to stop, and is still {status}"
        if now - last >= _TELL_S:
            last = now
            say(f"{job} was asked to stop and is still {status}, after {now - began:.0f} s")
        time.sleep(_POLL_S)
    return f"{job} has ended: {status}. The command that submitted it resumes it."


def job_lines(jobs: Sequence[ClusterJob]) -> list[str]:
    """Jobs in lines, which may be wider than a terminal: ids have to be whole, and commands as typed."""
    rows = [("job", "state", "started (UTC)", "minutes", "command")]
    for job in jobs:
        start = "" if job.started is None else f"{datetime.fromtimestamp(job.started, UTC):%Y-%m-%d %H:%M}"
        minutes = "" if job.started is None else f"{((job.ended or time.time()) - job.started) / 60:.0f}"
        typed = job.command.partition(" -m vadv_dist.cli ")[2]
        rows.append((job.id, job.status, start, minutes, f"vadv {typed}" if typed else job.command))
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    return ["  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[4]]) for row in rows]
