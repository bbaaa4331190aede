"""Run trainings one after another in this process, pausing each after every epoch until it may continue."""

import contextlib
import ctypes
import gc
import queue
import threading
from collections.abc import Callable
from typing import Any

from vadv_dist.config import Config
from vadv_dist.runs.records import RunResult
from vadv_dist.tuning.events import Ended, Event, Stopped, epoch_of, failure_of


class _StopTrainingError(Exception):
    """Raised to leave the training loop of a trial that was stopped."""


class TrainingSession:
    """Runs trainings in a thread, so that the caller can decide after each epoch whether to continue.

    The process keeps its imports and set-up, so a second trial starts quickly.

    Args:
        asked: why trainings are asked to save a checkpoint and stop; empty if they are not.
    """

    def __init__(self, asked: Callable[[], str] = lambda: "") -> None:
        self._asked = asked
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._decisions: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self._leaving = threading.Event()
        self._thread: threading.Thread | None = None

    def begin(self, config: Config) -> Event:
        """Start or resume a training; return its first event."""
        self._thread = threading.Thread(target=self._run, args=(config,), name="vadv-trial", daemon=True)
        self._thread.start()
        return self._events.get()

    def decide(self, continues: bool) -> Event:
        """Decide whether the training continues after an `Epoch`, and return the next event."""
        self._decisions.put(continues)
        return self._events.get()

    def leave(self, wait_s: float) -> None:
        """Ask the training to save a checkpoint and stop; wait at most `wait_s` seconds for it."""
        self._leaving.set()
        self._decisions.put(False)
        if self._thread is not None:
            self._thread.join(wait_s)

    def _run(self, config: Config) -> None:
        event: Event
        try:
            event = Ended(train_here(config, self._end_epoch, self._why))
        except _StopTrainingError:
            event = Stopped()
        except BaseException as error:
            event = failure_of(error)
        _free_memory()
        self._events.put(event)

    def _why(self) -> str:
        """Why the training is asked to stop; empty if it is not."""
        return "search" if self._leaving.is_set() else self._asked()

    def _end_epoch(self, metrics: dict[str, Any]) -> None:
        self._events.put(epoch_of(metrics))
        # A training that is asked to leave does so by itself, with a checkpoint.
        if not self._decisions.get() and not self._leaving.is_set():
            raise _StopTrainingError


def train_here(
    config: Config, on_epoch: Callable[[dict[str, Any]], None], asked: Callable[[], str] = lambda: ""
) -> RunResult:
    """Start or resume a run in this process, and return its result.

    Args:
        config: the run.
        on_epoch: called after each epoch with its metrics.
        asked: why to stop after the current step, with a checkpoint; empty if not.
    Raises:
        MachineError: it was asked to stop.
        VadvError: see `vadv_dist.launch.worker.train_rank`.
    """
    from vadv_dist.data.sources import Sources
    from vadv_dist.errors import MachineError
    from vadv_dist.launch.worker import train_locally
    from vadv_dist.runs.folder import RunFolder
    from vadv_dist.runs.trained_on import TrainedOn

    folder = RunFolder.of(config)
    # The process of a search that was killed may keep writing for some seconds.
    with folder.writer_lock():
        folder.claim(config, TrainedOn.of(config, Sources.open(config)))
    if (result := folder.result()) is None:
        train_locally(config, lambda line: None, asked, on_epoch=on_epoch)
        result = folder.result()
    if result is None:
        raise MachineError(f"{folder.root} ended without a result.")
    return result


def _free_memory() -> None:
    """Free the memory of a training, so that the process waits, or starts the next one, without it."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    # glibc keeps freed memory: 0.4 GiB after trainings of a small model. Other C libraries have no such function.
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)
