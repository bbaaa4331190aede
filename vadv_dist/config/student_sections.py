"""The `student` section of a run's configuration: what is deployed.

Each kind has its own fields. To add a kind, add a dataclass and list it in the union.
"""

from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from vadv_dist.config.checks import SETTINGS, Count, NonNegative, Positive, Rate, Share, Switch, by_kind
from vadv_dist.config.places import Place


@dataclass(frozen=True, config=SETTINGS)
class TextStudentConfig:
    """The text student (section 4.2)."""

    kind: Literal["text"] = "text"
    encoder: Place = "roberta-large"
    """Hugging Face name, path or s3:// prefix of an encoder, or `package://NAME/FOLDER` inside an installed package. An
    s3:// prefix is copied by each process."""
    pretrained: bool = True
    """Load the encoder's weights; false initialises it at random from its config."""
    init: Place | None = None
    """A run or an export whose student's weights training starts from, its head included; null starts from the encoder
    alone. `encoder`, `pooling` and `hidden` must be those of that student."""
    pooling: Literal["cls", "mean"] = "cls"
    """Representation of a text: its first token (`cls`) or the mean of its tokens."""
    context: Annotated[int, Field(ge=0, le=16)] = 0
    """Maximum number of utterances before a clip in its video that the student reads after the clip's own words. They
    count for `data.max_tokens`, which cuts the oldest first. Clip ids must end in their numbers in the video."""
    hidden: Count = 128
    """H, hidden width of the two-layer head. Table 3."""
    dropout: Rate = 0.1
    """Dropout rate before each layer of the head."""
    encoder_dropout: Rate | None = None
    """Replaces every dropout rate in the encoder's config; null keeps them."""
    freeze_encoder: bool = False
    """Train only the head (an ablation)."""
    freeze_unused: bool = False
    """Freeze parameters of the encoder that texts never use (Longformer's global attention, XLNet's mask embedding)
    instead of rejecting the encoder."""
    gradient_checkpointing: bool = False
    """Save memory by recomputing activations in the backward pass."""
    calibrate: Switch = "auto"
    """Fold the line that maps the best checkpoint's validation predictions to the labels with least squares into the
    student's last layer, wherever the run is evaluated or exported, if its slope is above 1: a weak teacher narrows
    predictions. `auto` is on unless the objective's weights are the paper's, or the student is trained alone."""

    @property
    def title(self) -> str:
        """Its name in tables and sentences."""
        return self.encoder


@dataclass(frozen=True, config=SETTINGS)
class EicsConfig:
    """Explicit and implicit common subspaces of audio and visual vectors (Zeng et al. 2023)."""

    kind: Literal["eics"] = "eics"
    hidden: Count = 128
    """Width of the hidden layers of both encoders, and of the explicit subspace. Table 3."""
    layers: Count = 3
    """Layers of each encoder."""
    explicit: NonNegative = 1.0
    """Weight of the explicit subspace's loss: the distance of the two vectors of a clip."""
    gap: NonNegative = 1.0
    """Weight of the distance between the two modalities' means in the explicit subspace."""
    implicit: NonNegative = 1.0
    """Weight of the implicit subspace's loss: the distance of each vector to its label."""
    dropout: Rate = 0.1
    """Dropout rate of hidden values."""

    @property
    def title(self) -> str:
        """Its name in tables and sentences."""
        return "EICS"


@dataclass(frozen=True, config=SETTINGS)
class DscmrConfig:
    """Deep supervised cross-modal retrieval (Zhen et al. 2019). Defaults of the published code."""

    kind: Literal["dscmr"] = "dscmr"
    hidden: Count = 2048
    """Width after the layer of a modality."""
    width: Count = 1024
    """Width of an embedding."""
    similarity: NonNegative = 1e-3
    """Weight of the likelihood of pairs, next to 1 for the distance to the label."""
    invariance: NonNegative = 0.1
    """Weight of the distance between the two embeddings of a clip."""

    @property
    def title(self) -> str:
        """Its name in tables and sentences."""
        return "DSCMR"


@dataclass(frozen=True, config=SETTINGS)
class CCcaConfig:
    """Linear projections by cluster-CCA, in closed form (Rasiwasia et al. 2014)."""

    kind: Literal["c-cca"] = "c-cca"
    components: Count | None = None
    """Width of an embedding; null is one less than the classes, because further components have no correlation."""
    ridge: Positive = 1e-4
    """Added to the variances of the features. The published code uses 1e-4."""
    power: NonNegative = 0.0
    """Components are weighted by this power of their correlations; Gong et al. (arXiv:1212.4522) use 4."""

    @property
    def title(self) -> str:
        """Its name in tables and sentences."""
        return "C-CCA"


@dataclass(frozen=True, config=SETTINGS)
class CDccaConfig:
    """Deep networks whose outputs correlate within a class (Yu et al. 2019). Defaults of the published code."""

    kind: Literal["c-dcca"] = "c-dcca"
    hidden: Count = 100
    """Width of all layers; `data.batch_size` should be several times as large."""
    components: Count | None = None
    """Width of an embedding; null is one less than the classes. The code uses the number of classes."""
    ridge: Positive = 1e-4
    """Added to the variances of the networks' outputs."""
    dropout: Rate = 0.2
    """Dropout rate after every hidden layer."""
    paired: Share = 0.2
    """Share of the covariance that is taken from each clip's own pair instead of all pairs of its class."""

    @property
    def title(self) -> str:
        """Its name in tables and sentences."""
        return "C-DCCA"


@dataclass(frozen=True, config=SETTINGS)
class TnnCCcaConfig:
    """Triplet networks on cluster-CCA projections (Zeng et al. 2020). Defaults of the published code."""

    kind: Literal["tnn-c-cca"] = "tnn-c-cca"
    components: Count | None = None
    """Width of the projections; null is one less than the classes. The code uses the number of classes."""
    ridge: Positive = 1e-4
    """Added to the variances of the features."""
    hidden: Count = 100
    """Width of the three hidden layers."""
    width: Count = 10
    """Width of an embedding."""
    dropout: Rate = 0.1
    """Dropout rate after every layer but the last."""
    margin: Positive = 0.3
    """Margin of the triplets, in cosine."""
    mining: Literal["all", "hard"] = "all"
    """`all` triplets that violate the margin, or the `hard`est one of each anchor."""

    @property
    def title(self) -> str:
        """Its name in tables and sentences."""
        return "TNN-C-CCA"


@dataclass(frozen=True, config=SETTINGS)
class CctlConfig:
    """Complete cross-triplet loss in label space (Zeng et al. 2022), from its description; the defaults are ours."""

    kind: Literal["cctl"] = "cctl"
    hidden: Count = 128
    """Width of the two hidden layers."""
    dropout: Rate = 0.1
    """Dropout rate of hidden values."""
    margin: Positive = 0.3
    """Margin of the triplets, in cosine."""
    triplet: NonNegative = 1.0
    """Weight of the triplets, next to 1 for the distance to the label."""

    @property
    def title(self) -> str:
        """Its name in tables and sentences."""
        return "CCTL"


@dataclass(frozen=True, config=SETTINGS)
class InstanceLossConfig:
    """Dual-path embeddings with a shared classifier (Zheng et al. 2020; DCIL in tables)."""

    kind: Literal["instance-loss"] = "instance-loss"
    hidden: Count = 2048
    """Width of the hidden layer."""
    width: Count = 2048
    """Width of an embedding."""
    dropout: Rate = 0.5
    """Dropout rate before the classifier."""
    margin: Positive = 1.0
    """Margin of the ranking, in cosine."""
    ranking: NonNegative = 1.0
    """Weight of the ranking, next to 1 for the classifier."""

    @property
    def title(self) -> str:
        """Its name in tables and sentences."""
        return "DCIL"


@dataclass(frozen=True, config=SETTINGS)
class RandomConfig:
    """Projections that are drawn once and never trained: the baseline."""

    kind: Literal["random"] = "random"
    width: Count = 128
    """Width of an embedding."""

    @property
    def title(self) -> str:
        """Its name in tables and sentences."""
        return "Random"


@dataclass(frozen=True, config=SETTINGS)
class DclmaConfig:
    """Multi-scale encoders with contrast of clips (Zhang et al. 2023), without attention between the modalities."""

    kind: Literal["dclma"] = "dclma"
    hidden: Annotated[int, Field(ge=128)] = 1024
    """Width after the first layer, which the convolutions run over."""
    width: Count = 128
    """Width of an embedding."""
    dropout: Rate = 0.5
    """Dropout rate before the embedding and the scores of classes."""
    temperature: NonNegative = 0.2
    """Shift of the cosines in both contrasts."""
    contrast: NonNegative = 0.01
    """Weight of both contrasts, next to 1 for the classifier."""

    @property
    def title(self) -> str:
        """Its name in tables and sentences."""
        return "DCLMA"


@dataclass(frozen=True, config=SETTINGS)
class VaeCcaConfig:
    """Variational autoencoders with correlated codes (Zhang et al. 2023). Defaults of the published code."""

    kind: Literal["vae-cca"] = "vae-cca"
    hidden: Count = 512
    """Width after the first layer and before the last."""
    width: Count = 64
    """Width of the code, which is the embedding."""
    reconstruction: NonNegative = 1e-4
    """Weight of the squared error of the reconstruction."""
    divergence: NonNegative = 0.0128
    """Weight of a clip's divergence from a normal distribution: 1e-4 for the sum over the code's batch of 128."""
    discrimination: NonNegative = 1.0
    """Weight of the distance to the label."""
    similarity: NonNegative = 1e-3
    """Weight of the likelihood of pairs."""
    invariance: NonNegative = 0.1
    """Weight of the distance between the two codes of a clip."""
    center: NonNegative = 0.01
    """Weight of the distance to the centre of the class."""

    @property
    def title(self) -> str:
        """Its name in tables and sentences."""
        return "VAE-CCA"


RetrievalStudentConfig = (
    EicsConfig
    | DscmrConfig
    | CCcaConfig
    | CDccaConfig
    | TnnCCcaConfig
    | CctlConfig
    | InstanceLossConfig
    | RandomConfig
    | DclmaConfig
    | VaeCcaConfig
)
StudentConfig = Annotated[TextStudentConfig | RetrievalStudentConfig, Field(discriminator="kind"), by_kind("text")]
