"""Start a run in this process, or as Ray Train workers that are restarted when one is lost."""

import contextlib
import os
import threading
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from rich.console import Console

from vadv_dist.config import Config, config_to_dict
from vadv_dist.data.context import separated, separator_of
from vadv_dist.engines.allocator import THREAD_ENVIRONMENT
from vadv_dist.engines.distributed import choose_device, choose_dtype
from vadv_dist.engines.faults import is_lost_peer
from vadv_dist.errors import MachineError, StoppedError, UserError
from vadv_dist.inference.token_counts import count_tokens
from vadv_dist.launch.cluster import cluster_resource, ray_session
from vadv_dist.launch.shared_folder import leave_mark, require_shared
from vadv_dist.launch.stop_actor import ask_to_stop, stop_flag
from vadv_dist.launch.worker import MISTAKE, raise_mistake, train_in_ray, train_locally
from vadv_dist.runs.checkpoint import last_checkpoint
from vadv_dist.runs.folder import FAILURES, RunFolder
from vadv_dist.runs.records import CheckpointLine, Line, RunResult
from vadv_dist.runs.trained_on import TrainedOn
from vadv_dist.runtime.ray_errors import last_line, own_error, why_lost
from vadv_dist.runtime.signals import StopRequest, finishing_first, listens
from vadv_dist.runtime.terminal import counted
from vadv_dist.storage import Location, remove_tree, scratch_folder, store_settings
from vadv_dist.tasks import build
from vadv_dist.training.loop import planned_steps
from vadv_dist.training.splits import Splits
from vadv_dist.watching.endpoint import serve_metrics
from vadv_dist.watching.progress import MetricsTail, ProgressView
from vadv_dist.watching.trackers import flat, require_tracker, tracking

_POLL_S = 0.5


def train(
    config: Config,
    console: Console | None = None,
    *,
    trial: str = "",
    callbacks: Sequence[Any] = (),
    stop: Any = None,
) -> RunResult:
    """Start or resume a run, train it to the end, and return its result.

    Args:
        config: the resolved configuration.
        console: shows progress; None uses standard error.
        trial: label of the run's metrics if it is a trial of a search.
        callbacks: Ray Train's callbacks, for a run with workers.
        stop: a flag (`launch.stop_actor`) that asks the workers to stop; None starts one that SIGTERM sets.
    Raises:
        UserError: invalid configuration or data, or the folder contains something else.
        MachineError: a full disk, or workers lost more often than `trainer.max_failures`.
        StoppedError: SIGTERM stopped the run; its last step is in a checkpoint.
    """
    console = console or Console(stderr=True)
    folder = RunFolder.of(config)
    require_tracker(config.telemetry.track)
    splits = Splits.open(config)
    with torch.device("meta"):  # find errors before anything starts
        task = build(config, splits.train.sources, weights=False)
    if config.trainer.num_workers == 0:
        choose_dtype(config.trainer, choose_device(config.trainer.use_gpu))
    trained_on = TrainedOn.of(config, splits.train.sources)
    told = _Stop(console, config.trainer.grace_s, folder)
    with (
        finishing_first(config.trainer.grace_s, on_signal=told.announce, safe=told.safe) as request,
        folder.lock(),
    ):
        continues = folder.claim(config, trained_on)
        result = folder.result()
        if result is not None:
            _say(console, f"{folder.root} is already complete ({counted(result.steps, 'step')}).")
            return result
        steps = planned_steps(config, splits.train, in_closed_form=task.in_closed_form)
        clips = splits.train.plan(config.data, seed=0, epoch=0).num_rows
        _say(
            console,
            f"{'resuming' if continues else 'training'} {folder.root}: {counted(clips, 'clip')}, "
            f"{counted(steps, 'step')} of {counted(config.data.batch_size, 'clip')}",
        )
        with contextlib.suppress(UserError):  # training reports a damaged shard in more detail
            for split, what in ((splits.train, "training texts"), (splits.valid, "validation texts")):
                if task.tokenizer is None:
                    break
                texts = separated(split.texts(), separator_of(task.tokenizer))
                _say(console, count_tokens(task.tokenizer, texts, config.data.max_tokens).sentence(what))
        last = last_checkpoint(folder.checkpoints)
        folder.metrics_log().trim(-1 if last is None else last.step)
        if last is not None:
            told.begun_step = told.saved_step = last.step
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
                told.see(line)

            if config.trainer.num_workers == 0:
                request.is_working = True
                train_locally(config, show, lambda: request.asked)
            else:
                with MetricsTail(folder.metrics_path, show):
                    _train_with_ray(config, folder, console, trial, request, callbacks, stop)
            result = folder.result()
            if request.asked:
                raise told.error(steps, is_complete=result is not None)
    if result is None:
        raise MachineError(f"{folder.root} ended without a result. Run the same command again to resume it.")
    return result


@dataclass
class _Stop:
    """Messages of a run that SIGTERM asks to stop.

    Attributes:
        saved_step: step of a checkpoint to continue from that is complete; 0 if there may be none.
        begun_step: step of the last one, which may be incomplete: the next one is begun when it is complete.
    """

    console: Console
    grace_s: float
    folder: RunFolder
    saved_step: int = 0
    begun_step: int = 0

    def see(self, line: Line) -> None:
        """Remember checkpoints from the run's lines."""
        if isinstance(line, CheckpointLine):
            self.saved_step = self.begun_step
            if line.resumable:
                self.begun_step = line.step

    def announce(self) -> None:
        """Announce the stop."""
        _say(
            self.console,
            f"SIGTERM: finishing the step and writing a checkpoint within {self.grace_s:g} s (trainer.grace_s); a "
            "second SIGTERM exits immediately",
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

    def error(self, steps: int, *, is_complete: bool) -> StoppedError:
        """The error that ends a stopped run."""
        if is_complete:
            return StoppedError(f"SIGTERM arrived while the run was finishing. {self.folder.root} is complete.")
        last = last_checkpoint(self.folder.checkpoints)
        if last is None:
            return StoppedError("SIGTERM arrived before the first step. Run the same command again to start over.")
        return StoppedError(
            f"stopped by SIGTERM at step {last.step} of {steps}, whose checkpoint is complete. Run the same "
            "command again to resume."
        )


def _train_with_ray(
    config: Config,
    folder: RunFolder,
    console: Console,
    trial: str,
    request: StopRequest,
    callbacks: Sequence[Any],
    stop: Any,
) -> None:
    """Run the workers; if one is lost, Ray Train restarts them and they resume from the last checkpoint.

    When `request` asks to stop, they stop after their current step.

    Raises:
        VadvError: an error that a worker raised.
        MachineError: workers were lost too often.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import ray.train
        from ray.train.torch import TorchConfig, TorchTrainer
        from ray.train.v2.api.exceptions import TrainingFailedError, WorkerGroupError

    workers = config.trainer.num_workers
    _say(console, f"starting {workers} Ray Train worker{'s' if workers > 1 else ''} …")
    # Notes of the workers for the driver; Ray Train's own records go to a scratch folder.
    notes = folder.root / ".ray"
    _remove(notes)
    mark = leave_mark(notes)
    with scratch_folder() as scratch, ray_session(config.trainer) as cpus:
        use_gpu = config.trainer.use_gpu
        if use_gpu == "auto":
            use_gpu = cluster_resource("GPU") >= workers
        flag = stop or (stop_flag() if listens() else None)
        trainer = TorchTrainer(
            train_in_ray,
            train_loop_config={
                "config": config_to_dict(config),
                "use_gpu": use_gpu,
                "folder": os.getcwd(),
                "trial": trial,
                "mistake": str(notes.resolve() / MISTAKE),
                "mark": mark,
                "stop": flag,
            },
            torch_config=TorchConfig(backend="nccl" if use_gpu else "gloo"),
            scaling_config=ray.train.ScalingConfig(
                num_workers=workers, use_gpu=bool(use_gpu), resources_per_worker={"CPU": cpus, "GPU": int(use_gpu)}
            ),
            run_config=ray.train.RunConfig(  # type: ignore[call-arg]  # mypy sees the class of Ray Train's first version
                name="workers",
                storage_path=str(scratch),
                failure_config=ray.train.FailureConfig(max_failures=config.trainer.max_failures),
                worker_runtime_env={"env_vars": THREAD_ENVIRONMENT | store_settings()},
                callbacks=list(callbacks),
            ),
        )
        request.is_working = True
        try:
            _fit(trainer, request, lambda: ask_to_stop(flag))
        except WorkerGroupError as error:
            raise_mistake(notes / MISTAKE)
            failures = error.worker_failures.values()
            for failure in failures:
                if (ours := own_error(failure)) is not None:
                    raise ours from None
            # Broken connections to a lost worker are a consequence, not the cause.
            reason = why_lost(failure for failure in failures if not is_lost_peer(failure)) or "its connection closed"
            raise MachineError(
                f"Workers were lost more than {config.trainer.max_failures} times, the last time because "
                f"{reason}. Checkpoints in {folder.checkpoints} are complete: run the same command again to resume, "
                "with a larger trainer.max_failures if losses are expected. Tracebacks of the workers, if any, are in "
                f"{folder.root / FAILURES}."
            ) from error
        except TrainingFailedError as error:
            raise MachineError(
                f"Ray Train could not run the workers: {last_line(error)}. Checkpoints are complete: run the same "
                "command again to resume."
            ) from error
        require_shared(folder.root, mark)
        raise_mistake(notes / MISTAKE)
    _remove(notes)


def _fit(trainer: Any, request: StopRequest, ask: Callable[[], None]) -> None:
    """Run a Ray trainer in a thread: in the main thread it would handle Ctrl-C itself and exit without a message.

    After Ctrl-C, Ray stops the workers when this process's session ends.

    Args:
        trainer: the trainer.
        request: whether the workers should stop.
        ask: called once to stop them.
    """
    errors: list[BaseException] = []

    def fit() -> None:
        try:
            trainer.fit()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=fit, name="vadv-fit", daemon=True)
    thread.start()
    has_asked = False
    while thread.is_alive():
        thread.join(_POLL_S)  # returns regularly so that signals are handled
        if request.asked and not has_asked:
            has_asked = True
            ask()
    if errors:
        raise errors[0]


def _remove(folder: Location) -> None:
    with contextlib.suppress(FileNotFoundError):
        remove_tree(folder)


def _say(console: Console, text: str) -> None:
    console.print(text, highlight=False, markup=False, soft_wrap=True)
