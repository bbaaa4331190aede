"""Batches do not depend on peculiarities of a tokenizer."""

import numpy as np
import pytest
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from vadv_dist.data.collate import Collator, TextField
from vadv_dist.data.schema import Batch, Window
from vadv_dist.data.tokens import Tokens
from vadv_dist.errors import UserError


def collate(texts: list[str], **options: object) -> Batch:
    """Collate texts with a tokenizer of two words that drops everything but letters."""
    words = Tokenizer(models.WordLevel({"[PAD]": 0, "good": 1, "bad": 2}))
    words.normalizer = normalizers.Replace(Regex("[^a-z ]"), "")
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, pad_token="[PAD]", **options)
    rows = np.arange(len(texts))
    names = [f"clip_{row}" for row in rows]
    label, counts = np.zeros(len(texts), np.float32), np.ones(len(texts), np.int32)
    window = Window(names, names, names, texts, label, counts, rows, {})
    return Collator([TextField(Tokens(tokenizer, 4))])(window, rows, global_rows=rows)


def test_the_attention_mask_exists_whatever_the_tokenizer_returns_by_default() -> None:
    batch = collate(["good bad good", "bad"], model_input_names=["input_ids", "token_type_ids"])
    assert batch.fields["input_ids"].tolist() == [[1, 2, 1], [2, 0, 0]]
    assert batch.fields["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]


def test_a_text_without_tokens_is_refused_with_its_clip() -> None:
    with pytest.raises(UserError, match=r"no tokens for clip 'clip_1' \('☺!'\)"):
        collate(["good", "☺!"])
