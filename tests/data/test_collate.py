"""What a tokenizer may do that a batch must not depend on."""

import numpy as np
import pytest
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from vadv_dist.data.collate import Collator, TextField
from vadv_dist.data.schema import Batch, Window
from vadv_dist.errors import UserError


def collate(texts: list[str], **options: object) -> Batch:
    """Collate texts with a tokenizer of two words that drops whatever is no letter."""
    words = Tokenizer(models.WordLevel({"[PAD]": 0, "good": 1, "bad": 2}))
    words.normalizer = normalizers.Replace(Regex("[^a-z ]"), "")
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, pad_token="[PAD]", **options)
    rows = np.arange(len(texts))
    names = [f"clip_{row}" for row in rows]
    label, counts = np.zeros(len(texts), np.float32), np.ones(len(texts), np.int32)
    window = Window(names, names, names, texts, label, counts, rows, {})
    return Collator([TextField(tokenizer, 4)])(window, rows, global_rows=rows)


def test_a_mask_is_made_whatever_the_tokenizer_gives_by_default() -> None:
    batch = collate(["good bad good", "bad"], model_input_names=["input_ids", "token_type_ids"])
    assert batch.fields["input_ids"].tolist() == [[1, 2, 1], [2, 0, 0]]
    assert batch.fields["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]


def test_a_text_without_any_token_is_refused_by_its_clip() -> None:
    with pytest.raises(UserError, match=r"no token of clip 'clip_1' \('☺!'\)"):
        collate(["good", "☺!"])
