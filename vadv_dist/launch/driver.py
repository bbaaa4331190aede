"""Start a run in this process, or as Ray Train workers."""

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from rich.console import Console

from vadv_dist.config import Config, config_to_dict
from vadv_dist.config.trainer_sections import TrainerConfig
from vadv_dist.data.context import separated, separator_of
from vadv_dist.engines.distributed import choose_device, choose_dtype
from vadv_dist.errors import MachineError, NoticedError, StoppedError, UserError
from vadv_dist.inference.token_counts import count_tokens
from vadv_dist.launch.cautions import cautions
from vadv_dist.launch.ray_run import train_with_ray
from vadv_dist.launch.worker import train_locally
from vadv_dist.runs.checkpoint import last_checkpoint, remove_damaged
from vadv_dist.runs.folder import RunFolder
from vadv_dist.runs.numbering import locked_run, with_name
from vadv_dist.runs.records import CheckpointLine, Line, RunResult
from vadv_dist.runs.trained_on import TrainedOn
from vadv_dist.runtime.signals import StopRequest, finishing_first
from vadv_dist.runtime.terminal import counted
from vadv_dist.tasks import build
from vadv_dist.training.loop import planned_steps
from vadv_dist.training.splits import Splits
from vadv_dist.watching.endpoint import serve_metrics
from vadv_dist.watching.progress import MetricsTail, ProgressView
from vadv_dist.watching.trackers import flat, require_tracker, tracking


def train(
    config: Config,
    console: Console | None = None,
    *,
    numbered: bool = False,
    trial: str = "",
    callbacks: Sequence[Any] = (),
    stop: Any = None,
    notify: Callable[[str], None] | None = None,
) -> RunResult:
    """Start or resume a run, train it to the end, and return its result.

    Args:
        config: the resolved configuration.
        console: shows progress; None uses standard error.
        numbered: whether the run may be in a folder with a number if that of its name holds another run; see
            `runs.numbering`.
        trial: label of the run's metrics if it is a trial of a search.
        callbacks: Ray Train's callbacks, for a run with workers.
        stop: a flag (`launch.stop_actor`) that asks the workers to stop; None starts one that SIGTERM sets.
        notify: called with a line when workers wait for room or are restarted; None prints it on the console.
    Raises:
        UserError: invalid configuration or data, or the folder contains something else.
        MachineError: a full disk, or workers lost more often than `trainer.max_failures`.
        StoppedError: SIGTERM stopped the run; its last step is in a checkpoint.
        NoticedError: so did SIGUSR1, or the node of this process leaves the cluster.
    """
    console = console or Console(stderr=True)
    require_tracker(config.telemetry.track)
    splits = Splits.open(config)
    with torch.device("meta"):  # find errors before anything starts
        task = build(config, splits.train.sources, weights=False)
    if config.trainer.workers == 0:
        choose_dtype(config.trainer, choose_device(config.trainer.use_gpu))
    trained_on = TrainedOn.of(config, splits.train.sources)
    stopping = _Stop(console, config.trainer.grace_s)
    with (
        finishing_first(config.trainer.grace_s, on_signal=stopping.announce, safe=stopping.safe) as request,
        locked_run(config, trained_on, numbered=numbered, say=partial(_say, console)) as folder,
    ):
        config = with_name(config, folder.root.name)
        continues = folder.claim(config, trained_on)
        result = folder.completed(config)
        if result is not None:
            _say(
                console,
                f"{folder.root} is already complete ({counted(result.steps, 'step')}), so nothing was trained. For "
                "another run, change a setting such as run.seed, or give it a name: --run.name=….",
            )
            return result
        steps = planned_steps(config, splits.train, in_closed_form=task.in_closed_form)
        clips = splits.train.plan(config.data, seed=0, epoch=0).num_rows
        _say(
            console,
            f"{'resuming' if continues else 'training'} {folder.root}: {counted(clips, 'clip')}, "
            f"{counted(steps, 'step')} of {counted(config.data.batch_size, 'clip')}",
        )
        if not (continues or trial):
            valid = int(splits.valid.table.rows.sum())
            for caution in cautions(config, train_clips=clips, valid_clips=valid, steps=steps):
                _say(console, f"warning: {caution}")
        with contextlib.suppress(UserError):  # training reports a damaged shard in more detail
            for split, what in ((splits.train, "training texts"), (splits.valid, "validation texts")):
                if task.tokenizer is None:
                    break
                texts = separated(split.texts(), separator_of(task.tokenizer))
                _say(console, count_tokens(task.tokenizer, texts, config.data.max_tokens).sentence(what))
        remove_damaged(folder.checkpoints, partial(_say, console))
        last = last_checkpoint(folder.checkpoints)
        if last is None:
            folder.metrics_log().trim(-1)
        else:
            folder.metrics_log().trim(last.step, last.state()["epoch"])
            stopping.begun_step = stopping.saved_step = last.step
            _say(console, f"resuming from step {last.step} of {steps}")
        with (
            serve_metrics(
                config.run.name, config.telemetry.port, trial=trial, disk=folder.disk, say=partial(_say, console)
            ) as gauges,
            tracking(
                config.telemetry.track,
                config.run.name,
                str(folder.root.resolve()),
                folder.disk and folder.disk.parent,
                flat(config_to_dict(config)),
            ) as track,
            ProgressView(console, steps, config.trainer.epochs) as view,
        ):
            if gauges is not None:
                for earlier in folder.metrics_log().lines():
                    gauges(earlier)

            def show(line: Line) -> None:
                view(line)
                if gauges is not None:
                    gauges(line)
                track(line)
                stopping.see(line)

            if config.trainer.workers == 0:
                request.is_working = True
                train_locally(config, show, lambda: request.cause)
            else:
                _say(console, f"starting {_workers_text(config.trainer)} …")
                with MetricsTail(folder.metrics_path, show):
                    train_with_ray(config, folder, notify or partial(_say, console), trial, request, callbacks, stop)
            result = folder.completed(config)
            if request.asked:
                raise stopping.error(request, folder, steps, is_complete=result is not None)
    if result is None:
        raise MachineError(f"{folder.root} ended without a result. Run the same command again to resume it.")
    return result


@dataclass
class _Stop:
    """Messages of a run that is asked to stop.

    Attributes:
        saved_step: step of a checkpoint to continue from that is complete; 0 if there may be none.
        begun_step: step of the last one, which may be incomplete: the next one is begun when it is complete.
    """

    console: Console
    grace_s: float
    saved_step: int = 0
    begun_step: int = 0

    def see(self, line: Line) -> None:
        """Remember checkpoints from the run's lines."""
        if isinstance(line, CheckpointLine):
            self.saved_step = self.begun_step
            if line.resumable:
                self.begun_step = line.step

    def announce(self, cause: str) -> None:
        """Announce the stop."""
        _say(
            self.console,
            f"{cause}: finishing the step and writing a checkpoint within {self.grace_s:g} s (trainer.grace_s); a "
            "second signal exits immediately",
        )

    def safe(self) -> str:
        """What is saved, for a run that exceeded its grace period."""
        again = "run the same command again"
        if self.saved_step < self.begun_step:
            begun = f"The checkpoint of step {self.begun_step} may be incomplete: {again} to resume from it"
            return f"{begun}, otherwise {f'from step {self.saved_step}' if self.saved_step else 'to start over'}."
        if self.saved_step:
            return f"The checkpoint of step {self.saved_step} is complete: {again} to resume from it."
        return f"There is no checkpoint yet: {again} to start over."

    def error(self, request: StopRequest, folder: RunFolder, steps: int, *, is_complete: bool) -> StoppedError:
        """The error that ends a stopped run."""
        kind, cause = NoticedError if request.is_notice else StoppedError, request.cause
        if is_complete:
            return kind(f"{cause} arrived while the run was finishing. {folder.root} is complete.")
        last = last_checkpoint(folder.checkpoints)
        if last is None:
            return kind(f"{cause} arrived before the first step. Run the same command again to start over.")
        return kind(
            f"stopped by {cause} at step {last.step} of {steps}, whose checkpoint is complete. Run the same "
            f"command again to resume {folder.root}."
        )


def _workers_text(trainer: TrainerConfig) -> str:
    least = "" if trainer.workers == trainer.min_workers else f"{trainer.min_workers} to "
    return f"{least}{counted(trainer.workers, 'Ray Train worker')}"


def _say(console: Console, text: str) -> None:
    console.print(text, highlight=False, markup=False, soft_wrap=True)
