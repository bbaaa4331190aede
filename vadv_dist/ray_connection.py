"""The Ray cluster that a command uses: the one that is there already, or one started on this machine."""

import os
import socket
from typing import Any

from vadv_dist.errors import MachineError

# Ray Train's second version, whose controller outlives a lost worker; it must be chosen before Ray is imported.
os.environ.setdefault("RAY_TRAIN_V2_ENABLED", "1")

_ANSWER_S = 10.0


def connect(num_cpus: int) -> bool:
    """Connect to the cluster that `RAY_ADDRESS` names or that runs on this machine; start one where there is none.

    Args:
        num_cpus: CPUs of a cluster that is started here.
    Returns:
        whether it was started here; the caller shuts it down then.
    Raises:
        MachineError: `RAY_ADDRESS` names a cluster that does not answer, or that asks for a token.
    """
    # Without a usage prompt, and without the warning that accelerators are hidden from zero-GPU tasks.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    # Ray starts its workers at niceness 15: on a desktop, whatever else runs would starve them.
    os.environ.setdefault("RAY_worker_niceness", "0")
    import ray

    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    named = os.environ.get("RAY_ADDRESS", "")
    if named not in ("", "auto", "local"):
        _require_answer(named)
    if named != "local":
        try:
            ray.init(address="auto", **options)
            return False
        except (ConnectionError, RuntimeError, ray.exceptions.RayError) as error:
            if named not in ("", "auto"):
                raise MachineError(f"RAY_ADDRESS names {named}, {_reason(error)}") from None
            if not isinstance(error, ConnectionError):
                raise
    ray.init(address="local", num_cpus=num_cpus, include_dashboard=False, **options)
    return True


def _require_answer(address: str) -> None:
    """Ray itself would try for minutes, a warning at a time."""
    host, _, port = address.rpartition("://")[2].rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_ANSWER_S).close()
    except (OSError, ValueError, OverflowError):
        raise MachineError(
            f"RAY_ADDRESS names {address}, where no Ray cluster answers. Start it there, correct the address "
            "(host:port of the head), or unset RAY_ADDRESS to work on this machine."
        ) from None


def _reason(error: BaseException) -> str:
    if "token" in f"{error} {error.__cause__}".lower():
        return (
            "which asks for a token that was not given. Put it into ~/.ray/auth_token (mode 600), or name its file in "
            "RAY_AUTH_TOKEN_PATH, and set RAY_AUTH_MODE=token."
        )
    return f"but the connection failed: {str(error).strip().splitlines()[-1][:200]}"
