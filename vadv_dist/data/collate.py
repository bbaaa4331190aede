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
import numpy.typing as npt
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

    def look_ahead(self, window: Window, rows: IntArray) -> None:
        """Prepare for batches of the given rows, where many rows at once cost less than a batch at a time."""
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
        ids = self.tokens.of([window.text[row] for row in rows.tolist()])
        lengths = [len(own) for own in ids]
        if not min(lengths):
            row = rows[lengths.index(0)]
            raise UserError(
                f"The tokenizer returns no tokens for clip {window.clip_id[row]!r} ({window.text[row][:60]!r}). "
                "Choose an encoder whose tokenizer knows these words, or leave the clip out."
            )
        num_tokens = np.array(lengths)
        mask = np.arange(padded_length(max(lengths), self.lengths)) < num_tokens[:, None]
        padded = np.full(mask.shape, self.tokens.padding, np.int64)
        padded[mask] = np.concatenate(ids)
        return {TOKENS: torch.from_numpy(padded), MASK: torch.from_numpy(mask.astype(np.int64))}

    def look_ahead(self, window: Window, rows: IntArray) -> None:
        """See `Field.look_ahead`."""
        self.tokens.look_ahead([window.text[row] for row in rows.tolist()])

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

    def look_ahead(self, window: Window, rows: IntArray) -> None:
        """See `Field.look_ahead`: there is nothing to prepare."""

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

    def look_ahead(self, window: Window, rows: IntArray) -> None:
        """Prepare all fields for batches of the given rows."""
        for field in self.fields:
            field.look_ahead(window, rows)

    def count(self, window: Window, rows: IntArray) -> dict[str, int]:
        """`Batch.counts` of some rows, which may be 0 here."""
        counts = {"rows": len(rows)}
        complete: npt.NDArray[np.bool_] | None = None
        for field in self.fields:
            if isinstance(field, FeatureField):
                column = window.features[field.name]
                if column.is_complete:
                    counts[field.name] = len(rows)
                    continue
                has = column.present[rows]
                counts[field.name] = int(has.sum())
                complete = has if complete is None else complete & has
        return counts | {"complete": len(rows) if complete is None else int(complete.sum())}

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
        valid = np.zeros(size, np.float32)
        valid[:num_real] = 1
        fields: dict[str, torch.Tensor] = {}
        present: dict[str, torch.Tensor] = {}
        for field in self.fields:
            fields |= field.collate(window, taken)
            if isinstance(field, FeatureField):
                column = window.features[field.name]
                has = valid.copy() if column.is_complete else valid * column.present[taken]
                present[field.name] = torch.from_numpy(has)
        counts = self.count(window, global_rows) if counts is None else counts
        divisors = torch.tensor([max(1, count) for count in counts.values()]).unbind()
        row_id = window.row_id[taken]
        row_id[num_real:] = NO_ROW
        real = rows.tolist()
        return Batch(
            fields=fields,
            present=present,
            label=torch.from_numpy(window.label[taken]),
            valid=torch.from_numpy(valid),
            row_id=torch.from_numpy(row_id),
            counts=dict(zip(counts, divisors, strict=True)),
            names=tuple([(window.source[row], window.clip_id[row]) for row in real]),
            num_tokens=int(fields[MASK].numpy()[:num_real].sum()) if MASK in fields else 0,
        )
