"""Token embeddings of a frozen, pretrained text encoder.

Shape letters: B texts, L tokens, D width.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from vadv_dist.models.encoders import build_encoder, build_tokenizer, require_fitting

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class EmbeddedTexts:
    """Some texts: token ids and mask, [B, L] each, and the encoder's last hidden state, [B, L, D]."""

    ids: Ints
    mask: Ints
    states: Floats

    def means(self) -> Floats:
        """Mean over each text's tokens, [B, D]."""
        weight = self.mask[:, :, None].astype(np.float32)
        means: Floats = (self.states * weight).sum(axis=1) / weight.sum(axis=1)
        return means


class FrozenText:
    """A pretrained encoder that is not trained.

    Args:
        encoder: folder, or name on the Hugging Face Hub.
        max_tokens: longer texts are truncated.
    Raises:
        UserError: it is not found, has no weights, or reads fewer tokens.
    """

    def __init__(self, encoder: str, max_tokens: int = 100) -> None:
        self._tokenizer = build_tokenizer(encoder)
        self._encoder = build_encoder(encoder, pretrained=True, dropout=None, gradient_checkpointing=False)
        self._encoder.train(False)
        self._max_tokens = max_tokens
        require_fitting(self._encoder, self._tokenizer, encoder, max_tokens)

    def padded(self, texts: Sequence[str]) -> tuple[Floats, Ints]:
        """Embed texts as sequences of `max_tokens` steps, with zeros after each text's end.

        Returns:
            embeddings, [B, L, D]; token ids, mask and segment of each step, [B, 3, L].
        """
        values_BLD = np.zeros((len(texts), self._max_tokens, self.width), np.float32)
        tokens_B3L = np.zeros((len(texts), 3, self._max_tokens), np.int64)
        row = 0
        for batch in self.embed(texts):
            rows, length = batch.ids.shape
            values_BLD[row : row + rows, :length] = batch.states * batch.mask[:, :, None]
            tokens_B3L[row : row + rows, 0, :length] = batch.ids * batch.mask
            tokens_B3L[row : row + rows, 1, :length] = batch.mask
            row += rows
        return values_BLD, tokens_B3L

    @property
    def width(self) -> int:
        """Width of a token's embedding."""
        return int(self._encoder.config.hidden_size)

    def embed(self, texts: Sequence[str], *, batch_size: int = 32) -> Iterator[EmbeddedTexts]:
        """Embed texts in their order, `batch_size` at a time, each padded to the longest of its batch."""
        for start in range(0, len(texts), batch_size):
            batch = self._tokenizer(
                list(texts[start : start + batch_size]),
                padding=True,
                truncation=True,
                max_length=self._max_tokens,
                return_tensors="pt",
            )
            with torch.inference_mode():
                found = self._encoder(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
            yield EmbeddedTexts(
                batch["input_ids"].numpy(), batch["attention_mask"].numpy(), found.last_hidden_state.float().numpy()
            )
