"""Who may import whom: docs/architecture.md, "Rooms"."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from vadv_dist.evaluation.label_scale import METRICS, LabelScale
from vadv_dist.objectives.step_distillation import TERMS
from vadv_dist.tasks.sentiment import PROMPT, STUDENT, VIDEO, describe

PACKAGE = Path(__file__).parents[1] / "vadv_dist"
BASE = {"__init__", "cuda", "errors", "formats", "storage"}
MAY_IMPORT = {
    "errors": set(),
    "cuda": set(),
    "lazy": set(),
    "formats": {"errors"},
    "storage": {"errors", "formats"},
    "runtime": {"errors", "storage"},
    "config": {"errors"},
    "models": {"errors"},
    "objectives": {"models", "evaluation", "errors"},
    "evaluation": {"errors"},
    "students": {"models", "objectives", "evaluation", "errors"},
    "data": {"config", *BASE},
    "features": {"data", "models", "config", "runtime", *BASE},
    "tasks": {"models", "objectives", "students", "evaluation", "inference", "data", "config", *BASE},
    "engines": {"tasks", "objectives", "data", "config", "cuda", "formats", "errors"},
    "runs": {"data", "models", "evaluation", "config", *BASE},
    "watching": {"runs", "evaluation", "runtime", *BASE},
    "inference": {"models", "evaluation", "runtime", *BASE},
    "serving": {"runtime", "models", "inference", "evaluation", *BASE},
    "training": {"tasks", "objectives", "engines", "runs", "inference", "data", "config", *BASE},
    "launch": {"training", "tasks", "engines", "runs", "watching", "inference", "data", "config", "runtime", *BASE},
    "reporting": {"runs", "evaluation", "config", *BASE},
    "tuning": {
        *("launch", "training", "tasks", "engines", "runs", "inference", "evaluation", "reporting"),
        *("data", "config", "runtime"),
        *BASE,
    },
    "advice": {"data", "models", "evaluation", *BASE},
    "studies": {
        *("tuning", "launch", "training", "tasks", "runs", "inference", "evaluation", "reporting"),
        *("data", "config", "runtime"),
        *BASE,
    },
    "submission": {"config", "runtime", *BASE},
    "workflow": {
        *("studies", "tuning", "launch", "training", "tasks", "runs", "inference", "evaluation", "reporting", "advice"),
        *("features", "data", "models", "config", "submission", "runtime"),
        *BASE,
    },
    "doctor": {"launch", "training", "tasks", "engines", "submission", "models", "config", "runtime", *BASE},
}
MACHINERY = {
    "ray": {
        *("watching/ray_metrics.py", "data/windows.py", "features/ray_pipeline.py"),
        *("launch/worker.py", "launch/cluster.py", "launch/stop_actor.py"),
        *("launch/controller_watch.py", "launch/driver_notes.py", "launch/ray_run.py"),
        *(
            "launch/shared_folder.py",
            "runtime/ray_connection.py",
            "runtime/ray_errors.py",
            "runtime/ray_probe.py",
            "submission/client.py",
            "serving/ray_serve.py",
        ),
        *(f"tuning/{name}.py" for name in ("trial_actor", "tune_adapters", "tune_pool", "tune_trackers")),
    },
    "deepspeed": {"engines/deepspeed_engine.py"},
    "optuna": {
        f"tuning/{name}.py" for name in ("space", "study", "figures", "front", "lineage", "population", "report")
    },
    "s3fs": {"storage/object_client.py"},
    "metaflow": set(),  # jobs/workflow.py alone
    "torchjd": {"objectives/weighting.py", "objectives/resumable_famo.py"},
}
FILES = sorted(PACKAGE.rglob("*.py"))


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield str(node.module)


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_no_room_imports_upwards(path: Path) -> None:
    allowed = MAY_IMPORT.get(room(path))
    for name in imports(path):
        parts = name.split(".")
        if parts[0] == "vadv_dist" and allowed is not None:
            target = parts[1] if len(parts) > 1 else "__init__"
            assert target in allowed | {room(path), "lazy"}, f"{path.relative_to(PACKAGE)} imports {name}"
        if parts[0] in MACHINERY:
            assert str(path.relative_to(PACKAGE)) in MACHINERY[parts[0]], f"{path} imports {name}"


def test_every_room_has_a_rule() -> None:
    assert {room(path) for path in FILES} - {"cli", "__init__"} == set(MAY_IMPORT)


# Untrusted files are decoded in one place per format, which limits their memory.
DOORS = {
    ("pq", "read_table"): {"formats/parquet.py"},
    ("pq", "ParquetFile"): {"formats/parquet.py"},
    ("yaml", "safe_load"): set(),
    ("yaml", "load"): {"config/yaml_text.py"},
    ("np", "load"): set(),
    ("pickle", "load"): set(),
    ("pickle", "loads"): set(),
}


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_untrusted_files_are_decoded_in_one_place(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and isinstance(node.func.value, ast.Name)
        ):
            allowed = DOORS.get((node.func.value.id, node.func.attr))
            assert allowed is None or str(path.relative_to(PACKAGE)) in allowed, f"{path} line {node.lineno}"


@pytest.mark.parametrize("path", [f for f in FILES if room(f) != "storage"], ids=lambda p: str(p.relative_to(PACKAGE)))
def test_only_storage_distinguishes_disk_and_object_store(path: Path) -> None:
    """Other rooms use the verbs of a location and do not ask whether it is on a disk or in an object store."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert not str(node.module).startswith("vadv_dist.storage."), f"{path} line {node.lineno}"
        if isinstance(node, ast.Call) and getattr(node.func, "id", None) == "isinstance" and room(path) != "cli":
            kinds = {n.id for n in ast.walk(node.args[1]) if isinstance(n, ast.Name)}
            assert not kinds & {"Path", "S3Path", "Location"}, f"{path} line {node.lineno}"


# What a task calls its terms, outputs and metrics; everything else reads the description that the task gives.
SPEAKS_OF_TASKS = ("tasks", "objectives", "models", "evaluation", "data/synth")
NAMES = {
    *(term.name for term in TERMS),
    *(output.column for output in (STUDENT, VIDEO, PROMPT)),
    *("class_logits", f"valid_{describe(LabelScale()).score}"),
    *(key for key in METRICS),
    *(metric.name for metric in METRICS.values()),
}
NAMED = re.compile(rf"\b({'|'.join(sorted(NAMES, key=len, reverse=True))})\b")


def spoken(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Identifiers and strings of code, docstrings left out."""
    documented = [n for n in ast.walk(tree) if isinstance(n, ast.Module | ast.ClassDef | ast.FunctionDef) and n.body]
    docstrings = {id(n.body[0].value) for n in documented if isinstance(n.body[0], ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            yield node.lineno, node.value
        elif isinstance(node, ast.Name | ast.Attribute | ast.arg):
            yield node.lineno, getattr(node, "id", None) or getattr(node, "attr", None) or getattr(node, "arg", "")


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_only_tasks_name_terms_outputs_and_metrics(path: Path) -> None:
    if str(path.relative_to(PACKAGE)).startswith(SPEAKS_OF_TASKS):
        return
    found = [(line, text) for line, text in spoken(ast.parse(path.read_text())) if NAMED.search(text)]
    assert not found, f"{path.relative_to(PACKAGE)} names what the task's description says: {found}"
