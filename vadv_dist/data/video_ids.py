"""Infer a clip's video from its id.

The clips of one video are usually numbered: `v_3`, `v-3`, `v[3]`, `v(3)`, `v#3`, `v/3`, `v.3`, `v:3`, `v$_$3`. The
video is the part before the separator and the number. An id that does not end in a number is split at its last `_`.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence

from vadv_dist.errors import UserError

RULE = "the id without the number at its end (v_3, v[3], v-3, v#3, v/3, v.3, v$_$3), else up to its last _"
# The prefix is as short as possible, so that v_1.5 is part 1.5 of v and not part 5 of v_1.
_NUMBERED = re.compile(r"(.+?)(?:\$_\$|[\s_\-#/.:|@~+]|[\[({<])(\d+(?:\.\d+)?)[\])}>]?", re.ASCII | re.DOTALL)
_DIGITS = re.compile(r"\d+", re.ASCII)
# A video name, then the number of a clip, and optionally a time, a part and a file extension.
_MAX_NUMBERS = 4


def video_of(clip_id: str) -> str:
    """Return the video that a clip's id names; the whole id if it names none."""
    numbered = _NUMBERED.fullmatch(clip_id)
    return numbered[1] if numbered else clip_id.rpartition("_")[0] or clip_id


def number_in(clip_id: str, video: str) -> int | None:
    """Return a clip's number in its video, such as 3 for `v[3]` or `v_03`; None if the id has no such number."""
    numbered = _NUMBERED.fullmatch(clip_id)
    if numbered is None or numbered[1] != video or "." in numbered[2] or len(numbered[2]) > 9:
        return None
    return int(numbered[2])


def numbered_families(ids: Sequence[str]) -> dict[str, list[str]]:
    """Group ids by their prefix if they look like numbered clips of several videos; otherwise return nothing.

    They do if all end in the same pattern apart from the numbers, and most share their prefix with others.
    """
    for number in range(1, _MAX_NUMBERS + 1):
        parts = [_before_number(name, number) for name in ids]
        if len({ending for _, ending in parts}) != 1 or parts[0][1] is None:
            continue
        families: dict[str, list[str]] = {}
        for name, (prefix, _) in zip(ids, parts, strict=True):
            families.setdefault(prefix, []).append(name)
        shared = sum(len(names) for names in families.values() if len(names) > 1)
        if 1 < len(families) <= len(ids) / 2 and shared > len(ids) / 2:
            return families
    return {}


def require_known_videos(clips: Iterable[tuple[str, str]], where: object) -> None:
    """Refuse ids that look numbered within videos if the rule turns most of them into separate videos.

    Args:
        clips: (clip id, result of `video_of`) of each clip whose video is only known from the id.
        where: the file, for the message.

    Raises:
        UserError: with some of the ids.
    """
    pairs = list(clips)
    of_video = Counter(video for _, video in pairs)
    alone = sum(of_video[video] == 1 for _, video in pairs)
    if alone <= len(pairs) / 2:
        return
    if families := numbered_families([clip for clip, _ in pairs]):
        shown = ", ".join(repr(name[:80]) for name in max(families.values(), key=len)[:3])
        raise UserError(
            f"{where} has no column for videos, and its ids look like numbered clips of videos ({shown}), but it is "
            "not clear which part is the video. A validation split contains whole videos: set --video-column to the "
            "column of videos, or to the id column if every clip is a separate video."
        )


def _before_number(name: str, number: int) -> tuple[str, str | None]:
    """Return what precedes the `number`-th run of digits from the end, and the rest with every run replaced by 0."""
    runs = list(_DIGITS.finditer(name))
    if len(runs) < number:
        return name, None
    start = runs[-number].start()
    return name[:start], _DIGITS.sub("0", name[start:])
