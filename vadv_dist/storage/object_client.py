"""The S3 client, its settings and retries.

Endpoint, region, profile and credentials come from the usual AWS variables and files (`AWS_ENDPOINT_URL`,
`AWS_PROFILE`, …); with `VADV_S3_ANONYMOUS=1` requests are not signed. s3fs's own retries are not used: they are silent,
nested, and give up at temporary errors such as a refused connection.
"""

import errno
import functools
import logging
import os
import random
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from vadv_dist.errors import MachineError, StorageError, UserError, one_line

logger = logging.getLogger(__name__)

ANONYMOUS = "VADV_S3_ANONYMOUS"
# Settings of the store that are not secret.
STORE_SETTINGS = (
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_S3",
    "AWS_REGION",
    "AWS_DEFAULT_REGION",
    "AWS_PROFILE",
    ANONYMOUS,
)
MAX_ATTEMPTS = 8
_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.1, 8.0
# Errors that a retry cannot fix: a malformed request, a name too long, the wrong region.
_LASTING = {errno.EINVAL, errno.EPERM, errno.ENAMETOOLONG, errno.ENOSYS, getattr(errno, "EREMCHG", errno.ENOSYS)}

T = TypeVar("T")


class ConflictError(MachineError):
    """Another process changed an object in the meantime."""

    def __init__(self, what: str) -> None:
        super().__init__(f"{what}: another process has changed it in the meantime. Run the same command again.")


def store_settings() -> dict[str, str]:
    """This process's settings of object stores, for processes elsewhere; each machine has its own secrets."""
    return {name: os.environ[name] for name in STORE_SETTINGS if name in os.environ}


def use_store_settings(settings: Mapping[str, str]) -> None:
    """Apply the settings of another process."""
    if any(os.environ.get(name) != value for name, value in settings.items()):
        os.environ.update(settings)
        forget_client()


def forget_client() -> None:
    """Create a new client next time, because credentials or the endpoint have changed."""
    file_system.cache_clear()


def with_retries(what: str, action: Callable[[Any], T]) -> T:
    """Run an action on the store; if the network or the store fails, retry with growing waits.

    Raises:
        FileNotFoundError: there is no such object or bucket.
        ConflictError: the condition of a request does not hold.
        UserError: the store refuses: no credentials, no permission, a malformed request.
        StorageError: it failed `MAX_ATTEMPTS` times.
    """
    import aiohttp
    from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, PartialCredentialsError

    for attempt in range(1, MAX_ATTEMPTS + 1):
        try:
            return action(file_system(os.getpid()))
        except FileNotFoundError as error:
            if error_code(error) == "NoSuchBucket":
                raise UserError(f"{what}: there is no such bucket. Create it, or give another URI.") from None
            raise
        except (NoCredentialsError, PartialCredentialsError) as error:
            raise UserError(
                f"{what}: {error}. Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, or {ANONYMOUS}=1 "
                "for a public bucket."
            ) from None
        except (TimeoutError, OSError, BotoCoreError, ClientError, aiohttp.ClientError) as error:
            code = error_code(error)
            if code in ("PreconditionFailed", "412", "ConditionalRequestConflict"):
                raise ConflictError(what) from error
            if isinstance(error, PermissionError):
                raise UserError(
                    f"{what}: the object store refuses it ({one_line(error)}). Check the credentials and their "
                    "permissions on this bucket. Without permission to list it, a missing object is refused too."
                ) from None
            if getattr(error, "errno", None) in _LASTING and code not in ("BadDigest", "XAmzContentSHA256Mismatch"):
                raise UserError(f"{what}: the object store refuses it ({one_line(error)}).") from None
            if attempt == MAX_ATTEMPTS:
                raise StorageError(
                    f"{what} failed {attempt} times, the last time because {one_line(error)}. Complete files on the "
                    "object store are safe; run the same command again when it responds."
                ) from None
            wait_s = min(_FIRST_WAIT_S * 2 ** (attempt - 1), _LONGEST_WAIT_S) * random.uniform(0.5, 1.0)
            logger.warning(
                "%s: %s; attempt %d of %d in %.1f s", what, one_line(error), attempt + 1, MAX_ATTEMPTS, wait_s
            )
            time.sleep(wait_s)
    raise AssertionError("unreachable")


@functools.cache
def file_system(process: int) -> Any:
    """The client of this process; a fork needs a new one, because the client's thread is not copied."""
    import s3fs

    timeouts = {"retries": {"total_max_attempts": 1}, "connect_timeout": 10, "read_timeout": 60}
    client = s3fs.S3FileSystem(
        anon=os.environ.get(ANONYMOUS, "").lower() in ("1", "true", "yes"),
        config_kwargs=timeouts,
        use_listings_cache=False,
        skip_instance_cache=True,
    )
    client.retries = 1  # `with_retries` repeats requests
    return client


def error_code(error: BaseException | None) -> str:
    """The store's code of an error, or an empty string."""
    while error is not None:
        response = getattr(error, "response", None)
        if isinstance(response, dict):
            return str(response.get("Error", {}).get("Code", ""))
        error = error.__cause__
    return ""
