"""Load the student of a server: what computes, and what is offered."""

from dataclasses import dataclass
from pathlib import Path

from vadv_dist.errors import UserError
from vadv_dist.inference.manifest import (
    ONNX,
    PYTORCH,
    RETRIEVAL,
    format_of,
    read_manifest,
    resolve_student,
    task_of,
    verify_export,
)
from vadv_dist.inference.predict import open_text_student
from vadv_dist.inference.retrieval_export import verify_retrieval
from vadv_dist.inference.retrieve import PairStudent
from vadv_dist.serving.batcher import Batcher, Model
from vadv_dist.serving.metrics import ServeMetrics
from vadv_dist.serving.service import Service
from vadv_dist.serving.settings import ServeSettings
from vadv_dist.serving.text_model import TextModel
from vadv_dist.serving.texts import TextService
from vadv_dist.serving.vector_model import VectorModel
from vadv_dist.serving.vectors import VectorService
from vadv_dist.storage import local_copy, location

# Vectors of a batch.
_BATCH_VECTORS = 4096


@dataclass(frozen=True)
class Loaded:
    """A loaded student.

    Attributes:
        model: what computes.
        batch_tokens: bound on a batch's tokens, where a vector counts as one.
        place: where and in which precision it computes, in words.
        service: what it offers.
    """

    model: Model
    batch_tokens: int
    place: str
    service: Service

    def batcher(self, settings: ServeSettings, metrics: ServeMetrics) -> Batcher:
        """Batches of concurrent requests for this student."""
        return Batcher(
            self.model,
            batch_tokens=self.batch_tokens,
            max_wait_s=settings.max_wait_ms / 1000,
            max_queued=settings.queue,
            observe=metrics.observe_batch,
        )


def load_model(settings: ServeSettings) -> Loaded:
    """Load a run's student or an export after verifying its files.

    Raises:
        UserError: as in `open_text_student` and `PairStudent.load`, or the student does not have the device or the
            precision.
    """
    if settings.threads is not None:
        import torch

        torch.set_num_threads(settings.threads)
    with local_copy(resolve_student(settings.source)) as path:
        if task_of(read_manifest(path)) == RETRIEVAL:
            if settings.precision == "bf16" or not (settings.device or "cpu").startswith("cpu"):
                raise UserError(
                    f"{settings.source} is a student of retrieval, whose small towers are computed on a CPU in fp32. "
                    "Leave --device and --precision out."
                )
            pair = VectorModel(PairStudent.load(location(path)))
            place = "cpu in fp32 by onnxruntime" if format_of(read_manifest(path)) == ONNX else "cpu in fp32"
            return Loaded(pair, settings.batch_tokens or _BATCH_VECTORS, place, _service(path, settings))
        student = open_text_student(
            location(path), batch_tokens=settings.batch_tokens, device=settings.device, precision=settings.precision
        )
        service = _service(path, settings)
    if settings.precision not in ("auto", student.precision):
        raise UserError(
            f"{settings.source} is in {student.precision}, so it cannot be computed in {settings.precision}. Leave "
            "--precision out."
        )
    return Loaded(TextModel(student), student.batch_tokens, student.place, service)


def verified_service(settings: ServeSettings) -> Service:
    """What a run's student or an export offers, whose files are verified but not loaded.

    Raises:
        UserError: as in `resolve_student`, `verify_export` and `verify_retrieval`.
    """
    with local_copy(resolve_student(settings.source)) as path:
        if task_of(read_manifest(path)) == RETRIEVAL:
            verify_retrieval(path, PYTORCH, ONNX)
        else:
            verify_export(path, PYTORCH, ONNX)
        return _service(path, settings)


def _service(path: Path, settings: ServeSettings) -> Service:
    """What an export offers; its files have been verified."""
    raw = read_manifest(path)
    if task_of(raw) == RETRIEVAL:
        return VectorService.from_manifest(raw, settings)
    return TextService.from_manifest(raw, settings)
