"""The words of clips without words, saved clip by clip, so that an interrupted extraction repeats none."""

import json
from dataclasses import replace

from vadv_dist.features.speech import Transcriber
from vadv_dist.features.stages import ClipReport
from vadv_dist.features.timeline import BadClipError
from vadv_dist.storage import LineFile, Location


class Transcripts:
    """Finds words, and remembers them in a file of lines, one per clip.

    In an object store, what was found in the last seconds before a kill is lost.

    Args:
        transcriber: finds words.
        path: the file, which belongs to one extraction.
        retry_rejected: try the clips again in which no words were found.
    """

    def __init__(self, transcriber: Transcriber, path: Location, *, retry_rejected: bool = False) -> None:
        self._transcriber, self._file = transcriber, LineFile(path)
        written = self._file.lines()
        self._known: dict[tuple[str, str], dict[str, str | None]] = {}
        for number, line in enumerate(written):
            try:
                row = json.loads(line)
            except ValueError:  # the end of a line was not written
                self._file.replace(written[:number])
                break
            if row["text"] is not None or not retry_rejected:
                self._known[row["clip_id"], row["sha256"]] = row

    def complete(self, report: ClipReport, uri: str) -> ClipReport:
        """The report of a clip with its words, or with the reason why there are none.

        Args:
            report: of an accepted clip.
            uri: its file.
        """
        row = self._known.get((report.clip_id, report.sha256))
        if row is None:
            row = {"clip_id": report.clip_id, "sha256": report.sha256, "text": None, "reason": None}
            try:
                row["text"] = self._transcriber.words(uri, report.start_s, report.end_s)
            except BadClipError as error:
                row["reason"] = str(error)
            self._file.append(json.dumps(row) + "\n")
        if row["text"] is None:
            return ClipReport(report.clip_id, reason=row["reason"])
        return replace(report, text=row["text"])

    def close(self) -> None:
        """Save what is not saved yet, and end the transcriber."""
        self._transcriber.close()
        self._file.flush()
