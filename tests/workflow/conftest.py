"""A small workflow on synthetic data."""

from collections.abc import Callable
from pathlib import Path

import pytest

from vadv_dist.workflow.plan import Workflow, plan_workflow

TINY = """
workflow: {{name: tiny, storage: "{storage}", seeds: [1, 2]}}
data:
  made: {{kind: synth, made: {{num_clips: 160, visual_shape: [2, 1, 8], face_shape: [2, 4]}}}}
advise: {{max_clips: 200}}
train:
  config: demo
  overrides:
    student.encoder: "data:made/encoder"
    trainer: {{num_workers: 0, use_gpu: false, epochs: 1}}
    engine: {{kind: torch}}
"""


def write_tiny(folder: Path, storage: object) -> Path:
    """Write the workflow's file."""
    file = folder / "tiny.yaml"
    file.write_text(TINY.format(storage=storage))
    return file


@pytest.fixture
def tiny(tmp_path: Path) -> Callable[..., Workflow]:
    """Plan the workflow in a folder of the test."""
    file = write_tiny(tmp_path, tmp_path / "runs")
    return lambda *overrides: plan_workflow(file, overrides)
