"""One rank of a run: from a configuration to a trained model, in this process or inside a Ray Train worker."""

import contextlib
import os
import secrets
import time
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import torch

from vadv_dist.config import Config, config_from_dict
from vadv_dist.data.sources import SplitShards
from vadv_dist.data.windows import LocalWindows, RayWindows, Windows
from vadv_dist.engines.allocator import keep_freed_memory
from vadv_dist.engines.build import build_engine
from vadv_dist.engines.distributed import Distributed, choose_device
from vadv_dist.engines.faults import is_out_of_memory
from vadv_dist.errors import VadvError, error_from_json, error_to_json
from vadv_dist.launch.shared_folder import all_see_mark
from vadv_dist.launch.stop_actor import hearing
from vadv_dist.runs.folder import FAILURES, RunFolder
from vadv_dist.runs.records import Line
from vadv_dist.runs.state import TrainState
from vadv_dist.runs.trained_on import TrainedOn
from vadv_dist.runtime.garbage_collection import collect_as_usual, collect_rarely
from vadv_dist.storage import Location, location, read_json, write_json, write_text
from vadv_dist.tasks import build
from vadv_dist.tasks.base import parameter_counts
from vadv_dist.training.completion import finish_run
from vadv_dist.training.flops import utilisation
from vadv_dist.training.loop import Trainer, out_of_memory
from vadv_dist.training.splits import Splits
from vadv_dist.watching.ray_metrics import ray_metrics

# Below a run: what a worker met that is no fault of the machine, and traces of what nobody expected.
MISTAKE = "mistake.json"
# Beside `MISTAKE`: the id of the workers' placement group, for whoever ends them from outside.
GROUP = "placement-group"

Show = Callable[[Line], None]


def train_rank(
    config: Config,
    distributed: Distributed,
    windows_of: Callable[[SplitShards], Windows],
    *,
    show: Show = lambda line: None,
    on_epoch: Callable[[dict[str, Any]], None] | None = None,
    asked: Callable[[], bool] = lambda: False,
) -> TrainState:
    """Train one rank to the end of the run, and let rank 0 export the best student.

    A run that `asked` told to stop has ended with a checkpoint instead: its state's `stopped` is None.

    Raises:
        UserError: a mistake in the configuration or the data.
        MachineError: a full disk or a damaged checkpoint.
    """
    if distributed.device.type == "cpu":
        keep_freed_memory()
    folder = RunFolder.of(config)
    try:
        with folder.writer_lock() if distributed.is_main else contextlib.nullcontext():
            return _train_rank(config, folder, distributed, windows_of, show, on_epoch, asked)
    except RuntimeError as error:
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
    asked: Callable[[], bool],
) -> TrainState:
    splits = Splits.open(config)
    folder.require_same(TrainedOn.of(config, splits.train.sources, weights=distributed.is_main))
    task = build(config, splits.train.sources)
    task.check(distributed.device)
    counts = parameter_counts(task)
    engine = build_engine(config, task.step, task.parameter_groups(), distributed)
    collect_as_usual()  # all that is heavy is imported
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
        ).fit()
    finally:
        train_windows.close()
        valid_windows.close()
    if distributed.is_main and state.stopped is not None:
        finish_run(config, folder, splits, task, state, distributed, counts)
    distributed.barrier()
    return state


def train_locally(config: Config, show: Show, asked: Callable[[], bool]) -> TrainState:
    """Train in this process, on the CPU or one GPU, without Ray."""
    device = choose_device(config.trainer.use_gpu)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    return train_rank(config, Distributed(device=device), LocalWindows, show=show, asked=asked)


def train_in_ray(arguments: dict[str, Any]) -> None:
    """Train one rank inside a Ray Train worker: translate Ray's context, nothing else."""
    collect_rarely()
    import ray.train
    import ray.train.torch
    import ray.util

    # Paths of a configuration are relative to where the command was given.
    if os.path.isdir(arguments["folder"]):
        os.chdir(arguments["folder"])
    config = config_from_dict(arguments["config"])
    context = ray.train.get_context()
    device = choose_device(arguments["use_gpu"], torch.cuda.current_device() if torch.cuda.is_available() else 0)
    os.environ.setdefault("LOCAL_RANK", str(context.get_local_rank()))
    distributed = Distributed(context.get_world_rank(), context.get_world_size(), device)
    mistake = location(arguments["mistake"])
    if not all_see_mark(RunFolder.of(config).root / ".ray", arguments["mark"], distributed):
        return  # the driver tells why; Ray would start workers that fail again
    # Rank 0's word counts: a shared disk may show a new file to one node before another.
    met_before = distributed.gather(distributed.is_main and mistake.is_file())[0]
    if met_before:  # an earlier start met it, and so would this one: end well, so that Ray does not start again
        return
    group = ray.util.get_current_placement_group()
    if distributed.is_main and group is not None:
        with contextlib.suppress(VadvError, OSError):
            write_text(mistake.parent / GROUP, group.id.hex())
    name = distributed.gather(f"vadv-{secrets.token_hex(4)}")[0]
    try:
        with (
            _metrics_of_rank(config, distributed, arguments["trial"]) as show,
            hearing(arguments["stop"] if distributed.is_main else None) as asked,
        ):
            train_rank(
                config,
                distributed,
                lambda split: RayWindows(split, name),
                show=show,
                on_epoch=lambda metrics: ray.train.report(metrics),
                asked=asked,
            )
    except VadvError as error:
        # On a full disk not even this can be written; the driver then looks through what Ray hands over.
        with contextlib.suppress(VadvError, OSError):
            write_json(mistake, error_to_json(error))
        raise
    except Exception:
        # Ray starts the workers again, and its own logs may be gone by the time that somebody asks.
        with contextlib.suppress(VadvError, OSError):
            name = f"{time.strftime('%Y%m%dT%H%M%S')}-rank-{distributed.rank}.txt"
            write_text(RunFolder.of(config).root / FAILURES / name, traceback.format_exc())
        raise


@contextlib.contextmanager
def _metrics_of_rank(config: Config, distributed: Distributed, trial: str) -> Iterator[Show]:
    """Let Ray's metrics agent serve what rank 0 is shown."""
    if not distributed.is_main:
        yield lambda line: None
        return
    folder = RunFolder.of(config)
    with ray_metrics(config.run.name, trial=trial, disk=folder.disk) as gauges:
        gauges.replay(folder.metrics_log().lines())
        yield gauges


def raise_mistake(path: Location) -> None:
    """Raise in the driver what a worker has noted; Ray itself passes on no more than a trace.

    Raises:
        VadvError: of the kind that the worker raised.
    """
    if path.is_file():
        raise error_from_json(read_json(path))
