"""The folder of a run: its paths, locks and documents."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vadv_dist.config import Config, SourceConfig, config_to_dict, config_to_yaml
from vadv_dist.config.load import differing_keys
from vadv_dist.errors import UserError
from vadv_dist.runs.checkpoint import last_checkpoint
from vadv_dist.runs.metrics_log import MetricsLog
from vadv_dist.runs.records import RunResult
from vadv_dist.runs.trained_on import TrainedOn
from vadv_dist.storage import (
    Location,
    exclusive,
    local_copy,
    location,
    on_disk,
    read_json,
    remove_tree,
    sweep,
    write_json,
    write_text,
)

# Fields that affect where and how a run computes, but not its results: they may change when a run is resumed.
MACHINE_FIELDS = {
    "run": ("storage",),  # the same folder may be spelled in several ways
    "trainer": (
        *("num_workers", "cpus_per_worker", "use_gpu", "max_failures", "ray_address", "wait_for_room_s"),
        *("eval_batch_size", "grace_s", "hang_timeout_s", "checkpoint_every_s", "checkpoint_every_epochs", "keep_last"),
    ),
    "engine": ("kind", "zero_stage", "offload_optimizer"),
    "telemetry": ("port", "log_every_steps", "peak_flops", "track"),
}

# Folder in a run for tracebacks of unexpected errors.
FAILURES = "failures"
# How a run of a search or a study failed, so that it is not tried again.
FAILURE = "failure.json"
_LOCK, _WRITER_LOCK = ".lock", ".writer-lock"
_TRAINED_ON = "trained-on.json"
_ERRORS = "validation-errors.parquet"
_WRITER_WAIT_S = 120.0


@dataclass(frozen=True)
class RunFolder:
    """One run on storage."""

    root: Location

    @classmethod
    def of(cls, config: Config) -> "RunFolder":
        """Return the folder of a configuration's run."""
        return cls(location(config.run.storage) / config.run.name)

    @classmethod
    def open(cls, path: str | Location) -> "RunFolder":
        """Return an existing run.

        Raises:
            UserError: there is no run.
        """
        root = location(path)
        if not (root / "config.yaml").is_file():
            what = "has no config.yaml" if root.is_dir() else "is a file" if root.is_file() else "does not exist"
            raise UserError(f"{root} {what}, so it is not a run. {_instead(root, str(path))}")
        return cls(root)

    @property
    def config_path(self) -> Location:
        """Resolved configuration."""
        return self.root / "config.yaml"

    @property
    def trained_on_path(self) -> Location:
        """Locations and fingerprints of data sets and encoder."""
        return self.root / _TRAINED_ON

    @property
    def metrics_path(self) -> Location:
        """One JSON line per logged step and per epoch."""
        return self.root / "metrics.jsonl"

    @property
    def result_path(self) -> Location:
        """Written when the run is complete."""
        return self.root / "result.json"

    @property
    def checkpoints(self) -> Location:
        """Folder of the checkpoints."""
        return self.root / "checkpoints"

    @property
    def student(self) -> Location:
        """The exported text model of the best checkpoint."""
        return self.root / "student"

    @property
    def disk(self) -> Path | None:
        """The run's folder on disk; None in an object store."""
        return on_disk(self.root)

    def config(self) -> Config:
        """Read the run's configuration."""
        from vadv_dist.config import load_config

        with local_copy(self.config_path) as path:
            return load_config(path)

    def result(self) -> RunResult | None:
        """Read the result of a complete run; None if it is not complete.

        Raises:
            UserError: it is damaged, or was written by another version.
        """
        return RunResult.read(self.result_path) if self.result_path.is_file() else None

    def completed(self, config: Config) -> RunResult | None:
        """The result if the run is complete; None while it is not, also if `config` extends it by more epochs."""
        result = self.result()
        return None if result is not None and is_extended(result, config) else result

    def trained_on(self) -> TrainedOn | None:
        """Read what the run is trained on; None if it was not recorded."""
        if self.trained_on_path.is_file():
            try:
                return TrainedOn.from_json(read_json(self.trained_on_path))
            except (KeyError, TypeError, ValueError) as error:
                raise UserError(f"{self.trained_on_path} is malformed ({type(error).__name__}: {error}).") from None
        return None

    def claim(self, config: Config, trained_on: TrainedOn | None = None) -> bool:
        """Create the run of `config` in this folder, or check that it is already there.

        A run with another configuration, data or encoder is replaced if it has no checkpoint yet. A complete run is
        extended by a configuration that differs in a higher `trainer.epochs` alone.

        Args:
            config: the run's configuration.
            trained_on: its data sets and encoder. If the folder has such a record too, fingerprints are compared
                instead of locations. None compares locations as written.
        Returns:
            whether the run existed before.
        Raises:
            UserError: the folder contains a run with another configuration or data, or something else.
        """
        holds_work = self.holds_work()
        if self.config_path.is_file() and not holds_work:
            begun_on = self.trained_on()
            is_other = begun_on is not None and trained_on is not None and begun_on.differing(trained_on)
            if is_other or self.differing(config, None):
                self._forget()
        earlier = self.trained_on()
        continues = self.config_path.is_file()
        if not continues:
            self.require_ours()
        if trained_on is not None:
            self.require_same(trained_on)
        if continues and holds_work and (rows := self.differing(config, trained_on)):
            self._require_extended(config, trained_on, rows)
            write_text(self.config_path, config_to_yaml(config))  # from now on, the result is that of a shorter run
        self._sweep()
        if trained_on is not None and trained_on != earlier:
            write_json(self.trained_on_path, trained_on.with_known(earlier).to_json())
        if not continues:
            write_text(self.config_path, config_to_yaml(config))
        return continues

    def _require_extended(self, config: Config, trained_on: TrainedOn | None, rows: list[str]) -> None:
        """Check that `config`, which differs in `rows`, is that of the complete run with more epochs."""
        result = self.result()
        if result is None or not self._is_longer(config, trained_on, result):
            listed = "\n  ".join(rows)
            raise UserError(
                f"{self.root} contains a run with another configuration:\n  {listed}\n"
                "Choose another --run.name, leave it out (runs without a name are numbered), or use the "
                "earlier values. Only trainer.epochs may grow, once all epochs are trained."
            )
        if not is_extended(result, config):
            raise UserError(
                f"{self.root} ended before all its epochs ({result.stopped}), so further ones would not be trained. "
                "Choose another --run.name, with another trainer.patience or trainer.max_steps."
            )

    def holds_same(self, config: Config, trained_on: TrainedOn) -> bool:
        """Whether the run here has the same configuration, data and encoder."""
        earlier = self.trained_on()
        return not (earlier is not None and earlier.differing(trained_on)) and not self.differing(config, trained_on)

    def is_extended_by(self, config: Config, trained_on: TrainedOn) -> bool:
        """Whether the run here is complete, and `config` is the same run with more epochs."""
        earlier, result = self.trained_on(), self.result()
        if result is None or (earlier is not None and earlier.differing(trained_on)):
            return False
        return is_extended(result, config) and self._is_longer(config, trained_on, result)

    def _is_longer(self, config: Config, trained_on: TrainedOn | None, result: RunResult) -> bool:
        """Whether `config` differs from the complete run here in a higher number of epochs alone."""
        before = self.config()
        longer = replace(before, trainer=replace(before.trainer, epochs=config.trainer.epochs))
        return result.epochs < config.trainer.epochs and not self.differing(config, trained_on, longer)

    def differing(self, config: Config, trained_on: TrainedOn | None, earlier: Config | None = None) -> list[str]:
        """Fields in which a configuration differs from the folder's run, with both values.

        Args:
            config: the configuration.
            trained_on: its data sets and encoder, which are then compared elsewhere; None compares their locations.
            earlier: a configuration to compare with instead of the run's.
        """
        # Load it as a configuration, so that fields added by a later version have their defaults.
        before, now = (
            without_machine_fields(config_to_dict(earlier or self.config())),
            without_machine_fields(config_to_dict(config)),
        )
        if trained_on is not None and self.trained_on() is not None:
            before, now = without_places(before), without_places(now)
        return differing_keys(before, now)

    def _forget(self) -> None:
        """Remove the files of a run without a checkpoint, its configuration last."""
        for place in (self.checkpoints, self.student, self.root / FAILURES):
            if place.is_dir():
                remove_tree(place)
        for path in (self.metrics_path, self.root / _ERRORS, self.trained_on_path, self.config_path):
            path.unlink(missing_ok=True)

    def require_same(self, trained_on: TrainedOn) -> None:
        """Check that data sets and encoder are those that the run is trained on.

        Raises:
            UserError: they differ, for example because a data set was replaced under the same name.
        """
        earlier = self.trained_on()
        if earlier is not None and (difference := earlier.differing(trained_on)):
            raise UserError(
                f"The run in {self.root} was started {difference}. Use the original ones, or choose another --run.name."
            )

    def holds_work(self) -> bool:
        """Whether it contains a checkpoint to continue from, or a result."""
        return self.result_path.is_file() or last_checkpoint(self.checkpoints) is not None

    def require_ours(self) -> None:
        """Check that the folder is empty, a run, or the remains of a run that was killed at its start."""
        if self.root.is_file():
            raise UserError(f"{self.root} is a file. Choose another run.name or run.storage.")
        if self.config_path.is_file() or not self.root.is_dir():
            return
        ours = (_LOCK, _WRITER_LOCK, ".ray", _TRAINED_ON)
        partial = (".config.yaml.partial-", f".{_TRAINED_ON}.partial-")
        if any(p.name not in ours and not p.name.startswith(partial) for p in self.root.iterdir()):
            raise UserError(
                f"{self.root} exists but is not a run (it has no config.yaml), and is not overwritten. Choose another "
                "run.name or run.storage."
            )

    def _sweep(self) -> None:
        """Remove partial files left by killed attempts."""
        written = ("config.yaml", _TRAINED_ON, "metrics.jsonl", "result.json", "student", FAILURE, _ERRORS)
        sweep(self.root, written)

    @contextmanager
    def lock(self, wait_s: float = 0.0) -> Iterator[None]:
        """Lock the run against other processes; the lock is released when the process ends for any reason.

        Args:
            wait_s: seconds to wait for another process to release it.
        Raises:
            UserError: another process holds it, or the folder contains something other than a run.
            MachineError: the storage does not support locks.
        """
        self.require_ours()
        with run_lock(self.root, _LOCK, wait_s=wait_s):
            yield

    def writer_lock(self) -> AbstractContextManager[None]:
        """Lock the run against other workers: one that lost its driver may keep running for some seconds."""
        return run_lock(self.root, _WRITER_LOCK, wait_s=_WRITER_WAIT_S)

    def metrics_log(self) -> MetricsLog:
        """The reader and writer of metrics.jsonl."""
        return MetricsLog(self.metrics_path)

    def write_result(self, result: RunResult) -> None:
        """Write result.json."""
        write_json(self.result_path, result.to_json())


def is_extended(result: RunResult, config: Config) -> bool:
    """Whether a configuration has more epochs than those after which a run was complete."""
    return result.stopped == "epochs" and result.epochs < config.trainer.epochs


def run_lock(root: Location, name: str, *, wait_s: float = 0.0) -> AbstractContextManager[None]:
    """Hold the lock `name` of a run or a search: `storage.exclusive` with its message."""
    taken = f"{root} is being trained by another process. Wait for it, or choose another --run.name."
    return exclusive(root, name, taken=taken, wait_s=wait_s)


def _instead(root: Location, given: str) -> str:
    """What to give instead of something that is not a run, as a sentence."""
    if (root.parent / "config.yaml").is_file():
        return f"It is part of one: give {root.parent}."
    if (root / "dataset.json").is_file():
        return "It is a data set: give the folder of a run that was trained on it (storage/name)."
    if root.is_dir():
        inner = sorted(path.name for path in root.iterdir() if (path / "config.yaml").is_file())
        if inner:
            more = ", …" if len(inner) > 3 else ""
            return f"It contains runs ({', '.join(inner[:3])}{more}): give one of them, such as {root / inner[0]}."
    elif not root.exists() and root.name == given and (location("runs") / given / "config.yaml").is_file():
        return f"Did you mean runs/{given}?"
    return "Give a folder written by `vadv train` (storage/name)."


def without_places(raw: dict[str, Any]) -> dict[str, Any]:
    """A configuration without the locations of its data sets and encoder; names of several sources are kept."""
    sources = [SourceConfig(**source) for source in raw["data"]["sources"]]
    several = len(sources) > 1
    named = [{"name": s.title if several else s.name, "weight": s.weight} for s in sources]
    student = {key: value for key, value in raw["student"].items() if key != "encoder"}
    return {**raw, "data": {**raw["data"], "sources": named}, "student": student}


def without_machine_fields(raw: dict[str, Any]) -> dict[str, Any]:
    """A configuration without `MACHINE_FIELDS`."""
    return {
        section: {k: v for k, v in fields.items() if k not in MACHINE_FIELDS.get(section, ())}
        if isinstance(fields, dict)
        else fields
        for section, fields in raw.items()
    }
