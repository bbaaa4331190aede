"""Talk to a Ray cluster's job server."""

import logging
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from vadv_dist.errors import MachineError, UserError, one_line
from vadv_dist.storage import STORE_SETTINGS
from vadv_dist.submission.address import is_this_machine
from vadv_dist.submission.follow import ENDED
from vadv_dist.submission.job_id import shares_slug

T = TypeVar("T")
_MAX_TWINS = 100
_AGENT_WAIT_S = 60.0


def command_line(address: str, arguments: Sequence[str]) -> str:
    """The entry point, for a shell, that runs a command of `vadv` on a cluster.

    A loopback address may be that of a port forwarded to another machine, so the job itself looks whether this
    machine's Python is there. Otherwise it uses that of its PATH.
    """
    words = shlex.join(["-m", "vadv_dist.cli", *arguments])
    if not is_this_machine(address):
        return f"python {words}"
    script = Path(sys.executable).with_name("vadv")
    here = shlex.quote(str(script if script.exists() else sys.executable))
    return f'"$(test -x {here} && echo {shlex.quote(sys.executable)} || echo python)" {words}'


def runtime_environment(folder: str, install: bool, environment: Any) -> dict[str, Any]:
    """Ray's runtime environment for a job, without secrets, because every user of the dashboard can read it.

    A profile names credentials in a file of this machine, so it is not sent: also a loopback address may be another's.
    """
    names = [name for name in STORE_SETTINGS if name != "AWS_PROFILE"]
    variables = {name: environment[name] for name in names if name in environment}
    settings: dict[str, Any] = {"working_dir": folder, "env_vars": {"RAY_TRAIN_V2_ENABLED": "1", **variables}}
    if install:
        here = "${RAY_RUNTIME_ENV_CREATE_WORKING_DIR}"
        settings["pip"] = {"packages": [f"-c {here}/constraints.txt", here]}
    return settings


def connect(address: str) -> Any:
    """A client of the job server at an address.

    Raises:
        UserError: it refuses this token.
        MachineError: no job server answers.
    """
    from ray.exceptions import AuthenticationError
    from ray.job_submission import JobSubmissionClient

    for module in ("modules.dashboard_sdk", "modules.job.sdk"):
        logging.getLogger(f"ray.dashboard.{module}").setLevel(logging.WARNING)
    logging.getLogger("ray._private.runtime_env.packaging").setLevel(logging.WARNING)
    try:
        return JobSubmissionClient(address)
    except AuthenticationError:  # 401 or 403
        raise UserError(
            f"{address} refuses this token. Copy the cluster's token to ~/.ray/auth_token and set RAY_AUTH_MODE=token."
        ) from None
    except (OSError, RuntimeError) as error:
        raise MachineError(
            f"No job server answers on {address} ({one_line(error)}). Is the port forwarded "
            "(kubectl -n vadv port-forward service/vadv-head-svc 8265:8265, ray dashboard …)?"
        ) from None


def answered(ask: Callable[[], T]) -> T:
    """Call the job server and retry for a while: one that has just started closes connections or has no agent yet."""
    deadline = time.monotonic() + _AGENT_WAIT_S
    while True:
        try:
            return ask()
        except (RuntimeError, OSError) as error:
            passing = isinstance(error, OSError) or is_without_agent(error)
            if not passing or time.monotonic() > deadline:
                raise MachineError(f"The job server failed: {one_line(error, 300)}.") from None
            time.sleep(1.0)


def is_without_agent(error: RuntimeError) -> bool:
    """Whether the job server has no agent yet; Ray answers every failure with status 500 and a text."""
    return "No available agent" in str(error)


def submit_once(client: Any, submission_id: str, **job: Any) -> bool:
    """Submit a job; return False if a job with this id exists, because another process submitted it meanwhile.

    Args:
        client: see `connect`.
        submission_id: its id.
        job: arguments of Ray's `submit_job`.
    Raises:
        MachineError: the job server failed.
    """
    try:
        answered(lambda: client.submit_job(submission_id=submission_id, **job))
    except MachineError:
        # Ray answers every failure in the same way, so only the list tells them apart.
        if any(each.submission_id == submission_id for each in answered(client.list_jobs)):
            return False
        raise
    return True


def running_or_free(client: Any, base: str, slug: str) -> tuple[bool, str, list[Any]]:
    """The running job with this id, or else the first unused id; and running jobs that share the slug."""
    jobs = [job for job in answered(client.list_jobs) if job.submission_id]
    had = {job.submission_id: str(job.status.value) for job in jobs}
    others = [job for job in jobs if had[job.submission_id] not in ENDED and shares_slug(job.submission_id, slug)]
    for number in range(1, _MAX_TWINS):
        name = base if number == 1 else f"{base}-{number}"
        if name not in had:
            return False, name, others
        if had[name] not in ENDED:
            return True, name, others
    raise UserError(f"{base} has run {_MAX_TWINS} times on this cluster. Remove its jobs (`ray job delete`).")
