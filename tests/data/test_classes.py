"""Data sets of classes: classes without clips in a split, and data sets and runs that do not fit them."""

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from vadv_dist.config import load_config
from vadv_dist.data.checks import check_dataset
from vadv_dist.data.classes import class_counts, class_names, class_notes, listed, unknown_classes, unseen_classes
from vadv_dist.data.dataset import Dataset, manifest_json
from vadv_dist.data.schema import Clip, FeatureSpec, LabelSpec
from vadv_dist.data.shards import DatasetWriter
from vadv_dist.data.shared_videos import check_datasets
from vadv_dist.data.sources import Sources
from vadv_dist.errors import UserError
from vadv_dist.storage import write_json
from vadv_dist.training.splits import Splits

NAMES = ("dog", "drum", "rain", "sea")
EVERY = {"train": (0, 1, 2, 3), "valid": (0, 1, 2, 3), "test": (0, 1, 2, 3)}


def write(
    out: Path,
    classes: Mapping[str, tuple[int, ...]],
    *,
    names: tuple[str, ...] = NAMES,
    num_classes: int = 4,
    audio: tuple[int, ...] | None = (3,),
    visual: tuple[int, ...] = (2, 1, 8),
    lacking: Collection[tuple[str, int]] = (),
) -> Path:
    """A data set with a clip of each listed class in each split; those of a split and class in `lacking` lack audio."""
    shapes = {"visual": visual} if audio is None else {"visual": visual, "audio": audio}
    features = {name: FeatureSpec(shape) for name, shape in shapes.items()}
    label = LabelSpec.of_classes(num_classes, names)
    with DatasetWriter(out, features=features, label=label, provenance={}) as writer:
        for split, labels in classes.items():
            for i, one in enumerate(labels):
                clip_id = f"{out.name}_{split}{i}x"
                absent = "audio" if (split, one) in lacking else None
                values = {name: None if name == absent else np.full(shape, i) for name, shape in shapes.items()}
                writer.write(split, Clip(clip_id, clip_id, "", float(one), "hand", values))
    return out


def findings(out: Path) -> list[tuple[str, str, str]]:
    return [(found.level, found.where, f"{found.what} {found.advice}") for found in check_dataset(out).findings]


def test_a_data_set_with_every_class_in_every_split_has_no_findings(tmp_path: Path) -> None:
    assert findings(write(tmp_path / "d", EVERY)) == []


def test_classes_without_train_clips_are_errors(tmp_path: Path) -> None:
    out = write(tmp_path / "d", {**EVERY, "train": (0, 2)})
    told = "2 classes have clips in {} but none in train: drum, sea. Nothing can be learned about such a class"
    found = findings(out)
    assert [(level, where) for level, where, _ in found] == [("error", "valid/, label"), ("error", "test/, label")]
    assert told.format("valid") in found[0][2]
    assert told.format("test") in found[1][2]


def test_classes_that_are_only_trained_on_are_warnings(tmp_path: Path) -> None:
    found = findings(write(tmp_path / "d", {**EVERY, "valid": (0, 1, 2), "test": (3,)}))
    assert [(level, where) for level, where, _ in found] == [("warning", "valid/, label"), ("warning", "test/, label")]
    assert "1 class has clips in train but none in valid: sea." in found[0][2]
    assert "not used for choosing checkpoints" in found[0][2]
    assert "3 classes have clips in train but none in test: dog, drum, rain." in found[1][2]
    assert "not part of the test score" in found[1][2]


def test_an_absent_split_is_one_warning(tmp_path: Path) -> None:
    found = findings(write(tmp_path / "d", {"train": EVERY["train"], "test": EVERY["test"]}))
    assert [(level, where) for level, where, _ in found] == [("warning", "dataset.json, splits")]


def test_named_classes_that_no_clip_has_are_a_warning(tmp_path: Path) -> None:
    few = dict.fromkeys(EVERY, (0, 1))
    [(level, where, text)] = findings(write(tmp_path / "d", few))
    assert (level, where) == ("warning", "dataset.json, label")
    assert text.startswith("2 classes have no clips in any split: rain, sea.")
    assert findings(write(tmp_path / "unnamed", few, names=())) == []


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (("dog", "drum", "rain"), "It names 3 of 4 classes."),
        (("dog", "drum", "dog", "sea"), "2 classes have the name 'dog', so results cannot tell them apart."),
    ],
)
def test_wrong_names_are_errors(tmp_path: Path, names: tuple[str, ...], told: str) -> None:
    found = findings(write(tmp_path / "d", EVERY, names=names))
    assert [(level, where) for level, where, _ in found] == [("error", "dataset.json, label")]
    assert told in found[0][2]


def test_prompts_are_one_per_class(tmp_path: Path) -> None:
    with DatasetWriter(tmp_path / "d", features={}, label=LabelSpec.of_classes(3), provenance={}) as writer:
        writer.prompts = np.ones((2, 4), np.float32)
        for split in EVERY:
            for one in range(3):
                writer.write(split, Clip(f"{split}{one}x", f"{split}{one}x", "", float(one), "hand"))
    [(level, where, text)] = findings(tmp_path / "d")
    assert (level, where) == ("error", "prompts.safetensors, prompts")
    assert "dataset.json declares 2 prompts, but these labels need 3." in text


def test_a_run_refuses_classes_without_train_clips(tmp_path: Path, write_retrieval_config: Callable[..., Path]) -> None:
    out = write(tmp_path / "d", {**EVERY, "train": (0, 1, 2)})
    with pytest.raises(UserError) as caught:
        Splits.open(load_config(write_retrieval_config(uri=out), []))
    told = f"1 class has clips in the valid split of {out} but none in train, so nothing can be learned about it: sea."
    assert str(caught.value) == f"{told} Add train clips of this class, or leave out the valid clips."
    tested = write(tmp_path / "tested", {**EVERY, "train": (1, 2, 3), "valid": (1,)})
    with pytest.raises(UserError, match=r"1 class has clips in the test split of .*tested but none in train"):
        Splits.open(load_config(write_retrieval_config(uri=tested), []))


def test_a_class_may_come_from_another_source_of_the_run(
    tmp_path: Path, write_retrieval_config: Callable[..., Path]
) -> None:
    first = write(tmp_path / "first", {**EVERY, "train": (0, 1)})
    other = write(tmp_path / "other", {**EVERY, "train": (2, 3)})
    config = load_config(write_retrieval_config(uri=first), [f"--data.sources=[{{uri: {first}}}, {{uri: {other}}}]"])
    assert Splits.open(config).train.table.rows.sum() == 4


def test_a_run_warns_about_classes_that_validation_lacks(tmp_path: Path, write_retrieval_config) -> None:
    out = write(tmp_path / "d", {**EVERY, "valid": (0, 3)})
    splits = Splits.open(load_config(write_retrieval_config(uri=out), []))
    assert class_notes(splits.train, splits.valid) == [
        "warning: 2 classes have no clips in valid, so checkpoints are chosen without: drum, rain"
    ]
    splits = Splits.open(load_config(write_retrieval_config(uri=write(tmp_path / "all", EVERY)), []))
    assert class_notes(splits.train, splits.valid) == []


@pytest.mark.parametrize("missing", ["drop", "mask"])
def test_clips_that_lack_a_modality_do_not_stand_for_their_class(tmp_path, write_retrieval_config, missing) -> None:
    """Class 3 has train clips, but none of them can be trained on; class 1 has no valid clip with audio."""
    lacking = {("train", 3), ("valid", 1)}
    out = write(tmp_path / "d", dict.fromkeys(EVERY, (0, 1, 2, 3, 3)), lacking=lacking)
    with pytest.raises(UserError) as caught:
        Splits.open(load_config(write_retrieval_config(uri=out), [f"--data.missing={missing}"]))
    assert str(caught.value) == (
        f"1 class has clips in the valid split of {out}, but every train clip lacks audio or visual features, so "
        "nothing can be learned about it: sea. Add complete clips of this class, or leave out the valid clips."
    )
    trained = write(tmp_path / "trained", dict.fromkeys(EVERY, (0, 1, 1, 2, 3)), lacking={("valid", 1)})
    splits = Splits.open(load_config(write_retrieval_config(uri=trained), [f"--data.missing={missing}"]))
    told = "warning: 1 class has no complete clips in valid, so checkpoints are chosen without: drum"
    assert class_notes(splits.train, splits.valid) == ([told] if missing == "drop" else [])


def test_a_data_set_that_does_not_count_its_classes_is_trusted(
    tmp_path: Path, write_retrieval_config: Callable[..., Path]
) -> None:
    dataset = Dataset.open(write(tmp_path / "d", {**EVERY, "train": (0,)}))
    write_json(dataset.root / "dataset.json", manifest_json(replace(dataset.manifest, statistics={})))
    manifest = Dataset.open(dataset.root).manifest
    assert class_counts([manifest]) == {}
    splits = Splits.open(load_config(write_retrieval_config(uri=dataset.root), []))
    assert class_notes(splits.train, splits.valid) == []


@pytest.mark.parametrize("objective", ["none", "step"])
def test_labels_of_the_other_task_are_refused_before_anything_else(
    tmp_path: Path,
    made: Path,
    write_retrieval_config: Callable[..., Path],
    write_config: Callable[..., Path],
    objective: str,
) -> None:
    out = write(tmp_path / "d", EVERY)
    sentiment = write_config(name="s", uri=out, extra=f"objective: {{kind: {objective}}}")
    with pytest.raises(UserError) as caught:
        Sources.open(load_config(sentiment, []))
    assert str(caught.value) == (
        f"{out} has no words in its train split, but the student of sentiment reads words. Give a data set with the "
        "words of every clip, or set task.kind: retrieval."
    )
    retrieval = write_retrieval_config(name="r", uri=made, objective=objective)
    with pytest.raises(UserError) as caught:
        Sources.open(load_config(retrieval, []))
    assert str(caught.value) == (
        f"{made} has labels that are numbers, but retrieval needs classes. Give a data set of classes (`vadv ingest "
        "vegas`, `vadv synth --task retrieval`), or set task.kind: sentiment."
    )


def test_a_data_set_without_a_modality_is_refused_whatever_the_teacher_reads(
    tmp_path: Path, write_retrieval_config: Callable[..., Path]
) -> None:
    out = write(tmp_path / "d", EVERY, audio=None)
    with pytest.raises(UserError, match=r"has no audio features \(it has: visual\), but retrieval needs audio and"):
        Splits.open(load_config(write_retrieval_config(uri=out, objective="none"), []))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (
            {"audio": (5,)},
            r"audio has shape \[5\] \(float16\) in .*other but \[3\] \(float16\) in .*first: the sources of a run must "
            r"share feature shapes. Create one again to match the other.$",
        ),
        ({"visual": (2, 1, 6)}, r"visual has shape \[2, 1, 6\] .*Create one again to match the other.$"),
        (
            {"num_classes": 5, "names": ()},
            "other has 5 classes, .*first 4: the sources of a run must share their classes. Ingest one again with the "
            "other's --classes.",
        ),
        (
            {"names": ("dog", "rain", "drum", "sea")},
            "Class 1 is 'rain' in .*other but 'drum' in .*first: .*order of classes",
        ),
    ],
)
def test_data_sets_of_other_classes_or_widths_do_not_mix(
    tmp_path: Path, write_retrieval_config: Callable[..., Path], change: dict, told: str
) -> None:
    first = write(tmp_path / "first", EVERY)
    other = write(tmp_path / "other", {**EVERY, "train": (0, 0, 1, 2, 3)}, **change)
    config = load_config(write_retrieval_config(uri=first), [f"--data.sources=[{{uri: {first}}}, {{uri: {other}}}]"])
    with pytest.raises(UserError, match=told):
        Splits.open(config)
    [found] = check_datasets([first, other]).between
    assert found.level == "warning"
    assert re.search(told, f"{found.what} {found.advice}")


def test_clips_without_a_modality_are_refused_by_count_unless_the_run_says_what_to_do(
    tmp_path: Path, write_retrieval_config: Callable[..., Path]
) -> None:
    features = {"visual": FeatureSpec((2, 1, 8)), "audio": FeatureSpec((3,))}
    with DatasetWriter(tmp_path / "d", features=features, label=LabelSpec.of_classes(2), provenance={}) as writer:
        for i in range(12):
            values = {"visual": np.ones((2, 1, 8)) if i != 3 else None, "audio": np.ones(3) if i != 4 else None}
            clip = Clip(f"c{i}x", f"c{i}x", "", float(i % 2), "hand", values)
            writer.write("valid" if i > 9 else "train", clip)
    path = write_retrieval_config(uri=tmp_path / "d")
    with pytest.raises(UserError) as caught:
        Splits.open(load_config(path, ["--data.missing=error"]))
    assert str(caught.value) == (
        "2 clips of the 'train' split lack audio or visual features. Set data.missing to `drop` (leave them out) or "
        "`mask` (keep them, without the terms that need what they lack)."
    )
    assert Splits.open(load_config(path, ["--data.missing=drop"])).train.table.rows.sum() == 8
    assert Splits.open(load_config(path, ["--data.missing=mask"])).train.table.rows.sum() == 10


def test_names_and_numbers_of_classes() -> None:
    assert class_names(["dog"], 3) == ["dog", "class 1", "class 2"]
    assert listed(["a"]) == "a"
    assert listed(list("abcdefg")) == "a, b, c, d, e and 2 more"
    counts = {"train": {0: 2, 1: 0}, "test": {1: 3}, "valid": {}}
    assert unknown_classes(counts, "test") == [1]
    assert unseen_classes(counts, "test") == [0]
    assert unseen_classes(counts, "valid") == []  # there are no clips at all


def test_a_share_of_train_that_loses_a_class_is_refused(tmp_path: Path, write_retrieval_config: Callable) -> None:
    out = write(tmp_path / "d", {**EVERY, "train": (0, 1, 2, 3) * 10})
    config = load_config(write_retrieval_config(uri=out))
    whole = replace(config, data=replace(config.data, train_share=0.5))
    assert len(np.unique(np.concatenate(Splits.open(whole).train.labels()))) == 4
    told = r"train_share is 0.05, which leaves 2 train clips, and 2 classes have none of them: \w+, \w+\. Raise"
    with pytest.raises(UserError, match=told):
        Splits.open(replace(config, data=replace(config.data, train_share=0.05)))
