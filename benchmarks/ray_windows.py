"""Windows through Ray against the local reader: the first one, a whole epoch, processes, and bytes in the store.

Readers are new in each turn and have verified nothing. The actor that reads for a node starts once per run, while the
model is built; how long that takes is in the detail. The files are in the page cache for all. An epoch is also read as
one streaming Ray Data pipeline (`ray_data_windows.py`), which is why `data/windows.py` is not one.
"""

import os
import statistics
import tempfile
import time
from itertools import count
from pathlib import Path

import psutil
from material import run_config, sentences, write_clips
from measure import NUM_THREADS, Row, alternate, ratio_of_medians
from ray_data_windows import PipelineActor

from vadv_dist.data.sources import SplitShards
from vadv_dist.data.windows import LocalWindows, RayWindows, Windows, to_window
from vadv_dist.runtime.ray_connection import connect
from vadv_dist.training.splits import Splits

NUM_SHARDS, SHARD_ROWS = 64, 40
EPOCH_WINDOWS, WINDOW_SHARDS, EPOCH_SHARD_ROWS = 8, 3, 1024
WINDOWS_AHEAD, PACE_S = 3, 0.3


def measure(quick: bool) -> list[Row]:
    """Run the benchmark."""
    import ray

    connect(NUM_THREADS + 2, given="local")
    try:
        with tempfile.TemporaryDirectory() as scratch:
            large = _split(Path(scratch) / "large", EPOCH_WINDOWS * WINDOW_SHARDS, EPOCH_SHARD_ROWS)
            return [
                *_first_window(_split(Path(scratch) / "small", NUM_SHARDS, SHARD_ROWS), 3 if quick else 9),
                *_epoch(large, 2 if quick else 7),
                _store(large),
            ]
    finally:
        ray.shutdown()


def _split(folder: Path, num_shards: int, shard_rows: int) -> SplitShards:
    texts = sentences()[1]
    texts = (texts * (num_shards * shard_rows // len(texts) + 1))[: num_shards * shard_rows]
    write_clips(folder / "data", texts, features=True, shard_rows=shard_rows)
    return Splits.open(run_config(folder, batch_size=16, teacher=True)).train


def _first_window(train: SplitShards, repeats: int) -> list[Row]:
    """A window of many small shards, of which the ranks wait for the first one of a run."""
    import ray

    seconds: dict[str, list[float]] = {"local": [], "ray": [], "start": []}
    megabytes = sum(shard.bytes for _, shard in train.shards) / 1e6
    shards = tuple(range(len(train.shards)))
    readers = 0

    def read(name: str, windows: Windows) -> None:
        began = time.perf_counter()
        windows.get(shards)
        seconds[name].append(time.perf_counter() - began)
        windows.close()

    for number in range(repeats):
        read("local", LocalWindows(train))
        before, began = _workers(), time.perf_counter()
        shared = RayWindows(train, f"round-{number}")
        ray.get(shared._actor.__ray_ready__.remote())
        seconds["start"].append(time.perf_counter() - began)
        read("ray", shared)
        readers = max(readers, len(_workers() - before))
        ray.kill(shared._actor)
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    detail = f"{medians['ray']:.2f} against {medians['local']:.2f} s; the actor starts in {medians['start']:.1f} s"
    what = f"a window of {megabytes:.0f} MB in {len(shards)} shards, through Ray"
    return [
        Row(what, "the local reader", ratio_of_medians(seconds["ray"], seconds["local"]), 1.5, "at most", detail),
        Row("processes that read it", "", readers, 4, "at most", f"on {os.cpu_count()} cores", unit=""),
    ]


def _epoch(train: SplitShards, repeats: int) -> list[Row]:
    """An epoch of several windows, read as fast as possible."""
    import ray

    windows = [
        tuple(range(first, first + WINDOW_SHARDS)) for first in range(0, EPOCH_WINDOWS * WINDOW_SHARDS, WINDOW_SHARDS)
    ]
    megabytes = sum(shard.bytes for _, shard in train.shards) / 1e6
    turn = count()
    first: dict[str, list[float]] = {"local": [], "ray": [], "ray data": []}
    pipeline = ray.remote(PipelineActor).options(num_cpus=0).remote(train.absolute())
    ray.get(pipeline.__ray_ready__.remote())
    ahead_bytes = WINDOWS_AHEAD * WINDOW_SHARDS * int(train.shards.bytes.max())
    shared = [RayWindows(train, f"epoch-{number}", 0, ahead_bytes) for number in range(repeats + 1)]
    ray.get([windows._actor.__ray_ready__.remote() for windows in shared])

    def through(name: str, supply: Windows) -> None:
        began = time.perf_counter()
        for number, shards in enumerate(windows):
            supply.get(shards, windows[number + 1 :])
            if not number:
                first[name].append(time.perf_counter() - began)
        supply.close()

    def through_ray_data() -> None:
        began = time.perf_counter()
        ray.get(pipeline.begin.remote(windows, next(turn)))
        for number, shards in enumerate(windows):
            to_window(ray.get(ray.get(pipeline.next.remote())), train.sources.features, train.row_ids(shards))
            if not number:
                first["ray data"].append(time.perf_counter() - began)

    seconds = alternate(
        {
            "local": lambda: through("local", LocalWindows(train)),
            "ray": lambda: through("ray", shared.pop()),
            "ray data": through_ray_data,
        },
        repeats,
    )
    rates = {name: megabytes / statistics.median(times) for name, times in seconds.items()}
    wait = {name: statistics.median(times[1:]) for name, times in first.items()}
    shown = f"{EPOCH_WINDOWS} windows of {megabytes / EPOCH_WINDOWS:.0f} MB"
    return [
        Row(
            f"MB/s of an epoch through Ray, {shown}",
            "the local reader",
            ratio_of_medians(seconds["local"], seconds["ray"]),
            0.9,
            "at least",
            f"{rates['ray']:.0f} against {rates['local']:.0f} MB/s; first window after {wait['ray']:.2f} and "
            f"{wait['local']:.2f} s",
        ),
        Row(
            "the same",
            "a streaming Ray Data pipeline",
            ratio_of_medians(seconds["ray data"], seconds["ray"]),
            1.0,
            "at least",
            f"{rates['ray']:.0f} against {rates['ray data']:.0f} MB/s; first window after {wait['ray']:.2f} and "
            f"{wait['ray data']:.2f} s",
        ),
    ]


def _store(train: SplitShards) -> Row:
    """Whether the node's object store grows over an epoch of windows of one shard, used at the pace of a training."""
    windows = [(shard,) for shard in range(len(train.shards))]
    largest = int(train.shards.bytes.max())
    time.sleep(3)  # until Ray has freed what was read before
    supply, before, used = RayWindows(train, "store", 0, WINDOWS_AHEAD * largest), _store_bytes(), []
    for number, shards in enumerate(windows):
        supply.get(shards, windows[number + 1 :])
        time.sleep(PACE_S)
        used.append(_store_bytes() - before)
    supply.close()
    half = len(windows) // 2
    return Row(
        f"peak of a node's object store in the second half of {len(windows)} windows of {largest / 1e6:.0f} MB",
        "the first half",
        max(used[half:]) / max(used[:half]),
        1.1,
        "at most",
        f"{max(used) / 1e6:.0f} of {sum(train.shards.bytes) / 1e6:.0f} MB, {WINDOWS_AHEAD} windows read ahead",
    )


def _store_bytes() -> int:
    import ray
    from ray._private.internal_api import get_memory_info_reply, get_state_from_address

    address = ray.get_runtime_context().gcs_address
    return int(get_memory_info_reply(get_state_from_address(address)).store_stats.object_store_bytes_used)


def _workers() -> set[int]:
    """Ray's workers below this process that run something."""
    found = set()
    for process in psutil.Process().children(recursive=True):
        title = process.cmdline()[:1]
        if title and title[0].startswith("ray::") and not title[0].startswith("ray::IDLE"):
            found.add(process.pid)
    return found
