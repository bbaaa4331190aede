"""Trainings of a search (trials and repeats), and the loop that runs them in a pool."""

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence

from vadv_dist.config import Config
from vadv_dist.errors import MachineError, StorageError, UserError, VadvError
from vadv_dist.runs.checkpoint import last_checkpoint
from vadv_dist.runs.folder import FAILURE, RunFolder
from vadv_dist.runs.records import epoch_costs
from vadv_dist.runs.trained_on import TrainedOn
from vadv_dist.runtime.terminal import counted
from vadv_dist.storage import read_json, remove_tree, write_json
from vadv_dist.tuning.events import Blocked, Ended, Epoch, Event, Failed, Lost, Stopped
from vadv_dist.tuning.fork import epochs_trained, fork
from vadv_dist.tuning.pools import Pool
from vadv_dist.tuning.study import Asked, Study


class Job(ABC):
    """One training, and the handling of its events.

    Attributes:
        key: its name.
        config: the run to train.
        lost: why its process was lost last.
        trained_on: the data that it must be trained on; None for that of all jobs.
    """

    lost = ""
    trained_on: TrainedOn | None = None

    def __init__(self, key: str, config: Config) -> None:
        self.key, self.config = key, config

    @abstractmethod
    def begin(self) -> Event | None:
        """Record that it starts, or return how it ended if there is nothing left to train."""

    @abstractmethod
    def on_epoch(self, event: Epoch) -> bool:
        """Whether to continue after an epoch."""

    @abstractmethod
    def on_end(self, event: Event) -> bool:
        """Record the end; True starts the job again."""

    @abstractmethod
    def withdraw(self) -> None:
        """Forget that it has started, because it was interrupted, or could not start."""


def drive(
    pool: Pool,
    jobs: Iterator[Job],
    trained_on: TrainedOn | None = None,
    on_change: Callable[[Mapping[str, Job]], None] = lambda running: None,
    say: Callable[[str], None] = lambda text: None,
) -> None:
    """Run all jobs, as many at a time as the pool has slots; a job that is lost is started again.

    A signal, a notice or an error of another job interrupts those that run, and their starts do not count as losses.

    Args:
        pool: runs the trainings.
        jobs: yields the next job when a slot is free.
        trained_on: the data that every job must be trained on, so that they can be compared; a job may have its own.
        on_change: called with the running jobs when one has started or ended.
        say: prints a line when a job is started again without counting as lost.
    Raises:
        UserError: a job was trained on other data, for example because a data set was replaced meanwhile.
        StorageError: a job cannot write to its storage; it has not ended.
    """
    running: dict[str, Job] = {}
    try:
        _drive(pool, jobs, trained_on, on_change, say, running)
    except (KeyboardInterrupt, VadvError):
        for job in running.values():
            with contextlib.suppress(Exception):  # the study may be on the same full disk
                job.withdraw()
        raise


def _drive(
    pool: Pool,
    jobs: Iterator[Job],
    trained_on: TrainedOn | None,
    on_change: Callable[[Mapping[str, Job]], None],
    say: Callable[[str], None],
    running: dict[str, Job],
) -> None:
    """See `drive`; `running` holds the jobs that have started and not ended."""

    def start(job: Job) -> None:
        while (event := job.begin()) is not None:
            if not job.on_end(event):
                return
        running[job.key] = job
        pool.start(job.key, job.config)
        on_change(running)

    has_more = True
    while True:
        while has_more and len(running) < pool.slots:
            if (following := next(jobs, None)) is None:
                has_more = False
            else:
                start(following)
        if not running and not has_more:
            return
        if (found := pool.next()) is None:
            continue
        key, event = found
        job = running[key]
        _require_same_data(job, job.trained_on or trained_on)
        if isinstance(event, Epoch):
            pool.decide(key, job.on_epoch(event))
            continue
        if isinstance(event, Blocked):
            raise StorageError(f"{key}: {event.message}")
        del running[key]
        if isinstance(event, Lost):
            job.lost = event.reason
            if not event.counts:
                job.withdraw()
                say(f"{key} starts again: {event.reason}")
            start(job)
        elif job.on_end(event):
            start(job)
        else:
            on_change(running)


def _require_same_data(job: Job, trained_on: TrainedOn | None) -> None:
    folder = RunFolder.of(job.config)
    record = folder.trained_on()  # a run writes it before its first event
    if record is not None and trained_on is not None and not trained_on.has_data_of(record):
        expected, found = (" and ".join(map(str, each.data)) for each in (trained_on, record))
        raise UserError(
            f"This was started on {expected}, but {job.key} was trained on {found}. Restore the original data, "
            f"remove {folder.root}, and run the same command again."
        )


class TrialJob(Job):
    """A trial of the study.

    Args:
        study: the study.
        asked: the trial.
        config: its run.
        on_end: called with the event that ended it.
        until: in a population, the number of epochs after which it waits with a checkpoint; None trains to the end.
    """

    def __init__(
        self,
        study: Study,
        asked: Asked,
        config: Config,
        on_end: Callable[[Asked, Event], None],
        until: int | None = None,
    ) -> None:
        super().__init__(f"trial {asked.number}", config)
        self._study, self._asked, self._on_end, self._until = study, asked, on_end, until
        self._folder = RunFolder.of(config)

    def begin(self) -> Event | None:
        """See `Job`; also reports epochs that ended while the search was not running."""
        result = self._folder.result()
        for epoch, cost in epochs_of(self._folder):
            if not self._study.report(self._asked, epoch, cost) and result is None:
                return Stopped()
        if self._until is not None and epochs_trained(self._folder) >= self._until:
            if self._until - 1 not in self._asked.reported:
                raise MachineError(
                    f"{self._folder.root} has a checkpoint after epoch {self._until}, but its metrics.jsonl does not "
                    "contain that epoch. It was changed from outside; give the search another name (--run.name=…)."
                )
            return Stopped()
        if result is not None:
            return Ended(result)
        if self._study.falls_behind(self._asked):
            return Stopped()
        allowed = self.config.trainer.max_failures + 1
        last = last_checkpoint(self._folder.checkpoints)
        if self._study.begin(self._asked, last.step if last else 0) > allowed:
            return Failed("lost", f"lost {counted(allowed, 'time')} without reaching the next checkpoint. {self.lost}")
        return None

    def on_epoch(self, event: Epoch) -> bool:
        """See `Job`."""
        if event.epoch and event.epoch - 1 not in self._asked.reported:
            # The process of a search that was killed may have ended an epoch after `begin` looked.
            for line, cost in epoch_costs(self._folder.metrics_log().lines()):
                epoch = line.epoch
                if epoch < event.epoch and not self._study.report(self._asked, epoch, cost):
                    return False
        goes_on = self._study.report(self._asked, event.epoch, event.cost)
        return goes_on and (self._until is None or event.epoch + 1 < self._until)

    def withdraw(self) -> None:
        """See `Job`."""
        self._study.withdraw(self._asked)

    def on_end(self, event: Event) -> bool:
        """See `Job`."""
        if isinstance(event, Stopped) and self._until is not None:
            return False
        epochs = list(epochs_of(self._folder))
        # The best trials are trained again with other seeds, so no trial's weights are needed. They are removed before
        # the end is recorded, because a trial that has ended is not looked at again.
        strip(self._folder)
        if isinstance(event, Ended):
            for epoch, cost in epochs:  # the last epoch of a run may end without an event
                self._study.report(self._asked, epoch, cost)
            self._study.complete(self._asked, event.result)
        elif isinstance(event, Failed):
            self._study.fail(self._asked, event)
        else:
            self._study.prune(self._asked)
        self._on_end(self._asked, event)
        return False


class RunJob(Job):
    """A run that is no trial: it is never stopped early, and its folder records how it ended.

    If its values change during training, it consists of several run folders, one for each segment with constant values;
    each segment continues from the end of the one before.

    Args:
        key: its name.
        segments: the number of epochs after which each segment begins, and its configuration; the last folder is the
            run's.
        on_end: called with the event that ended it.
        keep: whether its checkpoints stay when it has ended.
        trained_on: see `Job`.
    """

    def __init__(
        self,
        key: str,
        segments: Sequence[tuple[int, Config]],
        on_end: Callable[[str, Event], None],
        *,
        keep: bool = False,
        trained_on: TrainedOn | None = None,
    ) -> None:
        super().__init__(key, segments[-1][1])
        self.trained_on = trained_on
        self._segments, self._on_end, self._keep = segments, on_end, keep
        self._folders = [RunFolder.of(config) for _, config in segments]
        self._current = self._starts = 0

    def begin(self) -> Event | None:
        """See `Job`."""
        if (event := outcome(self._folders[-1])) is not None:
            return event
        self._starts += 1
        if self._starts > self.config.trainer.max_failures + 1:
            return Failed("lost", f"lost {counted(self._starts - 1, 'time')}. {self.lost}")
        begun = [number for number, folder in enumerate(self._folders) if folder.config_path.is_file()]
        self._current = begun[-1] if begun else 0
        end, folder = self._end(), self._folders[self._current]
        if end is not None and epochs_trained(folder) >= end:
            self._current += 1
            fork(folder, self._segments[self._current][1], end)
        for earlier in self._folders[: self._current]:
            strip(earlier)
        self.config = self._segments[self._current][1]
        return None

    def on_epoch(self, event: Epoch) -> bool:
        """See `Job`."""
        end = self._end()
        return end is None or event.epoch + 1 < end

    def withdraw(self) -> None:
        """See `Job`."""
        self._starts -= 1

    def on_end(self, event: Event) -> bool:
        """See `Job`; the end of a segment starts the next one."""
        if isinstance(event, Stopped):
            self._starts -= 1
            return True
        if isinstance(event, Failed):
            write_json(self._folders[-1].root / FAILURE, {"kind": event.kind, "message": event.message})
        for earlier in self._folders[:-1]:
            strip(earlier)
        if not self._keep:
            strip(self._folders[-1], student=False)
        self._on_end(self.key, event)
        return False

    def _end(self) -> int | None:
        """Number of epochs at the end of the current segment; None for the last one."""
        return self._segments[self._current + 1][0] if self._current + 1 < len(self._segments) else None


def outcome(folder: RunFolder) -> Ended | Failed | None:
    """How a repeat ended, or None if it has not."""
    if (result := folder.result()) is not None:
        return Ended(result)
    path = folder.root / FAILURE
    return Failed(**read_json(path)) if path.is_file() else None


def epochs_of(folder: RunFolder) -> Iterator[tuple[int, float]]:
    """Yield each epoch that a checkpoint or the end of the run has made durable, with its cost."""
    result, last = folder.result(), last_checkpoint(folder.checkpoints)
    durable = result.steps if result else last.step if last else -1
    for line, cost in epoch_costs(folder.metrics_log().lines()):
        if line.step <= durable:
            yield line.epoch, cost


def strip(folder: RunFolder, *, student: bool = True) -> None:
    """Remove the large files of a run that has ended: checkpoints and, if wanted, the student."""
    for path in (folder.checkpoints, *((folder.student,) if student else ())):
        with contextlib.suppress(FileNotFoundError, VadvError):
            remove_tree(path)
