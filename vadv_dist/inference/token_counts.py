"""Count the texts that `data.max_tokens` truncates, which causes no error otherwise."""

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_CHUNK = 1024


@dataclass(frozen=True)
class TokenCounts:
    """Lengths of texts compared with a limit.

    Attributes:
        texts: number of texts.
        cut: number of texts above the limit.
        longest: length of the longest, in tokens (or words, if no tokenizer is known).
        bound: texts are truncated to this many tokens.
    """

    texts: int
    cut: int
    longest: int
    bound: int

    @property
    def share(self) -> float:
        """Fraction of truncated texts."""
        return self.cut / self.texts if self.texts else 0.0

    def to_json(self) -> dict[str, float]:
        """Plain containers, including the fraction."""
        return {**asdict(self), "share": self.share}

    @classmethod
    def from_json(cls, raw: Mapping[str, float]) -> "TokenCounts":
        """Read the result of `to_json`."""
        return cls(*(int(raw[name]) for name in ("texts", "cut", "longest", "bound")))

    def sentence(self, what: str = "texts") -> str:
        """Describe it in words; `what` names the texts."""
        share = f"{self.share:.1%}" if self.share >= 0.001 else "under 0.1%"
        verb = "is" if self.cut == 1 else "are"
        texts = f"{self.texts:,} {what}"
        which = f"{self.cut:,} of {texts} ({share}) {verb}" if self.cut else f"none of {texts} is"
        return f"{which} truncated at {self.bound} tokens; the longest has {self.longest:,}"


def count_tokens(tokenizer: "PreTrainedTokenizerBase", texts: Iterable[str], max_tokens: int) -> TokenCounts:
    """Count texts of more than `max_tokens` tokens, including special tokens, which a collator truncates."""
    count = cut = longest = 0
    texts = iter(texts)
    while chunk := list(itertools.islice(texts, _CHUNK)):
        ids = tokenizer(
            chunk, truncation=False, return_attention_mask=False, return_token_type_ids=False, verbose=False
        )["input_ids"]
        lengths = [len(row) for row in ids]
        count, longest = count + len(lengths), max(longest, *lengths)
        cut += sum(length > max_tokens for length in lengths)
    return TokenCounts(count, cut, longest, max_tokens)


def count_words(words: Iterable[int], max_tokens: int) -> TokenCounts:
    """Count texts that any tokenizer would truncate, by their words: a word is at least one token."""
    numbers = list(words)
    return TokenCounts(len(numbers), sum(n > max_tokens for n in numbers), max(numbers, default=0), max_tokens)
