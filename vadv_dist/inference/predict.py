"""Predict the sentiment of texts with an exported student, without its teacher."""

import logging
import os
import queue
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from pydantic import TypeAdapter, ValidationError
from transformers import PreTrainedTokenizerBase

from vadv_dist.cuda import has_bf16, prepare_cuda
from vadv_dist.errors import UserError, first_line
from vadv_dist.evaluation.conformal import ErrorQuantiles, PredictionIntervals
from vadv_dist.evaluation.label_scale import LabelScale
from vadv_dist.inference.batching import padded
from vadv_dist.inference.export import load_student
from vadv_dist.inference.fast_student import FastStudent, is_supported
from vadv_dist.inference.manifest import ONNX, classes_of, format_of, read_manifest, resolve_student
from vadv_dist.inference.onnx_student import OnnxStudent
from vadv_dist.inference.text_predictor import CPU_BATCH_TOKENS, CPU_CHUNK_ROWS, TextPredictor
from vadv_dist.inference.token_counts import TokenCounts
from vadv_dist.models.text_student import TextStudent
from vadv_dist.storage import Location, local_copy, location

GPU_BATCH_TOKENS, GPU_CHUNK_ROWS = 32768, 16384

Precision = Literal["auto", "fp32", "bf16"]
# oneDNN keeps what it prepared for the last 1,024 shapes of matrices. Batches of texts have ever new shapes, so that
# the process would grow by hundreds of MiB.
_NUM_SHAPES_KEPT = "ONEDNN_PRIMITIVE_CACHE_CAPACITY"

# Called at the end with the number of truncated texts.
Tell = Callable[[TokenCounts], None]

logger = logging.getLogger(__name__)


class Student(TextPredictor):
    """A loaded student, computed by torch.

    If a batch does not fit in a GPU's memory, it is computed in halves, and later batches are smaller.

    Args:
        student: the model; it is moved to `device` and put into eval mode.
        tokenizer, max_tokens, context, separator, classes: as in `TextPredictor`.
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
        classes: Sequence[str] = (),
        batch_tokens: int | None = None,
        device: str | None = None,
        precision: Precision = "fp32",
    ) -> None:
        self.device = _device(device)
        default = GPU_BATCH_TOKENS if self.on_gpu else CPU_BATCH_TOKENS
        super().__init__(
            tokenizer, max_tokens, batch_tokens or default, context=context, separator=separator, classes=classes
        )
        self.chunk_rows = GPU_CHUNK_ROWS if self.on_gpu else CPU_CHUNK_ROWS
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
            classes=classes_of(manifest),
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
    def logits(self, token_ids: list[list[int]]) -> npt.NDArray[np.float32]:
        """See `TextPredictor.logits`."""
        found = np.empty((len(token_ids), *self.shape), np.float32)
        lengths = np.fromiter(map(len, token_ids), np.int64, len(token_ids))
        waiting, batches, logits = self.batches(lengths)[::-1], [], []
        while waiting:
            rows = waiting.pop()
            try:
                logits.append(self._logits([token_ids[row] for row in rows]))
                batches.append(rows)
                self.on_batch(len(rows))
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
            waiting = [rest[batch] for batch in self.batches(lengths[rest])][::-1]
        if batches:  # one copy to the host, after which everything is computed
            found[np.concatenate(batches)] = torch.cat(logits).cpu().numpy()
        return found

    def _logits(self, token_ids: list[list[int]]) -> torch.Tensor:
        """Logits of one batch on the device, `[B, *shape]`."""
        padded_BL, mask_BL = (torch.from_numpy(array) for array in padded(token_ids, self.pad_id))
        if self.on_gpu:  # from pinned memory, the copies overlap with what the GPU still computes
            padded_BL = padded_BL.pin_memory().to(self.device, non_blocking=True)
            mask_BL = mask_BL.pin_memory().to(self.device, non_blocking=True)
        logits: torch.Tensor = self.student(padded_BL, mask_BL)
        return logits.float()


def open_text_student(
    folder: str | Location,
    *,
    batch_tokens: int | None = None,
    device: str | None = None,
    precision: Precision = "fp32",
) -> TextPredictor:
    """Load a run's student or an export, for torch or as ONNX, after verifying its files.

    Unless the process has computed before, or its environment says otherwise, memory does not grow with the number of
    texts.

    Args:
        folder: the run or export.
        batch_tokens, device, precision: as in `Student`; an ONNX file is computed on a CPU in its own precision.
    Raises:
        UserError: as in `Student.load` and `OnnxStudent.load`, or a device or precision that an ONNX file does not
            have.
    """
    os.environ.setdefault(_NUM_SHAPES_KEPT, "0")
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
    device: str | None = None,
    precision: Precision = "fp32",
    tell: Tell = lambda counts: None,
) -> npt.NDArray[np.float32]:
    """Predict the sentiment of texts with the student of a run or an export.

    Args:
        folder: the run or export.
        texts: the texts; for a student with context, each with the utterances before it (`Student.separator`).
        device, precision: as in `Student`.
        tell: called at the end with the number of truncated texts.
    Returns:
        predictions in label units [R], or probabilities of classes [R, C], in the order of `texts`.
    Raises:
        UserError: an empty text, or as in `open_text_student`.
    """
    for number, text in enumerate(texts, 1):
        if not text.strip():
            raise UserError(f"Text {number} is empty. Give at least one word.")
    student = open_text_student(folder, device=device, precision=precision)
    predictions = student.predict(texts)
    tell(student.counts)
    return predictions


def prediction_intervals(folder: str | Location, level: float) -> PredictionIntervals:
    """Intervals from a student's errors on the validation split.

    Args:
        folder: a run or an export.
        level: share of labels that they shall contain.
    Raises:
        UserError: not a run or export, a student without such errors, or as in `ErrorQuantiles.half_width`.
    """
    manifest = read_manifest(resolve_student(folder))
    if classes := classes_of(manifest):
        raise UserError(
            f"{folder} predicts classes ({', '.join(classes)}), but an interval is one of numbers. Leave --interval "
            "out: the probabilities of the classes, which are printed too, say how certain a prediction is."
        )
    try:
        errors = TypeAdapter(ErrorQuantiles).validate_python(manifest.get("errors"))
    except ValidationError:
        raise UserError(
            f"{folder} holds no errors on the validation split, from which intervals are computed: it was trained by "
            "an older version. Train it again, or leave --interval out."
        ) from None
    half_width, labels = errors.half_width(level), manifest.get("labels")
    if labels is None:
        return PredictionIntervals(half_width, errors.clips)
    scale = LabelScale.from_json(labels)
    return PredictionIntervals(half_width, errors.clips, scale.low, scale.high)


def predict_lines(
    predictor: TextPredictor, file: Iterable[str]
) -> Iterator[tuple[str, np.float32 | npt.NDArray[np.float32] | None]]:
    """Predict lines as they come, together with all others that have come by then.

    Args:
        predictor: the student.
        file: the lines, of which another thread reads the next ones.
    Yields:
        each line without its end, and its prediction in label units, or probabilities [C]; None for a blank line.
    """
    waiting: queue.Queue[str | BaseException | None] = queue.Queue(predictor.chunk_rows)

    def read() -> None:
        try:
            for line in file:
                waiting.put(line.rstrip("\r\n"))
            waiting.put(None)
        except BaseException as error:  # raised by the caller's thread
            waiting.put(error)

    threading.Thread(target=read, daemon=True, name="vadv-lines").start()
    goes_on = True
    while goes_on:
        lines: list[str] = []
        entry = waiting.get()
        while isinstance(entry, str) and len(lines) < predictor.chunk_rows:
            lines.append(entry)
            if waiting.empty():
                break
            entry = waiting.get()
        goes_on = isinstance(entry, str)
        predictions = iter(predictor.predict([line for line in lines if line.strip()]))
        yield from ((line, next(predictions) if line.strip() else None) for line in lines)
        if isinstance(entry, BaseException):
            raise entry


def _device(name: str | None) -> torch.device:
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UserError(f"Device {name!r} is unknown, expected cpu, cuda, or cuda:1 for the second GPU.") from None
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # AssertionError if torch was built without CUDA
        raise UserError(
            f"Device {name!r} cannot be used: {first_line(error).rstrip('.')}. Use cpu, or leave it out."
        ) from None
    return device
