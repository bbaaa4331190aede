"""Ray Tune's callbacks for `telemetry.track`: the epochs of every trial in TensorBoard, MLflow or Weights & Biases."""

import os
from pathlib import Path
from typing import Any

from ray.tune.logger import TBXLoggerCallback

from vadv_dist.errors import UserError
from vadv_dist.storage import Location, on_disk


class TensorBoard(TBXLoggerCallback):
    """Event files in `tensorboard/` of the search's folder, one folder for each run."""

    def log_trial_start(self, trial: Any) -> None:
        """See Ray's `LoggerCallback`."""
        storage, name = Path(trial.config["run"]["storage"]), trial.config["run"]["name"]
        folder = storage.parent / "tensorboard" / storage.name / name
        self._trial_writer[trial] = self._summary_writer_cls(str(folder))
        self._trial_result[trial] = {}


def trackers(kind: str, storage: Location) -> list[Any]:
    """The callbacks of a tracker.

    Args:
        kind: a value of `telemetry.track`.
        storage: the folder of the search's runs.
    Raises:
        UserError: the tracker needs files, and the search is in an object store.
    """
    disk = on_disk(storage)
    if kind == "none":
        return []
    if kind == "wandb":
        from ray.air.integrations.wandb import WandbLoggerCallback

        return [WandbLoggerCallback(project=os.environ.get("WANDB_PROJECT", "vadv"))]
    if kind == "mlflow" and (disk is not None or "MLFLOW_TRACKING_URI" in os.environ):
        from ray.air.integrations.mlflow import MLflowLoggerCallback

        uri = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{Path(str(disk)).resolve() / 'mlflow.db'}"
        return [MLflowLoggerCallback(uri, experiment_name=os.environ.get("MLFLOW_EXPERIMENT_NAME", "vadv"))]
    if disk is None:
        raise UserError(
            f"telemetry.track is {kind}, whose files need a folder, but run.storage is an object store. Set "
            "telemetry.track to wandb or none, or MLFLOW_TRACKING_URI to an MLflow server."
        )
    return [TensorBoard()]  # type: ignore[no-untyped-call]  # untyped in Ray
