"""Token ids are computed once per text, and are the tokenizer's own."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from vadv_dist.data.collate import TextField
from vadv_dist.data.schema import Window
from vadv_dist.data.tokens import Tokens

MAX_TOKENS = 12


class Counted:
    """A tokenizer that notes what it is asked for."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.inner, self.sep_token = tokenizer, tokenizer.sep_token
        self.asked: list[str] = []

    def __call__(self, texts: list[str], **options: Any) -> Any:
        self.asked += texts
        return self.inner(texts, **options)


@pytest.fixture
def tokenizer(made: Path) -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(made / "encoder")


def some_texts() -> list[str]:
    """Texts of 1 to 30 words, some of them repeated."""
    random = np.random.default_rng(0)
    words = ["good", "bad", "film", "the", "unknown¿word", "was"]
    texts = [" ".join(random.choice(words, random.integers(1, 31))) for _ in range(40)]
    return [*texts, *texts[::3], "good"]


@pytest.mark.parametrize("max_bytes", [0, 3000, 1 << 20], ids=["nothing kept", "a part kept", "all kept"])
def test_batches_equal_those_of_the_tokenizer_bit_for_bit(tokenizer, max_bytes: int) -> None:
    texts = some_texts()
    field = TextField(Tokens(tokenizer, MAX_TOKENS, max_bytes=max_bytes))
    rows = np.arange(len(texts))
    names, zeros = ["c"] * len(texts), np.zeros(len(texts), np.float32)
    window = Window(names, names, names, texts, zeros, zeros.astype(np.int32), rows, {})
    for _ in range(2):
        for part in np.array_split(np.random.default_rng(1).permutation(rows), 7):
            expected = tokenizer(
                [texts[row] for row in part],
                truncation=True,
                max_length=MAX_TOKENS,
                padding="longest",
                return_attention_mask=True,
                return_tensors="np",
            )
            found = field.collate(window, part)
            for name in ("input_ids", "attention_mask"):
                assert found[name].dtype.is_signed
                np.testing.assert_array_equal(found[name].numpy(), expected[name])


def test_every_text_is_tokenized_once(tokenizer) -> None:
    texts, counted = some_texts(), Counted(tokenizer)
    tokens = Tokens(counted, MAX_TOKENS)
    first = tokens.of(texts)
    assert sorted(counted.asked) == sorted(set(texts))
    again = tokens.of(texts[::-1])
    assert len(counted.asked) == len(set(texts))
    assert all(a is b for a, b in zip(first, reversed(again), strict=True))


def test_texts_beyond_the_bound_are_not_kept(tokenizer) -> None:
    texts = [f"good film {number}" for number in range(100)]
    counted = Counted(tokenizer)
    tokens = Tokens(counted, MAX_TOKENS, max_bytes=4000)
    tokens.of(texts)
    tokens.of(texts)
    kept = 2 * len(texts) - len(counted.asked)
    assert 4000 / 500 < kept < 4000 / 250  # a text takes 250 bytes and what it holds
    assert counted.asked[len(texts) :] == texts[kept:]


def test_texts_that_are_asked_for_next_are_tokenized_in_one_call_even_beyond_the_bound(tokenizer) -> None:
    texts, counted = some_texts(), Counted(tokenizer)
    tokens = Tokens(counted, MAX_TOKENS, max_bytes=1000)
    tokens.look_ahead(texts)
    expected = Tokens(tokenizer, MAX_TOKENS).of(texts)
    for _ in range(2):
        found = [tokens.of([text])[0] for text in texts]
        assert all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True))
    assert sorted(counted.asked) == sorted(set(texts))
    tokens.look_ahead(["good good"])
    assert tokens.of(["good good", texts[5]])[1].tolist() == expected[5].tolist()
