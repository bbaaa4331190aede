"""Windows that the ranks of a node share: contents, number of processes, and recovery after the reader dies."""

import contextlib
import os
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
from ray_nodes import Cluster

from vadv_dist.data.dataset import Dataset
from vadv_dist.data.schema import Clip, FeatureSpec, LabelSpec, Window
from vadv_dist.data.shards import DatasetWriter
from vadv_dist.data.sources import Sources, SplitShards
from vadv_dist.data.windows import LocalWindows, RayWindows
from vadv_dist.errors import UserError
from vadv_dist.runtime.ray_connection import connect

pytestmark = [pytest.mark.ray, pytest.mark.slow]
NUM_SHARDS, SHARD_ROWS = 40, 3
ALL = tuple(range(NUM_SHARDS))


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> SplitShards:
    """40 shards of 3 clips, each clip with 64 distinct numbers."""
    out = tmp_path_factory.mktemp("shards") / "data"
    specs = {"visual": FeatureSpec((2, 1, 32))}
    with DatasetWriter(out, features=specs, label=LabelSpec(), provenance={}, shard_rows=SHARD_ROWS) as writer:
        for i in range(NUM_SHARDS * SHARD_ROWS):
            writer.write("train", Clip(f"c{i}", f"v{i}", "words", 0.0, "test", {"visual": np.full((2, 1, 32), i)}))
    return split_of(out)


def split_of(uri: Path) -> SplitShards:
    return Sources([Dataset.open(str(uri))], ("visual",), (None,)).split("train", missing="mask")


@pytest.fixture
def joined(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """Connect this process to the tests' cluster as a driver."""
    import ray

    for name in ("RAY_ADDRESS", "RAY_AUTH_MODE"):
        monkeypatch.setenv(name, cluster.environment[name])
    assert connect(1) is False
    yield cluster
    ray.shutdown()


def first_values(window: Window) -> list[float]:
    """One number of each row's feature."""
    return [float(x) for chunk in window.features["visual"].chunks for x in chunk[:, 0, 0, 0]]


def expected(shards: tuple[int, ...]) -> list[str]:
    return [f"c{shard * SHARD_ROWS + row}" for shard in shards for row in range(SHARD_ROWS)]


def test_many_small_shards_need_few_processes_and_match_the_local_reader(joined: Cluster, split) -> None:
    before, most = len(joined.processes("")), 0
    over = threading.Event()

    def look() -> None:
        nonlocal most
        while not over.wait(0.05):
            most = max(most, len(joined.processes("")))

    watcher = threading.Thread(target=look)
    watcher.start()
    windows = RayWindows(split, "few")
    try:
        read = windows.get(ALL, None)
    finally:
        over.set()
        watcher.join()
    assert 0 < most <= before + 4
    assert read.clip_id == LocalWindows(split).get(ALL, None).clip_id == expected(ALL)
    assert first_values(read) == list(range(NUM_SHARDS * SHARD_ROWS))


def test_a_killed_reader_is_restarted_without_an_error_on_any_rank(joined: Cluster, split) -> None:
    windows = RayWindows(split, "killed")
    first, second = ALL[:5], ALL[5:9]
    held = windows.get(first, second)
    (reader,) = joined.processes("_NodeWindows")
    os.kill(reader.pid, signal.SIGKILL)
    # A rank's window stays readable: its memory belongs to the store, not to the reader.
    assert first_values(held) == [float(i) for i in range(5 * SHARD_ROWS)]
    assert windows.get(second, first).clip_id == expected(second)
    assert windows.get(first, None).clip_id == expected(first)
    assert not psutil.pid_exists(reader.pid)


def test_a_reader_that_ray_does_not_restart_is_recreated(joined: Cluster, split) -> None:
    import ray

    windows = RayWindows(split, "removed")
    assert windows.get((0,), (1,)).clip_id == expected((0,))
    ray.kill(windows._actor)
    begun = time.monotonic()
    assert windows.get((1,), None).clip_id == expected((1,))
    assert time.monotonic() - begun < 60


def test_a_rank_reads_for_itself_if_the_reader_dies_every_time(joined: Cluster, split) -> None:
    windows = RayWindows(split, "dying")
    over = threading.Event()

    def kill() -> None:
        while not over.wait(0.02):
            for reader in joined.processes("_NodeWindows"):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(reader.pid, signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        read = windows.get(ALL, None)
    finally:
        over.set()
        killer.join()
    assert read.clip_id == expected(ALL)
    assert first_values(read) == list(range(NUM_SHARDS * SHARD_ROWS))


def test_a_damaged_shard_gives_the_readers_message(joined: Cluster, split, tmp_path: Path) -> None:
    root = split.sources.datasets[0].root
    shutil.copytree(root, tmp_path / "data")
    victim = sorted((tmp_path / "data" / "train").iterdir())[7]
    victim.write_bytes(victim.read_bytes()[:-1])
    with pytest.raises(UserError, match=rf"{victim.name} has .* bytes, but dataset.json declares"):
        RayWindows(split_of(tmp_path / "data"), "damaged").get(ALL, None)


def test_the_windows_of_ranks_with_different_lanes_are_kept_side_by_side(
    joined: Cluster, split, tmp_path: Path
) -> None:
    import ray

    root = split.sources.datasets[0].root
    shutil.copytree(root, tmp_path / "data")
    first, other = (RayWindows(split_of(tmp_path / "data"), "lanes", rank) for rank in (0, 1))
    assert first.get((0, 1), (4, 5)).clip_id == expected((0, 1))
    assert other.get((2, 3), (6, 7)).clip_id == expected((2, 3))
    first.prefetch((4, 5))
    for rank, shards in ((0, (4, 5)), (1, (6, 7))):
        ray.get(first._actor.get.remote(rank, shards))  # until they are read
    shutil.rmtree(tmp_path / "data")
    assert first.get((4, 5), None).clip_id == expected((4, 5))
    assert other.get((6, 7), None).clip_id == expected((6, 7))
    with pytest.raises(UserError, match="is missing"):
        first.get((0, 1), None)
    assert other.get((6, 7), None).clip_id == expected((6, 7))
