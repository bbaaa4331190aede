"""How far the best student of a run errs on each validation clip, kept beside the run so that runs can be compared."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from vadv_dist.formats.parquet import BoundedParquet
from vadv_dist.storage import Location, atomic_file
from vadv_dist.training.scoring import Scored

_NAME = "validation-errors.parquet"
_STEP = b"step"
ClipErrors = dict[tuple[str, str], float]


def write_clip_errors(root: Location, scored: Scored, step: int) -> None:
    """Keep the absolute error of the student on each clip, replacing those of an earlier step.

    Args:
        root: the run's folder.
        scored: what the validation gave.
        step: of the checkpoint that was scored.
    """
    error = np.abs(scored.logits["text_logit"].astype(np.float64) - scored.label)
    columns = {
        "source": [source for source, _ in scored.names],
        "clip_id": [clip_id for _, clip_id in scored.names],
        "error": error,
    }
    with atomic_file(root / _NAME) as partial:
        pq.write_table(pa.table(columns).replace_schema_metadata({_STEP: str(step).encode()}), partial)


def read_clip_errors(root: Location, step: int) -> ClipErrors | None:
    """Absolute errors by (source, clip id); None where none are kept, or only those of another step."""
    path = root / _NAME
    if not path.is_file():
        return None
    with BoundedParquet(pa.BufferReader(path.read_bytes()), path) as file:
        table = file.read()
    if (table.schema.metadata or {}).get(_STEP) != str(step).encode():
        return None
    names = zip(table["source"].to_pylist(), table["clip_id"].to_pylist(), strict=True)
    return dict(zip(names, table["error"].to_pylist(), strict=True))


def copy_clip_errors(source: Location, target: Location) -> None:
    """Take over the errors that another run keeps, where it keeps any."""
    if (source / _NAME).is_file():
        (target / _NAME).write_bytes((source / _NAME).read_bytes())
