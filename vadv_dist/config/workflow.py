"""A workflow file: data sets, a run and its seeds, and what to do with the trained students.

```yaml
workflow: {name: mosi, storage: s3://bucket/workflows, seeds: [1, 2, 3]}
data:
  mosi: {kind: table, csv: mosi.csv, arrays: ["clip.npz:visual=visual"]}
train: {config: mosi, overrides: {trainer.epochs: 30}}
export: {formats: [pytorch, onnx]}
```
"""

from dataclasses import field
from typing import Annotated, ClassVar, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from vadv_dist.config.checks import SETTINGS, Count, Natural, Number, Share, by_kind, require
from vadv_dist.config.places import Place
from vadv_dist.config.study import MadeConfig, MadeSentimentConfig, Overrides, folder_name
from vadv_dist.config.table_section import LISTED, Name, Names, TableFields

Range = Annotated[tuple[Number, Number], LISTED]
BadRows = Literal["error", "drop"]
FeatureType = Literal["float16", "float32"]
ExportFormat = Literal["pytorch", "onnx", "onnx-int8", "sentence-transformers"]


@dataclass(frozen=True, config=SETTINGS)
class WorkflowSection:
    """Name, location and seeds of a workflow."""

    name: Name = "workflow"
    """Folder of the workflow in `storage`. Stages that are complete there are not run again."""
    storage: Place = "runs"
    """Folder or s3:// prefix of workflows; machines that run stages must share it."""
    seeds: Annotated[tuple[Natural, ...], Field(min_length=1)] = (1, 2, 3)
    """Seeds to train with; one training each."""

    def __post_init__(self) -> None:
        require(folder_name(self.name) == self.name, "name", self.name, "a plain folder name")
        require(len(set(self.seeds)) == len(self.seeds), "seeds", list(self.seeds), "unique entries")


@dataclass(frozen=True, config=SETTINGS)
class SynthDataConfig:
    """Synthetic data, as `vadv synth` makes them. `data:NAME/encoder` is their small untrained encoder."""

    kind: Literal["synth"] = "synth"
    made: MadeConfig = field(default_factory=MadeSentimentConfig)
    """What to make."""


@dataclass(frozen=True, config=SETTINGS)
class ReadyDataConfig:
    """A data set that exists, such as one written by `vadv extract`. It is used where it is."""

    uri: Place
    """Its location."""
    kind: Literal["ready"] = "ready"


@dataclass(frozen=True, config=SETTINGS)
class ExtractDataConfig:
    """Raw clips, as `vadv extract` reads them."""

    kind: Literal["extract"] = "extract"
    config: Name = "extract-raw"
    """A recipe or a file."""
    overrides: Overrides = Field(default_factory=dict)
    """Values by `section.field`, such as `clips.csv: clips.csv`. `output.uri` is set by the workflow."""


# Descriptions in annotations are inherited; docstrings below fields are not.
@dataclass(frozen=True, config=SETTINGS, kw_only=True)
class LabelsConfig:
    """The labels of a foreign format."""

    label_range: Annotated[Range, Field(description="Lowest and highest label.")] = (-3.0, 3.0)
    threshold: Annotated[
        Number | None, Field(description="Label between negative and positive; null is the middle of the range.")
    ] = None


@dataclass(frozen=True, config=SETTINGS, kw_only=True)
class SequencesConfig(LabelsConfig):
    """A foreign format with sequences of features, which become frames."""

    frames: Annotated[Count, Field(description="Number of equal segments per sequence.")] = 8
    pool: Annotated[
        Literal["mean", "sample"], Field(description="Reduce a segment to its mean or to its middle row.")
    ] = "mean"
    non_finite: Annotated[Literal["zero", "drop", "error"], Field(description="What to do on NaN or infinity.")] = (
        "zero"
    )
    dtype: Annotated[FeatureType, Field(description="Stored type of features.")] = "float16"
    bad_rows: Annotated[BadRows, Field(description="What to do on a row that is not a valid clip.")] = "drop"


@dataclass(frozen=True, config=SETTINGS)
class TableDataConfig(LabelsConfig, TableFields):
    """A table of clips, with features in npz files if there are any, as `vadv ingest table` reads it."""

    csv: Place
    """A CSV, Parquet, JSONL or Excel file, or a folder that Hugging Face `datasets` saved."""
    kind: Literal["table"] = "table"
    id_column: Names = ("id",)
    """Column of the id; several are joined with `_`."""
    arrays: Annotated[tuple[Place, ...], LISTED] = ()
    """Features keyed by the file's `id` array, as `FILE.npz:ARRAY=FEATURE` (visual, face or audio)."""
    allow_missing_arrays: bool = False
    """Accept clips that an array file lacks."""
    dtype: FeatureType = "float16"
    """Stored type of features."""
    bad_rows: BadRows = "error"
    """What to do on a row that is not a valid clip."""


@dataclass(frozen=True, config=SETTINGS)
class MmsaDataConfig(SequencesConfig):
    """A pickled feature file from MMSA, as `vadv ingest mmsa` reads it."""

    file: Place
    """The .pkl file."""
    kind: Literal["mmsa"] = "mmsa"
    label_key: Name = "regression_labels"
    """Key of the labels."""
    features: Annotated[tuple[Literal["vision", "audio"], ...], LISTED] = ("vision", "audio")
    """Features to read."""
    vision_as: Literal["visual", "face"] = "visual"
    """Feature to store vision as."""


@dataclass(frozen=True, config=SETTINGS)
class CmuSdkDataConfig(SequencesConfig):
    """Computational sequences from the CMU-MultimodalSDK, as `vadv ingest cmu-sdk` reads them."""

    labels: Place
    """The labels (.csd); interval k of a video is the clip VIDEO_k."""
    folds: Place
    """JSON with the video ids of train, valid and test."""
    kind: Literal["cmu-sdk"] = "cmu-sdk"
    words: Place | None = None
    """The words (.csd); each belongs to the clip that contains its midpoint."""
    text_csv: Place | None = None
    """A CSV file of texts by clip id, instead of `words`."""
    visual: Place | None = None
    """The sequence (.csd) to store as visual."""
    face: Place | None = None
    """The sequence to store as face."""
    audio: Place | None = None
    """The sequence to store as audio."""
    label_number: Natural = 0
    """Column of the label, from 0."""


@dataclass(frozen=True, config=SETTINGS)
class VegasDataConfig:
    """Audio and visual vectors with class labels, as `vadv ingest vegas` reads them."""

    file: Place
    """The .h5 file."""
    kind: Literal["vegas"] = "vegas"
    classes: Count = 10
    """Number of classes."""
    valid_fraction: Share = 0.1
    """Share of each class of train to use as valid."""
    seed: Natural = 1
    """Seed for `valid_fraction`."""


DataSetConfig = Annotated[
    SynthDataConfig
    | ReadyDataConfig
    | ExtractDataConfig
    | TableDataConfig
    | MmsaDataConfig
    | CmuSdkDataConfig
    | VegasDataConfig,
    Field(discriminator="kind"),
    by_kind("synth"),
]


@dataclass(frozen=True, config=SETTINGS)
class AdviseStageConfig:
    """Estimate what a teacher can add, as `vadv advise` does; skipped for data without words or without video."""

    encoder: Place | None = None
    """A pretrained encoder that represents texts; null uses words and pairs of words."""
    features: tuple[Name, ...] | None = None
    """Features of the teacher; null is visual and face if present."""
    max_clips: Count = 4000
    """Clips to draw at most."""
    seed: Natural = 1
    """Seed of the draw, the folds and the bootstrap."""


@dataclass(frozen=True, config=SETTINGS)
class TuneStageConfig:
    """Search the run's fields, as `vadv tune` does, and train with the best values."""

    space: Name
    """A space file, or the name of a shipped one."""
    overrides: Overrides = Field(default_factory=dict)
    """Values by `search.field` or `section.field`, for the search only."""
    use_ray: bool = True
    """Run trials on Ray; false runs them one after another in one process."""


@dataclass(frozen=True, config=SETTINGS)
class TrainStageConfig:
    """The run to train with every seed."""

    config: Name = "demo"
    """A recipe or a file."""
    overrides: Overrides = Field(default_factory=dict)
    """Values by `section.field`. `data:NAME` at the start of a text stands for the folder of that data set."""
    alone: bool = True
    """Also train the student without its teacher, with the same seeds, to show what the teacher adds."""

    refused: ClassVar[tuple[str, ...]] = ("run", "data.sources")

    def __post_init__(self) -> None:
        for name in self.overrides:
            wrong = [field for field in self.refused if name == field or name.startswith(f"{field}.")]
            require(not wrong, "overrides", name, "another field, because the workflow sets this one")


@dataclass(frozen=True, config=SETTINGS)
class EvaluateStageConfig:
    """The split to score every student on."""

    split: Literal["valid", "test"] = "test"
    """The split."""


@dataclass(frozen=True, config=SETTINGS)
class StudyStageConfig:
    """A study to run beside the trainings, as `vadv study` does."""

    file: Name
    """A study file, or the name of a shipped one."""
    small: bool = False
    """Run its `small` part."""
    overrides: Overrides = Field(default_factory=dict)
    """Values by `section.field` for all its runs."""
    use_ray: bool = True
    """Run on Ray; false trains one run after another in one process."""


@dataclass(frozen=True, config=SETTINGS)
class ExportStageConfig:
    """Export the student that is best on the validation split, over all seeds."""

    formats: Annotated[tuple[ExportFormat, ...], Field(min_length=1)] = ("pytorch",)
    """Formats, a folder each; `onnx-int8` has quantized weights, whose cost is measured."""
    license: Name | None = None
    """License of the weights for the model card, such as `mit`."""
    languages: tuple[Name, ...] = ()
    """Languages of the texts for the model card, such as `en`."""
    base_model: Name | None = None
    """The encoder's name on the Hugging Face Hub for the model card; null takes the run's, unless that is a folder."""

    def __post_init__(self) -> None:
        require(len(set(self.formats)) == len(self.formats), "formats", list(self.formats), "unique entries")


@dataclass(frozen=True, config=SETTINGS)
class WorkflowConfig:
    """A workflow: from clips or a table to an exported student and its evidence."""

    data: Annotated[dict[Name, DataSetConfig], Field(min_length=1)]
    """Data sets by name. Students train on all of them together."""
    workflow: WorkflowSection = field(default_factory=WorkflowSection)
    advise: AdviseStageConfig | None = AdviseStageConfig()
    """null leaves it out."""
    tune: TuneStageConfig | None = None
    """null trains with the run's own values."""
    train: TrainStageConfig = field(default_factory=TrainStageConfig)
    evaluate: EvaluateStageConfig = field(default_factory=EvaluateStageConfig)
    study: StudyStageConfig | None = None
    """null leaves it out."""
    export: ExportStageConfig = field(default_factory=ExportStageConfig)

    def __post_init__(self) -> None:
        plain = all(folder_name(name) == name for name in self.data)
        require(plain, "data", list(self.data), "names that are plain folder names")
