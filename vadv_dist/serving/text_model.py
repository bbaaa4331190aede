"""A student of texts as a server's batches use it: tokenize first, predict any tokenized texts later."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vadv_dist.inference.batching import groups_of_similar_length
from vadv_dist.inference.text_predictor import TextPredictor
from vadv_dist.inference.token_counts import count_tokens

# What a call of the model costs beside its tokens, as a number of tokens. On a CPU with MiniLM, 16 to 64 are
# equally good and save a fifth of the time of 32 sentences. On an H100, a call with MiniLM costs as much as 4,000
# tokens in fp32 and 20,000 in bf16; 1,024 to 65,536 are equally good (benchmarks/serve_gpu.py).
CPU_GROUP_TOKENS, GPU_GROUP_TOKENS = 32, 8192


@dataclass(frozen=True)
class Reading:
    """A tokenized text.

    Attributes:
        token_ids: its tokens, [L].
        is_truncated: whether it had more.
    """

    token_ids: list[int]
    is_truncated: bool

    @property
    def num_tokens(self) -> int:
        """L."""
        return len(self.token_ids)


class TextModel:
    """A student, called from one thread at a time.

    Args:
        student: the student.
    """

    def __init__(self, student: TextPredictor) -> None:
        self.student = student

    def warm_up(self) -> None:
        """Compute once, because the first call allocates and compiles.

        On a GPU, also the largest batch that requests can form, so that its memory is taken, or found to be too small,
        before the first request.
        """
        (reading,) = self.read(["one two three"])
        self.predict([reading])
        if self.student.on_gpu:
            longest = (reading.token_ids * self.student.max_tokens)[: self.student.max_tokens]
            self.student.predict_tokens([longest] * max(1, self.student.batch_tokens // len(longest)))

    def read(self, texts: Sequence[str]) -> list[Reading]:
        """Tokenize texts; only those at the limit can have been truncated."""
        student = self.student
        limit = student.max_tokens
        return [
            Reading(ids, len(ids) >= limit and bool(count_tokens(student.tokenizer, [text], limit).cut))
            for text, ids in zip(texts, student.tokenize(texts), strict=True)
        ]

    def predict(self, readings: Sequence[Reading]) -> list[float] | list[list[float]]:
        """R predictions: numbers in label units, or a list of the probabilities of classes each."""
        lengths = np.fromiter((reading.num_tokens for reading in readings), np.int64, len(readings))
        predictions = np.empty((len(readings), *self.student.shape), np.float32)
        fixed = GPU_GROUP_TOKENS if self.student.on_gpu else CPU_GROUP_TOKENS
        for rows in groups_of_similar_length(lengths, fixed):
            predictions[rows] = self.student.predict_tokens([readings[row].token_ids for row in rows])
        results: list[float] | list[list[float]] = predictions.tolist()
        return results
