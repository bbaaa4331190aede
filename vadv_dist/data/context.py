"""The utterances before a clip in its video, as part of what the student reads (`student.context`).

A clip's *reading* is its own words, then those of the utterances before it, the nearest first. Truncation therefore
takes the oldest words first, and never the clip's own words for the sake of others. In memory the parts are separated
by ASCII's record separator, which tokenization replaces by the tokenizer's own separator.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from vadv_dist.data.video_ids import number_in
from vadv_dist.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SEPARATOR = "\x1e"


def separator_of(tokenizer: "PreTrainedTokenizerBase") -> str:
    """What separates the utterances of a reading: the tokenizer's separator or end of text, or a space."""
    return str(tokenizer.sep_token or tokenizer.eos_token or " ")


def separated(readings: Iterable[str], separator: str) -> Iterator[str]:
    """Readings as a tokenizer reads them."""
    return (reading.replace(SEPARATOR, separator) for reading in readings)


def readings(
    clip_ids: Sequence[str], video_ids: Sequence[str], texts: Sequence[str], *, context: int, where: object
) -> list[str]:
    """The readings of one data set's split, [R], in the order of its clips.

    Clips of a video are ordered by the number in their ids. Utterances of other splits are not read.

    Args:
        clip_ids, video_ids, texts: of the clips, [R] each.
        context: maximum number of utterances before a clip.
        where: the data set, for messages.
    Raises:
        UserError: no video has several clips, or a clip of one that has has no number.
    """
    rows_of: dict[str, list[int]] = defaultdict(list)
    for row, video in enumerate(video_ids):
        rows_of[video].append(row)
    own = [text.replace(SEPARATOR, " ") for text in texts]
    found = list(own)
    several = [rows for rows in rows_of.values() if len(rows) > 1]
    advice = (
        "The student reads the utterances before a clip in the order of the numbers in clip ids (v_1, v_2, … of video "
        "v). Name clips so and ingest them again, or set student.context: 0."
    )
    if not several:
        raise UserError(f"student.context is {context}, but no video of {where} has several clips in a split. {advice}")
    for rows in several:
        numbers = [number_in(clip_ids[row], video_ids[row]) for row in rows]
        if None in numbers:
            row = rows[numbers.index(None)]
            raise UserError(
                f"student.context is {context}, but the order of clips in the videos of {where} is unknown: clip "
                f"{clip_ids[row]!r} of video {video_ids[row]!r} has no number. {advice}"
            )
        spoken = [row for _, row in sorted(zip(numbers, rows, strict=True), key=lambda pair: pair[0] or 0)]
        for at, row in enumerate(spoken):
            before = spoken[max(0, at - context) : at]
            found[row] = SEPARATOR.join([own[row], *(own[other] for other in reversed(before))])
    return found
