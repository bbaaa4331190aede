"""Predict the sentiment of texts with an exported student, without its teacher."""

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import torch
from transformers import PreTrainedTokenizerBase

from vadv_dist.errors import UserError, first_line
from vadv_dist.inference.batching import padded, token_budget_batches
from vadv_dist.inference.export import load_student
from vadv_dist.inference.fast_student import FastStudent, is_supported
from vadv_dist.inference.manifest import resolve_student
from vadv_dist.inference.tables import table_kind
from vadv_dist.inference.token_counts import TokenCounts, count_tokens
from vadv_dist.models.text_student import TextStudent
from vadv_dist.storage import Location, atomic_file, local_copy, location

# Large enough to use the whole machine, small enough for a CPU's caches; measured with benchmarks/predict.py.
CPU_BATCH_TOKENS = 2048
GPU_BATCH_TOKENS = 32768

# Called at the end with the number of truncated texts.
Tell = Callable[[TokenCounts], None]

PREDICTION_COLUMN = "prediction"


class Student:
    """A loaded student, ready for any number of calls.

    Args:
        student: the model; it is moved to `device` and put into eval mode.
        tokenizer: its tokenizer.
        max_tokens: texts are truncated to this many tokens, as in training.
        batch_tokens: bound on a batch's rows times its longest row; None chooses one for the device.
        device: a torch device; None uses a GPU if there is one.
    Raises:
        UserError: this machine does not have the device.
    """

    def __init__(
        self,
        student: TextStudent,
        tokenizer: PreTrainedTokenizerBase,
        max_tokens: int,
        *,
        batch_tokens: int | None = None,
        device: str | None = None,
    ) -> None:
        self.device = _device(device)
        self.student = (FastStudent(student) if is_supported(student.encoder) else student).to(self.device).eval()
        self.tokenizer = tokenizer
        self.max_tokens = max_tokens
        self.counts = TokenCounts(0, 0, 0, max_tokens)
        default = CPU_BATCH_TOKENS if self.device.type == "cpu" else GPU_BATCH_TOKENS
        self.batch_tokens = batch_tokens or default

    @classmethod
    def load(cls, folder: str | Location, *, batch_tokens: int | None = None, device: str | None = None) -> "Student":
        """Load an export or a run's student after verifying its files.

        Raises:
            UserError: as in `resolve_student` and `load_student`.
        """
        with local_copy(resolve_student(folder)) as path:
            student, tokenizer, max_tokens = load_student(path)
        return cls(student, tokenizer, max_tokens, batch_tokens=batch_tokens, device=device)

    def predict(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Predict the sentiment of texts, none of them empty: in label units, [R], in the order of the texts."""
        predictions = np.empty(len(texts), np.float32)
        if not len(texts):
            return predictions
        token_ids = self.tokenizer(
            list(texts),
            truncation=True,
            max_length=self.max_tokens,
            return_attention_mask=False,
            return_token_type_ids=False,
        )["input_ids"]
        lengths = np.fromiter(map(len, token_ids), np.int64, len(token_ids))
        self._count(texts, lengths)
        pad_id = self.tokenizer.pad_token_id or 0
        with torch.inference_mode():
            for rows in token_budget_batches(lengths, self.batch_tokens):
                input_ids, mask = padded([token_ids[row] for row in rows], pad_id)
                logit_B = self.student(
                    torch.from_numpy(input_ids).to(self.device), torch.from_numpy(mask).to(self.device)
                )
                predictions[rows] = logit_B.float().cpu().numpy()
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
    folder: str | Location, texts: Sequence[str], *, tell: Tell = lambda counts: None
) -> npt.NDArray[np.float32]:
    """Predict the sentiment of texts with the student of a run or an export.

    Returns:
        predictions in label units, [R], in the order of `texts`.
    Raises:
        UserError: an empty text, or as in `Student.load`.
    """
    for number, text in enumerate(texts, 1):
        if not text.strip():
            raise UserError(f"Text {number} is empty. Give at least one word.")
    student = Student.load(folder)
    predictions = student.predict(texts)
    tell(student.counts)
    return predictions


def predict_file(
    folder: str | Location,
    input_path: str | Location,
    output_path: str | Location,
    *,
    text_column: str = "text",
    tell: Tell = lambda counts: None,
) -> int:
    """Copy a table and add a column `prediction`, in label units.

    The file is read in pieces, so that it may be larger than memory; the new one appears completely or not at all.

    Args:
        folder: a run, or a folder written by `vadv export`.
        input_path: a .csv (UTF-8, with a header) or .parquet file; one in an object store is copied to this machine.
        output_path: the file to create, in the same format.
        text_column: column of `input_path` with the texts.
        tell: called at the end with the number of truncated texts.
    Returns:
        number of rows.
    Raises:
        UserError: input and output are the same file or have different formats, the output exists, the input cannot be
            read or lacks the text column, a text is empty, or as in `Student.load`.
    """
    source, target = location(input_path), location(output_path)
    kind = table_kind(source)
    with local_copy(source) as path:
        table = kind(path, text_column, PREDICTION_COLUMN)
        _require_new(source, target)
        # Cheap checks first, so that an empty text is reported before any prediction.
        student = resolve_student(folder)
        num_rows = table.check_texts()
        predictor = Student.load(student)
        predictions = np.concatenate([np.empty(0, np.float32), *(predictor.predict(texts) for texts in table.texts())])
        with atomic_file(target) as partial:
            table.write_with(partial, predictions)
    tell(predictor.counts)
    return num_rows


def _require_new(source: Location, target: Location) -> None:
    if source.resolve() == target.resolve():
        raise UserError(f"Input and output are both {source}. Choose another output file.")
    if target.suffix.lower() != source.suffix.lower():
        raise UserError(
            f"The output {target} ends in {target.suffix or 'nothing'!r}, but the input in {source.suffix!r}. Use the "
            "same suffix."
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
