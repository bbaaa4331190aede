"""Parse JSON files within limits: parsed values take up to fifty times the memory of their text."""

import json
from typing import Any

MAX_BYTES = 64 << 20
MAX_VALUES = 1_000_000
MAX_DEPTH = 64


class JsonError(ValueError):
    """Why a text cannot be parsed as JSON."""


def parse_json(text: str | bytes) -> Any:
    """Parse a JSON document.

    Raises:
        JsonError: not JSON, or more than `MAX_BYTES`, `MAX_VALUES` or `MAX_DEPTH`.
    """
    if len(text) > MAX_BYTES:
        raise JsonError(f"it has more than {MAX_BYTES:,} bytes")
    try:
        decoded = text if isinstance(text, str) else text.decode()
        if sum(decoded.count(sign) for sign in "[{,") > MAX_VALUES:
            raise JsonError(f"it has more than {MAX_VALUES:,} values")
        value = json.loads(decoded)
    except RecursionError:
        raise JsonError(f"it is nested more than {MAX_DEPTH} levels deep") from None
    except JsonError:
        raise
    except ValueError as error:  # not UTF-8, not JSON, or a number with thousands of digits
        raise JsonError(str(error)) from None
    if _deeper_than(value, MAX_DEPTH):
        raise JsonError(f"it is nested more than {MAX_DEPTH} levels deep")
    return value


def _deeper_than(value: Any, depth: int) -> bool:
    level = [value]
    for _ in range(depth):
        containers = [one.values() if isinstance(one, dict) else one for one in level if isinstance(one, dict | list)]
        level = [part for container in containers for part in container]
    return any(isinstance(one, dict | list) for one in level)
