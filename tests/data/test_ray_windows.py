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
from vadv_dist.data.windows import LocalWindows, RayWindows, _NodeWindows
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
        read = windows.get(ALL)
    finally:
        over.set()
        watcher.join()
    assert 0 < most <= before + 4
    assert read.clip_id == LocalWindows(split).get(ALL).clip_id == expected(ALL)
    assert first_values(read) == list(range(NUM_SHARDS * SHARD_ROWS))


def test_a_killed_reader_is_restarted_without_an_error_on_any_rank(joined: Cluster, split) -> None:
    windows = RayWindows(split, "killed")
    first, second = ALL[:5], ALL[5:9]
    held = windows.get(first, [second])
    (reader,) = joined.processes("_NodeWindows")
    os.kill(reader.pid, signal.SIGKILL)
    # A rank's window stays readable: its memory belongs to the store, not to the reader.
    assert first_values(held) == [float(i) for i in range(5 * SHARD_ROWS)]
    assert windows.get(second, [first]).clip_id == expected(second)
    assert windows.get(first).clip_id == expected(first)
    assert not psutil.pid_exists(reader.pid)


def test_a_reader_that_ray_does_not_restart_is_recreated(joined: Cluster, split) -> None:
    import ray

    windows = RayWindows(split, "removed")
    assert windows.get((0,), [(1,)]).clip_id == expected((0,))
    ray.kill(windows._actor)
    begun = time.monotonic()
    assert windows.get((1,)).clip_id == expected((1,))
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
        read = windows.get(ALL)
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
        RayWindows(split_of(tmp_path / "data"), "damaged").get(ALL)


def shard_bytes(split: SplitShards, *windows: tuple[int, ...]) -> int:
    return sum(split.shards[shard][1].bytes for window in windows for shard in window)


def held(windows: RayWindows) -> set[tuple[int, ...]]:
    """What the node's actor holds or has begun to read."""
    import ray

    return ray.get(windows._actor.__ray_call__.remote(lambda actor: set(actor._held)))


def until_read(windows: RayWindows) -> None:
    import ray

    ray.get(windows._actor.__ray_call__.remote(lambda actor: [reading.result() for reading in actor._held.values()]))


def test_the_windows_of_ranks_with_different_lanes_are_kept_side_by_side(
    joined: Cluster, split, tmp_path: Path
) -> None:
    root = split.sources.datasets[0].root
    shutil.copytree(root, tmp_path / "data")
    first, other = (RayWindows(split_of(tmp_path / "data"), "lanes", rank) for rank in (0, 1))
    assert first.get((0, 1), [(4, 5)]).clip_id == expected((0, 1))
    assert other.get((2, 3), [(6, 7)]).clip_id == expected((2, 3))
    first.keep([(4, 5)])
    until_read(first)
    shutil.rmtree(tmp_path / "data")
    assert first.get((4, 5)).clip_id == expected((4, 5))
    assert other.get((6, 7)).clip_id == expected((6, 7))
    with pytest.raises(UserError, match="is missing"):
        first.get((0, 1))
    assert other.get((6, 7)).clip_id == expected((6, 7))


def test_several_windows_are_read_ahead_as_far_as_their_bytes_allow(joined: Cluster, split) -> None:
    epoch = [(i, i + 1) for i in range(0, NUM_SHARDS, 2)]
    ahead_bytes = max(shard_bytes(split, *epoch[i : i + 3]) for i in range(len(epoch)))
    windows = RayWindows(split, "ahead", ahead_bytes=ahead_bytes)
    for number, shards in enumerate(epoch):
        window = windows.get(shards, epoch[number + 1 :])
        assert window.clip_id == expected(shards)
        assert held(windows) == set(epoch[number : number + 4])
    windows.keep(epoch)  # the epoch is over: what comes next is read ahead
    until_read(windows)
    assert held(windows) == set(epoch[:3])
    windows.keep(())
    assert held(windows) == set()


def test_one_window_is_read_ahead_however_large_it_is(joined: Cluster, split) -> None:
    windows = RayWindows(split, "large", ahead_bytes=1)
    windows.get((0, 1), [(2, 3), (4, 5)])
    assert held(windows) == {(0, 1), (2, 3)}


def test_what_a_rank_waits_for_is_read_before_what_others_read_ahead(split) -> None:
    actor, order, go = _NodeWindows(split), [], threading.Event()
    actor._read = lambda shards: (order.append(shards), go.wait(30))
    actor.want(0, (0,), (1,), (2,))
    while not order:
        time.sleep(0.01)
    actor.want(1, (3,), (4,))
    actor.want(0, (0,), (1,))  # (2,) is no longer wanted and is never read
    go.set()
    actor.get(1, (3,), (4,))
    for reading in list(actor._held.values()):
        reading.result(30)
    assert order == [(0,), (3,), (1,), (4,)]


def test_a_rank_that_waits_is_served_if_an_earlier_call_of_it_comes_later(split) -> None:
    actor, go = _NodeWindows(split), threading.Event()
    actor._read = lambda shards: (go.wait(30), shards)[1]
    actor.want(0, (0,), (1,))
    found: list[object] = []
    waiting = threading.Thread(target=lambda: found.append(actor.get(1, (2,))))
    waiting.start()
    while (2,) not in actor._held:
        time.sleep(0.01)
    actor.want(1)
    go.set()
    waiting.join(30)
    assert found == [((2,), 0)]


def store_bytes(cluster: Cluster) -> int:
    """Bytes in the node's object store when they no longer change; Ray frees objects once per second."""
    from ray._private.internal_api import get_memory_info_reply, get_state_from_address

    state, used = get_state_from_address(cluster.environment["RAY_ADDRESS"]), []
    while len(used) < 2 or used[-1] != used[-2]:
        if used:
            time.sleep(2)
        used.append(int(get_memory_info_reply(state).store_stats.object_store_bytes_used))
    return used[-1]


def test_the_store_of_a_node_does_not_grow_with_the_data_set(joined: Cluster, split) -> None:
    windows = RayWindows(split, "flat", ahead_bytes=3 * max(shard_bytes(split, (i,)) for i in ALL))
    before = store_bytes(joined)
    windows.get((0,))
    one = store_bytes(joined) - before
    assert one > 0
    for shard in ALL:
        windows.get((shard,), [(after,) for after in ALL[shard + 1 :]])
    windows.keep((shard,) for shard in ALL)
    until_read(windows)
    assert store_bytes(joined) - before < 4 * one
