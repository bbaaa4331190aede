"""Train a run on two gloo ranks, each of which reads only its lanes, for a test: not a test itself."""

import json
import sys
from pathlib import Path

from gloo_ranks import join, leave, slow_down

from vadv_dist.config import load_config
from vadv_dist.data.reading import ShardReader
from vadv_dist.data.windows import LocalWindows
from vadv_dist.launch.worker import train_rank
from vadv_dist.runs.folder import RunFolder


def main(config_path: str, read_path: str) -> None:
    """Train to the end; the paths and bytes of the shards that each rank read are written beside `read_path`."""
    config, distributed = load_config(Path(config_path)), join()
    read: list[tuple[str, int]] = []
    original = ShardReader.read

    def counted(self: ShardReader, shard):
        read.append((shard.path, shard.bytes))
        return original(self, shard)

    ShardReader.read = counted
    if not distributed.is_main:
        slow_down(0.05, 0.1)
    if distributed.is_main:
        RunFolder.of(config).claim(config)
    distributed.barrier()
    train_rank(config, distributed, LocalWindows)
    Path(f"{read_path}-{distributed.rank}").write_text(json.dumps(read))
    leave()


if __name__ == "__main__":
    main(sys.argv[3], sys.argv[4])
