"""The `student` section of a run's configuration: what is deployed.

Each kind has its own fields. To add a kind, add a dataclass and list it in the union.
"""

from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from vadv_dist.config.checks import SETTINGS, Count, NonNegative, Rate, Switch, by_kind
from vadv_dist.config.places import Place


@dataclass(frozen=True, config=SETTINGS)
class TextStudentConfig:
    """The text student (section 4.2)."""

    kind: Literal["text"] = "text"
    encoder: Place = "roberta-large"
    """Hugging Face name or path of an encoder, or `package://NAME/FOLDER` inside an installed package."""
    pretrained: bool = True
    """Load the encoder's weights; false initialises it at random from its config."""
    pooling: Literal["cls", "mean"] = "cls"
    """Representation of a text: its first token (`cls`) or the mean of its tokens."""
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
    student's last layer, wherever the run is evaluated or exported. `auto` is on unless the objective's weights are the
    paper's, or the student is trained alone."""

    @property
    def title(self) -> str:
        """Its name in tables and sentences."""
        return self.encoder


@dataclass(frozen=True, config=SETTINGS)
class EicsConfig:
    """Explicit and implicit common subspaces of audio and visual vectors (Zeng et al. 2023)."""

    kind: Literal["eics"] = "eics"
    hidden: Count = 128
    """Width of the layers of both encoders, and of each common subspace. Table 3."""
    layers: Count = 3
    """Layers of each encoder."""
    explicit: NonNegative = 1.0
    """Weight of the explicit subspace's loss: the distance of the two vectors of a clip."""
    gap: NonNegative = 1.0
    """Weight of the distance between the two modalities' means in the explicit subspace."""
    implicit: NonNegative = 1.0
    """Weight of the implicit subspace's loss: the class of each vector."""
    dropout: Rate = 0.1
    """Dropout rate of hidden values."""

    @property
    def title(self) -> str:
        """Its name in tables and sentences."""
        return "EICS"


StudentConfig = Annotated[TextStudentConfig | EicsConfig, Field(discriminator="kind"), by_kind("text")]
