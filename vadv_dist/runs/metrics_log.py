"""The lines of metrics.jsonl."""

import contextlib
import json

from vadv_dist.formats.json_text import JsonError, parse_json
from vadv_dist.runs.records import Line, parse_line
from vadv_dist.storage import LineFile, Location


class MetricsLog:
    """Writes the metrics of one run; only one process does so at a time."""

    def __init__(self, path: Location) -> None:
        self._file = LineFile(path, safe="checkpoints are as they were.")

    def append(self, line: Line) -> None:
        """Add a line."""
        self._file.append(json.dumps(line.to_json(), allow_nan=False) + "\n")

    def flush(self) -> None:
        """Write what was appended: a checkpoint that follows must find the lines before it."""
        self._file.flush()

    def lines(self) -> list[Line]:
        """Every line that is written; one that broke off is left out.

        Raises:
            UserError: a line of another version.
        """
        found = []
        for text in self._file.lines():
            with contextlib.suppress(JsonError):
                if (line := parse_line(parse_json(text))) is not None:
                    found.append(line)
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
