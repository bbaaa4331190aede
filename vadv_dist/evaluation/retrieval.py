"""Audio-visual retrieval: mean average precision, precision-recall curves, and the classes of the first items.

Every query ranks the whole gallery of the other modality by cosine. An item is relevant if it has the query's class;
this includes the query's own clip. Cosines are computed in fp64 and compared in steps of 2⁻²⁹; items in the same step
are tied, and a result is its expectation over all orders of tied items, so that it depends neither on the order of the
clips nor on the size of a block. A row of NaN stands for a clip that lacks the modality: it is neither query nor
gallery item. A vector of zeros has cosine 0 with every other.

Shape letters: R clips, E embedding width, Q queries, G gallery items, C classes, b queries of a block (all of the same
class), r relevant items of that class.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vadv_dist.evaluation.classes import FloatArray, IntArray
from vadv_dist.evaluation.description import Metric

Keys = npt.NDArray[np.int32]

# Positions of the modalities in an array [R, 2, E], and the two directions: query, then gallery.
AUDIO, VISUAL = 0, 1
DIRECTIONS = {"a2v": (AUDIO, VISUAL), "v2a": (VISUAL, AUDIO)}
TITLES = {"a2v": "a→v", "v2a": "v→a"}
PHRASES = {"a2v": "audio → visual", "v2a": "visual → audio"}

# `map` is the mean over queries, as published; `map_class` the mean over classes of their queries' mean.
METRICS = tuple(
    Metric(f"{key}{suffix}", name, "", convention=convention)
    for key, name in (("map", "mAP"), ("map_class", "class mAP"))
    for suffix, convention in (("", ""), *((f"_{direction}", title) for direction, title in TITLES.items()))
)
NOTES = (
    "mAP ranks the whole gallery of the other modality by cosine; items of the query’s class are relevant. It is the "
    "mean over queries, without those that have no relevant item; class mAP is the mean over classes of their queries’ "
    "mean. a→v has audio queries and a visual gallery, v→a the reverse; without an arrow, it is the mean of both. Tied "
    "items count as the mean over their orders.",
)

STEPS = 2.0**29  # steps of a cosine; their number and one bit beside it fit into int32
_BLOCK_VALUES = 1 << 19  # cosines in memory at a time


def score(embeddings_R2E: npt.ArrayLike, label_R: npt.ArrayLike) -> dict[str, float]:
    """Score the embeddings of R clips.

    Args:
        embeddings_R2E: audio and visual embedding of each clip; NaN where the clip lacks the modality.
        label_R: class of each clip.
    Returns:
        value by key of `METRICS`, fractions in [0, 1]; NaN without a query that has a relevant item.
    Raises:
        ValueError: arrays of other shapes, a value that is infinite, or a row that is NaN in part.
    """
    embeddings, label = np.asarray(embeddings_R2E), np.asarray(label_R)
    if embeddings.ndim != 3 or embeddings.shape[1] != 2 or label.shape != embeddings.shape[:1]:
        raise ValueError(
            f"embeddings have shape {list(embeddings.shape)}, label {list(label.shape)}; expected [R, 2, E] and [R]"
        )
    return score_of_precisions(precision_of_clips(embeddings, label), label)


def score_of_precisions(precision_of: Mapping[str, FloatArray], label_R: npt.ArrayLike) -> dict[str, float]:
    """Score the result of `precision_of_clips`, or the same rows of it and of the classes; see `score`."""
    label, scores = np.asarray(label_R), dict[str, float]()
    for direction, found in precision_of.items():
        known = ~np.isnan(found)
        _, classes = np.unique(label[known], return_inverse=True)
        means = np.bincount(classes, found[known]) / np.bincount(classes)
        scores[f"map_{direction}"] = float(found[known].mean()) if known.any() else float("nan")
        scores[f"map_class_{direction}"] = float(means.mean()) if known.any() else float("nan")
    for key in ("map", "map_class"):
        scores[key] = sum(scores[f"{key}_{direction}"] for direction in DIRECTIONS) / len(DIRECTIONS)
    return {metric.key: scores[metric.key] for metric in METRICS}


def precision_of_clips(embeddings_R2E: npt.ArrayLike, label_R: npt.ArrayLike) -> dict[str, FloatArray]:
    """Average precision of each clip as a query, [R], by direction; NaN where it is none. See `score` for arguments."""
    embeddings, label = np.asarray(embeddings_R2E), np.asarray(label_R)
    return {
        name: average_precision(embeddings[:, query], embeddings[:, gallery], label, label)
        for name, (query, gallery) in DIRECTIONS.items()
    }


def average_precision(
    query_QE: npt.ArrayLike,
    gallery_GE: npt.ArrayLike,
    query_class_Q: npt.ArrayLike,
    gallery_class_G: npt.ArrayLike,
    *,
    block_values: int = _BLOCK_VALUES,
) -> FloatArray:
    """Average precision of each query: the mean over relevant items of the precision at their ranks.

    Args:
        query_QE, gallery_GE: vectors; a row of NaN is left out.
        query_class_Q, gallery_class_G: their classes, as any numbers.
        block_values: bound on the cosines that are in memory at a time, but at least one query's.
    Returns:
        [Q]; NaN for a query without a vector or without a relevant item.
    Raises:
        ValueError: arrays of other shapes, a value that is infinite, or a row that is NaN in part.
    Source:
        McSherry and Najork, Computing information retrieval performance measures efficiently in the presence of tied
        scores (ECIR 2008), for the expectation over orders.
    """
    result = np.full(len(np.asarray(query_QE)), np.nan)
    harmonic = np.concatenate(([0.0], np.cumsum(1.0 / np.arange(1, len(np.asarray(gallery_GE)) + 1))))
    for block in _blocks(query_QE, gallery_GE, query_class_Q, gallery_class_G, block_values):
        keys, ranks = block.ranked()
        precision = np.arange(1, ranks.shape[1] + 1) / ranks
        found = np.take_along_axis(keys, ranks - 1, axis=1)
        before = np.take_along_axis(keys, np.maximum(ranks - 2, 0), axis=1)
        # Within a tie the relevant items come last, so a tie shows as an equal key or the same one without the bit.
        tied = (found == before) & (ranks > 1) | (found - before == 1)
        rows = np.flatnonzero(tied.any(axis=1))
        if rows.size:
            precision[rows] = _expected_precision(keys[rows] >> 1, ranks[rows], harmonic)
        result[block.queries] = precision.mean(axis=1)
    return result


def _expected_precision(steps_bG: Keys, ranks_br: IntArray, harmonic: FloatArray) -> FloatArray:
    """Precision at each relevant item's rank, [b, r], as the mean over relevant items and orders of its tie.

    Let a tie have n items of which m are relevant, after N items of which M are relevant. Its i-th place is relevant
    with probability m/n, and then (i-1)(m-1)/(n-1) relevant ones are expected at the places before it in the tie. So
    the expected sum is m/n Σ_i (M + 1 + (i-1)(m-1)/(n-1)) / (N + i), in which Σ_i 1/(N+i) is a difference of harmonic
    numbers h, and Σ_i (i-1)/(N+i) = n - (N+1)h.
    """
    places = np.arange(steps_bG.shape[1])
    starts = np.concatenate((np.ones((len(steps_bG), 1), bool), steps_bG[:, 1:] != steps_bG[:, :-1]), axis=1)
    start_bG = np.maximum.accumulate(np.where(starts, places, 0), axis=1)
    num_before = np.take_along_axis(start_bG, ranks_br - 1, axis=1)  # N

    changes = num_before[:, 1:] != num_before[:, :-1]
    edge, count = np.ones((len(ranks_br), 1), bool), ranks_br.shape[1]
    first = np.maximum.accumulate(np.where(np.concatenate((edge, changes), axis=1), np.arange(count), 0), axis=1)  # M
    ends = np.where(np.concatenate((changes, edge), axis=1), np.arange(count), count)
    last = np.minimum.accumulate(ends[:, ::-1], axis=1)[:, ::-1]

    size = np.take_along_axis(ranks_br, last, axis=1) - num_before  # n
    h = harmonic[num_before + size] - harmonic[num_before]
    others = (last - first) / np.maximum(size - 1, 1)  # (m-1)/(n-1); a tie of one has no others
    expected: FloatArray = ((first + 1) * h + others * (size - (num_before + 1) * h)) / size
    return expected


def precision_recall(
    query_QE: npt.ArrayLike,
    gallery_GE: npt.ArrayLike,
    query_class_Q: npt.ArrayLike,
    gallery_class_G: npt.ArrayLike,
    *,
    points: int = 11,
    block_values: int = _BLOCK_VALUES,
) -> FloatArray:
    """Interpolated precision at evenly spaced recalls from 0 to 1, as a mean over the queries.

    The interpolated precision at a recall is the highest precision at that recall or a higher one. Tied items are
    retrieved together. Arguments and errors are those of `average_precision`.

    Returns:
        [points], the precision at recall i / (points - 1); NaN without a query that has a relevant item.
    """
    total, count = np.zeros(points), 0
    for block in _blocks(query_QE, gallery_GE, query_class_Q, gallery_class_G, block_values):
        _, ranks = block.ranked()
        relevant = ranks.shape[1]
        # Relevant items come last in a tie, so within it precision rises to that of the whole tie.
        precision = np.arange(1, relevant + 1) / ranks
        highest = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
        # Item number ceil(recall * relevant), in integers because 0.3 * 10 is more than 3 in floating point.
        item = -(-np.arange(points) * relevant // (points - 1))
        total += highest[:, np.maximum(item - 1, 0)].sum(axis=0)
        count += len(ranks)
    return total / count if count else np.full(points, np.nan)


def first_classes(
    query_QE: npt.ArrayLike,
    gallery_GE: npt.ArrayLike,
    query_class_Q: npt.ArrayLike,
    gallery_class_G: npt.ArrayLike,
    *,
    num_classes: int,
    k: int = 10,
    block_values: int = _BLOCK_VALUES,
) -> FloatArray:
    """Expected fraction of each class among a query's first k items, or among all if the gallery has fewer.

    Precision at k of a query is the fraction of its own class. Arguments and errors are those of `average_precision`,
    with classes as integers from 0 to `num_classes` - 1.

    Returns:
        [Q, C], rows adding up to 1; NaN for a query without a vector or without a relevant item.
    """
    if k < 1:
        raise ValueError(f"k is {k}, expected at least 1")
    result = np.full((len(np.asarray(query_QE)), num_classes), np.nan)
    for block in _blocks(query_QE, gallery_GE, query_class_Q, gallery_class_G, block_values):
        steps = block.steps
        size = min(k, steps.shape[1])
        kth = np.partition(steps, size - 1, axis=1)[:, size - 1 : size]
        nearer, tied = (
            np.add.reduceat(cells, block.bounds, axis=1, dtype=np.int64) for cells in (steps < kth, steps == kth)
        )
        open_places = size - nearer.sum(axis=1, keepdims=True)
        counts = nearer + open_places * (tied / tied.sum(axis=1, keepdims=True))
        result[block.queries] = 0.0
        result[np.ix_(block.queries, block.classes.astype(np.int64))] = counts / size
    return result


def confusion(first_QC: npt.ArrayLike, query_class_Q: npt.ArrayLike) -> FloatArray:
    """Mean of `first_classes` over the queries of each class: [C, C], rows by the query's class; NaN without any."""
    first, classes = np.asarray(first_QC, np.float64), np.asarray(query_class_Q)
    known = ~np.isnan(first).any(axis=1)
    result = np.full((first.shape[1],) * 2, np.nan)
    for one in range(first.shape[1]):
        mine = known & (classes == one)
        if mine.any():
            result[one] = first[mine].mean(axis=0)
    return result


@dataclass(frozen=True)
class _Block:
    """Queries of one class and the gallery, ordered by class.

    Attributes:
        queries: rows of the queries, [b].
        steps: distances in steps, [b, G]: smaller is nearer.
        relevant: columns of the queries' class.
        bounds: first column of each class.
        classes: each class.
    """

    queries: IntArray
    steps: Keys
    relevant: slice
    bounds: IntArray
    classes: FloatArray

    def ranked(self) -> tuple[Keys, IntArray]:
        """Sort the gallery of each query, with relevant items last in a tie.

        Returns:
            twice the steps, plus 1 for a relevant item, ascending, [b, G]; ranks of relevant items from 1, [b, r].
        """
        keys = self.steps << 1
        keys[:, self.relevant] += 1
        keys.sort(axis=1)
        places = np.flatnonzero(keys & 1).reshape(len(keys), -1)
        return keys, places - np.arange(len(keys))[:, None] * keys.shape[1] + 1


def _blocks(
    query_QE: npt.ArrayLike,
    gallery_GE: npt.ArrayLike,
    query_class_Q: npt.ArrayLike,
    gallery_class_G: npt.ArrayLike,
    block_values: int,
) -> Iterator[_Block]:
    query, query_rows, query_class = _directions(query_QE, query_class_Q, "query")
    gallery, _, gallery_class = _directions(gallery_GE, gallery_class_G, "gallery")
    if query.shape[1] != gallery.shape[1]:
        raise ValueError(f"queries have {query.shape[1]} dimensions, the gallery {gallery.shape[1]}")
    if not len(gallery):
        return
    classes, bounds = np.unique(gallery_class, return_index=True)
    ends = [*bounds[1:], len(gallery)]
    rows = max(1, block_values // len(gallery))
    for one, start, end in zip(classes, bounds, ends, strict=True):
        of_class = np.flatnonzero(query_class == one)
        for first in range(0, len(of_class), rows):
            block = of_class[first : first + rows]
            steps = cosine_steps(query[block], gallery)
            yield _Block(query_rows[block], steps, slice(start, end), bounds, classes)


def _directions(vectors: npt.ArrayLike, classes: npt.ArrayLike, name: str) -> tuple[FloatArray, IntArray, FloatArray]:
    """Vectors of length 1 ordered by class, without rows of NaN; with their row numbers and classes."""
    values, of_class = np.asarray(vectors, np.float64), np.asarray(classes, np.float64)
    if values.ndim != 2 or of_class.shape != values.shape[:1]:
        raise ValueError(
            f"{name} has shape {list(values.shape)}, its classes {list(of_class.shape)}; expected [R, E] and [R]"
        )
    known = ~np.isnan(values).all(axis=1)
    bad = int((~np.isfinite(values[known]).all(axis=1)).sum())
    if bad:
        raise ValueError(f"{name} has {bad} of {len(values)} rows with values that are not finite")
    rows = np.flatnonzero(known)
    rows = rows[np.argsort(of_class[rows], kind="stable")]
    return unit_rows(values[rows]), rows, of_class[rows]


def unit_rows(values_RE: FloatArray) -> FloatArray:
    """Rows of length 1; zeros stay zeros."""
    # Scale by the largest value first, so that squares neither underflow nor overflow.
    largest = np.abs(values_RE).max(axis=1, keepdims=True, initial=0.0)
    values = values_RE / np.where(largest > 0, largest, 1.0)
    length = np.linalg.norm(values, axis=1, keepdims=True)
    unit: FloatArray = values / np.where(length > 0, length, 1.0)
    return unit


def cosine_steps(query_QE: FloatArray, gallery_GE: FloatArray) -> Keys:
    """Negated cosines of rows of length 1, in steps: smaller is nearer, [Q, G]."""
    distances = (query_QE * -STEPS) @ gallery_GE.T
    return np.rint(distances, out=distances).astype(np.int32)
