"""Where a job goes, and whether it may: whoever reaches a Ray cluster without a token can run code on it."""

import ipaddress
import os
import socket
from collections.abc import Mapping
from urllib.parse import urlsplit

from vadv_dist.errors import UserError
from vadv_dist.runtime.ray_connection import has_token as has_token

_VARIABLES = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")


def resolve_address(given: str | None, environment: Mapping[str, str] = os.environ) -> str:
    """The job server's address: as given, else that of `RAY_API_SERVER_ADDRESS` or `RAY_ADDRESS`.

    Raises:
        UserError: none is named, or it is no http(s) address.
    """
    named = {"--address": given, **{name: environment.get(name) for name in _VARIABLES}}
    by, address = next(((by, address) for by, address in named.items() if address), (None, None))
    if address is None:
        raise UserError(
            "No cluster is named. Give --address http://HOST:8265, or set RAY_API_SERVER_ADDRESS; the server of "
            "cluster/local/start.sh is http://127.0.0.1:8265."
        )
    parts = urlsplit(address)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UserError(
            f"{by} is {address}, no address of a job server, expected http://HOST:8265 (the dashboard's). Give "
            "--address."
        )
    if parts.username or parts.password:
        raise UserError("The address holds a password. Take it out: a token comes from a file, see SECURITY.md.")
    return address.rstrip("/")


def is_this_machine(address: str) -> bool:
    """Whether an address is on the loopback."""
    host = urlsplit(address).hostname or ""
    try:
        found = {str(info[4][0]) for info in socket.getaddrinfo(host, None)}
    except OSError:
        return False
    return bool(found) and all(ipaddress.ip_address(ip.partition("%")[0]).is_loopback for ip in found)


def require_token(address: str, environment: Mapping[str, str] = os.environ) -> None:
    """Refuse a cluster off this machine without token authentication.

    Raises:
        UserError: no token is set up.
    """
    if is_this_machine(address) or has_token(environment):
        return
    raise UserError(
        f"{address} is not on this machine, and there is no token: whoever can reach a Ray cluster without one can run "
        "code on it. Put the cluster's token into ~/.ray/auth_token (mode 600) or name its file in "
        "RAY_AUTH_TOKEN_PATH, and set RAY_AUTH_MODE=token. See SECURITY.md."
    )
