"""Language encoders and their tokenizers, by folder or Hugging Face name."""

import inspect
from typing import TYPE_CHECKING, Any

import torch

from vadv_dist.errors import UserError
from vadv_dist.models.pretrained import load_pretrained

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

_ADVICE = "Set student.encoder to an encoder such as roberta-large or bert-base-uncased."


def build_encoder(
    name_or_path: str, *, pretrained: bool, dropout: float | None, gradient_checkpointing: bool
) -> "PreTrainedModel":
    """Build a text encoder in fp32 and training mode, in which every trained parameter affects the last hidden state.

    Args:
        name_or_path: folder, or name on the Hugging Face Hub, of any model that reads token ids.
        pretrained: load its weights, or initialise new ones from its config.
        dropout: replaces every dropout rate of its config; None keeps them.
        gradient_checkpointing: recompute each layer in the backward pass instead of storing its activations.
    Raises:
        UserError: it is in no folder and not on the hub, has no config or no weights, its weights do not fit the
            config, or it is not a text encoder.
    """
    from transformers import AutoConfig

    config: PreTrainedConfig = load_pretrained(
        name_or_path,
        lambda source, local: AutoConfig.from_pretrained(source, local_files_only=local, trust_remote_code=False),
    )
    model_class = _model_class(name_or_path, config)
    if dropout is not None:
        _replace_dropout(config, dropout)
    # An unused pooler would have no gradient.
    options: dict[str, Any] = {"dtype": torch.float32}  # whatever the stored type
    if "add_pooling_layer" in inspect.signature(model_class).parameters:
        options["add_pooling_layer"] = False
    if pretrained:
        encoder = load_pretrained(
            name_or_path,
            lambda source, local: _with_all_weights(
                model_class, source, config=config, local_files_only=local, **options
            ),
        )
    else:
        encoder = model_class._from_config(config, **options)  # type: ignore[no-untyped-call]  # untyped in transformers
    for name, parameter in encoder.named_parameters():
        if _is_pooler(name):
            parameter.requires_grad_(False)
    if gradient_checkpointing:
        if not encoder.supports_gradient_checkpointing:
            raise UserError(
                f"Encoder {name_or_path!r} ({model_class.__name__}) does not support gradient checkpointing. "
                "Set student.gradient_checkpointing: false."
            )
        encoder.gradient_checkpointing_enable(  # type: ignore[no-untyped-call]  # untyped in transformers
            gradient_checkpointing_kwargs={"use_reentrant": False}
        )
    encoder.train(True)
    return encoder


def build_tokenizer(name_or_path: str) -> "PreTrainedTokenizerBase":
    """Load the tokenizer of an encoder, with padding and truncation on the right whatever its files say.

    With padding on the left, the positions of a text would depend on the other texts of its batch, and the first token
    could be padding.

    Args:
        name_or_path: folder, or name on the Hugging Face Hub.
    Raises:
        UserError: it is in no folder and not on the hub, or has no tokenizer or no padding token.
    """
    from transformers import AutoTokenizer

    tokenizer: PreTrainedTokenizerBase = load_pretrained(
        name_or_path,
        lambda source, local: AutoTokenizer.from_pretrained(source, local_files_only=local, trust_remote_code=False),
    )
    # From a folder with only a config, transformers silently creates a tokenizer with an empty vocabulary.
    if len(tokenizer) <= len(tokenizer.all_special_tokens):
        raise UserError(
            f"Encoder {name_or_path!r} has no tokenizer: its vocabulary is empty. "
            "Put its tokenizer.json or its vocabulary files next to its config.json."
        )
    if tokenizer.pad_token_id is None:
        raise UserError(
            f"The tokenizer of encoder {name_or_path!r} has no padding token, so texts of different lengths cannot "
            "share a batch. Add one in a copy of the folder, such as tokenizer.pad_token = tokenizer.eos_token "
            "followed by tokenizer.save_pretrained(folder)."
        )
    tokenizer.padding_side = tokenizer.truncation_side = "right"
    return tokenizer


def require_fitting(
    encoder: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", name_or_path: str, max_tokens: int
) -> None:
    """Check that an encoder has an embedding for every token of its tokenizer, and that a truncated text keeps a word.

    Raises:
        UserError: the tokenizer has more tokens than the encoder, or `max_tokens` leaves no room for words.
    """
    special = tokenizer.num_special_tokens_to_add(pair=False)
    if max_tokens <= special:
        raise UserError(
            f"data.max_tokens is {max_tokens}, but the tokenizer of {name_or_path} adds {special} tokens to each text, "
            f"which leaves no room for words. Set data.max_tokens to at least {special + 1}."
        )
    try:
        table = encoder.get_input_embeddings()
    except NotImplementedError:  # an encoder without a token table, such as one that hashes characters
        return
    if isinstance(table, torch.nn.Embedding) and len(tokenizer) > table.num_embeddings:
        raise UserError(
            f"The tokenizer of encoder {name_or_path!r} has {len(tokenizer)} tokens, but the encoder has "
            f"{table.num_embeddings}. Use its own tokenizer, or save the encoder after "
            "model.resize_token_embeddings(len(tokenizer))."
        )


def _model_class(name_or_path: str, config: "PreTrainedConfig") -> "type[PreTrainedModel]":
    from transformers import MODEL_MAPPING

    found: Any = MODEL_MAPPING.get(type(config), None)
    model_class: type[PreTrainedModel] | None = found[0] if isinstance(found, tuple) else found
    if model_class is None:
        raise UserError(f"Encoder {name_or_path!r} is a {config.model_type!r}, which has no base model. {_ADVICE}")
    reads_text = model_class.main_input_name == "input_ids" and getattr(config, "hidden_size", None) is not None
    if config.is_encoder_decoder or not reads_text:
        raise UserError(f"Encoder {name_or_path!r} is a {model_class.__name__}, not a text encoder. {_ADVICE}")
    return model_class


def _with_all_weights(model_class: "type[PreTrainedModel]", source: str, **options: Any) -> "PreTrainedModel":
    loaded: Any = model_class.from_pretrained(source, output_loading_info=True, **options)
    encoder: PreTrainedModel = loaded[0]
    missing = sorted(name for name in loaded[1]["missing_keys"] if not _is_pooler(name))
    if missing:
        raise UserError(
            f"The weights of encoder {source!r} lack {len(missing)} of the tensors of its config, such as "
            f"{missing[0]}. Use weights that fit the config, or set student.pretrained: false."
        )
    return encoder


def _is_pooler(name: str) -> bool:
    return name.split(".")[0] == "pooler"


def _replace_dropout(config: "PreTrainedConfig", dropout: float) -> None:
    for name, value in config.to_dict().items():
        is_rate = "dropout" in name or name.endswith("pdrop")
        if is_rate and isinstance(value, int | float) and not isinstance(value, bool):
            setattr(config, name, dropout)
