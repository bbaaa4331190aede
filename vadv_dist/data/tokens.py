"""Token ids of texts, computed once and kept within a bounded amount of memory."""

import sys
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from vadv_dist.data.context import separated, separator_of

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Ids = npt.NDArray[np.int32]

# About 600,000 texts of 20 tokens, far more than MOSEI's 23,000.
_MAX_BYTES = 256 << 20
# Headers of an array and a string, and an entry of a dict.
_OVERHEAD_BYTES = 250


class Tokens:
    """Tokenizes texts, and keeps the ids because a run reads the same texts in every epoch.

    Ids are kept by text, first come, first kept: texts beyond `max_bytes` are tokenized whenever they are asked for.

    Args:
        tokenizer: the tokenizer of the student's encoder.
        max_tokens: texts are truncated to this many tokens.
        max_bytes: bound on the memory of what is kept.
    """

    def __init__(self, tokenizer: "PreTrainedTokenizerBase", max_tokens: int, *, max_bytes: int = _MAX_BYTES) -> None:
        self.tokenizer = tokenizer
        self.max_tokens = max_tokens
        self._separator = separator_of(tokenizer)
        self._room = max_bytes
        self._kept: dict[str, Ids] = {}
        self._ahead: dict[str, Ids] = {}

    @cached_property
    def padding(self) -> int:
        """Id that fills up short texts; looking it up takes the tokenizer longer than a batch."""
        return int(self.tokenizer.pad_token_id)

    def look_ahead(self, texts: Sequence[str]) -> None:
        """Tokenize texts that are asked for next: many in one call take a tenth of the time of a few in each."""
        self._ahead = {}
        self._ahead = self._tokenize([text for text in dict.fromkeys(texts) if text not in self._kept])

    def of(self, texts: Sequence[str]) -> list[Ids]:
        """Ids of each text or reading, with the special tokens that the tokenizer adds and without padding."""
        kept, ahead = self._kept, self._ahead
        try:
            return [kept[text] if text in kept else ahead[text] for text in texts]
        except KeyError:
            unseen = [text for text in dict.fromkeys(texts) if text not in kept and text not in ahead]
        known = {**ahead, **self._tokenize(unseen)}
        return [kept[text] if text in kept else known[text] for text in texts]

    def _tokenize(self, unseen: Sequence[str]) -> dict[str, Ids]:
        """Ids of new texts; those for which there is room are kept."""
        if not unseen:
            return {}
        encoded = self.tokenizer(
            list(separated(unseen, self._separator)),
            truncation=True,
            max_length=self.max_tokens,
            return_attention_mask=False,
            return_token_type_ids=False,
        )["input_ids"]
        new = {text: np.asarray(ids, np.int32) for text, ids in zip(unseen, encoded, strict=True)}
        for text, ids in new.items():
            size = ids.nbytes + sys.getsizeof(text) + _OVERHEAD_BYTES
            if size <= self._room:
                self._room -= size
                self._kept[text] = ids
        return new
