"""MB/s of the first epoch's windows from local Parquet against `pyarrow.parquet.read_table` of the same shards.

Ours verifies each shard's SHA-256, that its numbers are finite and its shapes those declared, and gives numpy views;
`read_table` decodes the same columns. The files are in the page cache for both.
"""

import statistics
import tempfile
from pathlib import Path

import pyarrow.parquet as pq
from material import run_config, sentences, write_clips
from measure import Row, alternate, ratio_of_medians

from vadv_dist.data.windows import LocalWindows
from vadv_dist.training.splits import Splits


def measure(quick: bool) -> list[Row]:
    """Run the benchmark."""
    texts = sentences()[1]
    texts = (texts * 20)[: 10_000 if quick else 30_000]
    with tempfile.TemporaryDirectory() as scratch:
        write_clips(Path(scratch) / "data", texts, features=True)
        train = Splits.open(run_config(Path(scratch), batch_size=16, teacher=True)).train
        plan = train.plan(run_config(Path(scratch), batch_size=16, teacher=True).data, seed=1, epoch=0)
        paths = [train.sources.datasets[0].shard_path(shard) for _, shard in train.shards]
        megabytes = sum(shard.bytes for _, shard in train.shards) / 1e6

        def ours() -> None:
            windows = LocalWindows(train)  # a new one has verified nothing
            for index in range(plan.num_windows):
                upcoming = (plan.window(following).shards for following in range(index + 1, plan.num_windows))
                windows.get(plan.window(index).shards, upcoming)
            windows.close()

        seconds = alternate({"ours": ours, "pyarrow": lambda: pq.read_table(paths)}, 3 if quick else 9)
    rates = {name: megabytes / statistics.median(times) for name, times in seconds.items()}
    return [
        Row(
            f"MB/s of windows, first epoch, {megabytes:.0f} MB in {len(paths)} shards",
            "pyarrow.parquet.read_table",
            ratio_of_medians(seconds["pyarrow"], seconds["ours"]),
            0.8,
            "at least",
            f"{rates['ours']:.0f} against {rates['pyarrow']:.0f} MB/s",
        )
    ]
