"""The nearest items against a stable sort of all cosines."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vadv_dist.evaluation.nearest import Nearest


@given(st.integers(0, 10_000), st.integers(1, 12), st.lists(st.integers(0, 9), min_size=1, max_size=4))
def test_blocks_give_the_order_of_a_stable_sort(seed: int, k: int, sizes: list[int]) -> None:
    rng = np.random.default_rng(seed)
    query = rng.integers(-2, 3, (5, 3)).astype(np.float64)
    gallery = rng.integers(-2, 3, (sum(sizes), 3)).astype(np.float64)  # many tied items
    nearest, start = Nearest(query, k), 0
    for size in sizes:
        nearest.add(gallery[start : start + size])
        start += size
    items, cosines = nearest.result()

    lengths = np.linalg.norm(query, axis=1)[:, None] * np.linalg.norm(gallery, axis=1)
    expected = np.divide(query @ gallery.T, lengths, out=np.zeros_like(lengths), where=lengths > 0)
    order = np.argsort(-expected.round(8), axis=1, kind="stable")[:, :k]
    np.testing.assert_array_equal(items, order)
    np.testing.assert_allclose(cosines, np.take_along_axis(expected, order, axis=1), atol=2e-9)


def test_it_agrees_with_scikit_learn_across_its_own_blocks() -> None:
    from sklearn.neighbors import NearestNeighbors

    rng = np.random.default_rng(0)
    query, gallery = rng.normal(size=(700, 4)), rng.normal(size=(3000, 4))
    nearest = Nearest(query, 7)
    nearest.add(gallery)
    distances, order = NearestNeighbors(n_neighbors=7, metric="cosine").fit(gallery).kneighbors(query)
    items, cosines = nearest.result()
    np.testing.assert_array_equal(items, order)
    np.testing.assert_allclose(cosines, 1 - distances, atol=3e-9)


def test_memory_is_that_of_a_block() -> None:
    rng = np.random.default_rng(0)
    nearest = Nearest(rng.normal(size=(2000, 4)), 5)
    tracemalloc.start()
    for _ in range(20):
        nearest.add(rng.normal(size=(4000, 4)))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 24 << 20  # all cosines of one addition would take 64 MB
    assert nearest.result()[0].shape == (2000, 5)


@pytest.mark.parametrize(
    ("query", "k", "item", "message"),
    [
        ([[1.0, 0.0]], 0, [[1.0, 0.0]], "k is 0"),
        ([1.0, 0.0], 1, [[1.0, 0.0]], r"queries have shape \[2\]"),
        ([[1.0, 0.0]], 1, [[1.0]], "items have 1 dimensions, the queries 2"),
        ([[1.0, 0.0]], 1, [[np.nan, 0.0]], "1 of 1 items have values that are not finite"),
    ],
)
def test_bad_arrays_are_refused(query, k: int, item, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Nearest(query, k).add(item)
