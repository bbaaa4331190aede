"""A run on storage: its paths, who may write to it, and the lines and documents it keeps."""

import fcntl
import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vadv_dist.config import Config, config_to_dict, config_to_yaml
from vadv_dist.config.load import differing_keys
from vadv_dist.errors import MachineError, UserError
from vadv_dist.storage import disk_faults, local_path, read_json, write_json, write_text

# Fields that change where and how a run computes, not what: a run may go on with other ones.
MACHINE_FIELDS = {
    "run": ("storage",),  # where the folder stands, in whichever spelling: it is that folder all the same
    "trainer": ("num_workers", "cpus_per_worker", "use_gpu", "max_failures", "eval_batch_size"),
    "engine": ("kind", "zero_stage", "offload_optimizer"),
    "telemetry": ("port", "log_every_steps"),
}


@dataclass(frozen=True)
class RunFolder:
    """Paths of one run below its storage."""

    root: Path

    @classmethod
    def of(cls, config: Config) -> "RunFolder":
        """Return the folder that a configuration names."""
        return cls(local_path(config.run.storage) / config.run.name)

    @classmethod
    def open(cls, path: str | Path) -> "RunFolder":
        """Return an existing run.

        Raises:
            UserError: there is no run.
        """
        root = local_path(path)
        if not (root / "config.yaml").is_file():
            what = "holds no config.yaml" if root.is_dir() else "does not exist"
            raise UserError(f"{root} {what}, so it is not a run. Give a folder that `vadv train` wrote (storage/name).")
        return cls(root)

    @property
    def config_path(self) -> Path:
        """Resolved configuration."""
        return self.root / "config.yaml"

    @property
    def metrics_path(self) -> Path:
        """One JSON line per logged step and per epoch."""
        return self.root / "metrics.jsonl"

    @property
    def result_path(self) -> Path:
        """Written when the run is complete."""
        return self.root / "result.json"

    @property
    def checkpoints(self) -> Path:
        """Folder of the checkpoints."""
        return self.root / "checkpoints"

    @property
    def student(self) -> Path:
        """The exported text model of the best checkpoint."""
        return self.root / "student"

    def config(self) -> Config:
        """Read the run's own configuration."""
        from vadv_dist.config import load_config

        return load_config(self.config_path)

    def result(self) -> dict[str, Any] | None:
        """What a complete run came to, or None."""
        return read_json(self.result_path) if self.result_path.is_file() else None

    def claim(self, config: Config) -> bool:
        """Make this folder the run of `config`, or find that it already is.

        Returns:
            whether there was such a run before.
        Raises:
            UserError: the folder holds a run of another configuration, or something that is no run.
        """
        if self.config_path.is_file():
            # Read as a configuration, so that a field which an earlier version did not have takes its default.
            rows = differing_keys(_what(config_to_dict(self.config())), _what(config_to_dict(config)))
            if rows:
                listed = "\n  ".join(rows)
                raise UserError(
                    f"{self.root} holds a run of another configuration:\n  {listed}\n"
                    "Give this one a name of its own (--run.name=…), or take the values back."
                )
            self._sweep()
            return True
        self._require_ours()
        self._sweep()
        write_text(self.config_path, config_to_yaml(config))
        return False

    def _require_ours(self) -> None:
        """Refuse a folder that holds something, but no run nor what a killed start of one has left."""
        if self.root.is_file():
            raise UserError(f"{self.root} is a file. Give another run.name or run.storage.")
        if self.config_path.is_file() or not self.root.is_dir():
            return
        if any(p.name != ".lock" and not p.name.startswith(".config.yaml.partial-") for p in self.root.iterdir()):
            raise UserError(
                f"{self.root} exists but is no run (it has no config.yaml), and nothing is written over it. "
                "Give another run.name or run.storage."
            )

    def _sweep(self) -> None:
        """Remove what killed attempts left half-written."""
        for path in (self.config_path, self.metrics_path, self.result_path, self.student):
            for left in self.root.glob(f".{path.name}.partial-*"):
                if left.is_dir():
                    shutil.rmtree(left)
                else:
                    left.unlink()

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keep a second process from writing to the same run; the lock ends with the process, however it ends.

        Raises:
            UserError: another process has it, or the folder holds something that is no run.
            MachineError: the storage cannot lock files.
        """
        self._require_ours()
        with disk_faults(self.root, "nothing was started."):
            self.root.mkdir(parents=True, exist_ok=True)
            file = (self.root / ".lock").open("w")
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise UserError(
                    f"{self.root} is being trained by another process. Wait for it, or give another --run.name."
                ) from None
            except OSError as error:
                raise MachineError(
                    f"{file.name} cannot be locked ({error.strerror}), so a second process could write to the same "
                    "run. Nothing was started. Give a run.storage that knows file locks."
                ) from error
            yield

    def append_metrics(self, line: Mapping[str, object]) -> None:
        """Add one line to metrics.jsonl; its numbers must be finite."""
        with disk_faults(self.metrics_path, "checkpoints are as they were."), self.metrics_path.open("a") as file:
            file.write(json.dumps(line) + "\n")

    def trim_metrics(self, last_step: int) -> None:
        """Drop the lines after a step: those of an attempt that was killed and is now repeated."""
        if not self.metrics_path.is_file():
            return
        kept = []
        before = self.metrics_path.read_text(encoding="utf-8")
        for line in before.splitlines():
            try:
                if json.loads(line)["step"] <= last_step:
                    kept.append(line)
            except (json.JSONDecodeError, KeyError, TypeError):
                continue  # the half-written last line of a killed attempt
        after = "".join(f"{line}\n" for line in kept)
        if after != before:
            write_text(self.metrics_path, after)

    def write_result(self, result: Mapping[str, object]) -> None:
        """Write result.json."""
        write_json(self.result_path, finite(result))


def finite(value: Any) -> Any:
    """Copy plain containers with every NaN and infinity as None, which JSON can hold."""
    if isinstance(value, float):
        return value if abs(value) < float("inf") else None
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return value


def _what(raw: dict[str, Any]) -> dict[str, Any]:
    """A configuration without the fields that say only where and how to compute."""
    return {
        section: {k: v for k, v in fields.items() if k not in MACHINE_FIELDS.get(section, ())}
        if isinstance(fields, dict)
        else fields
        for section, fields in raw.items()
    }
