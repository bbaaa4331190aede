"""Classes of real-valued labels: seven rounded ones, intervals, or two sides of a threshold."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Classes:
    """A partition of the real numbers into ordered classes.

    Attributes:
        names: names of the classes, lowest first.
        of: maps values [R] to class indices [R], from 0.
    """

    names: tuple[str, ...]
    of: Callable[[FloatArray], IntArray]

    def confusion(self, prediction: npt.ArrayLike, label: npt.ArrayLike) -> IntArray:
        """Count rows by class: [C, C], rows by the label's class and columns by the predicted class."""
        size = len(self.names)
        cells = self.of(np.asarray(label, np.float64)) * size + self.of(np.asarray(prediction, np.float64))
        return np.bincount(cells, minlength=size * size).astype(np.int64).reshape(size, size)


def intervals(bounds: tuple[float, ...], names: tuple[str, ...], *, bound_belongs_above: bool = False) -> Classes:
    """Classes between bounds; a value equal to a bound belongs to the class below or above it.

    Values are compared in fp32, the type of stored labels: 0.7 equals its bound in fp32 but is below it in fp64.
    """
    edges = np.asarray(bounds, np.float32)
    side = "right" if bound_belongs_above else "left"

    def of(values: FloatArray) -> IntArray:
        with np.errstate(over="ignore"):
            return np.searchsorted(edges, values.astype(np.float32), side=side).astype(np.int64)  # type: ignore[call-overload]  # `side` is a Literal there

    return Classes(names, of)


def _seven(values: FloatArray) -> IntArray:
    return np.round(np.clip(values, -3.0, 3.0)).astype(np.int64) + 3


# CMU-MOSI and CMU-MOSEI: clipped to [-3, 3] and rounded half to even, as MMSA does.
SEVEN = Classes(("−3", "−2", "−1", "0", "+1", "+2", "+3"), _seven)
# CH-SIMS, as in MMSA: a bound belongs to the class below it.
FIVE = intervals(
    (-0.7, -0.1, 0.1, 0.7),
    ("−1 … −0.7", "−0.7 … −0.1", "−0.1 … 0.1", "0.1 … 0.7", "0.7 … 1"),
)
THREE = intervals((-0.1, 0.1), ("−1 … −0.1", "−0.1 … 0.1", "0.1 … 1"))


def two_sides(threshold: float, *, threshold_is_positive: bool) -> Classes:
    """Negative and positive; the threshold itself belongs to one of them."""
    at = f"{threshold:g}".replace("-", "−")
    names = (f"< {at}", f"≥ {at}") if threshold_is_positive else (f"≤ {at}", f"> {at}")
    return intervals((threshold,), names, bound_belongs_above=threshold_is_positive)
