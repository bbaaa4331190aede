"""The interface of pools, which run a search's trainings, and a pool that runs them in this process."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol, Self

from vadv_dist.config import Config
from vadv_dist.config.search import SearchConfig
from vadv_dist.errors import UserError
from vadv_dist.runtime.signals import is_termination
from vadv_dist.tuning.events import Event
from vadv_dist.tuning.session import TrainingSession

# Of `trainer.grace_s`, what trainings get; the rest is for leaving the cluster.
GRACE_SHARE = 0.7


class Pool(Protocol):
    """Runs up to `slots` trainings at a time, identified by keys; after an `Epoch` a training waits for `decide`."""

    @property
    def slots(self) -> int:
        """How many trainings may run now; the number can change."""
        ...

    def __enter__(self) -> Self:
        """Acquire the resources of the trainings."""
        ...

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        """Release the resources."""
        ...

    def start(self, key: str, config: Config) -> None:
        """Start the training of a configuration; there must be a free slot."""
        ...

    def next(self) -> tuple[str, Event] | None:
        """Wait for the next event of any training; None means that the number of slots has changed."""
        ...

    def decide(self, key: str, continues: bool) -> None:
        """Decide whether a training that reported an `Epoch` continues."""
        ...


def pool_for(
    config: Config,
    search: SearchConfig,
    *,
    use_ray: bool,
    callbacks: Sequence[Any] = (),
    on_results: Callable[[Any], None] | None = None,
    say: Callable[[str], None],
) -> Pool:
    """The pool of trainings that need the same resources.

    Args:
        config: one of the runs, for its number of workers and its storage.
        search: number of concurrent trainings, and the resources of one that trains in one process.
        use_ray: False runs one training after another in this process.
        callbacks, on_results, say: see `TunePool`.
    """
    if not use_ray:
        return LocalPool(config.trainer.grace_s)
    from vadv_dist.tuning.tune_pool import TunePool

    return TunePool(config, search, callbacks=callbacks, on_results=on_results, say=say)


def require_no_workers(config: Config) -> None:
    """Check that a run can train without Ray.

    Raises:
        UserError: it has workers.
    """
    if config.trainer.workers:
        raise UserError(
            f"trainer.num_workers is {config.trainer.workers}, which needs Ray. Give --trainer.num_workers=0, or "
            "leave --no-ray out."
        )


class LocalPool:
    """One training at a time in this process, without Ray.

    Args:
        grace_s: seconds that SIGTERM leaves a training to write a checkpoint.
    """

    def __init__(self, grace_s: float) -> None:
        self.slots = 1
        self._grace_s = grace_s
        self._session = TrainingSession()
        self._key = ""
        self._pending: Any = None  # the configuration to start, or the decision to pass on

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        """On SIGTERM, let the running training save a checkpoint."""
        if isinstance(error, KeyboardInterrupt) and is_termination(error):
            self._session.leave(self._grace_s * GRACE_SHARE)

    def start(self, key: str, config: Config) -> None:
        """See `Pool`."""
        self._key, self._pending = key, config

    def next(self) -> tuple[str, Event]:
        """See `Pool`."""
        pending = self._pending
        return self._key, self._session.begin(pending) if isinstance(pending, Config) else self._session.decide(pending)

    def decide(self, key: str, continues: bool) -> None:
        """See `Pool`."""
        self._pending = continues
