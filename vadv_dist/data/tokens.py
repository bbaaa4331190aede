"""Token ids of texts, computed once and kept within a bounded amount of memory."""

import sys
from collections.abc import Sequence
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

    def of(self, texts: Sequence[str]) -> list[Ids]:
        """Ids of each text or reading, with the special tokens that the tokenizer adds and without padding."""
        unseen = [text for text in dict.fromkeys(texts) if text not in self._kept]
        if not unseen:
            return [self._kept[text] for text in texts]
        encoded = self.tokenizer(
            list(separated(unseen, self._separator)),
            truncation=True,
            max_length=self.max_tokens,
            return_attention_mask=False,
            return_token_type_ids=False,
        )["input_ids"]
        new = {text: np.asarray(ids, np.int32) for text, ids in zip(unseen, encoded, strict=True)}
        found = [new[text] if text in new else self._kept[text] for text in texts]
        for text, ids in new.items():
            size = ids.nbytes + sys.getsizeof(text) + _OVERHEAD_BYTES
            if size <= self._room:
                self._room -= size
                self._kept[text] = ids
        return found
