"""The lines of metrics.jsonl: appended to a file, or to an object that is written anew every few seconds."""

import contextlib
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vadv_dist.formats.json_text import JsonError, parse_json
from vadv_dist.storage import Location, S3Path, disk_faults, write_text

# An object cannot be appended to: it is written whole, at most this share of the time.
_SHORTEST_INTERVAL_S, _WRITING_SHARE = 3.0, 0.02


class MetricsLog:
    """Writes the metrics of one run; only one process does so at a time."""

    def __init__(self, path: Location) -> None:
        self._path = path
        self._lines: list[str] | None = None  # of an object, all of them
        self._unwritten = False
        self._due = 0.0

    def append(self, line: Mapping[str, object]) -> None:
        """Add a line; its numbers must be finite."""
        text = json.dumps(line) + "\n"
        if isinstance(self._path, Path):
            with disk_faults(self._path, "checkpoints are as they were."), self._path.open("a") as file:
                file.write(text)
            return
        self._lines = [*_lines(self._path)] if self._lines is None else self._lines
        self._lines.append(text)
        self._unwritten = True
        if time.monotonic() >= self._due:
            self.flush()

    def flush(self) -> None:
        """Write what was appended: a checkpoint that follows must find the lines before it."""
        if isinstance(self._path, S3Path) and self._unwritten:
            began = time.monotonic()
            write_text(self._path, "".join(self._lines or []))
            now = time.monotonic()
            self._due = now + max(_SHORTEST_INTERVAL_S, (now - began) / _WRITING_SHARE)
            self._unwritten = False

    def lines(self) -> list[dict[str, Any]]:
        """Every line that stands there; one that broke off is left out."""
        found = []
        for line in _lines(self._path):
            with contextlib.suppress(JsonError):
                found.append(parse_json(line))
        return found

    def trim(self, last_step: int) -> None:
        """Drop the lines after a step: those of an attempt that was killed and is now repeated.

        Lines of a start stay, so that the attempts can be counted.
        """
        before = _lines(self._path)
        kept = []
        for line in before:
            try:
                parsed = parse_json(line)
                if parsed["step"] <= last_step or parsed.get("kind") == "start":
                    kept.append(line)
            except (JsonError, KeyError, TypeError):
                continue  # the half-written last line of a killed attempt
        if kept != before:
            write_text(self._path, "".join(kept))
        if isinstance(self._path, S3Path):
            self._lines = kept


def _lines(path: Location) -> list[str]:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return []
    return [f"{line}\n" for line in text.splitlines()]
