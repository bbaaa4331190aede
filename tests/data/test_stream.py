import gc
import math
import weakref
from itertools import chain, product
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer

from vadv_dist.config import AloneObjectiveConfig, Config, DataConfig, SourceConfig
from vadv_dist.data import windows as windows_module
from vadv_dist.data.collate import Collator, FeatureField, TextField
from vadv_dist.data.schema import Clip, FeatureSpec, LabelSpec
from vadv_dist.data.shards import DatasetWriter
from vadv_dist.data.sources import Sources, SplitShards
from vadv_dist.data.stream import BatchStream
from vadv_dist.data.tokens import Tokens
from vadv_dist.data.windows import LocalWindows
from vadv_dist.errors import UserError

SHAPE = (2, 1, 4)


@pytest.fixture(scope="module")
def many_windows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """200 clips in 20 shards; every seventh lacks its face, every fiftieth its visual features."""
    out = tmp_path_factory.mktemp("many") / "data"
    random = np.random.default_rng(0)
    specs = {"visual": FeatureSpec(SHAPE), "face": FeatureSpec((3, 2))}
    with DatasetWriter(out, features=specs, label=LabelSpec(), provenance={}, shard_rows=10) as writer:
        for i in range(200):
            features = {
                "visual": None if i % 50 == 0 else np.full(SHAPE, i),
                "face": None if i % 7 == 0 else np.full((3, 2), i),
            }
            words = "good " * int(random.integers(1, 30))
            writer.write("train", Clip(f"c{i}", f"v{i}", words, 0.0, "test", features))
    return out


def text_field(made: Path) -> TextField:
    return TextField(Tokens(AutoTokenizer.from_pretrained(made / "encoder"), 100))


@pytest.fixture(scope="module")
def collator(made: Path) -> Collator:
    return Collator([text_field(made), *map(FeatureField, ("visual", "face"))])


def split_of(uri: Path, missing: str = "mask") -> SplitShards:
    config = Config(data=DataConfig(sources=[SourceConfig(str(uri))]))
    return Sources.open(config).split("train", missing=missing)


def batches(split: SplitShards, collator: Collator, *, first_step: int = 0, epoch: int = 0, **options):
    data = DataConfig(batch_size=8, window_bytes=1 << 16)
    windows = LocalWindows(split)
    plan = split.plan(data, seed=1, epoch=epoch)
    try:
        return list(BatchStream(plan=plan, windows=windows, collator=collator, **options).steps(first_step))
    finally:
        windows.close()


def names(steps) -> list[list[str]]:
    """Real clips of each step's micro-batches, sorted."""
    return [sorted(name for batch in step.micro for _, name in batch.names) for step in steps]


@pytest.mark.parametrize(("world_size", "accumulate"), [(2, 1), (3, 1), (1, 4), (2, 3)])
def test_global_batches_are_the_same_for_any_number_of_ranks(many_windows, collator, world_size, accumulate) -> None:
    split = split_of(many_windows)
    whole = names(batches(split, collator))
    shares = [
        names(batches(split, collator, rank=rank, world_size=world_size, accumulate=accumulate))
        for rank in range(world_size)
    ]
    assert [sorted(chain.from_iterable(parts)) for parts in zip(*shares, strict=True)] == whole
    assert sorted(chain.from_iterable(whole)) == sorted(f"c{i}" for i in range(200))


def test_a_stream_can_resume_in_the_middle_of_an_epoch(many_windows, collator) -> None:
    split = split_of(many_windows)
    whole = names(batches(split, collator))
    for first in (1, 7, len(whole) - 1, len(whole)):
        assert names(batches(split, collator, first_step=first)) == whole[first:]


def test_no_tensor_is_padded_past_its_longest_row(many_windows, collator) -> None:
    for step in batches(split_of(many_windows), collator, accumulate=2):
        for batch in step.micro:
            assert batch.fields["attention_mask"].sum(dim=1).max() == batch.fields["input_ids"].shape[1]


def test_features_belong_to_their_clip_and_missing_ones_are_zero_and_marked(many_windows, collator) -> None:
    for step in batches(split_of(many_windows), collator):
        (batch,) = step.micro
        for row, (_, name) in enumerate(batch.names):
            number = int(name[1:])
            assert batch.present["visual"][row] == (number % 50 != 0)
            assert batch.present["face"][row] == (number % 7 != 0)
            assert batch.fields["visual"][row].unique().tolist() == [number if number % 50 else 0]
            assert batch.fields["face"][row].unique().tolist() == [number if number % 7 else 0]
        assert batch.counts["rows"] == len(batch.names)
        assert batch.counts["visual"] == batch.present["visual"].sum()


@pytest.mark.parametrize("world_size", [1, 3])
def test_row_ids_are_the_same_in_every_epoch_and_on_every_rank(many_windows, collator, world_size: int) -> None:
    split = split_of(many_windows)
    of_clip: dict[str, set[int]] = {}
    for epoch, rank in product(range(2), range(world_size)):
        for step in batches(split, collator, epoch=epoch, rank=rank, world_size=world_size):
            for batch in step.micro:
                ids = batch.row_id[: len(batch.names)].tolist()
                assert set(batch.row_id.tolist()) - set(ids) <= {-1}
                for (_, name), row_id in zip(batch.names, ids, strict=True):
                    of_clip.setdefault(name, set()).add(row_id)
    assert {name: ids.pop() for name, ids in of_clip.items() if len(ids) == 1} == {f"c{i}": i for i in range(200)}


def test_counts_are_global_on_every_rank(many_windows, collator) -> None:
    split = split_of(many_windows)
    for a, b in zip(
        batches(split, collator, rank=0, world_size=2), batches(split, collator, rank=1, world_size=2), strict=True
    ):
        assert a.own_counts is not None
        assert b.own_counts is not None
        total = torch.tensor(
            [mine + other for mine, other in zip(a.own_counts.values(), b.own_counts.values(), strict=True)]
        )
        (one,), (two,) = a.with_counts(total).micro, b.with_counts(total).micro
        assert one.counts == two.counts
        assert one.counts["rows"] == a.num_rows == b.num_rows
        assert one.counts["visual"] == one.present["visual"].sum() + two.present["visual"].sum()


def test_an_empty_share_is_filled_with_a_row_that_counts_for_nothing(many_windows, collator) -> None:
    split = split_of(many_windows)
    first = [batches(split, collator, rank=rank, world_size=12)[0].micro[0] for rank in range(12)]
    assert sorted(b.valid.tolist() for b in first) == [[0]] * 4 + [[1]] * 8
    assert [len(b.names) for b in first] == [int(b.valid.sum()) for b in first]
    for batch in [b for b in first if not b.names]:
        assert batch.row_id.tolist() == [-1]
        assert [values.tolist() for values in batch.present.values()] == [[0], [0]]
        assert batch.fields["attention_mask"].sum() > 0
        assert batch.num_tokens == 0


@pytest.mark.parametrize(("world_size", "accumulate"), [(1, 1), (3, 1), (2, 3), (12, 1)])
def test_static_shapes_add_filler_and_leave_the_real_rows_alone(
    many_windows, collator, world_size: int, accumulate: int
) -> None:
    split = split_of(many_windows)
    static = collator.with_static_shapes([[text] for text in split.texts()])
    lengths = static.fields[0].lengths
    assert 1 < len(lengths) <= 12
    full = math.ceil(math.ceil(8 / world_size) / accumulate)
    shapes = set()
    for rank in range(world_size):
        options = {"rank": rank, "world_size": world_size, "accumulate": accumulate}
        for plain, padded in zip(batches(split, collator, **options), batches(split, static, **options), strict=True):
            for a, b in zip(plain.micro, padded.micro, strict=True):
                real = len(a.names)
                length = int(a.fields["attention_mask"].sum(dim=1).max())
                assert b.names == a.names
                assert (b.num_tokens, b.counts) == (a.num_tokens, a.counts)
                assert b.valid.tolist() == [1] * real + [0] * (full - real)
                assert b.row_id.tolist() == a.row_id[:real].tolist() + [-1] * (full - real)
                assert b.label[:real].equal(a.label[:real])
                for name, values in a.present.items():
                    assert b.present[name].tolist() == values[:real].tolist() + [0] * (full - real)
                    assert b.fields[name][:real].equal(a.fields[name][:real])
                assert b.fields["input_ids"].shape[1] == min(n for n in lengths if n >= length)
                assert b.fields["input_ids"][:real, :length].equal(a.fields["input_ids"][:real])
                assert b.fields["attention_mask"][:real, :length].equal(a.fields["attention_mask"][:real])
                assert not b.fields["attention_mask"][:real, length:].any()
                assert b.fields["attention_mask"].any(dim=1).all()
                shapes.add(b.fields["input_ids"].shape)
    assert {rows for rows, _ in shapes} == {full}
    assert len(shapes) <= len(lengths)


def test_missing_clips_are_dropped_masked_or_refused(many_windows, collator) -> None:
    dropping = split_of(many_windows, "drop")
    kept = list(chain.from_iterable(names(batches(dropping, collator, rows_in_use=dropping.rows_in_use))))
    assert sorted(kept) == sorted(f"c{i}" for i in range(200) if i % 50 and i % 7)
    assert dropping.dropped == 200 - len(kept)
    with pytest.raises(UserError, match=r"clips of the 'train' split lack visual or face.*data.missing"):
        split_of(many_windows, "error")


@pytest.mark.slow
def test_at_most_two_windows_are_in_memory_and_each_is_read_once_per_epoch(many_windows, collator, monkeypatch) -> None:
    live: weakref.WeakSet = weakref.WeakSet()
    most, reads = 0, 0
    original = windows_module.to_window

    def counted(*args):
        nonlocal most, reads
        window = original(*args)
        gc.collect()
        live.add(window)
        reads += 1
        most = max(most, len(live))
        return window

    monkeypatch.setattr(windows_module, "to_window", counted)
    monkeypatch.setattr(windows_module.Window, "__hash__", lambda self: id(self))
    data = DataConfig(batch_size=8, window_bytes=1 << 16)
    split = split_of(many_windows)
    table = split.table
    plan = type(split.plan(data, seed=1, epoch=0)).build(
        table, seed=1, epoch=0, batch_size=8, window_bytes=int(table.bytes[0] * 2.5)
    )
    assert plan.num_windows >= 8
    windows = LocalWindows(split)
    list(BatchStream(plan=plan, windows=windows, collator=collator).steps())
    windows.close()
    assert reads == plan.num_windows
    assert most <= 2


class _CountingWindows:
    """Does not read ahead, and records how many windows are alive when the next one is requested."""

    def __init__(self, split: SplitShards) -> None:
        self._inner = LocalWindows(split)
        self._live: weakref.WeakSet = weakref.WeakSet()
        self.alive_when_asked: list[int] = []

    def get(self, shards, upcoming):
        self._inner._held.clear()
        self.alive_when_asked.append(len(self._live))
        window = self._inner.get(shards)
        self._live.add(window)
        return window

    def close(self) -> None:
        self._inner.close()


def test_a_window_is_released_before_the_next_is_read(many_windows, collator, monkeypatch) -> None:
    monkeypatch.setattr(windows_module.Window, "__hash__", lambda self: id(self))
    split = split_of(many_windows)
    plan = split.plan(DataConfig(batch_size=8, window_bytes=1 << 16), seed=1, epoch=0)
    assert plan.num_windows >= 2
    windows = _CountingWindows(split)
    list(BatchStream(plan=plan, windows=windows, collator=collator).steps())
    windows.close()
    assert windows.alive_when_asked == [0] * plan.num_windows


def test_a_damaged_shard_stops_the_stream_with_its_message(tmp_path, collator, made) -> None:
    import shutil

    shutil.copytree(made, tmp_path / "data")
    path = next((tmp_path / "data" / "train").glob("*.parquet"))
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(UserError, match="truncated"):
        batches(split_of(tmp_path / "data"), collator)


def test_texts_need_no_features(many_windows, made) -> None:
    config = Config(data=DataConfig(sources=[SourceConfig(str(many_windows))]), objective=AloneObjectiveConfig())
    split = Sources.open(config).split("train", missing="error")
    words_only = Collator([text_field(made)])
    step = batches(split, words_only)[0]
    assert step.micro[0].fields.keys() == {"input_ids", "attention_mask"}
    assert step.micro[0].counts == {"rows": step.num_rows, "complete": step.num_rows}
