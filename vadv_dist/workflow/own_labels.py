"""What the cells of a person's table say about its labels and splits."""

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from vadv_dist.data.readers.labels import label_number, range_of
from vadv_dist.data.readers.splits import SPLIT_NAMES
from vadv_dist.errors import UserError

_MAX_CLASSES = 50
_MAX_SHOWN = 40
_SIGNS = {"positive": 1, "positiv": 1, "pos": 1, "neutral": 0, "neu": 0, "negative": -1, "negativ": -1, "neg": -1}
_STRENGTHS = {"weakly": 1, "slightly": 1, "somewhat": 1, "": 2, "strongly": 3, "very": 3, "highly": 3, "extremely": 3}
_SENTIMENT = re.compile(rf"(?:({'|'.join(filter(None, _STRENGTHS))})[ _-])?({'|'.join(_SIGNS)})")
_STARS = re.compile(r"(\d+)[ _-]?stars?")
# Of two classes, the one without what is looked for comes first.
_FIRST = ("no", "non", "not", "none", "false", "absent", "bad", "low")
# Beginnings of words for splits that `SPLIT_NAMES` does not have.
_SPLIT_STEMS = {
    "train": ("train", "trn", "learn"),
    "valid": ("val", "dev"),
    "test": ("test", "tst", "eval", "holdout", "hold-out", "hold_out", "heldout", "held-out", "held_out"),
}


@dataclass(frozen=True)
class Labels:
    """Labels: numbers in a range, words that stand for them, or classes.

    Attributes:
        label_range: lowest and highest label; None for classes.
        label_map: what words stand for: numbers, or names of classes.
        classes: names of the classes in order; empty for numbers.
    """

    label_range: tuple[float, float] | None = None
    label_map: Mapping[str, str] = field(default_factory=dict)
    classes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Splits:
    """Where splits come from.

    Attributes:
        split_map: what words of the split column mean.
        split: shares of train, valid and test that are dealt out, such as `80/10/10`; None reads the column.
        valid_fraction: share of train to move to valid.
        has_test: whether there will be test clips.
    """

    split_map: Mapping[str, str] = field(default_factory=dict)
    split: str | None = None
    valid_fraction: float | None = None
    has_test: bool = True


def guess_labels(cells: Iterable[str], where: str) -> Labels:
    """What the cells of a column are, taken as labels.

    They are numbers, with a range that covers them; or words of sentiment, or stars, that stand for numbers; or a few
    different words, which are classes.

    Raises:
        UserError: they are none of these.
    """
    counts = Counter(cell.strip() for cell in cells if cell.strip())
    numbers = [label_number(cell) for cell in counts if math.isfinite(label_number(cell))]
    total = counts.total()
    if 2 * sum(counts[cell] for cell in counts if math.isfinite(label_number(cell))) > total:
        return Labels(range_of(numbers))
    words = list({word.casefold(): word for word in sorted(counts, reverse=True)}.values())
    levels = _levels(words)
    if len(words) > 2 and levels is not None:
        return Labels(range_of(levels.values()), {word: f"{level:g}" for word, level in levels.items()})
    if 2 <= len(words) <= _MAX_CLASSES and total >= 2 * len(words):
        order = levels or {word: word.casefold() not in _FIRST for word in words}
        return Labels(classes=tuple(sorted(words, key=lambda word: (order[word], word.casefold()))))
    first = next(iter(counts), "")
    raise UserError(
        f"{where} does not contain numbers, or from 2 to {_MAX_CLASSES} different words, each in several rows: it has "
        f"{len(words):,} different words ({first[:_MAX_SHOWN]!r} …). Name the column of the labels."
    )


def _levels(words: Sequence[str]) -> dict[str, float] | None:
    """The number of each word, lowest first, if all are words of sentiment or stars."""
    stars = [_STARS.fullmatch(word.casefold()) for word in words]
    found: dict[str, float]
    if all(stars):
        found = {word: float(star[1]) for word, star in zip(words, stars, strict=True) if star}
    else:
        parts = [_SENTIMENT.fullmatch(word.casefold()) for word in words]
        if not all(parts):
            return None
        pairs = {
            word: (_SIGNS[part[2]], _STRENGTHS[part[1] or ""]) for word, part in zip(words, parts, strict=True) if part
        }
        strengths = sorted({strength for sign, strength in pairs.values() if sign})
        found = {
            word: sign * (strengths.index(strength) + 1.0) if sign else 0.0 for word, (sign, strength) in pairs.items()
        }
    return dict(sorted(found.items(), key=lambda pair: pair[1]))


def can_be_labels(cells: Iterable[str]) -> bool:
    """Whether the cells of a column can be labels."""
    try:
        guess_labels(cells, "")
    except UserError:
        return False
    return True


def are_of_sentiment(cells: Iterable[str]) -> bool:
    """Whether all cells are words of sentiment, or stars."""
    return _levels(list({cell.strip().casefold() for cell in cells if cell.strip()})) is not None


def split_of_word(word: str) -> str | None:
    """The split that a word names, or seems to name."""
    text = word.strip().casefold()
    guessed = (split for split, stems in _SPLIT_STEMS.items() if text.startswith(stems))
    return SPLIT_NAMES.get(text) or next(guessed, None)


def guess_split_map(cells: Iterable[str]) -> dict[str, str]:
    """What words of a split column seem to mean that are not known without saying so; unclear words are left out."""
    words = sorted({cell.strip().casefold() for cell in cells if cell.strip()} - SPLIT_NAMES.keys())
    return {word: split for word in words if (split := split_of_word(word)) is not None}
