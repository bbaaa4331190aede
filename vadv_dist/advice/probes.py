"""Linear probes on frozen features, each clip predicted by probes that saw no clip of its video.

Shape letters: R clips, D width, K targets.
"""

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
# Training rows and test rows of a fold.
Folds: TypeAlias = "Sequence[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]]"
# Makes the features of a fold's training rows and of its test rows.
Features: TypeAlias = "Callable[[npt.NDArray[np.int64], npt.NDArray[np.int64]], tuple[Any, Any]]"

NUM_FOLDS = 5
_PENALTIES = np.logspace(-2, 5, 15)


def video_folds(video_id: Sequence[str], *, seed: int) -> Folds:
    """Divide clips into folds, each video whole."""
    from sklearn.model_selection import GroupKFold

    rows = np.zeros(len(video_id))
    return list(GroupKFold(NUM_FOLDS, shuffle=True, random_state=seed).split(rows, groups=list(video_id)))


def out_of_fold(features: Features, target_RK: Floats, folds: Folds) -> Floats:
    """Predict targets by ridge regression, [R, K]; each target's penalty is chosen by leaving out one training clip."""
    from sklearn.linear_model import RidgeCV

    predicted = np.empty_like(target_RK)
    for train, test in folds:
        seen, unseen = features(train, test)
        mean_K, spread_K = target_RK[train].mean(axis=0), target_RK[train].std(axis=0)
        spread_K = np.where(spread_K > 0, spread_K, 1.0)
        probe = RidgeCV(_PENALTIES, alpha_per_target=True).fit(seen, (target_RK[train] - mean_K) / spread_K)
        predicted[test] = probe.predict(unseen).reshape(len(test), -1) * spread_K + mean_K
    return predicted


def dense(values_RD: npt.NDArray[np.floating]) -> Features:
    """Features as numbers, standardised by the training rows."""

    def of_fold(train: npt.NDArray[np.int64], test: npt.NDArray[np.int64]) -> tuple[Floats, Floats]:
        mean, spread = values_RD[train].mean(axis=0), values_RD[train].std(axis=0)
        spread = np.where(spread > 0, spread, 1.0)
        seen, unseen = ((values_RD[rows].astype(np.float64) - mean) / spread for rows in (train, test))
        return seen, unseen

    return of_fold


def words(texts: Sequence[str]) -> Features:
    """Words and pairs of words, weighted by TF-IDF of the training rows."""

    def of_fold(train: npt.NDArray[np.int64], test: npt.NDArray[np.int64]) -> tuple[Any, Any]:
        from sklearn.feature_extraction.text import TfidfVectorizer

        weights = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"(?u)\b\w+\b")
        return weights.fit_transform([texts[row] for row in train]), weights.transform([texts[row] for row in test])

    return of_fold
