"""The address of a job, and whether it is safe: anyone who reaches a Ray cluster without a token can run code on it."""

import ipaddress
import os
import socket
from collections.abc import Mapping
from urllib.parse import urlsplit

from vadv_dist.errors import UserError
from vadv_dist.runtime.ray_connection import has_token

_VARIABLES = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")


def resolve_address(given: str | None, environment: Mapping[str, str] = os.environ) -> str:
    """The job server's address: the given one, else that of `RAY_API_SERVER_ADDRESS` or `RAY_ADDRESS`.

    Raises:
        UserError: there is none, or it is not an http(s) address.
    """
    named = {"--address": given, **{name: environment.get(name) for name in _VARIABLES}}
    by, address = next(((by, address) for by, address in named.items() if address), (None, None))
    if address is None:
        raise UserError(
            "No cluster is configured. Use --address http://HOST:8265, or set RAY_API_SERVER_ADDRESS; the server of "
            "cluster/local/start.sh is http://127.0.0.1:8265."
        )
    parts = urlsplit(address)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UserError(
            f"{by} is {address}, which is not the address of a job server, expected http://HOST:8265 (the "
            "dashboard's). Use --address."
        )
    if parts.username or parts.password:
        raise UserError("The address contains a password. Remove it: a token comes from a file, see SECURITY.md.")
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
    """Refuse a remote cluster without token authentication.

    Raises:
        UserError: no token is set up.
    """
    if is_this_machine(address) or has_token(environment):
        return
    raise UserError(
        f"{address} is not on this machine, and there is no token: anyone who reaches a Ray cluster without one can "
        "run code on it. Put the cluster's token into ~/.ray/auth_token (mode 600) or set RAY_AUTH_TOKEN_PATH to its "
        "file, and set RAY_AUTH_MODE=token. See SECURITY.md."
    )
