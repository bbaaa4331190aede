"""A student with a BERT-like encoder, optimised for computing only its logit.

It differs from transformers' modules in three ways, none of which changes the numbers: query, key and value come from
one product; short texts use attention in two plain products, which on a CPU cost half of the fused kernel's set-up; and
if only the first token is read, the last layer computes nothing else (with six layers, a seventh of the work).

transformers' own model does not serve: on MOSI's sentences (`benchmarks/predict.py --threads 2`) this file gives 3.2
times the sentences per second of the Hugging Face pipeline, transformers' `sdpa` attention in the same batches 2.7
times, and `torch.compile` of it 2.8 times; one thread gives the same ratios.

Shapes: B rows, L tokens, D width, H heads, Q queried tokens (L, or 1 in a layer that keeps only the first token).
"""

from typing import cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from vadv_dist.models.heads import at_least_fp32
from vadv_dist.models.text_student import TextStudent

# Architectures whose layers have the same modules and names as BERT's, with learnt absolute positions.
MODEL_TYPES = frozenset({"bert", "roberta", "xlm-roberta", "camembert"})

# Longer texts and other devices use the fused kernel, which never stores the [L, L] scores.
_PLAIN_ATTENTION_TOKENS = 128


class FastLayer(nn.Module):
    """One post-norm transformer layer, from the modules of a BERT layer.

    Args:
        layer: a `BertLayer` or an equivalent one.
        heads: attention heads.
        first_token_only: return only the first token's state.
    """

    def __init__(self, layer: nn.Module, *, heads: int, first_token_only: bool) -> None:
        super().__init__()
        attention = layer.get_submodule("attention.self")
        parts = [cast(nn.Linear, attention.get_submodule(name)) for name in ("query", "key", "value")]
        self.heads = heads
        self.first_token_only = first_token_only
        # Attention divides by the square root of the head's width; applied here once, to the query's rows.
        scales = ((parts[0].out_features // heads) ** -0.5, 1.0, 1.0)
        weights = [part.weight.detach() * scale for part, scale in zip(parts, scales, strict=True)]
        biases = [part.bias.detach() * scale for part, scale in zip(parts, scales, strict=True)]
        self.qkv_weight = nn.Parameter(torch.cat(weights), requires_grad=False)
        self.qkv_bias = nn.Parameter(torch.cat(biases), requires_grad=False)
        self.attended = layer.get_submodule("attention.output.dense")
        self.attended_norm = layer.get_submodule("attention.output.LayerNorm")
        self.widen = layer.get_submodule("intermediate")
        self.narrow = layer.get_submodule("output.dense")
        self.narrow_norm = layer.get_submodule("output.LayerNorm")

    def forward(self, hidden_BLD: Tensor, keep_B11L: Tensor | None) -> Tensor:
        """Return states [B, Q, D]; `keep_B11L` is true for tokens and false for padding, or None without padding."""
        B, L, D = hidden_BLD.shape
        if self.first_token_only:
            key_value = nn.functional.linear(hidden_BLD, self.qkv_weight[D:], self.qkv_bias[D:])
            key_BHLd, value_BHLd = key_value.view(B, L, 2, self.heads, -1).permute(2, 0, 3, 1, 4)
            hidden_BLD = hidden_BLD[:, :1]
            query = nn.functional.linear(hidden_BLD, self.qkv_weight[:D], self.qkv_bias[:D])
            query_BHQd = query.view(B, 1, self.heads, -1).transpose(1, 2)
        else:
            projected = nn.functional.linear(hidden_BLD, self.qkv_weight, self.qkv_bias)
            query_BHQd, key_BHLd, value_BHLd = projected.view(B, L, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        context_BHQd = _attend(query_BHQd, key_BHLd, value_BHLd, keep_B11L)
        context_BQD = context_BHQd.transpose(1, 2).reshape(B, -1, D)
        attended_BQD = self.attended_norm(self.attended(context_BQD).add_(hidden_BLD))
        hidden_BQD: Tensor = self.narrow_norm(self.narrow(self.widen(attended_BQD)).add_(attended_BQD))
        return hidden_BQD


class FastStudent(nn.Module):
    """A text student for inference: the same numbers with less work.

    Args:
        student: a student whose encoder `is_supported`; its modules are shared if possible.
    """

    def __init__(self, student: TextStudent) -> None:
        super().__init__()
        layers = list(student.encoder.get_submodule("encoder.layer").children())
        heads = student.encoder.config.num_attention_heads
        self.pooling = student.pooling
        self.encoder = nn.ModuleList([student.encoder.get_submodule("embeddings")])
        self.encoder.extend(
            FastLayer(layer, heads=heads, first_token_only=student.pooling == "cls" and layer is layers[-1])
            for layer in layers
        )
        self.dense, self.out, self.num_classes = student.dense, student.out, student.num_classes
        self.eval()

    def forward(self, input_ids_BL: Tensor, attention_mask_BL: Tensor) -> Tensor:
        """Return the text logit, [B] or [B, C], like `TextStudent` in evaluation mode."""
        keep_BL = attention_mask_BL.bool()
        keep_B11L: Tensor | None = keep_BL[:, None, None, :]
        if keep_BL.device.type == "cpu" and bool(keep_BL.all()):  # elsewhere the host would wait for the answer
            keep_B11L = None
        embeddings, *layers = self.encoder
        hidden_BLD = embeddings(input_ids=input_ids_BL)
        for layer in layers:
            hidden_BLD = layer(hidden_BLD, keep_B11L)
        if self.pooling == "cls":
            pooled_BD = hidden_BLD[:, 0]
        else:
            total_BD = (
                hidden_BLD.to(at_least_fp32(hidden_BLD.dtype)).masked_fill(~keep_BL.unsqueeze(-1), 0.0).sum(dim=1)
            )
            pooled_BD = total_BD / keep_BL.sum(dim=1, keepdim=True).clamp(min=1)
        values: Tensor = self.out(torch.tanh(self.dense(pooled_BD)))
        return values.squeeze(-1) if self.num_classes is None else values


def is_supported(encoder: PreTrainedModel) -> bool:
    """Whether `FastStudent` gives the same results as a student with this encoder."""
    config = encoder.config
    return (
        config.model_type in MODEL_TYPES
        and getattr(config, "position_embedding_type", "absolute") in ("absolute", None)
        and not getattr(config, "is_decoder", False)
    )


def _attend(query_BHQd: Tensor, key_BHLd: Tensor, value_BHLd: Tensor, keep_B11L: Tensor | None) -> Tensor:
    if query_BHQd.device.type != "cpu" or key_BHLd.shape[2] > _PLAIN_ATTENTION_TOKENS:
        return nn.functional.scaled_dot_product_attention(
            query_BHQd, key_BHLd, value_BHLd, attn_mask=keep_B11L, scale=1.0
        )
    scores_BHQL = query_BHQd @ key_BHLd.transpose(-1, -2)
    if keep_B11L is not None:
        scores_BHQL.masked_fill_(~keep_B11L, float("-inf"))
    context_BHQd: Tensor = scores_BHQL.softmax(-1) @ value_BHLd
    return context_BHQd
