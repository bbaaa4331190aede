import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vadv_dist.inference.batching import groups_of_similar_length, padded, token_budget_batches


@given(lengths=st.lists(st.integers(1, 120), max_size=300), budget=st.integers(1, 600))
def test_every_row_is_in_one_batch_and_no_batch_exceeds_the_budget(lengths, budget):
    lengths = np.array(lengths, np.int64)
    batches = token_budget_batches(lengths, budget)
    rows = np.concatenate(batches) if batches else np.empty(0, np.int64)
    np.testing.assert_array_equal(np.sort(rows), np.arange(len(lengths)))
    for batch in batches:
        assert len(batch) == 1 or len(batch) * lengths[batch].max() <= budget


def test_spoken_sentences_need_little_padding():
    rng = np.random.default_rng(0)
    lengths = np.clip(np.round(np.exp(rng.normal(np.log(12), 0.7, 2199))), 3, 100).astype(np.int64)
    batches = token_budget_batches(lengths, 2048)
    computed = sum(len(batch) * lengths[batch].max() for batch in batches)
    assert computed < 1.03 * lengths.sum()
    assert len(batches) < 2.5 * lengths.sum() / 2048


def test_padding_is_on_the_right_and_masked():
    input_ids, mask = padded([[5, 6, 7], [8]], pad_id=1)
    assert input_ids.tolist() == [[5, 6, 7], [8, 1, 1]]
    assert mask.tolist() == [[1, 1, 1], [1, 0, 0]]


def test_a_budget_below_one_token_is_refused():
    with pytest.raises(ValueError, match="batch_tokens is 0"):
        token_budget_batches(np.array([3]), 0)


@pytest.mark.parametrize("fixed", [1, 8, 1000])
def test_groups_of_similar_length_cost_least(fixed):
    rng = np.random.default_rng(fixed)
    for _ in range(20):
        lengths = rng.integers(1, 30, rng.integers(1, 9))
        groups = groups_of_similar_length(lengths, fixed)
        assert sorted(np.concatenate(groups).tolist()) == list(range(len(lengths)))
        cost = sum(fixed + len(group) * lengths[group].max() for group in groups)
        # Every way of cutting the rows in the order of their lengths.
        ordered = np.sort(lengths)[::-1]
        least = min(
            sum(fixed + len(part) * part[0] for part in np.split(ordered, cuts))
            for number in range(len(ordered))
            for cuts in itertools.combinations(range(1, len(ordered)), number)
        )
        assert cost == least
