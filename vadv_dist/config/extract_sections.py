"""The sections of an extraction's configuration: raw clips to a data set. The only place with its defaults."""

from dataclasses import dataclass, field
from typing import Literal

from vadv_dist.config.checks import Section, require, require_at_least
from vadv_dist.config.places import expand_fields

Precision = Literal["fp32", "bf16"]


@dataclass(frozen=True)
class ClipsConfig(Section):
    """Which clips are read. Every place may be a path or an s3:// URI.

    Args:
        csv: a CSV of clips: `clip_id, video_id, split, label, text, path[, start_s, end_s]`; a clip's path is relative
            to `root`, absolute, or an s3:// URI of its own; times are those that a player shows, in seconds.
        mmsa: or a folder in MMSA's raw layout: `label.csv` beside `Raw/<video_id>/<clip_id>.mp4`.
        root: folder that the CSV's paths start from; null is the CSV's own.
        source: name that every clip carries; null takes the name of the CSV or of the folder.
        label_range: lowest and highest label.
        threshold: lowest label that counts as positive; null takes the middle of the range, 0 for a symmetric one.
    """

    csv: str | None = None
    mmsa: str | None = None
    root: str | None = None
    source: str | None = None
    label_range: tuple[float, float] = (-3.0, 3.0)
    threshold: float | None = None

    def __post_init__(self) -> None:
        expand_fields(self, "clips", "csv", "mmsa", "root")
        require(
            self.csv is None or self.mmsa is None, "clips.mmsa", self.mmsa, "null where clips.csv is given: one of both"
        )
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
            f"a number between the lowest and the highest label ({low:g} and {high:g}), or null for their middle",
        )


@dataclass(frozen=True)
class OutputConfig(Section):
    """The data set that is made.

    Args:
        uri: folder or s3:// prefix of the data set; unfinished work stands beside it in `<uri>.work`.
        shard_rows, shard_bytes: a shard holds at most so many clips and so many bytes of features.
        dtype: type that features are stored in.
        max_rejected: share of bad clips above which the data set is not finished.
    """

    uri: str = "data/extracted"
    shard_rows: int = 256
    shard_bytes: int = 64 << 20
    dtype: Literal["float16", "float32"] = "float16"
    max_rejected: float = 0.01

    def __post_init__(self) -> None:
        expand_fields(self, "output", "uri")
        require(bool(self.uri.strip("/ ")), "output.uri", self.uri, "a folder of its own")
        require_at_least("output", self, {"shard_rows": 1, "shard_bytes": 1})
        require(0 <= self.max_rejected <= 1, "output.max_rejected", self.max_rejected, "a share from 0 to 1")


@dataclass(frozen=True)
class FramesConfig(Section):
    """Which frames of a clip are looked at: the middles of equal parts of its time.

    Args:
        visual: frames for the visual branch. Section 5.1 of the paper.
        face: frames for the face branch.
        face_side: frames are scaled down to this longest side, in pixels, before faces are sought and cropped.
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
        encoder: a CLIP or SigLIP by Hugging Face name or folder; null leaves visual features out.
        tokens: `pooled` keeps one projected vector per frame (N = 1), `patches` every patch token.
    """

    encoder: str | None = "openai/clip-vit-large-patch14"
    tokens: Literal["pooled", "patches"] = "pooled"

    def __post_init__(self) -> None:
        expand_fields(self, "image", "encoder")


@dataclass(frozen=True)
class PromptsConfig(Section):
    """The classes' frozen prompt embeddings (section 4.1), from the text encoder that belongs to the image encoder.

    Args:
        store: whether they are stored with the data set.
        template: the sentence; `{class}` stands for the class.
        classes: names of the classes, in the order of their numbers.
    """

    store: bool = True
    template: str = "A video with the {class} face"
    classes: tuple[str, ...] = ("negative", "positive")

    def __post_init__(self) -> None:
        require("{class}" in self.template, "prompts.template", self.template, "a sentence that holds {class}")
        require(len(self.classes) >= 2, "prompts.classes", list(self.classes), "at least two classes")


@dataclass(frozen=True)
class FacesConfig(Section):
    """How the face of each frame is found.

    Args:
        kind: `yunet` runs a detector, `openface` reads what OpenFace wrote, `none` leaves face features out.
        path: the YuNet ONNX file, or the folder of OpenFace's output; either may be on s3://. OpenFace's files are
            found by a clip's id, or by the end of its file's path (`q/1.csv` or `1.csv` for `Raw/q/1.mp4`) where no
            other file of the list ends so.
        min_score: detections below this score (OpenFace: confidence) are left out.
        min_share: a clip with faces in a smaller share of its frames has no face.
        detect_side: longest side, in pixels, of the image that the detector sees.
        margin: added on each side of a face's box, as a share of its larger side.
        smoothing: standard deviation of the Gaussian that smooths boxes over time, in sampled frames; 0 does not.
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
    """The frozen classifier whose scores of each face crop are the face features.

    Args:
        encoder: a Hugging Face image classifier by name or folder, or an `.onnx` file, which may be on s3://.
        num_scores: how many scores it gives (E). Section 4.1.
        scores: `probabilities` takes the softmax of its outputs, `raw` keeps them as they are.
        onnx_side, onnx_mean, onnx_std: what an ONNX file wants: a square image of this side, scaled to [0, 1], less
            the mean, over the deviation of each channel (RGB). A Hugging Face folder says this itself.
    """

    encoder: str | None = None
    num_scores: int = 8
    scores: Literal["probabilities", "raw"] = "probabilities"
    onnx_side: int = 224
    onnx_mean: tuple[float, float, float] = (0.485, 0.456, 0.406)  # of ImageNet
    onnx_std: tuple[float, float, float] = (0.229, 0.224, 0.225)

    def __post_init__(self) -> None:
        expand_fields(self, "expression", "encoder")
        require_at_least("expression", self, {"num_scores": 1})
        require(self.onnx_side >= 8, "expression.onnx_side", self.onnx_side, "at least 8 pixels")
        require(all(s > 0 for s in self.onnx_std), "expression.onnx_std", list(self.onnx_std), "positive numbers")


@dataclass(frozen=True)
class ComputeConfig(Section):
    """What runs the work. Nothing here changes the data set's bytes on one kind of machine.

    Args:
        num_workers: 0 works in this process, clip after clip; n ≥ 1 decodes n batches at once through Ray; null takes
            all cores of the Ray cluster, or of this machine.
        use_gpu: true, false, or `auto`: a GPU per encoder where there are some.
        max_actors: processes of each encoder at most; null takes as many as there are cores or GPUs.
        ray_address: `host:port` of the Ray cluster to join, or `local` to start one on this machine; null takes the one
            that RAY_ADDRESS names, and starts one where it names none.
    """

    num_workers: int | None = None
    use_gpu: Literal["auto"] | bool = "auto"
    max_actors: int | None = None
    ray_address: str | None = None

    def __post_init__(self) -> None:
        require_at_least("compute", self, {"num_workers": 0, "max_actors": 1}, or_null=True)


@dataclass(frozen=True)
class BatchingConfig(Section):
    """How clips go through the encoders together. This decides the last bits of the features.

    Args:
        clips: consecutive clips that are encoded as one batch.
        precision: of the encoders: `fp32`, `bf16`, or `auto`: bf16 on a GPU that has it.
    """

    clips: int = 4
    precision: Literal["auto", "fp32", "bf16"] = "auto"

    def __post_init__(self) -> None:
        require_at_least("batching", self, {"clips": 1})


@dataclass(frozen=True)
class ExtractConfig(Section):
    """A whole extraction."""

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
            "an encoder where faces.kind is none: nothing would be extracted",
        )
        if self.faces.kind != "none":
            what = "the YuNet .onnx file" if self.faces.kind == "yunet" else "the folder of OpenFace's output"
            require(self.faces.path is not None, "faces.path", None, f"{what}, or faces.kind: none")
            require(
                self.expression.encoder is not None,
                "expression.encoder",
                None,
                "an image classifier or an .onnx file, or faces.kind: none",
            )
