"""The student's metrics on any of the clips that it was scored on, for intervals over clips."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from vadv_dist.evaluation import classification
from vadv_dist.evaluation.retrieval import score_of_precisions
from vadv_dist.evaluation.seeds_and_clips import FloatArray, IntArray, clip_resamples, resampled_metrics
from vadv_dist.reporting.run_files import Scored

# The same files give the same intervals.
_SEED = 0

Names = list[tuple[str, str]]


@dataclass(frozen=True, eq=False)
class ClipMetrics:
    """An evaluation whose clips are in the order of their names.

    Attributes:
        scored: the evaluation and its predictions.
    """

    scored: Scored

    @cached_property
    def _order(self) -> npt.NDArray[np.int64]:
        found = self.scored.predictions
        names = list(zip(found.source, found.clip_id, strict=True))
        return np.array(sorted(range(len(names)), key=names.__getitem__), np.int64)

    @cached_property
    def names(self) -> Names:
        """(source, clip id) of each clip."""
        found = self.scored.predictions
        return [(found.source[row], found.clip_id[row]) for row in self._order]

    @cached_property
    def label(self) -> FloatArray:
        """Labels of the clips, [R]."""
        return self.scored.predictions.label[self._order]

    def has_clips_of(self, other: "ClipMetrics") -> bool:
        """Whether both were scored on the same clips with the same labels."""
        return self.names == other.names and np.array_equal(self.label, other.label)

    def of(self, rows: IntArray) -> dict[str, float]:
        """The student's metrics on the clips in these rows; a metric that is no function of them is left out."""
        if self.scored.retrieves:
            return score_of_precisions({name: p[rows] for name, p in self._precisions.items()}, self.label[rows])
        if self.scored.classifies:
            return classification.score(self._values[rows], self.label[rows])
        return self.scored.scale.score(self._values[rows], self.label[rows])

    @cached_property
    def resampled(self) -> dict[str, FloatArray]:
        """Metrics on resamples of the clips, [B] each; the resamples are the same for evaluations of the same clips."""
        return resampled_metrics(self.of, clip_resamples(len(self.label), _SEED))

    @cached_property
    def _values(self) -> FloatArray:
        return self.scored.predictions.values[self.scored.task.student.name][self._order]

    @cached_property
    def _precisions(self) -> dict[str, FloatArray]:
        return {name: precision[self._order] for name, precision in self.scored.precisions.items()}
