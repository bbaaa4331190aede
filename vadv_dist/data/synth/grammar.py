"""Render a level of opinion as words.

A clip is one or two opinion phrases of the same level among neutral phrases, lower-case and without punctuation like
MOSI's transcripts. A reader who knows the words can recover the level; a student has to learn about 260 of them from
labels.
"""

from collections.abc import Sequence
from itertools import product
from typing import TypeVar

import numpy as np

from vadv_dist.data.synth.words import (
    ASIDES,
    DEEDS,
    DOWNTONERS,
    INTENSIFIERS,
    NEGATIONS,
    OPENINGS,
    OPINION_WORDS,
    PEOPLE,
    PLACES,
)

T = TypeVar("T")

# Words per clip in CMU-MOSI at some quantiles, cut at 100.
_QUANTILES = (0.0, 0.01, 0.05, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 1.0)
_WORDS = (1, 3, 4, 7, 10, 16, 23, 28, 45, 100)
_TWO_OPINIONS_FROM_WORDS = 16
_PLAIN_SHARE = 0.5
# "not superb" does not mean "abysmal": only moderate words are negated.
_STRONGEST_NEGATED = 3


def _by_words(phrases: set[str]) -> dict[int, list[str]]:
    grouped: dict[int, list[str]] = {}
    for phrase in sorted(phrases):
        grouped.setdefault(len(phrase.split()), []).append(phrase)
    return grouped


_NEUTRAL = _by_words(set(ASIDES) | {" ".join(parts).strip() for parts in product(PEOPLE, DEEDS, PLACES)})
_OPENINGS = _by_words(set(OPENINGS))


def vocabulary() -> list[str]:
    """All words that a synthetic clip can contain, sorted."""
    words = {*INTENSIFIERS, *DOWNTONERS, *NEGATIONS}.union(*OPINION_WORDS.values())
    for grouped in (_NEUTRAL, _OPENINGS):
        words.update(word for phrases in grouped.values() for phrase in phrases for word in phrase.split())
    return sorted(words)


def draw_word_counts(rng: np.random.Generator, num_clips: int) -> list[int]:
    """Numbers of words with MOSI's quantiles, 1 to 100."""
    log_words = np.interp(rng.random(num_clips), _QUANTILES, np.log(_WORDS))
    return [int(n) for n in np.rint(np.exp(log_words))]


def render(rng: np.random.Generator, half: int, num_words: int) -> str:
    """Words that express the level `half` / 2, exactly `num_words` of them."""
    num_opinions = 2 if num_words >= _TWO_OPINIONS_FROM_WORDS else 1
    opinions = [_opinion(rng, half, num_words // num_opinions) for _ in range(num_opinions)]
    left = num_words - sum(len(opinion.split()) for opinion in opinions)
    phrases = []
    while left:
        sizes = [size for size in _NEUTRAL if size <= left]
        # Take the longer of two, so that texts are not strings of "um" and "well".
        phrases.append(_pick(rng, _NEUTRAL[max(_pick(rng, sizes), _pick(rng, sizes))]))
        left -= len(phrases[-1].split())
    for opinion in opinions:
        phrases.insert(int(rng.integers(len(phrases) + 1)), opinion)
    return " ".join(phrases)


def _shift(modifier: str, half: int) -> int:
    away = (half > 0) - (half < 0)
    if modifier in INTENSIFIERS:
        return half + away
    if modifier in DOWNTONERS:
        return half - away
    return -half if modifier in NEGATIONS else half


def _opinion(rng: np.random.Generator, half: int, budget: int) -> str:
    phrase = _pick(rng, OPINION_WORDS[half])
    if budget >= 2 and rng.random() >= _PLAIN_SHARE:
        modifier, word_half = _pick(rng, _MODIFIED[half])
        phrase = f"{modifier} {_pick(rng, OPINION_WORDS[word_half])}"
    sizes = [size for size in _OPENINGS if size <= budget - len(phrase.split())]
    return f"{_pick(rng, _OPENINGS[_pick(rng, sizes)])} {phrase}" if sizes else phrase


def _ways_to_modify(half: int) -> list[tuple[str, int]]:
    """Pairs of a modifier and a word's own level that together express `half`."""
    return [
        (modifier, word_half)
        for modifier in (*INTENSIFIERS, *DOWNTONERS, *NEGATIONS)
        for word_half in OPINION_WORDS
        if _shift(modifier, word_half) == half and (modifier not in NEGATIONS or abs(word_half) <= _STRONGEST_NEGATED)
    ]


_MODIFIED = {half: _ways_to_modify(half) for half in OPINION_WORDS}


def _pick(rng: np.random.Generator, items: Sequence[T]) -> T:
    return items[int(rng.integers(len(items)))]
