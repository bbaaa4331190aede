"""Predict the sentiment of texts with an exported student, without its teacher."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from transformers import PreTrainedTokenizerBase

from vadv_dist.cuda import prepare_cuda
from vadv_dist.errors import UserError, first_line
from vadv_dist.inference.batching import padded, token_budget_batches
from vadv_dist.inference.context import VIDEO_COLUMN, readings
from vadv_dist.inference.export import load_student
from vadv_dist.inference.fast_student import FastStudent, is_supported
from vadv_dist.inference.manifest import read_manifest, resolve_student
from vadv_dist.inference.tables import CHUNK_ROWS, ending, table_kind
from vadv_dist.inference.token_counts import TokenCounts, count_tokens
from vadv_dist.models.text_student import TextStudent
from vadv_dist.storage import Location, atomic_file, local_copy, location

# Large enough to use the whole machine, small enough for a CPU's caches; measured with benchmarks/predict.py.
CPU_BATCH_TOKENS = 2048
GPU_BATCH_TOKENS = 32768

Precision = Literal["fp32", "bf16"]

# Called at the end with the number of truncated texts.
Tell = Callable[[TokenCounts], None]

PREDICTION_COLUMN = "prediction"


class Student:
    """A loaded student, ready for any number of calls.

    Args:
        student: the model; it is moved to `device` and put into eval mode.
        tokenizer: its tokenizer.
        max_tokens: texts are truncated to this many tokens, as in training.
        context: maximum number of utterances before a text in its video that the model also reads, the nearest first.
        separator: stands between a text and these; the caller joins them.
        batch_tokens: bound on a batch's rows times its longest row; None chooses one for the device.
        device: a torch device; None uses a GPU if there is one.
        precision: `bf16` computes the encoder in bfloat16, which is faster on a GPU and on a CPU with AMX or
            AVX512-BF16, and slower on others.
    Raises:
        UserError: this machine does not have the device.
    """

    def __init__(
        self,
        student: TextStudent,
        tokenizer: PreTrainedTokenizerBase,
        max_tokens: int,
        *,
        context: int = 0,
        separator: str = "",
        batch_tokens: int | None = None,
        device: str | None = None,
        precision: Precision = "fp32",
    ) -> None:
        self.device = _device(device)
        prepare_cuda(self.device)
        self.student = (FastStudent(student) if is_supported(student.encoder) else student).to(self.device).eval()
        if precision == "bf16":
            self.student.encoder.bfloat16()  # the head computes in fp32
        self.tokenizer = tokenizer
        self.max_tokens = max_tokens
        self.context, self.separator = context, separator
        self.counts = TokenCounts(0, 0, 0, max_tokens)
        default = CPU_BATCH_TOKENS if self.device.type == "cpu" else GPU_BATCH_TOKENS
        self.batch_tokens = batch_tokens or default

    @classmethod
    def load(
        cls,
        folder: str | Location,
        *,
        batch_tokens: int | None = None,
        device: str | None = None,
        precision: Precision = "fp32",
    ) -> "Student":
        """Load an export or a run's student after verifying its files.

        Raises:
            UserError: as in `resolve_student` and `load_student`.
        """
        with local_copy(resolve_student(folder)) as path:
            student, tokenizer, max_tokens = load_student(path)
            manifest = read_manifest(path)  # verified with the other files
        return cls(
            student,
            tokenizer,
            max_tokens,
            context=int(manifest.get("context", 0)),
            separator=str(manifest.get("separator", "")),
            batch_tokens=batch_tokens,
            device=device,
            precision=precision,
        )

    def predict(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Predict the sentiment of texts, none of them empty: in label units, [R], in the order of the texts."""
        chunks = [texts[start : start + CHUNK_ROWS] for start in range(0, len(texts), CHUNK_ROWS)]
        return np.concatenate([np.empty(0, np.float32), *self.predict_chunks(chunks)])

    def predict_chunks(self, chunks: Iterable[Sequence[str]]) -> Iterator[npt.NDArray[np.float32]]:
        """Predict chunks of texts like `predict`, reading and tokenizing the next one while the model runs."""
        following = iter(chunks)
        with ThreadPoolExecutor(1, thread_name_prefix="vadv-tokens") as thread:
            coming = thread.submit(self._tokenize_next, following)
            while (token_ids := coming.result()) is not None:
                coming = thread.submit(self._tokenize_next, following)
                yield self.predict_tokens(token_ids)

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

    @torch.inference_mode()
    def predict_tokens(self, token_ids: list[list[int]]) -> npt.NDArray[np.float32]:
        """Predictions of tokenized texts, none of them empty: in label units, [R]."""
        predictions = np.empty(len(token_ids), np.float32)
        lengths = np.fromiter(map(len, token_ids), np.int64, len(token_ids))
        pad_id = self.tokenizer.pad_token_id or 0
        batches, logits = token_budget_batches(lengths, self.batch_tokens), []
        for rows in batches:
            padded_BL, mask_BL = (torch.from_numpy(a) for a in padded([token_ids[row] for row in rows], pad_id))
            logits.append(
                self.student(
                    padded_BL.to(self.device, non_blocking=True), mask_BL.to(self.device, non_blocking=True)
                ).float()
            )
        if batches:  # one copy to the host, after which everything is computed
            predictions[np.concatenate(batches)] = torch.cat(logits).cpu().numpy()
        return predictions

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


def predict_texts(
    folder: str | Location,
    texts: Sequence[str],
    *,
    precision: Precision = "fp32",
    tell: Tell = lambda counts: None,
) -> npt.NDArray[np.float32]:
    """Predict the sentiment of texts with the student of a run or an export.

    Args:
        folder: the run or export.
        texts: the texts; for a student with context, each with the utterances before it (`Student.separator`).
        precision: as in `Student`.
        tell: called at the end with the number of truncated texts.
    Returns:
        predictions in label units, [R], in the order of `texts`.
    Raises:
        UserError: an empty text, or as in `Student.load`.
    """
    for number, text in enumerate(texts, 1):
        if not text.strip():
            raise UserError(f"Text {number} is empty. Give at least one word.")
    student = Student.load(folder, precision=precision)
    predictions = student.predict(texts)
    tell(student.counts)
    return predictions


def predict_file(
    folder: str | Location,
    input_path: str | Location,
    output_path: str | Location,
    *,
    text_column: str = "text",
    video_column: str = VIDEO_COLUMN,
    precision: Precision = "fp32",
    tell: Tell = lambda counts: None,
) -> int:
    """Copy a table and add a column `prediction`, in label units.

    The file is read in pieces, so that it may be larger than memory; the new one appears completely or not at all.

    Args:
        folder: a run, or a folder written by `vadv export`.
        input_path: a .csv (UTF-8, with a header) or .parquet file; one in an object store is copied to this machine.
        output_path: the file to create, in the same format.
        text_column: column of `input_path` with the texts.
        video_column: column with the video of each text, in whose order they were said; read only for a student with
            context.
        precision: as in `Student`.
        tell: called at the end with the number of truncated texts.
    Returns:
        number of rows.
    Raises:
        UserError: input and output are the same file or have different formats, the output exists, the input cannot be
            read or lacks the text column or, for a student with context, that of videos, a text is empty, or as in
            `Student.load`.
    """
    source, target = location(input_path), location(output_path)
    kind = table_kind(source)
    with local_copy(source) as path:
        table = kind(path, text_column, PREDICTION_COLUMN)
        _require_new(source, target)
        # Cheap checks first, so that an empty text is reported before any prediction.
        student = resolve_student(folder)
        num_rows = table.check_texts()
        predictor = Student.load(student, precision=precision)
        texts = table.texts()
        if predictor.context:
            texts = readings(table, video_column, context=predictor.context, separator=predictor.separator)
        predictions = np.concatenate([np.empty(0, np.float32), *predictor.predict_chunks(texts)])
        with atomic_file(target) as partial:
            table.write_with(partial, predictions)
    tell(predictor.counts)
    return num_rows


def _require_new(source: Location, target: Location) -> None:
    if source.resolve() == target.resolve():
        raise UserError(f"Input and output are both {source}. Choose another output file.")
    if target.suffix.lower() != source.suffix.lower():
        raise UserError(
            f"The output {target} {ending(target)}, but the input ends in {source.suffix!r}. Use the same suffix."
        )
    if target.exists():
        raise UserError(f"{target} already exists and is never overwritten. Choose another file, or remove it.")


def _device(name: str | None) -> torch.device:
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # AssertionError if torch was built without CUDA
        raise UserError(
            f"Device {name!r} cannot be used: {first_line(error).rstrip('.')}. Use cpu, or leave it out."
        ) from None
    return device
