"""The lines of metrics.jsonl."""

import contextlib
import json
from collections.abc import Mapping
from typing import Any

from vadv_dist.formats.json_text import JsonError, parse_json
from vadv_dist.storage import LineFile, Location


class MetricsLog:
    """Writes the metrics of one run; only one process does so at a time."""

    def __init__(self, path: Location) -> None:
        self._file = LineFile(path, safe="checkpoints are as they were.")

    def append(self, line: Mapping[str, object]) -> None:
        """Add a line; its numbers must be finite."""
        self._file.append(json.dumps(line) + "\n")

    def flush(self) -> None:
        """Write what was appended: a checkpoint that follows must find the lines before it."""
        self._file.flush()

    def lines(self) -> list[dict[str, Any]]:
        """Every line that is written; one that broke off is left out."""
        found = []
        for line in self._file.lines():
            with contextlib.suppress(JsonError):
                found.append(parse_json(line))
        return found

    def trim(self, last_step: int) -> None:
        """Drop the lines after a step: those of an attempt that was killed and is now repeated.

        Lines of a start stay, so that the attempts can be counted.
        """
        before = self._file.lines()
        kept = []
        for line in before:
            try:
                parsed = parse_json(line)
                if parsed["step"] <= last_step or parsed.get("kind") == "start":
                    kept.append(line)
            except (JsonError, KeyError, TypeError):
                continue  # the half-written last line of a killed attempt
        if kept != before:
            self._file.replace(kept)
