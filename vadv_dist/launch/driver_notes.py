"""Short notes to a driver, from Ray Train's controller or a trial, through the cluster's key-value store."""

import json
from collections.abc import Iterator
from typing import Any

_NAMESPACE = b"vadv"


class DriverNotes:
    """One direction of notes: one process writes them, another one reads each once, in order.

    Args:
        key: names them in the cluster.
    """

    def __init__(self, key: str) -> None:
        self._key = key
        self._next = 0

    def write(self, kind: str, **facts: Any) -> None:
        """Write a note; the facts are plain values."""
        from ray.experimental.internal_kv import _internal_kv_put

        note = json.dumps({"kind": kind, **facts}).encode()
        _internal_kv_put(self._name(self._next), note, overwrite=True, namespace=_NAMESPACE)
        self._next += 1

    def read(self) -> Iterator[dict[str, Any]]:
        """Yield the notes written since the last call, and remove them."""
        from ray.experimental.internal_kv import _internal_kv_del, _internal_kv_get

        while (note := _internal_kv_get(self._name(self._next), namespace=_NAMESPACE)) is not None:
            _internal_kv_del(self._name(self._next), namespace=_NAMESPACE)
            self._next += 1
            yield json.loads(note)

    def give_up(self) -> None:
        """Tell the writer that the driver does not wait for its workers any more."""
        from ray.experimental.internal_kv import _internal_kv_put

        _internal_kv_put(self._name("given-up"), b"1", namespace=_NAMESPACE)

    def has_given_up(self) -> bool:
        """Whether the driver has given up."""
        from ray.experimental.internal_kv import _internal_kv_get

        return _internal_kv_get(self._name("given-up"), namespace=_NAMESPACE) is not None

    def _name(self, what: object) -> bytes:
        return f"notes-{self._key}-{what}".encode()
