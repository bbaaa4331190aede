"""The metrics that exist for a data set's labels; everything that scores, shows or searches metrics uses this file."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from vadv_dist.evaluation.classes import FIVE, SEVEN, THREE, Classes, FloatArray, IntArray, intervals, two_sides
from vadv_dist.evaluation.description import Metric
from vadv_dist.evaluation.metrics import accuracy, checked, pearson, weighted_f1

_MOSI, _SIMS = (-3.0, 3.0), (-1.0, 1.0)
# Metrics of two classes that count the threshold on another side than in [-1, 1].
_OTHER_SIDES = ("a2_has0", "a2_non0", "f1_has0", "f1_non0")


@dataclass(frozen=True)
class _Share:
    """A metric over classes: the classes, the function, and whether rows at the threshold are excluded."""

    metric: Metric
    classes: Classes
    score: Callable[[IntArray, IntArray], float]
    drops_threshold: bool = False


@dataclass(frozen=True)
class LabelScale:
    """The range of a data set's labels, the threshold of its two classes, and the resulting metrics.

    MAE and Pearson's correlation exist for all labels. Class metrics follow publications for the range:

    * [-3, 3] (CMU-MOSI, CMU-MOSEI): A7, of values clipped and rounded half to even;
    * [-1, 1] (CH-SIMS): A5 and A3, in MMSA's intervals;
    * every range: A2 and the weighted F1 of two classes. `has0` counts the threshold as positive and `non0` excludes
      clips labelled with it, whatever its value; [-1, 1] has `neg0` instead, which counts it as negative.

    All are equal to MMSA's `metricsTop`, except MAE and correlation in [-1, 1], where MMSA clips predictions first.

    Attributes:
        low, high: lowest and highest label.
        threshold: the label that separates negative from positive, between them; on which side it counts itself, the
            metrics say.
    """

    low: float = -3.0
    high: float = 3.0
    threshold: float = 0.0

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> "LabelScale":
        """Read the result of `to_json`.

        Raises:
            KeyError, TypeError, ValueError: it is something else.
        """
        low, high, threshold = (float(raw[name]) for name in ("low", "high", "threshold"))
        if not low < threshold < high:
            raise ValueError(f"label range {low:g} to {high:g} with threshold {threshold:g}")
        return cls(low, high, threshold)

    def to_json(self) -> dict[str, float]:
        """As plain containers."""
        return asdict(self)

    @property
    def middle(self) -> float:
        """The middle of the range."""
        return (self.low + self.high) / 2

    @property
    def unit(self) -> float:
        """A sixth of the range: 1 for labels in [-3, 3]."""
        return (self.high - self.low) / 6

    @cached_property
    def metrics(self) -> tuple[Metric, ...]:
        """The metrics of the range, in the order of every table."""
        return (_MAE, _CORR, *(share.metric for share in self._shares))

    @cached_property
    def classes(self) -> tuple[Metric, Classes]:
        """The finest classes of the range, and the metric that counts correct ones."""
        return self._shares[0].metric, self._shares[0].classes

    def classes_of(self, label: npt.ArrayLike) -> tuple[Classes, Metric | None, str]:
        """Classes that show labels: the finest of the range, or the labels themselves if they take fewer values.

        Args:
            label: [R]; they are few values if each occurs twice on average.
        Returns:
            the classes; the metric that counts correct ones, if there is one; how values become classes, in a
            sentence, empty if their names are enough.
        """
        metric, classes = self.classes
        values = np.unique(np.asarray(label, np.float64))
        if 1 < len(values) < len(classes.names) and 2 * len(values) <= np.size(label):
            names = tuple(f"{value:g}".replace("-", "−") for value in values)
            bounds = tuple(float(value) for value in (values[1:] + values[:-1]) / 2)
            return intervals(bounds, names), None, "A prediction counts as the nearest label that occurs."
        return classes, metric, "Both are clipped to [−3, 3] and rounded half to even." if self._is(_MOSI) else ""

    def score(self, prediction: npt.ArrayLike, label: npt.ArrayLike) -> dict[str, float]:
        """Score predictions of R clips.

        A class metric is left out if all labels are of one class, because a constant would score 100 %.

        Args:
            prediction: in label units, [R], any finite numbers.
            label: [R].
        Returns:
            value by key of `metrics`; `corr` is NaN if either side is constant. Class metrics are fractions in [0, 1].
        Raises:
            ValueError: no rows, arrays of different or more than one dimension, or a value that is not finite.
        """
        p, y = checked(prediction, label)
        scores = {"mae": float(np.abs(p - y).mean()), "corr": pearson(p, y)}
        for share in self._shares:
            kept = self._kept(share, y)
            truth = share.classes.of(y[kept])
            if np.unique(truth).size > 1:
                scores[share.metric.key] = share.score(share.classes.of(p[kept]), truth)
        return scores

    def absent(self, label: npt.ArrayLike | None = None) -> dict[str, str]:
        """Why well-known metrics are absent, by key.

        Args:
            label: labels to be scored, or their lowest and highest; None considers only the range.
        """
        reasons = dict(self._undefined)
        if label is not None:
            y = np.asarray(label, np.float64)
            for share in self._shares:
                truth = share.classes.of(y[self._kept(share, y)])
                if np.unique(truth).size < 2:
                    reasons[share.metric.key] = self._one_class(share, y)
        return reasons

    def in_words(self, absent: Mapping[str, str]) -> list[str]:
        """The result of `absent` as sentences, one for each reason."""
        titles = {key: metric.title for key, metric in METRICS.items()} | {m.key: m.title for m in self.metrics}
        by_reason: dict[str, list[str]] = {}
        said = []
        for key, reason in absent.items():
            if self._is(_SIMS) and key in _OTHER_SIDES:
                said = [f"{reason[0].upper()}{reason[1:]}."]
            else:
                by_reason.setdefault(reason, []).append(titles[key])
        return [*said, *(f"No {', '.join(names)}: {reason}." for reason, names in by_reason.items())]

    @cached_property
    def notes(self) -> list[str]:
        """How the metrics are computed, in sentences."""
        at = self._at
        notes = ["MAE is in label units and unclipped; Corr is Pearson’s."]
        if self._is(_MOSI):
            notes.append("A7 clips to [−3, 3] and rounds half to even.")
        if self._is(_SIMS):
            notes.append(
                "A5 and A3 are MMSA’s for CH-SIMS: classes end at ±0.1 and, for A5, at ±0.7; a bound belongs to the "
                f"class below it. {self._convention('neg')}: every clip, {at} counts as negative. F1 is weighted."
            )
        else:
            notes.append(
                f"{self._convention('has')}: every clip, {at} counts as positive. {self._convention('non')}: clips "
                f"labelled {at} are left out. F1 is weighted."
            )
        return notes

    def __str__(self) -> str:
        return f"[{self.low:g}, {self.high:g}], threshold {self.threshold:g}"

    @cached_property
    def _shares(self) -> tuple[_Share, ...]:
        shares = []
        if self._is(_MOSI):
            shares.append(_Share(Metric("a7", "A7"), SEVEN, accuracy))
        if self._is(_SIMS):
            shares += [_Share(Metric("a5", "A5"), FIVE, accuracy), _Share(Metric("a3", "A3"), THREE, accuracy)]
        for key, name, score in (("a2", "A2", accuracy), ("f1", "F1", weighted_f1)):
            for rule in ("neg",) if self._is(_SIMS) else ("has", "non"):
                metric = Metric(f"{key}_{rule}0", name, convention=self._convention(rule))
                classes = two_sides(self.threshold, threshold_is_positive=rule == "has")
                shares.append(_Share(metric, classes, score, drops_threshold=rule == "non"))
        return tuple(shares)

    @cached_property
    def _undefined(self) -> dict[str, str]:
        """Published metrics of other ranges, and why they are absent here."""
        mine = f"these are in [{self.low:g}, {self.high:g}]"
        reasons = {}
        if not self._is(_MOSI):
            reasons["a7"] = f"defined for labels in [-3, 3], {mine}"
            if not self._is(_SIMS):
                reasons |= dict.fromkeys(("a5", "a3"), f"defined for labels in [-1, 1], {mine}")
        if self._is(_SIMS):
            reason = (
                f"{self._at} counts as negative for labels in [-1, 1], as in CH-SIMS, so A2 and F1 exist only in this "
                f"way (neg0), and neither with {self._at} as positive (has0) nor without such clips (non0)"
            )
            reasons |= dict.fromkeys(_OTHER_SIDES, reason)
        return reasons

    def _one_class(self, share: _Share, y: FloatArray) -> str:
        if share.metric.convention:
            rest = " other than that" if share.drops_threshold and (y == np.float32(self.threshold)).any() else ""
            return f"every label{rest} is on one side of the threshold {self.threshold:g}"
        return "every label is in the same class"

    def _kept(self, share: _Share, y: FloatArray) -> npt.NDArray[np.bool_]:
        with np.errstate(over="ignore"):
            return (y.astype(np.float32) != np.float32(self.threshold)) | (not share.drops_threshold)

    def _is(self, bounds: tuple[float, float]) -> bool:
        return (self.low, self.high) == bounds

    @property
    def _at(self) -> str:
        return "zero" if self.threshold == 0 else f"{self.threshold:g}".replace("-", "−")

    def _convention(self, rule: str) -> str:
        return f"{rule}0" if self.threshold == 0 else f"{rule} {self.threshold:g}"


_MAE = Metric("mae", "MAE", "label", lower_is_better=True, worst=None)
_CORR = Metric("corr", "Corr", "", worst=-1.0)
# Every metric of any label range, by key; for a data set with another threshold than 0, `LabelScale.metrics` has the
# right names.
METRICS = {m.key: m for m in (*LabelScale().metrics, *LabelScale(-1.0, 1.0).metrics)}
