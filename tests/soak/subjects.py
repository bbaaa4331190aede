"""What is disturbed: kinds of work with their commands, how far they are, and what they leave."""

import dataclasses
import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from artefacts import artefacts

from vadv_dist.storage import location

_CONFIG = """
run: {{name: run, storage: "{storage}", seed: 5}}
data: {{sources: [{{uri: "{data}"}}], batch_size: 4}}
teacher: {{width: 16, heads: 2, hidden: 16}}
student: {{encoder: "{encoder}", pretrained: false, hidden: 32}}
optimizer: {{lr: 1.0e-3, new_module_lr_factor: 1.0, warmup_steps: 3}}
trainer: {{epochs: {epochs}, use_gpu: false, checkpoint_every_steps: 5, num_workers: {workers}, max_failures: 20,
  cpus_per_worker: 1, hang_timeout_s: 5, wait_for_room_s: 60}}
engine: {{kind: torch}}
telemetry: {{log_every_steps: 1}}
"""
_SPACE = """
search: {num_trials: 2, seeds: 3, top: 1, leave_one_out: false, scheduler: none, sampler: random}
space:
  optimizer.lr: {distribution: float, low: 1.0e-4, high: 1.0e-2, log: true}
"""
# Fields with times, which differ between runs, besides those whose names end with "_s".
_TIMES = {"time", "seconds", "samples_per_s", "tokens_per_s", "mfu"}


@dataclasses.dataclass(frozen=True)
class Subject:
    """One kind of work.

    Attributes:
        name: for the table.
        arguments: of `vadv`, given the folder or URI of its output.
        progress: how far it is, in steps of its own, given its output; 0 if nothing is there.
        outcome: what it left, comparable between runs, given its output.
        files: files whose loss or damage it should survive, given its output: those of checkpoints.
        inputs: files that it reads.
        starts: the steps from which its attempts continued, if it counts steps.
        on_ray: whether it runs on a Ray cluster.
        weight: how often it is chosen.
    """

    name: str
    arguments: Callable[[str], list[str]]
    progress: Callable[[str], int]
    outcome: Callable[[str], dict[str, Any]]
    files: Callable[[str], list[Path]] = lambda output: []
    inputs: tuple[Path, ...] = ()
    starts: Callable[[str], list[int]] = lambda output: []
    in_object_store: bool = False
    on_ray: bool = False
    weight: int = 1


def make(folder: Path) -> list[Subject]:
    """Make data, and the subjects that use it."""
    from vadv_dist.data.synth import make_dataset

    data = folder / "data"
    make_dataset(data, num_clips=60, seed=3)
    shards = tuple(sorted(data.rglob("*.parquet")))
    return [
        _training(folder, shards),
        _training(folder, shards, s3=True),
        _training(folder, shards, ray=True),
        _search(folder),
        _extraction(folder),
        _workflow(folder),
    ]


def _training(folder: Path, shards: tuple[Path, ...], *, s3: bool = False, ray: bool = False) -> Subject:
    data = folder / "data"
    name = "training, S3" if s3 else "training, Ray" if ray else "training"

    def arguments(output: str) -> list[str]:
        config = folder / f"{name.replace(', ', '-')}.yaml"
        epochs, workers = 4 if s3 else 8, 2 if ray else 0
        config.write_text(
            _CONFIG.format(storage=output, data=data, encoder=data / "encoder", epochs=epochs, workers=workers)
        )
        return ["train", "--config", str(config)]

    return Subject(
        name=name,
        arguments=arguments,
        progress=lambda output: len(_lines(output, "step")),
        outcome=_run_outcome,
        files=lambda output: [] if s3 else sorted(Path(output).glob("run/checkpoints/*/*")),
        inputs=shards,
        starts=lambda output: [int(line["step"]) for line in _lines(output, "start")],
        in_object_store=s3,
        on_ray=ray,
        weight=2 if s3 else 1 if ray else 5,
    )


def _lines(output: str, *kinds: str) -> list[dict[str, Any]]:
    path = location(output) / "run" / "metrics.jsonl"
    try:
        text = path.read_bytes().decode(errors="replace")
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
    run = location(output) / "run"
    lines = [
        {name: value for name, value in line.items() if name not in _TIMES and not name.endswith("_s")}
        for line in _lines(output, "step", "epoch")
    ]
    weights = {
        str(path)[len(str(run)) :]: _sha256(path)
        for pattern in ("student/*.safetensors", "checkpoints/*/*.safetensors")
        for path in run.glob(pattern)
    }
    return {"lines": lines, **weights}


def _search(folder: Path) -> Subject:
    data = folder / "data"
    space = folder / "space.yaml"
    space.write_text(_SPACE)

    def arguments(output: str) -> list[str]:
        config = folder / "search.yaml"
        config.write_text(_CONFIG.format(storage=output, data=data, encoder=data / "encoder", epochs=1, workers=0))
        return ["tune", "--config", str(config), "--space", str(space), "--no-ray"]

    def study(output: str) -> Path:
        return Path(output) / "run-space"

    def outcome(output: str) -> dict[str, Any]:
        found = json.loads((study(output) / "tune.json").read_text())
        return {"trials": _without_times(found)}

    return Subject(
        name="search",
        arguments=arguments,
        progress=lambda output: len(list(study(output).rglob("metrics.jsonl"))),
        outcome=outcome,
    )


def _extraction(folder: Path) -> Subject:
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

    def arguments(output: str) -> list[str]:
        config = folder / "extract.yaml"
        config.write_text(
            f"""
clips: {{csv: {listed}}}
output: {{uri: {output}/data, shard_rows: 3, max_rejected: 0.01}}
frames: {{visual: 4, face: 8}}
image: {{encoder: {encoder}}}
faces: {{kind: none}}
batching: {{clips: 2, precision: fp32}}
compute: {{num_workers: 0, use_gpu: false}}
"""
        )
        return ["extract", "--config", str(config)]

    def progress(output: str) -> int:
        return len(list(Path(output).rglob("*.parquet")))

    return Subject("extraction", arguments, progress, lambda output: _hashed(contents(Path(output) / "data")))


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

    def progress(output: str) -> int:
        return len(list(Path(output).rglob("stage.json")))

    def outcome(output: str) -> dict[str, Any]:
        # The output's own place is part of some pages.
        found = artefacts(Path(output))
        return _hashed({name: data.replace(output.encode(), b"") for name, data in found.items()})

    return Subject("workflow", arguments, progress, outcome)


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


def clear(output: str) -> None:
    """Remove what a subject left."""
    if output.startswith("s3://"):
        for path in location(output).glob("**/*"):
            path.unlink()
    else:
        shutil.rmtree(output, ignore_errors=True)
