"""Values that change in the middle of a run, and a run under another seed that changes them at the same epochs."""

from collections.abc import Callable, Mapping, Sequence

from vadv_dist.config import Config
from vadv_dist.runs.folder import RunFolder
from vadv_dist.tuning.events import Epoch, Event, Stopped
from vadv_dist.tuning.fork import epochs_behind, fork
from vadv_dist.tuning.jobs import RepeatJob, strip
from vadv_dist.tuning.space import Value

# Values and the number of epochs after which they hold, from 0 upwards; most schedules have one entry.
Schedule = tuple[tuple[int, Mapping[str, Value]], ...]


def constant(values: Mapping[str, Value]) -> Schedule:
    """A schedule that never changes."""
    return ((0, values),)


def last_values(schedule: Schedule) -> dict[str, Value]:
    """What holds at the end."""
    return dict(schedule[-1][1])


class ReplayJob(RepeatJob):
    """A repeat whose values change: a run folder for each stretch, each begun from the end of the one before.

    Args:
        key: what it is called.
        stretches: epochs after which a stretch begins, and its configuration; the last one's folder is the repeat's.
        on_end: told how it ended.
    """

    def __init__(self, key: str, stretches: Sequence[tuple[int, Config]], on_end: Callable[[str, Event], None]) -> None:
        super().__init__(key, stretches[-1][1], on_end)
        self._stretches = [(after, config, RunFolder.of(config)) for after, config in stretches]
        self._place = 0

    def begin(self) -> Event | None:
        """See `Job`."""
        if (event := super().begin()) is not None:
            return event
        begun = [place for place, (_, _, folder) in enumerate(self._stretches) if folder.config_path.is_file()]
        self._place = begun[-1] if begun else 0
        end = self._end()
        if end is not None and epochs_behind(self._stretches[self._place][2]) >= end:
            fork(self._stretches[self._place][2], self._stretches[self._place + 1][1], end)
            self._place += 1
        for _, _, folder in self._stretches[: self._place]:
            strip(folder)
        self.config = self._stretches[self._place][1]
        return None

    def on_epoch(self, event: Epoch) -> bool:
        """See `Job`."""
        end = self._end()
        return end is None or event.epoch + 1 < end

    def on_end(self, event: Event) -> bool:
        """See `Job`; at the end of a stretch the next one begins."""
        if isinstance(event, Stopped):
            self._starts -= 1
            return True
        again = super().on_end(event)
        if not again:
            for _, _, folder in self._stretches[:-1]:
                strip(folder)
        return again

    def _end(self) -> int | None:
        """Epochs after which the stretch at hand ends."""
        return self._stretches[self._place + 1][0] if self._place + 1 < len(self._stretches) else None
