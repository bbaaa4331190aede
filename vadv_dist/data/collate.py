"""Turn some rows of a window into the batch that a model receives: no tensor is padded past its longest row."""

from typing import TYPE_CHECKING

import numpy as np
import torch

from vadv_dist.data.schema import Batch, IntArray, Window
from vadv_dist.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class Collator:
    """Tokenises texts and gathers features.

    Args:
        tokenizer: of the student's encoder.
        max_tokens: texts are cut after this many tokens.
        features: features that the model reads; the first is the one without which the teacher sees no video.
    """

    def __init__(self, tokenizer: "PreTrainedTokenizerBase", max_tokens: int, features: tuple[str, ...]) -> None:
        self.tokenizer = tokenizer
        self.max_tokens = max_tokens
        self.features = features

    def __call__(self, window: Window, rows: IntArray, *, global_rows: IntArray) -> Batch:
        """Collate one micro-batch.

        Args:
            window: where the rows are.
            rows: the micro-batch's rows; where empty, one row that counts for nothing takes its place.
            global_rows: all rows of the step's global batch, over which means are taken.
        Raises:
            UserError: a text without a token.
        """
        valid = np.ones(max(len(rows), 1), np.float32)
        if not len(rows):
            rows, valid[0] = global_rows[:1], 0.0
        encoded = self.tokenizer(
            [window.text[i] for i in rows],
            truncation=True,
            max_length=self.max_tokens,
            padding="longest",
            return_attention_mask=True,
            return_token_type_ids=False,
            return_tensors="np",
        )
        empty = np.flatnonzero(np.asarray(encoded["attention_mask"]).sum(axis=1) == 0)
        if empty.size:
            row = rows[int(empty[0])]
            raise UserError(
                f"The tokenizer makes no token of clip {window.clip_id[row]!r} ({window.text[row][:60]!r}), "
                "so nothing can be read. Give an encoder whose tokenizer knows its words, or leave the clip out."
            )
        tensors: dict[str, torch.Tensor | None] = {
            "visual": None,
            "face": None,
            "has_visual": None,
            "has_face": None,
        }
        for name in self.features:
            column = window.features[name]
            tensors[name] = torch.from_numpy(column.take(rows))
            tensors[f"has_{name}"] = torch.from_numpy(column.present[rows].astype(np.float32))
        num_video_rows = len(global_rows)
        if self.features:
            num_video_rows = int(window.features[self.features[0]].present[global_rows].sum())
        return Batch(
            input_ids=torch.from_numpy(np.ascontiguousarray(encoded["input_ids"], np.int64)),
            attention_mask=torch.from_numpy(np.ascontiguousarray(encoded["attention_mask"], np.int64)),
            label=torch.from_numpy(window.label[rows]),
            valid=torch.from_numpy(valid),
            num_rows=len(global_rows),
            num_video_rows=num_video_rows,
            names=tuple((window.source[i], window.clip_id[i]) for i in rows),
            **tensors,
        )
