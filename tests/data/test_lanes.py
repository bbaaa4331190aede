"""Lanes: ranks read parts of windows, and the global batches are the same for any number of them."""

from itertools import chain
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from vadv_dist.config import Config, DataConfig, SourceConfig
from vadv_dist.data.collate import Collator, FeatureField, TextField
from vadv_dist.data.lanes import Lanes, choose_num_lanes
from vadv_dist.data.plan import EpochPlan, Mix, ShardTable
from vadv_dist.data.reading import ShardReader
from vadv_dist.data.schema import Clip, FeatureSpec, LabelSpec
from vadv_dist.data.shards import DatasetWriter
from vadv_dist.data.sources import Sources, SplitShards
from vadv_dist.data.stream import BatchStream, StepBatches
from vadv_dist.data.tokens import Tokens
from vadv_dist.data.windows import LocalWindows

SHARD_BYTES = 100
Row = tuple[int, int]


def plan(rows: list[int], *, shards_per_window: int, batch_size: int, num_lanes: int, **options) -> EpochPlan:
    table = ShardTable(np.array(rows), np.full(len(rows), SHARD_BYTES))
    window_bytes = shards_per_window * SHARD_BYTES
    arguments = {"seed": 1, "epoch": 2, "bucket_batches": 4} | options
    return EpochPlan.build(table, batch_size=batch_size, window_bytes=window_bytes, num_lanes=num_lanes, **arguments)


def length_of(row: Row) -> int:
    return 1 + hash(row) % 40


def rank_rows(epoch: EpochPlan, rows: list[int], rank: int, world_size: int) -> list[list[Row]]:
    """(shard, row of the shard) of what a rank takes in each step, and its windows' bounds are kept."""
    found = []
    for index in range(epoch.num_windows):
        window = epoch.window(index, rank, world_size)
        names = [(shard, row) for shard in window.shards for row in range(rows[shard])]
        batches = epoch.batches(window, np.arange(len(names)), np.array([length_of(name) for name in names]))
        assert len(batches) == window.num_batches
        if window.part is not None:
            assert max(map(len, batches)) <= window.part.most_rows
        found += [[names[i] for i in batch] for batch in batches]
    return found


def together(epoch: EpochPlan, rows: list[int], world_size: int) -> list[list[Row]]:
    """What all ranks take in each step."""
    shares = [rank_rows(epoch, rows, rank, world_size) for rank in range(world_size)]
    return [list(chain.from_iterable(parts)) for parts in zip(*shares, strict=True)]


@settings(max_examples=80, deadline=None)
@given(
    rows=st.lists(st.integers(0, 30), min_size=2, max_size=24).filter(any),
    shards_per_window=st.integers(1, 9),
    batch_size=st.integers(1, 20),
    num_lanes=st.sampled_from([1, 2, 3, 4, 8]),
    world_size=st.sampled_from([2, 3, 4, 6, 8]),
    shuffle=st.booleans(),
)
def test_global_batches_do_not_depend_on_the_number_of_ranks(
    rows, shards_per_window, batch_size, num_lanes, world_size, shuffle
) -> None:
    options = {"shards_per_window": shards_per_window, "batch_size": batch_size, "shuffle": shuffle}
    epoch = plan(rows, num_lanes=num_lanes, **options)
    whole = together(epoch, rows, 1)
    assert sorted(chain.from_iterable(whole)) == [(shard, row) for shard, n in enumerate(rows) for row in range(n)]
    assert len(whole) == epoch.num_steps
    if epoch.num_lanes > 1:
        assert together(epoch, rows, world_size) == whole  # in order of lanes, on any number of ranks
        sizes = [size for i in range(epoch.num_windows) for size in epoch.batch_sizes(epoch.window(i))]
        assert sizes == list(map(len, whole))
        assert all(sizes.count(size) <= epoch.num_windows for size in set(sizes) - {batch_size})


@settings(max_examples=40, deadline=None)
@given(
    first=st.lists(st.integers(1, 20), min_size=3, max_size=8),
    other=st.lists(st.integers(1, 20), min_size=3, max_size=8),
    share=st.floats(0.2, 3.0),
    world_size=st.sampled_from([2, 4]),
    batch_size=st.integers(4, 12),
)
def test_a_mixture_reads_the_same_rows_on_any_number_of_ranks(first, other, share, world_size, batch_size) -> None:
    rows = first + other
    quotas = (max(1, round(sum(first) * share)), sum(other))
    mix = Mix(np.repeat([0, 1], [len(first), len(other)]), quotas)
    epoch = plan(rows, shards_per_window=4, batch_size=batch_size, num_lanes=4, mix=mix)
    whole = together(epoch, rows, 1)
    assert together(epoch, rows, world_size) == whole
    of_first = sum(shard < len(first) for shard, _ in chain.from_iterable(whole))
    assert (of_first, epoch.num_rows) == (quotas[0], sum(quotas))


@pytest.mark.parametrize("world_size", [1, 2, 4, 8, 16])
def test_ranks_that_divide_the_lanes_read_disjoint_equal_parts(world_size: int) -> None:
    rows = [100] * 64
    epoch = plan(rows, shards_per_window=19, batch_size=32, num_lanes=16)
    assert epoch.num_windows == 4  # of 16 shards: a multiple of the lanes
    for index in range(epoch.num_windows):
        parts = [epoch.window(index, rank, world_size) for rank in range(world_size)]
        assert [len(part.shards) for part in parts] == [16 // world_size] * world_size
        assert len(set(chain.from_iterable(part.shards for part in parts))) == 16
        assert {part.part.most_rows for part in parts} == {32 // world_size}


@pytest.mark.parametrize(("world_size", "most_shards"), [(3, 7), (5, 5), (6, 4), (32, 1)])
def test_other_numbers_of_ranks_share_lanes_and_have_equal_parts(world_size: int, most_shards: int) -> None:
    rows = [96] * 64
    epoch = plan(rows, shards_per_window=16, batch_size=96, num_lanes=16)
    whole = together(epoch, rows, world_size)
    assert sorted(map(len, whole)) == [96] * 64
    for rank in range(world_size):
        assert {len(share) for share in rank_rows(epoch, rows, rank, world_size)} <= {
            96 // world_size,
            96 // world_size + 1,
        }
        assert len(epoch.window(0, rank, world_size).shards) <= most_shards


def test_a_batch_takes_of_each_lane_what_is_due() -> None:
    lanes = Lanes.deal([300, 200, 100, 100, 50, 50], 2, 16)
    assert lanes.rows.tolist() == [400, 400]
    uneven = Lanes.deal([300, 200, 150, 100], 4, 16)
    taken = np.stack([np.diff(uneven.given(lane + 1) - uneven.given(lane)) for lane in range(4)])
    assert taken.sum(axis=1).tolist() == uneven.rows.tolist() == [300, 200, 150, 100]
    due = np.cumsum(taken.sum(axis=0)) / 750 * uneven.rows[:, None]
    assert np.abs(np.cumsum(taken, axis=1) - due).max() < 1
    assert taken.min() >= 0


def test_lanes_without_a_row_per_batch_are_joined() -> None:
    assert len(Lanes.deal([10] * 8, 8, 4).rows) == 4
    assert len(Lanes.deal([100, 1, 1, 1], 4, 50).rows) == 2
    assert len(Lanes.deal([100], 8, 50).rows) == 1


def test_lanes_follow_batch_window_and_shards() -> None:
    shards = np.full(1000, 13 << 20)
    assert choose_num_lanes(shards, batch_size=64, window_bytes=256 << 20) == 16
    assert choose_num_lanes(shards, batch_size=4, window_bytes=256 << 20) == 4
    assert choose_num_lanes(shards, batch_size=256, window_bytes=2 << 30) == 64
    assert choose_num_lanes(shards[:10], batch_size=256, window_bytes=256 << 20) == 1
    assert choose_num_lanes(shards, batch_size=256, window_bytes=1 << 20) == 1


@pytest.mark.parametrize("batch_size", [16, 64])
def test_lanes_do_not_pad_more_and_ranks_have_batches_of_similar_length(batch_size: int) -> None:
    random = np.random.default_rng(0)
    lengths = [random.geometric(0.05, 512) + 2 for _ in range(32)]

    def padded(num_lanes: int, world_size: int) -> int:
        """Tokens that the slowest rank computes, times the ranks."""
        epoch = plan([512] * 32, shards_per_window=16, batch_size=batch_size, num_lanes=num_lanes, bucket_batches=16)
        total = 0
        for index in range(epoch.num_windows):
            tokens = []
            for rank in range(world_size):
                window = epoch.window(index, rank, world_size)
                length = np.concatenate([lengths[shard] for shard in window.shards])
                batches = epoch.batches(window, np.arange(len(length)), length)
                rows = batches if num_lanes > 1 else [batch[rank::world_size] for batch in batches]
                tokens.append([length[own].max() * len(own) for own in rows])
            total += int(np.max(tokens, axis=0).sum()) * world_size
        return total

    for world_size in (1, 8):
        assert padded(16, world_size) <= 1.02 * padded(1, world_size)


@pytest.fixture(scope="module")
def many_shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """64 shards of 8 clips of 5 kB; every ninth clip lacks its face."""
    out = tmp_path_factory.mktemp("lanes") / "data"
    specs = {"visual": FeatureSpec((2, 1, 1024)), "face": FeatureSpec((3, 2))}
    random = np.random.default_rng(0)
    with DatasetWriter(out, features=specs, label=LabelSpec(), provenance={}, shard_rows=8) as writer:
        for i in range(512):
            features = {"visual": np.full((2, 1, 1024), i), "face": None if i % 9 == 0 else np.ones((3, 2))}
            words = "good " * int(random.integers(1, 30))
            writer.write("train", Clip(f"c{i}", f"v{i}", words, 0.0, "test", features))
    return out


@pytest.fixture(scope="module")
def collator(made: Path) -> Collator:
    tokens = Tokens(AutoTokenizer.from_pretrained(made / "encoder"), 100)
    return Collator([TextField(tokens), *map(FeatureField, ("visual", "face"))])


def split_of(uri: Path, missing: str, **data) -> tuple[SplitShards, DataConfig]:
    options = {
        "sources": [SourceConfig(str(uri))],
        "batch_size": 16,
        "window_bytes": 1 << 20,
        "missing": missing,
    } | data
    config = Config(data=DataConfig(**options))
    return Sources.open(config).split("train"), config.data


def steps_of(
    split: SplitShards, data: DataConfig, collator: Collator, first_step: int = 0, **options
) -> list[StepBatches]:
    epoch = split.plan(data, seed=1, epoch=1)
    assert epoch.num_windows > 2
    assert epoch.num_lanes == 16
    windows = LocalWindows(split)
    stream = BatchStream(
        plan=epoch,
        windows=windows,
        collator=collator,
        rows_in_use=split.rows_in_use,
        is_complete=split.is_complete,
        **options,
    )
    try:
        return list(stream.steps(first_step))
    finally:
        windows.close()


def names(step: StepBatches) -> list[str]:
    return [name for batch in step.micro for _, name in batch.names]


@pytest.mark.parametrize("options", [{"missing": "mask"}, {"missing": "drop"}, {"missing": "mask", "train_share": 0.4}])
def test_nodes_have_the_same_batches_and_resume_in_the_middle(many_shards, collator, options) -> None:
    split, data = split_of(many_shards, **options)
    whole = steps_of(split, data, collator)
    expected = 512 if options == {"missing": "mask"} else split.rows_per_source[0]
    assert len(set(chain.from_iterable(map(names, whole)))) == sum(step.num_rows for step in whole) == expected
    for world_size in (2, 4, 8):
        shares = [
            steps_of(split, data, collator, first_step=5, rank=rank, world_size=world_size)
            for rank in range(world_size)
        ]
        for parts, step in zip(zip(*shares, strict=True), whole[5:], strict=True):
            assert list(chain.from_iterable(map(names, parts))) == names(step)
            assert {part.num_rows for part in parts} == {step.num_rows}
            if parts[0].own_counts is None:
                assert all(part.micro[0].counts == step.micro[0].counts for part in parts)
            else:
                total = sum(np.array([*part.own_counts.values()]) for part in parts)
                assert dict(zip(parts[0].own_counts, total.tolist(), strict=True)) == step.micro[0].counts


def test_bytes_read_per_node_fall_with_the_number_of_nodes(many_shards, collator, monkeypatch) -> None:
    split, data = split_of(many_shards, "mask")
    read: list[int] = []
    original = ShardReader.read
    monkeypatch.setattr(ShardReader, "read", lambda self, shard: (read.append(shard.bytes), original(self, shard))[1])
    total = int(split.table.bytes.sum())
    for world_size in (1, 2, 4, 8):
        for rank in range(world_size):
            read.clear()
            steps_of(split, data, collator, rank=rank, world_size=world_size)
            assert sum(read) == pytest.approx(total / world_size, rel=0.02)
