"""Whole training steps and validation batches recorded as CUDA graphs: one launch in place of thousands.

What is recorded reads its batches, learning rates, loss weights and random seed from device memory, where they are
replaced before each replay, so replays differ exactly as eager runs do. There is one graph for each shape of batches.
Graphs share one pool of memory, since only one runs at a time.
"""

import gc
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

import torch

from vadv_dist.data.schema import Batch
from vadv_dist.engines.faults import is_out_of_memory
from vadv_dist.errors import first_line

R = TypeVar("R")
Replay = Callable[[], None]
_MAX_GRAPHS = 32


class Record(Protocol):
    """Records an action without running it."""

    def __call__(self, action: Callable[[], R]) -> tuple[R, Replay]:
        """The action's results, whose values each call of the replay replaces.

        Raises:
            RuntimeError: the action cannot be recorded.
        """
        ...


class Graphs:
    """Runs an engine's actions on batches: the first with batches of a shape as it is, the second recorded, later ones
    replayed.

    What cannot be recorded runs as it is, and a note says why. If memory is full, no more graphs are recorded; if what
    runs without one does not fit beside them, all are removed.

    Args:
        device: the device.
        record: records an action; `CudaRecorder`, where that is not under test.
        discard: removes what an interrupted action leaves behind, such as gradients.
    """

    def __init__(self, device: torch.device, record: Record, discard: Callable[[], None]) -> None:
        self._device, self._record, self._discard = device, record, discard
        self._seen: set[object] = set()
        self._recorded: dict[object, _Recorded] = {}
        self._refused: set[object] = set()
        self._is_full = False
        self._notes: list[str] = []

    def run(self, action: Callable[[Sequence[Batch]], R], batches: Sequence[Batch], *, what: str) -> R:
        """Run an action.

        Args:
            action: a method whose results depend on batches on the device and reads no values from it. It may run
                again if memory is full, and changes nothing but gradients before its last allocation.
            batches: its batches, on the host or the device.
            what: the action as the subject of a sentence.
        Returns:
            the results; the next replay of the action may overwrite them.
        """
        key = action, tuple(_shape(batch) for batch in batches)
        recorded = self._recorded.get(key)
        if recorded is None and key in self._seen and not self._is_full and action not in self._refused:
            recorded = self._try_to_record(key, action, batches, what)
        self._seen.add(key)
        if recorded is not None:
            result: R = recorded.replay(batches)
            return result
        return self._run_eagerly(action, [batch.to(self._device) for batch in batches])

    def take_notes(self) -> list[str]:
        """See `Engine.take_notes`."""
        notes, self._notes = self._notes, []
        return notes

    def _try_to_record(
        self, key: object, action: Callable[[Sequence[Batch]], object], batches: Sequence[Batch], what: str
    ) -> "_Recorded | None":
        if len(self._recorded) == _MAX_GRAPHS:
            self._is_full = True
            self._note(f"{_MAX_GRAPHS} shapes of batches are recorded, which is the limit. Others run")
            return None
        try:
            self._recorded[key] = _Recorded([batch.to(self._device) for batch in batches], action, self._record)
        except RuntimeError as error:
            self._discard()
            if is_out_of_memory(error):
                self._is_full = True
                self._note(f"Memory is full after recording {len(self._recorded)} shapes of batches. Others run")
            else:
                self._refused.add(action)
                self._note(f"{what} cannot be recorded as a CUDA graph ({first_line(error)}), and runs")
        return self._recorded.get(key)

    def _run_eagerly(self, action: Callable[[Sequence[Batch]], R], batches: Sequence[Batch]) -> R:
        """Run an action as it is; if that needs the memory that graphs hold, without any graphs from now on."""
        if not self._recorded:
            return action(batches)
        seed = _random_state(self._device)
        try:
            return action(batches)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
        # Outside of the block above, where the error's frames would hold tensors.
        self._discard()
        self._recorded.clear()
        self._is_full = True
        gc.collect()
        if self._device.type == "cuda":
            torch.cuda.empty_cache()
        _set_random_state(self._device, seed)
        self._note("Memory is full beside the recorded shapes of batches, which are removed. All run")
        return action(batches)

    def _note(self, why: str) -> None:
        self._notes.append(f"{why} without CUDA graphs, which is slower.")


class _Recorded:
    """An action with its own batches, which each replay fills."""

    def __init__(self, batches: Sequence[Batch], action: Callable[[Sequence[Batch]], Any], record: Record) -> None:
        self._batches = [batch.clone() for batch in batches]
        self._results, self._replay = record(lambda: action(self._batches))

    def replay(self, batches: Sequence[Batch]) -> Any:
        """Run the action on other batches of the same shapes."""
        for own, given in zip(self._batches, batches, strict=True):
            for target, source in zip(own.tensors(), given.tensors(), strict=True):
                target.copy_(source, non_blocking=True)
        self._replay()
        return self._results


class CudaRecorder:
    """Records on the current CUDA device, into one pool of memory."""

    def __init__(self) -> None:
        self._pool = torch.cuda.graph_pool_handle()

    def __call__(self, action: Callable[[], R]) -> tuple[R, Replay]:
        """See `Record`."""
        graph = torch.cuda.CUDAGraph()
        try:
            # By default, the thread that pins the next batches' memory would break the recording.
            with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
                results = action()
        except RuntimeError:
            graph.reset()
            gc.collect()  # tensors of the attempt, which an exception's frames may hold
            raise
        return results, graph.replay


def _shape(batch: Batch) -> object:
    """What a recorded action depends on: names, shapes and types of a batch's tensors."""
    return *batch.fields, *((tensor.shape, tensor.dtype) for tensor in batch.tensors())


def _random_state(device: torch.device) -> torch.Tensor:
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()


def _set_random_state(device: torch.device, state: torch.Tensor) -> None:
    if device.type == "cuda":
        torch.cuda.set_rng_state(state, device)
    else:
        torch.set_rng_state(state)
