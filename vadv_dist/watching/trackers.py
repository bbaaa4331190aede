"""Experiment trackers for a run's metrics: MLflow, Weights & Biases, TensorBoard files."""

import contextlib
import hashlib
import logging
import os
import queue
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from vadv_dist.errors import UserError, VadvError
from vadv_dist.runs.records import EpochLine, Line, StepLine

logger = logging.getLogger(__name__)

# The package that each tracker needs.
PACKAGES = {"mlflow": "mlflow", "wandb": "wandb", "tensorboard": "tensorboardX"}
# Lines that may wait for a slow tracker; beyond that, the oldest are dropped.
_WAITING = 10_000
_CLOSING_S = 30.0
# Characters that a tracker would refuse or replace in the name of a metric.
_MLFLOW, _TENSORBOARD = r"[^\w\-./: ]", r"[^\w\-./]"

# Logs the values of one step.
Log = Callable[[int, Mapping[str, float]], None]


@contextmanager
def _tensorboard(folder: Path) -> Iterator[Log]:
    """Event files in the run's folder, for `tensorboard --logdir`."""
    from tensorboardX import SummaryWriter

    writer = SummaryWriter(str(folder / "tensorboard"), flush_secs=10)

    def log(step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            writer.add_scalar(_plain_name(name, _TENSORBOARD), value, step)

    yield log
    writer.close()


@contextmanager
def _mlflow(name: str, root: str, storage: Path | None, parameters: Mapping[str, object]) -> Iterator[Log]:
    """A run of an MLflow experiment, which is found again when training resumes.

    `MLFLOW_TRACKING_URI` and `MLFLOW_EXPERIMENT_NAME` set the location; the defaults are `mlflow.db` next to the runs,
    and the experiment `vadv`.
    """
    from mlflow.entities import Metric, Param, RunStatus
    from mlflow.tracking import MlflowClient

    default = None if storage is None else f"sqlite:///{storage.resolve() / 'mlflow.db'}"
    uri = os.environ.get("MLFLOW_TRACKING_URI") or default
    if uri is None:
        raise UserError(
            "telemetry.track is mlflow, but run.storage is an object store, which cannot hold an MLflow database. Set "
            "MLFLOW_TRACKING_URI to an MLflow server."
        )
    client = MlflowClient(uri)
    title = os.environ.get("MLFLOW_EXPERIMENT_NAME", "vadv")
    existing = client.get_experiment_by_name(title)
    experiment = existing.experiment_id if existing else client.create_experiment(title)
    if found := client.search_runs([experiment], f"tags.`vadv.folder` = '{_key(root)}'", max_results=1):
        run = found[0].info.run_id
        client.update_run(run, RunStatus.to_string(RunStatus.RUNNING))
    else:
        run = client.create_run(experiment, run_name=name, tags={"vadv.folder": _key(root)}).info.run_id
        params = [Param(key, str(value)[:500]) for key, value in parameters.items()]
        for first in range(0, len(params), 100):  # MLflow's limit for one request
            client.log_batch(run, params=params[first : first + 100])

    def log(step: int, values: Mapping[str, float]) -> None:
        now_ms = int(time.time() * 1000)
        metrics = [Metric(_plain_name(name, _MLFLOW), value, now_ms, step) for name, value in values.items()]
        client.log_batch(run, metrics=metrics)

    yield log
    client.set_terminated(run)


@contextmanager
def _wandb(name: str, root: str, storage: Path | None, parameters: Mapping[str, object]) -> Iterator[Log]:
    """A run of Weights & Biases, whose project, entity and key come from its own variables (`WANDB_PROJECT`, …)."""
    import wandb

    run: Any = wandb.init(
        name=name,
        id=_key(root)[:32],
        resume="allow",
        dir=None if storage is None else str(storage / name),
        config=dict(parameters),
        reinit="finish_previous",  # of an earlier trial in the same process
    )
    # W&B's own step cannot decrease, but a resumed run repeats steps, so the step is an ordinary value.
    yield lambda step, values: run.log({**values, "step": step})
    run.finish()


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
    """Name the values of a line in groups: `loss/…`, `weight/…`, `rate/…`, `validation/<model>/<metric>`."""
    groups: dict[str, Mapping[str, float | None]] = {}
    if isinstance(line, StepLine):
        groups = {"loss": line.terms, "weight": line.weights, "rate": line.rates}
    elif isinstance(line, EpochLine):
        places = {"validation": line.validation, **{f"validation/{name}": m for name, m in line.sources.items()}}
        groups = {f"{place}/{model}": values for place, models in places.items() for model, values in models.items()}
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
        root: the run's folder, which identifies the run.
        storage: the folder that contains the runs; None in an object store.
        parameters: the run's configuration, flat.
    Raises:
        UserError: the tracker is not available.
    """
    if kind == "none":
        yield lambda line: None
        return
    try:
        tracker = _tracker(kind, name, root, storage, parameters)
        log = tracker.__enter__()  # left by the thread, unless the tracker fails
    except VadvError:
        raise
    except Exception as error:  # whatever a service or its library raises
        raise UserError(
            f"telemetry.track is {kind}, which cannot be reached: {str(error).rstrip('.')}. Set it up, or set "
            "telemetry.track to none."
        ) from error
    lines: queue.Queue[Line | None] = queue.Queue(_WAITING)

    def work() -> None:
        try:
            while (line := lines.get()) is not None:
                if values := values_of(line):
                    log(line.step, values)
            tracker.__exit__(None, None, None)
        except Exception as error:  # whatever a service or its library raises
            logger.warning("telemetry.track: %s failed and gets no more values: %s", kind, error)

    def give(line: Line | None) -> None:
        while True:
            try:
                return lines.put_nowait(line)
            except queue.Full:
                with contextlib.suppress(queue.Empty):
                    lines.get_nowait()

    thread = threading.Thread(target=work, name="vadv-tracker", daemon=True)
    thread.start()
    try:
        yield give
    finally:
        give(None)
        thread.join(_CLOSING_S)


def flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, object]:
    """Flatten nested sections to `section.field` keys."""
    fields: dict[str, object] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            fields |= flat(value, f"{prefix}{key}.")
        else:
            fields[prefix + key] = value
    return fields


def _tracker(
    kind: str, name: str, root: str, storage: Path | None, parameters: Mapping[str, object]
) -> AbstractContextManager[Log]:
    if kind == "mlflow":
        return _mlflow(name, root, storage, parameters)
    if kind == "wandb":
        return _wandb(name, root, storage, parameters)
    if storage is None:
        raise UserError(
            "telemetry.track is tensorboard, whose files need a folder, but run.storage is an object store. Set "
            "telemetry.track to mlflow, wandb or none; `vadv watch` can follow the run."
        )
    return _tensorboard(storage / name)


def _key(root: str) -> str:
    return hashlib.sha256(root.encode()).hexdigest()


def _plain_name(name: str, unwanted: str) -> str:
    """A name without unwanted characters; different names stay different."""
    plain = re.sub(unwanted, "_", name)
    return plain if plain == name else f"{plain}-{hashlib.sha256(name.encode()).hexdigest()[:6]}"
