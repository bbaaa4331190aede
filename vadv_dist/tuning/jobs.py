"""Trainings of a search (trials and repeats), and the loop that runs them in a pool."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Protocol

from vadv_dist.config import Config, config_to_dict
from vadv_dist.errors import VadvError
from vadv_dist.runs.checkpoint import list_checkpoints
from vadv_dist.runs.folder import RunFolder
from vadv_dist.runs.records import epoch_costs
from vadv_dist.storage import read_json, remove_tree, write_json
from vadv_dist.tuning.events import Ended, Epoch, Event, Failed, Lost, Stopped
from vadv_dist.tuning.pools import Pool
from vadv_dist.tuning.study import Asked, Study
from vadv_dist.tuning.study_folder import FAILURE


class Job(Protocol):
    """One training, and the handling of its events."""

    key: str
    config: Config

    def begin(self) -> Event | None:
        """Note that it starts; or return how it ended, where there is nothing left to train."""
        ...

    def on_epoch(self, event: Epoch) -> bool:
        """Whether to continue after an epoch."""
        ...

    def on_end(self, event: Event) -> bool:
        """Record the end; True starts it again, from its last checkpoint."""
        ...


def drive(pool: Pool, next_job: Callable[[], Job | None]) -> None:
    """Run all jobs, as many at a time as the pool has slots."""
    running: dict[str, Job] = {}
    while True:
        while len(running) < pool.slots and (job := next_job()) is not None:
            _start(pool, job, running)
        if not running:
            return
        key, event = pool.next()
        job = running[key]
        if isinstance(event, Epoch):
            pool.answer(key, job.on_epoch(event))
            continue
        del running[key]
        if job.on_end(event):
            _start(pool, job, running)


def _start(pool: Pool, job: Job, running: dict[str, Job]) -> None:
    while (event := job.begin()) is not None:
        if not job.on_end(event):
            return
    running[job.key] = job
    pool.start(job.key, config_to_dict(job.config))


class TrialJob:
    """A trial of the study."""

    def __init__(self, study: Study, asked: Asked, config: Config, on_end: Callable[[Asked, Event], None]) -> None:
        self.key, self.config = f"trial {asked.number}", config
        self._study, self._asked, self._told = study, asked, on_end
        self._folder = RunFolder.of(config)
        self._lost = ""

    def begin(self) -> Event | None:
        """See `Job`; a trial that was running also reports epochs that it ended while the search was down."""
        result = self._folder.result()
        for epoch, cost in epochs_of(self._folder):
            if (
                epoch not in self._asked.reported
                and not self._study.report(self._asked, epoch, cost)
                and result is None
            ):
                return Stopped()
        if result is not None:
            return Ended(result)
        if self._study.falls_behind(self._asked):
            return Stopped()
        allowed = self.config.trainer.max_failures + 1
        step = max((checkpoint.step for checkpoint in list_checkpoints(self._folder.checkpoints)), default=0)
        if self._study.begin(self._asked, step) > allowed:
            return Failed("lost", f"lost {allowed} times without coming to its next checkpoint. {self._lost}")
        return None

    def on_epoch(self, event: Epoch) -> bool:
        """See `Job`."""
        if event.epoch and event.epoch - 1 not in self._asked.reported:
            # What a killed search has left running may have ended an epoch since `begin` looked.
            for epoch, cost in epochs_of(self._folder):
                if epoch < event.epoch and not self._study.report(self._asked, epoch, cost):
                    return False
        return self._study.report(self._asked, event.epoch, event.cost)

    def on_end(self, event: Event) -> bool:
        """See `Job`; a lost process is started again until `begin` says that it was lost too often."""
        if isinstance(event, Lost):
            self._lost = event.reason
            return True
        epochs = list(epochs_of(self._folder))
        # What is good is trained again under other seeds, so no trial's weights are needed. They go before the end is
        # recorded: nobody looks at a trial again that has ended.
        strip(self._folder)
        if isinstance(event, Ended):
            for epoch, cost in epochs:  # one that ended the run may not have been asked about
                self._study.report(self._asked, epoch, cost)
            self._study.complete(self._asked, event.result)
        elif isinstance(event, Failed):
            self._study.fail(self._asked, event)
        else:
            self._study.prune(self._asked)
        self._told(self._asked, event)
        return False


class RepeatJob:
    """A run outside the study: it is never stopped early, and its folder records how it ended."""

    def __init__(self, key: str, config: Config, on_end: Callable[[str, Event], None]) -> None:
        self.key, self.config = key, config
        self._told = on_end
        self._folder = RunFolder.of(config)
        self._lost = ""
        self._starts = 0

    def begin(self) -> Event | None:
        """See `Job`."""
        if (event := outcome(self._folder)) is not None:
            return event
        self._starts += 1
        if self._starts > self.config.trainer.max_failures + 1:
            return Failed("lost", f"lost {self._starts - 1} times. {self._lost}")
        return None

    def on_epoch(self, event: Epoch) -> bool:
        """See `Job`."""
        return True

    def on_end(self, event: Event) -> bool:
        """See `Job`."""
        if isinstance(event, Lost):
            self._lost = event.reason
            return True
        if isinstance(event, Failed):
            write_json(self._folder.root / FAILURE, {"kind": event.kind, "message": event.message})
        strip(self._folder, student=False)
        self._told(self.key, event)
        return False


def outcome(folder: RunFolder) -> Ended | Failed | None:
    """How a repeat ended, or None if it has not."""
    if (result := folder.result()) is not None:
        return Ended(result)
    path = folder.root / FAILURE
    if path.is_file():
        noted = read_json(path)
        return Failed(noted["kind"], noted["message"])
    return None


def epochs_of(folder: RunFolder) -> Iterator[tuple[int, float]]:
    """Each epoch that a checkpoint or the end of a run has made durable, with its cost."""
    checkpoints = list_checkpoints(folder.checkpoints)
    result = folder.result()
    last = result.steps if result else checkpoints[-1].step if checkpoints else -1
    for line, cost in epoch_costs(folder.metrics_log().lines()):
        if line.step <= last:
            yield line.epoch, cost


def strip(folder: RunFolder, *, student: bool = True) -> None:
    """Remove the large files of a run that has ended: checkpoints and the student."""
    for path in (folder.checkpoints, *((folder.student,) if student else ())):
        with contextlib.suppress(FileNotFoundError, VadvError):
            remove_tree(path)
