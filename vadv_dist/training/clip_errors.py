"""The best student's error on each validation clip, stored in the run's folder so that runs can be compared."""

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from vadv_dist.formats.parquet import BoundedParquet
from vadv_dist.storage import Location, atomic_file
from vadv_dist.tasks.base import FloatArray

_NAME = "validation-errors.parquet"
_STEP = b"step"
ClipErrors = dict[tuple[str, str], float]


def write_clip_errors(
    root: Location,
    names: Sequence[tuple[str, str]],
    errors: FloatArray,
    step: int,
    *,
    label: FloatArray,
    prediction: FloatArray,
) -> None:
    """Write the student's error on each clip, replacing those of an earlier step.

    Args:
        root: the run's folder.
        names: (source, clip_id) of R clips.
        errors: result of `Task.clip_errors`, [R].
        step: step of the checkpoint that was scored.
        label: [R].
        prediction: the student's, without calibration; written if it is one number per clip, [R].
    """
    columns: dict[str, Any] = {
        "source": [source for source, _ in names],
        "clip_id": [clip_id for _, clip_id in names],
        "error": errors,
    }
    if prediction.ndim == 1:
        columns |= {"label": label, "prediction": prediction}
    with atomic_file(root / _NAME) as partial:
        pq.write_table(pa.table(columns).replace_schema_metadata({_STEP: str(step).encode()}), partial)


def read_clip_errors(root: Location, step: int) -> ClipErrors | None:
    """Read errors by (source, clip id); None if there are none for this step."""
    table = _read(root, step)
    if table is None:
        return None
    names = zip(table["source"].to_pylist(), table["clip_id"].to_pylist(), strict=True)
    return dict(zip(names, table["error"].to_pylist(), strict=True))


def read_clip_predictions(root: Location, step: int) -> tuple[FloatArray, FloatArray] | None:
    """Read predictions without calibration and labels, [R] each; None if there are none for this step."""
    table = _read(root, step)
    if table is None or "prediction" not in table.column_names:
        return None
    return table["prediction"].to_numpy(), table["label"].to_numpy()


def _read(root: Location, step: int) -> pa.Table | None:
    """The file's rows if they are of this step."""
    path = root / _NAME
    if not path.is_file():
        return None
    with BoundedParquet(pa.BufferReader(path.read_bytes()), path) as file:
        table = file.read()
    return table if (table.schema.metadata or {}).get(_STEP) == str(step).encode() else None


def copy_clip_errors(source: Location, target: Location) -> None:
    """Copy the errors of another run, if it has any."""
    if (source / _NAME).is_file():
        (target / _NAME).write_bytes((source / _NAME).read_bytes())
