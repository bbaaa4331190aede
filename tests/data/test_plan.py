import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vadv_dist.data.plan import EpochPlan, ShardTable, rank_slice, sample_batches
from vadv_dist.data.schema import text_lengths
from vadv_dist.errors import UserError


def plan(rows: list[int], *, epoch: int = 0, batch_size: int = 4, window_bytes: int = 10**9, **options) -> EpochPlan:
    return EpochPlan.build(
        ShardTable(np.array(rows), 100 * np.array(rows)),
        seed=1,
        epoch=epoch,
        batch_size=batch_size,
        window_bytes=window_bytes,
        **options,
    )


def all_batches(epoch: EpochPlan, rows: list[int], words: list[np.ndarray]) -> list[list[tuple[int, int]]]:
    """Every batch of an epoch as (shard, row of the shard)."""
    batches = []
    for index in range(epoch.num_windows):
        window = epoch.window(index)
        names = [(shard, row) for shard in window.shards for row in range(rows[shard])]
        lengths = np.concatenate([words[shard] for shard in window.shards]).astype(np.int32)
        for batch in epoch.batches(window, np.arange(len(names)), lengths):
            batches.append([names[i] for i in batch])
    return batches


def some_words(rows: list[int]) -> list[np.ndarray]:
    random = np.random.default_rng(0)
    return [random.integers(1, 40, n) for n in rows]


@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(st.integers(0, 30), min_size=1, max_size=12).filter(any),
    batch_size=st.integers(1, 9),
    window_bytes=st.sampled_from([1, 900, 3000, 10**9]),
    bucket_batches=st.sampled_from([1, 2, 16]),
    shuffle=st.booleans(),
)
def test_every_row_is_in_exactly_one_batch(rows, batch_size, window_bytes, bucket_batches, shuffle) -> None:
    epoch = plan(rows, batch_size=batch_size, window_bytes=window_bytes, bucket_batches=bucket_batches, shuffle=shuffle)
    batches = all_batches(epoch, rows, some_words(rows))
    seen = sorted(row for batch in batches for row in batch)
    assert seen == [(shard, row) for shard, n in enumerate(rows) for row in range(n)]
    assert len(batches) == epoch.num_steps
    assert epoch.num_rows == sum(rows)
    assert max(len(batch) for batch in batches) <= batch_size


def test_order_depends_only_on_seed_and_epoch() -> None:
    rows = [10, 7, 12, 3]
    words = some_words(rows)
    first = all_batches(plan(rows, window_bytes=1500), rows, words)
    assert first == all_batches(plan(rows, window_bytes=1500), rows, words)
    assert first != all_batches(plan(rows, window_bytes=1500, epoch=1), rows, words)


@pytest.mark.parametrize("accumulate", [1, 3])
@pytest.mark.parametrize("world_size", [1, 2, 3, 5])
def test_ranks_and_micro_batches_share_a_global_batch_without_overlap(world_size: int, accumulate: int) -> None:
    batch = np.arange(100, 107)
    parts = [part for rank in range(world_size) for part in rank_slice(batch, rank, world_size, accumulate)]
    assert len(parts) == world_size * accumulate
    assert sorted(np.concatenate(parts).tolist()) == batch.tolist()


def test_windows_stay_within_their_bytes_unless_one_shard_is_larger() -> None:
    rows = [10, 10, 50, 10, 10, 10]
    epoch = plan(rows, window_bytes=2500)
    for index in range(epoch.num_windows):
        shards = epoch.window(index).shards
        assert len(shards) == 1 or sum(100 * rows[shard] for shard in shards) <= 2500


def test_a_single_window_is_the_same_in_every_epoch() -> None:
    rows = [5, 6, 7]
    assert {plan(rows, epoch=e).window(0).shards for e in range(5)} == {(0, 1, 2)}
    assert plan(rows).num_windows == 1


def test_buckets_hold_rows_of_similar_length() -> None:
    rows = [512]
    words = [np.random.default_rng(0).geometric(0.08, 512)]

    def padded(bucket_batches: int) -> int:
        batches = all_batches(plan(rows, batch_size=8, bucket_batches=bucket_batches), rows, words)
        return sum(max(words[0][row] for _, row in batch) * len(batch) for batch in batches)

    real = int(words[0].sum())
    assert padded(16) < 1.2 * real
    assert padded(1) > 1.8 * real


@pytest.mark.parametrize("shuffle", [True, False])
def test_the_small_batch_has_the_shortest_rows_of_its_group(shuffle: bool) -> None:
    rows, words = [1284], [np.random.default_rng(0).permutation(1284)]
    batches = all_batches(plan(rows, batch_size=64, shuffle=shuffle), rows, words)
    (small,) = [batch for batch in batches if len(batch) < 64]
    assert len(small) == 4
    # 21 batches are one group: remainders do not form a group of their own, whose rows would differ more in length.
    assert sorted(words[0][row] for _, row in small) == [0, 1, 2, 3]


def test_lengths_count_words_and_punctuation_marks() -> None:
    assert text_lengths(["", "it's so-so.", "  gut  gemacht\u2026"]).tolist() == [0, 7, 3]


def test_sample_batches_are_those_of_the_first_epochs() -> None:
    texts = [" ".join(["word"] * (1 + 7 * i % 40)) + str(i) for i in range(90)]
    found = sample_batches(texts, batch_size=8, bucket_batches=2, accumulate=2, seed=1)
    lengths = [len(text.split()) for text in texts]
    first = all_batches(plan([90], batch_size=8, bucket_batches=2), [90], [np.array(lengths)])
    expected = [[texts[row] for _, row in half] for batch in first for half in (batch[:4], batch[4:])]
    assert len(expected) == 24
    assert [batch for batch in found[:24] if len(batch) == 4] == [b for b in expected if len(b) == 4]
    assert len(found) >= 1000


def test_every_step_is_in_the_window_of_its_batch() -> None:
    epoch = plan([9, 9, 9, 9], batch_size=4, window_bytes=1900)
    for step in range(epoch.num_steps):
        window = epoch.window_of_step(step)
        assert window.first_step <= step < window.first_step + window.num_batches
    with pytest.raises(IndexError):
        epoch.window_of_step(epoch.num_steps)


def test_planning_a_million_shards_does_not_depend_on_rows() -> None:
    rows = np.full(1_000_000, 1000)
    epoch = EpochPlan.build(ShardTable(rows, rows * 13_000), seed=1, epoch=3, batch_size=64, window_bytes=256 << 20)
    assert epoch.num_rows == 10**9
    assert epoch.window_of_step(epoch.num_steps // 2).num_batches > 0


def test_no_rows_is_a_user_error() -> None:
    with pytest.raises(UserError, match="No clips are left"):
        plan([0, 0])
