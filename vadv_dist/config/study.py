"""A study file: variants of a run, the seeds to train each with, and what to compare.

```yaml
title: Which distillation steps help?
config: mosi                               # a recipe or a file
overrides: {trainer.epochs: 30}            # for every variant
reference: student alone
seeds: [1, 2, 3, 4, 5]
published: {source: "VideoAdviser (arXiv:2309.15494), Table 6"}
variants:
  student alone: {overrides: {objective: none}}
  both steps: {published: {mae: 0.568, a2_has0: 0.877}}
  without step 1: {overrides: {objective.step1: false}}
small:                                     # what `--scale small` changes
  made: {mosi: {num_clips: 1200}}
  config: demo
  overrides: {"data.sources": [{uri: "made:mosi"}], student.encoder: "made:mosi/encoder", trainer.num_workers: 0}
```
"""

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from vadv_dist.config.checks import SETTINGS, Count, Natural, Number, Positive, Share, by_kind, require
from vadv_dist.config.places import Place

Overrides = dict[str, Any]
SplitName = Literal["train", "valid", "test"]
Seeds = Annotated[tuple[Natural, ...], Field(min_length=1)]
Name = Annotated[str, Field(min_length=1)]


def folder_name(name: str) -> str:
    """The part of a folder's name that stands for a variant: letters, digits, `_` and `.`, and hyphens."""
    return re.sub(r"[^A-Za-z0-9_.]+", "-", name).strip("-.")


def _require_unique(values: Sequence[object], field: str) -> None:
    require(len(set(values)) == len(values), field, values, "unique entries")


@dataclass(frozen=True, config=SETTINGS)
class PublishedConfig:
    """The published table beside which the study's is shown."""

    source: Name
    """Where the numbers are from, such as `VideoAdviser (arXiv:2309.15494), Table 6`."""


@dataclass(frozen=True, config=SETTINGS)
class VariantConfig:
    """One variant: what it changes in the study's run, or predictions made elsewhere."""

    overrides: Overrides = Field(default_factory=dict)
    """Values by `section.field`, or by section, such as `objective: none`. They come after those of the study and those
    of the command line, because they are what the variant is."""
    config: str | None = None
    """A recipe or a file to use instead of the study's `config`."""
    published: dict[str, Number] = Field(default_factory=dict)
    """Published values by metric, in the unit of the metric: shares are fractions (0.877, not 87.7)."""
    predictions: Place | None = None
    """A CSV file of predictions that another program made, which is scored instead of a training; `{seed}` in its name
    is replaced by each seed."""

    def __post_init__(self) -> None:
        trains = bool(self.overrides) or self.config is not None
        what = "null, because this variant has overrides or a config, and so is trained"
        require(self.predictions is None or not trains, "predictions", self.predictions, what)


@dataclass(frozen=True, config=SETTINGS)
class MadeSentimentConfig:
    """A synthetic data set for sentiment, as `vadv synth` makes it; null is the default of `vadv synth`."""

    kind: Literal["sentiment"] = "sentiment"
    num_clips: Count = 2000
    """Clips over all splits."""
    seed: Natural = 1
    """Seed of the data."""
    informative_video: bool = True
    """Whether video and face depend on the label."""
    annotator_noise: Positive | None = None
    """Standard deviation of one annotator's error, in label units."""
    video_noise: Positive | None = None
    """Standard deviation of the noise on the label in video and face, in label units."""
    visual_shape: Annotated[list[Count], Field(min_length=3, max_length=3)] | None = None
    """Frames, tokens and width of the visual feature."""
    face_shape: Annotated[list[Count], Field(min_length=2, max_length=2)] | None = None
    """Frames and width of the face feature."""
    audio_shape: Annotated[list[Count], Field(min_length=2, max_length=2)] | None = None
    """Steps and width of the audio feature; null makes no audio."""
    classes: Count | None = None
    """Number of classes into which the label range is cut; null keeps labels that are numbers."""
    encoders: list[Literal["bert", "roberta", "roberta-large", "deberta-v3", "modernbert"]] | None = None
    """Small untrained encoders to write beside the usual one, in `encoders/` of the data set."""


@dataclass(frozen=True, config=SETTINGS)
class MadeRetrievalConfig:
    """A synthetic data set for retrieval, as `vadv synth --task retrieval` makes it; null is its default."""

    kind: Literal["retrieval"] = "retrieval"
    num_clips: Count = 2000
    """Clips over all splits."""
    seed: Natural = 1
    """Seed of the data."""
    informative_video: bool = True
    """Whether frames say more about the class than their mean, which the student reads."""
    classes: Count | None = None
    """Number of classes."""
    label_noise: Share | None = None
    """Share of wrong labels in train."""
    audio_noise: Positive | None = None
    """Variation of audio within a class; classes are 1.4 apart."""
    visual_noise: Positive | None = None
    """The same for video."""
    audio_width: Count | None = None
    """Width of the audio vector."""
    visual_width: Count | None = None
    """Width of a frame."""
    frames: Count | None = None
    """Frames per clip."""


MadeConfig = Annotated[MadeSentimentConfig | MadeRetrievalConfig, Field(discriminator="kind"), by_kind("sentiment")]


@dataclass(frozen=True, config=SETTINGS)
class SmallVariantConfig:
    """What `--scale small` changes in one variant."""

    overrides: Overrides = Field(default_factory=dict)
    """Values that come after the variant's own."""
    config: str | None = None
    """A recipe or a file to use instead of the small `config`."""
    predictions: Place | None = None
    """As in `variants`."""


@dataclass(frozen=True, config=SETTINGS)
class SmallConfig:
    """What `--scale small` changes, so that the whole study runs on synthetic data and a CPU in minutes.

    Published values are not shown at this scale, and a variant of outside predictions is left out unless
    `small.variants` names its file.
    """

    made: dict[Name, MadeConfig] = Field(default_factory=dict)
    """Synthetic data sets by name, made in the study's folder when they are missing. `made:NAME` at the start of an
    override's text stands for the folder of that data set: `data.sources: [{uri: "made:NAME"}]`,
    `student.encoder: "made:NAME/encoder"`."""
    config: str | None = None
    """A recipe or a file instead of the study's `config`."""
    overrides: Overrides = Field(default_factory=dict)
    """Values for every variant that come after those of the study."""
    variants: dict[Name, SmallVariantConfig] = Field(default_factory=dict)
    """What differs in single variants."""
    seeds: Seeds | None = None
    """Seeds instead of those of the study."""

    def __post_init__(self) -> None:
        what = "data sets whose names are plain folder names"
        require(all(folder_name(name) == name for name in self.made), "made", list(self.made), what)
        _require_unique(self.seeds or (), "seeds")

    @property
    def is_given(self) -> bool:
        """Whether the study file has this part."""
        return self != SmallConfig()


@dataclass(frozen=True, config=SETTINGS)
class StudyConfig:
    """A study: every variant is trained with every seed, scored on the same clips, and compared with the others."""

    title: Name
    """The question that the study answers."""
    variants: Annotated[dict[Name, VariantConfig], Field(min_length=1)]
    """Variants by name, in the order of every table."""
    about: Name | None = None
    """What is compared, and what the reader should know about it."""
    config: str | None = None
    """The run that the variants change: a recipe or a file; null is the defaults."""
    overrides: Overrides = Field(default_factory=dict)
    """Values by `section.field` for every variant."""
    reference: str | None = None
    """The variant that the others are compared with in the tables; null is the first one."""
    seeds: Seeds = (1, 2, 3, 4, 5)
    """Seeds to train each variant with. A command that is given more later trains only those that are new."""
    splits: Annotated[tuple[SplitName, ...], Field(min_length=1)] = ("test",)
    """Splits to score each run on, once it is complete."""
    metrics: tuple[str, ...] = ()
    """Metrics of the tables, in this order; an empty list is all metrics of the task."""
    published: PublishedConfig | None = None
    """The source of the variants' published values."""
    concurrent: Count | None = None
    """Maximum number of concurrent runs on Ray; null uses the whole cluster."""
    cpus_per_run: Count = 1
    """CPUs of a run that trains in one process."""
    gpus_per_run: Share | None = None
    """GPUs of a run that trains in one process; runs can share a GPU. Null uses one if the cluster has any and
    `trainer.use_gpu` is not false."""
    keep: Literal["checkpoints", "student", "records"] = "checkpoints"
    """What stays of a run after its evaluation: all of it, the exported student without checkpoints, or neither."""
    small: SmallConfig = SmallConfig()
    """What `--scale small` changes."""

    def __post_init__(self) -> None:
        _require_unique(self.seeds, "seeds")
        _require_unique(self.splits, "splits")
        _require_unique(self.metrics, "metrics")
        names = list(self.variants)
        folders = [folder_name(name).lower() for name in names]
        what = "names that differ in their letters and digits, because each names a folder"
        require(all(folders) and len(set(folders)) == len(names), "variants", names, what)
        require(
            self.reference is None or self.reference in names, "reference", self.reference, f"one of {', '.join(names)}"
        )
        has_values = any(variant.published for variant in self.variants.values())
        what = "a mapping with the `source` of the variants' published values"
        require(self.published is not None or not has_values, "published", self.published, what)
        foreign = [name for name in self.small.variants if name not in names]
        require(not foreign, "small.variants", foreign, f"names of variants ({', '.join(names)})")

    @property
    def reference_name(self) -> str:
        """The variant that the others are compared with."""
        return self.reference or next(iter(self.variants))


def fill_in(value: Any, prefix: str, folders: Mapping[str, str]) -> Any:
    """Replace `<prefix>NAME` at the start of every text in an override's value by the folder of that data set.

    Args:
        value: plain containers.
        prefix: `made:` in studies, `data:` in workflows.
        folders: folders of the data sets by name.
    Raises:
        KeyError: there is no data set of that name.
    """
    if isinstance(value, dict):
        return {key: fill_in(item, prefix, folders) for key, item in value.items()}
    if isinstance(value, list):
        return [fill_in(item, prefix, folders) for item in value]
    if isinstance(value, str) and value.startswith(prefix):
        name, slash, rest = value.removeprefix(prefix).partition("/")
        return f"{folders[name]}{slash}{rest}"
    return value
