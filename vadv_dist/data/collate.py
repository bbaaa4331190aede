"""Turn rows of a window into the batch that a model receives; tensors are padded to their longest row only."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch

from vadv_dist.data.schema import Batch, IntArray, Window
from vadv_dist.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TOKENS, MASK = "input_ids", "attention_mask"


class Field(Protocol):
    """One field of a task's batch."""

    def collate(self, window: Window, rows: IntArray) -> dict[str, torch.Tensor]:
        """Tensors of the given rows by name, each [len(rows), ...]."""
        ...


@dataclass(frozen=True)
class TextField:
    """Token ids and attention mask of the text, [B, L] each.

    Attributes:
        tokenizer: the tokenizer of the student's encoder.
        max_tokens: texts are truncated to this many tokens.
    """

    tokenizer: "PreTrainedTokenizerBase"
    max_tokens: int

    def collate(self, window: Window, rows: IntArray) -> dict[str, torch.Tensor]:
        """See `Field.collate`."""
        encoded = self.tokenizer(
            [window.text[i] for i in rows],
            truncation=True,
            max_length=self.max_tokens,
            padding="longest",
            return_attention_mask=True,
            return_token_type_ids=False,
            return_tensors="np",
        )
        empty = np.flatnonzero(np.asarray(encoded[MASK]).sum(axis=1) == 0)
        if empty.size:
            row = rows[int(empty[0])]
            raise UserError(
                f"The tokenizer returns no tokens for clip {window.clip_id[row]!r} ({window.text[row][:60]!r}). "
                "Choose an encoder whose tokenizer knows these words, or leave the clip out."
            )
        return {name: torch.from_numpy(np.ascontiguousarray(encoded[name], np.int64)) for name in (TOKENS, MASK)}


@dataclass(frozen=True)
class FeatureField:
    """A feature of the data set, [B, ...], with zeros for clips that lack it.

    Attributes:
        name: name of the feature.
    """

    name: str

    def collate(self, window: Window, rows: IntArray) -> dict[str, torch.Tensor]:
        """See `Field.collate`."""
        return {self.name: torch.from_numpy(window.features[self.name].take(rows))}


@dataclass(frozen=True)
class Collator:
    """Collates the fields of a task.

    Attributes:
        fields: the fields that the model reads.
    """

    fields: Sequence[Field]

    def __call__(self, window: Window, rows: IntArray, *, global_rows: IntArray) -> Batch:
        """Collate one micro-batch.

        Args:
            window: holds the rows.
            rows: the micro-batch's rows; if empty, a single row of weight zero is used.
            global_rows: all rows of the step's global batch, the divisors of means.
        Raises:
            UserError: the tokenizer returns no tokens for a text.
        """
        valid = np.ones(max(len(rows), 1), np.float32)
        if not len(rows):
            rows, valid[0] = global_rows[:1], 0.0
        fields: dict[str, torch.Tensor] = {}
        present: dict[str, torch.Tensor] = {}
        counts = {"rows": len(global_rows)}
        for field in self.fields:
            fields |= field.collate(window, rows)
            if isinstance(field, FeatureField):
                has = window.features[field.name].present
                present[field.name] = torch.from_numpy(has[rows].astype(np.float32))
                counts[field.name] = int(has[global_rows].sum())
        return Batch(
            fields=fields,
            present=present,
            label=torch.from_numpy(window.label[rows]),
            valid=torch.from_numpy(valid),
            row_id=torch.from_numpy(window.row_id[rows]),
            counts=counts,
            names=tuple((window.source[i], window.clip_id[i]) for i in rows),
            num_tokens=int(fields[MASK].sum()) if MASK in fields else 0,
        )
