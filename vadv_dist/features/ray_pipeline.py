"""The stages of an extraction as one streaming Ray Data pipeline, and its cluster.

The rows of the pipeline are batches of clips: a batch passes the encoders as a unit, so that the features do not depend
on where a run was interrupted.
"""

import json
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from vadv_dist.config.extract_sections import ExtractConfig
from vadv_dist.data.schema import Array
from vadv_dist.errors import MachineError, UserError
from vadv_dist.features.isolated import begun, read_each_apart
from vadv_dist.features.listing import ListedClip
from vadv_dist.features.stages import (
    BRANCHES,
    Branch,
    ClipBatch,
    ClipReader,
    ClipReport,
    EncodingStage,
    Located,
    StageSpec,
    choose_device,
)
from vadv_dist.runtime.ray_connection import connect
from vadv_dist.runtime.ray_errors import last_line, own_error
from vadv_dist.storage import store_settings, use_store_settings

# Ray Data fuses a task with the following actor if both request the same resources, and reading would wait for
# encoding. A difference of one byte of memory prevents that.
_OWN_OPERATOR = 1
# Queue between two stages: enough to keep the next one busy, however long the list is.
_BATCHES_WAITING = 2


@dataclass(frozen=True)
class Room:
    """Number of CPUs and GPUs for an extraction."""

    cpus: int
    gpus: int


@contextmanager
def runtime(config: ExtractConfig) -> Iterator[Room]:
    """Connect to the configured Ray cluster, or start one on this machine for the duration of the block.

    Yields:
        the available resources.
    Raises:
        UserError: the stages do not fit the cluster, and Ray would wait forever.
    """
    compute = config.compute
    if compute.num_workers == 0:
        yield Room(1, int(choose_device(compute.use_gpu).type == "cuda"))
        return
    import ray

    started_here = False
    stages = (config.image.encoder is not None) + (config.faces.kind != "none")
    if not ray.is_initialized():
        os.environ.setdefault("RAY_DATA_LOG_LEVEL", "CRITICAL")
        # One more per encoder, whose actors mostly wait.
        started_here = connect((os.cpu_count() or 1) + stages, field="compute.ray_address", given=compute.ray_address)
    try:
        resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]  # untyped in Ray
        cpus, gpus = resources.get("CPU", 0.0), int(resources.get("GPU", 0.0))
        if compute.use_gpu is True and not gpus:
            raise UserError("compute.use_gpu is true, but the Ray cluster has no GPU. Set it to auto or false.")
        gpus = 0 if compute.use_gpu is False else gpus
        if cpus < 1 + (0 if gpus else stages):
            raise UserError(
                f"One CPU for reading{'' if gpus else ' and one per encoder'} do not fit the Ray cluster, which has "
                f"{cpus:g} CPUs. Add nodes, or set compute.num_workers: 0 to work in one process without Ray."
            )
        yield Room(int(cpus), gpus)
    finally:
        if started_here:
            ray.shutdown()


def through_ray(spec: StageSpec, batches: Iterator[Located], room: Room) -> Iterator[ClipBatch]:
    """Run the stages as operators of one streaming Ray Data pipeline.

    They overlap, and back-pressure bounds the queues between them.

    Raises:
        VadvError: raised by a stage.
        MachineError: Ray lost workers more often than it retries.
    """
    import ray
    from ray.data import ActorPoolStrategy, TaskPoolStrategy
    from ray.exceptions import RayError

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.raise_original_map_exception = True  # a stage's error reaches the driver unchanged
    compute = spec.config.compute
    actors = compute.max_actors or room.gpus or os.cpu_count() or 1
    rows = [
        {"number": number, "clips": json.dumps([(asdict(clip), location) for clip, location in clips])}
        for number, clips in enumerate(batches)
    ]
    place = _Place(os.getcwd(), store_settings())
    read: Any = _read  # Ray's types do not allow keyword arguments
    dataset = ray.data.from_items(rows, override_num_blocks=len(rows)).map_batches(
        read,
        fn_kwargs={"spec": spec, "run": uuid.uuid4().hex, "place": place},
        batch_size=1,
        batch_format="pyarrow",
        num_cpus=1,
        memory=_OWN_OPERATOR,
        compute=TaskPoolStrategy(compute.num_workers or room.cpus),
    )
    for branch in spec.branches:
        dataset = dataset.map_batches(
            _Encode,
            fn_constructor_args=(branch, spec, place),
            batch_size=1,
            batch_format="pyarrow",
            compute=ActorPoolStrategy(min_size=1, max_size=actors, max_tasks_in_flight_per_actor=_BATCHES_WAITING),
            # The actors of both encoders share the GPUs.
            num_gpus=0.5 if room.gpus else None,
            num_cpus=None if room.gpus else 1,
        )
    try:
        for table in dataset.iter_batches(batch_size=1, batch_format="pyarrow", prefetch_batches=0):
            yield _from_table(table)
    except RayError as error:
        raise own_error(error) or MachineError(
            f"Ray failed: {last_line(error)}. Complete shards are safe: run the same command again."
        ) from None


@dataclass(frozen=True)
class _Place:
    """The base of the driver's relative paths, and its store settings, for processes of an existing cluster."""

    folder: str
    stores: dict[str, str]

    def enter(self) -> None:
        if os.path.isdir(self.folder):
            os.chdir(self.folder)
        use_store_settings(self.stores)


_readers: dict[str, ClipReader] = {}


def _read(table: pa.Table, spec: StageSpec, run: str, place: _Place) -> pa.Table:
    """The reading stage as a task; the process keeps its reader, because opening a detector takes as long as a clip."""
    place.enter()
    [row] = table.to_pylist()
    number = int(row["number"])
    clips = [(ListedClip(**clip), location) for clip, location in json.loads(row["clips"])]
    with begun(run, number) as before:
        if before:
            return _to_table(read_each_apart(spec, number, clips))
        if run not in _readers:
            _readers.clear()
            _readers[run] = ClipReader(spec)
        return _to_table(_readers[run].read(number, clips))


class _Encode:
    """An encoding stage as an actor."""

    def __init__(self, branch: Branch, spec: StageSpec, place: _Place) -> None:
        import torch

        place.enter()
        torch.set_num_threads(1)  # actors run in parallel
        self._stage = EncodingStage(branch, spec, choose_device(spec.config.compute.use_gpu))

    def __call__(self, table: pa.Table) -> pa.Table:
        return _to_table(self._stage.run(_from_table(table)))


def _to_table(batch: ClipBatch) -> pa.Table:
    """A batch as one row: arrays as bytes, which can be read without copying, and the rest as JSON."""
    arrays: dict[str, Array] = {name: array for name in BRANCHES if (array := getattr(batch, name)) is not None}
    head: dict[str, Any] = {
        "number": batch.number,
        "reports": [asdict(report) for report in batch.reports],
        "kinds": {name: (array.dtype.str, array.shape) for name, array in arrays.items()},
    }
    columns: dict[str, pa.Array] = {"head": pa.array([json.dumps(head)], pa.large_string())}
    columns |= {name: pa.array([array.tobytes()], pa.large_binary()) for name, array in arrays.items()}
    return pa.table(columns)


def _from_table(table: pa.Table) -> ClipBatch:
    head = json.loads(table.column("head")[0].as_py())
    arrays = {
        name: np.frombuffer(table.column(name)[0].as_buffer(), dtype).reshape(shape)
        for name, (dtype, shape) in head["kinds"].items()
    }
    return ClipBatch(head["number"], [ClipReport(**report) for report in head["reports"]], **arrays)
