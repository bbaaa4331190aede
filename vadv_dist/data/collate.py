"""Turn rows of a window into the batch that a model receives.

By default a tensor is as long as its longest row, and a batch has the rows that it is given. With static shapes, which
a recorded step needs, token lengths are rounded up to a few values and batches are filled up with rows that count for
nothing.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch

from vadv_dist.data.schema import Batch, IntArray, Window
from vadv_dist.data.token_lengths import choose_lengths, padded_length
from vadv_dist.data.tokens import Tokens
from vadv_dist.errors import UserError

TOKENS, MASK = "input_ids", "attention_mask"
NO_ROW = -1


class Field(Protocol):
    """One field of a task's batch."""

    def collate(self, window: Window, rows: IntArray) -> dict[str, torch.Tensor]:
        """Tensors of the given rows by name, each [len(rows), ...]."""
        ...

    def with_static_shapes(self, batches: Sequence[Sequence[str]]) -> "Field":
        """The same field with few shapes, chosen for batches of texts like these."""
        ...


@dataclass(frozen=True)
class TextField:
    """Token ids and attention mask of the text, [B, L] each, padded on the right.

    Attributes:
        tokens: the tokenizer of the student's encoder.
        limit: number of tokens that the encoder reads at most, padding included; None if there is no limit.
        lengths: L is the lowest of these ascending values that the rows fit into; if there are none, it is the length
            of the longest row.
    """

    tokens: Tokens
    limit: int | None = None
    lengths: tuple[int, ...] = ()

    def collate(self, window: Window, rows: IntArray) -> dict[str, torch.Tensor]:
        """See `Field.collate`."""
        ids = self.tokens.of([window.text[row] for row in rows])
        num_tokens = np.fromiter(map(len, ids), np.int64, len(ids))
        if not num_tokens.all():
            row = rows[int(num_tokens.argmin())]
            raise UserError(
                f"The tokenizer returns no tokens for clip {window.clip_id[row]!r} ({window.text[row][:60]!r}). "
                "Choose an encoder whose tokenizer knows these words, or leave the clip out."
            )
        mask = np.arange(padded_length(int(num_tokens.max()), self.lengths)) < num_tokens[:, None]
        padded = np.full(mask.shape, self.tokens.tokenizer.pad_token_id, np.int64)
        padded[mask] = np.concatenate(ids)
        return {TOKENS: torch.from_numpy(padded), MASK: torch.from_numpy(mask.astype(np.int64))}

    def with_static_shapes(self, batches: Sequence[Sequence[str]]) -> "TextField":
        """See `Field.with_static_shapes`."""
        texts = list(dict.fromkeys(itertools.chain.from_iterable(batches)))
        num_tokens = dict(zip(texts, map(len, self.tokens.of(texts)), strict=True))
        longest = [max(num_tokens[text] for text in batch) for batch in batches]
        lengths = choose_lengths(
            longest, self.tokens.max_tokens, num_rows_R=[len(batch) for batch in batches], limit=self.limit
        )
        return replace(self, lengths=lengths)


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

    def with_static_shapes(self, batches: Sequence[Sequence[str]]) -> "FeatureField":
        """See `Field.with_static_shapes`: its shape does not vary."""
        return self


@dataclass(frozen=True)
class Collator:
    """Collates the fields of a task.

    Attributes:
        fields: the fields that the model reads.
        static_shapes: whether its fields have few shapes, so that its batches should have one number of rows.
    """

    fields: Sequence[Field]
    static_shapes: bool = False

    def with_static_shapes(self, batches: Sequence[Sequence[str]]) -> "Collator":
        """The same collator for a device that wants few shapes, chosen for batches of texts like these."""
        return Collator([field.with_static_shapes(batches) for field in self.fields], static_shapes=True)

    def count(self, window: Window, rows: IntArray) -> dict[str, int]:
        """`Batch.counts` of some rows, which may be 0 here."""
        present = {f.name: window.features[f.name].present[rows] for f in self.fields if isinstance(f, FeatureField)}
        complete = np.logical_and.reduce([*present.values(), np.ones(len(rows), bool)])
        counts = {"rows": len(rows), **{name: int(has.sum()) for name, has in present.items()}}
        return counts | {"complete": int(complete.sum())}

    def __call__(
        self,
        window: Window,
        rows: IntArray,
        *,
        global_rows: IntArray,
        num_rows: int | None = None,
        counts: Mapping[str, int] | None = None,
    ) -> Batch:
        """Collate one micro-batch.

        Args:
            window: holds the rows.
            rows: the micro-batch's rows.
            global_rows: all rows of the step's global batch in this window, at least one.
            num_rows: rows of the result, at least `len(rows)`. Filler rows follow the real ones. By default there are
                none, or one if `rows` is empty.
            counts: the divisors of means over the global batch; None counts `global_rows`.
        Raises:
            UserError: the tokenizer returns no tokens for a text.
        """
        num_real = len(rows)
        size = max(num_real, 1) if num_rows is None else num_rows
        # A filler row repeats a real one, because models expect a text in every row.
        repeated = rows[:1] if num_real else global_rows[:1]
        taken = np.concatenate([rows, np.repeat(repeated, size - num_real)]) if size > num_real else rows
        is_real = np.arange(size) < num_real
        fields: dict[str, torch.Tensor] = {}
        present: dict[str, torch.Tensor] = {}
        for field in self.fields:
            fields |= field.collate(window, taken)
            if isinstance(field, FeatureField):
                has = window.features[field.name].present[taken]
                present[field.name] = torch.from_numpy((has & is_real).astype(np.float32))
        counts = self.count(window, global_rows) if counts is None else counts
        return Batch(
            fields=fields,
            present=present,
            label=torch.from_numpy(window.label[taken]),
            valid=torch.from_numpy(is_real.astype(np.float32)),
            row_id=torch.from_numpy(np.where(is_real, window.row_id[taken], NO_ROW)),
            counts={name: torch.tensor(max(1, count)) for name, count in counts.items()},
            names=tuple((window.source[i], window.clip_id[i]) for i in rows),
            num_tokens=int(fields[MASK][:num_real].sum()) if MASK in fields else 0,
        )
