"""One rank of a run: from a configuration to a trained model, in this process or inside a Ray Train worker."""

import contextlib
import itertools
import os
import secrets
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch

from vadv_dist.config import Config, config_from_dict
from vadv_dist.cuda import prepare_cuda
from vadv_dist.data.classes import class_notes
from vadv_dist.data.plan import sample_batches
from vadv_dist.data.sources import SplitShards
from vadv_dist.data.windows import LocalWindows, RayWindows, Windows
from vadv_dist.engines.allocator import keep_freed_memory
from vadv_dist.engines.build import build_engine, uses_graphs
from vadv_dist.engines.deepspeed_config import accumulate_of
from vadv_dist.engines.distributed import Distributed, choose_device
from vadv_dist.engines.faults import is_compile_failure, is_out_of_memory
from vadv_dist.errors import MachineError, VadvError, first_line
from vadv_dist.launch.attempt import agreed_engine, agreed_precision, attempt_notes
from vadv_dist.launch.rank_state import rank_state
from vadv_dist.launch.shared_folder import all_see_mark
from vadv_dist.launch.stop_actor import hearing
from vadv_dist.runs.folder import FAILURES, RunFolder
from vadv_dist.runs.records import Line
from vadv_dist.runs.state import TrainState
from vadv_dist.runs.trained_on import TrainedOn
from vadv_dist.runtime.garbage_collection import collect_as_usual, collect_rarely
from vadv_dist.storage import write_text
from vadv_dist.tasks import build
from vadv_dist.tasks.base import parameter_counts
from vadv_dist.training.closed_form import fit_in_closed_form
from vadv_dist.training.completion import finish_run
from vadv_dist.training.flops import utilisation
from vadv_dist.training.loop import Trainer, out_of_memory
from vadv_dist.training.pulse import Pulse
from vadv_dist.training.splits import Splits
from vadv_dist.watching.ray_metrics import ray_metrics

# What a node reads ahead of the window in use, in windows.
_WINDOWS_AHEAD = 3
# Texts whose batches decide the lengths to pad to. Bounded, because memory must not grow with the data set.
_SAMPLE_TEXTS = 1 << 16

Show = Callable[[Line], None]


def train_rank(
    config: Config,
    distributed: Distributed,
    windows_of: Callable[[SplitShards], Windows],
    *,
    show: Show = lambda line: None,
    on_epoch: Callable[[dict[str, Any]], None] | None = None,
    asked: Callable[[], str] = lambda: "",
    cause: str = "",
    pulse: Pulse | None = None,
) -> TrainState:
    """Train one rank to the end of the run; rank 0 then exports the best student.

    If `asked` returns a cause, the run stops with a checkpoint instead, and `stopped` in the returned state is None.
    `cause` and `pulse` are as in `Trainer`.

    Raises:
        UserError: invalid configuration or data.
        MachineError: a full disk, a damaged checkpoint, or a model that torch cannot compile.
    """
    if distributed.device.type == "cpu":
        keep_freed_memory()
    prepare_cuda(distributed.device, config.trainer.matmul_precision)
    folder = RunFolder.of(config)
    try:
        with folder.writer_lock() if distributed.is_main else contextlib.nullcontext():
            return _train_rank(config, folder, distributed, windows_of, show, on_epoch, asked, cause, pulse or Pulse())
    except RuntimeError as error:
        if is_compile_failure(error):
            raise MachineError(
                f"torch.compile fails on this model ({first_line(error)}). Set engine.compile: auto, with which only "
                "the optimizer's kernel is compiled. Checkpoints are complete."
            ) from error
        if not is_out_of_memory(error):
            raise
        raise out_of_memory(error, "Checkpoints are complete.") from error


def _train_rank(
    config: Config,
    folder: RunFolder,
    distributed: Distributed,
    windows_of: Callable[[SplitShards], Windows],
    show: Show,
    on_epoch: Callable[[dict[str, Any]], None] | None,
    asked: Callable[[], str],
    cause: str,
    pulse: Pulse,
) -> TrainState:
    splits = Splits.open(config)
    folder.require_same(TrainedOn.of(config, splits.train.sources, weights=distributed.is_main))
    task = build(config, splits.train.sources)
    task.check(distributed.device)
    if task.begins_with_fit:
        fit_in_closed_form(task, splits.train, config)
    counts = parameter_counts(task)
    precision = agreed_precision(config, task.step, folder, distributed)
    config = replace(config, trainer=replace(config.trainer, precision=precision.kind))
    choice = agreed_engine(config, splits.train.sources, distributed)
    config, notes = replace(config, engine=choice.engine), attempt_notes(choice, precision, distributed)
    notes += class_notes(splits.train, splits.valid)
    if splits.train.share is not None:
        rows, all_rows = int(splits.train.table.rows.sum()), int(splits.train.shards.rows.sum())
        notes.append(f"trains on {rows:,} of {all_rows:,} train clips (data.train_share {config.data.train_share:g})")
    engine = build_engine(config, task.step, task.parameter_groups(), distributed)
    if uses_graphs(config.engine, distributed):
        task.collator = task.collator.with_static_shapes(_sample_batches(config, splits.train))
    collect_as_usual()  # all heavy modules are imported
    train_windows, valid_windows = windows_of(splits.train), windows_of(splits.valid)
    try:
        state = Trainer(
            config=config,
            task=task,
            engine=engine,
            train=splits.train,
            valid=splits.valid,
            train_windows=train_windows,
            valid_windows=valid_windows,
            distributed=distributed,
            folder=folder,
            progress=show,
            on_epoch=on_epoch,
            utilisation=utilisation(config, splits.train.sources, distributed.world_size)
            if distributed.is_main
            else None,
            asked=asked,
            notes=notes,
            cause=cause,
            pulse=pulse,
        ).fit()
    finally:
        train_windows.close()
        valid_windows.close()
    if distributed.is_main and state.stopped is not None:
        with pulse.away("finishing the run"):
            finish_run(config, folder, splits, task, state, distributed, counts)
    return state  # the other ranks do not wait for rank 0, whose export may take long on a slow storage


def _sample_batches(config: Config, train: SplitShards) -> list[list[str]]:
    """Texts of batches like those that one device will train on."""
    return sample_batches(
        list(itertools.islice(train.texts(), _SAMPLE_TEXTS)),
        batch_size=config.data.batch_size,
        bucket_batches=config.data.bucket_batches,
        accumulate=config.trainer.accumulate,
        seed=config.run.seed,
    )


def train_locally(
    config: Config,
    show: Show,
    asked: Callable[[], str],
    *,
    on_epoch: Callable[[dict[str, Any]], None] | None = None,
) -> TrainState:
    """Train in this process, on the CPU or one GPU, without Ray."""
    device = choose_device(config.trainer.use_gpu)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    distributed = Distributed(device=device)
    return train_rank(config, distributed, LocalWindows, show=show, on_epoch=on_epoch, asked=asked)


def train_in_ray(arguments: dict[str, Any]) -> str:
    """Train one rank inside a Ray Train worker, with rank and device from Ray's context.

    Returns:
        why Ray Train's controller asked it to stop, if that is why it ended; otherwise empty.
    """
    collect_rarely()
    import ray.train
    import ray.train.torch
    import ray.util

    # Relative paths in a configuration refer to the working directory of the command.
    if os.path.isdir(arguments["folder"]):
        os.chdir(arguments["folder"])
    config = config_from_dict(arguments["config"])
    context = ray.train.get_context()
    device = choose_device(arguments["use_gpu"], torch.cuda.current_device() if torch.cuda.is_available() else 0)
    os.environ.setdefault("LOCAL_RANK", str(context.get_local_rank()))
    distributed = Distributed(context.get_world_rank(), context.get_world_size(), device)
    if distributed.world_size < config.trainer.workers:
        accumulate = accumulate_of(
            config.data.batch_size, distributed.world_size, config.trainer.workers, config.trainer.accumulate
        )
        config = replace(config, trainer=replace(config.trainer, accumulate=accumulate))
    notes = RunFolder.of(config).root / ".ray"
    if not all_see_mark(notes, arguments["mark"], distributed):
        return ""  # the driver reports it; after an error, Ray would start workers that fail again
    name = distributed.gather(f"vadv-{secrets.token_hex(4)}")[0]
    # The ranks of a node have different lanes, or share what they read.
    ahead_bytes = _WINDOWS_AHEAD * config.data.window_bytes // context.get_local_world_size()
    process = rank_state()
    try:
        with (
            _metrics_of_rank(config, distributed, arguments["trial"]) as show,
            hearing(arguments["stop"] if distributed.is_main else None) as heard,
        ):
            state = train_rank(
                config,
                distributed,
                lambda split: RayWindows(split, name, distributed.rank, ahead_bytes),
                show=show,
                on_epoch=lambda metrics: ray.train.report(metrics),
                asked=lambda: heard() or process.asked,
                cause=process.cause,
                pulse=process.pulse,
            )
            return process.asked if state.stopped is None and not heard() else ""
    except VadvError:  # the controller passes it on to the driver
        raise
    except Exception:
        # Ray's logs may be gone by the time someone reads the failure.
        with contextlib.suppress(VadvError, OSError):
            name = f"{time.strftime('%Y%m%dT%H%M%S')}-rank-{distributed.rank}.txt"
            write_text(RunFolder.of(config).root / FAILURES / name, traceback.format_exc())
        raise
    finally:
        process.has_ended = True


@contextlib.contextmanager
def _metrics_of_rank(config: Config, distributed: Distributed, trial: str) -> Iterator[Show]:
    """Export rank 0's metrics through Ray's metrics agent."""
    if not distributed.is_main:
        yield lambda line: None
        return
    folder = RunFolder.of(config)
    with ray_metrics(config.run.name, trial=trial, disk=folder.disk) as gauges:
        for line in folder.metrics_log().lines():
            gauges(line)
        yield gauges
