"""Splits of a table: what its column says, or whole videos dealt out by seed."""

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar

import numpy as np

from vadv_dist.data.readers.option_names import OptionName, on_command_line
from vadv_dist.data.schema import SPLITS, LabelSpec
from vadv_dist.data.video_ids import RULE, require_known_videos
from vadv_dist.errors import UserError

SPLIT_NAMES = {
    "train": "train",
    "valid": "valid",
    "val": "valid",
    "dev": "valid",
    "validation": "valid",
    "test": "test",
}
# Strata of labels that are numbers: parts of the range of equal width.
_BINS = 7
_HUNDRED = 100.0


class Splittable(Protocol):
    """A row that belongs to a split."""

    @property
    def clip_id(self) -> str: ...
    @property
    def video_id(self) -> str: ...
    @property
    def video_guessed(self) -> bool: ...
    @property
    def split(self) -> str: ...
    @property
    def label(self) -> float: ...


Row = TypeVar("Row", bound=Splittable)


@dataclass(frozen=True)
class SplitRule:
    """How rows get their split: from a column, whose words mean splits, or by dealing out whole videos.

    Attributes:
        names: split by word, in lower case.
        shares: shares of train, valid and test if they are dealt out; None reads the column.
        valid_fraction: share of train's clips to move to valid.
        seed: determines which videos go where.
    """

    names: Mapping[str, str]
    shares: tuple[float, ...] | None = None
    valid_fraction: float | None = None
    seed: int = 1
    option: OptionName = on_command_line

    @property
    def needs_column(self) -> bool:
        """Whether rows without a split column cannot be used."""
        return self.shares is None and self.valid_fraction is None

    def said(self) -> list[str]:
        """How splits were dealt out, in a sentence."""
        if self.shares is None:
            return []
        shares = "/".join(f"{share * _HUNDRED:g}" for share in self.shares)
        return [f"splits were dealt out {shares} by video, stratified by label, with seed {self.seed}"]

    def apply(self, clips: Sequence[Row], label: LabelSpec, where: object) -> list[Row]:
        """The rows with their final splits.

        Raises:
            UserError: there are too few videos, they are not clear, or there is already a validation split.
        """
        if self.shares is not None:
            return deal(clips, self.shares, self.seed, label, where, self.option)
        if self.valid_fraction is None:
            return list(clips)
        return cut_valid(clips, self.valid_fraction, self.seed, where, self.option)


def split_rule(
    split_map: Mapping[str, str] | None,
    split: str | None,
    valid_fraction: float | None,
    seed: int,
    option: OptionName = on_command_line,
) -> SplitRule:
    """Check the options of splits.

    Args:
        split_map: what words of the split column mean: train, valid or test.
        split: shares of train, valid and test, such as `80/10/10`.
        valid_fraction: share of train to move to valid.
        seed: the seed.
        option: how messages name options.
    Raises:
        UserError: one of them is invalid, or two exclude each other.
    """
    names = dict(SPLIT_NAMES)
    for word, meaning in (split_map or {}).items():
        to = SPLIT_NAMES.get(str(meaning).strip().lower())
        if to is None:
            raise UserError(
                f"{option('split_map')} says {word}={meaning}, expected one of {', '.join(SPLITS)}, as in dev=valid."
            )
        names[word.strip().lower()] = to
    if valid_fraction is not None and not 0 < valid_fraction < 1:
        raise UserError(f"{option('valid_fraction')} is {valid_fraction:g}, expected a fraction between 0 and 1.")
    if split is not None and valid_fraction is not None:
        raise UserError(f"{option('split')} gives valid its share already. Leave out {option('valid_fraction')}.")
    if seed < 0:
        raise UserError(f"{option('seed')} is {seed}, expected an integer from 0.")
    return SplitRule(names, None if split is None else parse_shares(split, option), valid_fraction, seed, option)


def parse_shares(text: str, option: OptionName = on_command_line) -> tuple[float, ...]:
    """Shares of train, valid and test that sum to 1, from `80/10/10`, or `80/20` for train and valid.

    Raises:
        UserError: it is something else.
    """
    try:
        shares = [float(part) for part in str(text).split("/")]
    except ValueError:
        shares = []
    total = sum(shares)
    is_whole = any(math.isclose(total, whole, abs_tol=1e-6) for whole in (1.0, _HUNDRED))
    if len(shares) not in (2, 3) or not is_whole or shares[0] <= 0 or min(shares) < 0:
        raise UserError(
            f"{option('split')} is {text!r}, expected percentages of train, valid and test that sum to 100, such as "
            "80/10/10."
        )
    return tuple(share / total for share in shares)


def deal(
    clips: Sequence[Row],
    shares: Sequence[float],
    seed: int,
    label: LabelSpec,
    where: object,
    option: OptionName = on_command_line,
) -> list[Row]:
    """Deal out whole videos, so that every split has its share of clips and of each kind of label.

    Videos are sorted by their most frequent label (its class, or one of seven parts of the range), in random order
    within it; each then goes to the split that lacks most clips of its share of those dealt so far.

    Raises:
        UserError: there are fewer videos than splits, or the videos are not clear.
    """
    require_known_videos([(clip.clip_id, clip.video_id) for clip in clips if clip.video_guessed], where)
    strata: dict[str, Counter[int]] = defaultdict(Counter)
    for clip in clips:
        strata[clip.video_id][_stratum(clip.label, label)] += 1
    wanted = {split: share for split, share in zip(SPLITS, shares, strict=False) if share > 0}
    if len(strata) < len(wanted):
        raise UserError(
            f"{where} has {len(strata)} videos, too few for {option('split')} with {len(wanted)} splits of whole "
            f"videos. Add rows of more videos, or set the column of videos with {option('video_column')}. "
            f"{_guessed(clips)}".rstrip()
        )
    videos = sorted(strata)
    random = np.random.default_rng(seed).permutation(len(videos))
    order = sorted(range(len(videos)), key=lambda i: (strata[videos[i]].most_common(1)[0][0], random[i]))
    split_of: dict[str, str] = {}
    dealt = dict.fromkeys(wanted, 0)
    for index in order:
        size = strata[videos[index]].total()
        so_far = sum(dealt.values()) + size
        split = max(wanted, key=lambda name: wanted[name] * so_far - dealt[name])
        split_of[videos[index]] = split
        dealt[split] += size
    for split in wanted:  # with few videos a small share gets none
        if not dealt[split]:
            largest = max(dealt, key=lambda name: dealt[name])
            video = min((v for v in videos if split_of[v] == largest), key=lambda v: strata[v].total())
            split_of[video] = split
            dealt[split] += strata[video].total()
            dealt[largest] -= strata[video].total()
    return [replace(clip, split=split_of[clip.video_id]) for clip in clips]  # type: ignore[type-var]  # rows are dataclasses


def _stratum(value: float, label: LabelSpec) -> int:
    if label.is_class:
        return int(value)
    return min(_BINS - 1, int((value - label.low) / (label.high - label.low) * _BINS))


def cut_valid(
    clips: Sequence[Row], fraction: float, seed: int, where: object, option: OptionName = on_command_line
) -> list[Row]:
    """Move whole videos from train to valid until valid has about `fraction` of train's clips.

    Raises:
        UserError: there is already a validation split, train has fewer than two videos, or the videos are not clear.
    """
    if any(clip.split == "valid" for clip in clips):
        raise UserError(f"{where} already has a validation split. Leave out {option('valid_fraction')}.")
    train = [clip for clip in clips if clip.split == "train"]
    require_known_videos([(clip.clip_id, clip.video_id) for clip in train if clip.video_guessed], where)
    clips_of_video = Counter(clip.video_id for clip in train)
    if len(clips_of_video) < 2:
        raise UserError(
            f"{where} has {len(clips_of_video)} videos in train, so no whole video can be moved to validation. "
            f"{_guessed(train)}Leave out {option('valid_fraction')}, set the column of videos with "
            f"{option('video_column')}, or add rows of more videos."
        )
    wanted = fraction * clips_of_video.total()
    in_order = sorted(clips_of_video.items())
    moved: set[str] = set()
    taken = 0
    for index in np.random.default_rng(seed).permutation(len(clips_of_video)):
        video, count = in_order[index]
        nearer_without = abs(taken - wanted) <= abs(taken + count - wanted)
        if moved and (nearer_without or len(moved) + 1 == len(clips_of_video)):
            break
        moved.add(video)
        taken += count
    return [
        replace(clip, split="valid") if clip.split == "train" and clip.video_id in moved else clip  # type: ignore[type-var]  # rows are dataclasses
        for clip in clips
    ]


def _guessed(clips: Sequence[Splittable]) -> str:
    return f"The video of a clip is {RULE}. " if any(clip.video_guessed for clip in clips) else ""
