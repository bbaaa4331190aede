"""Whole training steps recorded as CUDA graphs: one launch in place of thousands, for batches of one shape each.

A recorded step reads its batches, learning rates, loss weights and random seed from device memory, where they are
replaced before each replay, so replays differ exactly as eager steps do. Graphs share one pool of memory, since only
one runs at a time.
"""

import gc
from collections.abc import Callable, Sequence

import torch

from vadv_dist.data.schema import Batch
from vadv_dist.engines.protocol import StepResult
from vadv_dist.errors import first_line

Replay = Callable[[], None]
# Records a step without running it: its results, whose values each call of the replay replaces.
Record = Callable[[Callable[[], StepResult]], tuple[StepResult, Replay]]
_MAX_GRAPHS = 32


class StepGraphs:
    """Runs steps: the first of each shape as it is, the second recorded, later ones replayed.

    What cannot be recorded runs as it is, and a note says why.

    Args:
        run: a step on batches that are on the device, without reading values from it.
        discard: removes what an attempt to record leaves behind: gradients without values.
        device: the device.
        record: records a step; `CudaRecorder`, where that is not under test.
    """

    def __init__(
        self,
        run: Callable[[Sequence[Batch]], StepResult],
        discard: Callable[[], None],
        device: torch.device,
        record: Record,
    ) -> None:
        self._run, self._discard, self._device, self._record = run, discard, device, record
        self._seen: set[object] = set()
        self._recorded: dict[object, _RecordedStep] = {}
        self._may_record = True
        self._notes: list[str] = []

    def __call__(self, batches: Sequence[Batch]) -> StepResult:
        """Run one step on batches from the host."""
        shape = tuple(_shape(batch) for batch in batches)
        if shape in self._recorded:
            return self._recorded[shape].replay(batches)
        moved = [batch.to(self._device) for batch in batches]
        if not self._may_record or shape not in self._seen:
            self._seen.add(shape)
            return self._run(moved)
        if len(self._recorded) == _MAX_GRAPHS:
            self._stop(f"{_MAX_GRAPHS} shapes of batches are recorded, which is the limit.")
            return self._run(moved)
        try:
            self._recorded[shape] = _RecordedStep(moved, self._run, self._record)
        except RuntimeError as error:
            if isinstance(error, torch.OutOfMemoryError):
                self._stop(f"Memory is full after recording {len(self._recorded)} shapes of batches.")
            else:
                self._stop(f"A step cannot be recorded as a CUDA graph ({first_line(error)}).")
            self._discard()
            return self._run(moved)
        return self._recorded[shape].replay(batches)

    def take_notes(self) -> list[str]:
        """See `Engine.take_notes`."""
        notes, self._notes = self._notes, []
        return notes

    def _stop(self, why: str) -> None:
        self._may_record = False
        self._notes.append(f"{why} Other steps run without CUDA graphs, which is slower.")


class _RecordedStep:
    """One step with its own batches, which each replay fills."""

    def __init__(self, batches: Sequence[Batch], run: Callable[[Sequence[Batch]], StepResult], record: Record) -> None:
        self._batches = batches
        (self._terms, self._norm), self._replay = record(lambda: run(batches))

    def replay(self, batches: Sequence[Batch]) -> StepResult:
        """Run the step on other batches of the same shapes."""
        for own, given in zip(self._batches, batches, strict=True):
            for target, source in zip(own.tensors(), given.tensors(), strict=True):
                target.copy_(source, non_blocking=True)
        self._replay()
        # The next replay of any graph overwrites the results.
        terms = [dict(zip(own, torch.stack([*own.values()]).unbind(), strict=True)) for own in self._terms]
        return terms, self._norm.clone()


class CudaRecorder:
    """Records on the current CUDA device, into one pool of memory."""

    def __init__(self) -> None:
        self._pool = torch.cuda.graph_pool_handle()

    def __call__(self, step: Callable[[], StepResult]) -> tuple[StepResult, Replay]:
        """See `Record`."""
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph, pool=self._pool):
                results = step()
        except RuntimeError:
            graph.reset()
            gc.collect()  # tensors of the attempt, which an exception's frames may hold
            raise
        return results, graph.replay


def _shape(batch: Batch) -> object:
    """What a recorded step depends on: names, shapes and types of a batch's tensors."""
    return *batch.fields, *((tensor.shape, tensor.dtype) for tensor in batch.tensors())
