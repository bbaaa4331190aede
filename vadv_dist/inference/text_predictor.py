"""What predicts texts in batches, whatever computes: tokenize, count what is truncated, keep the order."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt
from transformers import PreTrainedTokenizerBase

from vadv_dist.errors import UserError
from vadv_dist.inference.batching import token_budget_batches
from vadv_dist.inference.token_counts import TokenCounts, count_tokens

# Large enough to use the whole machine, small enough for a CPU's caches; measured with benchmarks/predict.py.
CPU_BATCH_TOKENS = 2048
# Texts that are sorted by length together, and after which a caller has results.
CPU_CHUNK_ROWS = 2048


class TextPredictor(ABC):
    """A student of texts, ready for any number of calls.

    Attributes:
        precision: `fp32`, `bf16` or `int8`.
        chunk_rows: number of texts that are sorted by length and computed together.
        batch_rows: bound on a batch's rows; None bounds only its tokens.
        on_batch: called after each batch with its number of texts.

    Args:
        tokenizer: its tokenizer.
        max_tokens: texts are truncated to this many tokens, as in training.
        batch_tokens: bound on a batch's rows times its longest row.
        context: maximum number of utterances before a text in its video that the model also reads, the nearest first.
        separator: stands between a text and these; the caller joins them.
        classes: names of the classes that the model predicts; none if it predicts one number.
    """

    precision: str

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        max_tokens: int,
        batch_tokens: int,
        *,
        context: int = 0,
        separator: str = "",
        classes: Sequence[str] = (),
    ) -> None:
        self.tokenizer = tokenizer
        self.max_tokens = max_tokens
        self.batch_tokens = batch_tokens
        self.context, self.separator = context, separator
        self.classes = tuple(classes)
        self.counts = TokenCounts(0, 0, 0, max_tokens)
        self.chunk_rows = CPU_CHUNK_ROWS
        self.batch_rows: int | None = None
        self.on_batch: Callable[[int], None] = lambda rows: None

    @property
    @abstractmethod
    def on_gpu(self) -> bool:
        """Whether it computes on a GPU."""

    @property
    @abstractmethod
    def place(self) -> str:
        """Where and in which precision it computes, in words."""

    @abstractmethod
    def logits(self, token_ids: list[list[int]]) -> npt.NDArray[np.float32]:
        """Logits of tokenized texts, none of them empty: `[R, *shape]`."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one prediction: (), or (C,) of classes."""
        return (len(self.classes),) if self.classes else ()

    def predict_tokens(self, token_ids: list[list[int]]) -> npt.NDArray[np.float32]:
        """Predictions of tokenized texts, none of them empty: in label units [R], or probabilities [R, C]."""
        found = self.logits(token_ids)
        if not self.classes:
            return found
        shares = np.exp(found - found.max(axis=1, keepdims=True))
        return np.asarray(shares / shares.sum(axis=1, keepdims=True), np.float32)

    def predict(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Predict the sentiment of texts, none of them empty, in their order: see `predict_tokens`."""
        chunks = [texts[start : start + self.chunk_rows] for start in range(0, len(texts), self.chunk_rows)]
        return np.concatenate([np.empty((0, *self.shape), np.float32), *self.predict_chunks(chunks)])

    def predict_chunks(self, chunks: Iterable[Sequence[str]]) -> Iterator[npt.NDArray[np.float32]]:
        """Predict chunks of texts like `predict`, reading and tokenizing the next one while the model runs."""
        following = iter(chunks)
        with ThreadPoolExecutor(1, thread_name_prefix="vadv-tokens") as thread:
            coming = thread.submit(self._tokenize_next, following)
            while (token_ids := coming.result()) is not None:
                coming = thread.submit(self._tokenize_next, following)
                yield self.predict_tokens(token_ids)

    def batches(self, lengths: npt.NDArray[np.int64]) -> list[npt.NDArray[np.int64]]:
        """Row indices of each batch of texts, given their lengths in tokens, [R]."""
        return token_budget_batches(lengths, self.batch_tokens, self.batch_rows)

    def tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text, truncated to `max_tokens`; from one thread at a time, as tokenizers keep settings."""
        token_ids: list[list[int]] = self.tokenizer(
            list(texts),
            truncation=True,
            max_length=self.max_tokens,
            return_attention_mask=False,
            return_token_type_ids=False,
        )["input_ids"]
        return token_ids

    @property
    def pad_id(self) -> int:
        """Token id of padding."""
        found = self.tokenizer.pad_token_id
        return found if isinstance(found, int) else 0

    def _tokenize_next(self, chunks: Iterator[Sequence[str]]) -> list[list[int]] | None:
        """Token ids of the next chunk's texts; None at the end."""
        texts = next(chunks, None)
        if texts is None:
            return None
        if not len(texts):
            return []
        token_ids = self.tokenize(texts)
        self._count(texts, np.fromiter(map(len, token_ids), np.int64, len(token_ids)))
        return token_ids

    def _count(self, texts: Sequence[str], lengths: npt.NDArray[np.int64]) -> None:
        """Add the texts to `counts`, including how many were truncated; only texts at the limit can have been."""
        empty = np.flatnonzero(lengths == 0)
        if empty.size:
            raise UserError(f"The tokenizer returns no tokens for {texts[int(empty[0])][:60]!r}.")
        full = count_tokens(
            self.tokenizer, [texts[int(row)] for row in np.flatnonzero(lengths >= self.max_tokens)], self.max_tokens
        )
        self.counts = TokenCounts(
            self.counts.texts + len(texts),
            self.counts.cut + full.cut,
            max(self.counts.longest, full.longest, int(lengths.max())),
            self.max_tokens,
        )
