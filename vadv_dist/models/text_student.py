"""The text student: a language encoder with a two-layer head.

Shape letters: B batch, L tokens, D width of the encoder, H hidden width of the head, C classes.
"""

from typing import TYPE_CHECKING, Literal, NamedTuple

import torch
from torch import Tensor, nn

from vadv_dist.models.heads import OUTPUT_STD, at_least_fp32, head_layer

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# Encoders that use a mask [B, 1, 1, L] as it is. From a mask [B, L] they derive one after checking whether any token is
# padding, which synchronises with the GPU in each step and is a data-dependent branch that CUDA graphs do not support.
_TAKE_READY_MASK = frozenset({"bert", "camembert", "electra", "roberta", "xlm-roberta"})


class StudentOutputs(NamedTuple):
    """The student's outputs for a batch.

    A tuple, because DeepSpeed ZeRO-3 finds tensors only in tuples, not in other classes.

    Attributes:
        text_logit: sentiment in label units, [B]; or scores of the classes, [B, C].
        pooled: the pooled vector of the text, [B, D].
        hidden: the hidden values of the head, which its last layer reads, [B, H].
    """

    text_logit: Tensor
    pooled: Tensor
    hidden: Tensor


class TextStudent(nn.Module):
    """Sentiment from words: encoder, pooling, and a head D → H → 1, or → C, with tanh.

    The head has the form of transformers' `…ForSequenceClassification`, so that the student can be exported as a plain
    Hugging Face model. Its last layer has a small initialisation, so logits start near its bias.

    Source: VideoAdviser, arXiv:2309.15494, section 4.2.

    Args:
        encoder: any transformers model that reads token ids and returns `last_hidden_state` [B, L, D].
        hidden: H.
        pooling: a text is represented by its first token (`cls`) or the mean of its tokens (`mean`).
        dropout: dropout before each layer of the head.
        freeze_encoder: train only the head; the encoder then stays in evaluation mode.
        num_classes: C; None if it predicts one number.
    Raises:
        ValueError: unknown pooling.
    """

    def __init__(
        self,
        encoder: "PreTrainedModel",
        *,
        hidden: int,
        pooling: Literal["cls", "mean"],
        dropout: float,
        freeze_encoder: bool = False,
        num_classes: int | None = None,
    ) -> None:
        super().__init__()
        if pooling not in ("cls", "mean"):
            raise ValueError(f"pooling is {pooling!r}, expected 'cls' or 'mean'.")
        self.encoder = encoder
        self.pooling = pooling
        self.freeze_encoder = freeze_encoder
        self.drop = nn.Dropout(dropout)
        self.width: int = encoder.config.hidden_size
        self.dense = head_layer(self.width, hidden)
        self.num_classes = num_classes
        self.out = head_layer(hidden, num_classes or 1, OUTPUT_STD)
        self._takes_ready_mask = (
            encoder.config.model_type in _TAKE_READY_MASK
            and encoder.config._attn_implementation == "sdpa"
            and not getattr(encoder.config, "is_decoder", False)
        )
        if freeze_encoder:
            encoder.requires_grad_(False)
            encoder.train(False)

    def train(self, mode: bool = True) -> "TextStudent":
        """Switch between training and evaluation; a frozen encoder stays in evaluation mode."""
        super().train(mode)
        if self.freeze_encoder:
            self.encoder.train(False)
        return self

    def forward(self, input_ids_BL: Tensor, attention_mask_BL: Tensor) -> Tensor:
        """Return the text logit, [B] or [B, C]; pooling and head are fp32 whatever the encoder's precision.

        Args:
            input_ids_BL: token ids, [B, L].
            attention_mask_BL: 1 for tokens, 0 for padding, [B, L]; at least one token per row.
        """
        return self.read(input_ids_BL, attention_mask_BL).text_logit

    def read(self, input_ids_BL: Tensor, attention_mask_BL: Tensor) -> StudentOutputs:
        """Return the text logit, as `forward` does, and the features before it."""
        mask = attention_mask_BL.bool()
        encoder_mask = attention_mask_BL
        if self._takes_ready_mask:
            # What attention would make of a mask of booleans in each layer.
            zeros = torch.zeros_like(mask, dtype=self.encoder.dtype)
            encoder_mask = zeros.masked_fill(~mask, float("-inf"))[:, None, None, :]
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.freeze_encoder):
            hidden_BLD = self.encoder(input_ids=input_ids_BL, attention_mask=encoder_mask).last_hidden_state
        if self.pooling == "cls":
            pooled_BD = hidden_BLD[:, 0]
        else:
            total_BD = hidden_BLD.to(at_least_fp32(hidden_BLD.dtype)).masked_fill(~mask.unsqueeze(-1), 0.0).sum(dim=1)
            pooled_BD = total_BD / mask.sum(dim=1, keepdim=True).clamp(min=1)
        hidden_BH = torch.tanh(self.dense(self.drop(pooled_BD)))
        values: Tensor = self.out(self.drop(hidden_BH))
        logit = values.squeeze(-1) if self.num_classes is None else values
        return StudentOutputs(logit, pooled_BD, hidden_BH)
