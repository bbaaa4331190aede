"""What could be read at best from made data, whose truth its document states."""

from collections.abc import Mapping
from pathlib import Path

from vadv_dist.reporting.run_files import RunRecord
from vadv_dist.storage import read_json

_INPUTS = {"text": "text", "video": "video", "text_and_video": "both"}


def best_attainable(truth: Mapping[str, object], metric: str) -> dict[str, float]:
    """Best score by input, from `truth` of a made data set's `dataset.json`; empty where it states none.

    Args:
        truth: what the document says.
        metric: key of the score.
    """
    stated = truth.get(f"best_{metric}")
    best = {}
    for key, name in _INPUTS.items():
        entry = stated.get(key) if isinstance(stated, Mapping) else None
        value = entry.get(metric) if isinstance(entry, Mapping) else None
        if isinstance(value, int | float):
            best[name] = float(value)
    return best


def best_attainable_of(run: RunRecord) -> dict[str, float]:
    """Best score by input of the data set that a run was made with; empty where that is not made data or has gone.

    Raises:
        UserError: the data set's document is damaged.
    """
    data = run.result.data if run.result is not None else []
    if len(data) != 1:
        return {}
    document = Path(str(data[0].get("place") or data[0].get("uri"))) / "dataset.json"
    if not document.is_file():
        return {}
    raw = read_json(document)
    truth = raw.get("truth")
    same = raw.get("fingerprint") == data[0].get("fingerprint")
    return best_attainable(truth, run.task.score) if same and isinstance(truth, Mapping) else {}
