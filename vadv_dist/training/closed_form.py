"""Determine a model in closed form, before the loop validates it."""

from collections.abc import Iterator
from dataclasses import dataclass

from vadv_dist.config.sections import Config
from vadv_dist.data.schema import Batch
from vadv_dist.data.sources import SplitShards
from vadv_dist.data.stream import BatchStream
from vadv_dist.data.windows import LocalWindows
from vadv_dist.tasks.base import Task


def fit_in_closed_form(task: Task, train: SplitShards, config: Config) -> None:
    """Fit a task's model to the train split; every rank reads all of it, and so finds the same model.

    Raises:
        UserError: a shard is damaged, or the data does not determine the model.
    """
    task.fit(_Epochs(task, train, config))


@dataclass(frozen=True)
class _Epochs:
    """The batches of the train split, in the order of its shards, as often as it is iterated over."""

    task: Task
    train: SplitShards
    config: Config

    def __iter__(self) -> Iterator[Batch]:
        plan = self.train.plan(
            self.config.data, seed=0, epoch=0, shuffle=False, batch_size=self.config.trainer.eval_batch_size
        )
        windows = LocalWindows(self.train)
        try:
            stream = BatchStream(
                plan=plan, windows=windows, collator=self.task.collator, rows_in_use=self.train.rows_in_use
            )
            for step in stream.steps():
                yield from step.micro
        finally:
            windows.close()
