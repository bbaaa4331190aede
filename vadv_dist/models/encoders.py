"""Language encoders and their tokenizers, by folder or by Hugging Face name."""

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
    """Build a text encoder in fp32, in training mode, whose every trained parameter bears on its last hidden state.

    Args:
        name_or_path: folder, or name on the Hugging Face hub, of any model that reads token ids.
        pretrained: load its weights, or draw new ones from its config alone.
        dropout: replaces every dropout rate of its config; None keeps them.
        gradient_checkpointing: compute each layer again in the backward pass instead of keeping its values.
    Raises:
        UserError: no such folder and not to be had from the hub, no config, no weights, weights that do not fit the
            config, or a model that is not a text encoder.
    """
    from transformers import AutoConfig

    config: PreTrainedConfig = load_pretrained(
        name_or_path,
        lambda source, local: AutoConfig.from_pretrained(source, local_files_only=local, trust_remote_code=False),
    )
    model_class = _model_class(name_or_path, config)
    if dropout is not None:
        _replace_dropout(config, dropout)
    # A pooler that nobody reads would have no gradient.
    options: dict[str, Any] = {"dtype": torch.float32}  # whatever type the weights are stored in
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
                f"Encoder {name_or_path!r} ({model_class.__name__}) has no gradient checkpointing. "
                "Set student.gradient_checkpointing: false."
            )
        encoder.gradient_checkpointing_enable(  # type: ignore[no-untyped-call]  # untyped in transformers
            gradient_checkpointing_kwargs={"use_reentrant": False}
        )
    encoder.train(True)
    return encoder


def build_tokenizer(name_or_path: str) -> "PreTrainedTokenizerBase":
    """Load the tokenizer of an encoder; it pads and cuts on the right, whatever its files say.

    Padding on the left would shift the positions of a text by what else is in its batch, and put padding where the
    first token is read.

    Args:
        name_or_path: folder, or name on the Hugging Face hub.
    Raises:
        UserError: no such folder and not to be had from the hub, no tokenizer there, or one without a padding token.
    """
    from transformers import AutoTokenizer

    tokenizer: PreTrainedTokenizerBase = load_pretrained(
        name_or_path,
        lambda source, local: AutoTokenizer.from_pretrained(source, local_files_only=local, trust_remote_code=False),
    )
    # From a folder that holds a config alone, transformers makes a tokenizer that knows no word, and says nothing.
    if len(tokenizer) <= len(tokenizer.all_special_tokens):
        raise UserError(
            f"Encoder {name_or_path!r} holds no tokenizer: its vocabulary is empty. "
            "Put its tokenizer.json or its vocabulary files beside its config.json."
        )
    if tokenizer.pad_token_id is None:
        raise UserError(
            f"The tokenizer of encoder {name_or_path!r} has no padding token, so texts of different lengths cannot "
            "share a batch. Give it one in a folder of your own, such as tokenizer.pad_token = tokenizer.eos_token "
            "followed by tokenizer.save_pretrained(folder)."
        )
    tokenizer.padding_side = tokenizer.truncation_side = "right"
    return tokenizer


def require_fitting(
    encoder: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", name_or_path: str, max_tokens: int
) -> None:
    """Check that an encoder has a row for every token of its tokenizer, and that a cut text keeps a word.

    Raises:
        UserError: the tokenizer knows more tokens than the encoder, or `max_tokens` leaves no room for words.
    """
    special = tokenizer.num_special_tokens_to_add(pair=False)
    if max_tokens <= special:
        raise UserError(
            f"data.max_tokens is {max_tokens}, but the tokenizer of {name_or_path} adds {special} tokens to each text: "
            f"no word would be left. Set data.max_tokens to at least {special + 1}."
        )
    try:
        table = encoder.get_input_embeddings()
    except NotImplementedError:  # an encoder without a table of tokens, such as one that hashes characters
        return
    if isinstance(table, torch.nn.Embedding) and len(tokenizer) > table.num_embeddings:
        raise UserError(
            f"The tokenizer of encoder {name_or_path!r} knows {len(tokenizer)} tokens, but the encoder holds "
            f"{table.num_embeddings}. Give it its own tokenizer, or save the encoder after "
            "model.resize_token_embeddings(len(tokenizer))."
        )


def _model_class(name_or_path: str, config: "PreTrainedConfig") -> "type[PreTrainedModel]":
    from transformers import MODEL_MAPPING

    found: Any = MODEL_MAPPING.get(type(config), None)
    model_class: type[PreTrainedModel] | None = found[0] if isinstance(found, tuple) else found
    if model_class is None:
        raise UserError(f"Encoder {name_or_path!r} is a {config.model_type!r}, which has no plain model. {_ADVICE}")
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
            f"The weights of encoder {source!r} lack {len(missing)} of the tensors that its config asks for, such as "
            f"{missing[0]}. Give weights that fit the config, or set student.pretrained: false."
        )
    return encoder


def _is_pooler(name: str) -> bool:
    return name.split(".")[0] == "pooler"


def _replace_dropout(config: "PreTrainedConfig", dropout: float) -> None:
    for name, value in config.to_dict().items():
        is_rate = "dropout" in name or name.endswith("pdrop")
        if is_rate and isinstance(value, int | float) and not isinstance(value, bool):
            setattr(config, name, dropout)
