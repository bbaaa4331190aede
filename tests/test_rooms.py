"""Who may import whom: docs/architecture.md, "Rooms"."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "vadv_dist"
BASE = {
    *("errors", "storage", "locks", "garbage", "stopping", "terminal", "parquet", "json_text", "csv_lines"),
    "__init__",
}
MAY_IMPORT = {
    "errors": set(),
    "garbage": set(),
    "stopping": set(),
    "storage": {"errors", "json_text", "object_storage", "object_client"},
    "object_storage": {"errors", "object_client"},
    "object_client": {"errors"},
    "locks": {"errors", "storage"},
    "terminal": set(),
    "json_text": set(),
    "csv_lines": {"errors"},
    "lasting": BASE,
    "parquet": {"errors", "parquet_pages"},
    "parquet_pages": set(),
    "recipes": BASE,
    "ray_connection": {"errors", "stopping"},
    "ray_probe": set(),
    "telemetry": {"errors", "telemetry"},
    "config": {"errors", "config"},
    "data": {"config", "data", *BASE},
    "features": {"data", "config", "models", "ray_connection", "features", *BASE},
    "models": {"errors", "models"},
    "objectives": {"errors", "objectives"},
    "evaluation": {"errors", "evaluation"},
    "tasks": {"models", "objectives", "evaluation", "data", "config", "tasks", *BASE},
    "training": {"tasks", "data", "config", "inference", "telemetry", "ray_connection", "training", *BASE},
    "inference": {"models", "evaluation", "inference", *BASE},
    "submission": {"config", "ray_connection", "submission", *BASE},
    "doctor": {"config", "models", "ray_connection", "submission", "training", *BASE},
    "reporting": {"evaluation", "config", "reporting", *BASE},
    "tuning": {
        *(
            "training",
            "evaluation",
            "inference",
            "reporting",
            "tasks",
            "data",
            "config",
            "recipes",
            "lasting",
            "tuning",
        ),
        *BASE,
    },
}
MACHINERY = {
    "ray": {
        "telemetry/ray_metrics.py",
        "data/windows.py",
        "features/ray_pipeline.py",
        "training/worker.py",
        "training/launch.py",
        "training/cluster.py",
        "training/ray_stop.py",
        "training/shared_folder.py",
        "ray_connection.py",
        "ray_probe.py",
        "submission/job.py",
        *("tuning/packed_pool.py", "tuning/distributed_pool.py"),
    },
    "deepspeed": {"training/deepspeed_engine.py"},
    "optuna": {
        f"tuning/{name}.py"
        for name in ("space", "study", "importance", "figures", "front", "lineage", "population", "report")
    },
    "s3fs": {"object_client.py"},
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
def test_no_room_reaches_up(path: Path) -> None:
    allowed = MAY_IMPORT.get(room(path))
    for name in imports(path):
        parts = name.split(".")
        if parts[0] == "vadv_dist" and allowed is not None:
            target = parts[1] if len(parts) > 1 else "__init__"
            assert target in allowed, f"{path.relative_to(PACKAGE)} imports {name}"
        if parts[0] in MACHINERY:
            assert str(path.relative_to(PACKAGE)) in MACHINERY[parts[0]], f"{path} imports {name}"


def test_every_room_has_its_rule() -> None:
    assert {room(path) for path in FILES} - {"cli", "demo", "__init__"} == set(MAY_IMPORT)


# Files from elsewhere are decoded in one place each, which bounds what they may ask for.
DOORS = {
    ("pq", "read_table"): {"parquet.py"},
    ("pq", "ParquetFile"): {"parquet.py"},
    ("yaml", "safe_load"): set(),
    ("yaml", "load"): {"config/yaml_text.py"},
    ("np", "load"): set(),
    ("pickle", "load"): set(),
    ("pickle", "loads"): set(),
}


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_files_from_elsewhere_are_decoded_in_one_place(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and isinstance(node.func.value, ast.Name)
        ):
            allowed = DOORS.get((node.func.value.id, node.func.attr))
            assert allowed is None or str(path.relative_to(PACKAGE)) in allowed, f"{path} line {node.lineno}"
