"""Start a run: in this process, or as Ray Train workers that are restarted when one is lost."""

import contextlib
import os
import threading
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from rich.console import Console

from vadv_dist.config import Config, config_to_dict
from vadv_dist.data.texts import texts_of
from vadv_dist.engines.allocator import THREAD_ENVIRONMENT
from vadv_dist.engines.distributed import choose_device, choose_dtype
from vadv_dist.engines.faults import is_lost_peer
from vadv_dist.errors import MachineError, StoppedError, UserError
from vadv_dist.inference.token_counts import count_tokens
from vadv_dist.launch.cluster import cluster_resource, ray_session
from vadv_dist.launch.shared_folder import leave_mark, require_shared
from vadv_dist.launch.stop_actor import ask_to_stop, stop_flag
from vadv_dist.launch.worker import MISTAKE, raise_mistake, train_in_ray, train_locally
from vadv_dist.runs.checkpoint import list_checkpoints
from vadv_dist.runs.folder import FAILURES, RunFolder
from vadv_dist.runs.records import CheckpointLine, Line, RunResult
from vadv_dist.runs.trained_on import TrainedOn
from vadv_dist.runtime.ray_errors import last_line, own_error, why_lost
from vadv_dist.runtime.signals import StopRequest, finishing_first, listens
from vadv_dist.storage import Location, remove_tree, scratch_folder, store_settings
from vadv_dist.tasks import build
from vadv_dist.training.loop import planned_steps
from vadv_dist.training.splits import Splits
from vadv_dist.watching.endpoint import serve_metrics
from vadv_dist.watching.progress import MetricsTail, ProgressView
from vadv_dist.watching.trackers import flat, require_tracker, tracking

_LOOK_S = 0.5


def train(config: Config, console: Console | None = None, *, trial: str = "") -> RunResult:
    """Train a run to its end, or go on with it, and return its result.

    Args:
        config: the resolved configuration.
        console: where progress is shown; None takes standard error.
        trial: the trial of a search that the run is, a label of its metrics.
    Raises:
        UserError: a mistake in the configuration or the data, or a folder that holds something else.
        MachineError: a full disk, or workers lost more often than `trainer.max_failures`.
        StoppedError: SIGTERM asked it to stop, and its last step is in a checkpoint.
    """
    console = console or Console(stderr=True)
    folder = RunFolder.of(config)
    require_tracker(config.telemetry.track)
    splits = Splits.open(config)
    with torch.device("meta"):  # mistakes are found before anything starts
        tokenizer = build(config, splits.train.sources, weights=False).tokenizer
    if config.trainer.num_workers == 0:
        choose_dtype(config.trainer, choose_device(config.trainer.use_gpu))
    trained_on = TrainedOn.of(config, splits.train.sources)
    stop = _Stop(console, config.trainer.grace_s, folder)
    with (
        finishing_first(config.trainer.grace_s, on_signal=stop.announce, safe=stop.safe) as request,
        folder.lock(),
    ):
        continues = folder.claim(config, trained_on)
        result = folder.result()
        if result is not None:
            console.print(f"{folder.root} is complete already ({result.steps} steps).", highlight=False, markup=False)
            return result
        steps = planned_steps(config, splits.train)
        clips = splits.train.plan(config.data, seed=0, epoch=0).num_rows
        _say(
            console,
            f"{'continuing' if continues else 'training'} {folder.root}: {clips} clips, {steps} steps of "
            f"{config.data.batch_size} clips",
        )
        with contextlib.suppress(UserError):  # of a damaged shard, training itself says more
            for split, what in ((splits.train, "training texts"), (splits.valid, "validation texts")):
                if tokenizer is None:
                    break
                _say(console, count_tokens(tokenizer, texts_of(split), config.data.max_tokens).sentence(what))
        checkpoints = list_checkpoints(folder.checkpoints)
        folder.metrics_log().trim(checkpoints[-1].step if checkpoints else -1)
        if checkpoints:
            stop.saved_step = checkpoints[-1].step
            _say(console, f"going on from step {checkpoints[-1].step} of {steps}")
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
                gauges.replay(folder.metrics_log().lines())

            def show(line: Line) -> None:
                view(line)
                if gauges is not None:
                    gauges(line)
                track(line)
                stop.see(line)

            if config.trainer.num_workers == 0:
                request.is_working = True
                train_locally(config, show, lambda: request.asked)
            else:
                with MetricsTail(folder.metrics_path, show):
                    _train_with_ray(config, folder, console, trial, request)
            result = folder.result()
            if request.asked:
                raise stop.error(steps, is_complete=result is not None)
    if result is None:
        raise MachineError(f"{folder.root} ended without a result. Run the same command again to go on with it.")
    return result


@dataclass
class _Stop:
    """What a run says when SIGTERM asks it to stop."""

    console: Console
    grace_s: float
    folder: RunFolder
    saved_step: int = 0

    def see(self, line: Line) -> None:
        """Remember the last checkpoint from the run's lines."""
        if isinstance(line, CheckpointLine):
            self.saved_step = line.step

    def announce(self) -> None:
        """Say what happens now."""
        _say(
            self.console,
            f"SIGTERM: finishing the step and writing a checkpoint, within {self.grace_s:g} s (trainer.grace_s); a "
            "second SIGTERM ends at once",
        )

    def safe(self) -> str:
        """What is saved, for a run whose grace is over."""
        if self.saved_step:
            return f"The checkpoint of step {self.saved_step} is complete: run the same command to continue from it."
        return "There is no checkpoint yet: run the same command to start again."

    def error(self, steps: int, *, is_complete: bool) -> StoppedError:
        """How a run that has stopped ends."""
        if is_complete:
            return StoppedError(f"SIGTERM came while the run was ending. {self.folder.root} is complete.")
        checkpoints = list_checkpoints(self.folder.checkpoints)
        if not checkpoints:
            return StoppedError("SIGTERM came before the first step. Run the same command to start again.")
        return StoppedError(
            f"stopped by SIGTERM at step {checkpoints[-1].step} of {steps}, whose checkpoint is complete. Run the same "
            "command to continue."
        )


def _train_with_ray(config: Config, folder: RunFolder, console: Console, trial: str, request: StopRequest) -> None:
    """Run the workers; Ray Train starts them again where one is lost, and they go on from the last checkpoint.

    They are asked to stop after their step once `request` is.

    Raises:
        VadvError: as a worker raised it.
        MachineError: workers were lost too often.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import ray.train
        from ray.train.torch import TorchConfig, TorchTrainer
        from ray.train.v2.api.exceptions import TrainingFailedError, WorkerGroupError

    workers = config.trainer.num_workers
    _say(console, f"starting {workers} Ray Train worker{'s' if workers > 1 else ''} …")
    # Ray Train keeps its own records there; checkpoints are ours, so that any engine can go on from them.
    notes = folder.root / ".ray"
    _remove(notes)
    mark = leave_mark(notes)
    with scratch_folder() as scratch, ray_session(config.trainer) as cpus:
        use_gpu = config.trainer.use_gpu
        if use_gpu == "auto":
            use_gpu = cluster_resource("GPU") >= workers
        flag = stop_flag() if listens() else None
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
            # Broken connections to a lost worker are a consequence, not the reason.
            reason = why_lost(failure for failure in failures if not is_lost_peer(failure)) or "its connection closed"
            raise MachineError(
                f"Workers were lost more than {config.trainer.max_failures} times, the last time because "
                f"{reason}. Checkpoints in {folder.checkpoints} are complete: run "
                "the same command to go on, with a larger trainer.max_failures if losses are expected. What a worker "
                f"itself could say of it stands in {folder.root / FAILURES}."
            ) from error
        except TrainingFailedError as error:
            raise MachineError(
                f"Ray Train could not run the workers: {last_line(error)}. Checkpoints are complete: run the same "
                "command to continue."
            ) from error
        require_shared(folder.root, mark)
        raise_mistake(notes / MISTAKE)
    _remove(notes)


def _fit(trainer: Any, request: StopRequest, ask: Callable[[], None]) -> None:
    """Run a Ray trainer in a thread: in the main one it would take Ctrl-C for itself, and end this process in silence.

    Where this is left by Ctrl-C, Ray ends the workers with the session of this process.

    Args:
        trainer: the trainer.
        request: whether the workers are to stop.
        ask: called once when they are.
    """
    errors: list[BaseException] = []

    def fit() -> None:
        try:
            trainer.fit()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=fit, name="vadv-fit", daemon=True)
    thread.start()
    is_told = False
    while thread.is_alive():
        thread.join(_LOOK_S)  # a signal that another thread received is seen when this returns
        if request.asked and not is_told:
            is_told = True
            ask()
    if errors:
        raise errors[0]


def _remove(folder: Location) -> None:
    with contextlib.suppress(FileNotFoundError):
        remove_tree(folder)


def _say(console: Console, text: str) -> None:
    console.print(text, highlight=False, markup=False, soft_wrap=True)
