"""The sections of an extraction's configuration (raw clips to a data set), with all its defaults."""

from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from vadv_dist.config.checks import NUMBER, SETTINGS, Count, Natural, NonNegative, Number, Positive, Share, require
from vadv_dist.config.places import Place
from vadv_dist.config.table_section import Name, Names, TableFields

Precision = Literal["fp32", "bf16"]


@dataclass(frozen=True, config=SETTINGS)
class ClipsConfig(TableFields):
    """The clips to read. Every location is a path or an s3:// URI."""

    csv: Place | None = None
    """A table of clips: `clip_id, video_id, split, label, text, path[, start_s, end_s]`. It is a CSV, Parquet, JSONL or
    Excel file, or a folder that Hugging Face `datasets` saved. A clip's path is relative to `root`, absolute, or an
    s3:// URI; times are in seconds, as a player shows them."""
    id_column: Names = ("clip_id",)
    """Column of the id; several are joined with `_`. If there is no column of ids, they are made from the paths."""
    path_column: Name = "path"
    """Column of the clip's file."""
    transcribe: Place | None = None
    """Hugging Face name or folder of a speech recognition model (Whisper, Wav2Vec2, …), which finds the words of clips
    whose text is empty or that have no column of texts; null refuses such clips."""
    mmsa: Place | None = None
    """Alternatively, a folder in MMSA's raw layout: `label.csv` next to `Raw/<video_id>/<clip_id>.mp4`."""
    root: Place | None = None
    """Folder that paths in the CSV file are relative to; null uses the CSV file's folder."""
    source: str | None = None
    """Source name stored with every clip; null uses the name of the CSV file or folder."""
    label_range: tuple[Number, Number] = (-3.0, 3.0)
    """Lowest and highest label."""
    threshold: Number | None = None
    """Label that separates negative from positive; null uses the middle of the range."""

    def __post_init__(self) -> None:
        require(self.csv is None or self.mmsa is None, "mmsa", self.mmsa, "null, because clips.csv is set too")
        low, high = self.label_range
        require(low < high, "label_range", [low, high], "the lower one first")
        what = f"a number between the lowest and highest label ({low:g} and {high:g}), or null for the middle"
        require(self.threshold is None or low < self.threshold < high, "threshold", self.threshold, what)
        what = "null, because clips.classes names classes"
        require(not self.classes or self.threshold is None, "threshold", self.threshold, what)


@dataclass(frozen=True, config=SETTINGS)
class OutputConfig:
    """The data set to write."""

    uri: Place = "data/extracted"
    """Folder or s3:// prefix of the data set; unfinished work is kept next to it in `<uri>.work`."""
    shard_rows: Count = 256
    """Maximum number of clips in a shard."""
    shard_bytes: Count = 64 << 20
    """Maximum number of feature bytes in a shard."""
    dtype: Literal["float16", "float32"] = "float16"
    """Type of the stored features."""
    max_rejected: Share = 0.01
    """Maximum share of rejected clips; if it is exceeded, no data set is written."""

    def __post_init__(self) -> None:
        require(bool(self.uri.strip("/ ")), "uri", self.uri, "a folder or s3:// prefix")


@dataclass(frozen=True, config=SETTINGS)
class FramesConfig:
    """The sampled frames of a clip: the middles of equal segments of its duration."""

    visual: Count = 8
    """Frames for the visual branch. Section 5.1 of the paper."""
    face: Count = 64
    """Frames for the face branch."""
    face_side: Annotated[int, Field(ge=32)] = 640
    """Longest side, in pixels, to which frames are scaled down before face detection and cropping."""


@dataclass(frozen=True, config=SETTINGS)
class ImageConfig:
    """The frozen image encoder of the visual branch."""

    encoder: Place | None = "openai/clip-vit-large-patch14"
    """Hugging Face name or folder of a CLIP or SigLIP model; null leaves out visual features."""
    tokens: Literal["pooled", "patches"] = "pooled"
    """`pooled` stores one projected vector per frame (N = 1), `patches` stores every patch token."""


@dataclass(frozen=True, config=SETTINGS)
class PromptsConfig:
    """Frozen prompt embeddings of the classes (section 4.1), from the text encoder paired with the image encoder."""

    store: bool = True
    """Whether to store them with the data set."""
    template: str = "A video with the {class} face"
    """The sentence; `{class}` is replaced by the class name."""
    classes: Annotated[tuple[str, ...], Field(min_length=2)] = ("negative", "positive")
    """Names of the classes, in the order of the class indices."""

    def __post_init__(self) -> None:
        require("{class}" in self.template, "template", self.template, "a sentence that contains {class}")


@dataclass(frozen=True, config=SETTINGS)
class FacesConfig:
    """How faces are found."""

    kind: Literal["yunet", "openface", "none"] = "yunet"
    """`yunet` runs a detector, `openface` reads OpenFace's output, `none` leaves out face features."""
    path: Place | None = None
    """The YuNet ONNX file, or the folder with OpenFace's output; a path or an s3:// URI. OpenFace's file for a clip is
    found by the clip's id, or by the end of the clip's path (`q/1.csv` or `1.csv` for `Raw/q/1.mp4`) if that identifies
    one clip."""
    min_score: Annotated[float, Field(gt=0, le=1), NUMBER] = 0.8
    """Detections below this score (OpenFace: confidence) are ignored."""
    min_share: Share = 0.25
    """Minimum share of frames with a face; a clip with fewer has no face features."""
    detect_side: Annotated[int, Field(ge=64)] = 320
    """Longest side, in pixels, of the detector's input image."""
    margin: NonNegative = 0.15
    """Margin added on each side of a face's box, as a share of the box's longer side."""
    smoothing: NonNegative = 1.5
    """Standard deviation, in sampled frames, of the Gaussian that smooths boxes over time; 0 disables it."""


@dataclass(frozen=True, config=SETTINGS)
class ExpressionConfig:
    """The frozen classifier whose scores for each face crop are the face features."""

    encoder: Place | None = None
    """Hugging Face name or folder of an image classifier, or an `.onnx` file as a path or s3:// URI."""
    num_scores: Count = 8
    """E, the number of scores it returns. Section 4.1."""
    scores: Literal["probabilities", "raw"] = "probabilities"
    """`probabilities` applies a softmax to its outputs, `raw` stores them unchanged."""
    onnx_side: Annotated[int, Field(ge=8)] = 224
    """Side of an ONNX file's square input image, in pixels. A Hugging Face model has its own."""
    onnx_mean: tuple[Number, Number, Number] = (0.485, 0.456, 0.406)  # ImageNet
    """Mean of each channel (RGB) of an ONNX file's input, on the scale [0, 1]."""
    onnx_std: tuple[Positive, Positive, Positive] = (0.229, 0.224, 0.225)
    """Standard deviation of each channel (RGB) of an ONNX file's input, on the scale [0, 1]."""


@dataclass(frozen=True, config=SETTINGS)
class ComputeConfig:
    """Resources. On the same kind of machine, these fields do not affect the bytes of the data set."""

    num_workers: Natural | None = None
    """0 processes one clip after another in this process; n ≥ 1 decodes n batches at once with Ray; null uses all cores
    of the Ray cluster or of this machine."""
    use_gpu: Literal["auto"] | bool = "auto"
    """True, false, or `auto`: use a GPU per encoder if there is one."""
    max_actors: Count | None = None
    """Maximum number of processes per encoder; null uses one per core or GPU."""
    ray_address: str | None = None
    """`host:port` of the Ray cluster to join, or `local` to start one on this machine; null uses RAY_ADDRESS if it is
    set, and otherwise starts one."""


@dataclass(frozen=True, config=SETTINGS)
class BatchingConfig:
    """How clips are batched for the encoders. These fields affect the last bits of the features."""

    clips: Count = 4
    """Consecutive clips that are encoded as one batch."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Precision of the encoders: `fp32`, `bf16`, or `auto`: bf16 on a GPU that supports it."""


@dataclass(frozen=True, config=SETTINGS)
class ExtractConfig:
    """The configuration of an extraction."""

    clips: ClipsConfig = ClipsConfig()
    output: OutputConfig = OutputConfig()
    frames: FramesConfig = FramesConfig()
    image: ImageConfig = ImageConfig()
    prompts: PromptsConfig = PromptsConfig()
    faces: FacesConfig = FacesConfig()
    expression: ExpressionConfig = ExpressionConfig()
    batching: BatchingConfig = BatchingConfig()
    compute: ComputeConfig = ComputeConfig()

    @property
    def prompt_classes(self) -> tuple[str, ...]:
        """The classes of the prompts: those of the labels, unless others are set."""
        is_default = self.prompts.classes == PromptsConfig().classes
        return self.clips.classes if is_default and self.clips.classes else self.prompts.classes

    def __post_init__(self) -> None:
        num_classes = len(self.clips.classes) or len(self.prompts.classes)
        what = f"a name for each of the {num_classes} classes of clips.classes"
        require(len(self.prompt_classes) == num_classes, "prompts.classes", list(self.prompts.classes), what)
        if self.faces.kind == "none":
            what = "an encoder, because faces.kind is none too and nothing would be extracted"
            require(self.image.encoder is not None, "image.encoder", None, what)
        else:
            what = "the YuNet .onnx file" if self.faces.kind == "yunet" else "the folder with OpenFace's output"
            require(self.faces.path is not None, "faces.path", None, f"{what}, or faces.kind: none")
            what = "an image classifier or an .onnx file, or faces.kind: none"
            require(self.expression.encoder is not None, "expression.encoder", None, what)
