"""Begin a run with `engine.kind: auto` on two gloo processes whose devices differ, for a test: not a test itself."""

import sys
from pathlib import Path

from gloo_ranks import join, leave

from vadv_dist.config import load_config
from vadv_dist.data.windows import LocalWindows
from vadv_dist.engines import memory
from vadv_dist.launch.worker import train_rank
from vadv_dist.runs.folder import RunFolder


def main(config_path: str, rank_1_bytes: str) -> None:
    """Train some steps, then stop as if asked to; rank 1's device has `rank_1_bytes` of memory."""
    config, distributed = load_config(Path(config_path)), join()
    if distributed.rank == 1:
        memory.device_bytes = lambda device, ranks_here=1: int(rank_1_bytes)
    if distributed.is_main:
        RunFolder.of(config).claim(config)
    distributed.barrier()
    steps = iter(range(3))
    state = train_rank(config, distributed, LocalWindows, asked=lambda: "SIGTERM" if next(steps, None) is None else "")
    assert state.stopped is None
    leave()


if __name__ == "__main__":
    main(sys.argv[3], sys.argv[4])
