"""Seconds to read a window of many small shards through Ray against the local reader, and the processes that read.

Each round takes new readers, which have verified nothing. The actor that reads for a node starts once per run, while
the model is built; how long that takes is in the detail. The files are in the page cache for both.
"""

import os
import statistics
import tempfile
import time
from pathlib import Path

import psutil
from material import run_config, sentences, write_clips
from measure import NUM_THREADS, Row, ratio_of_medians

from vadv_dist.data.windows import LocalWindows, RayWindows, Windows
from vadv_dist.runtime.ray_connection import connect
from vadv_dist.training.splits import Splits

NUM_SHARDS, SHARD_ROWS = 64, 40


def measure(quick: bool) -> list[Row]:
    """Run the benchmark."""
    import ray

    texts = (sentences()[1] * 20)[: NUM_SHARDS * SHARD_ROWS]
    seconds: dict[str, list[float]] = {"local": [], "ray": [], "start": []}
    connect(NUM_THREADS + 2, given="local")
    try:
        with tempfile.TemporaryDirectory() as scratch:
            write_clips(Path(scratch) / "data", texts, features=True, shard_rows=SHARD_ROWS)
            train = Splits.open(run_config(Path(scratch), batch_size=16, teacher=True)).train
            megabytes = sum(shard.bytes for _, shard in train.shards) / 1e6
            shards = tuple(range(len(train.shards)))

            readers = 0

            def read(name: str, windows: Windows) -> None:
                began = time.perf_counter()
                windows.get(shards, None)
                seconds[name].append(time.perf_counter() - began)
                windows.close()

            for number in range(3 if quick else 9):
                read("local", LocalWindows(train))
                before, began = _workers(), time.perf_counter()
                shared = RayWindows(train, f"round-{number}")
                ray.get(shared._actor.__ray_ready__.remote())
                seconds["start"].append(time.perf_counter() - began)
                read("ray", shared)
                readers = max(readers, len(_workers() - before))
                ray.kill(shared._actor)
    finally:
        ray.shutdown()
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    detail = f"{medians['ray']:.2f} against {medians['local']:.2f} s; the actor starts in {medians['start']:.1f} s"
    what = f"a window of {megabytes:.0f} MB in {len(shards)} shards, through Ray"
    return [
        Row(what, "the local reader", ratio_of_medians(seconds["ray"], seconds["local"]), 1.5, "at most", detail),
        Row("processes that read it", "", readers, 4, "at most", f"on {os.cpu_count()} cores", unit=""),
    ]


def _workers() -> set[int]:
    """Ray's workers below this process that run something."""
    found = set()
    for process in psutil.Process().children(recursive=True):
        title = process.cmdline()[:1]
        if title and title[0].startswith("ray::") and not title[0].startswith("ray::IDLE"):
            found.add(process.pid)
    return found
