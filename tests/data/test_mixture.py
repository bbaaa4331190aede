"""How often an epoch reads each row of several sources: by hand, and for any sizes, shares, windows and epochs."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vadv_dist.data.mixture import epoch_reads, quotas, row_times
from vadv_dist.data.plan import EpochPlan, Mix, ShardTable

# Sources as lists of rows per shard; every source has at least one row.
SOURCES = st.lists(st.lists(st.integers(0, 12), min_size=1, max_size=6).filter(any), min_size=1, max_size=4)


def table(sources: list[list[int]]) -> tuple[ShardTable, np.ndarray]:
    """Shards of all sources, 100 bytes a row, and the source of each."""
    rows = [n for source in sources for n in source]
    source = np.repeat(np.arange(len(sources)), [*map(len, sources)])
    return ShardTable(np.array(rows), 100 * np.array(rows) + 1), source


def plan(sources, wanted, *, epoch: int = 0, window_bytes: int = 1500, **options) -> EpochPlan:
    shards, source = table(sources)
    arguments = {"seed": 1, "batch_size": 4, "bucket_batches": 2} | options
    return EpochPlan.build(shards, epoch=epoch, window_bytes=window_bytes, mix=Mix(source, tuple(wanted)), **arguments)


def batches_of(epoch: EpochPlan, rows: list[int]) -> list[list[tuple[int, int]]]:
    """Every batch as (shard, row of the shard)."""
    batches = []
    for index in range(epoch.num_windows):
        window = epoch.window(index)
        names = [(shard, row) for shard in window.shards for row in range(rows[shard])]
        lengths = np.array([1 + (7 * row + shard) % 11 for shard, row in names], np.int32)
        made = epoch.batches(window, np.arange(len(names)), lengths)
        assert len(made) == window.num_batches
        assert sum(map(len, made)) == window.reads
        batches += [[names[i] for i in batch] for batch in made]
    return batches


def test_quotas_match_a_hand_calculation() -> None:
    assert quotas([100, 400], "equal", [1, 1], 5.0) == [250, 250]
    assert quotas([100, 400], "equal", [3, 1], 5.0) == [375, 125]
    # sqrt(100) : sqrt(400) = 1 : 2 of 500, that is 166.67 and 333.33.
    assert quotas([100, 400], "temperature", [1, 1], 2.0) == [167, 333]
    assert quotas([100, 400], "temperature", [2, 1], 2.0) == [250, 250]
    assert quotas([10, 3], "repeats", [2.5, 0.5], 5.0) == [25, 2]
    # MOSI and MOSEI: 1284 ** 0.2 = 4.1854, 16274 ** 0.2 = 6.9556; 17558 * 4.1854 / 11.141 = 6596.1.
    assert quotas([1284, 16274], "temperature", [1, 1], 5.0) == [6596, 10962]


@given(st.lists(st.integers(1, 10**9), min_size=1, max_size=6), st.floats(1, 50))
def test_quotas_add_up_to_all_rows_and_lie_between_proportional_and_equal(rows, temperature) -> None:
    weights = [1.0] * len(rows)
    assert quotas(rows, "temperature", weights, 1.0) == rows
    mixed, even = (quotas(rows, mixing, weights, temperature) for mixing in ("temperature", "equal"))
    assert sum(mixed) == sum(even) == sum(rows)
    assert max(even) - min(even) <= 1
    for n, got, equal in zip(rows, mixed, even, strict=True):
        assert min(n, equal) - 1 <= got <= max(n, equal) + 1 or len(rows) > 2


@settings(max_examples=150, deadline=None)
@given(SOURCES, st.lists(st.integers(1, 60), min_size=4, max_size=4), st.integers(0, 3))
def test_rows_of_a_source_take_turns_over_the_epochs(sources, wanted, seed) -> None:
    shards, source = table(sources)
    wanted = wanted[: len(sources)]
    shard_ids = range(len(shards.rows))
    source_of_row = np.repeat(source, shards.rows)
    total = np.zeros(len(source_of_row), np.int64)
    for epoch in range(5):
        reads = epoch_reads(shards.rows, source, wanted, seed=seed, epoch=epoch)
        times = row_times(reads, shard_ids, shards.rows, seed=seed)
        total += times
        for number, quota in enumerate(wanted):
            mine, size = times[source_of_row == number], int((source_of_row == number).sum())
            assert mine.sum() == quota
            assert set(mine.tolist()) <= {quota // size, -(-quota // size)}
            assert np.ptp(total[source_of_row == number]) <= 1


@settings(max_examples=150, deadline=None)
@given(
    SOURCES,
    st.lists(st.integers(1, 60), min_size=4, max_size=4),
    st.integers(0, 4),
    st.sampled_from([1, 900, 2500, 10**9]),
    st.integers(1, 9),
)
def test_batches_contain_each_row_as_often_as_the_mixture_reads_it(
    sources, wanted, epoch, window_bytes, batch_size
) -> None:
    shards, source = table(sources)
    wanted = wanted[: len(sources)]
    planned = plan(sources, wanted, epoch=epoch, window_bytes=window_bytes, batch_size=batch_size)
    batches = batches_of(planned, shards.rows.tolist())
    expected = row_times(
        epoch_reads(shards.rows, source, wanted, seed=1, epoch=epoch),
        range(len(shards.rows)),
        shards.rows,
        seed=1,
    )
    names = [(shard, row) for shard, n in enumerate(shards.rows) for row in range(n)]
    assert Counter(row for batch in batches for row in batch) == Counter(
        {name: int(often) for name, often in zip(names, expected, strict=True) if often}
    )
    assert planned.num_steps == len(batches)
    assert planned.num_rows == sum(wanted)
    assert max(map(len, batches)) <= batch_size


@settings(max_examples=60, deadline=None)
@given(SOURCES, st.lists(st.integers(1, 60), min_size=4, max_size=4), st.sampled_from([900, 2500]))
def test_a_window_contains_a_shard_once_and_stays_within_its_bytes(sources, wanted, window_bytes) -> None:
    shards, _ = table(sources)
    planned = plan(sources, wanted[: len(sources)], window_bytes=window_bytes)
    for index in range(planned.num_windows):
        held = planned.window(index).shards
        assert list(held) == sorted(set(held))
        fits_whole = shards.bytes[shards.rows > 0].sum() <= window_bytes
        assert len(held) == 1 or fits_whole or shards.bytes[list(held)].sum() <= window_bytes


def test_a_single_window_is_the_same_in_every_epoch_although_an_epoch_reads_a_part() -> None:
    sources = [[5, 6, 7, 0], [3]]
    windows = [plan(sources, [6, 15], epoch=epoch, window_bytes=10**9).window(0) for epoch in range(6)]
    assert {window.shards for window in windows} == {(0, 1, 2, 4)}
    assert {(window.rows, window.reads) for window in windows} == {(21, 21)}


def test_a_small_source_is_spread_over_all_windows() -> None:
    sources = [[10], [10] * 60]
    planned = plan(sources, [305, 305], window_bytes=8 * 1001)
    assert planned.num_windows >= 5
    for index in range(planned.num_windows - 1):
        assert 0 in planned.window(index).shards


def test_a_batch_does_not_repeat_a_row() -> None:
    planned = plan([[40], [400]], [200, 400], window_bytes=10**9, batch_size=8, bucket_batches=8)
    for batch in batches_of(planned, [40, 400]):
        assert len(set(batch)) == len(batch)


def test_order_depends_only_on_seed_and_epoch() -> None:
    sources, rows = [[10, 7], [12, 3, 9]], [10, 7, 12, 3, 9]
    first = batches_of(plan(sources, [30, 12]), rows)
    assert first == batches_of(plan(sources, [30, 12]), rows)
    assert first != batches_of(plan(sources, [30, 12], epoch=1), rows)
    assert first != batches_of(plan(sources, [30, 12], seed=2), rows)


def test_validation_is_never_mixed() -> None:
    planned = plan([[10, 7], [12]], [3, 50], shuffle=False)
    seen = Counter(row for batch in batches_of(planned, [10, 7, 12]) for row in batch)
    assert set(seen.values()) == {1}
    assert len(seen) == 29


def test_mixing_a_million_shards_does_not_depend_on_rows() -> None:
    rows = np.full(1_000_000, 1000)
    source = np.repeat([0, 1], [1000, 999_000])
    mix = Mix(source, (5 * 10**8, 5 * 10**8))
    epoch = EpochPlan.build(
        ShardTable(rows, rows * 13_000), seed=1, epoch=3, batch_size=64, window_bytes=256 << 20, mix=mix
    )
    assert epoch.num_rows == 10**9
    window = epoch.window_of_step(epoch.num_steps // 2)
    assert len(window.shards) <= (256 << 20) // 13_000_000


@pytest.mark.parametrize(
    ("window_bytes", "expected"),
    [
        (500, [[4, 3], [2], [1, 0], [1, 0], [3, 2]]),
        (5000, [[2, 0], [6], [4, 1], [5, 3], [8, 7]]),
    ],
)
def test_the_order_without_a_mixture_is_stable_across_versions(window_bytes, expected) -> None:
    shards = ShardTable(np.array([3, 2, 4]), np.array([300, 200, 400]))
    planned = EpochPlan.build(shards, seed=1, epoch=2, batch_size=2, window_bytes=window_bytes, bucket_batches=2)
    batches = []
    for window in map(planned.window, range(planned.num_windows)):
        lengths = np.arange(window.rows, dtype=np.int32)[::-1]
        batches += [batch.tolist() for batch in planned.batches(window, np.arange(window.rows), lengths)]
    assert batches == expected
