"""A sequence of any length as the fixed number of frames that a data set stores.

Shape letters: L rows of a sequence, T frames, D width.
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from vadv_dist.data.schema import Array
from vadv_dist.errors import UserError

POOLS = ("mean", "sample")
NON_FINITE = ("zero", "drop", "error")
DTYPES = ("float16", "float32")
_CLIPS_LOOKED_AT = 64


@dataclass(frozen=True)
class Framing:
    """How sequences become frames.

    Attributes:
        frames: T; a sequence is cut into T parts of equal length. One is the mean over the whole sequence, or its
            middle row.
        pool: `mean` of each part, or `sample`, the row in the middle of each.
        non_finite: what NaN and infinity mean: `zero` puts 0 in their place, `drop` leaves the clip out, `error` ends.
        dtype: type that features are stored in.
    """

    frames: int = 8
    pool: str = "mean"
    non_finite: str = "zero"
    dtype: str = "float16"

    def __post_init__(self) -> None:
        if not 1 <= self.frames <= 100_000:
            raise UserError(f"--frames is {self.frames}, expected a number of frames from 1.")
        for option, value, known in (
            ("--pool", self.pool, POOLS),
            ("--non-finite", self.non_finite, NON_FINITE),
            ("--dtype", self.dtype, DTYPES),
        ):
            if value not in known:
                raise UserError(f"{option} is {value!r}, expected one of {', '.join(known)}.")

    def to_json(self) -> dict[str, Any]:
        """The options, for a data set's provenance."""
        return asdict(self)

    def apply(self, values_LD: Array) -> Array:
        """Cut a sequence of finite numbers, [L, D] with L ≥ 1, into frames [T, D], float64.

        Where L < T, neighbouring frames share rows.
        """
        length = len(values_LD)
        if self.pool == "sample":
            # The middle of part i of T, in exact integers.
            rows = (2 * np.arange(self.frames) + 1) * length // (2 * self.frames)
            return values_LD[rows].astype(np.float64)
        starts = np.arange(self.frames) * length // self.frames
        ends = -(-(np.arange(self.frames) + 1) * length // self.frames)
        # Not a running sum: that would carry a huge value into the means of later parts.
        with np.errstate(over="ignore"):
            parts = [values_LD[a:b].mean(axis=0, dtype=np.float64) for a, b in zip(starts, ends, strict=True)]
        return np.stack(parts)


def trim_zeros(values_LD: Array) -> Array:
    """Leave out rows at either end that are all zero: padding where a file gives no lengths."""
    rows = np.flatnonzero((values_LD != 0).any(axis=1))
    return values_LD[rows[0] : rows[-1] + 1] if len(rows) else values_LD[:0]


def zero_non_finite(values: Array) -> tuple[Array, int]:
    """Put 0 where a value is NaN or infinite.

    Returns:
        the values, and how many there were.
    """
    bad: npt.NDArray[np.bool_] = ~np.isfinite(values)
    count = int(bad.sum())
    return (np.where(bad, np.zeros((), values.dtype), values) if count else values), count


def looks_transposed(values_RLD: Array) -> bool:
    """Whether clips seem to lie as [D, L]: padded in columns, by another number of them in each, and never in rows."""
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
