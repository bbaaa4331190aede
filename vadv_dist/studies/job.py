"""The training of one run of a study."""

from collections.abc import Callable

from vadv_dist.runs.folder import FAILURE
from vadv_dist.runs.trained_on import TrainedOn
from vadv_dist.runtime.terminal import counted
from vadv_dist.storage import write_json
from vadv_dist.studies.plan import StudyRun
from vadv_dist.tuning.events import Epoch, Event, Failed
from vadv_dist.tuning.jobs import Job, outcome


class StudyJob(Job):
    """A run that trains to its end and keeps its checkpoints, which are evaluated afterwards.

    Args:
        run: the run.
        trained_on: the data that it must be trained on.
        on_end: called with the run and the event that ended it.
    """

    def __init__(self, run: StudyRun, trained_on: TrainedOn, on_end: Callable[[StudyRun, Event], None]) -> None:
        super().__init__(run.name, run.config)
        self.trained_on = trained_on
        self._run, self._on_end = run, on_end
        self._starts = 0

    def begin(self) -> Event | None:
        """See `Job`."""
        if (event := outcome(self._run.folder)) is not None:
            return event
        self._starts += 1
        if self._starts > self.config.trainer.max_failures + 1:
            return Failed("lost", f"lost {counted(self._starts - 1, 'time')}. {self.lost}")
        return None

    def on_epoch(self, event: Epoch) -> bool:
        """See `Job`."""
        return True

    def on_end(self, event: Event) -> bool:
        """See `Job`; a failure is recorded in the run's folder, so that a resumed study does not repeat it."""
        if isinstance(event, Failed):
            write_json(self._run.folder.root / FAILURE, {"kind": event.kind, "message": event.message})
        self._on_end(self._run, event)
        return False
