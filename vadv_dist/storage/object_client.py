"""The client of an S3 store: where the store is, and what is tried again where the network fails.

Endpoint, region, profile and credentials come from the usual AWS variables and files (`AWS_ENDPOINT_URL`,
`AWS_PROFILE`, …); `VADV_S3_ANONYMOUS=1` signs nothing. Attempts are repeated here, as s3fs repeats some of them inside
each other, silently, and stops at errors that pass, such as a refused connection.
"""

import errno
import functools
import logging
import os
import random
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from vadv_dist.errors import MachineError, UserError, one_line

logger = logging.getLogger(__name__)

ANONYMOUS = "VADV_S3_ANONYMOUS"
# What says where the store is and is no secret.
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
# What stays wrong however often it is asked for: a malformed request, a name too long, the wrong region.
_LASTING = {errno.EINVAL, errno.EPERM, errno.ENAMETOOLONG, errno.ENOSYS, getattr(errno, "EREMCHG", errno.ENOSYS)}

T = TypeVar("T")


class ConflictError(MachineError):
    """An object was changed by another process since it was looked at."""

    def __init__(self, what: str) -> None:
        super().__init__(f"{what}: another process has changed it meanwhile. Run the same command again.")


def store_settings() -> dict[str, str]:
    """What this process knows of where object stores are, for processes elsewhere; secrets are each machine's own."""
    return {name: os.environ[name] for name in STORE_SETTINGS if name in os.environ}


def use_store_settings(settings: Mapping[str, str]) -> None:
    """Find object stores where another process does."""
    if any(os.environ.get(name) != value for name, value in settings.items()):
        os.environ.update(settings)
        forget_client()


def forget_client() -> None:
    """Make another client next time: credentials or the endpoint have changed."""
    file_system.cache_clear()


def with_retries(what: str, action: Callable[[Any], T]) -> T:
    """Do something with the store, again after growing waits where the network or the store fails.

    Raises:
        FileNotFoundError: there is no such object or bucket.
        ConflictError: a condition of a write does not hold.
        UserError: the store refuses: no credentials, no permission, a malformed request.
        MachineError: it failed `MAX_ATTEMPTS` times.
    """
    import aiohttp
    from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, PartialCredentialsError

    for attempt in range(1, MAX_ATTEMPTS + 1):
        try:
            return action(file_system(os.getpid()))
        except FileNotFoundError as error:
            if error_code(error) == "NoSuchBucket":
                raise UserError(f"{what}: there is no such bucket. Make it, or give another URI.") from None
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
                    f"{what}: the object store refuses it ({one_line(error)}). Check the credentials, and what they "
                    "may do with this bucket; one that may not be listed answers so for missing objects too."
                ) from None
            if getattr(error, "errno", None) in _LASTING and code not in ("BadDigest", "XAmzContentSHA256Mismatch"):
                raise UserError(f"{what}: the object store refuses it ({one_line(error)}).") from None
            if attempt == MAX_ATTEMPTS:
                raise MachineError(
                    f"{what} failed {attempt} times, the last time because {one_line(error)}. What was complete on the "
                    "object store is safe; run the same command again when it answers."
                ) from None
            wait_s = min(_FIRST_WAIT_S * 2 ** (attempt - 1), _LONGEST_WAIT_S) * random.uniform(0.5, 1.0)
            logger.warning(
                "%s: %s; attempt %d of %d in %.1f s", what, one_line(error), attempt + 1, MAX_ATTEMPTS, wait_s
            )
            time.sleep(wait_s)
    raise AssertionError("unreachable")


@functools.cache
def file_system(process: int) -> Any:
    """The client of this process: its thread does not live on in a fork."""
    import s3fs

    timeouts = {"retries": {"total_max_attempts": 1}, "connect_timeout": 10, "read_timeout": 60}
    client = s3fs.S3FileSystem(
        anon=os.environ.get(ANONYMOUS, "").lower() in ("1", "true", "yes"),
        config_kwargs=timeouts,
        use_listings_cache=False,
        skip_instance_cache=True,
    )
    client.retries = 1  # tries are counted and told of here
    return client


def error_code(error: BaseException | None) -> str:
    """The store's own code of an error, or an empty string."""
    while error is not None:
        response = getattr(error, "response", None)
        if isinstance(response, dict):
            return str(response.get("Error", {}).get("Code", ""))
        error = error.__cause__
    return ""
