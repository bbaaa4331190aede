"""When a run saves checkpoints, what they hold, and how a rank continues from one.

A checkpoint is due

* after every `trainer.checkpoint_every_steps` steps and every `trainer.checkpoint_every_epochs` epochs, if set;
* at the first logged step or end of an epoch once `trainer.checkpoint_every_s` seconds have passed since the last one
  and that one is written: training does not wait for a slow storage;
* after the first epoch, so that a run that is killed early does not start over;
* at the end of the run, and when it is asked to stop.

The clock is rank 0's. Ranks learn what it says together with the sums of a logged step, so that all save after the same
step, and time decides only at which of the logged steps there is a checkpoint, never what metrics.jsonl says of steps.

After an epoch that is among the `trainer.keep_best` best ones, the weights are saved even if no checkpoint is due.
"""

import contextlib
import secrets
import time
from collections.abc import Callable
from typing import Protocol, Self

import torch

from vadv_dist.config.trainer_sections import TrainerConfig
from vadv_dist.engines.distributed import Distributed
from vadv_dist.engines.protocol import Engine
from vadv_dist.errors import MachineError
from vadv_dist.runs.checkpoint import Checkpoint, checkpoint_at, list_checkpoints
from vadv_dist.runs.checkpoint_writer import CheckpointWriter
from vadv_dist.runs.state import TrainState
from vadv_dist.storage import Location
from vadv_dist.tasks.base import TrainingStep

# Seconds after which a checkpoint that is still being written puts off the next one that only the clock asks for.
_PATIENCE_S = 5.0
# Seconds that a run which fails leaves to other ranks to write their parts of its last checkpoint.
_LEAVING_S = 20.0


class Announce(Protocol):
    """Called when a checkpoint is copied, before it can be complete, so that its line is in the log before that."""

    def __call__(self, blocked_s: float, last_write_s: float) -> None:
        """See `CheckpointLine`, `seconds` and `last_write_s`."""
        ...


class RunCheckpoints:
    """One rank's checkpoints of a run; all ranks make the same calls.

    Args:
        trainer: when to save.
        folder: the run's checkpoints.
        engine: holds weights and moments.
        step_module: holds this rank's own state.
        distributed: this rank.
        write_log: writes what the log holds; called by a thread before a checkpoint becomes complete, which must not be
            ahead of it.

    Attributes:
        saved_step: step of the last checkpoint that training can continue from; 0 before the first.
        last_write_s, last_wait_s: seconds for which the last checkpoint was written, and for which the end of the run
            waited for that; 0 before it is complete.
    """

    def __init__(
        self,
        trainer: TrainerConfig,
        folder: Location,
        engine: Engine,
        step_module: TrainingStep,
        distributed: Distributed,
        write_log: Callable[[], None] = lambda: None,
    ) -> None:
        self._trainer, self._folder, self._write_log = trainer, folder, write_log
        self._engine, self._step_module, self._distributed = engine, step_module, distributed
        self._last: Checkpoint | None = None
        self._writer: CheckpointWriter | None = None
        self._saved_at_s = time.monotonic()
        self._is_time = False
        self.saved_step = 0
        self.last_write_s = self.last_wait_s = 0.0

    def find(self) -> TrainState | None:
        """The state of the checkpoint to continue from; None if there is none.

        Raises:
            UserError: it has another format.
            MachineError: it is damaged.
        """
        # Rank 0 decides: on a shared disk, a new folder may be visible to one node before another.
        resumable: dict[int, list[int]] = {}
        if self._distributed.is_main:
            found = [checkpoint for checkpoint in list_checkpoints(self._folder) if checkpoint.is_resumable]
            for checkpoint in found:
                try:
                    resumable[checkpoint.step] = TrainState.from_json(checkpoint.state()).best_steps
                except MachineError:
                    if checkpoint is found[-1]:
                        raise  # an earlier one is not needed, and is removed
        last = max(resumable, default=None)
        step, attempt = self._distributed.gather((last, secrets.token_hex(4)))[0]
        state = None
        if step is not None:
            self._last, self.saved_step = checkpoint_at(self._folder, step), step
            state = TrainState.from_json(self._last.state())
        self._writer = CheckpointWriter(
            self._folder,
            self._distributed.rank,
            self._distributed.world_size,
            attempt,
            before_publishing=self._write_log,
            keep_last=self._trainer.keep_last,
        )
        if self._distributed.is_main:
            self._writer.begin(resumable)
        return state

    def load(self) -> None:
        """Load what this rank needs of the checkpoint that `find` found.

        Raises:
            UserError: it is that of another model.
            MachineError: it is damaged.
        """
        assert self._last is not None
        rank, world_size = self._distributed.rank, self._distributed.world_size
        shapes = {part.name: part.shape for part in self._engine.weights()}
        with self._last.read_weights(rank, shapes) as weights, self._last.read_moments(rank) as moments:
            self._engine.load(weights, moments, self._last.step)
        self._step_module.load_rank_state(self._last.ranks(), rank, world_size)

    def clock(self) -> int:
        """1 on rank 0 if its clock says that a checkpoint is due, otherwise 0; the sum over ranks is for `agree`."""
        every_s = self._trainer.checkpoint_every_s
        is_time = every_s is not None and time.monotonic() - self._saved_at_s >= every_s
        # Training would wait for one that is still being written.
        is_busy = self._writer is not None and self._writer.writing_s > _PATIENCE_S
        return int(is_time and self._distributed.is_main and not is_busy)

    def agree(self, clock: float) -> None:
        """Take over what rank 0's clock says."""
        self._is_time = clock > 0

    def is_due_in_epoch(self, step: int) -> bool:
        """Whether to save after a step inside an epoch."""
        every = self._trainer.checkpoint_every_steps
        return self._is_time or (every is not None and step % every == 0)

    def is_due_after(self, epochs: int) -> bool:
        """Whether to save after so many epochs; ranks exchange rank 0's clock."""
        clock = torch.tensor([self.clock()], device=self._distributed.device)
        self.agree(int(self._distributed.sum(clock)))
        every = self._trainer.checkpoint_every_epochs
        is_first = self._trainer.checkpoint_every_s is not None and self.saved_step == 0
        return self._is_time or is_first or (every is not None and epochs % every == 0)

    def check(self) -> None:
        """Raise what kept a checkpoint from being written, if anything did; costs nothing, so it is called every step.

        Raises:
            MachineError: the disk is full, or another rank's part is missing.
        """
        self._writing.raise_fault()

    def save(self, state: TrainState, announce: Announce) -> None:
        """Copy what training continues from, and begin to write it.

        Raises:
            MachineError: the last checkpoint could not be written.
        """
        self._saved_at_s, self._is_time = time.monotonic(), False
        if state.step == self.saved_step:  # stopped in a validation, which is now repeated
            self._writing.replace_state(state.step, state.best_steps, state.to_json())
            return
        self._save(state, announce, is_resumable=True)
        self.saved_step = state.step

    def save_weights(self, state: TrainState, announce: Announce) -> None:
        """Copy the weights alone, and begin to write them; like `save`."""
        if state.step != self.saved_step:
            self._save(state, announce, is_resumable=False)

    def _save(self, state: TrainState, announce: Announce, *, is_resumable: bool) -> None:
        began = time.perf_counter()
        self._writing.copy(
            state.step,
            best=state.best_steps,
            weights=self._engine.weights(),
            moments=self._engine.moments() if is_resumable else (),
            own=self._step_module.rank_state() if is_resumable else {},
            state=state.to_json() if is_resumable else None,
        )
        announce(time.perf_counter() - began, self._writing.written_s)
        self._writing.start()

    @property
    def _writing(self) -> CheckpointWriter:
        assert self._writer is not None, "call `find` first"
        return self._writer

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        """Wait until the last checkpoint is complete; after an interrupt, give it up.

        Raises:
            MachineError: it could not be written.
        """
        if self._writer is None:
            return
        if error is None:
            began = time.perf_counter()
            self._writer.wait()
            self.last_write_s, self.last_wait_s = self._writer.written_s, time.perf_counter() - began
        elif isinstance(error, Exception):
            with contextlib.suppress(Exception):  # the first error is the cause
                self._writer.wait(_LEAVING_S)
        else:
            self._writer.give_up()
