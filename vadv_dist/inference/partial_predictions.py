"""Predictions of a long table that are on storage before all of them are there, so that a stopped command resumes."""

import hashlib
import json
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from vadv_dist.storage import Location, atomic_file, remove_tree

FloatArray = npt.NDArray[np.float32]

# What a killed command computes again at most, beside the chunk that it was at.
SAVE_EVERY_S = 10.0


class PartialPredictions:
    """Chunks of predictions in `<output>.partial`, which exists only after a command took longer than `SAVE_EVERY_S`.

    Args:
        target: the output.
        identity: everything that the predictions depend on, as plain containers; others are never mixed with them.
        shape: of one prediction.
    """

    def __init__(self, target: Location, identity: Mapping[str, Any], shape: tuple[int, ...] = ()) -> None:
        digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
        self._root = target.parent / f"{target.name}.partial"
        self._folder = self._root / digest[:16]
        self._shape = shape
        self._chunks: list[FloatArray] = []
        self._saved = self._rows = 0
        self._last_save = time.monotonic()
        while (part := self._part(self._rows)).is_file():
            self._chunks.append(np.frombuffer(part.read_bytes(), "<f4").reshape(-1, *shape))
            self._rows += len(self._chunks[-1])
        self._saved = len(self._chunks)

    @property
    def rows(self) -> int:
        """Number of predictions so far."""
        return self._rows

    def add(self, chunk: FloatArray) -> None:
        """Append predictions, `[R, *shape]`."""
        self._chunks.append(chunk)
        self._rows += len(chunk)
        if time.monotonic() - self._last_save >= SAVE_EVERY_S:
            self.save()

    def save(self) -> None:
        """Write the chunks that are not on storage yet, as one file named by its first row."""
        new = self._chunks[self._saved :]
        if any(len(chunk) for chunk in new):
            joined = np.concatenate(new)
            with atomic_file(self._part(self._rows - len(joined))) as partial:
                partial.write_bytes(joined.astype("<f4").tobytes())
        self._saved = len(self._chunks)
        self._last_save = time.monotonic()

    def all(self) -> FloatArray:
        """All predictions, `[R, *shape]`."""
        return np.concatenate([np.empty((0, *self._shape), np.float32), *self._chunks])

    def remove(self) -> None:
        """Remove what is on storage, also of commands with another input or student."""
        if self._root.is_dir():
            remove_tree(self._root)

    def _part(self, row: int) -> Location:
        return self._folder / f"{row:012d}.f32"
