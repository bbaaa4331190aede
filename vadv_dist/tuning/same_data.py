"""Check that all trials of a search are trained on the same data; otherwise they cannot be compared."""

from typing import Any, Self

from vadv_dist.config import config_from_dict
from vadv_dist.errors import UserError
from vadv_dist.runs.folder import RunFolder
from vadv_dist.runs.trained_on import TrainedOn
from vadv_dist.tuning.events import Event
from vadv_dist.tuning.pools import Pool


class SameData:
    """A pool that stops the search if a training reads other data, such as a data set replaced during the search.

    Args:
        pool: runs the trainings.
        trained_on: the data sets and encoder that the search was started with.
    """

    def __init__(self, pool: Pool, trained_on: TrainedOn) -> None:
        self._pool, self._trained_on = pool, trained_on
        self._unchecked: dict[str, RunFolder] = {}

    @property
    def slots(self) -> int:
        """See `Pool`."""
        return self._pool.slots

    def __enter__(self) -> Self:
        self._pool.__enter__()
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self._pool.__exit__(kind, error, trace)

    def start(self, key: str, raw: dict[str, Any]) -> None:
        """See `Pool`."""
        self._unchecked[key] = RunFolder.of(config_from_dict(raw))
        self._pool.start(key, raw)

    def next(self) -> tuple[str, Event]:
        """See `Pool`; the first event of a training comes after it has recorded what it reads.

        Raises:
            UserError: it was trained on something else.
        """
        key, event = self._pool.next()
        folder = self._unchecked.pop(key, None)
        record = None if folder is None else folder.trained_on()
        if record is not None and not self._trained_on.has_data_of(record):
            listed = [" and ".join(str(source) for source in each.data) for each in (self._trained_on, record)]
            raise UserError(
                f"The search was started on {listed[0]}, but {key} was trained on {listed[1]}. Restore it, remove "
                f"{folder.root if folder else key}, and run the same command again."
            )
        return key, event

    def answer(self, key: str, go_on: bool) -> None:
        """See `Pool`."""
        self._pool.answer(key, go_on)
