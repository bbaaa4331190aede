"""The training loop over any `Task` and `Engine`: steps, epochs, validation, early stopping."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch

from vadv_dist.config.sections import Config
from vadv_dist.data.plan import EpochPlan
from vadv_dist.data.sources import SplitShards
from vadv_dist.data.stream import BatchStream, StepBatches
from vadv_dist.data.windows import ShardIds, Windows
from vadv_dist.engines.distributed import Distributed
from vadv_dist.engines.faults import is_out_of_memory
from vadv_dist.engines.protocol import Engine
from vadv_dist.errors import DivergedError, MemoryFullError, UserError
from vadv_dist.objectives.weighting import find_collapse
from vadv_dist.runs.folder import RunFolder
from vadv_dist.runs.records import (
    CheckpointLine,
    Collapse,
    EpochLine,
    FaultLine,
    Line,
    NoteLine,
    StartLine,
    StepLine,
    StopLine,
    finite,
)
from vadv_dist.runs.state import TrainState
from vadv_dist.tasks.base import Metrics, Task
from vadv_dist.training.checkpoints import RunCheckpoints
from vadv_dist.training.clip_errors import write_clip_errors
from vadv_dist.training.distillation_schedule import DistillationSchedule
from vadv_dist.training.meter import LogLine, RankCounts, TermMeter
from vadv_dist.training.pulse import Pulse
from vadv_dist.training.schedule import cosine_with_warmup
from vadv_dist.training.scoring import Scored, metrics_by_source, score_split
from vadv_dist.training.stop_agreement import StopAgreement
from vadv_dist.training.term_weights import TermWeights


class _AskedToStopError(Exception):
    """Raised to leave the loop when the run is asked to stop."""


@dataclass
class Trainer:
    """One rank's training of one run.

    Args:
        config: the resolved configuration.
        task: model, objective and metrics.
        engine: runs the model.
        train, valid: the train and validation splits.
        train_windows, valid_windows: sources of their rows.
        distributed: this rank.
        folder: the run's folder; rank 0 writes to it.
        progress: called on rank 0 with each line written to metrics.jsonl.
        max_valid_batches: maximum number of validation batches, for smoke tests; None validates on all clips.
        on_epoch: called on every rank after each epoch with its metrics (Ray Train's report).
        utilisation: model FLOP utilisation as a function of clips, tokens and seconds; None omits it.
        asked: why rank 0 was asked to stop, or empty; all ranks then stop after the same step.
        notes: lines for the log on how this attempt runs.
        cause: why this attempt was started in place of an earlier one of the same command; empty for the first.
        pulse: records this rank's progress for a watcher.
    """

    config: Config
    task: Task
    engine: Engine
    train: SplitShards
    valid: SplitShards
    train_windows: Windows
    valid_windows: Windows
    distributed: Distributed
    folder: RunFolder
    progress: Callable[[Line], None] = lambda line: None
    on_epoch: Callable[[dict[str, Any]], None] | None = None
    max_valid_batches: int | None = None
    utilisation: Callable[[int, int, float], float] | None = None
    asked: Callable[[], str] = lambda: ""
    notes: Sequence[str] = ()
    cause: str = ""
    pulse: Pulse = field(default_factory=Pulse)

    def __post_init__(self) -> None:
        data = [dataset.manifest.fingerprint for dataset in self.train.sources.datasets]
        num_lanes = self.train.num_lanes(self.config.data)
        self.state = TrainState(data=data, num_lanes=num_lanes, precision=self.config.trainer.precision)
        self.num_steps = self._planned_steps()
        self._meter = TermMeter()
        self._schedule = DistillationSchedule.of(self.config)
        self._weights = TermWeights(self.task, self.distributed, self._schedule)
        self._distillation: float | None = None
        self._began = time.perf_counter()
        self._line = LogLine()
        self._ranks = RankCounts(self.distributed, self.train_windows.node)
        self._log = self.folder.metrics_log()
        self._checkpoints = RunCheckpoints(
            self.config.trainer,
            self.folder.checkpoints,
            self.engine,
            self.task.step,
            self.distributed,
            self._log.flush,
        )
        self._stops_training = StopAgreement(self.distributed, self.asked)
        self._stops_validating = StopAgreement(self.distributed, self.asked)

    def fit(self) -> TrainState:
        """Train from the last checkpoint to the end of the run, or until asked to stop, and return the final state.

        A run that was asked to stop has `stopped` None and a checkpoint of its last step.

        Raises:
            UserError: the data is damaged or not the checkpoint's, or the loss is NaN or infinite.
            MachineError: the disk or a GPU's memory is full, or a checkpoint is damaged.
        """
        try:
            with self._checkpoints:
                try:
                    self._fit()
                finally:
                    self.pulse.rest("writing the last checkpoint")
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            raise out_of_memory(
                error, f"This happened at step {self.state.step}; earlier checkpoints are complete."
            ) from error
        self._count_seconds()
        self.state.checkpoint_blocked_s += self._checkpoints.last_wait_s
        self.state.checkpoint_write_s += self._checkpoints.last_write_s
        self._flush_log()
        return self.state

    def _fit(self) -> None:
        self._resume()
        self._emit(
            StartLine(
                step=self.state.step,
                epoch=self.state.epoch,
                steps=self.num_steps,
                epochs=self.config.trainer.epochs,
                workers=self.distributed.world_size,
                task=self.task.description,
                labels=self.task.labels,
                absent=self.task.absent(),
                notes=list(self.notes),
                cause=self.cause,
            )
        )
        try:
            while self.state.stopped is None:
                self._train_epoch()
                with self.pulse.away("validating"):
                    self._end_epoch()
        except _AskedToStopError:
            self._flush_terms()
            # Before the checkpoint, which keeps it.
            self._emit(StopLine(step=self.state.step, epoch=self.state.epoch, cause=self.asked()))
            if self.state.step > self._checkpoints.saved_step:
                with self.pulse.away("saving a checkpoint"):
                    self._checkpoint()
            self._flush_log()

    def _train_epoch(self) -> None:
        state, config = self.state, self.config
        plan = self._plan()
        self._distillation = self._weights.begin_epoch(state.epoch, state.guard)
        stream = BatchStream(
            plan=plan,
            windows=self.train_windows,
            collator=self.task.collator,
            rank=self.distributed.rank,
            world_size=self.distributed.world_size,
            accumulate=config.trainer.accumulate,
            rows_in_use=self.train.rows_in_use,
            is_complete=self.train.is_complete,
            pin_memory=self.distributed.device.type == "cuda",
            waiting=self._leave_alone,
            then=partial(self._windows_after, state.step - state.step_in_epoch + plan.num_steps),
        )
        self._leave_if_asked()
        if state.step == config.trainer.max_steps:  # resumed after a stop in the last validation
            return
        if self.task.in_closed_form:  # determined before the loop, which counts as one step
            state.step = 1
            return
        for batches in stream.steps(state.step_in_epoch):
            self._train_step(batches)
            if state.step == config.trainer.max_steps:
                return
            if self._checkpoints.is_due_in_epoch(state.step) and state.step_in_epoch < plan.num_steps:
                self._flush_terms()
                with self.pulse.away("saving a checkpoint"):
                    self._checkpoint()
                self._line = LogLine()
            self._leave_if_asked()

    def _plan(self, epoch: int | None = None) -> EpochPlan:
        """The plan of an epoch, by default the current one."""
        state, config = self.state, self.config
        epoch = state.epoch if epoch is None else epoch
        return self.train.plan(config.data, seed=config.run.seed, epoch=epoch, num_lanes=state.num_lanes)

    def _windows_after(self, step: int) -> Iterator[ShardIds]:
        """The windows that the rank reads after the current epoch, which ends at a step of the run."""
        config, state = self.config, self.state
        ends = state.epoch + 1 == config.trainer.epochs or step >= (config.trainer.max_steps or math.inf)
        if not ends and not self.task.in_closed_form:
            plan = self._plan(state.epoch + 1)
            for index in range(plan.num_windows):
                yield plan.window(index, self.distributed.rank, self.distributed.world_size).shards

    def _planned_steps(self) -> int:
        closed = self.task.in_closed_form
        return planned_steps(self.config, self.train, in_closed_form=closed, num_lanes=self.state.num_lanes)

    def _leave_if_asked(self) -> None:
        """Leave the loop if the run was asked to stop; all ranks leave after the same step."""
        self._checkpoints.check()
        if self._stops_training():
            raise _AskedToStopError

    def _leave_validation(self) -> None:
        """Leave during validation if asked to; resuming repeats it."""
        if self._stops_validating():
            raise _AskedToStopError

    def _leave_alone(self) -> None:
        """Leave while waiting for data if asked to and no other rank depends on this one."""
        self.pulse.wait()
        if self.distributed.world_size == 1 and self.asked():
            raise _AskedToStopError

    def _train_step(self, batches: StepBatches) -> None:
        state, config = self.state, self.config
        if batches.own_counts is not None:
            own = torch.tensor([*batches.own_counts.values()], device=self.distributed.device)
            batches = batches.with_counts(self.distributed.sum(own))
        # Rank -1 does not exist: all ranks draw the same weights.
        self._weights.begin(_mix(config.run.seed, state.step, -1))
        if self._weights.needs_losses and len(batches.micro) > 1:
            self._weigh_step(batches)
        self._seed_dropout()
        factor = cosine_with_warmup(state.step, num_steps=self.num_steps, warmup_steps=config.optimizer.warmup_steps)
        terms, self._line.grad_norm = self.engine.step(
            batches.micro, self._weights.of, factor, weights_known=self._weights.are_known
        )
        for share in terms:
            self._meter.add(share)
        self._line.lr = config.optimizer.lr * factor
        self._line.samples += batches.num_rows
        self._line.tokens += sum(batch.num_tokens for batch in batches.micro)
        self._line.wait_s += batches.wait_s
        self._meter.end_step()
        self._weights.end_step(terms)
        state.step += 1
        state.step_in_epoch += 1
        self.pulse.step(state.step)
        if state.step % config.telemetry.log_every_steps == 0:
            self._flush_terms()

    def _weigh_step(self, batches: StepBatches) -> None:
        """Determine weights from the terms of the whole step, before training on its first micro-batch."""
        self._seed_dropout()
        for batch in batches.micro:
            self._weights.see(self.engine.terms(batch))
        self._weights.decide()

    def _seed_dropout(self) -> None:
        # Dropout depends only on the position, so no generator state has to be saved.
        torch.manual_seed(_mix(self.config.run.seed, self.state.step, self.distributed.rank))

    def _flush_terms(self) -> None:
        """Write a line for the steps since the last one, and add them to the epoch's means."""
        position: dict[str, Any] = {"step": self.state.step, "epoch": self.state.epoch}
        self._flush_notes()
        sums, counts = self._meter.take(self.distributed)
        if not counts:
            return
        steps, weights = counts["total"], self._weights.take_sums()
        self.state.add_terms(sums, counts, weights)
        means = {name: value / counts[name] for name, value in sums.items()}
        # Check the norm too: an update with a non-finite gradient has damaged the weights.
        norm = 0.0 if self._line.grad_norm is None else float(self._line.grad_norm)
        if not math.isfinite(means["total"]) or not math.isfinite(norm):
            what = f"loss became {means['total']} with gradient norm {norm}"
            self._tell_fault("the loss is not finite")
            where = f"within the {steps} steps before step {self.state.step} (epoch {self.state.epoch})"
            raise DivergedError(
                f"The {what} {where}. Earlier checkpoints are complete. Start another run (--run.name=…) with a lower "
                "optimizer.lr or optimizer.new_module_lr_factor, with optimizer.clip_norm, or in fp32. `vadv "
                "data-check` checks the features."
            )
        tokens, clock, by_rank = self._ranks.gather(
            tokens=self._line.tokens,
            clock=self._checkpoints.clock(),
            wait_s=self._line.wait_s,
            compute_s=self.engine.take_compute_s(),
            bytes_read=self.train_windows.take_bytes_read() + self.valid_windows.take_bytes_read(),
        )
        self._checkpoints.agree(clock)
        rates = self._line.rates(tokens, self.distributed.device, self.utilisation) | by_rank
        self._line = LogLine()
        mean_weights = {name: value / steps for name, value in weights.items()}
        self._emit(StepLine(**position, terms={**means}, weights={**mean_weights}, **rates))

    def _flush_notes(self) -> None:
        for what in self.engine.take_notes():
            self._emit(NoteLine(step=self.state.step, epoch=self.state.epoch, what=what))

    def _end_epoch(self) -> None:
        state = self.state
        self._flush_terms()
        plan = self._plan()
        self.train_windows.keep(self._windows_after(state.step))
        scored = self._validate()
        if plan.num_windows > 1:  # the next epoch needs the room
            self.valid_windows.keep(())
        metrics = self.task.metrics(scored.predictions, scored.label)
        several = len(self.valid.sources.datasets) > 1
        by_source = metrics_by_source(self.task, scored) if several else {}
        score = self._score(metrics)
        metric = self.task.description.score_metric
        cost = metric.cost(score)
        improved = state.record(cost, metrics, keep=self.config.trainer.keep_best, by_source=by_source)
        if improved:
            self._keep_best(scored)
        if self._schedule.is_guarded:
            state.guard = self.distributed.gather(self.task.guard(metrics))[0]  # equal on all ranks to the last bit
        epoch = state.epoch
        means, weights = state.end_epoch()
        collapse = find_collapse(weights, self._student_term())
        state.collapse = None if collapse is None else Collapse(collapse[0], finite(collapse[1]))
        self._weights.end_epoch()
        state.stopped = self._why_stopped()
        self._count_seconds()
        # Before the checkpoint: a run killed before it is complete repeats the epoch and removes the line.
        self._emit(
            EpochLine(
                epoch=epoch,
                step=state.step,
                validation=finite(metrics),
                sources=finite(by_source),
                remarks=self.task.remarks(metrics),
                train={**means},
                weights={**weights},
                collapse=state.collapse,
                distillation=self._distillation,
                best=improved,
                seconds=state.seconds,
            )
        )
        if state.stopped is not None and state.calibration is not None:
            self._emit(NoteLine(step=state.step, epoch=epoch, what=str(state.calibration)))
        if self._checkpoints.is_due_after(state.epoch) or state.stopped is not None:
            self._checkpoint()
        elif state.step in state.best_steps:
            self._checkpoints.save_weights(state, partial(self._announce, resumable=False))
        self._line = LogLine()
        if self.on_epoch is not None:
            self.on_epoch({"epoch": epoch, "step": state.step, f"valid_{metric.key}": score, "cost": cost, **means})

    def _validate(self) -> Scored:
        """Predict the validation split."""
        scored = score_split(
            self.task,
            self.engine,
            self.valid,
            self.valid_windows,
            self.config,
            self.distributed,
            max_batches=self.max_valid_batches,
            on_batch=self._leave_validation,
            waiting=self._leave_alone,
        )
        self._flush_notes()
        return scored

    def _score(self, metrics: Metrics) -> float:
        """The student's score, by which checkpoints are compared.

        Raises:
            DivergedError: it is NaN or infinite.
        """
        metric = self.task.description.score_metric
        score = metrics[self.task.description.student.name][metric.key]
        if not math.isfinite(score):
            self._tell_fault("the validation score is not finite")
            raise DivergedError(
                f"The validation {metric.title} of epoch {self.state.epoch} is {score}: the model predicts NaN or "
                "infinity. Start another run (--run.name=…) with a lower optimizer.lr, or in fp32."
            )
        return score

    def _keep_best(self, scored: Scored) -> None:
        """Keep what belongs to the best weights: their errors by clip and the calibration of their predictions."""
        if self.distributed.is_main:
            errors = self.task.clip_errors(scored.predictions, scored.label)
            own = scored.predictions[self.task.description.student.column]
            write_clip_errors(
                self.folder.root, scored.names, errors, self.state.step, label=scored.label, prediction=own
            )
        self.state.calibration = self.task.calibration(scored.predictions, scored.label)

    def _why_stopped(self) -> str | None:
        """Why training ends after this epoch, or None."""
        state, trainer = self.state, self.config.trainer
        if self.task.in_closed_form:
            return "closed_form"
        if state.step == trainer.max_steps:
            return "max_steps"
        if state.epoch >= trainer.epochs:
            return "epochs"
        return "patience" if trainer.patience is not None and state.bad_epochs >= trainer.patience else None

    def _student_term(self) -> str | None:
        """The weighted term that trains the student, preferably one that compares it with the label."""
        own = [t for t in self.task.description.terms if t.trains_student and self.task.weights[t.name] > 0]
        return min(own, key=lambda term: not term.compares_label).name if own else None

    def _checkpoint(self) -> None:
        """Begin to save a checkpoint to continue from."""
        self._count_seconds()
        self.state.weighting = self._weights.state()
        self._checkpoints.save(self.state, self._announce)

    def _announce(self, blocked_s: float, last_write_s: float, *, resumable: bool = True) -> None:
        self.state.checkpoint_blocked_s += blocked_s
        self.state.checkpoint_write_s += last_write_s
        position = {"step": self.state.step, "epoch": self.state.epoch}
        self._emit(CheckpointLine(**position, seconds=blocked_s, last_write_s=last_write_s, resumable=resumable))

    def _count_seconds(self) -> None:
        now = time.perf_counter()
        self.state.seconds += now - self._began
        self._began = now

    def _emit(self, line: Line) -> None:
        if self.distributed.is_main:
            self._log.append(line)
            self.progress(line)

    def _tell_fault(self, what: str) -> None:
        self._emit(FaultLine(step=self.state.step, epoch=self.state.epoch, what=what))
        self._flush_log()

    def _flush_log(self) -> None:
        if self.distributed.is_main:
            self._log.flush()

    def _resume(self) -> None:
        data, found = self.state.data, self._checkpoints.find()
        if found is not None:
            if found.data != data:
                raise UserError(
                    f"The run in {self.folder.root} was started on different data than {self._data_names()} now "
                    "contains (the hashes of the shards differ), so it cannot be resumed. Restore that data, or start "
                    "another run (--run.name=…)."
                )
            self.state = found
            if found.stopped == "epochs" and found.epoch < self.config.trainer.epochs:
                found.stopped, self.cause = None, self.cause or "extended"
            self.num_steps = self._planned_steps()  # the run may have begun before there were lanes
            self._checkpoints.load()
            self._weights.load(self.state.weighting)
        if self.distributed.is_main:
            if found is None:
                self._log.trim(-1)
            else:
                self._log.trim(found.step, found.epoch)
        self.distributed.barrier()

    def _data_names(self) -> str:
        return " and ".join(str(dataset.root) for dataset in self.train.sources.datasets)


def out_of_memory(error: RuntimeError, where: str) -> MemoryFullError:
    """The error for full memory; `where` says what was running and what is saved."""
    return MemoryFullError(
        f"{str(error).partition(chr(10))[0]} {where} Resume the run with more workers, or with "
        "engine.kind: deepspeed and a higher engine.zero_stage, or start another run with a larger trainer.accumulate "
        "or student.gradient_checkpointing: true."
    )


def planned_steps(
    config: Config, train: SplitShards, *, in_closed_form: bool = False, num_lanes: int | None = None
) -> int:
    """Number of steps of the learning rate schedule: all epochs, or `trainer.max_steps` if that is less.

    What is determined in closed form has one step.

    Every epoch is assumed to be as long as the first. If the windows differ between epochs, so do the partial batches
    at their ends, and training may end a few steps before or after the schedule.
    """
    if in_closed_form:
        return 1
    first = train.plan(config.data, seed=config.run.seed, epoch=0, num_lanes=num_lanes)
    steps = first.num_steps * config.trainer.epochs
    return min(steps, config.trainer.max_steps or steps)


def _mix(seed: int, step: int, rank: int) -> int:
    """A distinct 63-bit seed for each (run, step, rank)."""
    value = (seed * 0x9E3779B97F4A7C15 + step * 0xBF58476D1CE4E5B9 + rank * 0x94D049BB133111EB) & (2**64 - 1)
    value ^= value >> 31
    return (value * 0xD6E8FEB86659FD93 & (2**64 - 1)) >> 1
