"""Seconds to open a data set of 10⁶ shards, to plan an epoch of its 10⁹ clips, and to find the window of a step in it.

Opening reads and verifies the list of shards, computes the fingerprint, and determines what a run takes of each shard.
"""

import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
from measure import Row, alternate

from vadv_dist.data.dataset import Dataset, DatasetManifest, write_manifest
from vadv_dist.data.info import dataset_info
from vadv_dist.data.plan import EpochPlan, Mix, ShardTable
from vadv_dist.data.schema import FeatureSpec, LabelSpec
from vadv_dist.data.shard_list import ShardList
from vadv_dist.data.sources import Sources

_SHARDS, _ROWS = 1_000_000, 1_000
_SHARD_BYTES = 13 << 20  # a thousand clips of [8, 1, 768] and [64, 8] float16


def measure(quick: bool) -> list[Row]:
    """Run the benchmark."""
    repeats = 2 if quick else 5
    return [*_planning(repeats), *_opening(repeats)]


def _planning(repeats: int) -> list[Row]:
    shards = ShardTable(np.full(_SHARDS, _ROWS, np.int64), np.full(_SHARDS, _SHARD_BYTES, np.int64))

    # A tenth of the shards is one source, which an equal mixture reads five times.
    mix = Mix(np.repeat([0, 1], [_SHARDS // 10, _SHARDS - _SHARDS // 10]), (_SHARDS * _ROWS // 2,) * 2)

    def plan(mix: Mix | None, num_lanes: int) -> None:
        epoch = EpochPlan.build(
            shards, seed=1, epoch=3, batch_size=256, window_bytes=256 << 20, mix=mix, num_lanes=num_lanes
        )
        assert epoch.num_rows == _SHARDS * _ROWS
        epoch.window_of_step(epoch.num_steps // 2)

    kinds = {
        "one lane": lambda: plan(None, 1),
        "16 lanes": lambda: plan(None, 16),
        "two sources mixed equally": lambda: plan(mix, 16),
    }
    seconds = alternate(kinds, repeats, warm_ups=0)
    return [_row(f"plan of an epoch of 10⁹ clips in 10⁶ shards, {kind}", times, 10) for kind, times in seconds.items()]


def _opening(repeats: int) -> list[Row]:
    random = np.random.default_rng(0)
    number = np.arange(_SHARDS)
    shards = ShardList(
        paths=pa.array([f"train/{i:05d}.parquet" for i in range(_SHARDS)], pa.string()),
        rows=np.full(_SHARDS, _ROWS),
        bytes=np.full(_SHARDS, _SHARD_BYTES),
        sha256=pa.array([random.bytes(32).hex() for _ in range(_SHARDS)], pa.string()),
        kinds=({}, {"face": 1}, {"face": 2, "face+visual": 1}),
        kind=number % 3,
    )
    features = {"visual": FeatureSpec((8, 1, 768)), "face": FeatureSpec((64, 8))}
    with tempfile.TemporaryDirectory() as scratch:
        began = time.perf_counter()
        write_manifest(Path(scratch), DatasetManifest({"train": shards}, features, LabelSpec()))
        written = time.perf_counter() - began

        def open_split() -> None:
            dataset = Dataset.open(scratch)
            assert dataset.manifest.fingerprint
            split = Sources([dataset], tuple(features), (None,)).split("train", missing="drop")
            assert split.table.rows.sum() == _SHARDS * _ROWS - split.dropped

        kinds = {"open": open_split, "info": lambda: dataset_info(scratch)}
        seconds = alternate(kinds, repeats, warm_ups=0)
        megabytes = sum(file.stat().st_size for file in Path(scratch).rglob("*.parquet")) / 1e6
    return [
        _row("a data set of 10⁶ shards opened for training", seconds["open"], 10),
        _row("`data-info` of a data set of 10⁶ shards", seconds["info"], 10),
        _row(f"list of 10⁶ shards written ({megabytes:.0f} MB)", [written], 20),
    ]


def _row(what: str, times: list[float], most_s: float) -> Row:
    return Row(what, "–", statistics.median(times), most_s, "at most", f"median of {len(times)}", " s")
