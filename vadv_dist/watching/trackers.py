"""Experiment trackers that a run's metrics can be sent to: MLflow, Weights & Biases, TensorBoard files."""

import contextlib
import hashlib
import logging
import os
import queue
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from vadv_dist.errors import UserError, VadvError
from vadv_dist.runs.records import EpochLine, Line, StepLine

logger = logging.getLogger(__name__)

# Package that each tracker needs.
PACKAGES = {"mlflow": "mlflow", "wandb": "wandb", "tensorboard": "tensorboardX"}
# Lines that wait for a slow tracker; beyond them, the oldest are given up rather than training.
_WAITING = 10_000
_CLOSING_S = 30.0


class Tracker(Protocol):
    """What a tracker can do."""

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Take the values of one step."""
        ...

    def close(self) -> None:
        """Write what is not written yet."""
        ...


class TensorBoardTracker:
    """Event files below the run's folder, for `tensorboard --logdir`."""

    def __init__(self, folder: Path) -> None:
        from tensorboardX import SummaryWriter

        self._writer = SummaryWriter(str(folder / "tensorboard"), flush_secs=10)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """See `Tracker.log`."""
        for name, value in values.items():
            self._writer.add_scalar(_plain_name(name, _TENSORBOARD), value, step)

    def close(self) -> None:
        """See `Tracker.close`."""
        self._writer.close()


class MlflowTracker:
    """A run of an MLflow experiment, found again where the training goes on.

    `MLFLOW_TRACKING_URI` and `MLFLOW_EXPERIMENT_NAME` say where; without them it is `mlflow.db` beside the runs,
    and the experiment `vadv`.
    """

    def __init__(self, name: str, root: str, storage: Path | None, parameters: Mapping[str, object]) -> None:
        from mlflow.entities import Param, RunStatus
        from mlflow.tracking import MlflowClient

        beside_runs = None if storage is None else f"sqlite:///{storage.resolve() / 'mlflow.db'}"
        uri = os.environ.get("MLFLOW_TRACKING_URI") or beside_runs
        if uri is None:
            raise UserError(
                "telemetry.track is mlflow and run.storage is an object store, which holds no MLflow database. Set "
                "MLFLOW_TRACKING_URI to where MLflow's server is."
            )
        self._client = MlflowClient(uri)
        title = os.environ.get("MLFLOW_EXPERIMENT_NAME", "vadv")
        experiment = self._client.get_experiment_by_name(title)
        number = experiment.experiment_id if experiment else self._client.create_experiment(title)
        found = self._client.search_runs([number], f"tags.`vadv.folder` = '{_key(root)}'", max_results=1)
        if found:
            self._run = found[0].info.run_id
            self._client.update_run(self._run, RunStatus.to_string(RunStatus.RUNNING))
        else:
            self._run = self._client.create_run(number, run_name=name, tags={"vadv.folder": _key(root)}).info.run_id
            parameters_ = [Param(key, str(value)[:500]) for key, value in parameters.items()]
            for first in range(0, len(parameters_), 100):  # MLflow takes 100 at once
                self._client.log_batch(self._run, params=parameters_[first : first + 100])

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """See `Tracker.log`."""
        from mlflow.entities import Metric

        now_ms = int(time.time() * 1000)
        metrics = [Metric(_plain_name(name, _MLFLOW), value, now_ms, step) for name, value in values.items()]
        self._client.log_batch(self._run, metrics=metrics)

    def close(self) -> None:
        """See `Tracker.close`."""
        self._client.set_terminated(self._run)


class WandbTracker:
    """A run of Weights & Biases; project, entity and key come from its own variables (`WANDB_PROJECT`, …)."""

    def __init__(self, name: str, root: str, storage: Path | None, parameters: Mapping[str, object]) -> None:
        import wandb

        folder = str(storage / name) if storage is not None else None
        self._run: Any = wandb.init(
            name=name,
            id=_key(root)[:32],
            resume="allow",
            dir=folder,
            config=dict(parameters),
            reinit="finish_previous",  # of a packed trial before
        )

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """See `Tracker.log`."""
        # W&B's own step only rises, while a resumed run repeats some: the step is a value like the others.
        self._run.log({**values, "step": step})

    def close(self) -> None:
        """See `Tracker.close`."""
        self._run.finish()


def require_tracker(kind: str) -> None:
    """Check that a tracker's package is installed.

    Raises:
        UserError: it is not.
    """
    if kind != "none" and find_spec(PACKAGES[kind]) is None:
        raise UserError(
            f"telemetry.track is {kind}, but the package {PACKAGES[kind]} is not installed. Install it with "
            "pip install 'vadv-dist[track]', or set telemetry.track to none."
        )


def values_of(line: Line) -> dict[str, float]:
    """Name what a line tells, as trackers group it: `loss/…`, `weight/…`, `rate/…`, `validation/<model>/<metric>`."""
    if isinstance(line, StepLine):
        groups = {"loss": line.terms, "weight": line.weights, "rate": line.rates}
    elif isinstance(line, EpochLine):
        places = {"validation": line.validation, **{f"validation/{name}": m for name, m in line.sources.items()}}
        groups = {f"{place}/{model}": values for place, models in places.items() for model, values in models.items()}
    else:
        return {}
    return {
        f"{group}/{name}": float(value)
        for group, values in groups.items()
        for name, value in values.items()
        if value is not None
    }


@contextmanager
def tracking(
    kind: str, name: str, root: str, storage: Path | None, parameters: Mapping[str, object]
) -> Iterator[Callable[[Line], None]]:
    """Send a run's lines to a tracker in a background thread until the context exits.

    A tracker that fails is reported once and then ignored; it never stops training.

    Args:
        kind: `mlflow`, `wandb`, `tensorboard` or `none`.
        name: the run's name.
        root: the run's folder, which names it for good.
        storage: the folder that holds runs; None where it is an object store.
        parameters: the run's configuration, flat.
    Raises:
        UserError: the tracker cannot be had here.
    """
    if kind == "none":
        yield lambda line: None
        return
    require_tracker(kind)
    try:
        tracker = _open(kind, name, root, storage, parameters)
    except VadvError:
        raise
    except Exception as error:  # whatever a service or its library raises
        raise UserError(
            f"telemetry.track is {kind}, which cannot be reached: {str(error).rstrip('.')}. Set it up, or set "
            "telemetry.track to none."
        ) from error
    lines: queue.Queue[Line | None] = queue.Queue(_WAITING)

    def work() -> None:
        failed = False
        while (line := lines.get()) is not None:
            values = values_of(line)
            if failed or not values:
                continue
            try:
                tracker.log(line.step, values)
            except Exception as error:  # whatever a service or its library raises
                failed = True
                logger.warning("telemetry.track: %s failed and gets no more: %s", kind, error)
        if not failed:
            try:
                tracker.close()
            except Exception as error:
                logger.warning("telemetry.track: %s could not be closed: %s", kind, error)

    def give(line: Line | None) -> None:
        try:
            lines.put_nowait(line)
        except queue.Full:
            with contextlib.suppress(queue.Empty):
                lines.get_nowait()
            give(line)

    thread = threading.Thread(target=work, name="vadv-tracker", daemon=True)
    thread.start()
    try:
        yield give
    finally:
        give(None)
        thread.join(_CLOSING_S)


def flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, object]:
    """Nested sections as `section.field` keys."""
    fields: dict[str, object] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            fields |= flat(value, f"{prefix}{key}.")
        else:
            fields[prefix + key] = value
    return fields


def _open(kind: str, name: str, root: str, storage: Path | None, parameters: Mapping[str, object]) -> Tracker:
    if kind == "mlflow":
        return MlflowTracker(name, root, storage, parameters)
    if kind == "wandb":
        return WandbTracker(name, root, storage, parameters)
    if storage is None:
        raise UserError(
            "telemetry.track is tensorboard, whose files need a folder, but run.storage is an object store. Set "
            "telemetry.track to mlflow, wandb or none; `vadv watch` reads metrics.jsonl there."
        )
    return TensorBoardTracker(storage / name)


def _key(root: str) -> str:
    return hashlib.sha256(root.encode()).hexdigest()


# Signs that a tracker would refuse, or replace by others, in the name of a metric.
_MLFLOW, _TENSORBOARD = r"[^\w\-./: ]", r"[^\w\-./]"


def _plain_name(name: str, unwanted: str) -> str:
    """A name without unwanted signs; two names, such as those of two sources, never become one."""
    plain = re.sub(unwanted, "_", name)
    return plain if plain == name else f"{plain}-{hashlib.sha256(name.encode()).hexdigest()[:6]}"
