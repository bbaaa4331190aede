"""Connect to the Ray cluster of a command: the configured one, or a new one on this machine.

A cluster that happens to run on this machine is never joined, because it may belong to another program.
"""

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vadv_dist.errors import MachineError, UserError
from vadv_dist.runtime.ray_errors import last_line
from vadv_dist.runtime.signals import sigterm_kept

# Ray Train V2, whose controller survives a lost worker; it must be selected before Ray is imported.
os.environ.setdefault("RAY_TRAIN_V2_ENABLED", "1")

# Ray's job manager sets both in the process of a job.
_ADDRESS, _JOB = "RAY_ADDRESS", "RAY_JOB_CONFIG_JSON_ENV_VAR"
_IN_JOB = "this Ray job"
_TOKEN_FILE = Path.home() / ".ray" / "auth_token"
_ANSWER_S, _PROBE_S = 10.0, 60.0
_CHECK_S, _LOST_AFTER = 5.0, 3
_GIVE_TOKEN = (
    "requires a token that is missing. Put it into ~/.ray/auth_token (mode 600), or set RAY_AUTH_TOKEN_PATH to its "
    "path, and set RAY_AUTH_MODE=token."
)


@dataclass(frozen=True)
class NamedCluster:
    """The setting that selects the cluster.

    Attributes:
        address: `host:port`, `ray://host:port`, or `auto`, the cluster that `ray start` started on this machine; None
            for a new cluster.
        by: name of the setting, for messages.
    """

    address: str | None
    by: str

    @property
    def advice(self) -> str:
        """How to use no cluster, or another one."""
        if self.by == _ADDRESS:
            return "correct the address (host:port of the head), or unset RAY_ADDRESS to work on this machine"
        return f"correct {self.by} (host:port of the head), or set it to local to work on this machine"


def named_cluster(field: str, given: str | None, environment: Mapping[str, str] = os.environ) -> NamedCluster:
    """Determine the cluster: from a field of the configuration, else `RAY_ADDRESS`, else the job's cluster.

    Raises:
        UserError: the address is that of a job server.
    """
    named = NamedCluster(None, f"neither RAY_ADDRESS nor {field} names a cluster")
    if given:
        named = NamedCluster(given, field)
    elif environment.get(_ADDRESS):
        named = NamedCluster(environment[_ADDRESS], _ADDRESS)
    elif environment.get(_JOB):
        named = NamedCluster("auto", _IN_JOB)
    if named.address == "local":
        return NamedCluster(None, f"{named.by} is local")
    if named.address and named.address.startswith(("http://", "https://")):
        raise UserError(
            f"{named.by} is {named.address}, a job server, which accepts whole commands: `vadv submit`. To run the "
            f"command here on that cluster, {named.advice}."
        )
    return named


def connect(num_cpus: int, *, field: str = "trainer.ray_address", given: str | None = None) -> bool:
    """Connect to the configured cluster, or start one on this machine, and print which one to standard error.

    Args:
        num_cpus: CPUs of a cluster that is started here.
        field: the field of the configuration that may select a cluster.
        given: its value; None leaves it to `RAY_ADDRESS`.
    Returns:
        whether it was started here; the caller then shuts it down.
    Raises:
        UserError: the address is that of a job server.
        MachineError: the cluster does not answer, requires a token, or runs other versions.
    """
    # No usage prompt, and no warning that accelerators are hidden from zero-GPU tasks.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    # Ray starts its workers at niceness 15: on a desktop, other programs would starve them.
    os.environ.setdefault("RAY_worker_niceness", "0")
    named = named_cluster(field, given)
    import ray

    _keep_warnings_off_stdout()
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    if named.address is None:
        with _without_job(), sigterm_kept():
            ray.init(address="local", num_cpus=num_cpus, include_dashboard=False, **options)
        _say(f"started a Ray cluster on this machine for this command ({named.by})")
        return True
    address = require_usable(named)
    of_job = _JOB in os.environ and (named.by == _IN_JOB or address == os.environ.get(_ADDRESS))
    try:
        with contextlib.nullcontext() if of_job else _without_job(), sigterm_kept():
            ray.init(address=address, **options)
    except ray.exceptions.AuthenticationError:
        raise MachineError(f"{named.by} names {address}, which {_GIVE_TOKEN}") from None
    except Exception as error:  # Ray raises its own classes, built-in ones and plain Exception
        raise MachineError(
            f"{named.by} is {address}, which answers, but this process could not join it ({last_line(error)}). A "
            f"driver must run on a node of its cluster: run the command there, or through `vadv submit`; or "
            f"{named.advice}."
        ) from None
    _say(f"joined the Ray cluster{' of this job' if of_job else ''} at {address} ({named.by})")
    arguments = (address, ray.is_initialized, _CHECK_S)
    threading.Thread(target=report_loss, args=arguments, name="vadv-cluster", daemon=True).start()
    return False


def _keep_warnings_off_stdout() -> None:
    """Ray prints its nodes' warnings on standard output, which may be a command's result (`--json`)."""
    import ray._private.worker as worker

    def tell(data: Mapping[str, Any], ignore_prefix: bool = False) -> None:
        for line in data["lines"]:
            _say(f"Ray: {line.strip()}")

    worker.print_to_stdstream = tell


def report_loss(address: str, is_used: Callable[[], bool], interval_s: float) -> None:
    """Report the loss of a cluster, while `is_used()`; a few failures in a row count as a loss.

    A minute later, Ray itself ends this process without a useful message.
    """
    failures = 0
    while is_used():
        try:
            _require_listener(NamedCluster(address, ""))
            failures = 0
        except MachineError:
            failures += 1
        if failures == _LOST_AFTER:
            _say(
                f"the Ray cluster at {address} no longer answers. Ray ends this process within a minute (exit code 1) "
                "unless it recovers. Everything complete is saved: run the same command again once the cluster runs."
            )
            return
        time.sleep(interval_s)


def require_usable(named: NamedCluster) -> str:
    """Ask a cluster for its versions, and return its address.

    Raises:
        UserError: other users can read the token file.
        MachineError: the cluster does not answer, requires a token, or runs another version of Ray or Python.
    """
    address = str(named.address)
    if address != "auto":
        _require_listener(named)
    if address.startswith("ray://"):
        return address  # Ray's client reports problems itself
    if os.environ.get("RAY_AUTH_MODE", "").lower() == "token" and not has_token():
        raise MachineError(f"{named.by} is {address}, and RAY_AUTH_MODE is token: Ray {_GIVE_TOKEN}")
    probe = [sys.executable, "-P", str(Path(__file__).with_name("ray_probe.py")), address]
    try:
        done = subprocess.run(probe, capture_output=True, text=True, timeout=_PROBE_S)
        answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    except (subprocess.TimeoutExpired, json.JSONDecodeError, IndexError):
        raise _no_answer(named) from None
    if answer["address"] is None:
        raise MachineError(
            f"{named.by} means the cluster that `ray start` started on this machine, but there is none. Start it, or "
            f"{named.advice}."
        )
    if answer.get("refused"):
        raise MachineError(f"{named.by} names {address}, which {_GIVE_TOKEN}")
    theirs, ours = answer["cluster"], answer["here"]
    if theirs[0] != ours[0] or _compared(theirs[1]) != _compared(ours[1]):
        raise MachineError(
            f"{named.by} is {answer['address']}, which runs Ray {theirs[0]} on Python {theirs[1]}; this is Ray "
            f"{ours[0]} on Python {ours[1]}, and Ray requires equal versions. Use an environment with the cluster's "
            f"versions, {named.advice}."
        )
    return str(answer["address"])


def has_token(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether Ray will send a token.

    Raises:
        UserError: other users can read its file.
    """
    if environment.get("RAY_AUTH_MODE", "").lower() != "token":
        return False
    if environment.get("RAY_AUTH_TOKEN"):
        return True
    file = Path(environment.get("RAY_AUTH_TOKEN_PATH") or _TOKEN_FILE)
    if not file.is_file() or not file.stat().st_size:
        return False
    if file.stat().st_mode & 0o077:
        raise UserError(f"Other users can read {file}. Restrict it: chmod 600 {file}.")
    return True


def _require_listener(named: NamedCluster) -> None:
    """Check that something listens at the address, because Ray itself would retry for minutes."""
    host, _, port = str(named.address).rpartition("://")[2].rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_ANSWER_S).close()
    except (OSError, ValueError, OverflowError):
        raise _no_answer(named) from None


def _no_answer(named: NamedCluster) -> MachineError:
    return MachineError(f"{named.by} is {named.address}, where no Ray cluster answers. Start it there, {named.advice}.")


def _compared(python: str) -> list[str]:
    """The part of the Python version that Ray requires to be equal."""
    minor = os.environ.get("RAY_DEFAULT_PYTHON_VERSION_MATCH_LEVEL") == "minor"
    return python.split(".")[: 2 if minor else 3]


@contextlib.contextmanager
def _without_job() -> Iterator[None]:
    """Hide the job's own settings: its working directory is known only to its own cluster."""
    job = os.environ.pop(_JOB, None)
    try:
        yield
    finally:
        if job is not None:
            os.environ[_JOB] = job


def _say(text: str) -> None:
    print(f"vadv: {text}", file=sys.stderr, flush=True)
