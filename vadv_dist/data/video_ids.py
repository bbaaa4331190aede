"""Which video a clip is of, where only its id says so.

The clips of one video are usually numbered: `v_3`, `v-3`, `v[3]`, `v(3)`, `v#3`, `v/3`, `v.3`, `v:3`, `v$_$3`. What is
before the sign and the number is the video. An id without a number at its end is split at its last `_`.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence

from vadv_dist.errors import UserError

RULE = "the id without the number at its end (v_3, v[3], v-3, v#3, v/3, v.3, v$_$3), else up to its last _"
# The prefix is as short as the number allows, so that v_1.5 is the part 1.5 of v, and not the part 5 of v_1.
_NUMBERED = re.compile(r"(.+?)(?:\$_\$|[\s_\-#/.:|@~+]|[\[({<])(\d+(?:\.\d+)?)[\])}>]?", re.ASCII | re.DOTALL)
_DIGITS = re.compile(r"\d+", re.ASCII)
# A name of a video is followed by the number of a clip, and perhaps by a time, a part and the ending of a file.
_MAX_NUMBERS = 4


def video_of(clip_id: str) -> str:
    """The video that a clip's id names; the whole id where it names none."""
    numbered = _NUMBERED.fullmatch(clip_id)
    return numbered[1] if numbered else clip_id.rpartition("_")[0] or clip_id


def number_in(clip_id: str, video: str) -> int | None:
    """The number that a clip has in its video, as 3 in `v[3]` or `v_03`; None where the id is not such a one."""
    numbered = _NUMBERED.fullmatch(clip_id)
    if numbered is None or numbered[1] != video or "." in numbered[2] or len(numbered[2]) > 9:
        return None
    return int(numbered[2])


def numbered_families(ids: Sequence[str]) -> dict[str, list[str]]:
    """Ids by what is before their numbers, where they look like numbered clips of several videos; empty elsewhere.

    They do where all end alike but for their numbers, and most share what is before with others.
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
    """Refuse clips whose ids look numbered within videos, where the rule makes most of them a video of their own.

    Args:
        clips: (clip id, the video that `video_of` gives) of each clip whose video nothing else says.
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
            f"{where} has no column that names videos, and its ids look like numbered clips of videos ({shown}), but "
            "which part names the video is not clear. A validation split is cut by whole videos: name the column of "
            "videos with --video-column, or give --video-column ID_COLUMN if every clip is a video of its own."
        )


def _before_number(name: str, number: int) -> tuple[str, str | None]:
    """What is before the `number`-th run of digits from the end, and what follows with every run written as 0."""
    runs = list(_DIGITS.finditer(name))
    if len(runs) < number:
        return name, None
    start = runs[-number].start()
    return name[:start], _DIGITS.sub("0", name[start:])
