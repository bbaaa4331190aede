"""Retrieval metrics against exact enumeration, scikit-learn and hand calculations."""

import itertools
import math
import tracemalloc
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, precision_recall_curve

from vadv_dist.evaluation.retrieval import (
    METRICS,
    average_precision,
    confusion,
    first_classes,
    precision_recall,
    score,
)

# Small integers, so that exact ties are frequent and cosines can be compared without rounding.
VECTORS = st.lists(st.integers(-2, 2), min_size=2, max_size=2)


def cosine_order(query: list[int], item: list[int]) -> Fraction:
    """The signed square of the cosine, times the query's length squared: exact, and in the order of the cosine."""
    dot = sum(a * b for a, b in zip(query, item, strict=True))
    return Fraction(int(math.copysign(dot * dot, dot)), max(1, sum(b * b for b in item)))


def rankings(query: list[int], gallery: list[list[int]]) -> list[tuple[int, ...]]:
    """Every order of the gallery that agrees with the cosines."""
    near = [cosine_order(query, item) for item in gallery]
    ties = [[i for i in range(len(gallery)) if near[i] == value] for value in sorted(set(near), reverse=True)]
    return [
        tuple(itertools.chain.from_iterable(order))
        for order in itertools.product(*(itertools.permutations(tie) for tie in ties))
    ]


def plain_average_precision(relevant: list[bool]) -> float:
    total = 0.0
    for place in range(len(relevant)):
        if relevant[place]:
            total += sum(relevant[: place + 1]) / (place + 1)
    return total / sum(relevant)


@st.composite
def cases(draw: st.DrawFn) -> tuple[list[list[int]], list[int], list[list[int]], list[int]]:
    num_queries, num_items = draw(st.integers(1, 3)), draw(st.integers(1, 6))
    return (
        draw(st.lists(VECTORS, min_size=num_queries, max_size=num_queries)),
        draw(st.lists(st.integers(0, 2), min_size=num_queries, max_size=num_queries)),
        draw(st.lists(VECTORS, min_size=num_items, max_size=num_items)),
        draw(st.lists(st.integers(0, 2), min_size=num_items, max_size=num_items)),
    )


@settings(deadline=None)
@given(cases(), st.sampled_from([1, 7, 1 << 20]))
def test_average_precision_is_the_mean_over_every_order_of_tied_items(case, block_values: int) -> None:
    query, query_class, gallery, gallery_class = case
    found = average_precision(query, gallery, query_class, gallery_class, block_values=block_values)
    for vector, one, value in zip(query, query_class, found, strict=True):
        orders = [[gallery_class[i] == one for i in order] for order in rankings(vector, gallery)]
        if one in gallery_class:
            assert value == pytest.approx(np.mean([plain_average_precision(o) for o in orders]), abs=1e-12)
        else:
            assert np.isnan(value)


@settings(deadline=None)
@given(cases(), st.integers(1, 8))
def test_first_classes_are_the_mean_over_every_order_of_tied_items(case, k: int) -> None:
    query, query_class, gallery, gallery_class = case
    found = first_classes(query, gallery, query_class, gallery_class, num_classes=3, k=k, block_values=5)
    for vector, one, row in zip(query, query_class, found, strict=True):
        firsts = [[gallery_class[i] for i in order[:k]] for order in rankings(vector, gallery)]
        if one in gallery_class:
            expected = np.mean([np.bincount(f, minlength=3) / len(f) for f in firsts], axis=0)
            np.testing.assert_allclose(row, expected, atol=1e-12)
        else:
            assert np.isnan(row).all()


@settings(deadline=None)
@given(cases())
def test_precision_recall_is_scikit_learns_interpolated(case) -> None:
    query, query_class, gallery, gallery_class = case
    curves = []
    for vector, one in zip(query, query_class, strict=True):
        truth = [c == one for c in gallery_class]
        if any(truth):
            near = [float(cosine_order(vector, item)) for item in gallery]
            precision, recall, _ = precision_recall_curve(truth, near)
            # The last point is an added one, (0, 1), of no threshold.
            precision, recall = precision[:-1], recall[:-1]
            curves.append([precision[recall > i / 10 - 1e-9].max() for i in range(11)])
    found = precision_recall(query, gallery, query_class, gallery_class, block_values=5)
    np.testing.assert_allclose(found, np.mean(curves, axis=0) if curves else np.full(11, np.nan), atol=1e-12)


@pytest.fixture
def clips() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(5)
    label = rng.integers(0, 4, 300)
    embeddings = rng.normal(size=(4, 8))[label][:, None] + rng.normal(size=(300, 2, 8))
    return embeddings.astype(np.float32), label.astype(np.float32)


def test_without_ties_it_is_scikit_learns_average_precision(clips) -> None:
    embeddings, label = clips
    unit = embeddings / np.linalg.norm(embeddings, axis=2, keepdims=True)
    scores = score(embeddings, label)
    for direction, query, gallery in (("a2v", unit[:, 0], unit[:, 1]), ("v2a", unit[:, 1], unit[:, 0])):
        each = np.array(
            [average_precision_score(label == one, gallery @ q) for q, one in zip(query, label, strict=True)]
        )
        assert scores[f"map_{direction}"] == pytest.approx(each.mean(), abs=1e-6)
        by_class = np.mean([each[label == one].mean() for one in range(4)])
        assert scores[f"map_class_{direction}"] == pytest.approx(by_class, abs=1e-6)
    assert scores["map"] == pytest.approx((scores["map_a2v"] + scores["map_v2a"]) / 2)
    assert scores["map_class"] == pytest.approx((scores["map_class_a2v"] + scores["map_class_v2a"]) / 2)
    assert list(scores) == [metric.key for metric in METRICS]
    # The classes are of different size here, so that the two means differ.
    assert abs(scores["map"] - scores["map_class"]) > 1e-4


@pytest.mark.parametrize("block_values", [1, 299, 300, 901, 1 << 30])
def test_the_size_of_a_block_changes_nothing(clips, block_values: int) -> None:
    embeddings, label = clips
    both = (embeddings[:, 0], embeddings[:, 1], label, label)
    whole, small = average_precision(*both), average_precision(*both, block_values=block_values)
    np.testing.assert_allclose(small, whole, rtol=1e-12)
    whole, small = precision_recall(*both), precision_recall(*both, block_values=block_values)
    np.testing.assert_allclose(small, whole, rtol=1e-12)
    whole = first_classes(*both, num_classes=4)
    np.testing.assert_allclose(first_classes(*both, num_classes=4, block_values=block_values), whole, rtol=1e-12)


def test_the_order_of_the_clips_changes_nothing() -> None:
    rng = np.random.default_rng(1)
    label = rng.integers(0, 3, 200)
    embeddings = rng.integers(-1, 2, (200, 2, 3)).astype(np.float32)  # 27 vectors: nearly every item is tied
    order = rng.permutation(200)
    assert score(embeddings[order], label[order]) == pytest.approx(score(embeddings, label), rel=1e-12)


def test_one_vector_for_all_scores_the_expectation_of_a_random_order() -> None:
    """For 2 relevant of 3 items, the orders give (1 + 1) / 2, (1 + 2/3) / 2 and (1/2 + 2/3) / 2."""
    found = average_precision([[1.0, 0.0]], np.ones((3, 2)), [1], [1, 0, 1])
    assert found == pytest.approx([(1 + 5 / 6 + 7 / 12) / 3])


def test_lengths_of_vectors_do_not_matter(clips) -> None:
    embeddings, label = clips
    lengths = 10.0 ** np.random.default_rng(0).uniform(-30, 30, (300, 2, 1))
    assert score(embeddings * lengths, label) == pytest.approx(score(embeddings, label), rel=1e-12)
    assert score(embeddings * np.float64(1e200), label) == pytest.approx(score(embeddings, label), rel=1e-12)


def test_clips_without_a_modality_are_neither_queries_nor_items(clips) -> None:
    embeddings, label = clips
    embeddings[:100, 0] = np.nan
    scores = score(embeddings, label)
    to_visual = average_precision(embeddings[100:, 0], embeddings[:, 1], label[100:], label)
    to_audio = average_precision(embeddings[:, 1], embeddings[100:, 0], label, label[100:])
    assert scores["map_a2v"] == pytest.approx(to_visual.mean())
    assert scores["map_v2a"] == pytest.approx(to_audio.mean())


def test_queries_without_a_relevant_item_are_left_out() -> None:
    nan = float("nan")
    embeddings = [[[1.0, 0.0], [1.0, 0.0]], [[0.0, 1.0], [0.0, 1.0]], [[1.0, 1.0], [nan, nan]]]
    scores = score(embeddings, [0, 1, 2])  # the third clip's class is in no visual gallery, and it asks no visual query
    assert scores["map_a2v"] == 1.0
    assert scores["map_v2a"] == 1.0


def test_without_any_relevant_item_the_metrics_are_nan() -> None:
    assert all(np.isnan(value) for value in score(np.full((3, 2, 4), np.nan), [0, 1, 2]).values())
    assert np.isnan(precision_recall([[1.0]], [[1.0]], [0], [1])).all()


def test_zero_vectors_are_at_a_right_angle_to_everything() -> None:
    gallery = [[1.0, 0.0], [0.0, 0.0], [-1.0, 0.0]]
    assert average_precision([[1.0, 0.0]], gallery, [0], [1, 0, 1]) == pytest.approx([1 / 2])


def test_confusion_averages_the_queries_of_a_class() -> None:
    query = [[1.0, 0.0], [1.0, 0.1], [0.0, 1.0]]
    gallery = [[1.0, 0.0], [1.0, 0.05], [0.0, 1.0]]
    first = first_classes(query, gallery, [0, 0, 1], [0, 1, 1], num_classes=3, k=1)
    np.testing.assert_allclose(first, [[1, 0, 0], [0, 1, 0], [0, 1, 0]])
    np.testing.assert_allclose(confusion(first, [0, 0, 1])[:2], [[0.5, 0.5, 0], [0, 1, 0]])
    assert np.isnan(confusion(first, [0, 0, 1])[2]).all()


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (([[1.0, np.inf]], [[1.0, 0.0]], [0], [0]), "query has 1 of 1 rows with values that are not finite"),
        (([[1.0, 0.0]], [[np.nan, 0.0]], [0], [0]), "gallery has 1 of 1 rows with values that are not finite"),
        (([[1.0, 0.0]], [[1.0]], [0], [0]), "queries have 2 dimensions, the gallery 1"),
        (([[1.0]], [[1.0]], [0, 1], [0]), r"query has shape \[1, 1\], its classes \[2\]"),
    ],
)
def test_bad_arrays_are_refused(arrays, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        average_precision(*arrays)


def test_score_refuses_other_shapes() -> None:
    with pytest.raises(ValueError, match=r"embeddings have shape \[3, 4\], label \[3\]"):
        score(np.zeros((3, 4)), [0, 1, 2])


def test_memory_is_bounded_by_blocks() -> None:
    rng = np.random.default_rng(0)
    label = rng.integers(0, 10, 3000)
    query, gallery = rng.normal(size=(2, 3000, 4))
    tracemalloc.start()
    average_precision(query, gallery, label, label, block_values=1 << 16)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 << 20  # all cosines at once would take 72 MB
