"""Whether a stored evaluation is of what the run was trained on, by the fingerprints that both record."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from vadv_dist.errors import UserError
from vadv_dist.storage import read_json

TRAINED_ON = "trained-on.json"


def trained_on(run: Path) -> list[str]:
    """Fingerprints of the data sets that a run was trained on, in order; empty where nothing records them."""
    return _fingerprints(_data(run))


def require_own_data(run: Path, document: Path, theirs: Sequence[object], again: str) -> None:
    """Refuse an evaluation of other data than the run's own.

    Args:
        run: the run's folder.
        document: the evaluation's file.
        theirs: the data sets that it names.
        again: the command that writes it anew, for the message.
    Raises:
        UserError: with both named.
    """
    own = _data(run)
    if own and theirs and _fingerprints(own) != _fingerprints(theirs):
        raise UserError(
            f"{document} is of {_listed(theirs)}, but the run was trained on {_listed(own)}. Evaluate the run again: "
            f"{again}."
        )


def _data(run: Path) -> Sequence[object]:
    for name in (TRAINED_ON, "result.json"):
        if (run / name).is_file() and isinstance(data := read_json(run / name).get("data"), list):
            return data
    return []


def _fingerprints(data: Sequence[object]) -> list[str]:
    return [str(entry.get("fingerprint")) for entry in data if isinstance(entry, Mapping)]


def _listed(data: Sequence[object]) -> str:
    return " and ".join(
        f"{entry.get('place') or entry.get('uri')} (fingerprint {str(entry.get('fingerprint'))[:12]})"
        for entry in data
        if isinstance(entry, Mapping)
    )
