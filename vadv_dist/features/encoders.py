"""The frozen image encoder of the visual branch and the text encoder of the prompts: CLIP or SigLIP.

Shape letters: B images, S side in pixels, N tokens per image, D width, C classes.
"""

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from vadv_dist.config.extract_sections import Precision
from vadv_dist.errors import UserError
from vadv_dist.features.clip_files import file_entry
from vadv_dist.features.pixels import Preprocessing
from vadv_dist.models.pretrained import load_pretrained

_FIELD = "image.encoder"
Tokens = Literal["pooled", "patches"]
_CLASSES = {
    "clip": {"vision": "CLIPVisionModelWithProjection", "text": "CLIPTextModelWithProjection"},
    "siglip": {"vision": "SiglipVisionModel", "text": "SiglipTextModel"},
    "siglip2": {"vision": "Siglip2VisionModel", "text": "Siglip2TextModel"},
}


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
        self, name: str, tokens: Tokens, *, device: torch.device | None = None, precision: Precision = "fp32"
    ) -> None:
        self.tokens = tokens
        self.config = image_config(name)
        self._preprocessing = tower_preprocessing(name)
        self._model = _load_tower(name, "vision", device, precision)

    @torch.inference_mode()
    def encode(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Encode images [B, S, S, 3], already resized, as [B, N, D]."""
        pixels = self._preprocessing.normalised(images, self._model.device)
        outputs = self._model(pixel_values=pixels.to(self._model.dtype))
        if self.tokens == "patches":
            features: Tensor = outputs.last_hidden_state
            if self.config.model_type.startswith("clip"):
                features = features[:, 1:]
        else:
            pooled = outputs.image_embeds if hasattr(outputs, "image_embeds") else outputs.pooler_output
            features = pooled[:, None]
        return features.float().cpu().numpy()


def pretrained_config(name: str, field: str) -> Any:
    """Load the configuration of an encoder; `field` of our configuration names it in messages.

    Raises:
        UserError: it cannot be loaded.
    """
    from transformers import AutoConfig

    return load_pretrained(
        name,
        lambda source, local: AutoConfig.from_pretrained(source, local_files_only=local, trust_remote_code=False),
        field,
    )


def image_config(name: str) -> Any:
    """Load the configuration of an encoder's image tower.

    Raises:
        UserError: it cannot be loaded, or is neither CLIP nor SigLIP.
    """
    config = pretrained_config(name, _FIELD)
    if config.model_type.removesuffix("_vision_model") not in _CLASSES:
        raise UserError(
            f"{_FIELD} {name!r} is a {config.model_type!r}, expected a CLIP or a SigLIP, such as "
            "openai/clip-vit-large-patch14 or google/siglip-base-patch16-224."
        )
    if config.model_type.startswith("siglip2") and getattr(_vision(config), "num_patches", None):
        raise UserError(f"{_FIELD} {name!r} takes images of any size (NaFlex), which is not supported. Use another.")
    return config


def feature_shape(name: str, tokens: Tokens) -> tuple[int, int]:
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
    processor = load_pretrained(
        name, lambda source, local: kinds.from_pretrained(source, local_files_only=local, backend="pil"), field
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
        template: the sentence; `{class}` is replaced by the class.
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
    model = _load_tower(name, "text")
    longest = config.text_config.max_position_embeddings
    length, text = max((len(row), text) for row, text in zip(tokenizer(texts)["input_ids"], texts, strict=True))
    if length > longest:
        raise UserError(
            f"prompts.template and prompts.classes give {text!r}, which is {length} tokens long; the text encoder of "
            f"{name!r} is limited to {longest}. Shorten it."
        )
    # SigLIP was trained on texts padded to its full length; CLIP needs no padding.
    padding = True if is_clip else "max_length"
    encoded = tokenizer(texts, padding=padding, max_length=longest, truncation=True, return_tensors="pt")
    wanted = {key: encoded[key] for key in ("input_ids", "attention_mask") if key in encoded}
    with torch.inference_mode():
        outputs = model(**wanted)
    embeddings: Tensor = outputs.text_embeds if is_clip else outputs.pooler_output
    return embeddings.float().numpy()


def load_frozen(
    model_class: Any,
    name: str,
    field: str,
    device: torch.device | None = None,
    precision: Precision = "fp32",
    config: Any = None,
) -> Any:
    """Load a model for inference and check that its files contain every weight.

    Args:
        model_class: a transformers class.
        name: folder or Hugging Face name.
        field: the configuration field, for messages.
        device, precision: of the weights; by default on the CPU.
        config: configuration of the model; None uses the one next to the weights.
    Raises:
        UserError: it cannot be loaded, or lacks weights (which transformers would initialise at random).
    """
    model, facts = load_pretrained(
        name,
        lambda source, local: model_class.from_pretrained(
            source,
            local_files_only=local,
            dtype=torch.bfloat16 if precision == "bf16" else torch.float32,
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
    return model.eval().requires_grad_(False).to(device or "cpu")


def encoder_facts(name: str, field: str = _FIELD) -> dict[str, Any]:
    """Describe an encoder for a data set: name, kind, revision on the Hugging Face Hub, and files that determine it.

    Raises:
        UserError: it cannot be found.
    """
    from transformers.utils.hub import cached_file

    def find(source: str, local: bool) -> list[Path]:
        files: list[Path] = []
        wanted = ("config.json", "preprocessor_config.json", "processor_config.json")
        weights = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "tokenizer.json")
        for file in (*wanted, *weights):
            found = cached_file(source, file, local_files_only=local, _raise_exceptions_for_missing_entries=False)
            if found is not None:
                files.append(Path(found))
        return files + sorted(files[0].parent.glob("model-*.safetensors"))

    config, files = pretrained_config(name, field), load_pretrained(name, find, field)
    return {
        "name": name,
        "kind": config.model_type,
        "revision": getattr(config, "_commit_hash", None),
        "files": [file_entry(path) for path in files],
    }


def _vision(config: Any) -> Any:
    return getattr(config, "vision_config", config)


def _load_tower(
    name: str, tower: Literal["vision", "text"], device: torch.device | None = None, precision: Precision = "fp32"
) -> Any:
    import transformers

    config = image_config(name)
    part = copy.deepcopy(getattr(config, f"{tower}_config", config))
    if config.model_type == "clip":  # the width of its projection is in the whole model's configuration
        part.projection_dim = config.projection_dim
    model_class = getattr(transformers, _CLASSES[config.model_type.removesuffix("_vision_model")][tower])
    return load_frozen(model_class, name, _FIELD, device, precision, part)
