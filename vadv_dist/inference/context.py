"""What a student with context reads of a table: each text with those before it in its video."""

from collections import defaultdict, deque
from collections.abc import Iterator

from vadv_dist.errors import UserError
from vadv_dist.inference.text_table import TextTable

VIDEO_COLUMN = "video_id"


def readings(table: TextTable, video_column: str, *, context: int, separator: str) -> Iterator[list[str]]:
    """Each text, then the texts of up to `context` earlier rows of its video, the nearest first, in pieces.

    Args:
        table: its rows of a video are in the order in which they were said; rows of others may stand between.
        video_column: its column of videos.
        context: number of texts before a text.
        separator: stands between two texts.
    Raises:
        UserError: the table has no such column.
    """
    columns = table.table.header
    if video_column not in columns:
        raise UserError(
            f"{table.path} has no column {video_column!r} (it has: {', '.join(columns)}), but the student also reads "
            f"the {context} texts before each text of its video. Add a column that names the video of each row, with "
            "the rows of a video in the order in which they were said; --video-column sets its name."
        )
    return _joined(table, video_column, context, separator)


def _joined(table: TextTable, video_column: str, context: int, separator: str) -> Iterator[list[str]]:
    before: dict[str, deque[str]] = defaultdict(lambda: deque(maxlen=context))
    for texts, videos in zip(table.texts(), table.strings(video_column), strict=True):
        found = []
        for text, video in zip(texts, videos, strict=True):
            found.append(separator.join([text, *before[video]]))
            before[video].appendleft(text)
        yield found
