"""Convert a sequence of any length to the fixed number of frames of a data set.

Shape letters: L rows of a sequence, T frames, D width.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vadv_dist.data.schema import Array, FeatureSpec
from vadv_dist.errors import UserError

POOLS = ("mean", "sample")
NON_FINITE = ("zero", "drop", "error")
DTYPES = ("float16", "float32")
_MAX_FRAMES = 100_000
_CLIPS_LOOKED_AT = 64


@dataclass(frozen=True)
class Framing:
    """How sequences become frames.

    Attributes:
        frames: T; a sequence is cut into T parts of equal length. With one frame it is the mean over the whole
            sequence, or its middle row.
        pool: `mean` of each part, or `sample`, the middle row of each.
        non_finite: treatment of NaN and infinity: `zero` replaces them by 0, `drop` drops the clip, `error` stops.
        dtype: stored type of features.
    """

    frames: int = 8
    pool: str = "mean"
    non_finite: str = "zero"
    dtype: str = "float16"

    def __post_init__(self) -> None:
        if not 1 <= self.frames <= _MAX_FRAMES:
            raise UserError(f"--frames is {self.frames}, expected a number from 1 to {_MAX_FRAMES:,}.")
        require_one_of("--pool", self.pool, POOLS)
        require_one_of("--non-finite", self.non_finite, NON_FINITE)
        require_one_of("--dtype", self.dtype, DTYPES)

    def spec(self, feature: str, width: int) -> FeatureSpec:
        """Shape and stored type of a feature whose rows have D values."""
        return FeatureSpec((self.frames, 1, width) if feature == "visual" else (self.frames, width), self.dtype)

    def apply(self, values_LD: Array) -> Array:
        """Cut a sequence of finite numbers, [L, D] with L ≥ 1, into frames [T, D], float64.

        If L < T, neighbouring frames share rows.
        """
        length = len(values_LD)
        if self.pool == "sample":
            # The middle of part i of T, in exact integers.
            rows = (2 * np.arange(self.frames) + 1) * length // (2 * self.frames)
            return values_LD[rows].astype(np.float64)
        starts = np.arange(self.frames) * length // self.frames
        ends = -(-(np.arange(self.frames) + 1) * length // self.frames)
        # A running sum would carry a huge value into the means of later parts.
        with np.errstate(over="ignore"):
            parts = [values_LD[a:b].mean(axis=0, dtype=np.float64) for a, b in zip(starts, ends, strict=True)]
        return np.stack(parts)


def require_one_of(option: str, value: str, known: Sequence[str]) -> None:
    """Refuse an unknown value of a command-line option.

    Raises:
        UserError: with the known values.
    """
    if value not in known:
        raise UserError(f"{option} is {value!r}, expected one of {', '.join(known)}.")


def trim_zeros(values_LD: Array) -> Array:
    """Remove rows of zeros at both ends: padding if the file has no lengths."""
    rows = np.flatnonzero((values_LD != 0).any(axis=1))
    return values_LD[rows[0] : rows[-1] + 1] if len(rows) else values_LD[:0]


def zero_non_finite(values: Array) -> tuple[Array, int]:
    """Replace NaN and infinity by 0.

    Returns:
        the values and the number of replacements.
    """
    bad: npt.NDArray[np.bool_] = ~np.isfinite(values)
    count = int(bad.sum())
    return (np.where(bad, np.zeros((), values.dtype), values) if count else values), count


def stored(values: Array, dtype: str, where: str) -> Array:
    """Convert finite values to the stored type.

    Raises:
        UserError: the type cannot represent them.
    """
    limit = float(np.finfo(dtype).max)
    worst = float(np.abs(values.astype(np.float64)).max(initial=0))
    if not worst <= limit:
        advice = "Use --dtype float32." if dtype == "float16" else "Scale the features down."
        raise UserError(f"{where} has {worst:g}, which exceeds the range of {dtype} ({limit:g}). {advice}")
    return values.astype(dtype)


def looks_transposed(values_RLD: Array) -> bool:
    """Whether clips seem to have layout [D, L]: their padding is along the last axis only, with varying length."""
    padded = []
    for values_LD in values_RLD[:: max(1, len(values_RLD) // _CLIPS_LOOKED_AT)]:
        used = values_LD != 0
        rows, columns = np.flatnonzero(used.any(axis=1)), np.flatnonzero(used.any(axis=0))
        if not len(columns):
            continue  # a clip without the feature
        solid = len(columns) == columns[-1] - columns[0] + 1
        if len(rows) < values_LD.shape[0] or not solid:
            return False
        padded.append(values_LD.shape[1] - len(columns))
    return len(set(padded)) > 1
