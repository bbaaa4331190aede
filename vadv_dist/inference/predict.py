"""Predict the sentiment of texts with an exported student, without its teacher."""

import logging
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from transformers import PreTrainedTokenizerBase

from vadv_dist.cuda import has_bf16, prepare_cuda
from vadv_dist.errors import UserError, first_line
from vadv_dist.inference.batching import padded, token_budget_batches
from vadv_dist.inference.context import VIDEO_COLUMN, readings
from vadv_dist.inference.export import load_student
from vadv_dist.inference.fast_student import FastStudent, is_supported
from vadv_dist.inference.manifest import ONNX, format_of, read_manifest, resolve_student
from vadv_dist.inference.onnx_student import OnnxStudent
from vadv_dist.inference.tables import ending, table_kind
from vadv_dist.inference.text_predictor import CPU_BATCH_TOKENS, TextPredictor
from vadv_dist.inference.token_counts import TokenCounts
from vadv_dist.models.text_student import TextStudent
from vadv_dist.storage import Location, atomic_file, local_copy, location

GPU_BATCH_TOKENS = 32768

Precision = Literal["auto", "fp32", "bf16"]

# Called at the end with the number of truncated texts.
Tell = Callable[[TokenCounts], None]

PREDICTION_COLUMN = "prediction"

logger = logging.getLogger(__name__)


class Student(TextPredictor):
    """A loaded student, computed by torch.

    If a batch does not fit in a GPU's memory, it is computed in halves, and later batches are smaller.

    Args:
        student: the model; it is moved to `device` and put into eval mode.
        tokenizer, max_tokens, context, separator: as in `TextPredictor`.
        batch_tokens: bound on a batch's rows times its longest row; None chooses one for the device.
        device: a torch device; None uses a GPU if there is one.
        precision: `bf16` computes the encoder in bfloat16, which is faster on a GPU and on a CPU with AMX or
            AVX512-BF16, and slower on others. `auto` is `bf16` on a GPU that has it, `fp32` elsewhere.
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
        default = GPU_BATCH_TOKENS if self.on_gpu else CPU_BATCH_TOKENS
        super().__init__(tokenizer, max_tokens, batch_tokens or default, context=context, separator=separator)
        prepare_cuda(self.device)
        if precision == "auto":
            precision = "bf16" if self.on_gpu and has_bf16() else "fp32"
        self.precision = precision
        self.student = (FastStudent(student) if is_supported(student.encoder) else student).to(self.device).eval()
        if precision == "bf16":
            self.student.encoder.bfloat16()  # the head computes in fp32

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

    @property
    def on_gpu(self) -> bool:
        """Whether it computes on a GPU."""
        return self.device.type == "cuda"

    @property
    def place(self) -> str:
        """Where and in which precision it computes, in words."""
        name = f" ({torch.cuda.get_device_name(self.device)})" if self.on_gpu else ""
        return f"{self.device}{name} in {self.precision}"

    @torch.inference_mode()
    def predict_tokens(self, token_ids: list[list[int]]) -> npt.NDArray[np.float32]:
        """Predictions of tokenized texts, none of them empty: in label units, [R]."""
        predictions = np.empty(len(token_ids), np.float32)
        lengths = np.fromiter(map(len, token_ids), np.int64, len(token_ids))
        waiting, batches, logits = token_budget_batches(lengths, self.batch_tokens)[::-1], [], []
        while waiting:
            rows = waiting.pop()
            try:
                logits.append(self._logits([token_ids[row] for row in rows]))
                batches.append(rows)
                continue
            except torch.OutOfMemoryError:
                if len(rows) == 1:
                    raise
            # Here the error is gone, whose traceback holds the tensors of the failed call.
            longest = int(lengths[rows].max())
            self.batch_tokens = len(rows) // 2 * longest
            logger.warning(
                "A batch of %d texts of up to %d tokens does not fit in the memory of %s. From now on, batches have at "
                "most %d tokens.",
                *(len(rows), longest, self.device, self.batch_tokens),
            )
            torch.cuda.empty_cache()
            rest = np.concatenate([rows, *waiting[::-1]])
            waiting = [rest[batch] for batch in token_budget_batches(lengths[rest], self.batch_tokens)][::-1]
        if batches:  # one copy to the host, after which everything is computed
            predictions[np.concatenate(batches)] = torch.cat(logits).cpu().numpy()
        return predictions

    def _logits(self, token_ids: list[list[int]]) -> torch.Tensor:
        """Logits of one batch on the device, [B]."""
        padded_BL, mask_BL = (torch.from_numpy(array) for array in padded(token_ids, self.pad_id))
        if self.on_gpu:  # from pinned memory, the copies overlap with what the GPU still computes
            padded_BL = padded_BL.pin_memory().to(self.device, non_blocking=True)
            mask_BL = mask_BL.pin_memory().to(self.device, non_blocking=True)
        logits_B: torch.Tensor = self.student(padded_BL, mask_BL)
        return logits_B.float()


def open_text_student(
    folder: str | Location,
    *,
    batch_tokens: int | None = None,
    device: str | None = None,
    precision: Precision = "fp32",
) -> TextPredictor:
    """Load a run's student or an export, for torch or as ONNX, after verifying its files.

    Args:
        folder: the run or export.
        batch_tokens, device, precision: as in `Student`; an ONNX file is computed on a CPU in its own precision.
    Raises:
        UserError: as in `Student.load` and `OnnxStudent.load`, or a device or precision that an ONNX file does not
            have.
    """
    with local_copy(resolve_student(folder)) as path:
        if format_of(read_manifest(path)) != ONNX:
            return Student.load(location(path), batch_tokens=batch_tokens, device=device, precision=precision)
        if precision == "bf16" or not (device or "cpu").startswith("cpu"):
            raise UserError(
                f"{folder} is an ONNX export, which is computed on a CPU in the precision of its file. Leave "
                f"{'bf16' if precision == 'bf16' else f'the device {device}'} out, or give the run."
            )
        return OnnxStudent.load(path, batch_tokens=batch_tokens)


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
        UserError: an empty text, or as in `open_text_student`.
    """
    for number, text in enumerate(texts, 1):
        if not text.strip():
            raise UserError(f"Text {number} is empty. Give at least one word.")
    student = open_text_student(folder, precision=precision)
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
        predictor = open_text_student(student, precision=precision)
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
