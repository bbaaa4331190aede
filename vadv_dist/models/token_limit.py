"""Find the maximum text length of an encoder by observing its lookups in the position table.

`max_position_embeddings` is not the limit of every architecture: RoBERTa numbers positions from `pad_token_id + 1`, so
a table of 514 rows is enough for 512 tokens; OPT's table has two rows more than its limit; XLNet has no table at all.
"""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_TOKENS = 4
# Embeddings may be projected once before the first layer; the second matrix product belongs to a layer.
_PRODUCTS = (nn.functional.linear, torch.addmm, nn.functional.scaled_dot_product_attention)


def longest_text(encoder: "PreTrainedModel") -> int | None:
    """Return the maximum number of tokens that an encoder reads, or None if there is no limit.

    Args:
        encoder: any text encoder, also on the meta device.
    """
    probed = _without_weights(encoder) if next(encoder.parameters()).is_meta else encoder
    device = next(probed.parameters()).device
    pad_id = getattr(encoder.config, "pad_token_id", None)
    # RoBERTa's positions count non-padding tokens.
    input_ids = torch.full((1, _TOKENS), 1 if pad_id == 0 else 0, device=device)
    lookups = _Lookups()
    try:
        with torch.no_grad(), lookups:
            probed(input_ids=input_ids, attention_mask=torch.ones_like(input_ids))
    except Exception as error:
        # Nothing is computed after the embeddings; other failures are found by the check with weights.
        del error
    if lookups.limits:
        return min(lookups.limits)
    # Rotary or computed positions: the length that the encoder was made for. DeBERTa's relative positions saturate, and
    # XLNet has -1.
    declared = getattr(encoder.config, "max_position_embeddings", None)
    relative = getattr(encoder.config, "relative_attention", False)
    return declared if declared is not None and declared > 0 and not relative else None


class _Done(Exception):  # noqa: N818  # not an error
    """The embeddings are complete."""


class _Lookups(TorchFunctionMode):
    """Records the limit of each table that is read row by row, and stops the model at its first layer."""

    def __init__(self) -> None:
        super().__init__()
        self.limits: list[int] = []
        self._products = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is nn.functional.embedding:
            self._note(*args[:2])
        elif func in _PRODUCTS:
            self._products += 1
            if self._products > 1:
                raise _Done
        return func(*args, **(kwargs or {}))

    def _note(self, rows: Tensor, table: Tensor) -> None:
        if rows.ndim > 2 or (rows.ndim == 2 and len(rows) != 1):  # relative positions are pairs of tokens
            return
        numbers = rows.flatten()[:_TOKENS].tolist()
        if numbers == list(range(numbers[0], numbers[0] + _TOKENS)):
            self.limits.append(len(table) - numbers[0])


def _without_weights(encoder: "PreTrainedModel") -> "PreTrainedModel":
    """Build an encoder whose weights use no memory until they are read, but whose buffers have their values."""
    from transformers.initialization import no_init_weights

    with torch.device("cpu"), no_init_weights():
        shell: PreTrainedModel = type(encoder)(encoder.config)
    shell.train(False)
    return shell
