"""The frozen image encoder of the visual branch and the text encoder of the prompts: CLIP or SigLIP.

Shape letters: B images, S side in pixels, N tokens per image, D width, C classes.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from vadv_dist.config.extract_sections import Precision
from vadv_dist.errors import UserError
from vadv_dist.features.pixels import Preprocessing
from vadv_dist.models.pretrained import load_pretrained

_FIELD = "image.encoder"
_KINDS = ("clip", "siglip", "siglip2")


@dataclass(frozen=True)
class EncoderFacts:
    """An encoder as recorded in a data set.

    Attributes:
        name: as configured.
        kind: model type of its config.
        revision: commit on the Hugging Face Hub; None for a folder.
        files: name, size and SHA-256 of each file of its weights and preprocessing.
    """

    name: str
    kind: str
    revision: str | None
    files: list[dict[str, Any]]


class ImageEncoder:
    """Encodes images as features with frozen weights.

    Args:
        name: a CLIP or SigLIP by Hugging Face name or folder.
        tokens: `pooled`: CLIP's projected class embedding, SigLIP's pooled vector (N = 1). `patches`: the last hidden
            state of every patch, without CLIP's class token.
        device: device of the model.
        precision: precision of weights and computation.
    Raises:
        UserError: it cannot be loaded, or is another kind of model.
    """

    def __init__(
        self,
        name: str,
        tokens: Literal["pooled", "patches"],
        *,
        device: torch.device | None = None,
        precision: Precision = "fp32",
    ) -> None:
        self.name, self.tokens = name, tokens
        self.config = image_config(name)
        self._device = device or torch.device("cpu")
        self._dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        self._preprocessing = tower_preprocessing(name)
        tower = _tower(self.config, "vision_config")
        self._model = load_frozen(_vision_class(self.config), name, _FIELD, self._dtype, tower).to(self._device)

    @torch.inference_mode()
    def encode(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Encode images [B, S, S, 3], already resized, as [B, N, D]."""
        pixels = self._preprocessing.normalised(_tensor(images, self._device)).to(self._dtype)
        outputs = self._model(pixel_values=pixels)
        if self.tokens == "patches":
            features: Tensor = outputs.last_hidden_state
            if self.config.model_type.startswith("clip"):
                features = features[:, 1:]
        else:
            pooled = outputs.image_embeds if hasattr(outputs, "image_embeds") else outputs.pooler_output
            features = pooled[:, None]
        return features.float().cpu().numpy()


def image_config(name: str) -> Any:
    """Load the configuration of an encoder's image tower.

    Raises:
        UserError: it cannot be loaded, or is neither CLIP nor SigLIP.
    """
    from transformers import AutoConfig

    config: Any = load_pretrained(
        name,
        lambda source, local: AutoConfig.from_pretrained(source, local_files_only=local, trust_remote_code=False),
        field=_FIELD,
    )
    if config.model_type.removesuffix("_vision_model") not in _KINDS:
        raise UserError(
            f"{_FIELD} {name!r} is a {config.model_type!r}, expected a CLIP or a SigLIP, such as "
            "openai/clip-vit-large-patch14 or google/siglip-base-patch16-224."
        )
    if config.model_type.startswith("siglip2") and getattr(_vision(config), "num_patches", None):
        raise UserError(f"{_FIELD} {name!r} takes images of any size (NaFlex), which is not supported. Use another.")
    return config


def feature_shape(name: str, tokens: Literal["pooled", "patches"]) -> tuple[int, int]:
    """Tokens per image and width, (N, D), from the configuration."""
    config = image_config(name)
    vision = _vision(config)
    if tokens == "patches":
        return (vision.image_size // vision.patch_size) ** 2, vision.hidden_size
    is_clip = config.model_type.startswith("clip")
    return 1, (getattr(config, "projection_dim", None) or vision.projection_dim) if is_clip else vision.hidden_size


def image_preprocessing(name: str, field: str) -> Preprocessing:
    """The preprocessing of an encoder's image processor.

    Raises:
        UserError: it has none, or one of an unsupported kind.
    """
    from transformers import AutoImageProcessor

    kinds: Any = AutoImageProcessor
    processor: Any = load_pretrained(
        name,
        lambda source, local: kinds.from_pretrained(source, local_files_only=local, backend="pil"),
        field=field,
    )
    return Preprocessing.of_processor(processor, name)


def tower_preprocessing(name: str) -> Preprocessing:
    """The preprocessing of the image processor of a CLIP or SigLIP.

    Raises:
        UserError: as in `image_preprocessing`, or its image size differs from that of the image tower.
    """
    preprocessing, side = image_preprocessing(name, _FIELD), _vision(image_config(name)).image_size
    if (preprocessing.height, preprocessing.width) != (side, side):
        raise UserError(
            f"The image processor of {_FIELD} {name!r} makes images of {preprocessing.width} by {preprocessing.height} "
            f"pixels, but its image tower expects {side} by {side}. Use a folder in which they agree."
        )
    return preprocessing


def prompt_embeddings(name: str, template: str, classes: Sequence[str]) -> npt.NDArray[np.float32]:
    """Embed the class sentences with the text encoder of an image encoder, in fp32, [C, D].

    Args:
        name: name of the CLIP or SigLIP.
        template: the sentence; `{class}` stands for the class.
        classes: class names by index.
    Raises:
        UserError: it has no text encoder or no tokenizer.
    """
    from transformers import AutoTokenizer

    config = image_config(name)
    if not hasattr(config, "text_config"):
        raise UserError(
            f"{_FIELD} {name!r} is an image tower without the text encoder that embeds prompts. Use the whole model, "
            "or set prompts.store: false."
        )
    is_clip = config.model_type == "clip"
    texts = [template.replace("{class}", one) for one in classes]
    try:
        tokenizer: Any = load_pretrained(
            name, lambda source, local: AutoTokenizer.from_pretrained(source, local_files_only=local), field=_FIELD
        )
    except UserError as error:
        raise UserError(f"{error} Prompts need a tokenizer; prompts.store: false leaves them out.") from None
    if len(tokenizer) <= len(tokenizer.all_special_tokens):
        raise UserError(f"{_FIELD} {name!r} has no tokenizer. Put it next to the weights, or set prompts.store: false.")
    model = load_frozen(_text_class(config), name, _FIELD, torch.float32, _tower(config, "text_config"))
    longest = config.text_config.max_position_embeddings
    lengths = [len(row) for row in tokenizer(texts)["input_ids"]]
    if max(lengths) > longest:
        raise UserError(
            f"prompts.template and prompts.classes give {texts[int(np.argmax(lengths))]!r}, which is {max(lengths)} "
            f"tokens long; the text encoder of {name!r} is limited to {longest}. Shorten it."
        )
    # SigLIP was trained on texts padded to its full length; CLIP needs no padding.
    encoded = tokenizer(
        texts,
        padding=True if is_clip else "max_length",
        max_length=longest,
        truncation=True,
        return_tensors="pt",
    )
    wanted = {key: encoded[key] for key in ("input_ids", "attention_mask") if key in encoded}
    with torch.inference_mode():
        outputs = model(**wanted)
    embeddings: Tensor = outputs.text_embeds if is_clip else outputs.pooler_output
    return embeddings.float().numpy()


def load_frozen(model_class: Any, name: str, field: str, dtype: torch.dtype, config: Any = None) -> Any:
    """Load a model for inference and check that its files contain every weight.

    Args:
        model_class: a transformers class.
        name: folder or Hugging Face name.
        field: the configuration field, for messages.
        dtype: type of the weights.
        config: configuration of the model; None uses the one next to the weights.
    Raises:
        UserError: it cannot be loaded, or lacks weights (which transformers would initialise at random).
    """
    model, facts = load_pretrained(
        name,
        lambda source, local: model_class.from_pretrained(
            source,
            local_files_only=local,
            dtype=dtype,
            output_loading_info=True,
            **({} if config is None else {"config": config}),
        ),
        field=field,
    )
    missing = sorted(facts["missing_keys"])
    if missing:
        raise UserError(
            f"The weights of {field} {name!r} lack {len(missing)} of the tensors of a {model_class.__name__}, such as "
            f"{missing[0]}. Use a model that has them all."
        )
    return model.eval().requires_grad_(False)


def encoder_facts(name: str, field: str = _FIELD) -> EncoderFacts:
    """List the files that determine an encoder's features, with their hashes.

    Raises:
        UserError: it cannot be found.
    """
    from pathlib import Path

    from transformers import AutoConfig
    from transformers.utils.hub import cached_file

    from vadv_dist.storage import sha256_file

    def find(source: str, local: bool) -> tuple[str, str | None, list[Path]]:
        config: Any = AutoConfig.from_pretrained(source, local_files_only=local, trust_remote_code=False)
        files: list[Path] = []
        wanted = ("config.json", "preprocessor_config.json", "processor_config.json")
        weights = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "tokenizer.json")
        for file in (*wanted, *weights):
            found = cached_file(source, file, local_files_only=local, _raise_exceptions_for_missing_entries=False)
            if found is not None:
                files.append(Path(found))
        folder = files[0].parent
        files += sorted(path for path in folder.glob("model-*.safetensors"))
        return config.model_type, getattr(config, "_commit_hash", None), files

    kind, revision, files = load_pretrained(name, find, field=field)
    listed = [{"name": p.name, "bytes": p.stat().st_size, "sha256": sha256_file(p)} for p in dict.fromkeys(files)]
    return EncoderFacts(name, kind, revision, listed)


def _tensor(images: npt.NDArray[np.uint8], device: torch.device) -> Tensor:
    # Arrays from Ray's object store are read-only, which torch does not accept.
    return torch.from_numpy(images if images.flags.writeable else images.copy()).to(device)


def _vision(config: Any) -> Any:
    return getattr(config, "vision_config", config)


def _tower(config: Any, name: str) -> Any:
    """Configuration of one of the two towers; the width of CLIP's projection is in the whole model's."""
    tower = copy.deepcopy(getattr(config, name, config))
    if config.model_type == "clip":
        tower.projection_dim = config.projection_dim
    return tower


def _vision_class(config: Any) -> Any:
    from transformers import CLIPVisionModelWithProjection, Siglip2VisionModel, SiglipVisionModel

    kinds = {"clip": CLIPVisionModelWithProjection, "siglip": SiglipVisionModel, "siglip2": Siglip2VisionModel}
    return kinds[config.model_type.removesuffix("_vision_model")]


def _text_class(config: Any) -> Any:
    from transformers import CLIPTextModelWithProjection, Siglip2TextModel, SiglipTextModel

    return {"clip": CLIPTextModelWithProjection, "siglip": SiglipTextModel, "siglip2": Siglip2TextModel}[
        config.model_type
    ]
