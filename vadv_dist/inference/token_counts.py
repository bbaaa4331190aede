"""How many texts `data.max_tokens` cuts: what stands behind the cut is read by nobody, and no error shows it."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_CHUNK = 1024


@dataclass(frozen=True)
class TokenCounts:
    """Lengths of texts against a bound.

    Attributes:
        texts: how many were read.
        cut: how many of them are longer than the bound.
        longest: length of the longest, in tokens (or words, where no tokenizer is known).
        bound: texts are cut after so many.
    """

    texts: int
    cut: int
    longest: int
    bound: int

    @property
    def share(self) -> float:
        """Share of the texts that are cut."""
        return self.cut / self.texts if self.texts else 0.0

    def to_json(self) -> dict[str, float]:
        """Plain containers, with the share."""
        return {**asdict(self), "share": self.share}

    @classmethod
    def from_json(cls, raw: Mapping[str, float]) -> "TokenCounts":
        """Undo `to_json`."""
        return cls(*(int(raw[name]) for name in ("texts", "cut", "longest", "bound")))

    def sentence(self, what: str = "texts") -> str:
        """Say it in words; `what` names the texts."""
        if not self.cut:
            return f"none of {self.texts:,} {what} is cut at {self.bound} tokens; the longest has {self.longest:,}"
        share = f"{self.share:.1%}" if self.share >= 0.001 else "under 0.1%"
        verb = "is" if self.cut == 1 else "are"
        return (
            f"{self.cut:,} of {self.texts:,} {what} ({share}) {verb} cut at {self.bound} tokens; the longest has "
            f"{self.longest:,}"
        )


def count_tokens(tokenizer: "PreTrainedTokenizerBase", texts: Iterable[str], max_tokens: int) -> TokenCounts:
    """Count texts of more than `max_tokens` tokens, special tokens included, as a collator cuts them."""
    count = cut = longest = 0
    for chunk in _chunks(texts):
        ids = tokenizer(
            chunk, truncation=False, return_attention_mask=False, return_token_type_ids=False, verbose=False
        )["input_ids"]
        lengths = [len(row) for row in ids]
        count, longest = count + len(lengths), max(longest, *lengths)
        cut += sum(length > max_tokens for length in lengths)
    return TokenCounts(count, cut, longest, max_tokens)


def count_words(words: Iterable[int], max_tokens: int) -> TokenCounts:
    """Count texts that any tokenizer would cut, by their words: a word is at least one token."""
    numbers = list(words)
    return TokenCounts(len(numbers), sum(n > max_tokens for n in numbers), max(numbers, default=0), max_tokens)


def _chunks(texts: Iterable[str]) -> Iterator[list[str]]:
    chunk: list[str] = []
    for text in texts:
        chunk.append(text)
        if len(chunk) == _CHUNK:
            yield chunk
            chunk = []
    if chunk:
        yield chunk
