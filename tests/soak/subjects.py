"""What is disturbed: kinds of work with their commands, how far they are, and what they leave."""

import contextlib
import dataclasses
import fnmatch
import hashlib
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from artefacts import artefacts

from vadv_dist.errors import UserError
from vadv_dist.runs.checkpoint import checkpoint_at
from vadv_dist.storage import location

# Seconds after which a worker that is stopped is given up, and steps between two checkpoints.
HANG_S, CHECKPOINT_STEPS = 5, 5
_CONFIG = """
run: {{name: run, storage: "{storage}", seed: 5}}
data: {{sources: [{{uri: "{data}"}}], batch_size: 4}}
teacher: {{width: 16, heads: 2, hidden: 16}}
student: {{encoder: "{encoder}", pretrained: false, hidden: 32}}
optimizer: {{lr: 1.0e-3, new_module_lr_factor: 1.0, warmup_steps: 3}}
trainer: {{epochs: {epochs}, use_gpu: false, checkpoint_every_steps: {steps}, num_workers: {workers}, max_failures: 20,
  cpus_per_worker: 1, hang_timeout_s: {hang}, wait_for_room_s: 60}}
engine: {{kind: torch}}
telemetry: {{log_every_steps: 1}}
"""
_SPACE = """
search: {num_trials: 2, seeds: 3, top: 1, leave_one_out: false, scheduler: none, sampler: random, concurrent: 2,
  cpus_per_trial: 1}
space:
  optimizer.lr: {distribution: float, low: 1.0e-4, high: 1.0e-2, log: true}
"""
# Fields with times, which differ between runs, besides those whose names end with "_s"; and what a restart reads again.
_TIMES = {"time", "seconds", "samples_per_s", "tokens_per_s", "mfu", "node_bytes"}
# In an object store, the name of a checkpoint's file has a part that names the attempt to write it.
_ATTEMPT = re.compile(r"(?<=-\d)\.[0-9a-f]+-\d+(?=\.safetensors$)")


@dataclasses.dataclass(frozen=True)
class Subject:
    """One kind of work.

    Attributes:
        name: for the table.
        arguments: of `vadv`, given the folder or URI of its output.
        times: when each step of its progress was complete (seconds since 1970), given its output.
        saved: from how many steps a restart continues, if steps can be repeated; given its output.
        starts: the steps from which its attempts continued, if it counts them.
        outcome: what it left, comparable between runs, given its output.
        files: files whose loss or damage it should survive, given its output: those of checkpoints.
        inputs: files that it reads.
        in_object_store: whether its output is there.
        on_ray: title of the processes on a Ray cluster that do the work; empty if the command does it itself.
        at_once: how many trainings it may run at a time.
        weight: how often it is chosen.
    """

    name: str
    arguments: Callable[[str], list[str]]
    times: Callable[[str], list[float]]
    outcome: Callable[[str], dict[str, Any]]
    files: Callable[[str], list[Path]] = lambda output: []
    inputs: tuple[Path, ...] = ()
    saved: Callable[[str], int] | None = None
    starts: Callable[[str], list[int]] = lambda output: []
    in_object_store: bool = False
    on_ray: str = ""
    at_once: int = 1
    weight: int = 1

    def progress(self, output: str) -> int:
        """How far it is, in steps of its own."""
        return len(self.times(output))


def make(folder: Path) -> list[Subject]:
    """Make data, and the subjects that use it.

    Those on Ray take longer, so that they are chosen less often.
    """
    from vadv_dist.data.synth import make_dataset

    data = folder / "data"
    make_dataset(data, num_clips=60, seed=3)
    shards = tuple(sorted(data.rglob("*.parquet")))
    return [
        _training(folder, shards),
        _training(folder, shards, s3=True),
        _training(folder, shards, ray=True),
        _search(folder),
        _search(folder, ray=True),
        *_extractions(folder),
        _workflow(folder),
    ]


def _filled(output: str, data: Path, epochs: int, workers: int) -> str:
    return _CONFIG.format(
        storage=output,
        data=data,
        encoder=data / "encoder",
        epochs=epochs,
        workers=workers,
        hang=HANG_S,
        steps=CHECKPOINT_STEPS,
    )


def _training(folder: Path, shards: tuple[Path, ...], *, s3: bool = False, ray: bool = False) -> Subject:
    data = folder / "data"
    name = "training, S3" if s3 else "training, Ray" if ray else "training"

    def arguments(output: str) -> list[str]:
        config = folder / f"{name.replace(', ', '-')}.yaml"
        epochs, workers = 4 if s3 else 20 if ray else 8, 2 if ray else 0
        config.write_text(_filled(output, data, epochs, workers))
        return ["train", "--config", str(config)]

    return Subject(
        name=name,
        arguments=arguments,
        times=lambda output: _times(_run(output)),
        outcome=_run_outcome,
        files=lambda output: [] if s3 else sorted(Path(output).glob("run/checkpoints/*/*")),
        inputs=shards,
        saved=lambda output: _saved(_run(output)),
        starts=lambda output: [int(line["step"]) for line in _lines(_run(output), "start")],
        in_object_store=s3,
        on_ray="RayTrainWorker" if ray else "",
        weight=1 if ray else 3 if s3 else 6,
    )


def _run(output: str) -> Any:
    return location(output) / "run"


def _times(run: Any) -> list[float]:
    return [float(line["time"]) for line in _lines(run, "step")]


def _saved(run: Any) -> int:
    """The step that a restart of a run continues from."""
    if (run / "result.json").is_file():
        return len(_lines(run, "step"))
    steps = [0]
    for path in (run / "checkpoints").glob("step-*"):
        with contextlib.suppress(UserError, ValueError):  # its manifest was torn by a fault, or it is being written
            step = int(path.name.removeprefix("step-"))
            steps += [step] if checkpoint_at(run / "checkpoints", step).is_resumable else []
    return max(steps)


def _lines(run: Any, *kinds: str) -> list[dict[str, Any]]:
    try:
        text = (run / "metrics.jsonl").read_bytes().decode(errors="replace")
    except FileNotFoundError:
        return []
    found = []
    for line in text.splitlines():
        try:
            raw = json.loads(line)
        except ValueError:  # being written
            continue
        if raw.get("kind") in kinds:
            found.append(raw)
    return found


def _run_outcome(output: str) -> dict[str, Any]:
    run = _run(output)
    files = run.files() if output.startswith("s3://") else [path for path in run.rglob("*") if path.is_file()]
    names = {str(path)[len(str(run)) + 1 :]: path for path in files}
    weights = {
        _ATTEMPT.sub("", name): _sha256(path)
        for name, path in names.items()
        if name.endswith(".safetensors") and name.startswith(("student/", "checkpoints/"))
    }
    assert weights, f"{run} has none"
    return {"lines": _lines_of(run), **weights}


def _lines_of(run: Any) -> list[dict[str, Any]]:
    """What a run logged, without times."""
    return [
        {name: value for name, value in line.items() if name not in _TIMES and not name.endswith("_s")}
        for line in _lines(run, "step", "epoch")
    ]


def _search(folder: Path, *, ray: bool = False) -> Subject:
    data = folder / "data"
    space = folder / "space.yaml"
    space.write_text(_SPACE)

    def arguments(output: str) -> list[str]:
        config = folder / f"search-{ray}.yaml"
        epochs = 3 if ray else 1
        config.write_text(_filled(output, data, epochs, 0))
        command = ["tune", "--config", str(config), "--space", str(space)]
        return command if ray else [*command, "--no-ray"]

    def study(output: str) -> Path:
        return Path(output) / "run-space"

    def runs(output: str) -> list[Path]:
        return [path.parent for path in _found(study(output), "metrics.jsonl")]

    def outcome(output: str) -> dict[str, Any]:
        found = json.loads((study(output) / "tune.json").read_text())
        return {
            "trials": _without_times(found),
            **{str(run.relative_to(output)): _lines_of(run) for run in runs(output)},
        }

    return Subject(
        name="search, Ray" if ray else "search",
        arguments=arguments,
        times=lambda output: sorted(time for run in runs(output) for time in _times(run)),
        outcome=outcome,
        saved=lambda output: sum(map(_saved, runs(output))),
        on_ray="TrialActor" if ray else "",
        at_once=2 if ray else 1,
        weight=1 if ray else 3,
    )


def _extractions(folder: Path) -> list[Subject]:
    import sys

    sys.path.insert(0, str(Path(__file__).parents[1] / "features"))
    from lists import HEADER, contents
    from tiny_models import write_clip
    from videos import write_list, write_video

    clips = folder / "clips"
    clips.mkdir()
    encoder = write_clip(folder / "clip")
    rows = []
    for number in range(24):
        write_video(clips / f"v{number}.mp4", frames=12, seed=number)
        rows.append((f"v{number}_0", f"v{number}", "train", f"{number % 7 - 3}", f"clip {number}", f"v{number}.mp4"))
    listed = write_list(clips / "clips.csv", rows, HEADER)

    def arguments(output: str, workers: int) -> list[str]:
        config = folder / f"extract-{workers}.yaml"
        config.write_text(
            f"""
clips: {{csv: {listed}}}
output: {{uri: {output}/data, shard_rows: 3, max_rejected: 0.01}}
frames: {{visual: 4, face: 8}}
image: {{encoder: {encoder}}}
faces: {{kind: none}}
batching: {{clips: 2, precision: fp32}}
compute: {{num_workers: {workers}, max_actors: 1, use_gpu: false}}
"""
        )
        return ["extract", "--config", str(config)]

    def outcome(output: str) -> dict[str, Any]:
        return _hashed(contents(Path(output) / "data"))

    def times(output: str) -> list[float]:
        return _written(output, "*.parquet")

    return [
        Subject("extraction", lambda output: arguments(output, 0), times, outcome, weight=2),
        Subject("extraction, Ray", lambda output: arguments(output, 2), times, outcome, on_ray="MapBatches"),
    ]


def _workflow(folder: Path) -> Subject:
    import importlib.util

    tests = Path(__file__).parents[1]
    spec = importlib.util.spec_from_file_location("workflow_conftest", tests / "workflow" / "conftest.py")
    assert spec is not None
    assert spec.loader is not None
    conftest = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(conftest)

    def arguments(output: str) -> list[str]:
        return ["soak-workflow", str(conftest.write_tiny(folder, output))]

    def times(output: str) -> list[float]:
        return _written(output, "stage.json")

    def outcome(output: str) -> dict[str, Any]:
        # The output's own place is part of some pages.
        found = artefacts(Path(output))
        return _hashed({name: data.replace(output.encode(), b"") for name, data in found.items()})

    return Subject("workflow", arguments, times, outcome, weight=2)


def incomplete(output: str) -> list[str]:
    """Hidden files and folders that killed processes left; in an object store there are none."""
    if output.startswith("s3://"):
        return []
    names = [Path(folder, name) for folder, folders, files in os.walk(output) for name in (*folders, *files)]
    return sorted(str(path.relative_to(output)) for path in names if ".partial-" in path.name)


def _found(root: Path, pattern: str) -> list[Path]:
    """Files with such a name; unlike in `Path.rglob`, folders may vanish meanwhile."""
    return [Path(folder, name) for folder, _, names in os.walk(root) for name in fnmatch.filter(names, pattern)]


def _written(output: str, pattern: str) -> list[float]:
    found = []
    for path in _found(Path(output), pattern):
        with contextlib.suppress(FileNotFoundError):  # moved meanwhile
            found.append(path.stat().st_mtime)
    return sorted(found)


def _hashed(found: dict[str, object]) -> dict[str, Any]:
    return {k: hashlib.sha256(v).hexdigest() if isinstance(v, bytes) else v for k, v in found.items()}


def _sha256(path: Any) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _without_times(value: Any) -> Any:
    if isinstance(value, dict):
        left = ("_s", "seconds", "time", "folder")
        # A study's name in Optuna's storage is random.
        return {k: _without_times(v) for k, v in value.items() if not k.endswith(left) and k != "study"}
    if isinstance(value, list):
        return [_without_times(v) for v in value]
    return value
