"""Example retrievals: queries with their nearest items, as a reader of the page judges them."""

from dataclasses import dataclass

import numpy as np

from vadv_dist.evaluation.classes import IntArray
from vadv_dist.evaluation.retrieval import DIRECTIONS
from vadv_dist.reporting.markup import Markup, join, tag
from vadv_dist.reporting.retrieval_figures import FIRST, embeddings
from vadv_dist.reporting.run_files import FloatArray, Scored

# Queries of one direction.
MAX_QUERIES = 15


@dataclass(frozen=True)
class Example:
    """A query and its nearest items.

    Attributes:
        row: row of the query.
        items: rows of its nearest items, nearest first; tied ones in the order of the clips.
        precision: the query's average precision.
        own_rank: rank of the query's own clip, from 1; None if the clip lacks the other modality.
    """

    row: int
    items: list[int]
    precision: float
    own_rank: int | None


def examples(evaluation: Scored, direction: str) -> list[Example]:
    """One query per class: the clip whose average precision is the median of its class; at most `MAX_QUERIES`."""
    query, gallery = DIRECTIONS[direction]
    pair, precision, label = embeddings(evaluation), evaluation.precisions[direction], evaluation.predictions.label
    rows = []
    for number in range(len(evaluation.task.classes)):
        mine = np.flatnonzero((label == number) & np.isfinite(precision))
        if mine.size:
            rows.append(int(mine[np.argsort(precision[mine], kind="stable")[(mine.size - 1) // 2]]))
    if len(rows) > MAX_QUERIES:
        rows = [rows[at] for at in np.linspace(0, len(rows) - 1, MAX_QUERIES).round().astype(int)]
    found = []
    for row in rows:
        order = _nearest(pair[row, query], pair[:, gallery]).tolist()
        own_rank = order.index(row) + 1 if row in order else None
        found.append(Example(row, order[:FIRST], float(precision[row]), own_rank))
    return found


def examples_list(evaluation: Scored, direction: str) -> Markup:
    """The examples of one direction as markup."""
    return join(*(_example(evaluation, example) for example in examples(evaluation, direction)))


def _example(evaluation: Scored, example: Example) -> Markup:
    names, label = evaluation.task.classes, evaluation.predictions.label.astype(int)
    clip_id = evaluation.predictions.clip_id
    right = sum(label[item] == label[example.row] for item in example.items)
    own = "" if example.own_rank is None else f" · own clip at rank {example.own_rank}"
    facts = f"{right} of {len(example.items)} right · average precision {example.precision:.3f}{own}"
    items = []
    for item in example.items:
        hit = label[item] == label[example.row]
        mark = tag("b", "✓" if hit else "✗", title="right" if hit else "wrong")
        own_clip = " (own clip)" if item == example.row else ""
        place = tag("small", clip_id[item], own_clip, title=clip_id[item])
        items.append(tag("li", tag("span", mark, " ", names[label[item]]), place, class_="hit" if hit else "miss"))
    asked = tag("p", tag("b", names[label[example.row]]), " ", tag("code", clip_id[example.row]), tag("small", facts))
    return tag("div", asked, tag("ol", *items), class_="query")


def _nearest(query_E: FloatArray, gallery_GE: FloatArray) -> IntArray:
    """Rows of the gallery by falling cosine, without those of NaN."""
    with np.errstate(invalid="ignore"):
        length = np.linalg.norm(gallery_GE, axis=1) * np.linalg.norm(query_E)
        cosine = np.where(length > 0, gallery_GE @ query_E / np.where(length > 0, length, 1.0), 0.0)
    known = np.flatnonzero(~np.isnan(gallery_GE).any(axis=1))
    return known[np.argsort(-cosine[known], kind="stable")]
