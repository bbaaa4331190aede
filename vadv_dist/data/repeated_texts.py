"""Texts that several clips have: within a split they count more than others, and in two splits they leak."""

from dataclasses import dataclass, field
from itertools import combinations

from vadv_dist.data.check_report import Finding, counted
from vadv_dist.data.schema import SPLITS, LabelSpec

# Short answers ("yes", "thank you") are repeated in any data.
MIN_REPEATED_WORDS = 4
# Labels that are numbers disagree if they differ by more than this share of their range.
_DISAGREEMENT = 0.1
_MAX_EXAMPLES = 3


def text_key(text: str) -> int:
    """What texts that differ only in case and space have in common."""
    return hash(" ".join(text.casefold().split()))


def repeated_in(count: int, split: str) -> str:
    """A sentence, without a point, about the number of texts that occur more than once in a split."""
    return f"{counted(count, 'text')} {'occurs' if count == 1 else 'occur'} more than once in {split}"


def shared_by(count: int, one: str, other: str) -> str:
    """A sentence, without a point, about the number of clips of a split whose text is in another one too."""
    return f"{counted(count, 'clip')} of {other} {'has' if count == 1 else 'have'} a text that {one} has too"


@dataclass
class _Clips:
    """The clips of a split that have one text."""

    low: float
    high: float
    count: int = 0
    ids: list[str] = field(default_factory=list)


class RepeatedTexts:
    """Finds texts of four or more words that several clips have; memory holds a record per text.

    Args:
        label: kind and range of the labels.
    """

    def __init__(self, label: LabelSpec) -> None:
        self._apart = 0.0 if label.is_class else _DISAGREEMENT * (label.high - label.low)
        self._of_split: dict[str, dict[int, _Clips]] = {}

    def add(self, split: str, clip_id: str, text: str, num_words: int, label: float) -> None:
        """Count a clip."""
        if num_words < MIN_REPEATED_WORDS:
            return
        clips = self._of_split.setdefault(split, {}).setdefault(text_key(text), _Clips(label, label))
        clips.low, clips.high, clips.count = min(clips.low, label), max(clips.high, label), clips.count + 1
        if len(clips.ids) < _MAX_EXAMPLES:
            clips.ids.append(clip_id)

    def findings(self) -> list[Finding]:
        """A note for each split that repeats texts and each pair that shares some; a warning if labels disagree."""
        found = []
        for split, texts in self._of_split.items():
            repeated = [clips for clips in texts.values() if clips.count > 1]
            apart = [clips for clips in repeated if clips.high - clips.low > self._apart]
            if repeated:
                what = f"{repeated_in(len(repeated), split)}: {_shown((apart or repeated)[0])}."
                advice = "If clips were copied by mistake, keep each once."
                if apart:
                    what += f" The labels of {counted(len(apart), 'such text')} disagree, as of the one shown."
                    advice = "Check these labels, and keep clips that were copied by mistake once."
                found.append(Finding("warning" if apart else "note", f"{split}/", None, "text", what, advice))
        for one, other in combinations([split for split in SPLITS if split in self._of_split], 2):
            seen = self._of_split[one]
            shared = [clips for key, clips in self._of_split[other].items() if key in seen]
            if shared:
                what = f"{shared_by(sum(clips.count for clips in shared), one, other)}: {_shown(shared[0])}."
                advice = f"Keep a text in one split, or scores on {other} may be too good."
                found.append(Finding("note", f"{one}/ and {other}/", None, "text", what, advice))
        return found


def _shown(clips: _Clips) -> str:
    more = clips.count - len(clips.ids)
    return f"{'clip' if clips.count == 1 else 'clips'} {', '.join(clips.ids)}" + (f" and {more:,} more" if more else "")
