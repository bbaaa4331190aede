"""A student as a server's batches use it: tokenize first, predict any tokenized texts later."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vadv_dist.inference.batching import groups_of_similar_length
from vadv_dist.inference.export import load_student
from vadv_dist.inference.manifest import read_manifest, resolve_student, verify_export
from vadv_dist.inference.predict import Student
from vadv_dist.inference.token_counts import count_tokens
from vadv_dist.serving.settings import ServeSettings, StudentFacts
from vadv_dist.storage import Location, local_copy

# What a call of the model costs beside its tokens, as a number of tokens. On a CPU with MiniLM, 16 to 64 are
# equally good and save a fifth of the time of 32 sentences. The value for GPUs is a guess: there a call costs far more.
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


class TextModel:
    """A student, called from one thread at a time.

    Args:
        student: the student.
    """

    def __init__(self, student: Student) -> None:
        self.student = student

    def warm_up(self) -> None:
        """Compute once, because the first call allocates and compiles.

        On a GPU, also the largest batch that requests can form, so that its memory is taken, or found to be too small,
        before the first request.
        """
        self.predict(self.read(["one two three"]))
        if self.student.on_gpu:
            longest = (self.read(["one two three"])[0].token_ids * self.student.max_tokens)[: self.student.max_tokens]
            self.student.predict_tokens([longest] * max(1, self.batch_tokens // len(longest)))

    @property
    def batch_tokens(self) -> int:
        """Bound on a batch's rows times its longest row."""
        return self.student.batch_tokens

    def read(self, texts: Sequence[str]) -> list[Reading]:
        """Tokenize texts; only those at the limit can have been truncated."""
        student = self.student
        limit = student.max_tokens
        return [
            Reading(ids, len(ids) >= limit and bool(count_tokens(student.tokenizer, [text], limit).cut))
            for text, ids in zip(texts, student.tokenize(texts), strict=True)
        ]

    def predict(self, readings: Sequence[Reading]) -> npt.NDArray[np.float32]:
        """Predictions in label units, [R]."""
        lengths = np.fromiter((len(reading.token_ids) for reading in readings), np.int64, len(readings))
        predictions = np.empty(len(readings), np.float32)
        fixed = GPU_GROUP_TOKENS if self.student.on_gpu else CPU_GROUP_TOKENS
        for rows in groups_of_similar_length(lengths, fixed):
            predictions[rows] = self.student.predict_tokens([readings[row].token_ids for row in rows])
        return predictions


def load_text_model(settings: ServeSettings) -> tuple[TextModel, StudentFacts]:
    """Load a run's student or an export after verifying its files.

    Raises:
        UserError: as in `Student.load`.
    """
    if settings.threads is not None:
        import torch

        torch.set_num_threads(settings.threads)
    with local_copy(resolve_student(settings.source)) as path:
        loaded, tokenizer, max_tokens = load_student(path)
        facts = StudentFacts.from_manifest(read_manifest(path))  # verified with the other files
    student = Student(
        loaded,
        tokenizer,
        max_tokens,
        batch_tokens=settings.batch_tokens,
        device=settings.device,
        precision=settings.precision,
    )
    return TextModel(student), facts


def verified_facts(source: Location) -> StudentFacts:
    """Facts of a run's student or an export, whose files are verified but not loaded.

    Raises:
        UserError: as in `resolve_student` and `verify_export`.
    """
    with local_copy(resolve_student(source)) as path:
        verify_export(path)
        return StudentFacts.from_manifest(read_manifest(path))
