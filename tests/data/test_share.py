"""A share of the training clips: how many of which shards, which rows, and what a run does with them."""

from itertools import chain, pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from vadv_dist.config import Config, DataConfig, SourceConfig, TeacherConfig
from vadv_dist.data.collate import Collator, FeatureField, TextField
from vadv_dist.data.schema import Clip, FeatureSpec, LabelSpec
from vadv_dist.data.shards import DatasetWriter
from vadv_dist.data.share import TrainShare
from vadv_dist.data.sources import Sources, SplitShards
from vadv_dist.data.stream import BatchStream
from vadv_dist.data.tokens import Tokens
from vadv_dist.data.windows import LocalWindows
from vadv_dist.errors import UserError

SHAPE = (2, 1, 8)
SHARES = (0.01, 0.05, 0.1, 0.25, 0.5, 0.99)


@settings(max_examples=50, deadline=None)
@given(rows=st.lists(st.integers(0, 40), min_size=1, max_size=30).filter(any), seed=st.integers(0, 9))
def test_shares_have_the_exact_size_and_contain_the_smaller_ones(rows, seed) -> None:
    taken = [TrainShare(share, seed).rows_taken(np.array(rows)) for share in SHARES]
    for share, counts in zip(SHARES, taken, strict=True):
        assert counts.sum() == round(share * sum(rows))
        assert (counts <= rows).all()
    for smaller, larger in pairwise(taken):
        assert (smaller <= larger).all()
        for shard, (few, more) in enumerate(zip(smaller.tolist(), larger.tolist(), strict=True)):
            one, other = (TrainShare(0.5, seed).rows_of(shard, rows[shard], count).tolist() for count in (few, more))
            assert len(one) == few
            assert set(one) <= set(other)


def test_every_shard_contributes_its_share() -> None:
    rows = np.random.default_rng(0).integers(5, 200, 300)
    taken = TrainShare(0.1, 0).rows_taken(rows)
    assert (np.abs(taken - 0.1 * rows) < 1.1).all()


def test_shares_of_other_seeds_differ() -> None:
    draws = {tuple(TrainShare(0.1, seed).rows_of(0, 100, 10)) for seed in range(5)}
    assert len(draws) == 5


def write(out: Path, clips: int, *, lacking: int = 0) -> Path:
    """Clips in shards of 10, a tenth of them for validation; every `lacking`-th train clip has no features."""
    features = {"visual": FeatureSpec(SHAPE)}
    with DatasetWriter(out, features=features, label=LabelSpec(), provenance={}, shard_rows=10) as writer:
        writer.prompts = np.arange(16, dtype=np.float32).reshape(2, 8)
        for i in range(clips + clips // 10):
            lacks = lacking and i % lacking == 0 and i < clips
            visual = None if lacks else np.full(SHAPE, i)
            clip = Clip(f"c{i}", f"v{i}", f"word {i}", -3 + 6 * i / (2 * clips), "same", {"visual": visual})
            writer.write("train" if i < clips else "valid", clip)
    return out


def split_of(*uris: Path, missing: str = "error", **data) -> SplitShards:
    config = Config(
        data=DataConfig(sources=[SourceConfig(str(uri)) for uri in uris], missing=missing, **data),
        teacher=TeacherConfig(use_face=False),
    )
    return Sources.open(config).split("train")


@pytest.fixture(scope="module")
def collator(made: Path) -> Collator:
    return Collator([TextField(Tokens(AutoTokenizer.from_pretrained(made / "encoder"), 100)), FeatureField("visual")])


def steps_of(split: SplitShards, collator: Collator, *, seed: int = 1, epoch: int = 0, first: int = 0, **options):
    """Clips and row ids of each step of an epoch, sorted."""
    data = DataConfig(batch_size=8, window_bytes=1 << 16)
    windows = LocalWindows(split)
    plan = split.plan(data, seed=seed, epoch=epoch)
    stream = BatchStream(plan=plan, windows=windows, collator=collator, rows_in_use=split.rows_in_use, **options)
    try:
        return [
            sorted(chain.from_iterable(zip(b.names, b.row_id.tolist(), strict=False) for b in step.micro))
            for step in stream.steps(first)
        ]
    finally:
        windows.close()


def clips_of(steps) -> set[str]:
    return {clip for (_, clip), _ in chain.from_iterable(steps)}


@pytest.mark.parametrize("lacking", [0, 4])
def test_epochs_and_seeds_of_runs_read_the_same_clips_once(tmp_path, collator, lacking) -> None:
    out = write(tmp_path / "data", 200, lacking=lacking)
    split = split_of(out, train_share=0.25, missing="drop")
    whole = [steps_of(split, collator, seed=seed, epoch=epoch) for seed, epoch in ((1, 0), (1, 1), (2, 0))]
    in_use = 200 - (50 if lacking else 0)
    expected = round(0.25 * in_use)
    for steps in whole:
        assert len(list(chain.from_iterable(steps))) == expected
        assert clips_of(steps) == clips_of(whole[0])
        assert {row for _, row in chain.from_iterable(steps)} == set(range(expected))
    assert split.sources.num_rows("train") == expected
    smaller = clips_of(steps_of(split_of(out, train_share=0.1, missing="drop"), collator))
    assert smaller < clips_of(whole[0])
    assert clips_of(steps_of(split_of(out, train_share=0.1, train_share_seed=1, missing="drop"), collator)) != smaller


def test_a_share_is_the_same_on_any_number_of_workers_and_resumes_exactly(tmp_path, collator) -> None:
    split = split_of(write(tmp_path / "data", 200), train_share=0.5)
    whole = steps_of(split, collator)
    for world in (2, 3):
        shares = [steps_of(split, collator, rank=rank, world_size=world) for rank in range(world)]
        assert [sorted(chain.from_iterable(parts)) for parts in zip(*shares, strict=True)] == whole
    assert len(whole) >= 12
    for first in range(0, len(whole), 4):
        assert steps_of(split, collator, first=first) == whole[first:]


def test_several_sources_are_shared_alike_and_as_each_alone(tmp_path, collator) -> None:
    small, large = write(tmp_path / "small", 40), write(tmp_path / "large", 200)
    both = split_of(small, large, train_share=0.25)
    assert both.rows_per_source == [10, 50]
    names = chain.from_iterable(steps_of(both, collator))
    of_large = {clip for (source, clip), _ in names if source == "large"}
    assert of_large == clips_of(steps_of(split_of(large, train_share=0.25), collator))


@pytest.mark.parametrize("lacking", [0, 4])
def test_labels_are_those_of_the_clips_in_use(tmp_path, collator, lacking) -> None:
    split = split_of(write(tmp_path / "data", 200, lacking=lacking), train_share=0.1, missing="drop")
    used = np.array([-3 + 6 * int(clip[1:]) / 400 for clip in clips_of(steps_of(split, collator))], np.float32)
    assert np.sort(split.labels()[0]) == pytest.approx(np.sort(used))
    assert split.sources.train_label("label_mean") == pytest.approx(used.mean())
    assert split.sources.train_label("label_median") == pytest.approx(np.median(used))


def test_valid_stays_whole_and_a_share_without_clips_is_refused(tmp_path) -> None:
    out = write(tmp_path / "data", 40)
    assert int(split_of(out, train_share=0.1).sources.split("valid").table.rows.sum()) == 4
    with pytest.raises(UserError, match=r"train_share is 0.01, but .* has 40 train clips in use.*to 0.025 or more"):
        split_of(out, train_share=0.01)
