"""Seconds to plan an epoch of 10⁹ clips in 10⁶ shards, and to find the window of a step in it."""

import statistics

import numpy as np
from measure import Row, alternate

from vadv_dist.data.plan import EpochPlan, Mix, ShardTable

_SHARDS, _ROWS = 1_000_000, 1_000
_SHARD_BYTES = 13 << 20  # a thousand clips of [8, 1, 768] and [64, 8] float16


def measure(quick: bool) -> list[Row]:
    """Run the benchmark."""
    shards = ShardTable(np.full(_SHARDS, _ROWS, np.int64), np.full(_SHARDS, _SHARD_BYTES, np.int64))

    # A tenth of the shards is one source, which an equal mixture reads five times.
    mix = Mix(np.repeat([0, 1], [_SHARDS // 10, _SHARDS - _SHARDS // 10]), (_SHARDS * _ROWS // 2,) * 2)

    def plan(mix: Mix | None) -> None:
        epoch = EpochPlan.build(shards, seed=1, epoch=3, batch_size=256, window_bytes=256 << 20, mix=mix)
        assert epoch.num_rows == _SHARDS * _ROWS
        epoch.window_of_step(epoch.num_steps // 2)

    kinds = {"one source": lambda: plan(None), "two sources mixed equally": lambda: plan(mix)}
    seconds = alternate(kinds, 2 if quick else 5, warm_ups=0)
    return [
        Row(
            f"plan of an epoch of 10⁹ clips in 10⁶ shards, {kind}",
            "–",
            statistics.median(times),
            10,
            "at most",
            f"median of {len(times)}",
            " s",
        )
        for kind, times in seconds.items()
    ]
