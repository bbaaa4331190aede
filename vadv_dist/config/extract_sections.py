"""The sections of an extraction's configuration (raw clips to a data set), with all its defaults."""

from dataclasses import dataclass, field
from typing import Literal

from vadv_dist.config.checks import Section, require, require_at_least
from vadv_dist.config.places import expand_fields

Precision = Literal["fp32", "bf16"]


@dataclass(frozen=True)
class ClipsConfig(Section):
    """The clips to read. Every location is a path or an s3:// URI.

    Args:
        csv: a CSV file of clips: `clip_id, video_id, split, label, text, path[, start_s, end_s]`. A clip's path is
            relative to `root`, absolute, or an s3:// URI; times are in seconds, as a player shows them.
        mmsa: alternatively, a folder in MMSA's raw layout: `label.csv` next to `Raw/<video_id>/<clip_id>.mp4`.
        root: folder that paths in the CSV file are relative to; null uses the CSV file's folder.
        source: source name stored with every clip; null uses the name of the CSV file or folder.
        label_range: lowest and highest label.
        threshold: lowest label that counts as positive; null uses the middle of the range.
    """

    csv: str | None = None
    mmsa: str | None = None
    root: str | None = None
    source: str | None = None
    label_range: tuple[float, float] = (-3.0, 3.0)
    threshold: float | None = None

    def __post_init__(self) -> None:
        expand_fields(self, "clips", "csv", "mmsa", "root")
        require(self.csv is None or self.mmsa is None, "clips.mmsa", self.mmsa, "null, because clips.csv is set too")
        require(
            self.label_range[0] < self.label_range[1],
            "clips.label_range",
            list(self.label_range),
            "the lower one first",
        )
        low, high = self.label_range
        require(
            self.threshold is None or low < self.threshold < high,
            "clips.threshold",
            self.threshold,
            f"a number between the lowest and highest label ({low:g} and {high:g}), or null for the middle",
        )


@dataclass(frozen=True)
class OutputConfig(Section):
    """The data set to write.

    Args:
        uri: folder or s3:// prefix of the data set; unfinished work is kept next to it in `<uri>.work`.
        shard_rows, shard_bytes: maximum number of clips and of feature bytes in a shard.
        dtype: type of the stored features.
        max_rejected: maximum share of rejected clips; if it is exceeded, no data set is written.
    """

    uri: str = "data/extracted"
    shard_rows: int = 256
    shard_bytes: int = 64 << 20
    dtype: Literal["float16", "float32"] = "float16"
    max_rejected: float = 0.01

    def __post_init__(self) -> None:
        expand_fields(self, "output", "uri")
        require(bool(self.uri.strip("/ ")), "output.uri", self.uri, "a folder or s3:// prefix")
        require_at_least("output", self, {"shard_rows": 1, "shard_bytes": 1})
        require(0 <= self.max_rejected <= 1, "output.max_rejected", self.max_rejected, "a share from 0 to 1")


@dataclass(frozen=True)
class FramesConfig(Section):
    """The sampled frames of a clip: the middles of equal segments of its duration.

    Args:
        visual: frames for the visual branch. Section 5.1 of the paper.
        face: frames for the face branch.
        face_side: longest side, in pixels, to which frames are scaled down before face detection and cropping.
    """

    visual: int = 8
    face: int = 64
    face_side: int = 640

    def __post_init__(self) -> None:
        require_at_least("frames", self, {"visual": 1, "face": 1})
        require(self.face_side >= 32, "frames.face_side", self.face_side, "at least 32 pixels")


@dataclass(frozen=True)
class ImageConfig(Section):
    """The frozen image encoder of the visual branch.

    Args:
        encoder: Hugging Face name or folder of a CLIP or SigLIP model; null leaves out visual features.
        tokens: `pooled` stores one projected vector per frame (N = 1), `patches` stores every patch token.
    """

    encoder: str | None = "openai/clip-vit-large-patch14"
    tokens: Literal["pooled", "patches"] = "pooled"

    def __post_init__(self) -> None:
        expand_fields(self, "image", "encoder")


@dataclass(frozen=True)
class PromptsConfig(Section):
    """Frozen prompt embeddings of the classes (section 4.1), from the text encoder paired with the image encoder.

    Args:
        store: whether to store them with the data set.
        template: the sentence; `{class}` is replaced by the class name.
        classes: names of the classes, in the order of the class indices.
    """

    store: bool = True
    template: str = "A video with the {class} face"
    classes: tuple[str, ...] = ("negative", "positive")

    def __post_init__(self) -> None:
        require("{class}" in self.template, "prompts.template", self.template, "a sentence that contains {class}")
        require(len(self.classes) >= 2, "prompts.classes", list(self.classes), "at least two classes")


@dataclass(frozen=True)
class FacesConfig(Section):
    """How faces are found.

    Args:
        kind: `yunet` runs a detector, `openface` reads OpenFace's output, `none` leaves out face features.
        path: the YuNet ONNX file, or the folder with OpenFace's output; a path or an s3:// URI. OpenFace's file for a
            clip is found by the clip's id, or by the end of the clip's path (`q/1.csv` or `1.csv` for `Raw/q/1.mp4`)
            if that identifies one clip.
        min_score: detections below this score (OpenFace: confidence) are ignored.
        min_share: minimum share of frames with a face; a clip with fewer has no face features.
        detect_side: longest side, in pixels, of the detector's input image.
        margin: margin added on each side of a face's box, as a share of the box's longer side.
        smoothing: standard deviation, in sampled frames, of the Gaussian that smooths boxes over time; 0 disables it.
    """

    kind: Literal["yunet", "openface", "none"] = "yunet"
    path: str | None = None
    min_score: float = 0.8
    min_share: float = 0.25
    detect_side: int = 320
    margin: float = 0.15
    smoothing: float = 1.5

    def __post_init__(self) -> None:
        expand_fields(self, "faces", "path")
        require(0 < self.min_score <= 1, "faces.min_score", self.min_score, "a score in (0, 1]")
        require(0 <= self.min_share <= 1, "faces.min_share", self.min_share, "a share from 0 to 1")
        require(self.detect_side >= 64, "faces.detect_side", self.detect_side, "at least 64 pixels")
        require_at_least("faces", self, {"margin": 0, "smoothing": 0})


@dataclass(frozen=True)
class ExpressionConfig(Section):
    """The frozen classifier whose scores for each face crop are the face features.

    Args:
        encoder: Hugging Face name or folder of an image classifier, or an `.onnx` file as a path or s3:// URI.
        num_scores: E, the number of scores it returns. Section 4.1.
        scores: `probabilities` applies a softmax to its outputs, `raw` stores them unchanged.
        onnx_side, onnx_mean, onnx_std: input of an ONNX file: side of the square image in pixels, and mean and standard
            deviation of each channel (RGB) on the scale [0, 1]. A Hugging Face model has its own.
    """

    encoder: str | None = None
    num_scores: int = 8
    scores: Literal["probabilities", "raw"] = "probabilities"
    onnx_side: int = 224
    onnx_mean: tuple[float, float, float] = (0.485, 0.456, 0.406)  # ImageNet
    onnx_std: tuple[float, float, float] = (0.229, 0.224, 0.225)

    def __post_init__(self) -> None:
        expand_fields(self, "expression", "encoder")
        require_at_least("expression", self, {"num_scores": 1})
        require(self.onnx_side >= 8, "expression.onnx_side", self.onnx_side, "at least 8 pixels")
        require(all(s > 0 for s in self.onnx_std), "expression.onnx_std", list(self.onnx_std), "positive numbers")


@dataclass(frozen=True)
class ComputeConfig(Section):
    """Resources. On the same kind of machine, these fields do not affect the bytes of the data set.

    Args:
        num_workers: 0 processes one clip after another in this process; n ≥ 1 decodes n batches at once with Ray; null
            uses all cores of the Ray cluster or of this machine.
        use_gpu: true, false, or `auto`: use a GPU per encoder if there is one.
        max_actors: maximum number of processes per encoder; null uses one per core or GPU.
        ray_address: `host:port` of the Ray cluster to join, or `local` to start one on this machine; null uses
            RAY_ADDRESS if it is set, and otherwise starts one.
    """

    num_workers: int | None = None
    use_gpu: Literal["auto"] | bool = "auto"
    max_actors: int | None = None
    ray_address: str | None = None

    def __post_init__(self) -> None:
        require_at_least("compute", self, {"num_workers": 0, "max_actors": 1}, or_null=True)


@dataclass(frozen=True)
class BatchingConfig(Section):
    """How clips are batched for the encoders. These fields affect the last bits of the features.

    Args:
        clips: consecutive clips that are encoded as one batch.
        precision: precision of the encoders: `fp32`, `bf16`, or `auto`: bf16 on a GPU that supports it.
    """

    clips: int = 4
    precision: Literal["auto", "fp32", "bf16"] = "auto"

    def __post_init__(self) -> None:
        require_at_least("batching", self, {"clips": 1})


@dataclass(frozen=True)
class ExtractConfig(Section):
    """The configuration of an extraction."""

    clips: ClipsConfig = field(default_factory=ClipsConfig)
    output: OutputConfig = field(default_factory=OutputConfig)
    frames: FramesConfig = field(default_factory=FramesConfig)
    image: ImageConfig = field(default_factory=ImageConfig)
    prompts: PromptsConfig = field(default_factory=PromptsConfig)
    faces: FacesConfig = field(default_factory=FacesConfig)
    expression: ExpressionConfig = field(default_factory=ExpressionConfig)
    batching: BatchingConfig = field(default_factory=BatchingConfig)
    compute: ComputeConfig = field(default_factory=ComputeConfig)

    def __post_init__(self) -> None:
        require(
            self.image.encoder is not None or self.faces.kind != "none",
            "image.encoder",
            None,
            "an encoder, because faces.kind is none too and nothing would be extracted",
        )
        if self.faces.kind != "none":
            what = "the YuNet .onnx file" if self.faces.kind == "yunet" else "the folder with OpenFace's output"
            require(self.faces.path is not None, "faces.path", None, f"{what}, or faces.kind: none")
            require(
                self.expression.encoder is not None,
                "expression.encoder",
                None,
                "an image classifier or an .onnx file, or faces.kind: none",
            )
