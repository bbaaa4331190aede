"""Plots of retrieval: precision by recall, average precision by class, classes among the first ten items."""

from collections.abc import Sequence

import numpy as np

from vadv_dist.evaluation.retrieval import (
    AUDIO,
    DIRECTIONS,
    PHRASES,
    VISUAL,
    confusion,
    first_classes,
    precision_recall,
    score,
)
from vadv_dist.reporting.figures import draw_matrix
from vadv_dist.reporting.pictures import WIDE, Picture
from vadv_dist.reporting.run_files import FloatArray, Scored
from vadv_dist.reporting.words import MISSING

# Items that a reader looks at.
FIRST = 10
# More classes would not fit a matrix or a page.
MAX_CLASSES = 30

_RECALLS = 21
_ROLES = {"a2v": "o1", "v2a": "o2"}


def embeddings(evaluation: Scored) -> FloatArray:
    """The student's embeddings of audio and visual, [R, 2, E]."""
    return evaluation.predictions.values[evaluation.task.student.name]


def by_chance(evaluation: Scored) -> float:
    """mAP of a random ranking of the same clips."""
    return score(_equal(embeddings(evaluation)), evaluation.predictions.label)["map"]


def curve_pictures(evaluation: Scored, others: Sequence[tuple[str, Scored]] = ()) -> list[Picture]:
    """Precision by recall in both directions.

    Args:
        evaluation: the run's.
        others: name and evaluation of other runs' students, on the same clips.
    """
    pictures = []
    for direction, title in PHRASES.items():
        picture = Picture(f"precision-recall-{direction}", title[:1].upper() + title[1:], WIDE)
        picture.frame((0.0, 1.0), (0.0, 1.0), x_label="recall", ticks=(6, 6))
        picture.line(
            _curve(_equal(embeddings(evaluation)), evaluation, direction), "label", width=1, dashed=(0, (4, 3))
        )
        lines = [*((name, "other", theirs) for name, theirs in others), ("Student", "o1", evaluation)]
        for name, role, scored in lines:
            points = _curve(embeddings(scored), scored, direction)
            picture.line(points, role)
            picture.dots(points, role, [f"{name}: precision {y:.3f} at recall {x:.2f}" for x, y in points], radius=2)
        picture.keys = [*((name, role) for name, role, _ in reversed(lines)), ("random ranking", "label")]
        listed = ", ".join(f"{y:.2f} at recall {x:g}" for x, y in points[:: (_RECALLS - 1) // 4])
        picture.label = f"Precision by recall, {title}: {listed}."
        pictures.append(picture)
    return pictures


def class_picture(evaluation: Scored) -> Picture:
    """Mean average precision of each class of queries, in both directions."""
    label, classes = evaluation.predictions.label, evaluation.task.classes
    means = {
        direction: np.array([_mean(values[label == number]) for number in range(len(classes))])
        for direction, values in evaluation.precisions.items()
    }
    shown = _hardest(np.mean(list(means.values()), axis=0))
    names = [f"{classes[number]} ({int((label == number).sum())})" for number in shown]
    texts = [" · ".join(_decimal(values[number]) for values in means.values()) for number in shown]
    picture = Picture("class-precision", "mAP by class", (WIDE[0], 34 + 42 * len(names)))
    picture.rows(names, texts, (0.0, 1.0))
    for at, number in enumerate(shown):
        ends = [(float(values[number]), at) for values in means.values() if np.isfinite(values[number])]
        picture.line(ends, "label", width=1, dashed="-")
        for direction, values in means.items():
            if np.isfinite(values[number]):
                text = f"{classes[number]}, {PHRASES[direction]}: {values[number]:.3f}"
                picture.dots([(float(values[number]), at)], _ROLES[direction], [text], radius=4.5)
    picture.keys = [(PHRASES[direction], _ROLES[direction]) for direction in means]
    pairs = (f"{name} {text}" for name, text in zip(names, texts, strict=True))
    picture.label = f"mAP by class of the query, {' and '.join(PHRASES.values())}: {', '.join(pairs)}."
    return picture


def confusion_of_first(evaluation: Scored) -> list[Picture]:
    """Classes of the first ten items by class of the query, one picture per direction."""
    label, classes = evaluation.predictions.label, evaluation.task.classes
    pictures = []
    for direction, (query, gallery) in DIRECTIONS.items():
        pair = embeddings(evaluation)
        first = first_classes(pair[:, query], pair[:, gallery], label, label, num_classes=len(classes), k=FIRST)
        shares = confusion(first, label)
        shown = _hardest(np.diagonal(shares))
        kept, names = shares[np.ix_(shown, shown)], [classes[number] for number in shown]
        title = PHRASES[direction][:1].upper() + PHRASES[direction][1:]
        picture = Picture(f"first-classes-{direction}", title, (1.15 * WIDE[0], 110 + 26 * len(names)))
        texts = [_percent(share) for share in kept.flat]
        pairs = [(row, column) for row in names for column in names]
        hover = [
            f"query {row}: {text} % of the items are {column}" for (row, column), text in zip(pairs, texts, strict=True)
        ]
        draw_matrix(picture, kept, names, texts, hover, row_label="query")
        precision = _mean(np.array([first[row, int(number)] for row, number in enumerate(label)]))
        picture.note = f"precision at {FIRST}: {_percent(precision)} %"
        picture.label = f"Classes among the first {FIRST} items by class of the query, {title}: {picture.note}."
        pictures.append(picture)
    return pictures


def _curve(pair_R2E: FloatArray, evaluation: Scored, direction: str) -> list[tuple[float, float]]:
    query, gallery = DIRECTIONS[direction]
    label = evaluation.predictions.label
    precision = precision_recall(pair_R2E[:, query], pair_R2E[:, gallery], label, label, points=_RECALLS)
    return [(at / (_RECALLS - 1), float(value)) for at, value in enumerate(precision)]


def _equal(pair_R2E: FloatArray) -> FloatArray:
    """Embeddings that are all equal, which a ranking orders at random, [R, 2, 1]; NaN where the clip has none."""
    return np.where(np.isnan(pair_R2E[:, [AUDIO, VISUAL], :1]), np.nan, 1.0)


def _hardest(values_C: FloatArray) -> list[int]:
    """Numbers of the classes in their order: all, or the `MAX_CLASSES` with the lowest values."""
    if len(values_C) <= MAX_CLASSES:
        return list(range(len(values_C)))
    return sorted(np.argsort(values_C, kind="stable")[:MAX_CLASSES].tolist())


def _mean(values: FloatArray) -> float:
    """Mean of the values that are not NaN; NaN without any."""
    known = values[np.isfinite(values)]
    return float(known.mean()) if known.size else float("nan")


def _decimal(value: float) -> str:
    return f"{value:.3f}" if np.isfinite(value) else MISSING


def _percent(share: float) -> str:
    return f"{100 * share:.0f}" if np.isfinite(share) else MISSING
