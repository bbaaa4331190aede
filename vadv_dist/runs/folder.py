"""A run on storage: its paths, who may write to it, and the lines and documents it keeps."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vadv_dist.config import Config, SourceConfig, config_to_dict, config_to_yaml
from vadv_dist.config.load import differing_keys
from vadv_dist.errors import UserError
from vadv_dist.runs.checkpoint import list_checkpoints
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

# Fields that change where and how a run computes, not what: a run may go on with other ones.
MACHINE_FIELDS = {
    "run": ("storage",),  # where the folder stands, in whichever spelling: it is that folder all the same
    "trainer": (
        *("num_workers", "cpus_per_worker", "use_gpu", "max_failures", "ray_address", "wait_for_room_s"),
        *("eval_batch_size", "grace_s"),
    ),
    "engine": ("kind", "zero_stage", "offload_optimizer"),
    "telemetry": ("port", "log_every_steps", "peak_flops", "track"),
}

# Below a run: traces of what nobody expected.
FAILURES = "failures"
_LOCK, _WRITER_LOCK = ".lock", ".writer-lock"
_TRAINED_ON = "trained-on.json"
_WRITER_WAIT_S = 120.0


@dataclass(frozen=True)
class RunFolder:
    """Paths of one run below its storage."""

    root: Location

    @classmethod
    def of(cls, config: Config) -> "RunFolder":
        """Return the folder that a configuration names."""
        return cls(location(config.run.storage) / config.run.name)

    @classmethod
    def open(cls, path: str | Location) -> "RunFolder":
        """Return an existing run.

        Raises:
            UserError: there is no run.
        """
        root = location(path)
        if not (root / "config.yaml").is_file():
            what = "holds no config.yaml" if root.is_dir() else "is a file" if root.is_file() else "does not exist"
            raise UserError(f"{root} {what}, so it is not a run. Give a folder that `vadv train` wrote (storage/name).")
        return cls(root)

    @property
    def config_path(self) -> Location:
        """Resolved configuration."""
        return self.root / "config.yaml"

    @property
    def trained_on_path(self) -> Location:
        """Places and fingerprints of data sets and encoder."""
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
        """A folder on the disk that holds the run; None in an object store."""
        return on_disk(self.root)

    def config(self) -> Config:
        """Read the run's own configuration."""
        from vadv_dist.config import load_config

        with local_copy(self.config_path) as path:
            return load_config(path)

    def result(self) -> RunResult | None:
        """The result of a complete run, else None.

        Raises:
            UserError: it is damaged, or of another version.
        """
        return RunResult.read(self.result_path) if self.result_path.is_file() else None

    def trained_on(self) -> TrainedOn | None:
        """What the run is trained on; None where there is no record."""
        if self.trained_on_path.is_file():
            try:
                return TrainedOn.from_json(read_json(self.trained_on_path))
            except (KeyError, TypeError, ValueError) as error:
                raise UserError(f"{self.trained_on_path} is malformed ({type(error).__name__}: {error}).") from None
        return None

    def claim(self, config: Config, trained_on: TrainedOn | None = None) -> bool:
        """Make this folder the run of `config`, or find that it already is.

        A run that never came to a checkpoint, because it was refused, failed or was killed, has nothing to lose: where
        its configuration, data or encoder was another one, its folder becomes the run of `config`.

        Args:
            config: the run's.
            trained_on: what it names from here; where that is known of the folder's run too, the fingerprints of data
                sets and encoder are compared instead of their places. None compares the places as they are written.
        Returns:
            whether there was such a run before.
        Raises:
            UserError: the folder holds a run of another configuration or of other data, or something that is no run.
        """
        if self.config_path.is_file() and not self.holds_work():
            begun_on = self.trained_on()
            is_other = begun_on is not None and trained_on is not None and begun_on.differing(trained_on)
            if is_other or self._differing(config, None):
                self._forget()
        earlier = self.trained_on()
        continues = self.config_path.is_file()
        if not continues:
            self._require_ours()
        if trained_on is not None:
            self.require_same(trained_on)
        if continues and (rows := self._differing(config, trained_on)):
            listed = "\n  ".join(rows)
            raise UserError(
                f"{self.root} holds a run of another configuration:\n  {listed}\n"
                "Give this one a name of its own (--run.name=…), or take the values back."
            )
        self._sweep()
        if trained_on is not None and trained_on != earlier:
            write_json(self.trained_on_path, trained_on.with_known(earlier).to_json())
        if not continues:
            write_text(self.config_path, config_to_yaml(config))
        return continues

    def _differing(self, config: Config, trained_on: TrainedOn | None) -> list[str]:
        """Fields in which a configuration is not that of the folder's run, with both values."""
        # Read as a configuration, so that a field which an earlier version did not have takes its default.
        before, now = _what(config_to_dict(self.config())), _what(config_to_dict(config))
        if trained_on is not None and self.trained_on() is not None:
            before, now = without_places(before), without_places(now)
        return differing_keys(before, now)

    def _forget(self) -> None:
        """Remove what a run without a checkpoint has left; its configuration last."""
        for place in (self.checkpoints, self.root / FAILURES):
            if place.is_dir():
                remove_tree(place)
        for path in (self.metrics_path, self.trained_on_path, self.config_path):
            path.unlink(missing_ok=True)

    def require_same(self, trained_on: TrainedOn) -> None:
        """Refuse what is not what the run is trained on, such as another data set under the same name.

        Raises:
            UserError: with both named.
        """
        earlier = self.trained_on()
        if earlier is not None and (difference := earlier.differing(trained_on)):
            raise UserError(
                f"The run in {self.root} was begun {difference}. Name what it was begun on, or give this run a name of "
                "its own (--run.name=…)."
            )

    def holds_work(self) -> bool:
        """Whether there is anything that training made."""
        return self.result_path.is_file() or bool(list_checkpoints(self.checkpoints))

    def _require_ours(self) -> None:
        """Refuse a folder that holds something, but no run nor what a killed start of one has left."""
        if self.root.is_file():
            raise UserError(f"{self.root} is a file. Give another run.name or run.storage.")
        if self.config_path.is_file() or not self.root.is_dir():
            return
        ours = (_LOCK, _WRITER_LOCK, ".ray", _TRAINED_ON)
        partial = (".config.yaml.partial-", f".{_TRAINED_ON}.partial-")
        if any(p.name not in ours and not p.name.startswith(partial) for p in self.root.iterdir()):
            raise UserError(
                f"{self.root} exists but is no run (it has no config.yaml), and nothing is written over it. "
                "Give another run.name or run.storage."
            )

    def _sweep(self) -> None:
        """Remove what killed attempts left half-written."""
        written = ("config.yaml", _TRAINED_ON, "metrics.jsonl", "result.json", "student", "validation-errors.parquet")
        sweep(self.root, written)

    @contextmanager
    def lock(self, wait_s: float = 0.0) -> Iterator[None]:
        """Keep a second process from writing to the same run; the lock ends with the process, however it ends.

        Args:
            wait_s: how long to wait for another process to let go.
        Raises:
            UserError: another process has it, or the folder holds something that is no run.
            MachineError: the storage cannot lock files.
        """
        self._require_ours()
        with run_lock(self.root, _LOCK, wait_s=wait_s):
            yield

    def writer_lock(self) -> AbstractContextManager[None]:
        """Keep two workers from writing at once: one that lost its driver may live on for some seconds."""
        return run_lock(self.root, _WRITER_LOCK, wait_s=_WRITER_WAIT_S)

    def metrics_log(self) -> MetricsLog:
        """What writes metrics.jsonl."""
        return MetricsLog(self.metrics_path)

    def write_result(self, result: RunResult) -> None:
        """Write result.json."""
        write_json(self.result_path, result.to_json())


def run_lock(root: Location, name: str, *, wait_s: float = 0.0) -> AbstractContextManager[None]:
    """Hold the lock `name` of a run or a search: `storage.exclusive` with its message."""
    taken = f"{root} is being trained by another process. Wait for it, or give another --run.name."
    return exclusive(root, name, taken=taken, wait_s=wait_s)


def without_places(raw: dict[str, Any]) -> dict[str, Any]:
    """A configuration without the places of its data sets and its encoder; the names of several sources stay."""
    sources = [SourceConfig(**source) for source in raw["data"]["sources"]]
    several = len(sources) > 1
    named = [{"name": s.title if several else s.name, "weight": s.weight} for s in sources]
    student = {key: value for key, value in raw["student"].items() if key != "encoder"}
    return {**raw, "data": {**raw["data"], "sources": named}, "student": student}


def _what(raw: dict[str, Any]) -> dict[str, Any]:
    """A configuration without the fields that say only where and how to compute."""
    return {
        section: {k: v for k, v in fields.items() if k not in MACHINE_FIELDS.get(section, ())}
        if isinstance(fields, dict)
        else fields
        for section, fields in raw.items()
    }
