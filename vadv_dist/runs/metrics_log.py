"""The lines of metrics.jsonl."""

import contextlib
import json
import math

from vadv_dist.formats.json_text import JsonError, parse_json
from vadv_dist.runs.records import Line, parse_line
from vadv_dist.storage import LineFile, Location


class MetricsLog:
    """Reads and writes the metrics of one run; only one process may write."""

    def __init__(self, path: Location) -> None:
        self._file = LineFile(path)

    def append(self, line: Line) -> None:
        """Add a line."""
        self._file.append(json.dumps(line.to_json(), allow_nan=False) + "\n")

    def flush(self) -> None:
        """Write appended lines for good; called before a checkpoint, which must not be ahead of them."""
        self._file.flush()

    def lines(self) -> list[Line]:
        """Read all complete lines.

        Raises:
            UserError: a line was written by another version.
        """
        found = []
        for text in self._file.lines():
            with contextlib.suppress(JsonError):
                if (line := parse_line(parse_json(text))) is not None:
                    found.append(line)
        return found

    def trim(self, last_step: int, epoch: float = math.inf) -> None:
        """Remove the lines of what is repeated after a kill; start lines stay, to count the attempts.

        Args:
            last_step: lines of later steps are removed.
            epoch: the epoch that goes on there. A checkpoint may be from its validation, after its last step; the line
                of its end is removed too.
        """
        before = self._file.lines()
        kept = []
        for line in before:
            try:
                parsed = parse_json(line)
                is_repeated = parsed.get("kind") == "epoch" and parsed["epoch"] >= epoch
                if (parsed["step"] <= last_step and not is_repeated) or parsed.get("kind") == "start":
                    kept.append(line)
            except (JsonError, KeyError, TypeError):
                continue  # the half-written last line of a killed attempt
        if kept != before:
            self._file.replace(kept)
