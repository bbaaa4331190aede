"""Follow a job's output through dropped connections, and report how it ended."""

import asyncio
import sys
import time
from collections.abc import Callable
from typing import Any, TextIO

from vadv_dist.errors import MachineError, PreemptedError, UserError
from vadv_dist.runtime.signals import STOPPED, TERMINATED, is_termination

# Exit codes of a followed job: 0 done, 1 system failure, 2 user error, 75 (EX_TEMPFAIL) lost its node and should be
# submitted again, 130 stopped.
PREEMPTED = PreemptedError.exit_code
ENDED = ("SUCCEEDED", "FAILED", "STOPPED")
_RETRY_S, _GIVE_UP_S = 2.0, 300.0
_POLL_S, _TELL_S = 0.5, 10.0
# Ray's error types of a job whose command did not fail by itself (`JobErrorType`).
_LOST_NODE = (
    "JOB_SUPERVISOR_ACTOR_DIED",
    "JOB_SUPERVISOR_ACTOR_START_FAILURE",
    "JOB_SUPERVISOR_ACTOR_START_TIMEOUT",
    "JOB_SUPERVISOR_ACTOR_UNKNOWN_FAILURE",
    "JOB_SUPERVISOR_ACTOR_UNSCHEDULABLE",
)


def follow(client: Any, submission_id: str, say: Callable[[str], None], out: TextIO) -> int:
    """Print a job's output until it ends; Ctrl-C asks whether to stop it.

    Returns:
        its exit code.
    Raises:
        MachineError: the job server has not answered for minutes.
    """
    try:
        _wait_for_start(client, submission_id, say)
        _print_output(client, submission_id, say, out)
    except KeyboardInterrupt as error:
        if is_termination(error):
            say(f"{submission_id} keeps running; run the same command to follow it again")
            raise
        return _interrupted(client, submission_id, say)
    return exit_code(client.get_job_info(submission_id), say)


def exit_code(job: Any, say: Callable[[str], None]) -> int:
    """The exit code for the end of a job."""
    status = str(job.status.value)
    if status == "SUCCEEDED":
        return 0
    if status == "STOPPED":
        say("the job was stopped")
        return STOPPED
    message = " ".join(str(job.message or "").split())
    code = job.driver_exit_code
    if code == UserError.exit_code:
        return UserError.exit_code
    if code in (TERMINATED, PREEMPTED):
        by = "by SIGTERM" if code == TERMINATED else "because its node leaves the cluster"
        say(f"the job was asked to stop {by}; run the same command to resume from its last checkpoint")
        return PREEMPTED
    if code is None or code < 0:
        if job.error_type in _LOST_NODE:
            say(f"the job lost its node ({message[:200]}); run the same command to resume from the last checkpoint")
            return PREEMPTED
        say(f"the job failed: {message[:300]}")
    return MachineError.exit_code


def _wait_for_start(client: Any, submission_id: str, say: Callable[[str], None]) -> None:
    """Say every ten seconds what a job that has not started waits for."""
    began = last = time.monotonic()
    while True:
        try:
            job = client.get_job_info(submission_id)
        except (OSError, RuntimeError):  # `_print_output` waits for the server
            return
        if str(job.status.value) != "PENDING":
            return
        now = time.monotonic()
        if now - last >= _TELL_S:
            last = now
            why = " ".join(str(job.message or "").split()) or "the cluster has not started it yet"
            say(f"{submission_id} is waiting to start, for {now - began:.0f} s: {why}")
        time.sleep(_POLL_S)


def _print_output(client: Any, submission_id: str, say: Callable[[str], None], out: TextIO) -> None:
    printed, failing_since = 0, None
    while True:
        try:

            async def tail() -> None:
                nonlocal printed, failing_since
                seen = 0
                async for text in client.tail_job_logs(submission_id):
                    failing_since = None
                    # A new connection starts with the log's first line.
                    new = text[max(0, printed - seen) :]
                    seen += len(text)
                    out.write(new)
                    out.flush()
                    printed = max(printed, seen)

            asyncio.run(tail())
            if str(client.get_job_status(submission_id).value) in ENDED:
                return
        except (TimeoutError, OSError, RuntimeError) as error:
            now = time.monotonic()
            if failing_since is None:
                failing_since = now
                say(f"the connection to the job server was lost ({type(error).__name__}); retrying …")
            if now - failing_since > _GIVE_UP_S:
                raise MachineError(
                    f"The job server has not answered for {_GIVE_UP_S:.0f} s. {submission_id} may still be running: "
                    "run the same command to follow it again."
                ) from None
        time.sleep(_RETRY_S)


def _interrupted(client: Any, submission_id: str, say: Callable[[str], None]) -> int:
    if sys.stdin.isatty():
        try:
            answer = input(f"\nStop {submission_id} (s), or leave it running (Enter)? ")
        except (EOFError, KeyboardInterrupt):
            answer = ""
        if answer.strip().lower() in ("s", "stop"):
            client.stop_job(submission_id)
            say(f"stopped {submission_id}; its checkpoints are complete, and the same command resumes from the last")
            return STOPPED
    say(f"{submission_id} keeps running; run the same command to follow it again")
    return 0
