"""Lengths to pad to: the fewest that keep padding within a bound, against a search of all subsets."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vadv_dist.data.token_lengths import choose_lengths, padded_length


def computed(num_tokens: list[int], lengths: tuple[int, ...]) -> int:
    """Tokens of all texts with their padding."""
    return sum(padded_length(n, lengths) for n in num_tokens)


def best_of_all_subsets(num_tokens: list[int], candidates: list[int], most: int, max_padding: float) -> tuple[int, int]:
    """Fewest lengths within the bound, or `most` if there are none; and the fewest computed tokens with that many."""
    *others, longest = candidates
    for size in range(min(most, len(candidates))):
        least = min(computed(num_tokens, (*chosen, longest)) for chosen in combinations(others, size))
        if least - sum(num_tokens) <= max_padding * least:
            break
    return size + 1, least


@given(
    st.lists(st.integers(1, 60), max_size=30),
    st.integers(1, 5),
    st.floats(0.0, 0.5),
    st.sampled_from([None, 60, 61, 64]),
)
def test_no_other_choice_is_better(num_tokens: list[int], most: int, max_padding: float, limit: int | None) -> None:
    chosen = choose_lengths(num_tokens, 60, limit=limit, multiples=[8], most=most, max_padding=max_padding)
    candidates = [*range(8, 60, 8), 64 if limit is None else min(64, limit)]
    assert list(chosen) == sorted(set(chosen))
    assert set(chosen) <= set(candidates)
    assert chosen[-1] == candidates[-1]
    size, least = best_of_all_subsets(num_tokens, candidates, most, max_padding)
    assert computed(num_tokens, chosen) == least
    assert len(chosen) <= size


def test_the_bound_of_the_text_is_rounded_up_where_the_encoder_permits_it() -> None:
    assert choose_lengths([5, 9], 101, most=1) == (104,)
    assert choose_lengths([5, 9], 101, most=1, limit=102) == (102,)
    assert choose_lengths([], 101) == (104,)


def test_multiples_of_4_are_taken_where_multiples_of_8_pad_too_much() -> None:
    short, long = [5, 9, 10, 11, 12, 17, 19, 20] * 5, [24, 40, 56] * 5
    assert choose_lengths(short, 20) == (12, 20)
    assert choose_lengths(long, 56) == (24, 56)


def test_texts_like_those_of_mosi_are_padded_by_less_than_15_percent() -> None:
    words = np.exp(np.random.default_rng(0).normal(np.log(12), 0.6, 2000))
    num_tokens = np.clip(np.round(words * 1.2) + 2, 3, 100).astype(int).tolist()
    lengths = choose_lengths(num_tokens, 100)
    assert len(lengths) <= 12
    assert sum(num_tokens) >= 0.85 * computed(num_tokens, lengths)


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
