"""Several data sets read as one: the contents of an epoch, and incompatible data sets."""

from collections import Counter
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError
from transformers import AutoTokenizer

from vadv_dist.config import AloneObjectiveConfig, Config, DataConfig, SourceConfig, TeacherConfig
from vadv_dist.data.collate import Collator, FeatureField, TextField
from vadv_dist.data.schema import Clip, FeatureSpec, LabelSpec
from vadv_dist.data.shards import DatasetWriter
from vadv_dist.data.sources import Sources, SplitShards
from vadv_dist.data.stream import BatchStream
from vadv_dist.data.tokens import Tokens
from vadv_dist.data.windows import LocalWindows
from vadv_dist.errors import UserError

SHAPE = (2, 1, 8)
ALONE = AloneObjectiveConfig()
PROMPTS = np.arange(16, dtype=np.float32).reshape(2, 8)


def write(
    out: Path,
    clips: int,
    *,
    label: LabelSpec | None = None,
    shape: tuple[int, ...] = SHAPE,
    prompts: np.ndarray | None = PROMPTS,
    word: str = "good",
) -> Path:
    """Some clips in shards of 10, a tenth of them for validation, with the same ids in every data set."""
    random = np.random.default_rng(clips)
    writer = DatasetWriter(
        out, features={"visual": FeatureSpec(shape)}, label=label or LabelSpec(), provenance={}, shard_rows=10
    )
    with writer:
        writer.prompts = prompts
        for i in range(clips + clips // 10):
            words = f"{word} " * int(random.integers(1, 30))
            clip = Clip(f"c{i}", f"v{i}", words, 0.0, "same", {"visual": np.full(shape, i)})
            writer.write("train" if i < clips else "valid", clip)
    return out


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A small and a large data set with the same clip ids and the same `source` in their clips."""
    folder = tmp_path_factory.mktemp("two")
    return write(folder / "small", 30), write(folder / "large", 200)


@pytest.fixture(scope="module")
def collator(made: Path) -> Collator:
    return Collator([TextField(Tokens(AutoTokenizer.from_pretrained(made / "encoder"), 100)), FeatureField("visual")])


def config_of(uris, *, weights=(1.0, 1.0), **data) -> Config:
    sources = [SourceConfig(str(uri), weight) for uri, weight in zip(uris, weights, strict=True)]
    options = {"batch_size": 8, "window_bytes": 1 << 16} | data
    return Config(data=DataConfig(sources=sources, **options), teacher=TeacherConfig(use_face=False))


def steps_of(config: Config, collator: Collator, *, epoch: int = 0, first_step: int = 0, **options) -> list:
    """Real clips of each step of an epoch, sorted."""
    split = Sources.open(config).split("train", missing="error")
    windows = LocalWindows(split)
    plan = split.plan(config.data, seed=1, epoch=epoch)
    try:
        steps = list(BatchStream(plan=plan, windows=windows, collator=collator, **options).steps(first_step))
    finally:
        windows.close()
    return [sorted(n for b in s.micro for n, v in zip(b.names, b.valid, strict=True) if v) for s in steps]


@pytest.mark.parametrize(
    ("mixing", "weights", "expected"),
    [
        ("proportional", (1.0, 1.0), {"small": 30, "large": 200}),
        ("equal", (1.0, 1.0), {"small": 115, "large": 115}),
        ("repeats", (3.0, 0.5), {"small": 90, "large": 100}),
        ("temperature", (1.0, 1.0), {"small": 64, "large": 166}),  # 230 * sqrt(30) / (sqrt(30) + sqrt(200)) = 64.2
    ],
)
def test_an_epoch_reads_each_source_according_to_the_mixing(two, collator, mixing, weights, expected) -> None:
    config = config_of(two, weights=weights, mixing=mixing, temperature=2.0)
    seen = Counter(chain.from_iterable(steps_of(config, collator)))
    assert Counter(source for source, _ in seen.elements()) == expected
    for source, clips in (("small", 30), ("large", 200)):
        times = [seen[source, f"c{i}"] for i in range(clips)]
        assert set(times) <= {expected[source] // clips, -(-expected[source] // clips)}


def test_a_partly_read_source_is_read_completely_over_two_epochs(two, collator) -> None:
    config = config_of(two, weights=(1.0, 0.5), mixing="repeats")
    epochs = [set(chain.from_iterable(steps_of(config, collator, epoch=epoch))) for epoch in (0, 1)]
    large = [{clip for source, clip in epoch if source == "large"} for epoch in epochs]
    assert len(large[0]) == len(large[1]) == 100
    assert large[0] | large[1] == {f"c{i}" for i in range(200)}


@pytest.mark.parametrize("window_bytes", [1 << 16, 256 << 20])
@pytest.mark.parametrize(("world_size", "accumulate"), [(2, 1), (3, 2)])
def test_mixed_batches_are_the_same_for_any_number_of_ranks(
    two, collator, world_size, accumulate, window_bytes
) -> None:
    config = config_of(two, mixing="equal", window_bytes=window_bytes)
    whole = steps_of(config, collator, epoch=3)
    shares = [
        steps_of(config, collator, epoch=3, rank=rank, world_size=world_size, accumulate=accumulate)
        for rank in range(world_size)
    ]
    assert [sorted(chain.from_iterable(parts)) for parts in zip(*shares, strict=True)] == whole


def test_a_mixed_epoch_can_resume_at_any_step(two, collator) -> None:
    config = config_of(two, mixing="equal")
    whole = steps_of(config, collator, epoch=2)
    assert len(whole) >= 28
    for first in range(0, len(whole) + 1, 5):
        assert steps_of(config, collator, epoch=2, first_step=first) == whole[first:]


def test_clips_dropped_for_missing_features_do_not_count(tmp_path, collator) -> None:
    gaps = tmp_path / "gaps"
    with DatasetWriter(gaps, features={"visual": FeatureSpec(SHAPE)}, label=LabelSpec(), provenance={}) as writer:
        writer.prompts = PROMPTS
        for i in range(40):
            visual = None if i % 4 == 0 else np.full(SHAPE, i)
            writer.write("train", Clip(f"c{i}", f"v{i}", "words", 0.0, "same", {"visual": visual}))
    config = config_of((write(tmp_path / "whole", 10), gaps), mixing="equal", window_bytes=256 << 20)
    split = Sources.open(config).split("train", missing="drop")
    assert split.rows_per_source == [10, 30]
    assert split.quotas(config.data) == [20, 20]
    windows = LocalWindows(split)
    plan = split.plan(config.data, seed=1, epoch=0)
    stream = BatchStream(plan=plan, windows=windows, collator=collator, rows_in_use=split.rows_in_use)
    seen = [name for step in stream.steps() for name in step.micro[0].names]
    windows.close()
    assert Counter(source for source, _ in seen) == {"whole": 20, "gaps": 20}
    assert not {clip for source, clip in seen if source == "gaps"} & {f"c{i}" for i in range(0, 40, 4)}


def test_validation_reads_every_clip_once_however_training_is_mixed(two) -> None:
    config = config_of(two, mixing="equal")
    split = Sources.open(config).split("valid", missing="error")
    plan = split.plan(config.data, seed=1, epoch=0, shuffle=False)
    assert plan.num_rows == split.table.rows.sum() == 3 + 20


def test_clips_with_equal_ids_are_distinguished_by_source(two, tmp_path) -> None:
    split = Sources.open(config_of(two)).split("train", missing="error")
    names = split.source_names(range(len(split.shards)))
    assert Counter(names) == {"small": 30, "large": 200}
    alone = Sources.open(config_of(two[:1], weights=(1.0,))).split("train", missing="error")
    assert alone.source_names([0]) is None


def open_both(first: SourceConfig, other: SourceConfig) -> Sources:
    return Sources.open(Config(data=DataConfig(sources=[first, other]), teacher=TeacherConfig(use_face=False)))


def test_two_sources_with_one_name_are_refused(two, tmp_path) -> None:
    first, other = str(two[0]), str(write(tmp_path / "small", 20))
    with pytest.raises(ValidationError, match=r"sources\[1\]\.name is 'small', expected a unique name"):
        open_both(SourceConfig(first), SourceConfig(other))
    assert open_both(SourceConfig(first), SourceConfig(other, name="other")).names == ("small", "other")


def test_a_data_set_listed_twice_is_refused(two) -> None:
    with pytest.raises(UserError, match="contain the same clips"):
        open_both(SourceConfig(str(two[0])), SourceConfig(str(two[0]), name="again"))


def test_an_unused_weight_is_refused(two) -> None:
    with pytest.raises(ValidationError, match=r"weight is 2\.0, expected 1 if data\.mixing is proportional"):
        config_of(two, weights=(2.0, 1.0))
    with pytest.raises(ValidationError, match="greater than 0"):
        SourceConfig("data", 0.0)


def test_a_share_of_less_than_a_clip_is_refused(two) -> None:
    config = config_of(two, weights=(0.001, 100.0), mixing="equal")
    split: SplitShards = Sources.open(config).split("train", missing="error")
    with pytest.raises(UserError, match="small would contribute no clip to an epoch of 230"):
        split.plan(config.data, seed=1, epoch=0)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"label": LabelSpec(-1.0, 1.0)}, "labels from -1 to 1"),
        ({"label": LabelSpec(kind="class")}, "other has class labels but .*first has regression labels"),
        ({"shape": (2, 1, 4), "prompts": None}, r"visual has shape \[2, 1, 4\] .* but \[2, 1, 8\]"),
        ({"prompts": None}, "different prompts: .*first has prompts, .*other has none"),
        ({"prompts": PROMPTS[:, :4]}, r"shape \[2, 4\] instead of \[2, 8\]"),
        ({"prompts": PROMPTS[::-1]}, "values differ by up to 8"),
    ],
)
def test_data_sets_that_do_not_fit_together_are_refused(tmp_path, change, expected) -> None:
    first, other = write(tmp_path / "first", 10), write(tmp_path / "other", 20, **change)
    with pytest.raises(UserError, match=expected):
        Sources.open(config_of((first, other)))


def test_prompts_may_differ_by_rounding_or_if_no_teacher_uses_them(tmp_path) -> None:
    first, other = write(tmp_path / "first", 10), write(tmp_path / "other", 20, prompts=PROMPTS[::-1])
    both = [SourceConfig(str(first)), SourceConfig(str(other))]
    alone = Config(data=DataConfig(sources=both), objective=AloneObjectiveConfig())
    assert len(Sources.open(alone).datasets) == 2
    rounded = write(tmp_path / "rounded", 20, prompts=PROMPTS + np.float32(1e-4))
    assert len(Sources.open(config_of((first, rounded))).datasets) == 2


def test_sources_with_another_threshold_are_refused(two, tmp_path: Path) -> None:
    other = write(tmp_path / "other", 20, label=LabelSpec(threshold=1.0))
    same = write(tmp_path / "same", 25, label=LabelSpec(threshold=0.0))
    assert len(Sources.open(config_of([two[0], same])).datasets) == 2  # 0 is the middle, which is the default
    with pytest.raises(UserError, match=r"meet at 1, in .*small at 0: .*share their threshold"):
        Sources.open(config_of([two[0], other]))


def test_a_statistic_of_training_labels_is_weighted_by_rows(tmp_path: Path) -> None:
    for name, clips, value in (("a", 30, 1.0), ("b", 10, 3.0)):
        with DatasetWriter(tmp_path / name, features={}, label=LabelSpec(), provenance={}) as writer:
            for i in range(clips):
                writer.write("train", Clip(f"{name}{i}", "v", "word", value, "s", {}))
            writer.write("valid", Clip(f"{name}-valid", "w", "word", -2.0, "s", {}))
    config = Config(data=DataConfig(sources=[SourceConfig(str(tmp_path / name)) for name in "ab"]), objective=ALONE)
    sources = Sources.open(config)
    assert sources.train_label("label_mean") == pytest.approx((30 * 1.0 + 10 * 3.0) / 40)
    assert sources.label_statistic("valid", "label_min") == [(1, -2.0), (1, -2.0)]
    assert sources.train_label("what no data set says") is None
