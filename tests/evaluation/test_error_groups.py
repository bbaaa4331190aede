import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vadv_dist.evaluation.error_groups import (
    MIN_CLIPS,
    group_scores,
    label_bins,
    length_bins,
    named_groups,
)
from vadv_dist.evaluation.reliability import share_interval


def test_lengths_are_grouped_by_quantiles():
    words = np.random.default_rng(0).permutation(np.repeat(np.arange(1, 26), 4))
    found = length_bins(words)
    assert found.names == ["1 to 5 words", "6 to 10 words", "11 to 15 words", "16 to 20 words", "21 to 25 words"]
    np.testing.assert_array_equal(found.index, pd.qcut(words, 5, labels=False))


@given(st.lists(st.integers(0, 30), min_size=1, max_size=60))
def test_groups_of_lengths_are_ordered_and_none_is_empty(words):
    found = length_bins(words)
    assert sorted(set(found.index.tolist())) == list(range(len(found.names)))
    by_length = sorted(zip(words, found.index.tolist(), strict=True))
    assert [group for _, group in by_length] == sorted(group for _, group in by_length)
    assert len(set(by_length)) == len(set(words))  # a length is in one group


def test_names_of_lengths():
    assert length_bins([1, 1, 1]).names == ["1 word"]
    assert length_bins([0]).names == ["0 words"]


def test_labels_are_binned_in_six_parts_of_their_range():
    label = np.random.default_rng(1).uniform(-3, 3, 400)
    found = label_bins(label, -3, 3)
    assert found.names == ["−3 to −2", "−2 to −1", "−1 to 0", "0 to 1", "1 to 2", "2 to 3"]
    expected = pd.cut(label, np.arange(-3, 4), right=False, labels=False)
    np.testing.assert_array_equal(found.index, expected)


def test_a_label_on_an_edge_is_in_the_upper_part_in_fp32_too():
    label = np.r_[np.linspace(-1, 1, 31, dtype=np.float32), np.float32(1 / 3), np.float32(1)].astype(np.float64)
    found = label_bins(label, -1, 1)
    names = [found.names[group] for group in found.index[-2:]]
    assert names == ["0.3333 to 0.6667", "0.6667 to 1"]


def test_few_labels_have_a_group_each_and_empty_parts_are_left_out():
    stars = label_bins([5, 1, 1, 3], 1, 5)
    assert (stars.names, stars.index.tolist()) == (["1", "3", "5"], [2, 0, 0, 1])
    assert label_bins([2.0], -3, 3).names == ["2"]
    positive = label_bins(np.linspace(0, 3, 10), -3, 3)
    assert positive.names == ["0 to 1", "1 to 2", "2 to 3"]


def test_group_scores_are_the_means_of_pandas():
    rng = np.random.default_rng(2)
    table = pd.DataFrame(
        {"video": rng.choice(["a", "b", "c"], 90), "error": rng.gamma(2, 1, 90), "bias": rng.normal(0, 1, 90)}
    )
    found = group_scores(table["error"], named_groups(list(table["video"])), bias_R=table["bias"])
    expected = table.groupby("video").agg(error=("error", "mean"), bias=("bias", "mean"), clips=("error", "size"))
    assert [each.name for each in found] == list(expected.index)
    assert [each.clips for each in found] == list(expected["clips"])
    np.testing.assert_allclose([each.mean for each in found], expected["error"])
    np.testing.assert_allclose([each.bias for each in found], expected["bias"])
    for each in found:
        assert each.interval is not None
        assert each.interval.low < each.mean < each.interval.high


@pytest.mark.parametrize("clips", [1, MIN_CLIPS - 1, MIN_CLIPS])
def test_small_groups_have_no_interval(clips):
    [found] = group_scores(np.ones(clips, bool), named_groups(["x"] * clips))
    assert found.interval == (share_interval(clips, clips) if clips >= MIN_CLIPS else None)
    assert (found.mean, found.bias) == (1.0, None)
