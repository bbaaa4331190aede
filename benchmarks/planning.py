"""Seconds to plan an epoch of 10⁹ clips in 10⁶ shards, and to find the window of a step in it."""

import statistics

import numpy as np
from measure import Row, alternate

from vadv_dist.data.plan import EpochPlan, ShardTable

_SHARDS, _ROWS = 1_000_000, 1_000
_SHARD_BYTES = 13 << 20  # a thousand clips of [8, 1, 768] and [64, 8] float16


def measure(quick: bool) -> list[Row]:
    """Run the benchmark."""
    shards = ShardTable(np.full(_SHARDS, _ROWS, np.int64), np.full(_SHARDS, _SHARD_BYTES, np.int64))

    def plan() -> None:
        epoch = EpochPlan.build(shards, seed=1, epoch=3, batch_size=256, window_bytes=256 << 20)
        assert epoch.num_rows == _SHARDS * _ROWS
        epoch.window_of_step(epoch.num_steps // 2)

    seconds = alternate({"plan": plan}, 2 if quick else 5, warm_ups=0)["plan"]
    what, detail = "plan of an epoch of 10⁹ clips in 10⁶ shards", f"median of {len(seconds)}"
    return [Row(what, "–", statistics.median(seconds), 10, "at most", detail, " s")]
