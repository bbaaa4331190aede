"""A text encoder with pooling and a two-layer tanh head that predicts one number, or scores of classes, per text.

This file accompanies the weights of students that no standard class of transformers fits. It needs only torch and
transformers; load the folder with `trust_remote_code=True`.

Shape letters: B rows, L tokens, D width, C classes (1 for a number).
"""

import inspect
from typing import Any

import torch
from torch import Tensor, nn
from transformers import MODEL_MAPPING, AutoConfig, PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput


class TextStudentConfig(PretrainedConfig):  # type: ignore[no-untyped-call]  # its __init_subclass__
    """Configuration of the head, which contains the encoder's configuration.

    Args:
        encoder_config: configuration of the encoder, as a dictionary with its `model_type`.
        pooling: a text is represented by its first token (`cls`) or the mean of its tokens (`mean`).
        head_hidden: hidden width of the two-layer head.
        head_dropout: dropout before each layer of the head, in training.
    """

    model_type = "vadv-text-student"

    def __init__(
        self,
        encoder_config: Any = None,
        pooling: str = "mean",
        head_hidden: int = 128,
        head_dropout: float = 0.1,
        **kwargs: Any,
    ) -> None:
        if isinstance(encoder_config, dict):
            encoder_config = AutoConfig.for_model(**encoder_config)
        self.encoder_config = encoder_config
        self.pooling = pooling
        self.head_hidden = head_hidden
        self.head_dropout = head_dropout
        super().__init__(**kwargs)


def encoder_class(config: PretrainedConfig) -> type[PreTrainedModel]:
    """Return the base class of transformers for a configuration."""
    found: Any = MODEL_MAPPING[type(config)]
    model_class: type[PreTrainedModel] = found[0] if isinstance(found, tuple) else found
    return model_class


def encoder_options(config: PretrainedConfig) -> dict[str, Any]:
    """Return the arguments that omit a pooler, which the student does not use."""
    takes_pooler = "add_pooling_layer" in inspect.signature(encoder_class(config).__init__).parameters
    return {"add_pooling_layer": False} if takes_pooler else {}


class TextStudentForSequenceClassification(PreTrainedModel):  # type: ignore[no-untyped-call]  # as above
    """The student as a Hugging Face model; `logits` is [B, C]: one number in label units, or scores."""

    config_class = TextStudentConfig
    base_model_prefix = "encoder"
    _supports_sdpa = True

    def __init__(self, config: TextStudentConfig) -> None:
        super().__init__(config)
        self.num_labels = config.num_labels
        self.encoder = encoder_class(config.encoder_config)(
            config.encoder_config, **encoder_options(config.encoder_config)
        )
        self.drop = nn.Dropout(config.head_dropout)
        self.dense = nn.Linear(config.encoder_config.hidden_size, config.head_hidden)
        self.out = nn.Linear(config.head_hidden, len(config.id2label or {}))
        self.post_init()  # type: ignore[no-untyped-call]  # untyped in transformers

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        **kwargs: Any,
    ) -> SequenceClassifierOutput:
        """Predict from token ids [B, L]; with `labels` [B] also return the squared error or cross-entropy."""
        if attention_mask is None:
            attention_mask = torch.ones_like(input_ids)
        hidden_BLD = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        if self.config.pooling == "cls":
            pooled_BD = hidden_BLD[:, 0]
        else:
            mask = attention_mask.bool()
            total_BD = hidden_BLD.masked_fill(~mask.unsqueeze(-1), 0.0).sum(dim=1)
            pooled_BD = total_BD / mask.sum(dim=1, keepdim=True).clamp(min=1)
        logits_BC = self.out(self.drop(torch.tanh(self.dense(self.drop(pooled_BD)))))
        loss = None
        if labels is not None and self.num_labels == 1:
            loss = nn.functional.mse_loss(logits_BC.view(-1), labels.view(-1).float())
        elif labels is not None:
            loss = nn.functional.cross_entropy(logits_BC, labels.view(-1).long())
        return SequenceClassifierOutput(loss=loss, logits=logits_BC)
